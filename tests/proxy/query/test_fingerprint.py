"""The shape of a statement shows nothing of a literal; texts that differ only in literals share it."""

import re
import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.query.fingerprint import fingerprint, normalise

SECRET = "zq7"


@pytest.mark.parametrize(
    ("sql", "normalised"),
    [
        ("", ""),
        (" \t\r\n\f\v;; ", ""),
        ("SELECT 1;", "select ?"),
        ("SELECT  a ,b\nFROM\tt  ;", "select a, b from t"),
        ("select f( a , [ 1 ] )", "select f(a, [?])"),
        ("select 1;select 2 ; ", "select ?;select ?"),
        ('SELECT "A b", "x""Y;-- \'" FROM S."T"', 'select "A b", "x""Y;-- \'" from s."T"'),
        ('select U&"d\\0061t" from t', 'select u&"d\\0061t" from t'),
        ("select Größe, a$b$c, _x from ÄPFEL", "select größe, a$b$c, _x from Äpfel"),
        # strings
        ("select 'it''s', ''", "select ?, ?"),
        ("select 'back\\', x", "select ?, x"),
        ("select E'it\\'s \\\\', e'' , x", "select ?, ?, x"),
        ("select B'101', x'1F', N'ä', U&'d\\0061' uescape '!'", "select ?, ?, ?, ? uescape ?"),
        ("select be'x'", "select be?"),
        ("select 'a'\n  -- 'remark\n  'b', x", "select ?, x"),
        ("select e'a'\n'\\'b', x", "select ?, x"),
        ("select 'a' 'b', x", "select ? ?, x"),
        ("select date '2024-01-01', 'a'::text", "select date ?, ?::text"),
        # dollar quotes and parameters
        ("select $$it's$$, $a$ $$ $b$ $a$, $ä1$x$ä1$, x", "select ?, ?, ?, x"),
        ("do $body$ begin perform 'x'; end $body$", "do ?"),
        ("select $1, $22::int, $1+$2", "select ?, ?::int, ?+?"),
        ("select $1$$it's$$, x", "select ??, x"),
        ("select $ a, $b", "select $ a, $b"),
        # numbers
        ("select 1, 1.5, .5, 5., 1e3, 1E-3, 1.5e+10", "select ?, ?, ?, ?, ?, ?, ?"),
        ("select 0x1F, 0o17, 0b01, 1_000, 0x1e-3", "select ?, ?, ?, ?, ?-?"),
        ("select t1.c2, t.*, a[1:2]", "select t1.c2, t.*, a[?:?]"),
        ("select 1from t limit 10offset 5", "select ? t limit ? ?"),
        # signs
        ("select -1, +1, - 1, (-1), - -1, a[-1]", "select ?, ?, ?, (?), ?, a[?]"),
        (
            "select * from t where a = -1 and b=-1 and c < - 1",
            "select * from t where a = ? and b=? and c < ?",
        ),
        (
            'select a-1, a - 1, a - -1, f(x) -1, $1 -1, "A" -1',
            'select a-?, a - ?, a - ?, f(x) -?, ? -?, "A" -?',
        ),
        ("select x between -1 and -2 limit -1", "select x between ? and ? limit ?"),
        ("select case when a then -1 else -2 end -1", "select case when a then ? else ? end -?"),
        ("select -a, -(1)", "select -a, -(?)"),
        # comments
        ("select/* a /* 'b */ \" */1--x\n,2 -- 'end", "select ?, ?"),
        ("select a--b\rc", "select a c"),
        ("select a - - b, a / b, a /* x", "select a - - b, a / b, a"),
        # constants in the place of values
        (
            "update t set a = NULL, b=true where c is not false",
            "update t set a = ?, b=? where c is not false",
        ),
        ("select f(null, true, FALSE), x is null", "select f(?, ?, ?), x is null"),
        ("select null, nullif(a, true)", "select null, nullif(a, ?)"),
        # lists
        ("select * from t where a IN(1,2 , 3)", "select * from t where a in (?)"),
        ("select * from t where a not in ('x', null, $3)", "select * from t where a not in (?)"),
        ("select a in ('2024-01-01'::date, '2024-01-02'::date)", "select a in (?::date)"),
        ("select (a, b) in ((1, 'x'), (2, 'y'))", "select (a, b) in ((?, ?))"),
        ("select a in (1, b, 2)", "select a in (?, b, ?)"),
        ("select a in (lower('x'), lower('y'))", "select a in (lower(?))"),
        ("select a in (select b, b from t)", "select a in (select b, b from t)"),
        ("select ARRAY[1,2], array[[1,2],[3,4]], '{1}'::int[]", "select array[?], array[[?]], ?::int[]"),
        ("select f(1, 2, 2)", "select f(?, ?, ?)"),
        ("insert into t values(1,'a'),(2,'b')", "insert into t values (?, ?)"),
        (
            "insert into t (a,b) VALUES (1,null),(-2,now()) , (3 ,now())",
            "insert into t (a, b) values (?, ?), (?, now())",
        ),
        ("values (1), (2) order by f(1), (2)", "values (?) order by f(?), (?)"),
        ("select a in (values (1), (2)), (3)", "select a in (values (?)), (?)"),
        ("values (1)||(2), (3)", "values (?)||(?), (?)"),
        ("insert into t values (array[1,2]), (array[3])", "insert into t values (array[?])"),
        # operators with question marks
        ("select a ? 'x', a ?| array['x','y']", "select a ? ?, a ?| array[?]"),
    ],
)
def test_normalised_text(sql: str, normalised: str) -> None:
    assert normalise(sql.encode()).decode() == normalised
    assert normalise(normalised.encode()).decode() == normalised


@pytest.mark.parametrize(
    "sql",
    [
        f"select '{SECRET}",
        f"select 'a''{SECRET}",
        f"select E'a\\'{SECRET}",
        f"select $${SECRET}",
        f"select $t${SECRET} $t $$ $T$",
        f'select "{SECRET}',
        f"select a -- {SECRET}",
        f"select a /* {SECRET}",
        f"select a /* /* */ {SECRET}",
        f"select 1{SECRET}",
        f"select $1{SECRET}",
        f"select U&'{SECRET}",
        f"alter role bob password '{SECRET}'",
    ],
)
def test_what_does_not_end_is_hidden(sql: str) -> None:
    assert SECRET not in normalise(sql.encode()).decode()


def test_backslashes_escape_where_the_session_says_so() -> None:
    sql = rb"select 'it\'s zq7', x"
    assert normalise(sql, True) == b"select ?, x"
    assert fingerprint(sql, True) is fingerprint(b"select 'a', x")


def test_a_long_statement_is_known_by_its_beginning() -> None:
    start = b"select " + b"a + " * 20000
    long = normalise(start + b"1")
    assert long.endswith(b" ...")
    assert len(long) <= 65536 + 4
    assert normalise(start + b"b, 'other'") == long
    in_string = normalise(b"select '" + b"zq7" * 40000 + b"'")
    assert in_string == b"select ? ..."


def test_exactly_the_longest_statement_is_read_whole() -> None:
    sql = b"select " + b"a" * (65536 - 7)
    assert normalise(sql) == sql
    assert normalise(sql + b"a") == sql + b" ..."


def test_deep_nesting_is_read() -> None:
    deep = b"(" * 3000 + b"'zq7', -1, in (1, 2)" + b")" * 3000
    shape = normalise(deep)
    assert shape.startswith(b"(" * 3000 + b"?, ?, in (?")
    assert normalise(shape) == shape


def test_a_fingerprint_is_shared_and_stable() -> None:
    first = fingerprint(b"SELECT * FROM t WHERE a = 1")
    assert fingerprint(b"select *  from t where a = 'x' -- y") is first
    assert first.text == "select * from t where a = ?"
    # blake2b, 8 bytes, big-endian, of that text: other processes and releases must come to the same.
    assert f"{first.id:016x}" == "b19e3634f52e74ff"
    assert fingerprint(b"select * from t where b = 1").id != first.id


def test_the_shown_text_is_bounded_and_the_id_is_not() -> None:
    long = b"select " + b", ".join(b"c%da" % n for n in range(2000))
    one, other = fingerprint(long + b", x"), fingerprint(long + b", y")
    assert one.id != other.id
    assert one.text == other.text
    assert len(one.text) == 4096 + len(" ...")
    assert fingerprint(long + b", x ") is one


def test_text_that_is_not_utf8_is_shown_with_replacements() -> None:
    assert fingerprint(b"select \xff").text == "select \N{REPLACEMENT CHARACTER}"


def test_the_table_forgets_what_was_not_used_for_long() -> None:
    kept = fingerprint(b"select kept")
    forgotten = fingerprint(b"select forgotten")
    for n in range(12000):
        fingerprint(b"select a%d_" % n)
        if n % 1000 == 0:
            assert fingerprint(b"select kept") is kept
    again = fingerprint(b"select forgotten")
    assert again is not forgotten
    assert (again.id, again.text) == (forgotten.id, forgotten.text)


# Pieces of statements: literals of each kind, and what may stand between them.
_inner = st.text(string.ascii_letters + string.digits + " ,()-$;/*", max_size=6).map(
    lambda text: SECRET + text
)
_number = st.integers(10**6, 10**7).map(lambda n: f"7{n}7")


def _no_dollar(text: str) -> str:
    return text.replace("$", "")


_literals: dict[str, st.SearchStrategy[str]] = {
    "string": _inner.map(lambda text: f"'{text}''{text}'"),
    "backslash": _inner.map(lambda text: f"'{text}\\'"),
    "escape": _inner.map(lambda text: f"E'{text}\\'{text}\\\\'::text"),
    "continued": _inner.map(lambda text: f"E'{text}'\n '\\'{text}'::text"),
    "unicode": _inner.map(lambda text: f"U&'{text}'"),
    "national": _inner.map(lambda text: f"n'{text}'"),
    "bits": st.text("01", min_size=3).map(lambda text: f"B'{text}'"),
    "dollar": _inner.map(lambda text: f"$${_no_dollar(text)}'$$"),
    "tagged": _inner.map(lambda text: f"$tag$ {text} $$ $ta$ $tag$"),
    "integer": _number,
    "negative": _number.map(lambda text: f" -{text}"),
    "decimal": _number.map(lambda text: f"{text}.{text}e-{text}"),
    "fraction": _number.map(lambda text: f".{text}"),
    "hexadecimal": _number.map(lambda text: f"0x{text}aF"),
    "parameter": _number.map(lambda text: f"${text}"),
}
_glue = st.sampled_from(
    [
        " ",
        "\n",
        "/* c */",
        "--c\n",
        ", ",
        ",",
        " (",
        ") ",
        " in (",
        "values (",
        "),(",
        "[",
        "]",
        "::",
        ";",
        ".",
        " = ",
        " - ",
        "-",
        " || ",
        " and ",
        " a ",
        ' "Q x" ',
        " select ",
        " null ",
        ", true ",
    ]
)


@st.composite
def _twins(draw: st.DrawFn) -> tuple[str, str]:
    """Two statements that differ in their literals only, not in the kinds of these."""
    one, other = ["select "], ["select "]
    for _ in range(draw(st.integers(1, 8))):
        glue = draw(_glue)
        kind = draw(st.sampled_from(sorted(_literals)))
        one += glue, draw(_literals[kind]), " "
        other += glue, draw(_literals[kind]), " "
    return "".join(one), "".join(other)


@settings(max_examples=300)
@given(_twins())
def test_literals_do_not_count_and_do_not_show(twins: tuple[str, str]) -> None:
    one, other = (normalise(text.encode()).decode() for text in twins)
    assert one == other
    assert SECRET not in one
    assert not re.search("[0-9']", one)


_fragments = (
    b"' '' \\ \" $ $$ $a$ -- /* */ - + ? e' U& x n in values ( ) , [ ] ; . "
    b"null true 1 0x 1e 1. $1 select a :: & |"
).split()
_sql_bytes = st.lists(
    st.one_of(st.binary(max_size=4), st.sampled_from([b" ", b"\n", b" in (", *_fragments])), max_size=40
).map(b"".join)


@settings(max_examples=1000)
@given(_sql_bytes)
@example(b"- -1")
@example(b"values (1),(2),\n(2)")
def test_any_bytes_have_a_normal_form(sql: bytes) -> None:
    shape = normalise(sql)
    assert normalise(shape) == shape
    assert len(shape) <= 2 * len(sql)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_have_a_fingerprint(sql: bytes) -> None:
    shape = fingerprint(sql)
    assert 0 <= shape.id < 2**64
    assert fingerprint(sql) is shape
    assert normalise(sql, True) is not None
