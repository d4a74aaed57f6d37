# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""One connection to a server: relays its replies to whom they belong, and knows what state it is in.

Bytes flow from the socket through the frame scanner to the receiver without being decoded: a chunk in which
nothing is skipped goes on as the very object that the event loop handed over. The `ReplyPipeline` says for
each message that is not bulk whose it is; measurements are taken where the stream shows that a statement has
ended.
"""

from __future__ import annotations

from typing import Any

from protocol.errors import ProtocolViolation
from protocol.framing import FrameScanner, backend_scanner
from protocol.messages.rewrite import command_rows, error_is_fatal, error_sqlstate
from protocol.pipeline import Reply, ReplyPipeline
from proxy import clock
from proxy.net.link import Link, LinkHandler
from proxy.observe.record import QueryRecord
from proxy.server.assignment import Flavour
from proxy.server.prepared import ServerStatements, row_shape


class Waiter(LinkHandler):
    """Who asks a pool for a server of its `flavour`. `waiting_since` is when it began to wait
    (`clock.now`).
    """

    __slots__ = ("flavour", "waiting_since")

    flavour: Flavour
    waiting_since: float

    def wait(self) -> None:
        """There is no server yet; `grant` or `refuse` will be called."""

    def grant(self, server: ServerConnection) -> None:
        """Here is the server."""

    def refuse(self, refusal: Any) -> None:
        """There is none; `refusal` (`pool.Refusal`) says why."""


class Receiver(Waiter):
    """Who gets the replies of a server connection."""

    __slots__ = ()

    def deliver(self, data: bytes) -> None:
        """Bytes for the client."""

    def settled(self, server: ServerConnection) -> None:
        """A ReadyForQuery has come."""

    def measured(self, record: QueryRecord) -> None:
        """A statement has ended."""

    def described(self, reply: Reply) -> None:
        """A Describe that was slipped in has been answered."""

    def failed(self, reply: Reply, sqlstate: str, server: ServerConnection) -> None:
        """A request that is not measured by itself (Parse, Bind, Describe) met an error."""

    def undo(self, reply: Reply, carried_out: bool) -> None:
        """A request was not carried out, or (`carried_out`) failed: what was noted when it was sent does not
        hold.
        """

    def statements_dropped(self, keep: set[bytes | None]) -> None:
        """DEALLOCATE ALL or DISCARD ALL has dropped every prepared statement but those of these names."""

    def server_choked(self, choked: bool) -> None:
        """The server does not read as fast as the client sends (or does so again)."""

    def server_lost(self, server: ServerConnection, error: Exception | None) -> None:
        """The server connection broke while it was the receiver's."""


class ServerConnection(LinkHandler):
    """A logged-in connection to a server.

    `owner` is the session that holds it; `flavour` and `pool` are the pool's. `statements` are the prepared
    statements on it. `retire`, once set, is the reason why the connection must not be used for another
    session. `cancels` counts cancel requests that are under way to it.
    """

    __slots__ = (
        "_done_at",
        "_event_end",
        "_executed",
        "_executed_sent",
        "_offset",
        "_out",
        "_position",
        "_rest",
        "_run",
        "_target",
        "cancels",
        "fatal",
        "flavour",
        "greeting",
        "link",
        "owner",
        "pid",
        "pipeline",
        "pool",
        "retire",
        "scanner",
        "secret",
        "since",
        "statements",
    )

    def __init__(self, link: Link, pool: Any, flavour: Any, greeting: Any, limit: int) -> None:
        self.link = link
        self.pool = pool
        self.flavour = flavour
        self.greeting = greeting
        self.pid = greeting.pid
        self.secret = greeting.secret
        self.since = clock.now()
        self.owner: Receiver | None = None
        self.scanner: FrameScanner = backend_scanner()
        self.pipeline = ReplyPipeline()
        self.statements = ServerStatements(limit)
        self.retire: str | None = None
        self.cancels = 0
        self.fatal = False
        self._done_at = 0.0
        self._executed: QueryRecord | None = None
        self._executed_sent = 0.0
        self._out: list[bytes] = []
        self._target: Receiver | None = None
        self._run = 0
        self._rest = 0
        self._event_end = 0
        self._offset = 0
        self._position = 0

    def undo(self, reply: Reply, carried_out: bool) -> None:
        """Takes back what was noted when the request was sent, because it was not carried out or failed."""
        name = reply.server_name
        if reply.kind == 0x51:  # Query: it would have dropped the unnamed statement
            self.statements.unnamed = -1
        elif name is not None:
            self.statements.doubt(name)
        receiver = reply.receiver
        if receiver is not None:
            receiver.undo(reply, carried_out)

    # -- the relay ---------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        scanner = self.scanner
        try:
            if scanner.feed(data):
                self._walk(scanner)
        except ProtocolViolation as violation:
            self._out.clear()
            self.retire = str(violation)
            self.pool.server_broken(self, violation)
            self.link.abort()

    def _walk(self, scanner: FrameScanner) -> None:
        pipeline = self.pipeline
        now = clock.now()
        self._run = 0
        self._event_end = 0
        if self._rest:
            self._go_on_streaming(scanner)
        while True:
            tag = scanner.next()
            if tag == 0:
                break
            head = pipeline.head()
            if head is not None:
                self._aim(head)
            elif self._target is not self.owner:
                self._flush(scanner)
                self._target = self.owner
            if (
                tag == 0x41 or tag == 0x53 or tag == 0x4E
            ):  # NotificationResponse, ParameterStatus, NoticeResponse
                if self._target is None or (tag == 0x4E and head is not None and head.action == 1):
                    self._skip(scanner)
                if scanner.left:
                    self._rest = 2 if self._run == scanner.end else 1
                self._event_end = scanner.end
                continue
            status = 0
            if tag == 0x5A:
                if scanner.end != scanner.start + 6:
                    raise ProtocolViolation("server sent a ReadyForQuery without a status")
                status = scanner.data[scanner.start + 5]
            if pipeline.answer(tag, status) == 1 or self._target is None:
                self._skip(scanner)
            if scanner.left:
                self._rest = 2 if self._run == scanner.end else 1
            self._event_end = scanner.end
            if tag == 0x47 and self.owner is not None:  # CopyInResponse
                # A Sync sent too early has just gone by: whoever waits for its answer has to read on.
                self._flush(scanner)
                self.owner.settled(self)
            if (tag == 0x54 or tag == 0x6E) and pipeline.done is not None:  # RowDescription, NoData
                self._described(scanner, pipeline.done, tag)
            if tag == 0x43:  # CommandComplete
                self._completed(scanner, head, now)
            elif tag == 0x5A:  # ReadyForQuery
                self._ready(scanner, head, now)
                continue
            elif tag == 0x45:  # ErrorResponse
                if pipeline.failed is not None and pipeline.failed.fake is not None:
                    self._replace_error(scanner, pipeline.failed)
                self._errored(scanner, head, now)
            elif tag == 0x49 or tag == 0x73:  # EmptyQueryResponse, PortalSuspended
                if pipeline.done is not None:
                    if tag == 0x73 and pipeline.done.record is not None:
                        # (It carries no count, but comes after exactly as many rows as were asked for.)
                        pipeline.done.record.rows += pipeline.done.generation
                    self._execute_ended(scanner, pipeline.done, now)
            if (pipeline.done is not None or tag == 0x45) and not self._rest:
                self._fakes(scanner)
        self._finish(scanner)

    def _go_on_streaming(self, scanner: FrameScanner) -> None:
        """The chunk begins with the rest of a message that was too long to wait for: it goes where its
        beginning went, whoever is next.
        """
        rest = min(scanner.left, scanner.size)
        if self._rest == 2:
            self._position += rest
            self._run = rest
        self._event_end = rest
        if rest == scanner.left:
            self._rest = 0
            self._fakes(scanner)

    def _aim(self, head: Reply) -> None:
        """Points the relay at the receiver of the next reply."""
        if head.receiver is not self._target:
            self._flush(self.scanner)
            self._target = head.receiver

    def _skip(self, scanner: FrameScanner) -> None:
        """Leaves the message just met, and the bulk before it, out of what is relayed."""
        self._cut(scanner, self._event_end)
        self._position += scanner.end - self._event_end
        self._run = scanner.end

    def _cut(self, scanner: FrameScanner, upto: int) -> None:
        """Queues the run of bytes up to an offset for the receiver."""
        run = self._run
        if upto > run:
            if run == 0 and upto == scanner.size:
                self._out.append(scanner.data)
            else:
                self._out.append(scanner.data[run:upto])
            self._run = upto

    def _flush(self, scanner: FrameScanner) -> None:
        """Hands what is queued, and the run up to the last message, to the receiver."""
        self._cut(scanner, self._event_end)
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            if self._target is not None:
                self._target.deliver(data)

    def _finish(self, scanner: FrameScanner) -> None:
        """The chunk is used up: relays its rest."""
        head = self.pipeline.head()
        if head is not None and not self._rest:
            self._aim(head)
        if scanner.pos > self._event_end:
            if self._target is None or (head is not None and head.action == 1):
                self._cut(scanner, self._event_end)
                self._position += scanner.pos - self._event_end
                self._run = scanner.pos
            self._event_end = scanner.pos
        self._flush(scanner)
        self._offset += scanner.pos
        scanner.forget()

    def _fakes(self, scanner: FrameScanner) -> None:
        """Slips in the answers that the server was never asked for and whose turn has come."""
        while True:
            fake = self.pipeline.next_fake()
            if fake is None:
                return
            self._aim(fake)
            if fake.fake is not None:
                self._cut(scanner, self._event_end)
                self._out.append(fake.fake)

    def answer_fakes(self) -> None:
        """Sends the answers at the head of the queue that need no server."""
        while not self._rest:
            fake = self.pipeline.next_fake()
            if fake is None:
                return
            if fake.fake is not None and fake.receiver is not None:
                fake.receiver.deliver(fake.fake)

    # -- what the stream tells ---------------------------------------------------------------------

    def _completed(self, scanner: FrameScanner, head: Reply | None, now: float) -> None:
        data = scanner.data
        start = scanner.start
        if head is None:
            return
        record: QueryRecord | None = head.record
        if record is not None:
            record.rows += command_rows(data, start, scanner.end)
        if (
            scanner.end > start + 6
            and data[start + 5] == 68
            and (
                data.startswith(b"DEALLOCATE ALL\0", start + 5)
                or data.startswith(b"DISCARD ALL\0", start + 5)
            )
        ):
            self._statements_dropped()
        if self.pipeline.done is not None:
            self._execute_ended(scanner, head, now)

    def _described(self, scanner: FrameScanner, reply: Reply, tag: int) -> None:
        """The server has described a statement, or a portal, which returns the same: this is remembered, of
        the server and of the session that was told.
        """
        if reply.statement is None:
            self._portal_described(scanner, reply, tag)
            return
        if reply.server_name is not None:
            return
        shape = self._shape(scanner, tag)
        self.statements.note_shape(reply.statement.name, shape)
        if reply.previous is not None:
            reply.previous.shape = shape
        if reply.action == 1 and reply.receiver is not None:
            reply.receiver.described(reply)

    def _shape(self, scanner: FrameScanner, tag: int) -> tuple[object, ...] | None:
        """What a RowDescription or NoData tells; None for one that is too long to look at."""
        if tag == 0x6E:
            return ()
        return None if scanner.left else row_shape(scanner.data[scanner.start + 5 : scanner.end])

    def _portal_described(self, scanner: FrameScanner, reply: Reply, tag: int) -> None:
        prepared = reply.previous
        if prepared is None or prepared.statement is None:
            return
        name = prepared.statement.name
        if prepared.shape is not None and self.statements.described(name):
            return  # it was compared before the Bind
        shape = self._shape(scanner, tag)
        self.statements.note_shape(name, shape)
        prepared.shape = shape

    def _statements_dropped(self) -> None:
        """All prepared statements are gone, but for those whose Parse is still in the queue."""
        parses = [reply for reply in self.pipeline.pending() if reply.kind == 0x50]
        self.statements.dropped({reply.server_name for reply in parses})
        if self._target is not None:
            self._target.statements_dropped({reply.name for reply in parses})

    def _execute_ended(self, scanner: FrameScanner, reply: Reply, now: float) -> None:
        """An Execute has ended; what its Sync costs (the commit) still counts as its time."""
        if self._executed is not None:
            self._measure(scanner, self._executed, self._executed_sent, now)
        self._executed = reply.record
        self._executed_sent = reply.sent

    def _ready(self, scanner: FrameScanner, head: Reply | None, now: float) -> None:
        if self._executed is not None:
            self._measure(scanner, self._executed, self._executed_sent, now)
            self._executed = None
        if head is not None and head.record is not None:
            self._measure(scanner, head.record, head.sent, now)
        self._fakes(scanner)
        self._flush(scanner)
        if self.pipeline.is_idle():
            self.statements.settled()
        owner = self.owner
        if owner is not None:
            owner.settled(self)
        elif self.pipeline.is_idle():
            self.pool.internal_done(self)

    def _measure(self, scanner: FrameScanner, record: QueryRecord, sent: float, now: float) -> None:
        position = self._offset + scanner.end
        record.bytes_out = position - self._position
        self._position = position
        if self._done_at > sent:
            sent = self._done_at
        record.server = now - sent
        record.total = now - record.started
        record.server_pid = self.pid
        self._done_at = now
        if self._target is not None:
            self._target.measured(record)

    def _errored(self, scanner: FrameScanner, head: Reply | None, now: float) -> None:
        sqlstate = error_sqlstate(scanner.data, scanner.start, scanner.end)
        if error_is_fatal(scanner.data, scanner.start, scanner.end):
            self.fatal = True
            self.retire = f"server ended the connection ({sqlstate})"
            if self.owner is None:
                self.link.abort()
        if head is None:
            return
        if head.receiver is None:
            self.retire = f"it could not be reset ({sqlstate})"
        failed = self.pipeline.failed
        if failed is None:
            record: QueryRecord | None = head.record
            if record is None:
                record = self._executed  # an error while committing at Sync
            if record is not None:
                record.sqlstate = sqlstate
            return
        if failed.fake is not None:
            sqlstate = error_sqlstate(failed.fake, 0, len(failed.fake))
        self._extended_failed(scanner, failed, sqlstate, now)

    def _replace_error(self, scanner: FrameScanner, failed: Reply) -> None:
        """The server was made to fail in place of another error, which is said instead."""
        self._event_end = scanner.start
        self._skip(scanner)
        self._event_end = scanner.end
        if failed.fake is not None:
            self._out.append(failed.fake)

    def _extended_failed(self, scanner: FrameScanner, failed: Reply, sqlstate: str, now: float) -> None:
        """An error in the extended protocol: measures what failed and undoes what the server has
        discarded.
        """
        dropped = self.pipeline.dropped or []
        measured: Reply | None = None
        for reply in [failed, *dropped]:
            if reply.record is not None:
                measured = reply
                break
        if measured is not None:
            record: QueryRecord = measured.record
            record.sqlstate = sqlstate
            self._execute_ended(scanner, measured, now)
            self._executed_sent = measured.sent
        elif failed.receiver is not None:
            failed.receiver.failed(failed, sqlstate, self)
        for reply in reversed(dropped):
            self.undo(reply, False)
        self.undo(failed, True)
        if self.pipeline.skipping and self.owner is not None:
            # No ReadyForQuery will come by itself: whoever waits for one has to read on.
            self._flush(scanner)
            self.owner.settled(self)

    # -- the link ----------------------------------------------------------------------------------

    def ended(self) -> None:
        self.link.abort()

    def lost(self, error: Exception | None) -> None:
        self._out.clear()
        owner = self.owner
        self.owner = None
        if self.retire is None:
            self.retire = "server closed the connection"
        self.pool.server_lost(self, error)
        if owner is not None:
            owner.server_lost(self, error)

    def choked(self) -> None:
        if self.owner is not None:
            self.owner.server_choked(True)

    def cleared(self) -> None:
        if self.owner is not None:
            self.owner.server_choked(False)

    def close(self) -> None:
        """Ends the connection in good order: Terminate, then close."""
        self.link.write(b"X\0\0\0\4")
        self.link.close()

    def __repr__(self) -> str:
        return f"<ServerConnection pid={self.pid} {len(self.pipeline)} due>"
