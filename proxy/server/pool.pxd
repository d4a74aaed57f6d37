cimport cython

from proxy cimport clock
from proxy.server.assignment cimport Assignment, Flavour
from proxy.server.connection cimport ServerConnection, Waiter


cdef class Pool:
    cdef readonly object loop
    cdef readonly object primary
    cdef readonly str user
    cdef readonly str database
    cdef public double wait_timeout
    cdef readonly bint holds_for_session
    cdef readonly object log
    cdef public object credential
    cdef readonly Assignment assignment
    cdef readonly set servers
    cdef readonly Py_ssize_t sessions
    cdef readonly bint closed
    cdef readonly long long opened_total
    cdef readonly long long closed_total
    cdef readonly long long acquired_total
    cdef readonly long long waits_total
    cdef readonly double wait_seconds_total
    cdef readonly long long connect_errors_total
    cdef set _held
    cdef set _discarding
    cdef object _failure
    cdef double _backoff
    cdef object _retry
    cdef object _timer
    cdef set _tasks

    @cython.locals(server=ServerConnection)
    cpdef ServerConnection acquire(self, Waiter waiter, Flavour flavour)
    cpdef release(self, ServerConnection server)
    @cython.locals(waiter=Waiter, flavour=Flavour)
    cpdef give_back(self, ServerConnection server)
    cdef _grant(self, Waiter waiter, ServerConnection server)
    cdef _run(self, ServerConnection server, bytes sql)
    cdef _close(self, ServerConnection server)
    cdef _forget(self, ServerConnection server)
