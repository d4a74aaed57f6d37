"""What all messages after the start-up share: a tag byte, a length that counts itself but not the tag, a body."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from protocol.buffer import Reader
from protocol.types import BackendTag

_HEADER: Final = struct.Struct("!Bi")


def encode_message(tag: int, body: bytes) -> bytes:
    """A whole message: tag, length, body. ValueError when the body is too long for the length word."""
    try:
        return _HEADER.pack(tag, len(body) + 4) + body
    except struct.error as error:
        raise ValueError(
            f"a message with tag {tag} and {len(body)} bytes cannot be encoded: {error}"
        ) from None


class Message:
    """Base of the tagged messages. `TAG` is their first byte on the wire; what follows the length is the body."""

    __slots__ = ()

    TAG: ClassVar[int]

    def body(self) -> bytes:
        raise NotImplementedError

    def encode(self) -> bytes:
        """The message as it goes over the wire, tag and length included."""
        return encode_message(self.TAG, self.body())

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From the bytes after tag and length. ProtocolViolation when they are not such a message."""
        raise NotImplementedError


class BareMessage(Message):
    """Base of the messages that are all said with their tag."""

    __slots__ = ()

    def body(self) -> bytes:
        return b""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        Reader(body).end()
        return cls()


@dataclass(frozen=True, slots=True)
class CopyData(Message):
    """A piece of a COPY stream, sent by either side; the boundaries mean nothing. Same tag both ways."""

    TAG: ClassVar[int] = BackendTag.COPY_DATA

    data: bytes

    def body(self) -> bytes:
        return self.data

    @classmethod
    def decode(cls, body: bytes) -> Self:
        return cls(bytes(body))


@dataclass(frozen=True, slots=True)
class CopyDone(BareMessage):
    """The COPY stream of the sending side is complete. Same tag both ways."""

    TAG: ClassVar[int] = BackendTag.COPY_DONE
