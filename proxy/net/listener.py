"""Listening addresses: TCP and Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from proxy.config.address import ListenAddress, TcpAddress, UnixAddress
from proxy.errors import ConfigError
from proxy.net.link import Link, peer_name
from proxy.net.poller import READABLE, Pollable, Poller

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel has its own limit (``net.core.somaxconn``)."""

ACCEPTS = 64
"""Most connections accepted before others have their turn."""

REST = 0.5
"""Seconds without accepting after the process has run out of descriptors."""

COURTESY = 0.002
"""Seconds that the others have to accept a connection that should be theirs."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class ListeningSockets:
    """Bound sockets, and their `addresses` as they turned out to be."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.sockets: list[socket.socket] = []
        self._paths: list[tuple[Path, int]] = []

    async def bind(self, addresses: Iterable[ListenAddress]) -> None:
        """Listens on all of them.  Raises `ConfigError`; then there are none."""
        for address in addresses:
            try:
                if isinstance(address, TcpAddress):
                    await self._tcp(address)
                else:
                    self._unix(address)
            except OSError as error:
                self.close()
                raise ConfigError("listen", str(address), _what_to_do(address, error)) from None

    async def _tcp(self, address: TcpAddress) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        port = address.port
        for family, kind, protocol, _, where in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                # With port 0 every address of a name gets the port that the first was given.
                sock.bind((where[0], port, *where[2:]))
                sock.listen(BACKLOG)
            except OSError:
                sock.close()
                raise
            port = sock.getsockname()[1]
            self._add(sock, str(TcpAddress(str(where[0]), port)))

    def _unix(self, address: UnixAddress) -> None:
        path = Path(address.path)
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(path))
            # As PostgreSQL's own default (unix_socket_permissions): who may connect is a matter of
            # authentication.
            path.chmod(0o777)
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        self._paths.append((path, path.stat().st_ino))
        self._add(sock, str(address))

    def _add(self, sock: socket.socket, address: str) -> None:
        sock.setblocking(False)
        self.sockets.append(sock)
        self.addresses.append(address)

    def close(self) -> None:
        """Closes the sockets, and removes those of Unix from the file system."""
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()
        for path, inode in self._paths:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == inode:
                    path.unlink()
        self._paths.clear()


class _Door(Pollable):
    """One listening socket."""

    __slots__ = ("_listener", "sock")

    def __init__(self, listener: Listener, sock: socket.socket) -> None:
        self._listener = listener
        self.sock = sock

    def ready(self, events: int) -> None:
        self._listener.accept(self)

    def failed(self, error: Exception) -> None:
        pass


class Listener:
    """Accepts clients on listening sockets and gives each a `Link` made by `new_link`.

    Where other processes accept on the same sockets, `others_first` tells before each connection whether it
    should rather be one of theirs; then they have COURTESY seconds for it.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, poller: Poller, new_link: Callable[[], Link], log: Any
    ) -> None:
        self._loop = loop
        self._poller = poller
        self._new_link = new_link
        self._log = log
        self._doors: list[_Door] = []
        self.others_first: Callable[[], bool] | None = None

    def start(self, sockets: Iterable[socket.socket]) -> None:
        """Accepts on these sockets, which stay the caller's, from now on."""
        for sock in sockets:
            door = _Door(self, sock)
            self._doors.append(door)
            self._poller.add(sock.fileno(), door, READABLE)

    def accept(self, door: _Door) -> None:
        """Accepts who is waiting at a door."""
        for _ in range(ACCEPTS):
            if self.others_first is not None and self.others_first():
                self._poller.change(door.sock.fileno(), 0)
                self._loop.call_later(COURTESY, self._insist, door)
                return
            if not self._accept_one(door):
                return

    def _accept_one(self, door: _Door) -> bool:
        """False: there is nobody, or it can't be done now."""
        try:
            sock, address = door.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as error:
            self._rest(door, error)
            return False
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._new_link().attach(sock, peer_name(address))
        return True

    def _insist(self, door: _Door) -> None:
        """Nobody else need have taken the connection that was left to the others."""
        if door in self._doors:
            self._poller.change(door.sock.fileno(), READABLE)
            self._accept_one(door)

    def _rest(self, door: _Door, error: OSError) -> None:
        """Descriptors or memory have run out: those who wait stay in the kernel's queue for a moment."""
        if error.errno not in _EXHAUSTED:
            self._log.warning("accepting a connection failed", reason=error.strerror)
            return
        self._log.error("can't accept connections", reason=error.strerror, retry_seconds=REST)
        self._poller.change(door.sock.fileno(), 0)
        self._loop.call_later(REST, self._go_on, door)

    def _go_on(self, door: _Door) -> None:
        if door in self._doors:
            self._poller.change(door.sock.fileno(), READABLE)

    def close(self) -> None:
        """Accepts no more; connections that exist stay."""
        for door in self._doors:
            self._poller.remove(door.sock.fileno())
        self._doors.clear()


def _remove_stale(path: Path) -> None:
    """Removes a socket that nobody listens on any more; anything else in that place stays and is an error."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file of that name that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _what_to_do(address: ListenAddress, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "an address that is free (this one is in use; port 0 picks a free one)"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return "an address of this machine"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "an address that this user may listen on (permission denied)"
    return f"an address that can be listened on ({error.strerror or error})"
