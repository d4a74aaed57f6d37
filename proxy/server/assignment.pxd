cimport cython


cdef class Flavour:
    cdef readonly object key
    cdef public list idle
    cdef public Py_ssize_t opening
    cdef public Py_ssize_t waiting
    cdef public Py_ssize_t sessions
    cdef public Py_ssize_t total
    cdef public object greeting


cdef class Assignment:
    cdef public Py_ssize_t size
    cdef public bint patient
    cdef readonly Py_ssize_t total
    cdef readonly Py_ssize_t opening
    cdef readonly Py_ssize_t idle
    cdef readonly object waiters
    cdef dict _flavours

    cpdef object take(self, Flavour flavour)
    cpdef object wait(self, object waiter, Flavour flavour)
    cpdef object give_back(self, object server, Flavour flavour)
    @cython.locals(first=tuple)
    cpdef object next_waiter(self, Flavour flavour)
    cdef _put(self, object server, Flavour flavour)
    cdef _take_oldest(self, Flavour flavour)
    cdef _count_out(self, Flavour flavour)
    cpdef forget_flavour(self, Flavour flavour)
