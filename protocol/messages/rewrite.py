# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Reads and changes the names in extended-protocol messages where they stand, without decoding the rest.

All functions take the chunk and the offsets of one whole message in it (tag byte at `start`, first byte
behind it at `end`). Of a message that is streamed, only its beginning needs to be there, names included.
Raises `ProtocolViolation` ("invalid string in message") when a name does not end within the message. Source:
PostgreSQL manual, "Message Formats".
"""

from __future__ import annotations

from protocol.errors import ProtocolViolation


def cstring_end(data: bytes, at: int, end: int) -> int:
    """Offset of the NUL that ends the string beginning at `at`."""
    p = data
    while at < end:
        if p[at] == 0:
            return at
        at += 1
    raise ProtocolViolation("invalid string in message")


def with_length(tag: int, length: int) -> bytes:
    """The five bytes at the front of a message: its tag and its length (which counts itself)."""
    return bytes((tag, (length >> 24) & 255, (length >> 16) & 255, (length >> 8) & 255, length & 255))


def message_length(data: bytes, start: int) -> int:
    """The length field of the message at `start`."""
    p = data
    return (p[start + 1] << 24) | (p[start + 2] << 16) | (p[start + 3] << 8) | p[start + 4]


def rename_bind(data: bytes, start: int, end: int, old: bytes, new: bytes) -> bytes:
    """A Bind for another statement name; what of it is there is returned, with the length of the whole."""
    portal_end = cstring_end(data, start + 5, end)
    name_end = portal_end + 1 + len(old)
    length = message_length(data, start) - len(old) + len(new)
    return with_length(0x42, length) + data[start + 5 : portal_end + 1] + new + data[name_end:end]


def parse_message(name: bytes, key: bytes) -> bytes:
    """A Parse from a statement name and a statement key: the query, NUL, and the parameter types as in the
    message.
    """
    return with_length(0x50, 4 + len(name) + 1 + len(key)) + name + b"\0" + key


def describe_statement(name: bytes) -> bytes:
    """A Describe of a prepared statement."""
    return with_length(0x44, 4 + 1 + len(name) + 1) + b"S" + name + b"\0"


def bind_message(name: bytes) -> bytes:
    """A Bind of a prepared statement to the unnamed portal, without parameters."""
    return with_length(0x42, 4 + 1 + len(name) + 1 + 6) + b"\0" + name + b"\0" + b"\0\0\0\0\0\0"


def close_statement(name: bytes) -> bytes:
    """A Close of a prepared statement."""
    return with_length(0x43, 4 + 1 + len(name) + 1) + b"S" + name + b"\0"


def command_rows(data: bytes, start: int, end: int) -> int:
    """The number at the end of a CommandComplete's tag (``SELECT 5``, ``INSERT 0 1``), 0 where there is
    none.
    """
    p = data
    at = end - 2
    rows = 0
    factor = 1
    while at > start + 4 and p[at] >= 48 and p[at] <= 57 and factor <= 1_000_000_000_000:
        rows += (p[at] - 48) * factor
        factor *= 10
        at -= 1
    return rows


def error_sqlstate(data: bytes, start: int, end: int) -> str:
    """The SQLSTATE of an ErrorResponse, of which at least the beginning is there; empty when it has none."""
    p = data
    at = start + 5
    while at < end and p[at] != 0:
        if p[at] == 67:  # C
            return data[at + 1 : at + 6].decode("ascii", "replace")
        at += 1
        while at < end and p[at] != 0:
            at += 1
        at += 1
    return ""


def error_is_fatal(data: bytes, start: int, end: int) -> bool:
    """Whether an ErrorResponse ends the connection (severity FATAL or PANIC, from the field that is never
    translated).
    """
    return data.find(b"\0VFATAL\0", start, end) >= 0 or data.find(b"\0VPANIC\0", start, end) >= 0
