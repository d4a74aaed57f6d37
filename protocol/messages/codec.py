"""What all messages after the start-up share: tag byte, length (counting itself, not the tag) and body."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from protocol.buffer import Reader, Writer
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
    """Base of the tagged messages. `TAG` is their first byte on the wire; the body follows the length."""

    __slots__ = ()

    TAG: ClassVar[int]

    def write(self, writer: Writer) -> None:
        """Append the body. By default there is none: the message is all said with its tag."""

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read the body, without minding what comes after it."""
        return cls()

    def body(self) -> bytes:
        writer = Writer()
        self.write(writer)
        return writer.finish()

    def encode(self) -> bytes:
        """The message as it goes over the wire, tag and length included."""
        return encode_message(self.TAG, self.body())

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From exactly the bytes after tag and length. ProtocolViolation when they are not such a message."""
        reader = Reader(body)
        message = cls.read(reader)
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class CopyData(Message):
    """A piece of a COPY stream, sent by either side; the boundaries mean nothing. Same tag both ways."""

    TAG: ClassVar[int] = BackendTag.COPY_DATA

    data: bytes

    def write(self, writer: Writer) -> None:
        writer.raw(self.data)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.rest())


@dataclass(frozen=True, slots=True)
class CopyDone(Message):
    """The COPY stream of the sending side is complete. Same tag both ways."""

    TAG: ClassVar[int] = BackendTag.COPY_DONE
