cimport cython


@cython.locals(units=double)
cpdef Py_ssize_t bucket_of(double seconds)

cdef list _seconds

cpdef double seconds_of(Py_ssize_t bucket)


cdef class Histogram:
    cdef public long long count
    cdef public Py_ssize_t offset
    cdef public list counts

    @cython.locals(k=Py_ssize_t)
    cpdef void add(self, Py_ssize_t bucket)

    cdef void _make_room(self, Py_ssize_t first, Py_ssize_t last)

    @cython.locals(k=Py_ssize_t)
    cpdef void merge(self, Histogram other)

    @cython.locals(result=list, bucket=Py_ssize_t, count="long long", k=Py_ssize_t)
    cpdef list octaves(self)

    @cython.locals(result=list, k=Py_ssize_t, reached="long long", rank="long long", fraction=double)
    cpdef list quantiles(self, object fractions)
