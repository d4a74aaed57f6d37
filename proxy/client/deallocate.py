"""Recognises statements that drop prepared statements.

Drivers drop statements with SQL as well as with Close messages (psycopg does where libpq is older than 17);
such a statement's name is the session's own.
"""

from __future__ import annotations

import re

_DEALLOCATE = re.compile(
    rb"""\s*DEALLOCATE\s+(?:PREPARE\s+)?(?:"((?:[^"]|"")+)"|([A-Za-z_\x80-\xff][\w$\x80-\xff]*))\s*;?\s*\Z""",
    re.IGNORECASE,
)


_ALL = re.compile(rb"\s*(?:DEALLOCATE\s+(?:PREPARE\s+)?|DISCARD\s+)ALL\s*;?\s*\Z", re.IGNORECASE)


def drops_all(sql: bytes) -> bool:
    """Whether `sql` drops every prepared statement: DEALLOCATE ALL or DISCARD ALL."""
    return _ALL.match(sql) is not None


def deallocate_target(sql: bytes) -> bytes | None:
    """The name of the statement that `sql` deallocates; None for any other statement and for DEALLOCATE
    ALL.
    """
    match = _DEALLOCATE.match(sql)
    if match is None:
        return None
    quoted, plain = match.groups()
    if quoted is not None:
        return bytes(quoted).replace(b'""', b'"')
    name = bytes(plain).lower()
    return None if name in (b"all", b"prepare") else name
