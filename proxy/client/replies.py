"""Messages that the proxy itself says to clients."""

from __future__ import annotations

from protocol.messages.backend import ErrorResponse


def error(severity: str, sqlstate: str, message: str, detail: str | None = None) -> bytes:
    """An encoded ErrorResponse; `severity` is ERROR or FATAL."""
    return ErrorResponse.of(severity, sqlstate, message, detail=detail).encode()
