cimport cython

from proxy.observe.record cimport Fingerprint


cdef class Statement:
    cdef readonly bytes key
    cdef readonly bytes name
    cdef readonly Fingerprint fingerprint
    cdef public long long tick
    cdef bytes _parse

    cpdef bytes parse(self)
    cpdef bytes text(self)


cdef class StatementCatalog:
    cdef dict _statements
    cdef Py_ssize_t _limit
    cdef long long _names
    cdef long long _clock

    @cython.locals(statement=Statement)
    cpdef Statement find(self, bytes key)
    cdef Statement _add(self, bytes key)
    cdef _forget(self)
