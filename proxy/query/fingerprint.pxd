cimport cython

from proxy.observe.record cimport Fingerprint

cdef Py_ssize_t MAX_SQL, MAX_TEXT, MAX_INTERNED, MAX_KEY

cdef int OTHER, SPACE, WORD, OPEN, CLOSE, COMMA, SEMICOLON, IDENTIFIER, COMMENT, LITERAL
cdef int BLANK, QUOTE, DOUBLE_QUOTE, QUESTION, BACKSLASH, NEWLINE, RETURN
cdef int MINUS, PLUS, SLASH, STAR, DOLLAR, DOT, AMPERSAND, SEMICOLON_SIGN
cdef int PARENTHESIS, BRACKET, COMMA_SIGN, EQUALS, ZERO, NINE
cdef int LOWER_E, LOWER_F, LOWER_I, LOWER_N, LOWER_T, LOWER_U, LOWER_V, LOWER_X, UPPER_A
cdef int LEVELS, BEHIND_IN, BEHIND_VALUES
cdef int ELEMENT, PREVIOUS, PREVIOUS_END, ROW, NEXT_ROW, PREVIOUS_ROW, PREVIOUS_ROW_END, FRAME

cdef bytes _kind_table, _fold_table
cdef frozenset _KEYWORDS
cdef const unsigned char* KINDS
cdef const unsigned char* FOLDED
cdef dict _young, _old

@cython.locals(j=Py_ssize_t)
cdef Py_ssize_t _string_end(const unsigned char* p, Py_ssize_t i, Py_ssize_t end, bint escapes) noexcept

@cython.locals(j=Py_ssize_t, c=int, lines=int)
cdef Py_ssize_t _continuation(const unsigned char* p, Py_ssize_t i, Py_ssize_t end) noexcept

@cython.locals(j=Py_ssize_t, k=Py_ssize_t, length=Py_ssize_t)
cdef Py_ssize_t _dollar_end(const unsigned char* p, Py_ssize_t i, Py_ssize_t end) noexcept

@cython.locals(c=int, hexadecimal=bint, exponent=bint)
cdef Py_ssize_t _number_end(const unsigned char* p, Py_ssize_t i, Py_ssize_t end) noexcept

@cython.locals(c=int, following=int)
cdef Py_ssize_t _literal_end(const unsigned char* p, Py_ssize_t i, Py_ssize_t end, bint escapes) noexcept

@cython.locals(c=int, following=int, nested=Py_ssize_t)
cdef Py_ssize_t _comment_end(const unsigned char* p, Py_ssize_t i, Py_ssize_t end) noexcept

cdef Py_ssize_t _identifier_end(const unsigned char* p, Py_ssize_t i, Py_ssize_t end) noexcept

@cython.locals(c=int, start=Py_ssize_t)
cdef bint _is_operand(unsigned char* o, Py_ssize_t n) except -1

@cython.locals(k=Py_ssize_t, before=Py_ssize_t)
cdef Py_ssize_t _without_sign(unsigned char* o, Py_ssize_t n) except -1

@cython.locals(length=Py_ssize_t, before=Py_ssize_t, c=int, word=bytes)
cdef bint _is_constant(unsigned char* o, Py_ssize_t start, Py_ssize_t n) except -1

@cython.locals(i=Py_ssize_t)
cdef bint _are_equal(unsigned char* o, Py_ssize_t first, Py_ssize_t second, Py_ssize_t length) noexcept

@cython.locals(f=Py_ssize_t)
cdef void _opened(Py_ssize_t* frames, Py_ssize_t depth, Py_ssize_t n, bint is_list) noexcept

@cython.locals(f=Py_ssize_t, start=Py_ssize_t, previous=Py_ssize_t, length=Py_ssize_t)
cdef Py_ssize_t _element_ended(
    unsigned char* o, Py_ssize_t n, Py_ssize_t* frames, Py_ssize_t depth
) noexcept

@cython.locals(f=Py_ssize_t, start=Py_ssize_t, previous=Py_ssize_t, length=Py_ssize_t)
cdef Py_ssize_t _row_ended(unsigned char* o, Py_ssize_t n, Py_ssize_t* frames, Py_ssize_t depth) noexcept

@cython.locals(length=Py_ssize_t)
cdef Py_ssize_t _word_ended(
    unsigned char* o, Py_ssize_t start, Py_ssize_t n, Py_ssize_t* frames, Py_ssize_t depth
) except -1

@cython.locals(c=int)
cdef Py_ssize_t _place(
    unsigned char* o, Py_ssize_t n, int kind, bint gap, Py_ssize_t* frames, Py_ssize_t depth
) except -1

@cython.locals(
    p="const unsigned char*", end=Py_ssize_t, room=bytearray, o="unsigned char*", frames="Py_ssize_t[58]",
    i=Py_ssize_t, j=Py_ssize_t, n=Py_ssize_t, start=Py_ssize_t, depth=Py_ssize_t, gap=bint, kind=int, text=bytes,
)
cpdef bytes normalise(bytes sql, bint backslash_escapes=*)

@cython.locals(known=Fingerprint, shown=bytes)
cdef Fingerprint _first_sight(bytes text, bytes key)

@cython.locals(text=bytes, key=bytes, known=Fingerprint)
cpdef Fingerprint fingerprint(bytes sql, bint backslash_escapes=*)
