cimport cython

from proxy cimport clock
from protocol.framing cimport FrameScanner, backend_scanner
from protocol.messages.rewrite cimport command_rows, error_is_fatal, error_sqlstate
from protocol.pipeline cimport Reply, ReplyPipeline
from proxy.net.link cimport Link, LinkHandler
from proxy.observe.record cimport QueryRecord
from proxy.server.assignment cimport Flavour
from proxy.server.prepared cimport ServerStatements


cdef class Waiter(LinkHandler):
    cdef public Flavour flavour
    cdef public double waiting_since

    cpdef wait(self)
    cpdef grant(self, ServerConnection server)
    cpdef refuse(self, object refusal)


cdef class Receiver(Waiter):
    cpdef deliver(self, bytes data)
    cpdef settled(self, ServerConnection server)
    cpdef measured(self, QueryRecord record)
    cpdef described(self, Reply reply)
    cpdef failed(self, Reply reply, str sqlstate, ServerConnection server)
    cpdef undo(self, Reply reply, bint carried_out)
    cpdef statements_dropped(self, set keep)
    cpdef server_lost(self, ServerConnection server, object error)
    cpdef server_choked(self, bint choked)


cdef class ServerConnection(LinkHandler):
    cdef readonly Link link
    cdef readonly object pool
    cdef readonly Flavour flavour
    cdef readonly object greeting
    cdef readonly int pid
    cdef readonly bytes secret
    cdef readonly double since
    cdef public Receiver owner
    cdef readonly FrameScanner scanner
    cdef readonly ReplyPipeline pipeline
    cdef readonly ServerStatements statements
    cdef public str retire
    cdef public int cancels
    cdef readonly bint fatal
    cdef double _done_at
    cdef QueryRecord _executed
    cdef double _executed_sent
    cdef list _out
    cdef Receiver _target
    cdef Py_ssize_t _run
    cdef int _rest
    cdef Py_ssize_t _event_end
    cdef long long _offset
    cdef long long _position

    cpdef undo(self, Reply reply, bint carried_out)
    @cython.locals(scanner=FrameScanner)
    cpdef received(self, bytes data)
    @cython.locals(pipeline=ReplyPipeline, head=Reply, tag=cython.int, status=cython.int, now=cython.double)
    cdef _walk(self, FrameScanner scanner)
    @cython.locals(rest=Py_ssize_t)
    cdef _go_on_streaming(self, FrameScanner scanner)
    cdef _aim(self, Reply head)
    cdef _skip(self, FrameScanner scanner)
    @cython.locals(run=Py_ssize_t)
    cdef _cut(self, FrameScanner scanner, Py_ssize_t upto)
    @cython.locals(out=list, data=bytes)
    cdef _flush(self, FrameScanner scanner)
    @cython.locals(head=Reply)
    cdef _finish(self, FrameScanner scanner)
    @cython.locals(fake=Reply)
    cdef _fakes(self, FrameScanner scanner)
    @cython.locals(fake=Reply)
    cpdef answer_fakes(self)
    @cython.locals(data=bytes, start=Py_ssize_t, record=QueryRecord)
    cdef _completed(self, FrameScanner scanner, Reply head, double now)
    @cython.locals(shape=tuple)
    cdef _described(self, FrameScanner scanner, Reply reply, int tag)
    cdef tuple _shape(self, FrameScanner scanner, int tag)
    @cython.locals(shape=tuple, name=bytes)
    cdef _portal_described(self, FrameScanner scanner, Reply reply, int tag)
    cdef _statements_dropped(self)
    cdef _execute_ended(self, FrameScanner scanner, Reply reply, double now)
    @cython.locals(owner=Receiver)
    cdef _ready(self, FrameScanner scanner, Reply head, double now)
    @cython.locals(position=cython.longlong)
    cdef _measure(self, FrameScanner scanner, QueryRecord record, double sent, double now)
    @cython.locals(record=QueryRecord)
    cdef _errored(self, FrameScanner scanner, Reply head, double now)
    cdef _replace_error(self, FrameScanner scanner, Reply failed)
    cdef _extended_failed(self, FrameScanner scanner, Reply failed, str sqlstate, double now)
