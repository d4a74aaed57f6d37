# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""A logged-in client: reads its messages, borrows a server for them, and gives it back.

Messages gather in a *batch* until one of them makes the server answer (Query, Sync, Flush, FunctionCall).
Only then is a server needed: the one that the session holds (it is inside a transaction), or one from the
pool. What depends on the server, above all which prepared statements it already has, is decided when the
batch is sent, in `_transmit`; the batch itself is a list of pieces, cut from the chunks as they came wherever
something may have to be slipped in.

`settled` is the only place where a server is kept or given back.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from protocol.errors import ProtocolViolation
from protocol.framing import FrameScanner, frontend_scanner
from protocol.messages.rewrite import (
    close_statement,
    cstring_end,
    describe_statement,
    parse_message,
    rename_bind,
)
from protocol.pipeline import Reply
from proxy.client import replies as say
from proxy.client.deallocate import deallocate_target
from proxy.net.link import Link
from proxy.observe.record import QueryRecord
from proxy.observe.statistics import QueryStatistics
from proxy.query.fingerprint import fingerprint
from proxy.query.statements import Statement, StatementCatalog
from proxy.server.assignment import Flavour
from proxy.server.connection import Receiver, ServerConnection
from proxy.server.pool import Pool, Refusal

BATCH_LIMIT = 65_536
"""An unfinished batch is sent to a server when it has grown to this many bytes."""

MAX_PORTALS = 1_000
"""Named portals whose statement is remembered for the measurements."""


_serials = 0
"""Numbers the Parse messages for the unnamed statement, so that a server connection can tell whose it
holds.
"""


def _next_serial() -> int:
    global _serials
    _serials += 1
    return _serials


class Prepared:
    """What a name stands for in one session: a shared statement, and the number of the session's own Parse.

    A statement that a server connection prepared for an older Parse may have been planned before a change of
    the schema that the client knows of; it must not be used for a newer one.
    """

    __slots__ = ("generation", "statement")

    def __init__(self, statement: Statement, generation: int) -> None:
        self.statement = statement
        self.generation = generation


class Session(Receiver):
    """One client. `server` is the connection it holds at the moment, if any; `waiting` tells that it waits
    for one.
    """

    __slots__ = (
        "_backlog",
        "_bytes_seen",
        "_ended",
        "_fresh",
        "_now",
        "_offset",
        "_pieces",
        "_pieces_size",
        "_portal",
        "_portals",
        "_replies",
        "_run",
        "_serial",
        "_unnamed",
        "catalog",
        "closing",
        "context",
        "database",
        "holds_for_session",
        "key",
        "link",
        "pool",
        "scanner",
        "server",
        "statements",
        "statistics",
        "user",
        "waiting",
    )

    def __init__(self, link: Link, pool: Pool, flavour: Flavour, context: Any, key: Any) -> None:
        self.link = link
        self.pool = pool
        self.flavour: Flavour = flavour
        self.context = context
        self.key = key
        self.user: str = pool.user
        self.database: str = pool.database
        self.holds_for_session: bool = pool.holds_for_session
        self.catalog: StatementCatalog = context.catalog
        self.statistics: QueryStatistics = context.statistics
        self.scanner: FrameScanner = frontend_scanner()
        self.server: ServerConnection | None = None
        self.statements: dict[bytes, Prepared] = {}
        self.waiting = False
        self.waiting_since = 0.0
        self.closing = False
        self._unnamed: Statement | None = None
        self._serial = 0
        self._portal: Statement | None = None
        self._portals: dict[bytes, Statement] | None = None
        self._pieces: list[bytes] = []
        self._pieces_size = 0
        self._replies: list[Reply] = []
        self._backlog: list[bytes] = []
        self._ended = False
        self._fresh = False
        self._run = 0
        self._now = 0.0
        self._offset = 0
        self._bytes_seen = 0

    # -- from the client ---------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        if self.waiting:
            # Reading stops only now: a client that awaits its answer before it sends on costs no system call.
            self._backlog.append(data)
            self.link.pause()
            return
        self._now = perf_counter()
        self._take(data)

    def _take(self, data: bytes) -> None:
        scanner = self.scanner
        try:
            if scanner.feed(data):
                self._run = 0
                self._walk(scanner)
        except ProtocolViolation as violation:
            self._violated(violation)

    def _walk(self, scanner: FrameScanner) -> None:
        """Reads the messages in the chunk, then sends the batch if it has ended."""
        while not self.closing:
            tag = scanner.next()
            if tag == 0:
                break
            if tag == 0x51:  # Query
                self._query(scanner)
            elif tag == 0x42:  # Bind
                self._bind(scanner)
            elif tag == 0x45:  # Execute
                self._execute(scanner)
            elif tag == 0x53:  # Sync
                self._replies.append(Reply(0x53, 0, self))
                self._ended = True
                self._fresh = False
            elif tag == 0x50:  # Parse
                self._parse(scanner)
            elif tag == 0x44:  # Describe
                self._describe(scanner)
            else:
                self._rare(scanner, tag)
        if scanner.pos > self._run:
            self._cut(scanner, scanner.pos)
        self._offset += scanner.pos
        scanner.forget()
        if self._ended or (self._pieces_size > BATCH_LIMIT and self._replies):
            self._dispatch()
        elif self._pieces and not self._replies:
            self._go_on_raw()
        if self.closing and not self.waiting:
            self._finish_closing()

    def _rare(self, scanner: FrameScanner, tag: int) -> None:
        if tag == 0x48:  # Flush
            self._ended = True
        elif tag == 0x43:  # Close
            self._close(scanner)
        elif tag == 0x63 or tag == 0x66:  # CopyDone, CopyFail
            self._copy_end(scanner)
        elif tag == 0x46:  # FunctionCall
            reply = Reply(0x46, 0, self)
            reply.record = self._record(scanner, fingerprint(b"function call"))
            self._replies.append(reply)
            self._ended = True
        elif tag == 0x58:  # Terminate
            self._cut(scanner, scanner.start)
            self._run = scanner.end
            self.closing = True

    def _cut(self, scanner: FrameScanner, upto: int) -> None:
        """Adds the bytes that have been read up to an offset to the batch, as they are."""
        run = self._run
        if upto > run:
            self._pieces.append(scanner.data if run == 0 and upto == scanner.size else scanner.data[run:upto])
            self._pieces_size += upto - run
            self._run = upto

    def _replace(self, scanner: FrameScanner, message: bytes) -> None:
        """Adds another message to the batch in place of the one just read."""
        self._cut(scanner, scanner.start)
        self._pieces.append(message)
        self._pieces_size += len(message)
        self._run = scanner.end

    def _record(self, scanner: FrameScanner, shape: Any) -> QueryRecord:
        seen = self._offset + scanner.end + scanner.left
        server = self.server
        record = QueryRecord(
            shape,
            self.user,
            self.database,
            self._now,
            seen - self._bytes_seen,
            server is not None and server.pipeline.status != 0x49,
        )
        self._bytes_seen = seen
        return record

    def _query(self, scanner: FrameScanner) -> None:
        data = scanner.data
        start = scanner.start
        sql = data[start + 5 : scanner.end - 1]
        reply = Reply(0x51, 0, self)
        reply.record = self._record(scanner, fingerprint(sql))
        self._replies.append(reply)
        self._ended = True
        self._fresh = False
        self._unnamed = None
        self._portal = None
        if (sql[:1] == b"D" or sql[:1] == b"d" or sql[:1] == b" " or sql[:1] == b"\n") and scanner.left == 0:
            self._maybe_deallocate(scanner, sql)

    def _maybe_deallocate(self, scanner: FrameScanner, sql: bytes) -> None:
        """DEALLOCATE of one of the session's own statements: the server knows it by another name, and keeps
        it for others.
        """
        name = deallocate_target(sql)
        if (
            name is None
            or name not in self.statements
            or (self.server is not None and self.server.pipeline.status == 0x45)
        ):
            return
        del self.statements[name]
        gone = b"pgsluice_gone_%x" % _next_serial()
        reply = self._replies.pop()
        self._cut(scanner, scanner.start)
        self._pieces.append(parse_message(gone, b"\0\0\0"))
        self._replies.append(Reply(0x50, 1, self))
        self._replies.append(reply)
        text = b"DEALLOCATE " + gone + b"\0"
        self._replace(scanner, b"Q" + (4 + len(text)).to_bytes(4, "big") + text)

    def _parse(self, scanner: FrameScanner) -> None:
        data = scanner.data
        start = scanner.start
        end = scanner.end
        name_end = cstring_end(data, start + 5, end)
        reply = Reply(0x50, 0, self)
        self._replies.append(reply)
        if scanner.left > 0:
            self._huge_parse(name_end - start - 5)
            return
        cstring_end(data, name_end + 1, end)
        statement = self.catalog.find(data[name_end + 1 : end])
        reply.statement = statement
        if name_end == start + 5:
            reply.name = b""
            reply.server_name = b""
            reply.previous = (self._unnamed, self._serial)
            self._serial = _next_serial()
            reply.generation = self._serial
            self._unnamed = statement
            self._fresh = True
            return
        name = data[start + 5 : name_end]
        reply.name = name
        reply.previous = self.statements.get(name)
        if reply.previous is not None:
            self._parse_again(scanner, reply, name)
            return
        reply.generation = _next_serial()
        self.statements[name] = Prepared(statement, reply.generation)
        reply.server_name = statement.name
        self._cut(scanner, start)
        reply.piece = len(self._pieces)
        self._replace(scanner, statement.parse())

    def _parse_again(self, scanner: FrameScanner, reply: Reply, name: bytes) -> None:
        """A Parse for a name that is taken: the server itself shall say what is wrong with it, so it is made
        to have that name.
        """
        self._replies.pop()
        self._cut(scanner, scanner.start)
        taken = Reply(0x50, 1, self)
        taken.server_name = name
        taken.piece = len(self._pieces)
        self._pieces.append(parse_message(name, b"\0\0\0"))
        self._replies.append(taken)
        self._replies.append(reply)

    def _huge_parse(self, name_length: int) -> None:
        """A text too long to keep passes through; it can only be prepared as the unnamed statement, where it
        is used at once.
        """
        if name_length > 0:
            raise ProtocolViolation("the text of a named prepared statement may have at most 16 MB")
        self._unnamed = None
        self._fresh = True

    def _bind(self, scanner: FrameScanner) -> None:
        data = scanner.data
        start = scanner.start
        end = scanner.end
        portal_end = cstring_end(data, start + 5, end)
        name_end = cstring_end(data, portal_end + 1, end)
        reply = Reply(0x42, 0, self)
        self._replies.append(reply)
        statement: Statement | None
        if name_end == portal_end + 1:
            statement = self._unnamed
            self._use_unnamed(scanner, reply, statement)
        else:
            name = data[portal_end + 1 : name_end]
            statement = self._refer(reply, name)
            if statement is not None:
                self._cut(scanner, start)
                reply.piece = len(self._pieces)
                self._replace(scanner, rename_bind(data, start, end, name, statement.name))
        if portal_end == start + 5:
            self._portal = statement
        elif statement is not None:
            self._name_portal(data[start + 5 : portal_end], statement)

    def _refer(self, reply: Reply, name: bytes) -> Statement | None:
        """Notes in the reply which statement a request means; None when the session has none of that name."""
        prepared = self.statements.get(name)
        if prepared is None:
            return None
        reply.statement = prepared.statement
        reply.generation = prepared.generation
        return prepared.statement

    def _name_portal(self, portal: bytes, statement: Statement) -> None:
        if self._portals is None or len(self._portals) >= MAX_PORTALS:
            self._portals = {}
        self._portals[portal] = statement

    def _use_unnamed(self, scanner: FrameScanner, reply: Reply, statement: Statement | None) -> None:
        """The unnamed statement of an earlier batch may be gone from the server: leaves a place to parse it
        again.
        """
        if statement is not None and not self._fresh:
            self._cut(scanner, scanner.start)
            reply.statement = statement
            reply.name = b""
            reply.generation = self._serial
            reply.piece = len(self._pieces)

    def _describe(self, scanner: FrameScanner) -> None:
        data = scanner.data
        start = scanner.start
        reply = Reply(0x44, 0, self)
        self._replies.append(reply)
        if data[start + 5] != 83 or scanner.end < start + 7:  # S: a statement
            return
        name_end = cstring_end(data, start + 6, scanner.end)
        if name_end == start + 6:
            self._use_unnamed(scanner, reply, self._unnamed)
            return
        statement = self._refer(reply, data[start + 6 : name_end])
        if statement is not None:
            self._cut(scanner, start)
            reply.piece = len(self._pieces)
            self._replace(scanner, describe_statement(statement.name))

    def _execute(self, scanner: FrameScanner) -> None:
        data = scanner.data
        start = scanner.start
        name_end = cstring_end(data, start + 5, scanner.end)
        statement = self._portal
        if name_end > start + 5:
            statement = None if self._portals is None else self._portals.get(data[start + 5 : name_end])
        reply = Reply(0x45, 0, self)
        reply.record = self._record(
            scanner, statement.fingerprint if statement is not None else fingerprint(b"portal")
        )
        self._replies.append(reply)

    def _close(self, scanner: FrameScanner) -> None:
        data = scanner.data
        start = scanner.start
        reply = Reply(0x43, 0, self)
        self._replies.append(reply)
        if data[start + 5] != 83 or scanner.end < start + 7:
            return
        name = data[start + 6 : cstring_end(data, start + 6, scanner.end)]
        if not name:
            reply.name = b""
            reply.previous = (self._unnamed, self._serial)
            self._unnamed = None
        elif name in self.statements:
            # The server keeps the statement for others.
            reply.action = 2
            reply.fake = b"3\0\0\0\4"
            reply.name = name
            reply.previous = self.statements.pop(name)
            self._cut(scanner, start)
            self._run = scanner.end

    def _copy_end(self, scanner: FrameScanner) -> None:
        server = self.server
        if server is None and not self._replies:
            self._run = scanner.end  # outside a COPY a server ignores it, and so do we
            self._pieces.clear()
            self._pieces_size = 0
            return
        if server is not None:
            head = server.pipeline.head()
            if head is not None and head.record is not None:
                record: QueryRecord = head.record
                seen = self._offset + scanner.end
                record.bytes_in += seen - self._bytes_seen
                self._bytes_seen = seen
        self._replies.append(Reply(0x63, 0, self))
        self._ended = True

    def _go_on_raw(self) -> None:
        """COPY data, or the rest of a message that is streamed: goes on to the server that reads it, or
        nowhere.
        """
        server = self.server
        if server is None:
            self._pieces.clear()
            self._pieces_size = 0
            return
        self._dispatch()

    # -- to the server -----------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Sends the batch, after getting a server for it if need be."""
        server = self.server
        if server is None:
            if self._answer_here():
                return
            server = self.pool.acquire(self, self.flavour)
            if server is None:
                return  # the pool calls `grant` or `refuse`
            self.server = server
            server.owner = self
        self._transmit(server)

    def _answer_here(self) -> bool:
        """A batch that no server needs to see (Close of prepared statements, Sync) is answered at once."""
        for reply in self._replies:
            if reply.action != 2 and reply.kind != 0x53:
                return False
        for reply in self._replies:
            self.link.write(reply.fake if reply.fake is not None else b"Z\0\0\0\5I")
        self._reset_batch()
        return True

    def _reset_batch(self) -> None:
        self._pieces = []
        self._pieces_size = 0
        self._replies = []
        self._ended = False

    def _transmit(self, server: ServerConnection) -> None:
        """Writes the batch to the server and notes the replies that are due."""
        pieces = self._pieces
        replies = self._replies
        pipeline = server.pipeline
        inserted: list[tuple[int, bytes]] | None = None
        fakes = False
        for reply in replies:
            reply.sent = self._now
            if reply.statement is not None or reply.server_name is not None:
                if inserted is None:
                    inserted = []
                self._prepare(server, reply, inserted)
            elif reply.kind == 0x51:
                server.unnamed = None
            elif reply.action == 2:
                fakes = True
            if not pipeline.add(reply) and reply.kind != 0x53 and reply.kind != 0x63:
                server.undo(reply, False)
        self._reset_batch()
        if self.link.choking:
            server.link.pause()
        if inserted:
            pieces = _merge(pieces, inserted)
        if len(pieces) == 1:
            server.link.write(pieces[0])
        elif pieces:
            server.link.write(b"".join(pieces))
        if fakes:
            server.answer_fakes()
        if pipeline.is_idle() and self.server is server:
            self.settled(server)

    def _prepare(self, server: ServerConnection, reply: Reply, inserted: list[tuple[int, bytes]]) -> None:
        """Makes sure that the statement of this request is on the server, and notes what the request makes of
        it there.
        """
        if reply.kind == 0x50:
            self._prepare_parse(server, reply, inserted)
            return
        statement: Statement = reply.statement
        if reply.name is not None:  # the unnamed statement
            if server.unnamed != reply.generation:
                self._slip_in(server, inserted, reply.piece, parse_message(b"", statement.key), b"")
                server.unnamed = reply.generation
        elif not server.use(statement.name, reply.generation):
            if server.has(statement.name):
                self._close_there(server, inserted, reply.piece, statement.name)
            self._slip_in(server, inserted, reply.piece, statement.parse(), statement.name)
            self._note(server, inserted, reply, statement.name)

    def _prepare_parse(
        self, server: ServerConnection, reply: Reply, inserted: list[tuple[int, bytes]]
    ) -> None:
        name = reply.server_name
        if name is None:
            return
        if not name:
            server.unnamed = reply.generation
            return
        if reply.statement is None:
            server.retire = "a statement name was taken twice"
        elif server.has(name):
            # The client parses anew, so the server shall plan anew: another session's older statement gives
            # way.
            self._close_there(server, inserted, reply.piece, name)
        self._note(server, inserted, reply, name)

    def _note(
        self, server: ServerConnection, inserted: list[tuple[int, bytes]], reply: Reply, name: bytes
    ) -> None:
        """Notes a statement that is being prepared; above the limit the one used longest ago is closed."""
        server.note_prepared(name, reply.generation)
        surplus = server.surplus(name)
        if surplus is not None:
            self._close_there(server, inserted, reply.piece, surplus)

    def _close_there(
        self, server: ServerConnection, inserted: list[tuple[int, bytes]], piece: int, name: bytes
    ) -> None:
        """Closes a statement on the server that this session does not know of; the answer is skipped."""
        close = Reply(0x43, 1, self)
        close.server_name = name
        close.generation = server.prepared.get(name, 0)
        server.forget_prepared(name)
        inserted.append((piece, close_statement(name)))
        self._add(server, close)

    def _slip_in(
        self,
        server: ServerConnection,
        inserted: list[tuple[int, bytes]],
        piece: int,
        message: bytes,
        name: bytes,
    ) -> None:
        """A Parse that the client did not send; its answer is skipped."""
        parse = Reply(0x50, 1, self)
        parse.server_name = name
        inserted.append((piece, message))
        self._add(server, parse)

    def _add(self, server: ServerConnection, reply: Reply) -> None:
        if not server.pipeline.add(reply):
            server.undo(reply, False)

    # -- from the pool -----------------------------------------------------------------------------

    def grant(self, server: ServerConnection) -> None:
        """The pool has a server for the batch."""
        self.waiting = False
        self.server = server
        server.owner = self
        waited = perf_counter() - self.waiting_since
        for reply in self._replies:
            if reply.record is not None:
                record: QueryRecord = reply.record
                record.wait = waited
        self._now += waited
        self._transmit(server)
        self._go_on()

    def refuse(self, refusal: Refusal) -> None:
        """There is no server for the batch: it gets an error, the session lives on unless it is in the middle
        of a message.
        """
        self.waiting = False
        sqlstate, message, detail = refusal.sqlstate, refusal.message, refusal.detail
        replies = self._replies
        for reply in reversed(replies):
            self.undo(reply, False)
        unfinished = (
            not replies or replies[len(replies) - 1].kind not in (0x51, 0x53, 0x46) or self.scanner.partial
        )
        for reply in replies:
            if reply.record is not None:
                record: QueryRecord = reply.record
                record.sqlstate = sqlstate
                record.wait = record.total = perf_counter() - record.started
                self.measured(record)
        self._reset_batch()
        if unfinished:
            self.link.write(say.error("FATAL", sqlstate, message, detail))
            self._end()
            return
        answer = say.error("ERROR", sqlstate, message, detail) + b"Z\0\0\0\5I"
        for reply in replies:
            if reply.kind == 0x51 or reply.kind == 0x53 or reply.kind == 0x46:
                self.link.write(answer)
        self._go_on()

    def _go_on(self) -> None:
        """Reads on after waiting for a server."""
        backlog = self._backlog
        if not backlog and not self.closing:
            return
        while backlog and not self.waiting and not self.closing:
            self._now = perf_counter()
            self._take(backlog.pop(0))
        if self.closing and not self.waiting:
            self._finish_closing()
        elif not self.waiting:
            self.link.resume()

    def wait(self) -> None:
        """The pool has put the session into the line: nothing more is read until its turn."""
        self.waiting = True
        self.waiting_since = perf_counter()

    # -- from the server ---------------------------------------------------------------------------

    def deliver(self, data: bytes) -> None:
        self.link.write(data)

    def settled(self, server: ServerConnection) -> None:
        if server.pipeline.status == 0x49:
            self._portals = None
            if not self.holds_for_session or self.closing:
                self._release(server)
        if self.closing:
            self._finish_closing()

    def _release(self, server: ServerConnection) -> None:
        self.server = None
        server.owner = None
        if server.link.paused:
            server.link.resume()
        if server.link.choking:
            self.link.resume()
        self.pool.release(server)

    def measured(self, record: QueryRecord) -> None:
        self.statistics.observe(record)

    def failed(self, reply: Reply, sqlstate: str, server: ServerConnection) -> None:
        statement: Statement | None = reply.statement
        if statement is None:
            return
        now = perf_counter()
        record = QueryRecord(
            statement.fingerprint, self.user, self.database, reply.sent, 0, server.pipeline.status != 0x49
        )
        record.sqlstate = sqlstate
        record.server = record.total = now - reply.sent
        record.server_pid = server.pid
        self.statistics.observe(record)

    def undo(self, reply: Reply, carried_out: bool) -> None:
        name = reply.name
        if name is None or (reply.kind != 0x50 and reply.kind != 0x43):
            return
        if not name:
            if carried_out:
                self._unnamed = None
            else:
                self._unnamed, self._serial = reply.previous
        elif reply.previous is None:
            self.statements.pop(name, None)
        else:
            self.statements[name] = reply.previous

    def statements_dropped(self, server: ServerConnection) -> None:
        self.statements.clear()
        self._unnamed = None

    def server_choked(self, choked: bool) -> None:
        if choked:
            self.link.pause()
        elif not self.waiting:
            self.link.resume()

    def server_lost(self, server: ServerConnection, error: Exception | None) -> None:
        self.server = None
        if not server.fatal and server.scanner.left == 0:
            self.link.write(say.error("FATAL", "08006", "server closed the connection unexpectedly", None))
        self._end()

    # -- the end -----------------------------------------------------------------------------------

    def choked(self) -> None:
        if self.server is not None:
            self.server.link.pause()

    def cleared(self) -> None:
        if self.server is not None:
            self.server.link.resume()

    def ended(self) -> None:
        self.closing = True
        if not self.waiting:
            self._finish_closing()

    def lost(self, error: Exception | None) -> None:
        self.closing = True
        self._leave()
        self.context.session_ended(self)

    def _leave(self) -> None:
        """Leaves the line, or the server that is still held."""
        self._backlog.clear()
        self._reset_batch()
        if self.waiting:
            self.waiting = False
            self.pool.leave(self)
        server = self.server
        if server is not None:
            self.server = None
            server.owner = None
            self.pool.abandon(server)

    def _finish_closing(self) -> None:
        """The client sends no more. What it has asked is still answered, as by a server, which reads the end
        only after that; then the connection ends.
        """
        server = self.server
        if server is not None and not self.waiting:
            pipeline = server.pipeline
            if not (pipeline.unsynced or pipeline.copying_in or pipeline.is_idle()):
                return
        self._end()

    def _end(self) -> None:
        self.closing = True
        self._leave()
        self.link.close()

    def terminate(self, sqlstate: str, message: str) -> None:
        """Ends the session from our side with a FATAL error."""
        self.link.write(say.error("FATAL", sqlstate, message, None))
        self._end()

    def _violated(self, violation: ProtocolViolation) -> None:
        self.context.protocol_violated(self.link.peer, str(violation))
        self.terminate("08P01", str(violation))

    def __repr__(self) -> str:
        return f"<Session {self.user}@{self.database} {self.link.peer}>"


def _merge(pieces: list[bytes], inserted: list[tuple[int, bytes]]) -> list[bytes]:
    """The pieces with what is slipped in: each insertion goes before the piece of its number, in their
    order.
    """
    merged: list[bytes] = []
    at = 0
    for place, message in inserted:
        while at < place:
            merged.append(pieces[at])
            at += 1
        merged.append(message)
    merged.extend(pieces[at:])
    return merged
