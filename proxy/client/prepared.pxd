cimport cython

from protocol.messages.rewrite cimport bind_message, close_statement, describe_statement, parse_message
from protocol.pipeline cimport Reply
from proxy.query.statements cimport Statement
from proxy.server.connection cimport ServerConnection
from proxy.server.prepared cimport ServerStatements


cdef long long _generations

cpdef long long next_generation() except -1


cdef class Prepared:
    cdef readonly Statement statement
    cdef readonly long long generation
    cdef public tuple shape


cdef class SessionStatements:
    cdef dict _names
    cdef dict _removed
    cdef dict _tentative
    cdef long long _tentative_all

    cpdef Prepared get(self, bytes name)
    cpdef bint certain(self, bytes name, long long segment) except -1
    cpdef settled(self)
    cpdef bint may_have(self, bytes name) except -1
    cpdef define(self, Reply reply, bytes name, Statement statement, long long segment)
    cpdef remove(self, Reply reply, bytes name, long long segment)
    cpdef removing_all(self, long long segment)
    @cython.locals(prepared=Prepared)
    cpdef Statement refer(self, Reply reply, bytes name)
    @cython.locals(current=Prepared, noted=cython.longlong)
    cpdef undo(self, Reply reply, bint carried_out)


cdef class Insertions:
    cdef list _inserted
    cdef object _receiver
    cdef ServerConnection _server

    cpdef prepare(self, Reply reply)
    @cython.locals(name=bytes, statements=ServerStatements)
    cdef _prepare_parse(self, Reply reply)
    @cython.locals(statements=ServerStatements)
    cdef _prepare_unnamed(self, Reply reply)
    @cython.locals(statement=Statement, server=ServerConnection)
    cdef _prepare_named(self, Reply reply)
    @cython.locals(prepared=Prepared, statements=ServerStatements, name=bytes)
    cpdef int compare(self, Reply reply) except -1
    @cython.locals(describe=Reply)
    cpdef Reply describe(self, Reply reply)
    @cython.locals(refused=Reply)
    cpdef fail(self, Reply reply)
    @cython.locals(server=ServerConnection)
    cdef _note(self, Reply reply, bytes name)
    @cython.locals(parse=Reply)
    cdef _parse(self, Py_ssize_t piece, bytes message, bytes name)
    @cython.locals(close=Reply)
    cdef _close(self, Py_ssize_t piece, bytes name)
    cdef _add(self, Reply reply)
    cpdef list merge(self, list pieces)
