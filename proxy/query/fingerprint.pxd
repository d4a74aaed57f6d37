from proxy.observe.record cimport Fingerprint


cpdef bytes normalise(bytes sql)
cpdef Fingerprint fingerprint(bytes sql)
