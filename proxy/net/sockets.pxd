from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno

cdef extern from *:
    """
    #include <errno.h>
    #include <sys/socket.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0  /* Python ignores SIGPIPE */
    #endif
    #ifdef __linux__
    #include <sys/epoll.h>
    static int pgsluice_wait(int epoll, int *fds, int *events)
    {
        struct epoll_event ready[128];
        int i, found = epoll_wait(epoll, ready, 128, 0);
        for (i = 0; i < found; i++) {
            fds[i] = ready[i].data.fd;
            events[i] = (int) ready[i].events;
        }
        return found;
    }
    #else
    static int pgsluice_wait(int epoll, int *fds, int *events)
    {
        errno = ENOSYS;
        return -1;
    }
    #endif
    """
    ssize_t recv(int fd, void *buffer, size_t length, int flags) nogil
    ssize_t c_send "send" (int fd, const void *buffer, size_t length, int flags) nogil
    int MSG_NOSIGNAL
    int pgsluice_wait(int epoll, int *fds, int *events) nogil


cdef inline bytes receive(int fd):
    cdef char[65536] buffer
    cdef ssize_t count
    while True:
        count = recv(fd, buffer, 65536, 0)
        if count >= 0:
            return PyBytes_FromStringAndSize(buffer, count)
        if errno == EAGAIN:
            return None
        if errno != EINTR:
            raise OSError(errno, "receive failed")


cdef inline Py_ssize_t send(int fd, bytes data) except -1:
    cdef ssize_t count
    while True:
        count = c_send(fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), MSG_NOSIGNAL)
        if count >= 0:
            return count
        if errno == EAGAIN:
            return 0
        if errno != EINTR:
            raise OSError(errno, "send failed")


cdef inline list wait(object epoll, int epoll_fd):
    cdef int[128] fds
    cdef int[128] events
    cdef int i
    cdef int found = pgsluice_wait(epoll_fd, fds, events)
    cdef list ready = []
    if found < 0:
        if errno == EINTR:
            return ready
        raise OSError(errno, "epoll_wait failed")
    for i in range(found):
        ready.append(fds[i])
        ready.append(events[i])
    return ready
