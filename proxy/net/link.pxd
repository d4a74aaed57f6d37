cimport cython

from proxy.net.poller cimport Pollable, Poller
cimport proxy.net.sockets as sockets


cdef class LinkHandler:
    cpdef received(self, bytes data)
    cpdef ended(self)
    cpdef lost(self, object error)
    cpdef choked(self)
    cpdef cleared(self)


cdef class Link(Pollable):
    cdef readonly Poller poller
    cdef readonly object loop
    cdef public LinkHandler handler
    cdef public str peer
    cdef public bint closed
    cdef readonly bint paused
    cdef readonly bint choking
    cdef public object greeted
    cdef readonly object transport
    cdef readonly object tls
    cdef object _socket
    cdef int _fd
    cdef int _events
    cdef list _queue
    cdef Py_ssize_t _queued
    cdef object _timer
    cdef bint _lost
    cdef bint _input_over
    cdef bint _unwatched

    cpdef attach(self, object sock, str peer)
    @cython.locals(data=bytes, handler=LinkHandler)
    cpdef ready(self, int events)
    cdef bint _greet(self) except -1
    cdef _input_ended(self)
    cdef _watch(self, int events)
    @cython.locals(queue=list, data=bytes, sent=Py_ssize_t)
    cdef _send_queued(self)
    cdef _lose(self, object error)
    cdef _drop(self, object error)
    @cython.locals(sent=Py_ssize_t)
    cpdef write(self, bytes data)
    cpdef pause(self)
    cpdef resume(self)
    cpdef close(self)
    cpdef abort(self)
