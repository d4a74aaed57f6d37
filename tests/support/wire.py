"""A PostgreSQL client that sends exactly what a test says, and shows exactly what comes back."""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Protocol, Self, TypeVar

from protocol.auth.md5 import md5_hash, md5_response
from protocol.auth.scram import ScramClient
from protocol.messages import backend, frontend
from protocol.messages.codec import Message
from protocol.messages.startup import CancelRequest, SSLRequest, StartupMessage
from protocol.types import BackendTag, CancelKey

TIMEOUT = 15.0
"""Seconds after which a test has waited long enough for bytes."""

_M = TypeVar("_M", bound=Message)


class Encodable(Protocol):
    def encode(self) -> bytes: ...


class ServerError(Exception):
    """The server answered a log-in or a query with ErrorResponse."""

    def __init__(self, response: backend.ErrorResponse) -> None:
        super().__init__(f"{response.severity} {response.sqlstate}: {response.message}")
        self.response = response
        self.sqlstate = response.sqlstate


class WireConnection:
    """One connection. Reads time out after TIMEOUT, so that a missing answer is a failure and not a hang."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.key: CancelKey | None = None
        self.parameters: dict[str, str] = {}
        self.status: int | None = None

    # --- connecting ---------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls, host: str, port: int = 0, *, tls: ssl.SSLContext | None = None, direct_tls: bool = False
    ) -> Self:
        """A connection that has sent nothing yet. `host` beginning with / is a socket's path. With `tls` the
        SSLRequest is sent and must be answered S, or `direct_tls` begins with the handshake at once."""
        if host.startswith("/"):
            reader, writer = await asyncio.wait_for(asyncio.open_unix_connection(host), TIMEOUT)
        else:
            context = tls if direct_tls else None
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(host, port, ssl=context, server_hostname=host if context else None),
                TIMEOUT,
            )
        connection = cls(reader, writer)
        if tls is not None and not direct_tls:
            await connection.send(SSLRequest())
            answer = await connection.read(1)
            assert answer == b"S", f"the server answers SSLRequest with {answer!r}"
            await writer.start_tls(tls, server_hostname=host)
        return connection

    @classmethod
    async def login(
        cls,
        host: str,
        port: int,
        user: str,
        password: str | None = None,
        database: str = "postgres",
        *,
        tls: ssl.SSLContext | None = None,
        minor: int = 0,
        **parameters: str,
    ) -> Self:
        """Connected and logged in, up to ReadyForQuery. Raises ServerError."""
        connection = await cls.open(host, port, tls=tls)
        try:
            await connection.startup(user, password, database, minor=minor, **parameters)
        except BaseException:
            connection.abort()
            raise
        return connection

    async def startup(
        self,
        user: str,
        password: str | None = None,
        database: str = "postgres",
        *,
        minor: int = 0,
        **parameters: str,
    ) -> list[Message]:
        """Send StartupMessage, authenticate, read up to ReadyForQuery: everything the server said."""
        await self.send(StartupMessage(3, minor, {"user": user, "database": database} | parameters))
        said = await self._authenticate(user, password)
        said += await self.receive_until(backend.ReadyForQuery)
        for message in said:
            if isinstance(message, backend.BackendKeyData):
                self.key = message.key
        return said

    async def _authenticate(self, user: str, password: str | None) -> list[Message]:
        said: list[Message] = []
        scram: ScramClient | None = None
        while True:
            message = await self.receive()
            said.append(message)
            match message:
                case backend.AuthenticationOk():
                    return said
                case backend.ErrorResponse():
                    raise ServerError(message)
                case backend.AuthenticationCleartextPassword():
                    await self.send(frontend.PasswordMessage(_given(password).encode()))
                case backend.AuthenticationMD5Password(salt):
                    response = md5_response(md5_hash(user, _given(password)), salt)
                    await self.send(frontend.PasswordMessage(response.encode()))
                case backend.AuthenticationSASL():
                    scram = ScramClient(_given(password))
                    await self.send(frontend.SASLInitialResponse("SCRAM-SHA-256", scram.first()))
                case backend.AuthenticationSASLContinue(data) | backend.AuthenticationSASLFinal(data):
                    assert scram is not None, "the server goes on with what nobody began"
                    answer = scram.step(data)
                    if answer is not None:
                        await self.send(frontend.SASLResponse(answer))
                case backend.NegotiateProtocolVersion():
                    pass
                case _:
                    raise AssertionError(f"{message} during authentication")

    # --- sending ------------------------------------------------------------------------------------

    async def send(self, *messages: Encodable | bytes) -> None:
        """All in one write."""
        self.writer.write(b"".join(each if isinstance(each, bytes) else each.encode() for each in messages))
        await asyncio.wait_for(self.writer.drain(), TIMEOUT)

    async def send_in_pieces(self, data: bytes, size: int = 1) -> None:
        """The same bytes in small writes, a turn of the event loop between them."""
        for start in range(0, len(data), size):
            self.writer.write(data[start : start + size])
            await self.writer.drain()
            await asyncio.sleep(0)

    async def cancel(self) -> None:
        """Send CancelRequest for this session on a connection of its own and wait until that is closed."""
        assert self.key is not None, "no BackendKeyData received"
        host, port = self.writer.get_extra_info("peername")[:2]
        other = await type(self).open(host, port)
        await other.send(CancelRequest(self.key))
        assert await other.read_to_end() == b""
        await other.close()

    # --- receiving ----------------------------------------------------------------------------------

    async def read(self, count: int) -> bytes:
        """Exactly `count` bytes; asyncio.IncompleteReadError when the connection ends before."""
        return await asyncio.wait_for(self.reader.readexactly(count), TIMEOUT)

    async def read_to_end(self) -> bytes:
        """Everything until the other side closes."""
        try:
            return await asyncio.wait_for(self.reader.read(-1), TIMEOUT)
        except ConnectionError:
            return b""

    async def receive_raw(self) -> tuple[int, bytes]:
        """The next message: tag and body."""
        header = await self.read(5)
        return header[0], await self.read(int.from_bytes(header[1:]) - 4)

    async def receive(self) -> Message:
        """The next message, whatever it is."""
        message = backend.decode_backend(*await self.receive_raw())
        if isinstance(message, backend.ParameterStatus):
            self.parameters[message.name] = message.value
        elif isinstance(message, backend.ReadyForQuery):
            self.status = message.status
        return message

    async def expect(self, kind: type[_M]) -> _M:
        """The next message, which has to be of that class."""
        message = await self.receive()
        assert isinstance(message, kind), f"{message} instead of {kind.__name__}"
        return message

    async def receive_until(self, kind: type[Message]) -> list[Message]:
        """Messages up to and including the first of that class. ServerError when the server gives up."""
        messages = []
        while True:
            message = await self.receive()
            messages.append(message)
            if isinstance(message, kind):
                return messages
            if isinstance(message, backend.ErrorResponse) and message.severity in ("FATAL", "PANIC"):
                raise ServerError(message)

    async def query(self, sql: str | bytes) -> list[Message]:
        """Simple query: all messages of the answer, ReadyForQuery the last."""
        await self.send(frontend.Query(sql.encode() if isinstance(sql, str) else sql))
        return await self.receive_until(backend.ReadyForQuery)

    async def rows(self, sql: str | bytes) -> list[tuple[str | None, ...]]:
        """Simple query: its rows as text. Raises ServerError."""
        return rows_of(await self.query(sql))

    async def value(self, sql: str | bytes) -> str | None:
        """Simple query of one row with one column."""
        ((value,),) = await self.rows(sql)
        return value

    # --- ending -------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Terminate as a client should."""
        try:
            self.writer.write(frontend.Terminate().encode())
            self.writer.close()
            await asyncio.wait_for(self.writer.wait_closed(), TIMEOUT)
        except (ConnectionError, ssl.SSLError):
            pass

    def abort(self) -> None:
        """Be gone, as after a crash: no Terminate."""
        self.writer.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def rows_of(messages: Iterable[Message]) -> list[tuple[str | None, ...]]:
    """The rows among an answer's messages, as text; ServerError when there is an ErrorResponse."""
    rows: list[tuple[str | None, ...]] = []
    for message in messages:
        if isinstance(message, backend.ErrorResponse):
            raise ServerError(message)
        if isinstance(message, backend.DataRow):
            rows.append(tuple(None if value is None else bytes(value).decode() for value in message.values))
    return rows


def tags_of(messages: Iterable[Message]) -> str:
    """The messages' tags as a string, e.g. "TDCZ": an answer's shape at one glance."""
    return "".join(chr(BackendTag(message.TAG)) for message in messages)


def _given(password: str | None) -> str:
    assert password is not None, "the server asks for a password, the test gives none"
    return password
