"""A pool before a held primary, and those who want servers of it."""

from support.relay import Attempt, Backend, HeldPrimary, QuietLog
from support.turns import TurnLoop

from protocol.pipeline import FORWARD, Reply
from proxy.clock import now
from proxy.server.connection import Receiver, ServerConnection
from proxy.server.pool import Pool, Refusal


class Guest(Receiver):
    """Wants a server; `server` is the one it has, `refusal` why it got none."""

    def __init__(self, scene: "Scene", key: str = "") -> None:
        self.scene = scene
        self.flavour = scene.pool.assignment.flavour(key)
        self.server: ServerConnection | None = None
        self.refusal: Refusal | None = None
        self.waiting = False

    def wants(self) -> "Guest":
        server = self.scene.pool.acquire(self, self.flavour)
        if server is not None:
            self.grant(server)
        self.scene.loop.run()
        return self

    def wait(self) -> None:
        self.waiting, self.waiting_since = True, now()

    def grant(self, server: ServerConnection) -> None:
        assert self.server is None
        self.waiting, self.server = False, server
        server.owner = self

    def refuse(self, refusal: Refusal) -> None:
        self.waiting, self.refusal = False, refusal

    def lets_go(self) -> ServerConnection:
        server, self.server = self.server, None
        assert server is not None
        server.owner = None
        return server

    def returns(self) -> None:
        self.scene.pool.release(self.lets_go())
        self.scene.loop.run()

    def abandons(self) -> None:
        self.scene.pool.abandon(self.lets_go())
        self.scene.loop.run()

    def sends(self, kinds: str) -> None:
        """Notes that these requests are under way."""
        assert self.server is not None
        for kind in kinds:
            self.server.pipeline.add(Reply(ord(kind), FORWARD, self))

    @property
    def backend(self) -> Backend:
        (backend,) = (each for each in self.scene.primary.backends if each.link.handler is self.server)
        return backend


class Scene:
    def __init__(self, size: int = 2, *, session_mode: bool = False, wait_timeout: float = 30.0) -> None:
        self.loop = TurnLoop()
        self.primary = HeldPrimary(self.loop, 10)
        self.log = QuietLog()
        self.pool = Pool(
            self.loop, self.primary, "user", "database", size, wait_timeout, session_mode, self.log
        )

    def guest(self, key: str = "") -> Guest:
        return Guest(self, key)

    @property
    def attempt(self) -> Attempt:
        (attempt,) = self.primary.attempts
        return attempt

    @property
    def figures(self) -> tuple[int, int, int]:
        """Connections opened, closed, and those that there are."""
        pool = self.pool
        assert pool.assignment.total == len(pool.servers) + pool.assignment.opening
        assert pool.opened_total - pool.closed_total == len(pool.servers)
        return pool.opened_total, pool.closed_total, len(pool.servers)
