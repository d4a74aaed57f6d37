# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The identity of prepared statements, apart from any session and any server connection.

Sessions that prepare the same text with the same parameter types share one `Statement`, and with it one
statement on each server connection. Its name there is the proxy's own and is never used again for another
text.
"""

from __future__ import annotations

import secrets

from protocol.messages.rewrite import parse_message
from proxy.observe.record import Fingerprint
from proxy.query.fingerprint import fingerprint

NAME_PREFIX = b"pgsluice_" + secrets.token_hex(6).encode() + b"_"
"""What the names of our statements on the servers begin with: different in every process, so that no client
meets one under its own name, by chance or on purpose.
"""


class Statement:
    """A text with parameter types: `key` is the part of a Parse message behind the statement's name.

    `name` is the statement's name on every server connection that has it, `tick` the catalog's time of its
    last use.
    """

    __slots__ = ("_parse", "fingerprint", "key", "name", "tick")

    def __init__(self, key: bytes, name: bytes, shape: Fingerprint) -> None:
        self.key = key
        self.name = name
        self.fingerprint = shape
        self.tick = 0
        self._parse: bytes | None = None

    def parse(self) -> bytes:
        """The Parse message that prepares it under its own name."""
        parse = self._parse
        if parse is None:
            parse = parse_message(self.name, self.key)
            self._parse = parse
        return parse

    def text(self) -> bytes:
        """The query's text."""
        return self.key[: self.key.find(b"\0")]


class StatementCatalog:
    """Finds the shared `Statement` of a text: at most `limit` texts are remembered, the least recently used
    go first.

    A forgotten statement stays usable by the sessions that hold it; it is just not shared with those that
    prepare it from now on.
    """

    __slots__ = ("_clock", "_limit", "_names", "_statements")

    def __init__(self, limit: int = 10_000) -> None:
        self._statements: dict[bytes, Statement] = {}
        self._limit = limit
        self._names = 0
        self._clock = 0

    def __len__(self) -> int:
        return len(self._statements)

    def find(self, key: bytes) -> Statement:
        """The statement of a Parse message's part behind the name: query, NUL, parameter types."""
        self._clock += 1
        statement = self._statements.get(key)
        if statement is None:
            statement = self._add(key)
        statement.tick = self._clock
        return statement

    def _add(self, key: bytes) -> Statement:
        if len(self._statements) >= self._limit:
            self._forget()
        self._names += 1
        text = key[: key.find(b"\0")]
        statement = Statement(key, NAME_PREFIX + b"%x" % self._names, fingerprint(text))
        self._statements[key] = statement
        return statement

    def _forget(self) -> None:
        """Drops the eighth that was used longest ago, so that the search for it is rare."""
        oldest = sorted(self._statements.values(), key=_tick)[: max(1, self._limit // 8)]
        for statement in oldest:
            del self._statements[statement.key]


def _tick(statement: Statement) -> int:
    return statement.tick
