"""Reading and writing the protocol's data types: integers, zero-terminated strings, counted values.

Manual: "Frontend/Backend Protocol" > "Message Data Types". The wordings of errors are PostgreSQL's own.

Text whose encoding the protocol leaves open is held as `str` by UTF-8 with surrogateescape, which brings any
bytes back unchanged.
"""

from __future__ import annotations

import struct
from typing import Final, Self

from protocol.errors import ProtocolViolation

_INT16: Final = struct.Struct("!h")
_UINT16: Final = struct.Struct("!H")
_INT32: Final = struct.Struct("!i")
_UINT32: Final = struct.Struct("!I")


def to_text(data: bytes) -> str:
    """Any bytes as `str`; `to_bytes` is the way back."""
    return data.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """The bytes `to_text` made the text from. UnicodeEncodeError for surrogates no bytes could have given."""
    return text.encode("utf-8", "surrogateescape")


class Reader:
    """Takes a message body apart, front to back. Every method raises ProtocolViolation for missing bytes."""

    __slots__ = ("_body", "_position")

    def __init__(self, body: bytes, position: int = 0) -> None:
        self._body = body
        self._position = position

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._body) - self._position

    def byte(self) -> int:
        if self._position >= len(self._body):
            raise ProtocolViolation("no data left in message")
        value = self._body[self._position]
        self._position += 1
        return value

    def int16(self) -> int:
        return self._integer(_INT16)

    def uint16(self) -> int:
        return self._integer(_UINT16)

    def int32(self) -> int:
        return self._integer(_INT32)

    def uint32(self) -> int:
        return self._integer(_UINT32)

    def raw(self, length: int) -> bytes:
        """Exactly `length` bytes. A negative length, read from a message as it was, is a violation too."""
        start = self._position
        if length < 0 or length > len(self._body) - start:
            raise ProtocolViolation("insufficient data left in message")
        self._position = start + length
        return bytes(self._body[start : self._position])

    def rest(self) -> bytes:
        """Everything not read yet, which may be nothing."""
        return self.raw(self.remaining)

    def cstring(self) -> bytes:
        """The bytes up to the next zero byte, which is consumed."""
        end = self._body.find(b"\0", self._position)
        if end < 0:
            raise ProtocolViolation("invalid string in message")
        start, self._position = self._position, end + 1
        return bytes(self._body[start:end])

    def text(self) -> str:
        """A cstring as `str`."""
        return to_text(self.cstring())

    def value(self) -> bytes | None:
        """A 32-bit length and as many bytes; None (SQL NULL) for length -1."""
        length = self.int32()
        return None if length == -1 else self.raw(length)

    def int16s(self) -> tuple[int, ...]:
        """An unsigned 16-bit count and as many signed 16-bit integers."""
        count = self.uint16()
        return struct.unpack(f"!{count}h", self.raw(2 * count))

    def oids(self) -> tuple[int, ...]:
        """An unsigned 16-bit count and as many object ids (unsigned 32-bit)."""
        count = self.uint16()
        return struct.unpack(f"!{count}I", self.raw(4 * count))

    def values(self) -> tuple[bytes | None, ...]:
        """An unsigned 16-bit count and as many counted values."""
        return tuple([self.value() for _ in range(self.uint16())])

    def end(self) -> None:
        """Assert that the body has been read to its end."""
        if self._position != len(self._body):
            raise ProtocolViolation("invalid message format")

    def _integer(self, form: struct.Struct) -> int:
        start = self._position
        end = start + form.size
        if end > len(self._body):
            raise ProtocolViolation("insufficient data left in message")
        self._position = end
        value: int = form.unpack_from(self._body, start)[0]
        return value


class Writer:
    """Puts a message body together; every method returns the writer.

    ValueError for what the type cannot hold: an integer out of range, a zero byte inside a string.
    """

    __slots__ = ("_body",)

    def __init__(self) -> None:
        self._body = bytearray()

    def byte(self, value: int) -> Self:
        self._body.append(value)
        return self

    def int16(self, value: int) -> Self:
        return self._integer(_INT16, value)

    def uint16(self, value: int) -> Self:
        return self._integer(_UINT16, value)

    def int32(self, value: int) -> Self:
        return self._integer(_INT32, value)

    def uint32(self, value: int) -> Self:
        return self._integer(_UINT32, value)

    def raw(self, data: bytes) -> Self:
        self._body += data
        return self

    def cstring(self, data: bytes) -> Self:
        if b"\0" in data:
            raise ValueError("a string in a message cannot hold a zero byte")
        self._body += data
        self._body.append(0)
        return self

    def text(self, text: str) -> Self:
        return self.cstring(to_bytes(text))

    def value(self, data: bytes | None) -> Self:
        if data is None:
            return self.int32(-1)
        return self.int32(len(data)).raw(data)

    def int16s(self, values: tuple[int, ...]) -> Self:
        self.uint16(len(values))
        for value in values:
            self.int16(value)
        return self

    def oids(self, oids: tuple[int, ...]) -> Self:
        self.uint16(len(oids))
        for oid in oids:
            self.uint32(oid)
        return self

    def values(self, values: tuple[bytes | None, ...]) -> Self:
        self.uint16(len(values))
        for value in values:
            self.value(value)
        return self

    def finish(self) -> bytes:
        """The body written so far."""
        return bytes(self._body)

    def _integer(self, form: struct.Struct, value: int) -> Self:
        try:
            self._body += form.pack(value)
        except struct.error as error:
            raise ValueError(f"{value} does not fit: {error}") from None
        return self
