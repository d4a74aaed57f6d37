# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Reads a client's messages into a batch: what will be sent to a server in one go, and which replies are due.

A batch is a list of pieces, cut from the chunks as they came wherever something may have to be slipped in,
and a list of replies. Statement names are the only thing that is changed in a message. A *segment* is what a
Sync, Query or FunctionCall ends.
"""

from __future__ import annotations

from typing import Any

from protocol.errors import ProtocolViolation, UnsupportedFeature
from protocol.framing import FrameScanner, frontend_scanner
from protocol.messages.rewrite import (
    cstring_end,
    describe_statement,
    message_length,
    parse_message,
    rename_bind,
)
from protocol.pipeline import Reply
from proxy.client.deallocate import deallocate_target, drops_all
from proxy.client.prepared import Prepared, SessionStatements, next_generation
from proxy.net.link import Link
from proxy.observe.record import QueryRecord
from proxy.query.fingerprint import fingerprint
from proxy.query.statements import Statement, StatementCatalog
from proxy.server.connection import Receiver, ServerConnection

MAX_PORTALS = 1_000
"""Named portals whose statement is remembered for the measurements."""


class BatchReader(Receiver):
    """The reading half of a session.

    `barred` tells that reading has stopped before a message that refers to a name of which it is not yet
    certain what it stands for.
    """

    __slots__ = (
        "_barred",
        "_bytes_seen",
        "_dropping",
        "_ended",
        "_fresh",
        "_now",
        "_offset",
        "_pieces",
        "_pieces_size",
        "_portal",
        "_portal_of",
        "_portals",
        "_replies",
        "_run",
        "_segment",
        "_segment_unsent",
        "catalog",
        "closing",
        "database",
        "link",
        "scanner",
        "server",
        "statements",
        "user",
    )

    def __init__(self, link: Link, user: str, database: str, catalog: StatementCatalog) -> None:
        self.link = link
        self.user = user
        self.database = database
        self.catalog = catalog
        self.scanner: FrameScanner = frontend_scanner()
        self.server: ServerConnection | None = None
        self.statements = SessionStatements()
        self.closing = False
        self._barred = False
        self._dropping = False
        self._segment = 1
        self._segment_unsent = False
        self._portal: Statement | None = None
        self._portal_of: Prepared | None = None
        self._portals: dict[bytes, tuple[Statement, Prepared | None]] | None = None
        self._pieces: list[bytes] = []
        self._pieces_size = 0
        self._replies: list[Reply] = []
        self._ended = False
        self._fresh = False
        self._run = 0
        self._now = 0.0
        self._offset = 0
        self._bytes_seen = 0

    def _read(self, scanner: FrameScanner) -> None:
        """Reads the messages in the scanner's chunk into the batch, to its end or up to a bar."""
        self._run = scanner.pos
        if self._dropping:
            # The rest of a message whose beginning went nowhere follows it there.
            self._run = min(scanner.left, scanner.size)
            self._dropping = scanner.left > scanner.size
        while not self.closing and not self._barred:
            tag = scanner.next()
            if tag == 0:
                break
            try:
                self._message(scanner, tag)
            except UnsupportedFeature:
                raise
            except ProtocolViolation:
                # It is malformed: the server shall say so, and the session goes on as it does there.
                self._replies.append(Reply(tag, 0, self))
        if scanner.pos > self._run:
            self._cut(scanner, scanner.pos)
        if not self._barred:
            self._offset += scanner.pos
            scanner.forget()

    def _message(self, scanner: FrameScanner, tag: int) -> None:
        if tag == 0x51:  # Query
            self._query(scanner)
        elif tag == 0x42:  # Bind
            self._bind(scanner)
        elif tag == 0x45:  # Execute
            self._execute(scanner)
        elif tag == 0x53:  # Sync
            self._sync(scanner)
        elif tag == 0x50:  # Parse
            self._parse(scanner)
        elif tag == 0x44:  # Describe
            self._describe(scanner)
        else:
            self._rare(scanner, tag)

    def _sync(self, scanner: FrameScanner) -> None:
        reply = Reply(0x53, 0, self)
        reply.piece = scanner.end - scanner.start - 5  # not 0: malformed, for the server to refuse
        self._replies.append(reply)
        self._end_segment()

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
            self._end_segment()
        elif tag == 0x58:  # Terminate
            self._cut(scanner, scanner.start)
            self._run = scanner.end
            self.closing = True

    def _end_segment(self) -> None:
        self._ended = True
        self._segment_unsent = True
        self._fresh = False
        self._segment += 1

    # -- pieces ------------------------------------------------------------------------------------

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

    def _leave_out(self, scanner: FrameScanner) -> None:
        """The message just read does not go to the server."""
        self._cut(scanner, scanner.start)
        self._run = scanner.end

    def _reset_batch(self) -> None:
        self._pieces = []
        self._pieces_size = 0
        self._replies = []
        self._ended = False
        self._segment_unsent = False

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

    # -- names -------------------------------------------------------------------------------------

    def _certain(self, scanner: FrameScanner, name: bytes) -> bool:
        """Whether the message just read may refer to a name; if not, reading stops before it."""
        if self.statements.certain(name, self._segment) or not self._segments_under_way():
            return True
        scanner.rewind()
        self._barred = True
        return False

    def _segments_under_way(self) -> bool:
        """Whether a segment that has ended has not been answered yet."""
        server = self.server
        return self._segment_unsent or (server is not None and server.pipeline.segments_due() > 0)

    # -- messages ----------------------------------------------------------------------------------

    def _query(self, scanner: FrameScanner) -> None:
        data = scanner.data
        start = scanner.start
        sql = data[start + 5 : scanner.end - 1]
        first = data[start + 5] if scanner.end > start + 5 else 0
        reply = Reply(0x51, 0, self)
        if (first | 0x20) == 0x64 and scanner.left == 0 and not self._deallocate(scanner, sql, reply):
            return
        reply.record = self._record(scanner, fingerprint(sql))
        self._replies.append(reply)
        self._portal = None
        self._portal_of = None
        if self.statements.may_have(b""):
            self.statements.remove(reply, b"", self._segment)
        self._end_segment()

    def _deallocate(self, scanner: FrameScanner, sql: bytes, reply: Reply) -> bool:
        """DEALLOCATE of one of the session's own statements: the server has it under another name, and keeps
        it for others. False: the name is not certain.
        """
        if drops_all(sql):
            self.statements.removing_all(self._segment)
            return True
        name = deallocate_target(sql)
        if name is None:
            return True
        if not self._certain(scanner, name):
            return False
        if self._deallocates_own(name):
            text = b"DEALLOCATE " + self._forget_statement(scanner, name) + b"\0"
            self._replace(scanner, b"Q" + (4 + len(text)).to_bytes(4, "big") + text)
        return True

    def _deallocates_own(self, name: bytes) -> bool:
        server = self.server
        failed = server is not None and server.pipeline.status == 0x45
        return not failed and self.statements.get(name) is not None

    def _forget_statement(self, scanner: FrameScanner, name: bytes) -> bytes:
        """Takes a name away, and slips in a statement for the server to deallocate; returns its name
        there.
        """
        gone = b"pgsluice_gone_%x" % next_generation()
        self._cut(scanner, scanner.start)
        self._pieces.append(parse_message(gone, b"\0\0\0"))
        slipped = Reply(0x50, 1, self)
        self.statements.remove(slipped, name, self._segment)
        self._replies.append(slipped)
        return gone

    def _parse(self, scanner: FrameScanner) -> None:
        data = scanner.data
        start = scanner.start
        end = scanner.end
        name_end = cstring_end(data, start + 5, end)
        if scanner.left > 0:
            self._huge_parse(name_end - start - 5)
            return
        cstring_end(data, name_end + 1, end)
        statement = self.catalog.find(data[name_end + 1 : end])
        reply = Reply(0x50, 0, self)
        if name_end == start + 5:
            if self._certain_target(scanner, statement):
                self._parse_unnamed(scanner, reply, statement)
            return
        name = data[start + 5 : name_end]
        if not self._certain(scanner, name):
            return
        if self.statements.get(name) is not None:
            self._parse_again(scanner, reply, statement, name)
            return
        self.statements.define(reply, name, statement, self._segment)
        reply.statement = statement
        reply.server_name = statement.name
        self._replies.append(reply)
        self._cut(scanner, start)
        reply.piece = len(self._pieces)
        self._replace(scanner, statement.parse())

    def _certain_target(self, scanner: FrameScanner, statement: Statement) -> bool:
        """Whether it is certain what the name stands for that the statement deallocates, if it does."""
        if (statement.key[0] | 0x20) != 0x64:
            return True
        name = deallocate_target(statement.text())
        return name is None or self._certain(scanner, name)

    def _parse_unnamed(self, scanner: FrameScanner, reply: Reply, statement: Statement) -> None:
        self.statements.define(reply, b"", statement, self._segment)
        reply.statement = statement
        reply.server_name = b""
        self._replies.append(reply)
        self._fresh = True
        first = statement.key[0]
        if (first | 0x20) == 0x64:
            text = statement.text()
            name = deallocate_target(text)
            if drops_all(text):
                self.statements.removing_all(self._segment)
            elif name is not None and self._deallocates_own(name):
                text = b"DEALLOCATE " + self._forget_statement(scanner, name)
                self._replace(scanner, parse_message(b"", text + statement.key[len(statement.text()) :]))

    def _parse_again(self, scanner: FrameScanner, reply: Reply, statement: Statement, name: bytes) -> None:
        """A Parse for a name that is taken: the server itself shall say what is wrong with it, so it is made
        to have that name.
        """
        self._cut(scanner, scanner.start)
        taken = Reply(0x50, 1, self)
        taken.server_name = name
        taken.piece = len(self._pieces)
        self._pieces.append(parse_message(name, b"\0\0\0"))
        self._replies.append(taken)
        reply.statement = statement
        self._replies.append(reply)

    def _huge_parse(self, name_length: int) -> None:
        """A text too long to keep passes through; it can only be prepared as the unnamed statement, where it
        is used at once.
        """
        if name_length > 0:
            raise UnsupportedFeature("the text of a named prepared statement may have at most 16 MB")
        reply = Reply(0x50, 0, self)
        self.statements.define(reply, b"", None, self._segment)
        reply.server_name = b""
        self._replies.append(reply)
        self._fresh = True

    def _bind(self, scanner: FrameScanner) -> None:
        data = scanner.data
        start = scanner.start
        end = scanner.end
        portal_end = cstring_end(data, start + 5, end)
        name_end = cstring_end(data, portal_end + 1, end)
        name = data[portal_end + 1 : name_end]
        reply = Reply(0x42, 0, self)
        if not self._refer(scanner, reply, name):
            return
        statement: Statement | None = reply.statement
        prepared = self.statements.get(name) if name and statement is not None else None
        if prepared is not None and statement is not None:
            self._replace(scanner, rename_bind(data, start, end, name, statement.name))
        elif statement is None and not name and self._fresh:
            statement = self._unnamed_statement()
        if portal_end == start + 5:
            self._portal = statement
            self._portal_of = prepared
        elif statement is not None:
            self._name_portal(data[start + 5 : portal_end], statement, prepared)

    def _refer(self, scanner: FrameScanner, reply: Reply, name: bytes) -> bool:
        """Adds a reply to a request that names a statement, and leaves a place before it, where the statement
        can be slipped in if need be. False: the name is not certain.
        """
        if not name and self._fresh:
            # It was parsed in this very segment: either it is there or this message will not be carried out.
            self._replies.append(reply)
            return True
        if not self._certain(scanner, name):
            return False
        statement = self.statements.refer(reply, name)
        if not name:
            reply.server_name = b""
        if statement is not None or not name:
            self._cut(scanner, scanner.start)
            reply.piece = len(self._pieces)
        self._replies.append(reply)
        return True

    def _unnamed_statement(self) -> Statement | None:
        prepared = self.statements.get(b"")
        return prepared.statement if prepared is not None else None

    def _name_portal(self, portal: bytes, statement: Statement, prepared: Prepared | None) -> None:
        if self._portals is None or len(self._portals) >= MAX_PORTALS:
            self._portals = {}
        self._portals[portal] = (statement, prepared)

    def _describe(self, scanner: FrameScanner) -> None:
        data = scanner.data
        start = scanner.start
        reply = Reply(0x44, 0, self)
        if scanner.end < start + 7 or data[start + 5] != 83:  # S: a statement
            if scanner.end == start + 7:
                reply.previous = self._portal_of
            elif self._portals:
                name = data[start + 6 : cstring_end(data, start + 6, scanner.end)]
                reply.previous = self._portals.get(name, (None, None))[1]
            self._replies.append(reply)
            return
        name = data[start + 6 : cstring_end(data, start + 6, scanner.end)]
        if self._refer(scanner, reply, name) and name and reply.statement is not None:
            self._replace(scanner, describe_statement(reply.statement.name))

    def _execute(self, scanner: FrameScanner) -> None:
        data = scanner.data
        start = scanner.start
        name_end = cstring_end(data, start + 5, scanner.end)
        statement = self._portal
        if name_end > start + 5:
            statement = (self._portals or {}).get(data[start + 5 : name_end], (None, None))[0]
        reply = Reply(0x45, 0, self)
        shape = statement.fingerprint if statement is not None else fingerprint(b"portal")
        reply.record = self._record(scanner, shape)
        if scanner.end >= name_end + 5:
            reply.generation = message_length(data, name_end)  # the word behind the name: the row limit
        self._replies.append(reply)

    def _close(self, scanner: FrameScanner) -> None:
        data = scanner.data
        start = scanner.start
        reply = Reply(0x43, 0, self)
        if scanner.end < start + 7 or data[start + 5] != 83:
            self._replies.append(reply)
            return
        name = data[start + 6 : cstring_end(data, start + 6, scanner.end)]
        if not self._certain(scanner, name):
            return
        self._replies.append(reply)
        if not name:
            reply.server_name = b""
            self.statements.remove(reply, b"", self._segment)
            self._fresh = False
        elif self.statements.get(name) is not None:
            # The server keeps the statement for others.
            reply.action = 2
            reply.fake = b"3\0\0\0\4"
            self.statements.remove(reply, name, self._segment)
            self._leave_out(scanner)

    def _copy_end(self, scanner: FrameScanner) -> None:
        server = self.server
        if server is None and not self._replies:
            self._leave_out(scanner)  # outside a COPY a server ignores it, and so do we
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
