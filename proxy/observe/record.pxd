cdef class Fingerprint:
    cdef public unsigned long long id
    cdef public str text
    cdef public object slot


cdef class QueryRecord:
    cdef public Fingerprint fingerprint
    cdef public str user
    cdef public str database
    cdef public double started
    cdef public double wait
    cdef public double server
    cdef public double total
    cdef public long long rows
    cdef public long long bytes_in
    cdef public long long bytes_out
    cdef public str sqlstate
    cdef public int server_pid
    cdef public bint in_transaction
