"""Messages from a client, as immutable values. Manual: "Frontend/Backend Protocol" > "Message Formats".

Names and SQL are `bytes`, in whatever encoding the client speaks. Wordings of errors are PostgreSQL's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

from protocol.buffer import Reader, Writer
from protocol.errors import ProtocolViolation
from protocol.messages.codec import CopyData, CopyDone, Message
from protocol.types import FrontendTag, Target


@dataclass(frozen=True, slots=True)
class Query(Message):
    """The simple protocol: any number of statements in one string."""

    TAG: ClassVar[int] = FrontendTag.QUERY

    sql: bytes

    def write(self, writer: Writer) -> None:
        writer.cstring(self.sql)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.cstring())


@dataclass(frozen=True, slots=True)
class Parse(Message):
    """`types` are the object ids of the leading parameters' types; 0 leaves one to the server."""

    TAG: ClassVar[int] = FrontendTag.PARSE

    name: bytes
    query: bytes
    types: tuple[int, ...] = ()

    def write(self, writer: Writer) -> None:
        writer.cstring(self.name).cstring(self.query).oids(self.types)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.cstring(), reader.cstring(), reader.oids())


@dataclass(frozen=True, slots=True)
class Bind(Message):
    """Format codes are 0 (text) or 1 (binary): none for all text, one for all, or one each. None is NULL."""

    TAG: ClassVar[int] = FrontendTag.BIND

    portal: bytes
    statement: bytes
    formats: tuple[int, ...] = ()
    parameters: tuple[bytes | None, ...] = ()
    result_formats: tuple[int, ...] = ()

    def write(self, writer: Writer) -> None:
        writer.cstring(self.portal).cstring(self.statement)
        writer.int16s(self.formats).values(self.parameters).int16s(self.result_formats)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.cstring(), reader.cstring(), reader.int16s(), reader.values(), reader.int16s())


@dataclass(frozen=True, slots=True)
class Execute(Message):
    """`max_rows` of 0 (or below) means all."""

    TAG: ClassVar[int] = FrontendTag.EXECUTE

    portal: bytes = b""
    max_rows: int = 0

    def write(self, writer: Writer) -> None:
        writer.cstring(self.portal).int32(self.max_rows)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.cstring(), reader.int32())


@dataclass(frozen=True, slots=True)
class _Named(Message):
    """Base of Describe and Close: `kind` says whether `name` is a statement's or a portal's."""

    kind: Target
    name: bytes

    def write(self, writer: Writer) -> None:
        writer.byte(self.kind).cstring(self.name)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        kind = reader.byte()
        if kind not in (Target.STATEMENT, Target.PORTAL):
            raise ProtocolViolation(f"invalid {cls.__name__.upper()} message subtype {kind}")
        return cls(Target(kind), reader.cstring())


@dataclass(frozen=True, slots=True)
class Describe(_Named):
    TAG: ClassVar[int] = FrontendTag.DESCRIBE


@dataclass(frozen=True, slots=True)
class Close(_Named):
    TAG: ClassVar[int] = FrontendTag.CLOSE


@dataclass(frozen=True, slots=True)
class Sync(Message):
    TAG: ClassVar[int] = FrontendTag.SYNC


@dataclass(frozen=True, slots=True)
class Flush(Message):
    TAG: ClassVar[int] = FrontendTag.FLUSH


@dataclass(frozen=True, slots=True)
class Terminate(Message):
    TAG: ClassVar[int] = FrontendTag.TERMINATE


@dataclass(frozen=True, slots=True)
class CopyFail(Message):
    """The client gives a COPY up; `message` is its reason."""

    TAG: ClassVar[int] = FrontendTag.COPY_FAIL

    message: bytes

    def write(self, writer: Writer) -> None:
        writer.cstring(self.message)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.cstring())


@dataclass(frozen=True, slots=True)
class FunctionCall(Message):
    """Call a function by its object id. Formats as in Bind; a None argument is NULL."""

    TAG: ClassVar[int] = FrontendTag.FUNCTION_CALL

    function: int
    formats: tuple[int, ...] = ()
    arguments: tuple[bytes | None, ...] = ()
    result_format: int = 0

    def write(self, writer: Writer) -> None:
        writer.uint32(self.function).int16s(self.formats).values(self.arguments).int16(self.result_format)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.uint32(), reader.int16s(), reader.values(), reader.int16())


# --- authentication: four messages under one tag --------------------------------------------------


@dataclass(frozen=True, slots=True)
class AuthenticationResponse(Message):
    """Any message under tag p, not looked into: which one it is follows from what the server asked for.

    The classes below decode what `data` holds.
    """

    TAG: ClassVar[int] = FrontendTag.PASSWORD

    data: bytes = field(repr=False)

    def write(self, writer: Writer) -> None:
        writer.raw(self.data)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.rest())


@dataclass(frozen=True, slots=True)
class PasswordMessage(Message):
    """A password in clear text or an md5 response; an empty one is left for the caller to refuse (28P01)."""

    TAG: ClassVar[int] = FrontendTag.PASSWORD

    password: bytes = field(repr=False)

    def write(self, writer: Writer) -> None:
        writer.cstring(self.password)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        data = reader.rest()
        if not data or data.find(b"\0") != len(data) - 1:
            raise ProtocolViolation("invalid password packet size")
        return cls(data[:-1])


@dataclass(frozen=True, slots=True)
class SASLInitialResponse(Message):
    """The mechanism chosen and its first message; `data` of None means that the client sent none yet."""

    TAG: ClassVar[int] = FrontendTag.PASSWORD

    mechanism: str
    data: bytes | None = field(repr=False)

    def write(self, writer: Writer) -> None:
        writer.text(self.mechanism).value(self.data)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.text(), reader.value())


@dataclass(frozen=True, slots=True)
class SASLResponse(Message):
    TAG: ClassVar[int] = FrontendTag.PASSWORD

    data: bytes = field(repr=False)

    def write(self, writer: Writer) -> None:
        writer.raw(self.data)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.rest())


_DECODERS: Final[dict[int, Callable[[bytes], Message]]] = {
    cls.TAG: cls.decode
    for cls in (
        AuthenticationResponse,
        Bind,
        Close,
        CopyData,
        CopyDone,
        CopyFail,
        Describe,
        Execute,
        Flush,
        FunctionCall,
        Parse,
        Query,
        Sync,
        Terminate,
    )
}


def decode_frontend(tag: int, body: bytes) -> Message:
    """A client's message, from its tag and the bytes after its length; tag p as AuthenticationResponse.

    ProtocolViolation for an unknown tag and for a body that does not fit the tag.
    """
    decoder = _DECODERS.get(tag)
    if decoder is None:
        raise ProtocolViolation(f"invalid frontend message type {tag}")
    return decoder(body)
