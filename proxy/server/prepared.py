# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Which prepared statements a server connection has, as far as that is known.

Every statement has a *generation*: the number of the client's Parse that it was prepared for. A statement
that was prepared for an older Parse may have been planned before a change of the schema that the client knows
of, so it does not serve a newer one.

What a message that is still under way will do is not certain: an error before it makes the server discard it.
Until the segment that prepares a statement is over, later segments do not rely on it. Where it is in doubt
whether a statement is there, it is closed before it is prepared: closing what does not exist is no error
(PostgreSQL manual, "Message Flow", "Extended Query").
"""

from __future__ import annotations

from protocol.messages.backend import RowDescription

UNKNOWN = -1
NONE = 0


class ServerStatements:
    """The statements of one server connection, at most `limit` named ones.

    `unnamed` is the generation of the unnamed statement, NONE where there is none, UNKNOWN where it could be
    anybody's.
    """

    __slots__ = ("_clock", "_generations", "_pending", "_shapes", "_used", "limit", "unnamed")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.unnamed = 0
        self._generations: dict[bytes, int] = {}
        self._used: dict[bytes, int] = {}
        self._pending: dict[bytes, int] = {}
        self._shapes: dict[bytes, tuple[object, ...] | None] = {}
        self._clock = 0

    def __len__(self) -> int:
        return len(self._generations)

    def names(self) -> list[bytes]:
        """The names of the statements that are, or may be, there."""
        return list(self._generations)

    def has(self, name: bytes) -> bool:
        """Whether there is, or may be, a statement of this name."""
        return name in self._generations

    def use(self, name: bytes, generation: int, segment: int) -> bool:
        """Whether a request in this segment finds the statement, of this generation or a later one."""
        there = self._generations.get(name)
        if there is None or there < generation or there == 0:
            return False
        if self._pending and self._pending.get(name, segment) != segment:
            return False
        self._clock += 1
        self._used[name] = self._clock
        return True

    def note(self, name: bytes, generation: int, segment: int) -> None:
        """A Parse under this name is being sent."""
        self._clock += 1
        self._used[name] = self._clock
        self._generations[name] = generation
        self._pending[name] = segment
        self._shapes.pop(name, None)

    def doubt(self, name: bytes) -> None:
        """A Parse or Close of this statement was not carried out: it may be there or not."""
        if name:
            self._generations[name] = 0
            self._shapes.pop(name, None)
            self._used.setdefault(name, self._clock)
        else:
            self.unnamed = -1

    def forget(self, name: bytes) -> None:
        """The statement is being closed."""
        self._generations.pop(name, None)
        self._used.pop(name, None)
        self._pending.pop(name, None)
        self._shapes.pop(name, None)

    def note_shape(self, name: bytes, shape: tuple[object, ...] | None) -> None:
        """The server has described the statement; None stands for a description too long to look at."""
        if name in self._generations:
            self._shapes[name] = shape

    def described(self, name: bytes) -> bool:
        """Whether the server has described the statement as it is prepared now."""
        return name in self._shapes

    def shape(self, name: bytes) -> tuple[object, ...] | None:
        """What the statement returns, as the server has described it."""
        return self._shapes.get(name)

    def surplus(self, keep: bytes) -> bytes | None:
        """The statement used longest ago, other than `keep`, if there are more than the limit."""
        if len(self._generations) <= self.limit:
            return None
        return min((name for name in self._used if name != keep), key=self._used.__getitem__, default=None)

    def settled(self) -> None:
        """No segment is under way any more: what was sent has been carried out or is in doubt."""
        if self._pending:
            self._pending.clear()

    def dropped(self, keep: set[bytes | None]) -> None:
        """DEALLOCATE ALL or DISCARD ALL has dropped all but those that are being prepared only now."""
        for name in self.names():
            if name not in keep:
                self.forget(name)


def row_shape(body: bytes) -> tuple[object, ...]:
    """What makes two results the same to a server (``equalTupleDescs`` in its tupdesc.c): the columns' names,
    types and type modifiers, from the body of a RowDescription.
    """
    columns = RowDescription.decode(body).fields
    return tuple((column.name, column.type_oid, column.type_modifier) for column in columns)
