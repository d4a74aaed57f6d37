# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Which server connection serves which session: decisions only, no I/O.

A pool holds at most `size` server connections for one user and database. Connections differ in *flavour*: the
start-up parameters that they were opened with, because RESET goes back to these. A session can only use
connections of its own flavour.

The rules:

- an idle connection of the flavour is handed out last in, first out, so that a few stay warm and the rest can
  be let go;
- who must wait is served first in, first out: nobody overtakes, whatever his flavour;
- a connection is opened when somebody waits and none is on its way for him, as long as there is room;
- when there is no room, an idle connection of another flavour is closed to make some, the one of the flavour
  with most idle ones.

Modelled on httpcore's connection pool: the pool applies each `Decision` and then reports what happened.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple


class Grant(NamedTuple):
    """Give `server` to `waiter`."""

    waiter: Any
    server: Any


class Open(NamedTuple):
    """Open a server connection of `flavour`; report `opened` or `open_failed`."""

    flavour: Any


class Close(NamedTuple):
    """Close the idle `server`; it counts no more."""

    server: Any


Decision = Grant | Open | Close


class Flavour:
    """Server connections that were opened with the same start-up parameters (`key`), and who waits for one.

    `greeting` is what such a connection last said of itself at log-in, `sessions` how many sessions have
    these parameters, `total` how many connections there are or are being opened, idle or not.
    """

    __slots__ = ("greeting", "idle", "key", "opening", "sessions", "total", "waiting")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.idle: list[Any] = []
        self.opening = 0
        self.waiting = 0
        self.sessions = 0
        self.total = 0
        self.greeting: Any = None


class Assignment:
    """The state of one pool.  Servers and waiters are opaque; each belongs to a `Flavour`.

    `total` counts the connections that are open or being opened, `idle` those that nobody uses, `opening`
    those on their way. While it is `patient`, because
    opening has just failed, no connection is opened.
    """

    __slots__ = ("_flavours", "idle", "opening", "patient", "size", "total", "waiters")

    def __init__(self, size: int) -> None:
        self.size = size
        self.total = 0
        self.opening = 0
        self.idle = 0
        self.patient = False
        self.waiters: deque[tuple[Any, Flavour]] = deque()
        self._flavours: dict[Any, Flavour] = {}

    def flavour(self, key: Any) -> Flavour:
        """The flavour for these start-up parameters."""
        flavour = self._flavours.get(key)
        if flavour is None:
            flavour = self._flavours[key] = Flavour(key)
        return flavour

    def forget_flavour(self, flavour: Flavour) -> None:
        """No session has this flavour any more; its idle connections stay until they are needed."""
        if not flavour.total and not flavour.waiting and not flavour.sessions:
            self._flavours.pop(flavour.key, None)

    def take(self, flavour: Flavour) -> Any:
        """An idle server for a session that has just come, or None: then it has to `wait`."""
        if flavour.idle and not self.waiters:
            self.idle -= 1
            return flavour.idle.pop()
        return None

    def wait(self, waiter: Any, flavour: Flavour) -> list[Decision] | None:
        """Puts a session at the end of the line.  None: nothing can be done for it now."""
        self.waiters.append((waiter, flavour))
        flavour.waiting += 1
        if self.total >= self.size and not self.idle:
            return None
        return self.plan()

    def wait_first(self, waiter: Any, flavour: Flavour) -> None:
        """Puts a session back at the front of the line: what it was given turned out to be broken."""
        self.waiters.appendleft((waiter, flavour))
        flavour.waiting += 1

    def leave(self, waiter: Any) -> bool:
        """A session gives up waiting.  False: it was not in the line."""
        for entry in self.waiters:
            if entry[0] is waiter:
                self.waiters.remove(entry)
                entry[1].waiting -= 1
                return True
        return False

    def give_back(self, server: Any, flavour: Flavour) -> list[Decision] | None:
        """A session returns its server, clean.  None: nobody waits and nothing is to be done."""
        self._put(server, flavour)
        if not self.waiters and self.total <= self.size:
            return None
        return self.plan()

    def next_waiter(self, flavour: Flavour) -> Any:
        """Who gets a server of this flavour that is just coming back, if that is plain: the first in the
        line; None when it is not.
        """
        if self.waiters and self.total <= self.size:
            first = self.waiters[0]
            if first[1] is flavour:
                self.waiters.popleft()
                flavour.waiting -= 1
                return first[0]
        return None

    def _put(self, server: Any, flavour: Flavour) -> None:
        flavour.idle.append(server)
        self.idle += 1

    def _take_oldest(self, flavour: Flavour) -> Any:
        """An idle connection that is going to be closed."""
        self.idle -= 1
        server = flavour.idle.pop(0)
        self._count_out(flavour)
        return server

    def _count_out(self, flavour: Flavour) -> None:
        self.total -= 1
        flavour.total -= 1
        self.forget_flavour(flavour)

    def opened(self, server: Any, flavour: Flavour) -> list[Decision]:
        """A connection that was to be opened is there."""
        self.opening -= 1
        flavour.opening -= 1
        self._put(server, flavour)
        return self.plan()

    def open_failed(self, flavour: Flavour) -> None:
        """A connection could not be opened.  The caller decides when to `plan` again."""
        self.opening -= 1
        flavour.opening -= 1
        self._count_out(flavour)

    def gone(self, server: Any, flavour: Flavour) -> list[Decision]:
        """A connection is lost or was closed, idle or in use."""
        if server in flavour.idle:
            flavour.idle.remove(server)
            self.idle -= 1
        self._count_out(flavour)
        return self.plan()

    def resize(self, size: int) -> list[Decision]:
        """Changes the limit; connections above it are closed as they come back."""
        self.size = size
        return self.plan()

    def plan(self) -> list[Decision]:
        """What to do now for those who wait, and about connections above the limit."""
        decisions: list[Decision] = []
        self._shrink(decisions)
        claimed: dict[int, int] = {}  # connections on their way that somebody before in the line will get
        for entry in list(self.waiters):
            waiter, flavour = entry
            if flavour.idle:
                server = flavour.idle.pop()
                self.idle -= 1
                self.waiters.remove(entry)
                flavour.waiting -= 1
                decisions.append(Grant(waiter, server))
                continue
            coming = claimed.get(id(flavour), 0)
            if coming < flavour.opening:
                claimed[id(flavour)] = coming + 1
                continue
            if self.patient:
                continue
            if not self._make_room(flavour, decisions):
                # Nobody behind may take what comes back first, else a rare flavour would wait for ever.
                break
            self.total += 1
            self.opening += 1
            flavour.total += 1
            flavour.opening += 1
            claimed[id(flavour)] = coming + 1
            decisions.append(Open(flavour))
        return decisions

    def _make_room(self, flavour: Flavour, decisions: list[Decision]) -> bool:
        if self.total < self.size:
            return True
        victim = max(
            (f for f in self._flavours.values() if f is not flavour and f.idle),
            key=lambda f: len(f.idle),
            default=None,
        )
        if victim is None:
            return False
        decisions.append(Close(self._take_oldest(victim)))
        return True

    def _shrink(self, decisions: list[Decision]) -> None:
        while self.total > self.size:
            crowded = max(
                (f for f in self._flavours.values() if f.idle), key=lambda f: len(f.idle), default=None
            )
            if crowded is None:
                return
            decisions.append(Close(self._take_oldest(crowded)))
