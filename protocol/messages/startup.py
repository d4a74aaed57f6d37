"""What a client sends before there are tags: a start-up packet, or one of the requests in its place.

Manual: "Frontend/Backend Protocol" > "Message Flow" > "Start-up", and "Message Formats" for StartupMessage,
SSLRequest, GSSENCRequest, CancelRequest. A packet here is whole: 4 bytes of length (counting themselves),
4 of version or code, the rest.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final, Self

from protocol.buffer import Reader, Writer
from protocol.errors import ProtocolViolation, UnsupportedProtocolVersion
from protocol.messages.backend import NegotiateProtocolVersion
from protocol.types import (
    CANCEL_REQUEST_CODE,
    GSSENC_REQUEST_CODE,
    MAX_STARTUP_PACKET,
    SSL_REQUEST_CODE,
    CancelKey,
)

_WORD: Final = struct.Struct("!I")
_MAX_CANCEL_SECRET: Final = 256
_OPTION_PREFIX: Final = "_pq_."


@dataclass(frozen=True, slots=True)
class StartupMessage:
    """The wish to start a session. Of a parameter given twice the last value counts."""

    major: int
    minor: int
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def options(self) -> tuple[str, ...]:
        """The protocol options asked for: names of the parameters under `_pq_.`, which are no settings."""
        return tuple(name for name in self.parameters if name.startswith(_OPTION_PREFIX))

    @property
    def user(self) -> str | None:
        """The role to log in as; None when missing or empty, which PostgreSQL refuses with 28000."""
        return self.parameters.get("user") or None

    @property
    def database(self) -> str | None:
        """The database asked for: the user's name when missing or empty."""
        return self.parameters.get("database") or self.user

    def encode(self) -> bytes:
        writer = Writer()
        for name, value in self.parameters.items():
            writer.text(name).text(value)
        return _packet(self.major << 16 | self.minor, writer.byte(0).finish())

    @classmethod
    def decode(cls, version: int, body: bytes) -> Self:
        """From the bytes after the version, which are left unread unless the major version is 3."""
        major, minor = version >> 16, version & 0xFFFF
        return cls(major, minor, _parameters(body) if major == 3 else {})


@dataclass(frozen=True, slots=True)
class SSLRequest:
    """May we speak TLS? Answered with the single byte S or N."""

    def encode(self) -> bytes:
        return _packet(SSL_REQUEST_CODE, b"")


@dataclass(frozen=True, slots=True)
class GSSENCRequest:
    """May we speak GSSAPI encryption? Answered with the single byte G or N."""

    def encode(self) -> bytes:
        return _packet(GSSENC_REQUEST_CODE, b"")


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Cancel what the session with this key is doing. Never answered; the connection is closed."""

    key: CancelKey

    def encode(self) -> bytes:
        return _packet(CANCEL_REQUEST_CODE, Writer().int32(self.key.pid).raw(self.key.secret).finish())

    @classmethod
    def decode(cls, body: bytes) -> Self:
        if len(body) < 4:
            raise ProtocolViolation("invalid length of cancel request packet")
        reader = Reader(body)
        pid, secret = reader.int32(), reader.rest()
        if not 0 < len(secret) <= _MAX_CANCEL_SECRET:
            raise ProtocolViolation("invalid length of cancel key in cancel request packet")
        return cls(CancelKey(pid, secret))


StartupPacket = StartupMessage | SSLRequest | GSSENCRequest | CancelRequest


def startup_length(prefix: bytes) -> int | None:
    """Length of the whole packet in bytes, its length word included; None while fewer than 4 bytes are there.

    ProtocolViolation for a length PostgreSQL refuses to read, as which letters (HTTP, say) come out.
    """
    if len(prefix) < 4:
        return None
    length: int = _WORD.unpack_from(prefix)[0]
    if not 8 <= length <= MAX_STARTUP_PACKET + 4:
        raise ProtocolViolation("invalid length of startup packet")
    return length


def decode_startup(packet: bytes) -> StartupPacket:
    """What a whole packet says. Versions other than 3 come as StartupMessage too: the caller answers them."""
    if startup_length(packet) != len(packet):
        raise ProtocolViolation("invalid length of startup packet")
    code: int = _WORD.unpack_from(packet, 4)[0]
    # PostgreSQL reads no further in the first two.
    if code == SSL_REQUEST_CODE:
        return SSLRequest()
    if code == GSSENC_REQUEST_CODE:
        return GSSENCRequest()
    if code == CANCEL_REQUEST_CODE:
        return CancelRequest.decode(packet[8:])
    return StartupMessage.decode(code, packet[8:])


def negotiation(message: StartupMessage, newest_minor: int) -> NegotiateProtocolVersion | None:
    """What to tell a client that asks for more than 3.`newest_minor` or for protocol options (we know none).

    None when there is nothing to tell. UnsupportedProtocolVersion when the major version is not 3.
    """
    if message.major != 3:
        raise UnsupportedProtocolVersion(
            f"unsupported frontend protocol {message.major}.{message.minor}: "
            f"server supports 3.0 to 3.{newest_minor}"
        )
    options = message.options
    if message.minor <= newest_minor and not options:
        return None
    return NegotiateProtocolVersion(min(message.minor, newest_minor), options)


def _packet(code: int, body: bytes) -> bytes:
    return _WORD.pack(len(body) + 8) + _WORD.pack(code) + body


def _parameters(body: bytes) -> dict[str, str]:
    parameters: dict[str, str] = {}
    reader = Reader(body)
    try:
        while name := reader.text():
            parameters[name] = reader.text()
        reader.end()
    except ProtocolViolation:
        raise ProtocolViolation("invalid startup packet layout: expected terminator as last byte") from None
    return parameters
