# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Watches the sockets of the relay with an epoll of its own, which the event loop watches as one descriptor.

A relay's work is four system calls for each transaction; what an event loop adds to each of them (a
transport, a context, a call through the interpreter) costs more than everything else that the proxy does. So
plain connections bypass the loop's transports: one turn takes all the sockets that are ready and lets each
link receive and send by itself. Where there is no epoll, the event loop watches each socket.
"""

from __future__ import annotations

import asyncio
import select
from typing import Any

from proxy.net import sockets

READABLE = 0x001  # EPOLLIN
WRITABLE = 0x004  # EPOLLOUT
BROKEN = 0x018  # EPOLLERR, EPOLLHUP

ROUNDS = 16
"""How often the poller looks for more before the event loop has its turn."""


class Pollable:
    """What is watched: `ready` is told which of READABLE, WRITABLE and BROKEN it is."""

    __slots__ = ()

    def ready(self, events: int) -> None:
        """The socket is ready.  Must not raise; if it does all the same, `failed` is called."""

    def failed(self, error: Exception) -> None:
        """`ready` has raised."""


class Poller:
    """The sockets of one process.  At most one `Pollable` for each descriptor."""

    __slots__ = ("_epoll", "_epoll_fd", "_loop", "_new", "_watched")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: dict[int, Pollable] = {}
        self._new: set[int] = set()
        self._epoll: Any = None
        self._epoll_fd = -1
        if hasattr(select, "epoll"):
            self._epoll = select.epoll()
            self._epoll_fd = self._epoll.fileno()
            loop.add_reader(self._epoll.fileno(), self.turn)

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, fd: int, watched: Pollable, events: int) -> None:
        """Begins to watch a descriptor."""
        self._watched[fd] = watched
        self._new.add(fd)
        if self._epoll is not None:
            self._epoll.register(fd, events)
        else:
            self._watch_by_loop(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Watches for other events from now on; BROKEN is always watched for."""
        if self._epoll is not None:
            self._epoll.modify(fd, events)
        else:
            self._watch_by_loop(fd, events)

    def remove(self, fd: int) -> None:
        """Watches no longer.  To be called before the descriptor is closed."""
        if self._watched.pop(fd, None) is None:
            return
        if self._epoll is not None:
            self._epoll.unregister(fd)
        else:
            self._watch_by_loop(fd, 0)

    def turn(self) -> None:
        """Serves the sockets that are ready.

        Under load others have become ready meanwhile: looking again costs one system call, going through the
        event loop two and its bookkeeping. So it looks again as long as there was more than one, but not for
        ever, since timers and tasks are waiting.
        """
        for _ in range(ROUNDS):
            if self._epoll is None:
                return
            ready = sockets.wait(self._epoll, self._epoll_fd)
            self._new.clear()
            at = 0
            while at < len(ready):
                fd = ready[at]
                watched = self._watched.get(fd)
                # (What happened to a descriptor before it was closed is no news of whoever got its number.)
                if watched is not None and fd not in self._new:
                    self._serve(watched, ready[at + 1])
                at += 2
            if not ready:
                return

    def close(self) -> None:
        """Watches nothing any more."""
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        else:
            for fd in self._watched:
                self._watch_by_loop(fd, 0)
        self._watched.clear()

    def _serve(self, watched: Pollable, events: int) -> None:
        try:
            watched.ready(events)
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": "a connection's handler failed", "exception": error}
            )
            watched.failed(error)

    def _watch_by_loop(self, fd: int, events: int) -> None:
        watched = self._watched.get(fd)
        if events & READABLE and watched is not None:
            self._loop.add_reader(fd, self._serve, watched, READABLE)
        else:
            self._loop.remove_reader(fd)
        if events & WRITABLE and watched is not None:
            self._loop.add_writer(fd, self._serve, watched, WRITABLE)
        else:
            self._loop.remove_writer(fd)
