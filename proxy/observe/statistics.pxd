from proxy.observe.record cimport QueryRecord


cdef class QueryStatistics:
    cdef public long long max_fingerprints
    cdef public long long calls
    cdef public double total_seconds

    cpdef void observe(self, QueryRecord record)
