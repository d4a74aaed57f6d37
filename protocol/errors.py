"""What can go wrong with bytes from the other side. Each error knows the SQLSTATE PostgreSQL would report."""

from __future__ import annotations

from typing import ClassVar

from protocol import sqlstate as states


class ProtocolError(Exception):
    """Base of what this package raises about a peer's bytes; `message` and `detail` may be sent back."""

    sqlstate: ClassVar[str] = states.CONNECTION_EXCEPTION

    def __init__(self, message: str, *, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class ProtocolViolation(ProtocolError):
    """The peer sent bytes the protocol does not allow."""

    sqlstate = states.PROTOCOL_VIOLATION


class UnsupportedProtocolVersion(ProtocolError):
    """The start-up packet asks for a major version other than 3; `message` is PostgreSQL's own."""

    sqlstate = states.FEATURE_NOT_SUPPORTED


class UnsupportedFeature(ProtocolViolation):
    """Well-formed, but an optional part of the protocol that PostgreSQL does not implement either."""

    sqlstate = states.FEATURE_NOT_SUPPORTED


class AuthenticationFailed(ProtocolError):
    """The peer did not prove who it is. `message` says nothing of why: that is `reason`, for the log only."""

    sqlstate = states.INVALID_PASSWORD

    def __init__(self, message: str = "password authentication failed", *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
