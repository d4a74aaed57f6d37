"""The protocol's vocabulary: message tags, transaction status, cancel keys, log positions, version numbers.

Manual: "Frontend/Backend Protocol" > "Message Formats".
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final, NamedTuple

PROTOCOL_3_0: Final = 3 << 16
PROTOCOL_3_2: Final = 3 << 16 | 2

# "Versions" under the impossible major number 1234 are requests, not start-ups.
CANCEL_REQUEST_CODE: Final = 1234 << 16 | 5678
SSL_REQUEST_CODE: Final = 1234 << 16 | 5679
GSSENC_REQUEST_CODE: Final = 1234 << 16 | 5680

# What PostgreSQL accepts at most in a start-up packet, in bytes, its 4-byte length word not counted.
MAX_STARTUP_PACKET: Final = 10000


class TransactionStatus(IntEnum):
    """The status byte of ReadyForQuery."""

    IDLE = ord("I")
    IN_TRANSACTION = ord("T")
    FAILED = ord("E")


class FrontendTag(IntEnum):
    """First byte of each message a client sends after the start-up packet."""

    BIND = ord("B")
    CLOSE = ord("C")
    COPY_DATA = ord("d")
    COPY_DONE = ord("c")
    COPY_FAIL = ord("f")
    DESCRIBE = ord("D")
    EXECUTE = ord("E")
    FLUSH = ord("H")
    FUNCTION_CALL = ord("F")
    PARSE = ord("P")
    # PasswordMessage, SASLInitialResponse, SASLResponse or GSSResponse: only the exchange knows which.
    PASSWORD = ord("p")
    QUERY = ord("Q")
    SYNC = ord("S")
    TERMINATE = ord("X")


class BackendTag(IntEnum):
    """First byte of each message a server sends, bar the one-byte answers to SSLRequest and GSSENCRequest."""

    AUTHENTICATION = ord("R")
    BACKEND_KEY_DATA = ord("K")
    BIND_COMPLETE = ord("2")
    CLOSE_COMPLETE = ord("3")
    COMMAND_COMPLETE = ord("C")
    COPY_BOTH_RESPONSE = ord("W")
    COPY_DATA = ord("d")
    COPY_DONE = ord("c")
    COPY_IN_RESPONSE = ord("G")
    COPY_OUT_RESPONSE = ord("H")
    DATA_ROW = ord("D")
    EMPTY_QUERY_RESPONSE = ord("I")
    ERROR_RESPONSE = ord("E")
    FUNCTION_CALL_RESPONSE = ord("V")
    NEGOTIATE_PROTOCOL_VERSION = ord("v")
    NO_DATA = ord("n")
    NOTICE_RESPONSE = ord("N")
    NOTIFICATION_RESPONSE = ord("A")
    PARAMETER_DESCRIPTION = ord("t")
    PARAMETER_STATUS = ord("S")
    PARSE_COMPLETE = ord("1")
    PORTAL_SUSPENDED = ord("s")
    READY_FOR_QUERY = ord("Z")
    ROW_DESCRIPTION = ord("T")


class Target(IntEnum):
    """What a Describe or Close names."""

    STATEMENT = ord("S")
    PORTAL = ord("P")


class CancelKey(NamedTuple):
    """What a client must show to cancel: the backend's pid (signed 32 bit) and its secret.

    The secret has 4 bytes in protocol 3.0 and 4 to 256 bytes in 3.2. It is left out of `repr`.
    """

    pid: int
    secret: bytes

    def __repr__(self) -> str:
        return f"CancelKey(pid={self.pid}, secret=<{len(self.secret)} bytes>)"


_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", re.ASCII)


class LSN(int):
    """A position in the write-ahead log in bytes (unsigned 64 bit); `str` spells it as pg_lsn does.

    Manual: "Data Types" > "pg_lsn Type".
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> LSN:
        """From "16/B374D848"; ValueError with PostgreSQL's wording for anything that is no pg_lsn."""
        match = _LSN.fullmatch(text)
        if match is None:
            raise ValueError(f'invalid input syntax for type pg_lsn: "{text}"')
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"LSN.parse({str(self)!r})"
