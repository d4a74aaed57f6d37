cimport cython

from protocol.framing cimport FrameScanner, frontend_scanner
from protocol.messages.rewrite cimport close_statement, cstring_end, describe_statement, parse_message, rename_bind
from protocol.pipeline cimport Reply, ReplyPipeline
from proxy.net.link cimport Link
from proxy.observe.record cimport QueryRecord
from proxy.observe.statistics cimport QueryStatistics
from proxy.query.fingerprint cimport fingerprint
from proxy.query.statements cimport Statement, StatementCatalog
from proxy.server.assignment cimport Flavour
from proxy.server.connection cimport Receiver, ServerConnection
from proxy.server.pool cimport Pool


cdef long long _serials

cdef long long _next_serial() except -1


cdef class Prepared:
    cdef readonly Statement statement
    cdef readonly long long generation


cdef class Session(Receiver):
    cdef readonly Link link
    cdef readonly Pool pool
    cdef readonly object context
    cdef readonly object key
    cdef readonly str user
    cdef readonly str database
    cdef readonly bint holds_for_session
    cdef readonly StatementCatalog catalog
    cdef readonly QueryStatistics statistics
    cdef readonly FrameScanner scanner
    cdef public ServerConnection server
    cdef readonly dict statements
    cdef public bint waiting
    cdef public bint closing
    cdef Statement _unnamed
    cdef long long _serial
    cdef Statement _portal
    cdef dict _portals
    cdef list _pieces
    cdef Py_ssize_t _pieces_size
    cdef list _replies
    cdef list _backlog
    cdef bint _ended
    cdef bint _fresh
    cdef Py_ssize_t _run
    cdef double _now
    cdef long long _offset
    cdef long long _bytes_seen

    cpdef received(self, bytes data)
    @cython.locals(scanner=FrameScanner)
    cdef _take(self, bytes data)
    @cython.locals(tag=cython.int)
    cdef _walk(self, FrameScanner scanner)
    @cython.locals(reply=Reply)
    cdef _rare(self, FrameScanner scanner, int tag)
    @cython.locals(run=Py_ssize_t)
    cdef _cut(self, FrameScanner scanner, Py_ssize_t upto)
    cdef _replace(self, FrameScanner scanner, bytes message)
    @cython.locals(seen=cython.longlong, server=ServerConnection)
    cdef QueryRecord _record(self, FrameScanner scanner, object shape)
    @cython.locals(data=bytes, start=Py_ssize_t, sql=bytes, reply=Reply)
    cdef _query(self, FrameScanner scanner)
    @cython.locals(reply=Reply)
    cdef _maybe_deallocate(self, FrameScanner scanner, bytes sql)
    @cython.locals(data=bytes, start=Py_ssize_t, end=Py_ssize_t, name_end=Py_ssize_t, reply=Reply, statement=Statement, name=bytes)
    cdef _parse(self, FrameScanner scanner)
    @cython.locals(taken=Reply)
    cdef _parse_again(self, FrameScanner scanner, Reply reply, bytes name)
    cdef _huge_parse(self, Py_ssize_t name_length)
    @cython.locals(data=bytes, start=Py_ssize_t, end=Py_ssize_t, portal_end=Py_ssize_t, name_end=Py_ssize_t, reply=Reply, statement=Statement, name=bytes)
    cdef _bind(self, FrameScanner scanner)
    @cython.locals(prepared=Prepared)
    cdef Statement _refer(self, Reply reply, bytes name)
    cdef _name_portal(self, bytes portal, Statement statement)
    cdef _use_unnamed(self, FrameScanner scanner, Reply reply, Statement statement)
    @cython.locals(data=bytes, start=Py_ssize_t, name_end=Py_ssize_t, reply=Reply, statement=Statement)
    cdef _describe(self, FrameScanner scanner)
    @cython.locals(data=bytes, start=Py_ssize_t, name_end=Py_ssize_t, reply=Reply, statement=Statement)
    cdef _execute(self, FrameScanner scanner)
    @cython.locals(data=bytes, start=Py_ssize_t, reply=Reply, name=bytes)
    cdef _close(self, FrameScanner scanner)
    @cython.locals(head=Reply, record=QueryRecord, server=ServerConnection, seen=cython.longlong)
    cdef _copy_end(self, FrameScanner scanner)
    cdef _go_on_raw(self)
    @cython.locals(server=ServerConnection)
    cdef _dispatch(self)
    @cython.locals(reply=Reply)
    cdef bint _answer_here(self) except -1
    cdef _reset_batch(self)
    @cython.locals(pieces=list, replies=list, pipeline=ReplyPipeline, inserted=list, fakes=bint, reply=Reply)
    cdef _transmit(self, ServerConnection server)
    @cython.locals(statement=Statement)
    cdef _prepare(self, ServerConnection server, Reply reply, list inserted)
    @cython.locals(name=bytes)
    cdef _prepare_parse(self, ServerConnection server, Reply reply, list inserted)
    cdef _note(self, ServerConnection server, list inserted, Reply reply, bytes name)
    @cython.locals(close=Reply)
    cdef _close_there(self, ServerConnection server, list inserted, Py_ssize_t piece, bytes name)
    @cython.locals(parse=Reply)
    cdef _slip_in(self, ServerConnection server, list inserted, Py_ssize_t piece, bytes message, bytes name)
    cdef _add(self, ServerConnection server, Reply reply)
    @cython.locals(record=QueryRecord, reply=Reply)
    cpdef grant(self, ServerConnection server)
    @cython.locals(record=QueryRecord, reply=Reply)
    cpdef refuse(self, object refusal)
    @cython.locals(backlog=list)
    cdef _go_on(self)
    cpdef wait(self)
    cpdef deliver(self, bytes data)
    cpdef settled(self, ServerConnection server)
    cdef _release(self, ServerConnection server)
    cpdef measured(self, QueryRecord record)
    @cython.locals(statement=Statement, record=QueryRecord)
    cpdef failed(self, Reply reply, str sqlstate, ServerConnection server)
    cpdef undo(self, Reply reply, bint carried_out)
    cpdef statements_dropped(self, ServerConnection server)
    cpdef server_choked(self, bint choked)
    cpdef server_lost(self, ServerConnection server, object error)
    cpdef ended(self)
    cdef _leave(self)
    cdef _finish_closing(self)
    cdef _end(self)
    cpdef terminate(self, str sqlstate, str message)
    cdef _violated(self, object violation)


cdef list _merge(list pieces, list inserted)
