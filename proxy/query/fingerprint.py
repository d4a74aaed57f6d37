# cython: annotation_typing=False
"""The shape of a statement: its text without literals, and a short stable id of that text.

`normalise` is one pass over the bytes with PostgreSQL's lexical rules (manual, "Lexical Structure"); it never
parses. What it does:

- every literal becomes `?`: '..', E'..', B'..', X'..', N'..', U&'..', $tag$..$tag$, numbers with their sign,
  and the parameters $1, $2 ... . So do `null`, `true` and `false` where any value could be: behind `(`, `[`,
  `,` or `=`;
- comments and white space become one space, and none at all inside brackets and before commas;
- unquoted words are lower-cased, quoted identifiers stay as they are;
- equal neighbours in `in (...)`, in `[...]` and among the rows of `values` count once: `in (1, 2, 3)` becomes
  `in (?)`.

No literal is ever shown: what does not end (a quote, a dollar quote) is hidden to the end of the text. The
output is its own normal form. Statements that differ only in what nobody needs to tell apart may share a
shape.
"""

from hashlib import blake2b

from proxy.observe.record import Fingerprint

MAX_SQL = 65536
MAX_TEXT = 4096
MAX_INTERNED = 10000
MAX_KEY = 1024

# What a byte may begin.
OTHER, SPACE, WORD, OPEN, CLOSE, COMMA, SEMICOLON, IDENTIFIER, COMMENT, LITERAL = range(10)
BLANK, QUOTE, DOUBLE_QUOTE, QUESTION, BACKSLASH, NEWLINE, RETURN = b" '\"?\\\n\r"
MINUS, PLUS, SLASH, STAR, DOLLAR, DOT, AMPERSAND, SEMICOLON_SIGN = b"-+/*$.&;"
PARENTHESIS, BRACKET, COMMA_SIGN, EQUALS, ZERO, NINE = b"([,=09"
LOWER_E, LOWER_F, LOWER_I, LOWER_N, LOWER_T, LOWER_U, LOWER_V, LOWER_X, UPPER_A = b"efintuvxA"

# What is known of the lists being read, as positions in the output (-1: none): a frame of seven for each
# bracket level (deeper ones are read, but their lists are not shortened), then the ends of the last `in` and
# the last `values`.
# ELEMENT: where the element being read begins, in a list to be shortened; PREVIOUS, PREVIOUS_END: the one
# before it.
# ROW: where the row of `values` being read begins; NEXT_ROW: where another one would have to begin.
ELEMENT, PREVIOUS, PREVIOUS_END, ROW, NEXT_ROW, PREVIOUS_ROW, PREVIOUS_ROW_END, FRAME = range(8)
LEVELS = 8
BEHIND_IN, BEHIND_VALUES = 56, 57

# A sign after one of these words belongs to the number behind it.
_KEYWORDS = frozenset(
    b"all and any as asc between by case cross desc distinct else except fetch filter first for from "
    b"full having if ilike in inner intersect into is join left like limit natural not offset on or "
    b"order outer over returning returns right select set similar some then to union using values when "
    b"where window with".split()
)

_WORDS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_" + bytes(range(128, 256))


def _kinds() -> bytes:
    table = bytearray(256)
    for kind, members in (
        (SPACE, b" \t\n\r\f\v"),
        (WORD, _WORDS),
        (OPEN, b"(["),
        (CLOSE, b")]"),
        (COMMA, b","),
        (SEMICOLON, b";"),
        (IDENTIFIER, b'"'),
        (COMMENT, b"-/"),
        (LITERAL, b"'0123456789$.?eEbBxXnNuU"),
    ):
        for byte in members:
            table[byte] = kind
    return bytes(table)


def _folding() -> bytes:
    table = bytearray(256)
    for byte in _WORDS + b"0123456789$":
        table[byte] = bytes((byte,)).lower()[0]
    return bytes(table)


# Byte -> what it may begin; byte -> its lower case where it can be part of a word, else 0. Each in two steps,
# because the compiled form keeps a bare pointer, which doesn't keep the table alive.
_kind_table = _kinds()
_fold_table = _folding()
KINDS = _kind_table
FOLDED = _fold_table

_young: dict[bytes, Fingerprint] = {}
_old: dict[bytes, Fingerprint] = {}


def _string_end(p: bytes, i: int, end: int, escapes: bool) -> int:
    """Behind the string whose opening quote is at `i`, and its continuations on further lines."""
    while True:
        i += 1
        while i < end and p[i] != QUOTE:
            i += 2 if escapes and p[i] == BACKSLASH else 1
        if i >= end:
            return end
        i += 1
        if i < end and p[i] == QUOTE:
            continue
        j = _continuation(p, i, end)
        if j == i:
            return i
        i = j


def _continuation(p: bytes, i: int, end: int) -> int:
    """The position of the quote that continues, on a further line, the string that ended at `i`; else `i`."""
    lines = 0
    j = i
    while j < end:
        c = p[j]
        if c == QUOTE:
            return j if lines else i
        if c in (NEWLINE, RETURN):
            lines += 1
            j += 1
        elif KINDS[c] == SPACE:
            j += 1
        elif c == MINUS and j + 1 < end and p[j + 1] == MINUS:
            j = _comment_end(p, j, end)
        else:
            return i
    return i


def _dollar_end(p: bytes, i: int, end: int) -> int:
    """The position behind the parameter or dollar-quoted string that begins at `i`; `i` if neither does."""
    j = i + 1
    if j < end and ZERO <= p[j] <= NINE:
        return _number_end(p, j, end)
    while j < end and p[j] != DOLLAR:
        if not FOLDED[p[j]] or (j == i + 1 and ZERO <= p[j] <= NINE):
            return i
        j += 1
    if j >= end:
        return i
    length = j + 1 - i
    j += 1
    while j + length <= end:
        if p[j] == DOLLAR:
            k = 1
            while k < length and p[j + k] == p[i + k]:
                k += 1
            if k == length:
                return j + length
            # No tag can begin inside what agreed but for the delimiter's own last dollar.
            j += k
        else:
            j += 1
    return end


def _number_end(p: bytes, i: int, end: int) -> int:
    """The position behind the number that begins at `i`, with any letters and dots that trail it."""
    hexadecimal = i + 1 < end and p[i] == ZERO and (p[i + 1] | 32) == LOWER_X
    i += 1
    while i < end:
        c = p[i]
        if c in (PLUS, MINUS):
            exponent = not hexadecimal and (p[i - 1] | 32) == LOWER_E
            if not exponent or i + 1 >= end or not ZERO <= p[i + 1] <= NINE:
                break
        elif c == DOLLAR or (c != DOT and not FOLDED[c]):
            break
        i += 1
    return i


def _literal_end(p: bytes, i: int, end: int, escapes: bool) -> int:
    """The position behind the literal that begins at `i`, or `i` if none does."""
    c = p[i]
    if c == QUOTE:
        return _string_end(p, i, end, escapes)
    if ZERO <= c <= NINE:
        return _number_end(p, i, end)
    if c == QUESTION:
        return i + 1
    if i + 1 >= end:
        return i
    following = p[i + 1]
    if c == DOLLAR:
        return _dollar_end(p, i, end)
    if c == DOT:
        return _number_end(p, i, end) if ZERO <= following <= NINE else i
    c = c | 32
    if c == LOWER_U:
        if following == AMPERSAND and i + 2 < end and p[i + 2] == QUOTE:
            return _string_end(p, i + 2, end, False)
    elif following == QUOTE:
        return _string_end(p, i + 1, end, escapes or c == LOWER_E)
    return i


def _comment_end(p: bytes, i: int, end: int) -> int:
    """The position behind the comment that begins at `i`, or `i` if none does."""
    if i + 1 >= end:
        return i
    c = p[i]
    following = p[i + 1]
    if c == MINUS and following == MINUS:
        while i < end and p[i] != NEWLINE and p[i] != RETURN:
            i += 1
        return i
    if c != SLASH or following != STAR:
        return i
    nested = 1
    i += 2
    while i + 1 < end:
        if p[i] == STAR and p[i + 1] == SLASH:
            nested -= 1
            i += 2
            if not nested:
                return i
        elif p[i] == SLASH and p[i + 1] == STAR:
            nested += 1
            i += 2
        else:
            i += 1
    return end


def _identifier_end(p: bytes, i: int, end: int) -> int:
    """The position behind the quoted identifier that begins at `i`, or -1 if it does not end."""
    i += 1
    while i < end:
        if p[i] == DOUBLE_QUOTE:
            i += 1
            if i >= end or p[i] != DOUBLE_QUOTE:
                return i
        i += 1
    return -1


def _is_operand(o: bytearray, n: int) -> bool:
    """Whether what ends at `n` is a value, so that a sign behind it is an operator of two operands."""
    c = o[n - 1]
    if c in (QUESTION, DOUBLE_QUOTE) or KINDS[c] == CLOSE:
        return True
    if not FOLDED[c]:
        return False
    start = n - 1
    while start > 0 and FOLDED[o[start - 1]]:
        start -= 1
    return bytes(o[start:n]) not in _KEYWORDS


def _without_sign(o: bytearray, n: int) -> int:
    """The length of the output without the signs that belong to the literal that follows."""
    while n > 0:
        k = n - 1 if o[n - 1] == BLANK else n
        if k == 0 or (o[k - 1] != MINUS and o[k - 1] != PLUS):
            return n
        before = k - 1
        if before > 0 and o[before - 1] == BLANK:
            before -= 1
        if before > 0 and _is_operand(o, before):
            return n
        n = k - 1
    return n


def _is_constant(o: bytearray, start: int, n: int) -> bool:
    """Whether the word at `start` .. `n` is null, true or false, and stands where any value could."""
    length = n - start
    if (length != 4 and length != 5) or start == 0:
        return False
    c = o[start]
    if c != LOWER_N and c != LOWER_T and c != LOWER_F:
        return False
    before = start - 1
    if o[before] == BLANK:
        before -= 1
    if o[before] not in (COMMA_SIGN, EQUALS) and KINDS[o[before]] != OPEN:
        return False
    word = bytes(o[start:n])
    return word == b"null" or word == b"true" or word == b"false"


def _are_equal(o: bytearray, first: int, second: int, length: int) -> bool:
    i = 0
    while i < length and o[first + i] == o[second + i]:
        i += 1
    return i == length


def _opened(frames: list[int], depth: int, n: int, is_list: bool) -> None:
    """Take note of the bracket at `n` - 1 that led to level `depth`."""
    if depth <= LEVELS:
        f = (depth - 1) * FRAME
        frames[f + ROW] = n - 1 if frames[f + NEXT_ROW] == n - 1 else -1
        frames[f + NEXT_ROW] = -1
    if depth < LEVELS:
        f = depth * FRAME
        frames[f + ELEMENT] = n if is_list else -1
        frames[f + PREVIOUS] = frames[f + PREVIOUS_END] = n
        frames[f + ROW] = frames[f + NEXT_ROW] = frames[f + PREVIOUS_ROW_END] = -1


def _element_ended(o: bytearray, n: int, frames: list[int], depth: int) -> int:
    """The output's length at the end of a list element: without the element if the one before equals it."""
    if depth >= LEVELS:
        return n
    f = depth * FRAME
    start = frames[f + ELEMENT]
    if start >= 0:
        previous = frames[f + PREVIOUS]
        length = frames[f + PREVIOUS_END] - previous
        if length > 0 and length == n - start and _are_equal(o, previous, start, length):
            n = frames[f + PREVIOUS_END]
        else:
            frames[f + PREVIOUS] = start
            frames[f + PREVIOUS_END] = n
        # Behind the comma and its space.
        frames[f + ELEMENT] = n + 2
    # Between two rows of `values` there is a comma and nothing else.
    frames[f + NEXT_ROW] = n + 2 if frames[f + PREVIOUS_ROW_END] == n else -1
    return n


def _row_ended(o: bytearray, n: int, frames: list[int], depth: int) -> int:
    """The output's length behind a closing bracket: without the row it ended if the row before equals it."""
    if depth >= LEVELS:
        return n
    f = depth * FRAME
    start = frames[f + ROW]
    if start < 0:
        return n
    previous = frames[f + PREVIOUS_ROW]
    length = n - start
    if length == frames[f + PREVIOUS_ROW_END] - previous and _are_equal(o, previous, start, length):
        n = frames[f + PREVIOUS_ROW_END]
    else:
        frames[f + PREVIOUS_ROW] = start
        frames[f + PREVIOUS_ROW_END] = n
    frames[f + ROW] = -1
    return n


def _word_ended(o: bytearray, start: int, n: int, frames: list[int], depth: int) -> int:
    """The output's length behind the word at `start` .. `n`; words before lists are noted in the frames."""
    length = n - start
    if length == 2:
        if o[start] == LOWER_I and o[start + 1] == LOWER_N:
            frames[BEHIND_IN] = n
    elif length == 6:
        if o[start] == LOWER_V and bytes(o[start:n]) == b"values":
            frames[BEHIND_VALUES] = n
            if depth < LEVELS:
                frames[depth * FRAME + NEXT_ROW] = n + 1
        elif depth < LEVELS and frames[depth * FRAME + ELEMENT] == start and bytes(o[start:n]) == b"select":
            frames[depth * FRAME + ELEMENT] = -1
    elif _is_constant(o, start, n):
        o[start] = QUESTION
        return start + 1
    return n


def _place(o: bytearray, n: int, kind: int, gap: bool, frames: list[int], depth: int) -> int:
    """Where a token of `kind` goes, after tidying up what stands before it and writing the space it needs."""
    if kind == LITERAL:
        n = _without_sign(o, n)
    elif kind in (CLOSE, COMMA):
        return _element_ended(o, n, frames, depth)
    elif kind == SEMICOLON:
        return n
    elif kind == OPEN:
        if frames[BEHIND_IN] == n:
            frames[BEHIND_IN] = n + 1
            gap = True
        elif frames[BEHIND_VALUES] == n:
            gap = True
    if gap and n > 0:
        c = o[n - 1]
        if c != BLANK and KINDS[c] != OPEN:
            o[n] = BLANK
            n += 1
    return n


def normalise(sql: bytes, backslash_escapes: bool = False) -> bytes:
    """The statement without literals, comments and superfluous white space. Never raises, whatever the bytes.

    `backslash_escapes` is for sessions with `standard_conforming_strings = off`: backslashes escape in '..'
    too. Of a statement longer than 64 KiB only the beginning is read; the result then ends with ` ...`.
    """
    p = sql
    end = len(sql) if len(sql) < MAX_SQL else MAX_SQL
    room = bytearray(2 * end + 8)
    o = room
    frames = [0] * 58
    frames[ELEMENT] = frames[ROW] = frames[NEXT_ROW] = frames[PREVIOUS_ROW_END] = -1
    frames[BEHIND_IN] = frames[BEHIND_VALUES] = -1
    i = n = depth = 0
    gap = False
    while i < end:
        kind = KINDS[p[i]]
        j = i + 1
        if kind in (LITERAL, COMMENT):
            j = _literal_end(p, i, end, backslash_escapes) if kind == LITERAL else _comment_end(p, i, end)
            if j == i:
                kind = WORD if p[i] >= UPPER_A else OTHER
                j += 1
            elif kind == COMMENT:
                kind = SPACE
        elif kind == IDENTIFIER:
            j = _identifier_end(p, i, end)
            if j < 0:
                kind = LITERAL
                j = end
        if kind == SPACE:
            gap = True
            i = j
            continue
        start = n = _place(o, n, kind, gap, frames, depth)
        gap = kind == COMMA
        if kind == WORD:
            while i < end and FOLDED[p[i]]:
                o[n] = FOLDED[p[i]]
                n += 1
                i += 1
            n = _word_ended(o, start, n, frames, depth)
            continue
        if kind == LITERAL:
            o[n] = QUESTION
            n += 1
            i = j
            continue
        while i < j:
            o[n] = p[i]
            n += 1
            i += 1
        if kind == OPEN:
            depth += 1
            _opened(frames, depth, n, o[start] == BRACKET or frames[BEHIND_IN] == start)
        elif kind == CLOSE:
            depth = depth - 1 if depth else 0
            n = _row_ended(o, n, frames, depth)
    while n > 0 and (o[n - 1] == SEMICOLON_SIGN or o[n - 1] == BLANK):
        n -= 1
    text = bytes(o[:n])
    return text if end == len(sql) else text + b" ..."


def _first_sight(text: bytes, key: bytes) -> Fingerprint:
    """Take a shape into the table, or back from its older half."""
    global _young, _old
    known = _old.get(key)
    if known is None:
        shown = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + b" ..."
        identity = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
        known = Fingerprint(identity, shown.decode("utf-8", "replace"))
    if len(_young) >= MAX_INTERNED // 2:
        _old = _young
        _young = {}
    _young[key] = known
    return known


def fingerprint(sql: bytes, backslash_escapes: bool = False) -> Fingerprint:
    """The shape of a statement; statements of equal shape give the same object while the shape is remembered.

    At most 10,000 shapes are: when the younger half of the table is full, the older half is forgotten.
    `backslash_escapes` is as for `normalise`. Never raises.
    """
    text = normalise(sql, backslash_escapes)
    key = text if len(text) <= MAX_KEY else blake2b(text).digest()
    known = _young.get(key)
    return known if known is not None else _first_sight(text, key)
