# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""A logged-in client: borrows a server for each batch of messages, and gives it back.

Messages gather in a batch (`BatchReader`) until one of them makes the server answer. Only then is a server
needed: the one that the session holds (it is inside a transaction), or one from the pool. What depends on the
server, above all which prepared statements it already has, is decided when the batch is sent, in `_transmit`.

`settled` is the only place where a server is kept or given back.
"""

from __future__ import annotations

from typing import Any

from protocol.errors import ProtocolViolation
from protocol.framing import FrameScanner
from protocol.pipeline import Reply
from proxy import clock
from proxy.client import replies as say
from proxy.client.batch import BatchReader
from proxy.client.prepared import Insertions
from proxy.net.link import Link
from proxy.observe.record import QueryRecord
from proxy.observe.statistics import QueryStatistics
from proxy.query.statements import Statement
from proxy.server.assignment import Flavour
from proxy.server.connection import ServerConnection
from proxy.server.pool import Pool, Refusal

BATCH_LIMIT = 65_536
"""An unfinished batch is sent to a server when it has grown to this many bytes."""


class Session(BatchReader):
    """One client. `server` is the connection it holds at the moment, if any; `waiting` tells that it waits
    for one; `closing` that it ends when what was asked has been answered.
    """

    __slots__ = (
        "_backlog",
        "_input_over",
        "_last_words",
        "_verifying",
        "context",
        "holds_for_session",
        "key",
        "pool",
        "statistics",
        "waiting",
    )

    def __init__(self, link: Link, pool: Pool, flavour: Flavour, context: Any, key: Any) -> None:
        super().__init__(link, pool.user, pool.database, context.catalog)
        self.pool = pool
        self.flavour: Flavour = flavour
        self.context = context
        self.key = key
        self.holds_for_session: bool = pool.holds_for_session
        self.statistics: QueryStatistics = context.statistics
        self.waiting = False
        self.waiting_since = 0.0
        self._input_over = False
        self._last_words: bytes | None = None
        self._verifying: Reply | None = None
        self._backlog: list[bytes] = []

    # -- from the client ---------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        if self.waiting or self._barred or self._verifying is not None:
            # Reading stops only now: a client that awaits its answer before it sends on costs no system call.
            self._backlog.append(data)
            self.link.pause()
            return
        self._now = clock.now()
        self._take(data)

    def _take(self, data: bytes) -> None:
        scanner = self.scanner
        try:
            if scanner.feed(data):
                self._walk(scanner)
        except ProtocolViolation as violation:
            self._violated(violation)

    def _walk(self, scanner: FrameScanner) -> None:
        """Reads what there is, then sends the batch if a segment has ended or it has grown large."""
        self._read(scanner)
        if self._ended or (self._pieces_size > BATCH_LIMIT and self._replies):
            self._dispatch()
        elif self._pieces and not self._replies:
            self._go_on_raw()
        if self._barred and not self.waiting and not self._segments_under_way():
            self._go_on()
        elif self.closing and not self.waiting:
            self._finish_closing()

    def _go_on_raw(self) -> None:
        """COPY data, or the rest of a message that is streamed: goes on to the server that reads it, or
        nowhere.
        """
        if self.server is not None:
            self._dispatch()
        else:
            self._pieces.clear()
            self._pieces_size = 0
            self._dropping = True

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
            if reply.action != 2 and (reply.kind != 0x53 or reply.piece):
                return False
        for reply in self._replies:
            self.link.write(reply.fake if reply.fake is not None else b"Z\0\0\0\5I")
        self._reset_batch()
        self.statements.settled()
        return True

    def _transmit(self, server: ServerConnection) -> None:
        """Writes the batch to the server and notes the replies that are due."""
        pieces = self._pieces
        replies = self._replies
        pipeline = server.pipeline
        insertions: Insertions | None = None
        discarded: list[Reply] | None = None
        fakes = False
        slipped = False
        for reply in replies:
            reply.sent = self._now
            if reply.statement is not None or reply.server_name is not None:
                if insertions is None:
                    insertions = Insertions(server, self)
                insertions.prepare(reply)
                if reply.previous is not None and reply.kind != 0x50 and reply.kind != 0x43:
                    verdict = insertions.compare(reply)
                    if verdict == 1:
                        self._verifying = insertions.describe(reply)
                        if self._verifying is not None:
                            break
                    elif verdict == 2:
                        insertions.fail(reply)
            elif reply.kind == 0x51:
                server.statements.unnamed = 0
                if pipeline.unsynced and not slipped:
                    # PostgreSQL 18 leaves a transaction state behind that its next statement trips over.
                    server.retire = "a Query in an unfinished pipeline"
            elif reply.action == 2:
                fakes = True
            slipped = reply.action == 1 and not pipeline.unsynced
            if not pipeline.add(reply) and reply.kind != 0x53 and reply.kind != 0x63:
                discarded = [*(discarded or ()), reply]
        if discarded is not None:
            for reply in reversed(discarded):
                server.undo(reply, False)
        if self._verifying is not None:
            pieces = self._hold_back(reply)
        else:
            self._reset_batch()
        if self.link.choking:
            server.link.pause()
        if insertions is not None:
            pieces = insertions.merge(pieces)
        if len(pieces) == 1:
            server.link.write(pieces[0])
        elif pieces:
            server.link.write(b"".join(pieces))
        if self._verifying is not None:
            server.link.write(b"H\0\0\0\4")
        if fakes:
            server.answer_fakes()
        if pipeline.is_idle() and self.server is server:
            self.settled(server)

    def _hold_back(self, reply: Reply) -> list[bytes]:
        """Keeps the batch from a request on whose statement has to be described first, until `described`;
        returns the pieces before it.
        """
        at = reply.piece
        pieces = self._pieces[:at]
        self._pieces = self._pieces[at:]
        self._replies = self._replies[self._replies.index(reply) :]
        for later in self._replies:
            later.piece -= at
        return pieces

    def described(self, reply: Reply) -> None:
        if reply is self._verifying:
            self._verified()

    def _verified(self) -> None:
        """It is known what the statement returns on this server: the rest of the batch goes on."""
        self._verifying = None
        server = self.server
        if server is not None:
            self._now = clock.now()
            self._transmit(server)
            if self._verifying is None:
                self._go_on()

    # -- from the pool -----------------------------------------------------------------------------

    def grant(self, server: ServerConnection) -> None:
        """The pool has a server for the batch."""
        self.waiting = False
        self.server = server
        server.owner = self
        if server.link.choking:
            self.link.pause()
        waited = clock.now() - self.waiting_since
        for reply in self._replies:
            if reply.record is not None:
                record: QueryRecord = reply.record
                record.wait = waited
        self._now += waited
        self._transmit(server)
        if self._backlog or self._barred or self.closing or self._input_over or self.link.paused:
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
                record.wait = record.total = clock.now() - record.started
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
        """Reads on after having waited for a server, or for it to become certain what a name stands for."""
        if self._verifying is not None:
            return
        if self._barred:
            if self._segments_under_way():
                return
            self._barred = False
            self._now = clock.now()
            try:
                self._walk(self.scanner)
            except ProtocolViolation as violation:
                self._violated(violation)
                return
        backlog = self._backlog
        while backlog and not (self.waiting or self._barred or self._verifying is not None or self.closing):
            self._now = clock.now()
            self._take(backlog.pop(0))
        if self.waiting or self._barred or self._verifying is not None:
            return
        if self._input_over:
            self.closing = True
        if self.closing:
            self._finish_closing()
        elif self.server is None or not self.server.link.choking:
            self.link.resume()

    def wait(self) -> None:
        """The pool has put the session into the line: nothing more is read until its turn."""
        self.waiting = True
        self.waiting_since = clock.now()

    # -- from the server ---------------------------------------------------------------------------

    def deliver(self, data: bytes) -> None:
        self.link.write(data)

    def settled(self, server: ServerConnection) -> None:
        pipeline = server.pipeline
        if pipeline.is_idle() and self.scanner.left == 0:
            # (In the middle of a message, the server is still reading it.)
            if not self._replies:
                self.statements.settled()
            if pipeline.status == 0x49:
                self._portals = None
                if not self.holds_for_session or self.closing:
                    self._release(server)
        if self._barred:
            self._go_on()
        elif self.closing:
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
        now = clock.now()
        record = QueryRecord(
            statement.fingerprint, self.user, self.database, reply.sent, 0, server.pipeline.status != 0x49
        )
        record.sqlstate = sqlstate
        record.server = record.total = now - reply.sent
        record.server_pid = server.pid
        self.statistics.observe(record)

    def undo(self, reply: Reply, carried_out: bool) -> None:
        self.statements.undo(reply, carried_out)
        if reply is self._verifying:
            self._verified()

    def statements_dropped(self, keep: set[bytes | None]) -> None:
        self.statements.dropped(keep | {reply.name for reply in self._replies if reply.kind == 0x50})

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
        if self.waiting and not self.closing and not self.pool.assignment.opening:
            # Nothing has been begun, and most likely nobody is there to read the answer: the line moves up.
            self._end()
        elif self.waiting or self._barred or self._verifying is not None:
            self._input_over = True
        else:
            self.closing = True
            self._finish_closing()

    def lost(self, error: Exception | None) -> None:
        self.closing = True
        self._leave()
        self.context.session_ended(self)

    def _leave(self) -> None:
        """Leaves the line, or the server that is still held."""
        self._backlog.clear()
        in_a_message = self.scanner.left > 0 or len(self._pieces) > 0
        self._reset_batch()
        if self.waiting:
            self.waiting = False
            self.pool.leave(self)
        server = self.server
        if server is not None:
            if in_a_message:  # or its rest has not been sent
                server.retire = "the client left in the middle of a message"
            self.server = None
            server.owner = None
            self.pool.abandon(server)

    def _finish_closing(self) -> None:
        """The client sends no more. What it has asked is still answered, as by a server, which reads the end
        only after that; then the connection ends.
        """
        server = self.server
        if self._verifying is not None:
            return
        if server is not None and not self.waiting:
            pipeline = server.pipeline
            if not (pipeline.awaits_client() or pipeline.is_idle()):
                return
        self._end()

    def _end(self) -> None:
        self.closing = True
        server = self.server
        # (In the middle of a row, an error would be read as its rest.)
        speak = self._last_words is not None and (server is None or server.scanner.left == 0)
        self._leave()
        if speak:
            self.link.write(self._last_words or b"")
        self.link.close()

    def terminate(self, sqlstate: str, message: str) -> None:
        """Ends the session from our side with a FATAL error."""
        self._last_words = say.error("FATAL", sqlstate, message, None)
        self._end()

    def _violated(self, violation: ProtocolViolation) -> None:
        """What the client asked before it broke the protocol is still answered, as by a server."""
        self.context.protocol_violated(self.link.peer, str(violation))
        self._last_words = say.error("FATAL", violation.sqlstate, str(violation), None)
        self.closing = True
        scanner = self.scanner
        if self._segment_unsent:
            self._cut(scanner, scanner.pos)
            self._dispatch()
        if not self.waiting:
            self._finish_closing()

    def __repr__(self) -> str:
        return f"<Session {self.user}@{self.database} {self.link.peer}>"
