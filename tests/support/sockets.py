"""An event loop that a test turns by hand, a poller on it, and connected sockets."""

import asyncio
import contextlib
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from support.ports import free_port

from proxy.net.poller import Poller

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


class Turns:
    """`errors` are what reached the loop's exception handler."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.poller = Poller(loop)
        self.errors: list[dict[str, Any]] = []
        self._sockets: list[socket.socket] = []
        loop.set_exception_handler(lambda _, context: self.errors.append(context))

    def settle(self) -> None:
        """Makes as many turns as anything that is on its way in this process may need."""
        self.loop.run_until_complete(self._turns(12))

    def until(self, condition: Callable[[], object]) -> None:
        """Turns until something has happened; the test's own time limit ends what never does."""
        self.loop.run_until_complete(self._until(condition))

    async def _turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await asyncio.sleep(0.001)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two ends of a Unix connection, neither blocking."""
        return self._kept(*socket.socketpair())

    def tcp_pair(self) -> tuple[socket.socket, socket.socket]:
        """Two ends of a TCP connection, neither blocking."""
        with socket.create_server(("127.0.0.1", free_port())) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
        return self._kept(near, far)

    def _kept(self, *sockets: socket.socket) -> Any:
        for sock in sockets:
            sock.setblocking(False)
        self._sockets += sockets
        return sockets

    def close(self) -> None:
        self.poller.close()
        for sock in self._sockets:
            sock.close()
        self.settle()
        self.loop.close()


@contextlib.contextmanager
def turning(kind: str, epoll: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[Turns]:
    """Turns of the loop of that kind; without `epoll` the poller falls back on the loop itself."""
    loop = LOOPS[kind]()
    if not epoll:
        monkeypatch.delattr(select, "epoll")
    turns = Turns(loop)
    try:
        yield turns
    finally:
        turns.close()
    assert not turns.errors, turns.errors


def read_all(sock: socket.socket) -> bytes:
    """What has arrived at a socket that does not block."""
    data = b""
    with contextlib.suppress(BlockingIOError):
        while chunk := sock.recv(1 << 20):
            data += chunk
    return data


def reset(sock: socket.socket) -> None:
    """Breaks a TCP connection off as a crash does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
