cimport cython

from proxy cimport clock
from protocol.framing cimport FrameScanner
from protocol.pipeline cimport Reply, ReplyPipeline
from proxy.client.batch cimport BatchReader
from proxy.client.prepared cimport Insertions
from proxy.net.link cimport Link
from proxy.observe.record cimport QueryRecord
from proxy.observe.statistics cimport QueryStatistics
from proxy.query.statements cimport Statement
from proxy.server.assignment cimport Flavour
from proxy.server.connection cimport ServerConnection
from proxy.server.pool cimport Pool


cdef class Session(BatchReader):
    cdef readonly Pool pool
    cdef readonly object context
    cdef readonly object key
    cdef readonly bint holds_for_session
    cdef readonly QueryStatistics statistics
    cdef public bint waiting
    cdef bint _input_over
    cdef bytes _last_words
    cdef Reply _verifying
    cdef list _backlog

    cpdef received(self, bytes data)
    @cython.locals(scanner=FrameScanner)
    cdef _take(self, bytes data)
    cdef _walk(self, FrameScanner scanner)
    cdef _go_on_raw(self)
    @cython.locals(server=ServerConnection)
    cdef _dispatch(self)
    @cython.locals(reply=Reply)
    cdef bint _answer_here(self) except -1
    @cython.locals(pieces=list, replies=list, pipeline=ReplyPipeline, insertions=Insertions, discarded=list, fakes=bint, slipped=bint, verdict=cython.int, reply=Reply)
    cdef _transmit(self, ServerConnection server)
    @cython.locals(at=Py_ssize_t, later=Reply)
    cdef list _hold_back(self, Reply reply)
    cpdef described(self, Reply reply)
    @cython.locals(server=ServerConnection)
    cdef _verified(self)
    @cython.locals(record=QueryRecord, reply=Reply)
    cpdef grant(self, ServerConnection server)
    @cython.locals(record=QueryRecord, reply=Reply)
    cpdef refuse(self, object refusal)
    @cython.locals(backlog=list)
    cdef _go_on(self)
    cpdef wait(self)
    cpdef deliver(self, bytes data)
    @cython.locals(pipeline=ReplyPipeline)
    cpdef settled(self, ServerConnection server)
    cdef _release(self, ServerConnection server)
    cpdef measured(self, QueryRecord record)
    @cython.locals(statement=Statement, record=QueryRecord)
    cpdef failed(self, Reply reply, str sqlstate, ServerConnection server)
    cpdef undo(self, Reply reply, bint carried_out)
    cpdef statements_dropped(self, set keep)
    cpdef server_choked(self, bint choked)
    cpdef server_lost(self, ServerConnection server, object error)
    cpdef ended(self)
    @cython.locals(server=ServerConnection, in_a_message=cython.bint)
    cdef _leave(self)
    @cython.locals(server=ServerConnection, pipeline=ReplyPipeline)
    cdef _finish_closing(self)
    @cython.locals(server=ServerConnection, speak=cython.bint)
    cdef _end(self)
    cpdef terminate(self, str sqlstate, str message)
    cdef _violated(self, object violation)
