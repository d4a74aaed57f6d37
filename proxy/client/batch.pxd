cimport cython

from protocol.framing cimport FrameScanner, frontend_scanner
from protocol.messages.rewrite cimport cstring_end, describe_statement, message_length, parse_message, rename_bind
from protocol.pipeline cimport Reply, ReplyPipeline
from proxy.client.prepared cimport Prepared, SessionStatements, next_generation
from proxy.net.link cimport Link
from proxy.observe.record cimport QueryRecord
from proxy.query.fingerprint cimport fingerprint
from proxy.query.statements cimport Statement, StatementCatalog
from proxy.server.connection cimport Receiver, ServerConnection


cdef class BatchReader(Receiver):
    cdef readonly Link link
    cdef readonly str user
    cdef readonly str database
    cdef readonly StatementCatalog catalog
    cdef readonly FrameScanner scanner
    cdef public ServerConnection server
    cdef readonly SessionStatements statements
    cdef public bint closing
    cdef bint _barred
    cdef bint _dropping
    cdef long long _segment
    cdef bint _segment_unsent
    cdef Statement _portal
    cdef Prepared _portal_of
    cdef dict _portals
    cdef list _pieces
    cdef Py_ssize_t _pieces_size
    cdef list _replies
    cdef bint _ended
    cdef bint _fresh
    cdef Py_ssize_t _run
    cdef double _now
    cdef long long _offset
    cdef long long _bytes_seen

    @cython.locals(tag=cython.int)
    cdef _read(self, FrameScanner scanner)
    cdef _message(self, FrameScanner scanner, int tag)
    @cython.locals(reply=Reply)
    cdef _sync(self, FrameScanner scanner)
    @cython.locals(reply=Reply)
    cdef _rare(self, FrameScanner scanner, int tag)
    cdef _end_segment(self)
    @cython.locals(run=Py_ssize_t)
    cdef _cut(self, FrameScanner scanner, Py_ssize_t upto)
    cdef _replace(self, FrameScanner scanner, bytes message)
    cdef _leave_out(self, FrameScanner scanner)
    cdef _reset_batch(self)
    @cython.locals(seen=cython.longlong, server=ServerConnection)
    cdef QueryRecord _record(self, FrameScanner scanner, object shape)
    cdef bint _certain(self, FrameScanner scanner, bytes name) except -1
    @cython.locals(server=ServerConnection)
    cdef bint _segments_under_way(self) except -1
    @cython.locals(data=bytes, start=Py_ssize_t, sql=bytes, reply=Reply, first=cython.int)
    cdef _query(self, FrameScanner scanner)
    cdef bint _deallocate(self, FrameScanner scanner, bytes sql, Reply reply) except -1
    @cython.locals(server=ServerConnection)
    cdef bint _deallocates_own(self, bytes name) except -1
    @cython.locals(slipped=Reply)
    cdef bytes _forget_statement(self, FrameScanner scanner, bytes name)
    @cython.locals(data=bytes, start=Py_ssize_t, end=Py_ssize_t, name_end=Py_ssize_t, reply=Reply, statement=Statement, name=bytes)
    cdef _parse(self, FrameScanner scanner)
    cdef bint _certain_target(self, FrameScanner scanner, Statement statement) except -1
    @cython.locals(first=cython.int)
    cdef _parse_unnamed(self, FrameScanner scanner, Reply reply, Statement statement)
    @cython.locals(taken=Reply)
    cdef _parse_again(self, FrameScanner scanner, Reply reply, Statement statement, bytes name)
    @cython.locals(reply=Reply)
    cdef _huge_parse(self, Py_ssize_t name_length)
    @cython.locals(data=bytes, start=Py_ssize_t, end=Py_ssize_t, portal_end=Py_ssize_t, name_end=Py_ssize_t, reply=Reply, statement=Statement, prepared=Prepared, name=bytes)
    cdef _bind(self, FrameScanner scanner)
    @cython.locals(statement=Statement)
    cdef bint _refer(self, FrameScanner scanner, Reply reply, bytes name) except -1
    @cython.locals(prepared=Prepared)
    cdef Statement _unnamed_statement(self)
    cdef _name_portal(self, bytes portal, Statement statement, Prepared prepared)
    @cython.locals(data=bytes, start=Py_ssize_t, reply=Reply, name=bytes)
    cdef _describe(self, FrameScanner scanner)
    @cython.locals(data=bytes, start=Py_ssize_t, name_end=Py_ssize_t, reply=Reply, statement=Statement)
    cdef _execute(self, FrameScanner scanner)
    @cython.locals(data=bytes, start=Py_ssize_t, reply=Reply, name=bytes)
    cdef _close(self, FrameScanner scanner)
    @cython.locals(head=Reply, record=QueryRecord, server=ServerConnection, seen=cython.longlong)
    cdef _copy_end(self, FrameScanner scanner)
