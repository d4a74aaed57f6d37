"""Receiving and sending on non-blocking sockets by descriptor.

Compiled modules use the inline functions of the same names in ``sockets.pxd``, which make the system call and
nothing else.
"""

from __future__ import annotations

import os
import socket
from typing import Any

RECEIVE_SIZE = 65_536
"""Most bytes taken from a socket at once."""


def receive(fd: int) -> bytes | None:
    """What has arrived, at most RECEIVE_SIZE bytes; empty at the end of the stream, None when there is
    nothing now. Raises `OSError`.
    """
    try:
        return os.read(fd, RECEIVE_SIZE)
    except BlockingIOError:
        return None


def send(fd: int, data: bytes) -> int:
    """Sends as much as the socket takes now and returns how much that was.  Raises `OSError`."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0


def peek(sock: socket.socket) -> bytes | None:
    """The first byte that has arrived, which stays there; empty at the end of the stream, None when there is
    nothing now.
    """
    try:
        return sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return None


def wait(epoll: Any, epoll_fd: int) -> list[int]:
    """Which descriptors of an epoll are ready now, at most 128: descriptor, events, descriptor, events..."""
    return [number for pair in epoll.poll(0, 128) for number in pair]
