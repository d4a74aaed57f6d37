"""Names are read and changed where they stand; whatever else is in the message stays as it is."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ProtocolViolation
from protocol.messages import rewrite
from protocol.messages.backend import CommandComplete, ErrorResponse
from protocol.messages.codec import Message
from protocol.messages.frontend import Bind, Close, Describe, Parse
from protocol.types import Target

NAME = st.binary(max_size=30).map(lambda data: data.replace(b"\0", b""))
CONTEXT = st.binary(max_size=12)
FORMATS = st.lists(st.integers(0, 1), max_size=3).map(tuple)
BIND = st.builds(
    Bind, NAME, NAME, FORMATS, st.lists(st.none() | st.binary(max_size=20), max_size=3).map(tuple), FORMATS
)


def inside(message: Message | bytes, before: bytes = b"", after: bytes = b"") -> tuple[bytes, int, int]:
    """A message in the middle of a chunk: the chunk, and where the message begins and ends."""
    encoded = message if isinstance(message, bytes) else message.encode()
    return before + encoded + after, len(before), len(before) + len(encoded)


# --- strings and lengths --------------------------------------------------------------------------------


@given(CONTEXT, NAME, CONTEXT)
def test_a_string_ends_at_its_nul(before: bytes, name: bytes, after: bytes) -> None:
    data = before + name + b"\0" + after
    assert rewrite.cstring_end(data, len(before), len(data)) == len(before) + len(name)


@pytest.mark.parametrize(
    ("data", "at", "end"), [(b"", 0, 0), (b"name", 0, 4), (b"name\0", 0, 4), (b"a\0b", 2, 3)]
)
def test_a_string_must_end_within_its_message(data: bytes, at: int, end: int) -> None:
    with pytest.raises(ProtocolViolation, match=r"^invalid string in message$"):
        rewrite.cstring_end(data, at, end)


@pytest.mark.parametrize("length", [4, 255, 256, 65_535, 65_536, 0x3FFFFFFF])
def test_lengths_are_big_endian(length: int) -> None:
    front = rewrite.with_length(ord("B"), length)
    assert front == b"B" + length.to_bytes(4)
    assert rewrite.message_length(b"..." + front, 3) == length


# --- frontend messages ----------------------------------------------------------------------------------


@given(BIND, NAME, CONTEXT, CONTEXT)
def test_a_bind_is_renamed(bind: Bind, new: bytes, before: bytes, after: bytes) -> None:
    chunk, start, end = inside(bind, before, after)
    renamed = rewrite.rename_bind(chunk, start, end, bind.statement, new)
    assert Bind.decode(renamed[5:]) == Bind(
        bind.portal, new, bind.formats, bind.parameters, bind.result_formats
    )
    assert rewrite.message_length(renamed, 0) == len(renamed) - 1


@given(BIND, NAME, st.integers(0, 100))
def test_the_beginning_of_a_streamed_bind_is_renamed(bind: Bind, new: bytes, missing: int) -> None:
    """With the length of the whole: the rest follows unchanged."""
    chunk, start, end = inside(bind)
    names_end = 5 + len(bind.portal) + 1 + len(bind.statement) + 1
    there = max(names_end, end - missing)
    begun = rewrite.rename_bind(chunk[:there], start, there, bind.statement, new)
    assert begun + chunk[there:] == rewrite.rename_bind(chunk, start, end, bind.statement, new)


@given(NAME, NAME, st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple))
def test_a_parse_is_a_name_and_a_key(name: bytes, query: bytes, types: tuple[int, ...]) -> None:
    key = Parse(b"", query, types).encode()[6:]
    assert rewrite.parse_message(name, key) == Parse(name, query, types).encode()


@pytest.mark.parametrize(
    ("function", "kind"), [(rewrite.describe_statement, Describe), (rewrite.close_statement, Close)]
)
@given(name=NAME)
def test_statements_are_described_and_closed(
    function: Callable[[bytes], bytes], kind: type[Describe | Close], name: bytes
) -> None:
    assert function(name) == kind(Target.STATEMENT, name).encode()


# --- what a server says ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "rows"),
    [
        (b"SELECT 5", 5),
        (b"SELECT 0", 0),
        (b"INSERT 0 1", 1),
        (b"UPDATE 1234567890", 1_234_567_890),
        (b"COPY 9876543210123", 9_876_543_210_123),
        (b"FETCH 42", 42),
        (b"CREATE TABLE", 0),
        (b"BEGIN", 0),
        (b"7", 7),
        (b"", 0),
        (b"DISCARD ALL", 0),
    ],
)
def test_the_rows_of_a_command(tag: bytes, rows: int) -> None:
    # (The digits before and behind the message are none of its own.)
    assert rewrite.command_rows(*inside(CommandComplete(tag), b"9999", b"8888")) == rows


def test_a_number_that_no_table_can_have_stays_within_bounds() -> None:
    assert 0 <= rewrite.command_rows(*inside(CommandComplete(b"SELECT " + b"9" * 60))) < 2**63


@given(CONTEXT, st.binary(max_size=30), CONTEXT)
def test_any_command_tag_has_rows(before: bytes, body: bytes, after: bytes) -> None:
    encoded = b"C" + (len(body) + 4).to_bytes(4) + body
    assert rewrite.command_rows(*inside(encoded, before, after)) >= 0


REPORT = ErrorResponse.of("ERROR", "42P01", 'relation "C57014" does not exist', detail="C", hint="V")


@given(CONTEXT, CONTEXT)
def test_the_sqlstate_of_an_error(before: bytes, after: bytes) -> None:
    assert rewrite.error_sqlstate(*inside(REPORT, before, after)) == "42P01"


@pytest.mark.parametrize("fields", [{}, {"S": "ERROR", "V": "ERROR"}, {"M": "C42P01"}])
def test_an_error_may_have_no_sqlstate(fields: dict[str, str]) -> None:
    assert rewrite.error_sqlstate(*inside(ErrorResponse(fields))) == ""


def test_the_beginning_of_an_error_is_enough() -> None:
    whole = ErrorResponse.of("ERROR", "22P02", "x" * 10_000).encode()
    assert rewrite.error_sqlstate(whole[:100], 0, 100) == "22P02"


@given(CONTEXT, st.binary(max_size=40), CONTEXT)
def test_any_bytes_of_an_error_are_looked_through(before: bytes, body: bytes, after: bytes) -> None:
    chunk, start, end = inside(b"E" + (len(body) + 4).to_bytes(4) + body, before, after)
    assert len(rewrite.error_sqlstate(chunk, start, end)) <= 5
    assert rewrite.error_is_fatal(chunk, start, end) in (True, False)


@pytest.mark.parametrize(
    ("severity", "fatal"), [("ERROR", False), ("FATAL", True), ("PANIC", True), ("WARNING", False)]
)
def test_a_fatal_error_ends_the_connection(severity: str, fatal: bool) -> None:
    report = ErrorResponse.of(severity, "57P01", "terminating connection")
    assert rewrite.error_is_fatal(*inside(report, b"VFATAL\0", b"VFATAL\0")) is fatal


def test_only_the_severity_that_is_never_translated_counts() -> None:
    assert not rewrite.error_is_fatal(*inside(ErrorResponse({"S": "FATAL", "V": "ERROR", "M": "FATAL"})))
    assert rewrite.error_is_fatal(*inside(ErrorResponse({"S": "TÖDLICH", "V": "FATAL", "M": "Ende"})))


@pytest.mark.parametrize("text", ["VFATAL", "it was a VPANIC"])
def test_what_a_user_says_is_no_severity(text: str) -> None:
    """RAISE EXCEPTION 'VFATAL' must not end the server connection."""
    assert not rewrite.error_is_fatal(
        *inside(ErrorResponse.of("ERROR", "P0001", text, detail=text, hint=text))
    )
