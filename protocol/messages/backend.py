"""Messages from a server, as immutable values. Manual: "Frontend/Backend Protocol" > "Message Formats".

What sets a session up and the errors hold `str`, decoded so that any bytes survive; statements, their names
and their data are `bytes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from protocol.buffer import Reader, Writer
from protocol.errors import ProtocolViolation
from protocol.messages.codec import CopyData, CopyDone, Message
from protocol.types import PROTOCOL_3_0, BackendTag, CancelKey, TransactionStatus

_MIN_SECRET: Final = 4
_MAX_SECRET: Final = 256


# --- authentication -------------------------------------------------------------------------------


class _Authentication(Message):
    """Base of the messages under tag R, told apart by the 32-bit `METHOD` their body begins with."""

    __slots__ = ()

    TAG: ClassVar[int] = BackendTag.AUTHENTICATION
    METHOD: ClassVar[int]

    def write(self, writer: Writer) -> None:
        writer.int32(self.METHOD)
        self.write_payload(writer)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        if reader.int32() != cls.METHOD:
            raise ProtocolViolation("invalid message format")
        return cls.read_payload(reader)

    def write_payload(self, writer: Writer) -> None:
        """Append what follows the method; by default nothing does."""

    @classmethod
    def read_payload(cls, reader: Reader) -> Self:
        return cls()


@dataclass(frozen=True, slots=True)
class AuthenticationOk(_Authentication):
    METHOD: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class AuthenticationCleartextPassword(_Authentication):
    METHOD: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class AuthenticationMD5Password(_Authentication):
    """`salt` has 4 bytes."""

    METHOD: ClassVar[int] = 5

    salt: bytes

    def write_payload(self, writer: Writer) -> None:
        writer.raw(self.salt)

    @classmethod
    def read_payload(cls, reader: Reader) -> Self:
        return cls(reader.raw(4))


@dataclass(frozen=True, slots=True)
class AuthenticationSASL(_Authentication):
    """The mechanisms on offer, in the server's order of preference."""

    METHOD: ClassVar[int] = 10

    mechanisms: tuple[str, ...]

    def write_payload(self, writer: Writer) -> None:
        for mechanism in self.mechanisms:
            writer.text(mechanism)
        writer.byte(0)

    @classmethod
    def read_payload(cls, reader: Reader) -> Self:
        mechanisms = []
        while mechanism := reader.text():
            mechanisms.append(mechanism)
        return cls(tuple(mechanisms))


@dataclass(frozen=True, slots=True)
class _SASLData(_Authentication):
    data: bytes

    def write_payload(self, writer: Writer) -> None:
        writer.raw(self.data)

    @classmethod
    def read_payload(cls, reader: Reader) -> Self:
        return cls(reader.rest())


@dataclass(frozen=True, slots=True)
class AuthenticationSASLContinue(_SASLData):
    METHOD: ClassVar[int] = 11


@dataclass(frozen=True, slots=True)
class AuthenticationSASLFinal(_SASLData):
    METHOD: ClassVar[int] = 12


@dataclass(frozen=True, slots=True)
class AuthenticationOther(Message):
    """A method without a class here: Kerberos (2), SCM (6), GSS (7, 8), SSPI (9) or a future one."""

    TAG: ClassVar[int] = BackendTag.AUTHENTICATION

    method: int
    data: bytes = b""

    def write(self, writer: Writer) -> None:
        writer.int32(self.method).raw(self.data)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.int32(), reader.rest())


_METHODS: Final[dict[int, type[_Authentication]]] = {
    cls.METHOD: cls
    for cls in (
        AuthenticationOk,
        AuthenticationCleartextPassword,
        AuthenticationMD5Password,
        AuthenticationSASL,
        AuthenticationSASLContinue,
        AuthenticationSASLFinal,
    )
}


def decode_authentication(body: bytes) -> Message:
    """Whichever Authentication… message the body is."""
    return _METHODS.get(Reader(body).int32(), AuthenticationOther).decode(body)


# --- session --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BackendKeyData(Message):
    """`secret` has 4 bytes in protocol 3.0, 4 to 256 in 3.2; `pid` is signed 32 bit."""

    TAG: ClassVar[int] = BackendTag.BACKEND_KEY_DATA

    pid: int
    secret: bytes

    @property
    def key(self) -> CancelKey:
        return CancelKey(self.pid, self.secret)

    def write(self, writer: Writer) -> None:
        writer.int32(self.pid).raw(self.secret)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        pid, secret = reader.int32(), reader.rest()
        if not _MIN_SECRET <= len(secret) <= _MAX_SECRET:
            raise ProtocolViolation("invalid message format")
        return cls(pid, secret)

    def __repr__(self) -> str:
        return f"BackendKeyData(pid={self.pid}, secret=<{len(self.secret)} bytes>)"


@dataclass(frozen=True, slots=True)
class ParameterStatus(Message):
    TAG: ClassVar[int] = BackendTag.PARAMETER_STATUS

    name: str
    value: str

    def write(self, writer: Writer) -> None:
        writer.text(self.name).text(self.value)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.text(), reader.text())


@dataclass(frozen=True, slots=True)
class NegotiateProtocolVersion(Message):
    """The newest minor version on offer under major version 3, and the `_pq_.` options nobody here knows.

    On the wire PostgreSQL sends the whole version (3.2 is 196610), though the manual speaks of the minor one.
    """

    TAG: ClassVar[int] = BackendTag.NEGOTIATE_PROTOCOL_VERSION

    minor: int
    unrecognized: tuple[str, ...] = ()

    def write(self, writer: Writer) -> None:
        writer.int32(PROTOCOL_3_0 | self.minor).int32(len(self.unrecognized))
        for option in self.unrecognized:
            writer.text(option)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        version, count = reader.int32(), reader.int32()
        # Each name takes a byte at least: a count beyond that cannot come true, so nobody loops for it.
        if version >> 16 != 3 or not 0 <= count <= reader.remaining:
            raise ProtocolViolation("invalid message format")
        return cls(version & 0xFFFF, tuple([reader.text() for _ in range(count)]))


@dataclass(frozen=True, slots=True)
class ReadyForQuery(Message):
    TAG: ClassVar[int] = BackendTag.READY_FOR_QUERY

    status: TransactionStatus

    def write(self, writer: Writer) -> None:
        writer.byte(self.status)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        status = reader.byte()
        try:
            return cls(TransactionStatus(status))
        except ValueError:
            raise ProtocolViolation("invalid message format") from None


# --- errors, notices, notifications ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Report(Message):
    """Base of ErrorResponse and NoticeResponse: values by their field's code, in the wire's order.

    Manual: "Error and Notice Message Fields". Codes are any byte (as Latin-1), values any text.
    """

    fields: dict[str, str]

    @classmethod
    def of(
        cls, severity: str, sqlstate: str, message: str, *, detail: str | None = None, hint: str | None = None
    ) -> Self:
        """A report of our own making. A zero byte in a text would end it early, so it becomes a space."""
        texts = {"S": severity, "V": severity, "C": sqlstate, "M": message, "D": detail, "H": hint}
        return cls({code: text.replace("\0", " ") for code, text in texts.items() if text is not None})

    @property
    def severity(self) -> str:
        """ERROR, FATAL, PANIC, WARNING, NOTICE…: not translated where the server sends V (since 9.6)."""
        return self.fields.get("V") or self.fields.get("S", "")

    @property
    def sqlstate(self) -> str:
        return self.fields.get("C", "")

    @property
    def message(self) -> str:
        return self.fields.get("M", "")

    @property
    def detail(self) -> str | None:
        return self.fields.get("D")

    @property
    def hint(self) -> str | None:
        return self.fields.get("H")

    def write(self, writer: Writer) -> None:
        for code, text in self.fields.items():
            writer.raw(code.encode("latin-1")).text(text)
        writer.byte(0)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        fields: dict[str, str] = {}
        while code := reader.byte():
            fields[chr(code)] = reader.text()
        return cls(fields)


@dataclass(frozen=True, slots=True)
class ErrorResponse(_Report):
    TAG: ClassVar[int] = BackendTag.ERROR_RESPONSE


@dataclass(frozen=True, slots=True)
class NoticeResponse(_Report):
    TAG: ClassVar[int] = BackendTag.NOTICE_RESPONSE


@dataclass(frozen=True, slots=True)
class NotificationResponse(Message):
    TAG: ClassVar[int] = BackendTag.NOTIFICATION_RESPONSE

    pid: int
    channel: bytes
    payload: bytes

    def write(self, writer: Writer) -> None:
        writer.int32(self.pid).cstring(self.channel).cstring(self.payload)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.int32(), reader.cstring(), reader.cstring())


# --- statements and their results -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ParseComplete(Message):
    TAG: ClassVar[int] = BackendTag.PARSE_COMPLETE


@dataclass(frozen=True, slots=True)
class BindComplete(Message):
    TAG: ClassVar[int] = BackendTag.BIND_COMPLETE


@dataclass(frozen=True, slots=True)
class CloseComplete(Message):
    TAG: ClassVar[int] = BackendTag.CLOSE_COMPLETE


@dataclass(frozen=True, slots=True)
class NoData(Message):
    TAG: ClassVar[int] = BackendTag.NO_DATA


@dataclass(frozen=True, slots=True)
class EmptyQueryResponse(Message):
    TAG: ClassVar[int] = BackendTag.EMPTY_QUERY_RESPONSE


@dataclass(frozen=True, slots=True)
class PortalSuspended(Message):
    TAG: ClassVar[int] = BackendTag.PORTAL_SUSPENDED


@dataclass(frozen=True, slots=True)
class CommandComplete(Message):
    """`tag` is the command tag, for instance b"INSERT 0 1"."""

    TAG: ClassVar[int] = BackendTag.COMMAND_COMPLETE

    tag: bytes

    def write(self, writer: Writer) -> None:
        writer.cstring(self.tag)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.cstring())


@dataclass(frozen=True, slots=True)
class FieldDescription:
    """A column of a RowDescription. Object ids are unsigned; `column` is the attribute number, or 0."""

    name: bytes
    table_oid: int
    column: int
    type_oid: int
    type_size: int
    type_modifier: int
    format: int

    def write(self, writer: Writer) -> None:
        writer.cstring(self.name).uint32(self.table_oid).int16(self.column).uint32(self.type_oid)
        writer.int16(self.type_size).int32(self.type_modifier).int16(self.format)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            name=reader.cstring(),
            table_oid=reader.uint32(),
            column=reader.int16(),
            type_oid=reader.uint32(),
            type_size=reader.int16(),
            type_modifier=reader.int32(),
            format=reader.int16(),
        )


@dataclass(frozen=True, slots=True)
class RowDescription(Message):
    TAG: ClassVar[int] = BackendTag.ROW_DESCRIPTION

    fields: tuple[FieldDescription, ...]

    def write(self, writer: Writer) -> None:
        writer.uint16(len(self.fields))
        for field in self.fields:
            field.write(writer)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(tuple([FieldDescription.read(reader) for _ in range(reader.uint16())]))


@dataclass(frozen=True, slots=True)
class ParameterDescription(Message):
    """The types of a statement's parameters, as unsigned object ids."""

    TAG: ClassVar[int] = BackendTag.PARAMETER_DESCRIPTION

    types: tuple[int, ...]

    def write(self, writer: Writer) -> None:
        writer.oids(self.types)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.oids())


@dataclass(frozen=True, slots=True)
class DataRow(Message):
    """One row; None is NULL."""

    TAG: ClassVar[int] = BackendTag.DATA_ROW

    values: tuple[bytes | None, ...]

    def write(self, writer: Writer) -> None:
        writer.values(self.values)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.values())


@dataclass(frozen=True, slots=True)
class FunctionCallResponse(Message):
    """The function's result; None is NULL."""

    TAG: ClassVar[int] = BackendTag.FUNCTION_CALL_RESPONSE

    value: bytes | None

    def write(self, writer: Writer) -> None:
        writer.value(self.value)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.value())


@dataclass(frozen=True, slots=True)
class _CopyResponse(Message):
    """Base of the answers that open a COPY: format of the whole (0 text, 1 binary) and of each column."""

    format: int
    column_formats: tuple[int, ...] = ()

    def write(self, writer: Writer) -> None:
        writer.byte(self.format).int16s(self.column_formats)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.byte(), reader.int16s())


@dataclass(frozen=True, slots=True)
class CopyInResponse(_CopyResponse):
    TAG: ClassVar[int] = BackendTag.COPY_IN_RESPONSE


@dataclass(frozen=True, slots=True)
class CopyOutResponse(_CopyResponse):
    TAG: ClassVar[int] = BackendTag.COPY_OUT_RESPONSE


@dataclass(frozen=True, slots=True)
class CopyBothResponse(_CopyResponse):
    TAG: ClassVar[int] = BackendTag.COPY_BOTH_RESPONSE


_DECODERS: Final[dict[int, Callable[[bytes], Message]]] = {
    BackendTag.AUTHENTICATION: decode_authentication,
    **{
        cls.TAG: cls.decode
        for cls in (
            BackendKeyData,
            BindComplete,
            CloseComplete,
            CommandComplete,
            CopyBothResponse,
            CopyData,
            CopyDone,
            CopyInResponse,
            CopyOutResponse,
            DataRow,
            EmptyQueryResponse,
            ErrorResponse,
            FunctionCallResponse,
            NegotiateProtocolVersion,
            NoData,
            NoticeResponse,
            NotificationResponse,
            ParameterDescription,
            ParameterStatus,
            ParseComplete,
            PortalSuspended,
            ReadyForQuery,
            RowDescription,
        )
    },
}


def decode_backend(tag: int, body: bytes) -> Message:
    """The message of a server under this tag, from the bytes after its length.

    ProtocolViolation for an unknown tag and for a body that does not fit the tag.
    """
    decoder = _DECODERS.get(tag)
    if decoder is None:
        raise ProtocolViolation(f"invalid backend message type {tag}")
    return decoder(body)
