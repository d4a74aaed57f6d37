cimport cython

from proxy.observe.histogram cimport Histogram, bucket_of
from proxy.observe.record cimport Fingerprint, QueryRecord

cdef double _LONGEST

cdef long long _nanoseconds(double seconds) noexcept


cdef class Totals:
    cdef public long long calls, rows, bytes_in, bytes_out, failures
    cdef public long long total_ns, total_min_ns, total_max_ns
    cdef public long long server_ns, server_min_ns, server_max_ns
    cdef public long long wait_ns, wait_min_ns, wait_max_ns
    cdef public dict errors
    cdef public Histogram histogram

    cdef void _add(
        self, QueryRecord record, Py_ssize_t bucket, long long total_ns, long long server_ns, long long wait_ns
    )
    cdef void _add_errors(self, str sqlstate, long long number)


cdef class Entry(Totals):
    cdef public Fingerprint fingerprint
    cdef public QueryStatistics owner
    cdef public long long used


cdef class QueryStatistics:
    cdef public Py_ssize_t max_fingerprints
    cdef public Totals total
    cdef public Totals other
    cdef dict _entries
    cdef long long _uses

    @cython.locals(entry=Entry, bucket=Py_ssize_t, total_ns="long long", server_ns="long long", wait_ns="long long")
    cpdef void observe(self, QueryRecord record)

    cdef Entry _entry(self, Fingerprint fingerprint)
    cdef void _evict(self)
    @cython.locals(taken=QueryStatistics, entry=Entry)
    cpdef QueryStatistics take(self)
    cpdef void merge(self, QueryStatistics other)
