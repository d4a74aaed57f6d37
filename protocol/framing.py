# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Finds the message boundaries in a byte stream without taking messages apart.

A typed message is a tag byte, a 32-bit big-endian length that counts itself, and a body (PostgreSQL manual,
"Message Format"). A relay needs to look at very few of them: the scanner walks a chunk as it came from the
socket, steps over the bulk (rows, COPY data) without stopping, and stops at every other message. What it has
stepped over may be relayed as it stands, in one piece.

Each tag is of one *kind*, by direction:

- ``HOLD``: delivered when it is there completely; a small message, anything longer than the limit is a
  violation;
- ``STREAM``: delivered when complete or, if it is longer than `hold` bytes, as soon as that many of them are
  there: its rest then passes as bulk, so that a message of 1 GB never has to be in memory;
- ``BULK``: never delivered, relayed as it comes;
- ``LARGE``: like HOLD with a far higher limit (Parse, whose text is needed to prepare the statement on other
  servers);
- unknown: a `ProtocolViolation`.

The scanner never copies, except for the beginning of a message that the next chunk completes.
"""

from __future__ import annotations

from protocol.errors import ProtocolViolation

_UNKNOWN = 0
_HOLD = 1
_STREAM = 2
_BULK = 3
_LARGE = 4

MAX_MESSAGE_LENGTH = 0x3FFFFFFF
"""Largest length that PostgreSQL accepts (``MaxAllocSize``), in bytes."""

MAX_LARGE_LENGTH = 16 * 1024 * 1024
"""A LARGE message beyond this many bytes is delivered in part, like a STREAM message."""

_SMALL_LIMIT = 10_000  # PQ_SMALL_MESSAGE_LIMIT: what a server accepts of the short message types
_BACKEND_LIMIT = 65_536


def _kinds(hold: str, stream: str, bulk: str, large: str = "") -> bytes:
    table = bytearray(256)
    for kind, tags in ((_HOLD, hold), (_STREAM, stream), (_BULK, bulk), (_LARGE, large)):
        for tag in tags:
            table[ord(tag)] = kind
    return bytes(table)


FRONTEND_KINDS = _kinds(hold="CDEHSXcf", stream="BFQ", bulk="d", large="P")
"""Kinds of what a client may send once it has logged in."""

BACKEND_KINDS = _kinds(hold="123CGHIKRSWZcnsv", stream="AENTVt", bulk="Dd")
"""Kinds of what a server may send."""


class FrameScanner:
    """Walks one direction of one connection.

    `feed` takes a chunk, then `next` is called until it returns 0. After a tag, the message is
    ``data[start:end]`` (tag and length included); `end` is the end of what is there when the message is
    streamed, and `left` tells how many bytes of it are still to come. After 0, ``data[:pos]`` has been walked
    and may be relayed; what lies behind is kept for the next chunk.

    Raises `ProtocolViolation` from `next` for an unknown tag or an impossible length.
    """

    __slots__ = (
        "_held",
        "_hold",
        "_kinds",
        "_limit",
        "_need",
        "_party",
        "data",
        "end",
        "left",
        "pos",
        "size",
        "start",
    )

    def __init__(self, kinds: bytes, hold: int, limit: int, party: str) -> None:
        self._kinds = kinds
        self._hold = hold
        self._limit = limit
        self._party = party
        self._held: bytearray | None = None
        self._need = 0
        self.data = b""
        self.size = 0
        self.pos = 0
        self.start = 0
        self.end = 0
        self.left = 0

    def feed(self, chunk: bytes) -> bool:
        """Takes the next chunk. False: it did not complete the message that has begun, there is nothing to
        walk.
        """
        held = self._held
        if held is not None:
            held += chunk
            if len(held) < self._need:
                return False
            chunk = bytes(held)
            self._held = None
        self.data = chunk
        self.size = len(chunk)
        self.pos = 0
        return True

    def next(self) -> int:
        """Tag of the next message that is not bulk, or 0 when the chunk is used up."""
        p = self.data
        kinds = self._kinds
        pos = self.pos
        size = self.size
        left = self.left
        while True:
            if left > 0:
                if left > size - pos:
                    self.left = left - (size - pos)
                    self.pos = size
                    return 0
                pos += left
                left = 0
                self.left = 0
            if size - pos < 5:
                self._keep(pos, 5)
                return 0
            tag = p[pos]
            kind = kinds[tag]
            length = (p[pos + 1] << 24) | (p[pos + 2] << 16) | (p[pos + 3] << 8) | p[pos + 4]
            if length < 4 or length > 0x3FFFFFFF or kind == 0:
                self._refuse(tag, length, kind)
            if kind == 3:
                left = length + 1
                continue
            end = pos + 1 + length
            if end > size:
                if self._wait(tag, kind, pos, length):
                    return 0
                self.left = end - size
                end = size
            elif kind == 1 and length > self._limit:
                self._refuse(tag, length, kind)
            self.start = pos
            self.end = end
            self.pos = end
            return tag

    def rewind(self) -> None:
        """Puts the message that `next` has just delivered back: it will be delivered again."""
        self.pos = self.start
        self.left = 0

    def forget(self) -> None:
        """Lets go of the chunk once it has been relayed, so that an idle connection keeps no memory."""
        self.data = b""
        self.size = 0
        self.pos = 0

    @property
    def partial(self) -> bool:
        """Whether a message has begun and is not complete."""
        return self._held is not None or self.left > 0

    def _wait(self, tag: int, kind: int, pos: int, length: int) -> bool:
        """Whether the incomplete message at `pos` must wait for more bytes before it can be delivered."""
        need = length + 1
        if kind == 1:
            if length > self._limit:
                self._refuse(tag, length, kind)
        elif kind == 2:
            if need > self._hold:
                need = self._hold
        elif need > MAX_LARGE_LENGTH:
            need = MAX_LARGE_LENGTH
        if self.size - pos >= need:
            return False
        self._keep(pos, need)
        return True

    def _keep(self, pos: int, need: int) -> None:
        self.pos = pos
        self.left = 0
        if pos < self.size:
            self._held = bytearray(self.data[pos:])
            self._need = need

    def _refuse(self, tag: int, length: int, kind: int) -> None:
        if kind == 0:
            raise ProtocolViolation(f"invalid {self._party} message type {tag}")
        raise ProtocolViolation("invalid message length")


def frontend_scanner() -> FrameScanner:
    """A scanner for what a client sends after log-in."""
    return FrameScanner(FRONTEND_KINDS, 65_536, _SMALL_LIMIT, "frontend")


def backend_scanner() -> FrameScanner:
    """A scanner for what a server sends."""
    return FrameScanner(BACKEND_KINDS, 65_536, _BACKEND_LIMIT, "backend")
