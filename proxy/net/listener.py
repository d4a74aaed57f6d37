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

from proxy.config.address import ListenAddress, TcpAddress, UnixAddress
from proxy.errors import ConfigError
from proxy.net.link import Link

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel has its own limit (``net.core.somaxconn``)."""


class Listener:
    """Accepts clients on all its addresses and gives each a `Link` made by `new_link`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, new_link: Callable[[], Link]) -> None:
        self._loop = loop
        self._new_link = new_link
        self._servers: list[asyncio.AbstractServer] = []
        self._sockets: list[tuple[Path, int]] = []
        self.addresses: list[str] = []

    async def start(self, addresses: Iterable[ListenAddress], *, shared_port: bool = False) -> None:
        """Binds the addresses; `shared_port` lets several processes have the same one (SO_REUSEPORT).  Raises `ConfigError`."""
        for address in addresses:
            try:
                if isinstance(address, TcpAddress):
                    await self._tcp(address, shared_port)
                else:
                    await self._unix(address)
            except OSError as error:
                await self.close()
                raise ConfigError("listen", str(address), _what_to_do(address, error)) from None

    async def _tcp(self, address: TcpAddress, shared_port: bool) -> None:
        server = await self._loop.create_server(
            self._new_link,  # type: ignore[arg-type]
            address.host,
            address.port,
            backlog=BACKLOG,
            reuse_address=True,
            reuse_port=shared_port or None,
        )
        self._servers.append(server)
        for bound in server.sockets:
            host, port = bound.getsockname()[:2]
            self.addresses.append(str(TcpAddress(host, port)))

    async def _unix(self, address: UnixAddress) -> None:
        path = Path(address.path)
        _remove_stale(path)
        server = await self._loop.create_unix_server(self._new_link, str(path), backlog=BACKLOG)  # type: ignore[arg-type]
        self._servers.append(server)
        # As PostgreSQL's own default (unix_socket_permissions): who may connect is a matter of authentication.
        path.chmod(0o777)
        self._sockets.append((path, path.stat().st_ino))
        self.addresses.append(str(address))

    async def close(self) -> None:
        """Accepts no more; connections that exist stay."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for path, inode in self._sockets:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == inode:
                    path.unlink()
        self._sockets.clear()


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
