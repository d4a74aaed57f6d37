# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""A session's prepared statements, and how a server connection comes to have them.

A name is the session's own; it stands for a `Statement` that sessions share and that has a name of the
proxy's on the servers. What a session's messages make of its names is noted when they are read, before the
server has carried them out, and undone when it turns out that it has not. Until then a name is *tentative*: a
later segment that refers to it has to wait.
"""

from __future__ import annotations

from typing import Any

from protocol.messages.backend import ErrorResponse
from protocol.messages.rewrite import bind_message, close_statement, describe_statement, parse_message
from protocol.pipeline import Reply
from proxy.query.statements import Statement
from proxy.server.connection import ServerConnection

PLAN_CHANGED = ErrorResponse(
    {
        "S": "ERROR",
        "V": "ERROR",
        "C": "0A000",
        "M": "cached plan must not change result type",
        "F": "plancache.c",
        "R": "RevalidateCachedQuery",
    }
).encode()
"""What a server says to a Bind of a statement whose result has changed since it was parsed."""

_generations = 0


def next_generation() -> int:
    """A new number for a client's Parse; they grow."""
    global _generations
    _generations += 1
    return _generations


class Prepared:
    """What a name stands for in one session: a shared statement, and the number of the session's own Parse.

    `statement` is None for a text that is too long to keep. `shape` is what the session was last told that
    the statement returns, None as long as it has not asked: it may rely on that until it parses anew.
    """

    __slots__ = ("generation", "shape", "statement")

    def __init__(self, statement: Statement | None, generation: int) -> None:
        self.statement = statement
        self.generation = generation
        self.shape: tuple[object, ...] | None = None


class SessionStatements:
    """The statements of one session by name; the unnamed statement has the empty name."""

    __slots__ = ("_names", "_removed", "_tentative", "_tentative_all")

    def __init__(self) -> None:
        self._names: dict[bytes, Prepared] = {}
        self._removed: dict[bytes, int] = {}
        self._tentative: dict[bytes, int] = {}
        self._tentative_all = 0

    def __len__(self) -> int:
        return len(self._names)

    def names(self) -> list[bytes]:
        """The names in use."""
        return list(self._names)

    def get(self, name: bytes) -> Prepared | None:
        """What the name stands for."""
        return self._names.get(name)

    def certain(self, name: bytes, segment: int) -> bool:
        """Whether a message in this segment may rely on what is noted of a name: nothing in an earlier
        segment that is still under way has changed it.
        """
        if self._tentative_all and self._tentative_all != segment:
            return False
        return not self._tentative or self._tentative.get(name, segment) == segment

    def settled(self) -> None:
        """No segment is under way any more: what is noted is certain."""
        if self._tentative or self._tentative_all:
            self._tentative.clear()
            self._removed.clear()
            self._tentative_all = 0

    def may_have(self, name: bytes) -> bool:
        """Whether there is a statement of this name, or will be if a request under way is not carried out."""
        return name in self._names or name in self._tentative

    def define(self, reply: Reply, name: bytes, statement: Statement | None, segment: int) -> None:
        """A Parse gives the name a new meaning; the reply to it keeps what is needed to undo that."""
        reply.name = name
        reply.previous = self._names.get(name)
        reply.generation = next_generation()
        self._names[name] = Prepared(statement, reply.generation)
        self._tentative[name] = segment

    def remove(self, reply: Reply, name: bytes, segment: int) -> None:
        """A Close, DEALLOCATE or Query takes the name away."""
        reply.name = name
        reply.previous = self._names.pop(name, None)
        reply.generation = next_generation()
        self._removed[name] = reply.generation
        self._tentative[name] = segment

    def removing_all(self, segment: int) -> None:
        """A statement that drops all prepared statements is being sent: which names are left will be seen."""
        self._tentative_all = segment

    def refer(self, reply: Reply, name: bytes) -> Statement | None:
        """Notes in the reply which statement a request means; None when the session has none of that name."""
        prepared = self._names.get(name)
        if prepared is None:
            return None
        reply.statement = prepared.statement
        reply.generation = prepared.generation
        if name and (prepared.shape is not None or reply.kind == 0x44):
            reply.previous = prepared
        return prepared.statement

    def undo(self, reply: Reply, carried_out: bool) -> None:
        """What a request would have made of a name has not come true; `carried_out` tells that it failed."""
        name = reply.name
        if name is None:
            return
        current = self._names.get(name)
        noted = current.generation if current is not None else self._removed.get(name, 0)
        if noted != reply.generation:
            return  # a later message has given the name another meaning, or taken it away
        if reply.previous is None or (carried_out and not name):
            # (A Parse for the unnamed statement drops the one before it even when it fails.)
            self._names.pop(name, None)
        else:
            self._names[name] = reply.previous

    def dropped(self, keep: set[bytes | None]) -> None:
        """All named statements are gone but those that are being prepared only now."""
        for name in self.names():
            if name and name not in keep:
                del self._names[name]


class Insertions:
    """What is slipped into a batch for the server that it is being sent to: messages before its pieces, in
    order.
    """

    __slots__ = ("_inserted", "_receiver", "_server")

    def __init__(self, server: ServerConnection, receiver: Any) -> None:
        self._server = server
        self._receiver = receiver
        self._inserted: list[tuple[int, bytes]] = []

    def prepare(self, reply: Reply) -> None:
        """Makes sure that the statement of this request is on the server, and notes what the request makes of
        it there.
        """
        if reply.kind == 0x50:  # Parse
            self._prepare_parse(reply)
        elif reply.kind == 0x43:  # Close, of the unnamed statement
            self._server.statements.unnamed = 0
        elif reply.server_name is not None:
            self._prepare_unnamed(reply)
        else:
            self._prepare_named(reply)

    def _prepare_parse(self, reply: Reply) -> None:
        name = reply.server_name
        if name is None:
            return
        statements = self._server.statements
        if not name:
            statements.unnamed = reply.generation
            return
        if reply.statement is None:
            self._server.retire = "a statement name was taken twice"
            self._close(reply.piece, name)
        elif statements.has(name):
            # The client parses anew, so the server shall plan anew: an older statement gives way.
            self._close(reply.piece, name)
        self._note(reply, name)

    def _prepare_unnamed(self, reply: Reply) -> None:
        """The unnamed statement on the server may be another session's."""
        statements = self._server.statements
        if statements.unnamed == reply.generation:
            return
        if reply.statement is not None:
            self._parse(reply.piece, parse_message(b"", reply.statement.key), b"")
            statements.unnamed = reply.generation
        else:
            self._close(reply.piece, b"")
            statements.unnamed = 0

    def _prepare_named(self, reply: Reply) -> None:
        statement: Statement = reply.statement
        server = self._server
        if not server.statements.use(statement.name, reply.generation, server.pipeline.segment):
            if server.statements.has(statement.name):
                self._close(reply.piece, statement.name)
            self._parse(reply.piece, statement.parse(), statement.name)
            self._note(reply, statement.name)

    def compare(self, reply: Reply) -> int:
        """Whether the statement returns here what the session was told: 0 it does, 1 that must be found out,
        2 it does not.
        """
        prepared: Prepared = reply.previous
        if prepared.shape is None or self._server.pipeline.status == 0x45:
            return 0  # (in a failed transaction a server refuses the request before it looks at the plan)
        statements = self._server.statements
        name = reply.statement.name
        if not statements.described(name):
            return 1
        shape = statements.shape(name)
        return 0 if shape is None or shape == prepared.shape else 2

    def describe(self, reply: Reply) -> Reply | None:
        """Slips in a Describe of the request's statement, whose answer is for us; None: it would be
        discarded.
        """
        describe = Reply(0x44, 1, self._receiver)
        describe.statement = reply.statement
        if not self._server.pipeline.add(describe):
            return None
        self._inserted.append((reply.piece, describe_statement(reply.statement.name)))
        return describe

    def fail(self, reply: Reply) -> None:
        """The statement returns something else by now. A server that had planned it before says so; this one
        is made to fail, and its error is replaced by the one that is due.
        """
        refused = Reply(0x42, 0, self._receiver)
        refused.fake = PLAN_CHANGED
        self._inserted.append((reply.piece, bind_message(b"pgsluice_changed")))
        self._add(refused)

    def _note(self, reply: Reply, name: bytes) -> None:
        """Notes a statement that is being prepared; above the limit the one used longest ago is closed."""
        server = self._server
        server.statements.note(name, reply.generation, server.pipeline.segment)
        surplus = server.statements.surplus(name)
        if surplus is not None:
            self._close(reply.piece, surplus)

    def _parse(self, piece: int, message: bytes, name: bytes) -> None:
        parse = Reply(0x50, 1, self._receiver)
        parse.server_name = name
        self._inserted.append((piece, message))
        self._add(parse)

    def _close(self, piece: int, name: bytes) -> None:
        close = Reply(0x43, 1, self._receiver)
        close.server_name = name
        self._server.statements.forget(name)
        self._inserted.append((piece, close_statement(name)))
        self._add(close)

    def _add(self, reply: Reply) -> None:
        if not self._server.pipeline.add(reply):
            self._server.undo(reply, False)

    def merge(self, pieces: list[bytes]) -> list[bytes]:
        """The pieces with what is slipped in, each insertion before the piece of its number."""
        if not self._inserted:
            return pieces
        merged: list[bytes] = []
        at = 0
        for place, message in self._inserted:
            while at < place:
                merged.append(pieces[at])
                at += 1
            merged.append(message)
        merged.extend(pieces[at:])
        return merged
