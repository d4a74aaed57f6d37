# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The queue of replies that a server connection still owes.

PostgreSQL answers requests strictly in order (manual, "Message Flow"), so one queue per server connection
tells for every backend message whose it is. Each request that was sent leaves a `Reply` in the queue, which
says what becomes of the answer:

- ``FORWARD``: it goes to the receiver as it is;
- ``SKIP``: it answers a message that the proxy slipped in (a Parse for a statement that this server did not
  have): it is swallowed;
- ``FAKE``: the request never went to the server; its answer is `Reply.fake`, sent when its turn comes.

A reply names its receiver, so that statements of several sessions can be under way on one server connection.

===============  =====================================  =======================================
request          ended by                               on ErrorResponse
===============  =====================================  =======================================
Query            ReadyForQuery                          goes on to ReadyForQuery
FunctionCall     ReadyForQuery                          goes on to ReadyForQuery
Parse            ParseComplete                          everything up to the next Sync is dropped
Bind             BindComplete                           the same
Describe         RowDescription or NoData               the same
Execute          CommandComplete, EmptyQueryResponse,   the same
                 PortalSuspended
Close            CloseComplete                          the same
Sync             ReadyForQuery                          -
===============  =====================================  =======================================

After an error in the extended protocol the server discards messages until it reads a Sync; Query and
FunctionCall are discarded as well.

A server that is reading COPY data ignores Sync (``CopyGetData`` in the server's copyfromparse.c, for the sake
of old clients that send one behind Execute): a Sync sent before the CopyDone or CopyFail gets no
ReadyForQuery.
"""

from __future__ import annotations

from typing import Any

from protocol.errors import ProtocolViolation

# Actions of a reply, and verdicts on a backend message.
FORWARD = 0
SKIP = 1
FAKE = 2

# Kinds of requests: the frontend's tags; COPY_END stands for CopyDone and CopyFail.
QUERY = 0x51
PARSE = 0x50
BIND = 0x42
DESCRIBE = 0x44
EXECUTE = 0x45
CLOSE = 0x43
SYNC = 0x53
FUNCTION_CALL = 0x46
COPY_END = 0x63

IDLE = 0x49
IN_TRANSACTION = 0x54
FAILED = 0x45


class Reply:
    """An answer that is due.

    `statement` is the prepared statement that the request names (an object of the caller's), `name` the
    session's name for it, `server_name` the server's (of a Parse or Close, empty for the unnamed statement),
    and `previous` what the session's name stood for before: what the caller needs to undo its bookkeeping
    when the request was never carried out. `record` is the measurement that an Execute or a Query fills;
    `sent` when it was sent (seconds); `piece` the place of its message among the pieces of its batch;
    `generation` numbers the client's Parse that the request goes back to; of an Execute it is the row limit.
    """

    __slots__ = (
        "action",
        "fake",
        "generation",
        "kind",
        "name",
        "piece",
        "previous",
        "receiver",
        "record",
        "sent",
        "server_name",
        "statement",
    )

    def __init__(self, kind: int, action: int, receiver: Any) -> None:
        self.kind = kind
        self.action = action
        self.receiver = receiver
        self.fake: bytes | None = None
        self.record: Any = None
        self.statement: Any = None
        self.name: bytes | None = None
        self.server_name: bytes | None = None
        self.previous: Any = None
        self.sent = 0.0
        self.piece = 0
        self.generation = 0

    def __repr__(self) -> str:
        return f"<Reply {chr(self.kind)} {('FORWARD', 'SKIP', 'FAKE')[self.action]}>"


class ReplyPipeline:
    """The outstanding replies of one server connection, oldest first, and what the stream tells of its state.

    A *segment* is what a Sync, Query or FunctionCall ends; `segment` numbers the one that is being sent.
    `status` is the transaction status of the last ReadyForQuery; `unsynced` tells that messages of the
    extended protocol were sent that no Sync has followed yet; `copying_in` that the server is reading COPY
    data.
    """

    __slots__ = (
        "_first",
        "_queue",
        "copying_in",
        "copying_out",
        "done",
        "dropped",
        "failed",
        "segment",
        "skipping",
        "status",
        "unsynced",
    )

    def __init__(self) -> None:
        self._queue: list[Reply] = []
        self._first = 0
        self.segment = 0
        self.status = 0x49
        self.unsynced = False
        self.skipping = False
        self.copying_in = False
        self.copying_out = False
        self.done: Reply | None = None
        self.failed: Reply | None = None
        self.dropped: list[Reply] | None = None

    def __len__(self) -> int:
        return len(self._queue) - self._first

    @property
    def idle(self) -> bool:
        """Nothing is due and nothing unfinished has been sent."""
        return self.is_idle()

    def is_idle(self) -> bool:
        """The same as `idle`, as a method that compiled code calls directly."""
        return self._first == len(self._queue) and not self.awaits_client()

    def awaits_client(self) -> bool:
        """Whether the server needs more from the client before it is ready for another query: a Sync, or the
        end of COPY data.
        """
        return self.unsynced or self.copying_in or self.skipping

    def segments_due(self) -> int:
        """How many segments have been sent whose ReadyForQuery has not come yet."""
        due = 0
        for reply in self._queue[self._first :]:
            if reply.kind == 0x53 or reply.kind == 0x51 or reply.kind == 0x46:
                due += 1
        return due

    def head(self) -> Reply | None:
        """The reply that the next backend message belongs to."""
        if self._first < len(self._queue):
            return self._queue[self._first]
        return None

    def pending(self) -> list[Reply]:
        """The outstanding replies, oldest first (a copy)."""
        return self._queue[self._first :]

    def add(self, reply: Reply) -> bool:
        """Adds the reply to a request that is being sent.

        False: the request will not be carried out (the server is discarding messages until a Sync) and the
        reply is not due.
        """
        kind = reply.kind
        if kind == 0x53:  # Sync
            if self.copying_in:
                return False
            self.skipping = False
            self.unsynced = False
            self.segment += 1
        elif kind == 0x63:  # CopyDone, CopyFail
            if self.copying_in:
                self.copying_in = False
                return False
            if self._first == len(self._queue):
                return False
        elif self.skipping:
            return False
        elif kind == 0x51 or kind == 0x46:  # Query and FunctionCall end the implicit transaction like a Sync
            self.unsynced = False
            self.segment += 1
        elif reply.action != 2:
            self.unsynced = True
        self._queue.append(reply)
        return True

    def answer(self, tag: int, status: int) -> int:
        """Accounts for a backend message that is neither bulk nor asynchronous; `status` is the byte in a
        ReadyForQuery.

        Returns FORWARD or SKIP. Afterwards `done` is the reply that this message completed, if any; after an
        ErrorResponse that made the server discard requests, `failed` is the request that failed and `dropped`
        are those behind it, oldest first.

        Raises `ProtocolViolation` when the message answers nothing that was asked.
        """
        self.done = None
        self.failed = None
        self.dropped = None
        if self._first == len(self._queue):
            return self._unasked(tag)
        head = self._queue[self._first]
        kind = head.kind
        verdict = head.action
        if tag == 0x5A:  # ReadyForQuery
            if kind != 0x51 and kind != 0x53 and kind != 0x46:
                self._out_of_step(tag, head)
            self.status = status
            self.copying_in = False
            self.copying_out = False
            self._pop(head)
        elif tag == 0x54 or tag == 0x6E:  # RowDescription, NoData
            if kind == 0x44:
                self._pop(head)
        elif (
            tag == 0x43 or tag == 0x49 or tag == 0x73
        ):  # CommandComplete, EmptyQueryResponse, PortalSuspended
            self.copying_in = False
            self.copying_out = False
            if kind == 0x45:
                self._pop(head)
            elif kind != 0x51:
                self._out_of_step(tag, head)
        elif tag == 0x31 or tag == 0x32 or tag == 0x33:  # ParseComplete, BindComplete, CloseComplete
            if kind != (0x50 if tag == 0x31 else (0x42 if tag == 0x32 else 0x43)):
                self._out_of_step(tag, head)
            self._pop(head)
        elif tag == 0x45:  # ErrorResponse
            verdict = self._error(head)
        elif tag == 0x47 or tag == 0x57:  # CopyInResponse, CopyBothResponse
            self._begin_copy_in()
        elif tag == 0x48:  # CopyOutResponse
            self.copying_out = True
        return verdict

    def next_fake(self) -> Reply | None:
        """Takes the first reply off the queue if it is a FAKE, whose turn has come."""
        if self._first < len(self._queue):
            head = self._queue[self._first]
            if head.action == 2 or head.kind == 0x63:
                self._pop(head)
                self.done = None
                return head
        return None

    def _pop(self, head: Reply) -> None:
        self.done = head
        self._first += 1
        if self._first == len(self._queue):
            self._queue.clear()
            self._first = 0
        elif self._first >= 64:
            del self._queue[: self._first]
            self._first = 0

    def _error(self, head: Reply) -> int:
        self.copying_in = False
        self.copying_out = False
        if head.kind == 0x51 or head.kind == 0x46 or head.kind == 0x53:
            # (an error while committing at Sync is followed by the Sync's own ReadyForQuery)
            return head.action
        queue = self._queue
        at = self._first + 1
        while at < len(queue) and queue[at].kind != 0x53:
            at += 1
        self.failed = head
        self.dropped = queue[self._first + 1 : at]
        del queue[:at]
        self._first = 0
        self.skipping = not queue
        # The error answers what the session asked, even when it met a message that was slipped in on the
        # session's behalf.
        return 0 if head.receiver is not None else 1

    def _begin_copy_in(self) -> None:
        """The server now reads COPY data: a Sync among what it has been sent already goes by without an
        answer.
        """
        queue = self._queue
        at = self._first + 1
        while at < len(queue) and queue[at].kind == 0x53:
            del queue[at]
        if at < len(queue) and queue[at].kind == 0x63:
            del queue[at]
            # The Sync that went by has not ended the implicit transaction.
            if queue[self._first].kind != 0x51 and not self._segment_ends_after(at):
                self.unsynced = True
            return
        self.copying_in = True
        self.unsynced = queue[self._first].kind != 0x51

    def _segment_ends_after(self, at: int) -> bool:
        return any(reply.kind in (0x53, 0x51, 0x46) for reply in self._queue[at:])

    def _unasked(self, tag: int) -> int:
        if tag == 0x45:  # a server may end a connection at any time: FATAL
            return 0
        raise ProtocolViolation(f"server sent message type {tag} that nothing asked for")

    def _out_of_step(self, tag: int, head: Reply) -> None:
        raise ProtocolViolation(f"server sent message type {tag} where a reply to {chr(head.kind)!r} was due")
