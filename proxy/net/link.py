# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""One connection, to a client or to a server: the only place where bytes meet sockets and the event loop.

Who does something with the bytes is the link's *handler* of the moment (log-in, session, server connection),
exchanged when the connection's life goes on. A plain connection is served by the `Poller`: received and sent
directly, one system call each; what the socket does not take is queued and sent when it can be. A connection
that goes over to TLS is handed to the event loop's transport, as whose protocol the link then serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import proxy.net.sockets as sockets
from proxy.net.poller import Pollable, Poller

HIGH_WATER = 65_536
"""Bytes queued for the peer above which the handler is told to stop (`LinkHandler.choked`)."""

LINGER = 10.0
"""Seconds that a closed connection may take to accept what is still queued for it."""


class LinkHandler:
    """What a link calls.  All calls come from the event loop and must not raise."""

    __slots__ = ()

    def received(self, data: bytes) -> None:
        """Bytes from the peer."""

    def ended(self) -> None:
        """The peer sends no more; it may still want to read."""

    def lost(self, error: Exception | None) -> None:
        """The connection is gone.  Called once, last."""

    def choked(self) -> None:
        """The peer does not read as fast as we write: stop whoever produces."""

    def cleared(self) -> None:
        """What was queued has been written: go on."""


class Link(Pollable):
    """A connection over TCP, a Unix socket or TLS.

    `peer` is the other end's address for logs. `closed` is true once the connection is lost or being closed:
    nothing is written any more. `choking` tells that more than HIGH_WATER bytes are queued. `greeted` is
    called, instead of the handler, with the first byte that the peer sends, which is left in the socket (the
    start of a TLS connection must be left to TLS).
    """

    __slots__ = (
        "_events",
        "_fd",
        "_input_over",
        "_lost",
        "_queue",
        "_queued",
        "_socket",
        "_timer",
        "_unwatched",
        "choking",
        "closed",
        "greeted",
        "handler",
        "loop",
        "paused",
        "peer",
        "poller",
        "tls",
        "transport",
    )

    def __init__(self, poller: Poller, loop: asyncio.AbstractEventLoop, handler: LinkHandler | None) -> None:
        self.poller = poller
        self.loop = loop
        self.handler = handler
        self.peer = ""
        self.closed = True
        self.paused = False
        self.choking = False
        self.greeted: Any = None
        self.transport: Any = None
        self.tls: ssl.SSLObject | None = None
        self._socket: socket.socket | None = None
        self._fd = -1
        self._events = 0
        self._queue: list[bytes] | None = None
        self._queued = 0
        self._timer: Any = None
        self._lost = False
        self._input_over = False
        self._unwatched = False

    def attach(self, sock: socket.socket, peer: str) -> None:
        """Serves a connected, non-blocking socket, which belongs to the link from now on."""
        self.peer = peer
        self._socket = sock
        self._fd = sock.fileno()
        self.closed = False
        self._events = 1
        self.poller.add(self._fd, self, 1)

    # -- plain connections: called by the poller ---------------------------------------------------

    def ready(self, events: int) -> None:
        if events & 4:  # writable
            self._send_queued()
        if events & 1 and not self.paused and not self.closed:  # readable
            if self.greeted is not None and not self._greet():
                return
            try:
                data = sockets.receive(self._fd)
            except OSError as error:
                self._lose(error)
                return
            if data is None:
                return
            handler = self.handler
            if len(data) == 0:
                self._input_ended()
            elif handler is not None:
                handler.received(data)
        elif events & 24 and not self._lost:  # broken
            if self.paused and not self._input_over and not self.closed:
                # There may be something to read yet; until somebody wants to, it is not watched, for it would
                # be ready all the time.
                self.poller.remove(self._fd)
                self._unwatched = True
                return
            self._lose(ConnectionResetError("connection reset by peer"))

    def failed(self, error: Exception) -> None:
        self.abort()

    def _greet(self) -> bool:
        """Shows the first byte to `greeted`; False: do not read."""
        assert self._socket is not None
        try:
            first = sockets.peek(self._socket)
        except OSError as error:
            self._lose(error)
            return False
        if first is None:
            return False
        greeted = self.greeted
        self.greeted = None
        return bool(greeted(first))

    def _input_ended(self) -> None:
        """No more will come; reading stops, for the socket would be ready for ever."""
        self._watch(self._events & ~1)
        self.paused = True
        self._input_over = True
        if self.handler is not None:
            self.handler.ended()

    def _watch(self, events: int) -> None:
        if events != self._events and self._fd >= 0:
            self._events = events
            if self._unwatched:
                if not events & 1:
                    return
                self._unwatched = False
                self.poller.add(self._fd, self, events)
            else:
                self.poller.change(self._fd, events)

    def _send_queued(self) -> None:
        queue = self._queue
        if queue is None or self._fd < 0:
            return
        data = queue[0] if len(queue) == 1 else b"".join(queue)
        try:
            sent = sockets.send(self._fd, data)
        except OSError as error:
            self._lose(error)
            return
        if sent < len(data):
            self._queue = [data[sent:]]
            self._queued = len(data) - sent
            return
        self._queue = None
        self._queued = 0
        self._watch(self._events & ~4)
        if self.closed:
            self._drop(None)
        elif self.choking:
            self.choking = False
            if self.handler is not None:
                self.handler.cleared()

    def _lose(self, error: Exception | None) -> None:
        self.closed = True
        self._drop(error)

    def _drop(self, error: Exception | None) -> None:
        """Gives up the socket, and tells the handler in the loop's next turn."""
        self._queue = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self.poller.remove(self._fd)
            self._fd = -1
            self._socket.close()
            self._socket = None
            self.loop.call_soon(self.connection_lost, error)

    # -- TLS connections: called by the event loop -------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.tls = transport.get_extra_info("ssl_object")

    def data_received(self, data: bytes) -> None:
        if self.handler is not None:
            self.handler.received(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._lost:
            return
        self._lost = True
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

    # -- called by the handler ---------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Sends bytes, in order; what the socket does not take at once is queued (see
        `LinkHandler.choked`).
        """
        if self.closed:
            return
        if self._fd < 0:
            if self.transport is not None:
                self.transport.write(data)
            return
        if self._queue is None:
            try:
                sent = sockets.send(self._fd, data)
            except OSError:
                # The reading side learns of it and reports the loss: nothing to do twice.
                return
            if sent == len(data):
                return
            self._queue = [data[sent:] if sent else data]
            self._queued = len(data) - sent
            self._watch(self._events | 4)
        else:
            self._queue.append(data)
            self._queued += len(data)
        if self._queued > 65536 and not self.choking:
            self.choking = True
            if self.handler is not None:
                self.handler.choked()

    def pause(self) -> None:
        """Stops reading from the peer."""
        if not self.paused and not self.closed:
            self.paused = True
            if self.transport is not None:
                self.transport.pause_reading()
            else:
                self._watch(self._events & ~1)

    def resume(self) -> None:
        """Reads from the peer again."""
        if self.paused and not self.closed and not self._input_over:
            self.paused = False
            if self.transport is not None:
                self.transport.resume_reading()
            else:
                self._watch(self._events | 1)

    def close(self) -> None:
        """Closes the connection once what is queued has been sent, or after LINGER."""
        if self.closed:
            return
        self.closed = True
        if self.transport is not None:
            self.transport.close()
        elif self._queue is None:
            self._drop(None)
        else:
            self._watch(4)
            self._timer = self.loop.call_later(LINGER, self.abort)

    def abort(self) -> None:
        """Closes the connection at once."""
        self.closed = True
        if self.transport is not None:
            self.transport.abort()
        else:
            self._drop(None)

    async def start_tls(
        self, context: ssl.SSLContext, *, server_side: bool, hostname: str | None = None, timeout: float
    ) -> None:
        """Goes over to TLS.  Raises `ssl.SSLError`, `OSError` or `TimeoutError`."""
        sock = self._socket
        if sock is None:
            raise ConnectionResetError("connection lost before the TLS handshake")
        self.poller.remove(self._fd)
        self._socket = None
        self._fd = -1
        self._queue = None
        try:
            if server_side:
                await self.loop.connect_accepted_socket(
                    lambda: self,  # type: ignore[type-var]
                    sock,
                    ssl=context,
                    ssl_handshake_timeout=timeout,
                )
            else:
                await self.loop.create_connection(
                    lambda: self,  # type: ignore[type-var]
                    sock=sock,
                    ssl=context,
                    server_hostname=hostname or "",
                    ssl_handshake_timeout=timeout,
                )
        except BaseException:
            with contextlib.suppress(OSError):
                sock.close()
            if self.transport is None:
                self.closed = True
                self.loop.call_soon(self.connection_lost, None)
            raise
        if self.paused:
            self.transport.pause_reading()


def peer_name(address: Any) -> str:
    """A socket's peer address as ``host:port``, or ``unix`` for a Unix socket."""
    if isinstance(address, tuple) and len(address) >= 2:
        return f"[{address[0]}]:{address[1]}" if ":" in str(address[0]) else f"{address[0]}:{address[1]}"
    return "unix"
