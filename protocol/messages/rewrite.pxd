cimport cython


@cython.locals(p="const unsigned char*")
cpdef Py_ssize_t cstring_end(bytes data, Py_ssize_t at, Py_ssize_t end) except -1

cpdef bytes with_length(int tag, Py_ssize_t length)

@cython.locals(p="const unsigned char*")
cpdef Py_ssize_t message_length(bytes data, Py_ssize_t start) except -1

@cython.locals(portal_end=Py_ssize_t, name_end=Py_ssize_t, length=Py_ssize_t)
cpdef bytes rename_bind(bytes data, Py_ssize_t start, Py_ssize_t end, bytes old, bytes new)

cpdef bytes parse_message(bytes name, bytes key)

cpdef bytes describe_statement(bytes name)

cpdef bytes bind_message(bytes name)

cpdef bytes close_statement(bytes name)

@cython.locals(p="const unsigned char*", at=Py_ssize_t, rows=cython.longlong, factor=cython.longlong)
cpdef long long command_rows(bytes data, Py_ssize_t start, Py_ssize_t end) except -1

@cython.locals(p="const unsigned char*", at=Py_ssize_t)
cpdef str error_sqlstate(bytes data, Py_ssize_t start, Py_ssize_t end)

cpdef bint error_is_fatal(bytes data, Py_ssize_t start, Py_ssize_t end) except -1
