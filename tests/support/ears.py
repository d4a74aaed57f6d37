"""A server connection with a receiver and a pool that only note what they are told."""

from dataclasses import dataclass, field
from typing import Any

from support.dialogue import heard, say
from support.relay import HeldLink
from support.turns import TurnLoop

from protocol.pipeline import FORWARD, Reply
from proxy.observe.record import Fingerprint, QueryRecord
from proxy.server.assignment import Flavour
from proxy.server.connection import Receiver, ServerConnection
from proxy.server.handshake import Greeting


class Ear(Receiver):
    """`calls` is what it was told besides bytes and records: (call, what about)."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.records: list[QueryRecord] = []
        self.calls: list[tuple[str, Any]] = []

    def deliver(self, data: bytes) -> None:
        self.chunks.append(data)

    def settled(self, server: ServerConnection) -> None:
        self.calls.append(("settled", len(server.pipeline)))

    def measured(self, record: QueryRecord) -> None:
        self.records.append(record)

    def failed(self, reply: Reply, sqlstate: str, server: ServerConnection) -> None:
        self.calls.append(("failed", (reply, sqlstate)))

    def undo(self, reply: Reply, carried_out: bool) -> None:
        self.calls.append(("undo", (reply, bool(carried_out))))

    def statements_dropped(self, keep: set[bytes | None]) -> None:
        self.calls.append(("dropped", keep))

    def server_choked(self, choked: bool) -> None:
        self.calls.append(("choked", bool(choked)))

    def server_lost(self, server: ServerConnection, error: Exception | None) -> None:
        self.calls.append(("lost", error))

    def heard(self) -> str:
        """What it got since the last look, as a line of words."""
        data, self.chunks = b"".join(self.chunks), []
        return heard(data)

    def told(self, call: str) -> list[Any]:
        """What calls of that kind were about, oldest first."""
        return [about for name, about in self.calls if name == call]


@dataclass
class NotingPool:
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def server_lost(self, server: ServerConnection, error: Exception | None) -> None:
        self.calls.append(("lost", error))

    def server_broken(self, server: ServerConnection, error: Exception) -> None:
        self.calls.append(("broken", str(error)))

    def internal_done(self, server: ServerConnection) -> None:
        self.calls.append(("done", server.pipeline.status))


class Relay:
    """One server connection, its owner's ear, and the server's mouth."""

    def __init__(self, limit: int = 10) -> None:
        self.loop = TurnLoop()
        self.link = HeldLink(self.loop, "server")
        self.pool = NotingPool()
        self.server = ServerConnection(
            self.link, self.pool, Flavour(()), Greeting(4711, b"key!", {}, b""), limit
        )
        self.link.handler = self.server
        self.ear = Ear()
        self.server.owner = self.ear

    def asks(self, kinds: str, *, of: Receiver | None = None, action: int = FORWARD) -> list[Reply]:
        """Notes that requests of these kinds (the frontend's tags) were sent; a Q or E is measured."""
        replies = []
        for kind in kinds:
            reply = Reply(ord(kind), action, of or self.ear)
            if kind in "QE":
                reply.record = QueryRecord(Fingerprint(1, "statement"), "user", "database", 0.0, 10, False)
            self.server.pipeline.add(reply)
            replies.append(reply)
        return replies

    def says(self, line: str) -> None:
        self.sends(say(line))

    def sends(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.server.received(chunk)
        self.loop.run()
