cimport cython


cdef class LinkHandler:
    cpdef received(self, bytes data)
    cpdef lost(self, object error)
    cpdef choked(self)
    cpdef cleared(self)


cdef class Link:
    cdef readonly object loop
    cdef public LinkHandler handler
    cdef public object transport
    cdef public str peer
    cdef public bint closed
    cdef readonly bint paused
    cdef readonly bint choking
    cdef public object tls
    cdef int _fd
    cdef bint _queued

    @cython.locals(handler=LinkHandler)
    cpdef data_received(self, bytes data)
    @cython.locals(sent=Py_ssize_t)
    cpdef write(self, bytes data)
    cpdef pause(self)
    cpdef resume(self)
    cpdef close(self)
    cpdef abort(self)


cpdef str peer_name(object transport)
