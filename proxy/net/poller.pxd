cimport cython

from proxy.net cimport sockets


cdef class Pollable:
    cpdef ready(self, int events)
    cpdef failed(self, object error)


cdef class Poller:
    cdef object _epoll
    cdef int _epoll_fd
    cdef object _loop
    cdef dict _watched
    cdef set _new

    cpdef add(self, int fd, Pollable watched, int events)
    cpdef change(self, int fd, int events)
    cpdef remove(self, int fd)
    @cython.locals(watched=Pollable, ready=list, at=Py_ssize_t, fd=object)
    cpdef turn(self)
    cpdef _serve(self, Pollable watched, int events)
