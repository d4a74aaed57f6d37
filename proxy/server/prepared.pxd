cimport cython


cdef class ServerStatements:
    cdef readonly Py_ssize_t limit
    cdef public long long unnamed
    cdef dict _generations
    cdef dict _used
    cdef dict _pending
    cdef dict _shapes
    cdef long long _clock

    cpdef bint has(self, bytes name) except -1
    cpdef bint use(self, bytes name, long long generation, long long segment) except -1
    cpdef note(self, bytes name, long long generation, long long segment)
    cpdef doubt(self, bytes name)
    cpdef forget(self, bytes name)
    cpdef note_shape(self, bytes name, tuple shape)
    cpdef bint described(self, bytes name) except -1
    cpdef tuple shape(self, bytes name)
    cpdef settled(self)
