"""A byte stream as readable text, one message a line: for failing tests and for troubleshooting.

Nothing a peer can send makes this raise. Passwords, SASL answers of clients and cancel keys are left out.
(What SQL itself says is shown: ALTER ROLE … PASSWORD too.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final

from protocol.errors import ProtocolViolation
from protocol.messages.backend import decode_backend
from protocol.messages.codec import Message
from protocol.messages.frontend import decode_frontend
from protocol.messages.startup import decode_startup, startup_length
from protocol.types import BackendTag, FrontendTag

_ENCRYPTION_ANSWERS: Final = b"SNG"
# As a length this is no message's, but a tag (1 or above) read as the first byte of one.
_NO_LENGTH: Final = ord("1") << 24
_LINE: Final = 240


def frontend_text(stream: bytes) -> str:
    """What a client sent. Start-up packets are recognised by their first byte, which is zero as no tag is."""
    return "\n".join(_frontend_lines(stream))


def backend_text(stream: bytes) -> str:
    """What a server sent, the one-byte answers to SSLRequest and GSSENCRequest included."""
    return "\n".join(_backend_lines(stream))


def _frontend_lines(stream: bytes) -> Iterator[str]:
    position = 0
    while stream[position : position + 1] == b"\0":
        try:
            length = startup_length(stream[position : position + 4])
            if length is None or position + length > len(stream):
                yield _unfinished("start-up packet", len(stream) - position, length)
                return
            yield _cut(repr(decode_startup(stream[position : position + length])))
        except ProtocolViolation as violation:
            yield f"?? start-up packet: {violation}"
            return
        position += length
    yield from _tagged_lines(stream, position, FrontendTag, decode_frontend)


def _backend_lines(stream: bytes) -> Iterator[str]:
    position = 0
    while position < len(stream) and stream[position] in _ENCRYPTION_ANSWERS:
        # S and N are tags as well, which a length follows; an answer is followed by nothing, or by a tag.
        following = stream[position + 1 : position + 5]
        if following and (len(following) < 4 or int.from_bytes(following) < _NO_LENGTH):
            break
        yield f"answer {chr(stream[position])!r} to an encryption request"
        position += 1
    yield from _tagged_lines(stream, position, BackendTag, decode_backend)


def _tagged_lines(
    stream: bytes, position: int, tags: type[IntEnum], decode: Callable[[int, bytes], Message]
) -> Iterator[str]:
    while position < len(stream):
        tag = stream[position]
        name = next((member.name for member in tags if member == tag), f"tag 0x{tag:02x}")
        left = len(stream) - position
        if left < 5:
            yield _unfinished(name, left, None)
            return
        length = int.from_bytes(stream[position + 1 : position + 5], signed=True)
        if length < 4:
            yield f"?? {name}: impossible length {length}; {left} bytes left unread"
            return
        end = position + 1 + length
        if end > len(stream):
            yield _unfinished(name, left, 1 + length)
            return
        try:
            yield _cut(repr(decode(tag, stream[position + 5 : end])))
        except ProtocolViolation as violation:
            # The body stays unseen: a malformed message may hold a secret like a sound one.
            yield f"?? {name} with {length - 4} bytes: {violation}"
        position = end


def _unfinished(what: str, have: int, need: int | None) -> str:
    return f"… {what}: {have} bytes of {'?' if need is None else need}"


def _cut(line: str) -> str:
    return line if len(line) <= _LINE else f"{line[:_LINE]}… ({len(line)} characters)"
