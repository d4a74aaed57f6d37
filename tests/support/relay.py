"""Sessions and server connections wired together without a network: the links are ends that a test holds."""

import re
from collections.abc import Callable
from typing import Any

from support.dialogue import asked, heard, query, say
from support.turns import Gate, TurnLoop

from protocol.types import CancelKey
from proxy.client.session import Session
from proxy.net.link import Link
from proxy.observe.record import QueryRecord
from proxy.observe.statistics import QueryStatistics
from proxy.query.statements import NAME_PREFIX, StatementCatalog
from proxy.server.connection import ServerConnection
from proxy.server.handshake import ConnectFailure, FailureKind, Greeting
from proxy.server.pool import Pool

Parameters = tuple[tuple[str, str], ...]

_OUR_NAME = re.compile(re.escape(NAME_PREFIX.decode()))
_GONE = re.compile(r"pgsluice_gone_\w+")


class HeldLink(Link):
    """A link whose other end the test holds: `written` is what was sent and not yet looked at."""

    def __init__(self, loop: TurnLoop, peer: str) -> None:
        super().__init__(None, loop, None)  # type: ignore[arg-type]
        self.peer = peer
        self.closed = False
        self.written = b""
        self.aborted = False

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.written += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.loop.call_soon(self.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def break_off(self, error: Exception | None = None) -> None:
        """The connection is lost; the handler learns of it in the loop's next turn, as with a real one."""
        self.closed = True
        self.loop.call_soon(self.connection_lost, error)

    def take(self) -> bytes:
        written, self.written = self.written, b""
        return written


class QuietLog:
    """A structlog logger's methods; `lines` are (level, event)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **_: self.lines.append((level, event))


class Attempt:
    """A connection that the pool has asked for: `succeed`, `fail` or `lose` it."""

    def __init__(self, primary: "HeldPrimary", parameters: Parameters, pid: int) -> None:
        self.parameters = parameters
        self.pid = pid
        self._primary = primary
        self.gate = Gate(primary.loop)

    def succeed(self, *, lost: bool = False) -> "Backend":
        """`lost`: it breaks between log-in and hand-over."""
        link = HeldLink(self._primary.loop, f"server {self.pid}")
        greeting = Greeting(self.pid, self.pid.to_bytes(4, "big"), {"server_version": "17.1"}, b"")
        backend = Backend(link, self.pid)
        self._primary.backends.append(backend)
        if lost:
            link.break_off()
        self._end()
        self.gate.open((link, greeting))
        self._primary.loop.run()
        return backend

    def fail(
        self, kind: FailureKind = FailureKind.UNREACHABLE, sqlstate: str = "08001", message: str = "no way"
    ) -> None:
        self.fail_with(ConnectFailure(kind, sqlstate, message))

    def fail_with(self, error: Exception) -> None:
        self._end()
        self.gate.fail(error)
        self._primary.loop.run()

    def _end(self) -> None:
        self._primary.attempts.remove(self)


class HeldPrimary:
    """Stands for `server.primary.Primary`: `attempts` are the connections under way, oldest first; with
    `at_once` they succeed by themselves. `cancelled` are the servers that were to be cancelled.
    """

    def __init__(self, loop: TurnLoop, prepared_statements: int) -> None:
        self.loop = loop
        self.prepared_statements = prepared_statements
        self.at_once = True
        self.attempts: list[Attempt] = []
        self.attempted = 0
        self.backends: list[Backend] = []
        self.cancelled: list[ServerConnection] = []

    async def connect(
        self, user: str, database: str, parameters: Parameters, credential: object
    ) -> tuple[Link, Greeting]:
        self.attempted += 1
        attempt = Attempt(self, parameters, 1000 + self.attempted)
        self.attempts.append(attempt)
        if self.at_once:
            self.loop.call_soon(attempt.succeed)
        result: tuple[Link, Greeting] = await attempt.gate
        return result

    def cancel(self, server: ServerConnection) -> None:
        server.cancels += 1
        self.cancelled.append(server)


class Backend:
    """The server's end of a server connection."""

    def __init__(self, link: HeldLink, pid: int) -> None:
        self.link = link
        self.pid = pid

    @property
    def connection(self) -> ServerConnection:
        handler = self.link.handler
        assert isinstance(handler, ServerConnection)
        return handler

    def asked(self) -> list[str]:
        """What it has been asked since the last look. Names that the proxy has given are shown as #1, #2 ...,
        that of a statement made up to be deallocated as #gone.
        """
        return [_GONE.sub("#gone", _OUR_NAME.sub("#", text)) for text in asked(self.link.take())]

    @property
    def statements(self) -> list[str]:
        """The names of what the proxy takes to be prepared there."""
        return [_OUR_NAME.sub("#", name.decode()) for name in self.connection.statements.names()]

    def says(self, line: str) -> None:
        """Answers, in one chunk (see `support.dialogue`)."""
        self.sends(say(line))

    def sends(self, data: bytes) -> None:
        handler = self.link.handler
        assert handler is not None, "the proxy has closed this connection"
        handler.received(data)
        self.link.loop.run()

    def hangs_up(self) -> None:
        handler = self.link.handler
        assert handler is not None, "the proxy has closed this connection"
        handler.ended()
        self.link.loop.run()


class Client:
    """The client's end of a session."""

    def __init__(self, link: HeldLink, session: Session) -> None:
        self.link = link
        self.session = session

    def sends(self, *data: bytes) -> None:
        """Sends it in one chunk."""
        handler = self.link.handler
        assert handler is not None, "the proxy has closed this connection"
        handler.received(b"".join(data))
        self.link.loop.run()

    def heard(self) -> str:
        """What it has been told since the last look, as a line of words."""
        return heard(self.link.take())

    def half_closes(self) -> None:
        handler = self.link.handler
        assert handler is not None
        handler.ended()
        self.link.loop.run()

    def breaks_off(self) -> None:
        """Is gone without a word."""
        self.link.break_off(ConnectionResetError())
        self.link.loop.run()

    @property
    def gone(self) -> bool:
        """Whether the proxy has closed the connection."""
        return self.link.closed


class Measured(QueryStatistics):
    """Statistics that keep the records themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[QueryRecord] = []

    def observe(self, record: QueryRecord) -> None:
        self.records.append(record)


class Stage:
    """One pool, its servers and its clients. `violations` are the protocol violations that were reported."""

    def __init__(
        self, size: int = 4, *, session_mode: bool = False, prepared: int = 200, wait_timeout: float = 30.0
    ) -> None:
        self.loop = TurnLoop()
        self.log = QuietLog()
        self.primary = HeldPrimary(self.loop, prepared)
        self.pool = Pool(
            self.loop, self.primary, "user", "database", size, wait_timeout, session_mode, self.log
        )
        self.catalog = StatementCatalog()
        self.statistics = Measured()
        self.violations: list[str] = []

    @property
    def backends(self) -> list[Backend]:
        return self.primary.backends

    @property
    def backend(self) -> Backend:
        """The only server there is."""
        (backend,) = self.primary.backends
        return backend

    def client(self, **parameters: str) -> Client:
        flavour = self.pool.assignment.flavour(tuple(sorted(parameters.items())))
        self.pool.session_began(flavour)
        link = HeldLink(self.loop, "client")
        session = Session(link, self.pool, flavour, self, CancelKey(1, b"key!"))
        link.handler = session
        return Client(link, session)

    def in_transaction(self) -> Client:
        """A client inside a transaction."""
        client = self.client()
        client.sends(query("begin"))
        self.backends[-1].asked()
        self.backends[-1].says("C:BEGIN Z:T")
        assert client.heard() == "C Z:T"
        return client

    def records(self) -> list[QueryRecord]:
        """What was measured since the last look."""
        records, self.statistics.records = self.statistics.records, []
        return records

    # What a session calls of its front.

    def session_ended(self, session: Any) -> None:
        self.pool.session_ended(session.flavour)

    def protocol_violated(self, peer: str, reason: str) -> None:
        self.violations.append(reason)
