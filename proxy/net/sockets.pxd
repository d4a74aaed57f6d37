from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno

cdef extern from *:
    """
    #include <sys/socket.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0  /* Python ignores SIGPIPE */
    #endif
    """
    ssize_t recv(int fd, void *buffer, size_t length, int flags) nogil
    ssize_t c_send "send" (int fd, const void *buffer, size_t length, int flags) nogil
    int MSG_NOSIGNAL


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
