cimport cython


cdef class Reply:
    cdef public int kind
    cdef public int action
    cdef public object receiver
    cdef public bytes fake
    cdef public object record
    cdef public object statement
    cdef public bytes name
    cdef public bytes server_name
    cdef public object previous
    cdef public double sent
    cdef public Py_ssize_t piece
    cdef public long long generation


cdef class ReplyPipeline:
    cdef list _queue
    cdef Py_ssize_t _first
    cdef readonly long long segment
    cdef public int status
    cdef public bint unsynced
    cdef public bint skipping
    cdef public bint copying_in
    cdef public bint copying_out
    cdef readonly Reply done
    cdef readonly Reply failed
    cdef readonly list dropped

    cpdef bint is_idle(self)
    cpdef bint awaits_client(self)
    @cython.locals(due=Py_ssize_t, reply=Reply)
    cpdef Py_ssize_t segments_due(self)
    cpdef Reply head(self)
    cpdef list pending(self)
    @cython.locals(kind=cython.int)
    cpdef bint add(self, Reply reply) except -1
    @cython.locals(head=Reply, kind=cython.int, verdict=cython.int)
    cpdef int answer(self, int tag, int status) except -1
    @cython.locals(head=Reply)
    cpdef Reply next_fake(self)
    cdef _pop(self, Reply head)
    @cython.locals(queue=list, at=Py_ssize_t)
    cdef int _error(self, Reply head) except -1
    @cython.locals(queue=list, at=Py_ssize_t)
    cdef _begin_copy_in(self)
    cdef bint _segment_ends_after(self, Py_ssize_t at) except -1
    cdef int _unasked(self, int tag) except -1
    cdef _out_of_step(self, int tag, Reply head)
