cimport cython


cdef class FrameScanner:
    cdef bytes _kinds
    cdef Py_ssize_t _hold
    cdef Py_ssize_t _limit
    cdef str _party
    cdef bytearray _held
    cdef Py_ssize_t _need
    cdef readonly bytes data
    cdef readonly Py_ssize_t size
    cdef readonly Py_ssize_t pos
    cdef readonly Py_ssize_t start
    cdef readonly Py_ssize_t end
    cdef readonly Py_ssize_t left

    cpdef bint feed(self, bytes chunk) except -1
    @cython.locals(p="const unsigned char*", kinds="const unsigned char*", pos=Py_ssize_t, size=Py_ssize_t, left=Py_ssize_t,
                   end=Py_ssize_t, length=cython.longlong, tag=cython.int, kind=cython.int)
    cpdef int next(self) except -1
    cpdef rewind(self)
    cpdef forget(self)
    @cython.locals(need=Py_ssize_t)
    cdef bint _wait(self, int tag, int kind, Py_ssize_t pos, Py_ssize_t length) except -1
    cdef _keep(self, Py_ssize_t pos, Py_ssize_t need)
    cdef _refuse(self, int tag, long long length, int kind)


cpdef FrameScanner frontend_scanner()
cpdef FrameScanner backend_scanner()
