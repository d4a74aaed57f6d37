# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The server connections of one user and database: carries out what `Assignment` decides.

Who waits for a server is a `Waiter`: a session with a batch, or a log-in that needs to know what a server
says of itself.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from protocol.pipeline import Reply
from proxy import clock
from proxy.server.assignment import Assignment, Close, Flavour, Grant
from proxy.server.connection import ServerConnection, Waiter
from proxy.server.handshake import ConnectFailure, FailureKind

FIRST_RETRY = 0.1
LONGEST_RETRY = 2.0
"""Seconds between attempts to reach a server that can't be reached, doubling from the first to the
longest.
"""


class Refusal(NamedTuple):
    """Why there is no server; `raw` is the server's own ErrorResponse, where it sent one."""

    sqlstate: str
    message: str
    detail: str | None = None
    raw: bytes | None = None


class Pool:
    """At most `size` connections for `user` and `database`.

    `primary` opens connections and cancels (see `server.primary.Primary`); `holds_for_session` tells that a
    session keeps its server until it ends. Times are in seconds.
    """

    __slots__ = (
        "_backoff",
        "_discarding",
        "_failure",
        "_held",
        "_retry",
        "_tasks",
        "_timer",
        "acquired_total",
        "assignment",
        "closed",
        "closed_total",
        "connect_errors_total",
        "credential",
        "database",
        "holds_for_session",
        "log",
        "loop",
        "opened_total",
        "primary",
        "servers",
        "sessions",
        "user",
        "wait_seconds_total",
        "wait_timeout",
        "waits_total",
    )

    def __init__(
        self,
        loop: Any,
        primary: Any,
        user: str,
        database: str,
        size: int,
        wait_timeout: float,
        holds_for_session: bool,
        log: Any,
    ) -> None:
        self.loop = loop
        self.primary = primary
        self.user = user
        self.database = database
        self.wait_timeout = wait_timeout
        self.holds_for_session = holds_for_session
        self.log = log
        self.credential: object = None
        self.assignment = Assignment(size)
        self.servers: set[ServerConnection] = set()
        self.sessions = 0
        self.closed = False
        self.opened_total = 0
        self.closed_total = 0
        self.acquired_total = 0
        self.waits_total = 0
        self.wait_seconds_total = 0.0
        self.connect_errors_total = 0
        self._held: set[ServerConnection] = set()
        self._discarding: set[ServerConnection] = set()
        self._failure: ConnectFailure | None = None
        self._backoff = FIRST_RETRY
        self._retry: Any = None
        self._timer: Any = None
        self._tasks: set[Any] = set()

    # -- for sessions ------------------------------------------------------------------------------

    def acquire(self, waiter: Waiter, flavour: Flavour) -> ServerConnection | None:
        """A server at once, or None: `waiter.wait` has been called, and `grant` or `refuse` will be."""
        server: ServerConnection | None = self.assignment.take(flavour)
        while server is not None:
            if server.retire is None and not server.link.closed:
                self.acquired_total += 1
                return server
            self._close(server)  # it broke while idle
            server = self.assignment.take(flavour)
        self.waits_total += 1
        waiter.wait()
        self._arm(self.wait_timeout)
        decisions = self.assignment.wait(waiter, flavour)
        if decisions is not None:
            self._apply(decisions)
        return None

    def leave(self, waiter: Waiter) -> None:
        """A waiter has gone away."""
        if self.assignment.leave(waiter):
            self._apply(self.assignment.plan())

    def release(self, server: ServerConnection) -> None:
        """A session gives back a server that is outside a transaction and owes nothing."""
        if server.retire is not None or self.closed or server.link.closed:
            self._close(server)
        elif server.cancels:
            # Whoever came next could be hit by the cancel that is still under way.
            self._held.add(server)
        elif self.holds_for_session:
            self._discarding.add(server)
            self._run(server, b"DISCARD ALL")
        else:
            self.give_back(server)

    def give_back(self, server: ServerConnection) -> None:
        """Takes back a server that nothing was done with, or that is clean."""
        flavour = server.flavour
        waiter: Waiter | None = self.assignment.next_waiter(flavour)
        if waiter is not None:
            self._grant(waiter, server)
            return
        decisions = self.assignment.give_back(server, flavour)
        if decisions is not None:
            self._apply(decisions)

    def abandon(self, server: ServerConnection) -> None:
        """A session has ended with the server in whatever state."""
        if server.link.paused:
            server.link.resume()
        pipeline = server.pipeline
        if server.retire is not None or server.link.closed or not pipeline.is_idle():
            if not server.link.closed and not pipeline.is_idle():
                self.primary.cancel(server)
            self._close(server)
        elif pipeline.status != 0x49:
            self._run(server, b"ROLLBACK")
        else:
            self.release(server)

    def session_began(self, flavour: Flavour) -> None:
        self.sessions += 1
        flavour.sessions += 1

    def session_ended(self, flavour: Flavour) -> None:
        self.sessions -= 1
        flavour.sessions -= 1
        if not flavour.sessions:
            self.assignment.forget_flavour(flavour)

    # -- for server connections --------------------------------------------------------------------

    def internal_done(self, server: ServerConnection) -> None:
        """What the pool itself had the server do is over."""
        if server not in self.servers:
            return
        if server.pipeline.status != 0x49:
            server.retire = "not clean after reset"
        if server.retire is not None or self.closed:
            self._close(server)
        elif server.cancels:
            self._held.add(server)
        elif self.holds_for_session and server not in self._discarding:
            self._discarding.add(server)
            self._run(server, b"DISCARD ALL")
        else:
            self._discarding.discard(server)
            self.give_back(server)

    def server_lost(self, server: ServerConnection, error: Exception | None) -> None:
        """A connection has broken, idle or in use."""
        if server in self.servers:
            self.log.info("server connection lost", pool=self.name, pid=server.pid, reason=server.retire)
            self._forget(server)

    def server_broken(self, server: ServerConnection, error: Exception) -> None:
        """A server sent what it must not send."""
        self.log.error("server broke the protocol", pool=self.name, pid=server.pid, reason=str(error))

    def cancel_over(self, server: ServerConnection) -> None:
        """A cancel request that was under way to the server is over."""
        server.cancels -= 1
        if not server.cancels and server in self._held:
            self._held.discard(server)
            self.release(server)

    # -- carrying out ------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """``user@database``, for logs and errors."""
        return f"{self.user}@{self.database}"

    def _apply(self, decisions: Any) -> None:
        for decision in decisions:
            if isinstance(decision, Grant):
                self._grant(decision.waiter, decision.server)
            elif isinstance(decision, Close):
                self.servers.discard(decision.server)
                self.closed_total += 1
                self._forget_greeting(decision.server.flavour)
                decision.server.close()
            else:
                task = self.loop.create_task(self._open(decision.flavour))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _grant(self, waiter: Waiter, server: ServerConnection) -> None:
        self.acquired_total += 1
        self.wait_seconds_total += clock.now() - waiter.waiting_since
        if server.link.closed or server.retire is not None:
            # It broke while the decision was on its way: the waiter keeps its place at the front.
            self.assignment.wait_first(waiter, waiter.flavour)
            self._close(server)
            return
        waiter.grant(server)

    def _run(self, server: ServerConnection, sql: bytes) -> None:
        """Has the server do something between two sessions; `internal_done` follows."""
        server.owner = None
        server.statements.unnamed = 0
        reply = Reply(0x51, 1, None)
        server.pipeline.add(reply)
        server.link.write(b"Q" + (5 + len(sql)).to_bytes(4, "big") + sql + b"\0")

    def _close(self, server: ServerConnection) -> None:
        server.close()
        self._forget(server)

    def _forget(self, server: ServerConnection) -> None:
        if server not in self.servers:
            return
        self.servers.discard(server)
        self._held.discard(server)
        self._discarding.discard(server)
        self.closed_total += 1
        self._forget_greeting(server.flavour)
        self._apply(self.assignment.gone(server, server.flavour))

    def _forget_greeting(self, flavour: Flavour) -> None:
        """What a server said at log-in is believed only while a server that said it is there."""
        if not any(server.flavour is flavour for server in self.servers):
            flavour.greeting = None

    async def _open(self, flavour: Flavour) -> None:
        try:
            link, greeting = await self.primary.connect(
                self.user, self.database, flavour.key, self.credential
            )
        except ConnectFailure as failure:
            self._open_failed(flavour, failure)
            return
        except asyncio.CancelledError:
            self.assignment.open_failed(flavour)
            raise
        except Exception as error:
            self.log.error("opening a server connection failed", pool=self.name, reason=repr(error))
            self._open_failed(flavour, _lost_at_once(f"internal error: {error!r}"))
            return
        if self.closed or link.closed:
            link.abort()
            self._open_failed(flavour, _lost_at_once("server closed the connection after the log-in"))
            return
        self._reached()
        self.opened_total += 1
        flavour.greeting = greeting
        server = ServerConnection(link, self, flavour, greeting, self.primary.prepared_statements)
        link.handler = server
        self.servers.add(server)
        self._apply(self.assignment.opened(server, flavour))

    def _reached(self) -> None:
        """A connection could be opened: nobody need be patient any more."""
        self._failure = None
        self._backoff = FIRST_RETRY
        self.assignment.patient = False
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _open_failed(self, flavour: Flavour, failure: ConnectFailure) -> None:
        self.connect_errors_total += 1
        self.assignment.open_failed(flavour)
        if failure.kind is FailureKind.REFUSED:
            detail = failure.response.detail if failure.response is not None else None
            self._refuse_all(flavour, Refusal(failure.sqlstate, failure.message, detail, failure.raw))
            self._apply(self.assignment.plan())
            return
        self._failure = failure
        if self.assignment.waiters and self._retry is None:
            self.assignment.patient = True
            self._retry = self.loop.call_later(self._backoff, self._try_again)
            self._backoff = min(self._backoff * 2, LONGEST_RETRY)

    def _try_again(self) -> None:
        self._retry = None
        self.assignment.patient = False
        self._apply(self.assignment.plan())

    def _refuse_all(self, flavour: Flavour, refusal: Refusal) -> None:
        for waiter, wanted in list(self.assignment.waiters):
            if wanted is flavour and self.assignment.leave(waiter):
                waiter.refuse(refusal)

    # -- waiting too long --------------------------------------------------------------------------

    def _arm(self, delay: float) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(delay, self._expire)

    def _expire(self) -> None:
        """Refuses those who have waited too long; the line is in the order of arrival, so the first tells
        when to look again.
        """
        self._timer = None
        now = clock.now()
        waiters = self.assignment.waiters
        while waiters:
            waiter = waiters[0][0]
            left = waiter.waiting_since + self.wait_timeout - now
            if left > 0.001:
                self._arm(left)
                return
            self.assignment.leave(waiter)
            self.wait_seconds_total += now - waiter.waiting_since
            waiter.refuse(self._timeout_refusal())

    def _timeout_refusal(self) -> Refusal:
        failure = self._failure
        if failure is not None and not self.servers:
            if failure.response is not None:
                return Refusal(failure.sqlstate, failure.message, failure.response.detail, failure.raw)
            return Refusal("08001", failure.message, f"waited {self.wait_timeout:g} s (pool_wait_timeout)")
        assignment = self.assignment
        busy = len(self.servers) - assignment.idle
        return Refusal(
            "53300",
            f'pool "{self.name}" is exhausted: {busy} of {assignment.size} servers busy, '
            f"{len(assignment.waiters) + 1} clients waiting, "
            f"waited {self.wait_timeout:g} s (pool_wait_timeout)",
            str(failure) if failure is not None else None,
        )

    # -- the end -----------------------------------------------------------------------------------

    def shut(self, refusal: Refusal) -> None:
        """Closes the idle connections and turns away who waits; connections in use are closed as they come
        back.
        """
        self.closed = True
        for timer in (self._timer, self._retry):
            if timer is not None:
                timer.cancel()
        self._timer = self._retry = None
        for waiter, _ in list(self.assignment.waiters):
            if self.assignment.leave(waiter):
                waiter.refuse(refusal)
        for server in list(self.servers):
            if server.owner is None:
                self._close(server)

    def abort(self) -> None:
        """Closes every connection at once."""
        for task in list(self._tasks):
            task.cancel()
        for server in list(self.servers):
            self.servers.discard(server)
            server.owner = None
            server.close()


def _lost_at_once(reason: str) -> ConnectFailure:
    return ConnectFailure(FailureKind.UNREACHABLE, "08006", reason)
