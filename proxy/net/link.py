# cython: boundscheck=False, wraparound=False
"""One connection, to a client or to a server: the only place where bytes meet the event loop.

A `Link` is an asyncio protocol; who does something with the bytes is its *handler* of the moment (log-in, session, server connection), exchanged
when the connection's life goes on.  Writing is the hot part: as long as nothing is queued, bytes go straight to the socket with one system
call, which saves the transport's bookkeeping (measured: a tenth of a relay's CPU); what the socket does not take goes through the
transport, and so does everything on a TLS connection.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any


class LinkHandler:
    """What a link calls.  All calls come from the event loop and must not raise."""

    __slots__ = ()

    def received(self, data: bytes) -> None:
        """Bytes from the peer."""

    def lost(self, error: Exception | None) -> None:
        """The connection is gone: by the peer's end (`error` is None) or by a failure.  Called once, last."""

    def choked(self) -> None:
        """The peer does not read as fast as we write: stop whoever produces."""

    def cleared(self) -> None:
        """What was queued has been written: go on."""


class Link:
    """A connection over TCP, a Unix socket or TLS.

    `peer` is the other end's address for logs.  `closed` is true once the connection is lost or being closed: nothing is written any more.
    """

    __slots__ = ("_fd", "_queued", "choking", "closed", "handler", "loop", "paused", "peer", "tls", "transport")

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: LinkHandler | None) -> None:
        self.loop = loop
        self.handler = handler
        self.transport: Any = None
        self.peer = ""
        self.closed = True
        self.paused = False
        self.choking = False
        self.tls: ssl.SSLObject | None = None
        self._fd = -1
        self._queued = False

    # -- called by the event loop ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.closed = False
        self.tls = transport.get_extra_info("ssl_object")
        if self.tls is None:
            self._fd = transport.get_extra_info("socket").fileno()
        if not self.peer:
            self.peer = peer_name(transport)

    def data_received(self, data: bytes) -> None:
        handler = self.handler
        if handler is not None:
            handler.received(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._fd = -1
        self.closed = True
        handler = self.handler
        self.handler = None
        if handler is not None:
            handler.lost(error)

    def pause_writing(self) -> None:
        self.choking = True
        if self.handler is not None:
            self.handler.choked()

    def resume_writing(self) -> None:
        self.choking = False
        if self.handler is not None:
            self.handler.cleared()

    # -- called by the handler ------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Sends bytes, in order; what the socket does not take at once is queued (see `LinkHandler.choked`)."""
        if self.closed:
            return
        if self._fd < 0:
            self.transport.write(data)
            return
        if self._queued:
            if self.transport.get_write_buffer_size() > 0:
                self.transport.write(data)
                return
            self._queued = False
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The reading side learns of it and reports the loss: nothing to do twice.
            return
        if sent < len(data):
            self._queued = True
            self.transport.write(data[sent:])

    def pause(self) -> None:
        """Stops reading from the peer."""
        if not self.paused and not self.closed:
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Reads from the peer again."""
        if self.paused:
            self.paused = False
            if not self.closed:
                self.transport.resume_reading()

    def close(self) -> None:
        """Closes the connection once what is queued has been written."""
        if not self.closed:
            self.closed = True
            self._fd = -1
            self.transport.close()

    def abort(self) -> None:
        """Closes the connection at once."""
        if self.transport is not None:
            self.closed = True
            self._fd = -1
            self.transport.abort()

    async def start_tls(self, context: ssl.SSLContext, *, server_side: bool, hostname: str | None = None, timeout: float) -> None:
        """Upgrades to TLS.  Raises `ssl.SSLError`, `OSError` or `TimeoutError`."""
        self._fd = -1
        transport = await self.loop.start_tls(
            self.transport,
            self,  # type: ignore[arg-type]
            context,
            server_side=server_side,
            server_hostname=hostname,
            ssl_handshake_timeout=timeout,
        )
        if transport is None:
            raise ConnectionResetError("connection lost during the TLS handshake")
        self.transport = transport
        self.tls = transport.get_extra_info("ssl_object")


def peer_name(transport: Any) -> str:
    """The peer's address as ``host:port``, or ``unix`` for a Unix socket."""
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple) and len(peer) >= 2:
        return f"[{peer[0]}]:{peer[1]}" if ":" in str(peer[0]) else f"{peer[0]}:{peer[1]}"
    return "unix"
