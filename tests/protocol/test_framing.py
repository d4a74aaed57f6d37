"""Whatever the chunks, the same messages are met and the same bytes may be relayed."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.errors import ProtocolViolation
from protocol.framing import (
    BACKEND_KINDS,
    FRONTEND_KINDS,
    MAX_LARGE_LENGTH,
    MAX_MESSAGE_LENGTH,
    FrameScanner,
    backend_scanner,
    frontend_scanner,
)
from protocol.messages.codec import encode_message
from protocol.types import BackendTag, FrontendTag

HOLD = "CDEHSXcf"
STREAM = "BFQ"
SMALL_HOLD = 24
SMALL_LIMIT = 60

Met = list[tuple[str, bytes, int]]
"""Messages delivered: tag, what of it was there, how many bytes were still to come."""


def small() -> FrameScanner:
    """A client's scanner that streams what is longer than 24 bytes and refuses small messages beyond 60."""
    return FrameScanner(FRONTEND_KINDS, SMALL_HOLD, SMALL_LIMIT, "frontend")


def message(tag: str, body: bytes = b"") -> bytes:
    return encode_message(ord(tag), body)


def head(tag: str, length: int) -> bytes:
    """A tag and a length that need not be true."""
    return bytes((ord(tag),)) + length.to_bytes(4)


def walk(scanner: FrameScanner, *chunks: bytes) -> tuple[Met, bytes]:
    """What a user of the scanner sees: the messages, and all that may be relayed."""
    met: Met = []
    relayed = b""
    for chunk in chunks:
        if not scanner.feed(chunk):
            continue
        while tag := scanner.next():
            assert scanner.start < scanner.end <= scanner.size
            met.append((chr(tag), scanner.data[scanner.start : scanner.end], scanner.left))
        relayed += scanner.data[: scanner.pos]
        scanner.forget()
    return met, relayed


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The stream in chunks, cut wherever `cuts` (any numbers) point."""
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges) if a < b]


MESSAGE = st.one_of(
    st.tuples(st.sampled_from(HOLD), st.binary(max_size=SMALL_LIMIT - 4)),
    st.tuples(st.sampled_from(STREAM + "dP"), st.binary(max_size=90)),
).map(lambda parts: message(*parts))
STREAMS = st.lists(MESSAGE, max_size=8)
CUTS = st.lists(st.integers(0, 10_000), max_size=12)


# --- one chunk ----------------------------------------------------------------------------------------


def test_a_message_is_delivered_with_its_tag_and_length() -> None:
    scanner = frontend_scanner()
    assert scanner.feed(message("Q", b"select 1\0"))
    assert scanner.next() == FrontendTag.QUERY
    assert scanner.data[scanner.start : scanner.end] == message("Q", b"select 1\0")
    assert (scanner.left, scanner.pos) == (0, scanner.size)
    assert scanner.next() == 0


def test_bulk_is_stepped_over() -> None:
    rows = message("D", b"row") * 3
    met, relayed = walk(backend_scanner(), rows + message("C", b"SELECT 3\0") + rows)
    assert met == [("C", message("C", b"SELECT 3\0"), 0)]
    assert relayed == rows + message("C", b"SELECT 3\0") + rows


def test_an_empty_chunk_holds_nothing() -> None:
    assert walk(backend_scanner(), b"") == ([], b"")


@pytest.mark.parametrize("tag", sorted(set(FrontendTag) - {FrontendTag.COPY_DATA, FrontendTag.PASSWORD}))
def test_every_message_of_a_client_but_copy_data_is_delivered(tag: int) -> None:
    whole = message(chr(tag), b"body")
    assert walk(frontend_scanner(), whole) == ([(chr(tag), whole, 0)], whole)


@pytest.mark.parametrize("tag", sorted(set(BackendTag) - {BackendTag.COPY_DATA, BackendTag.DATA_ROW}))
def test_every_message_of_a_server_but_rows_and_copy_data_is_delivered(tag: int) -> None:
    whole = message(chr(tag), b"body")
    assert walk(backend_scanner(), whole) == ([(chr(tag), whole, 0)], whole)


def test_a_delivered_message_can_be_put_back() -> None:
    scanner = frontend_scanner()
    scanner.feed(message("S") + message("Q", b"\0"))
    assert scanner.next() == ord("S")
    scanner.rewind()
    assert scanner.pos == 0
    assert [scanner.next(), scanner.next(), scanner.next()] == [ord("S"), ord("Q"), 0]


def test_a_streamed_message_can_be_put_back() -> None:
    scanner = small()
    scanner.feed(message("Q", b"x" * 50)[:40])
    assert (scanner.next(), scanner.left) == (ord("Q"), 15)
    scanner.rewind()
    assert (scanner.next(), scanner.left) == (ord("Q"), 15)


# --- chunks that end anywhere ---------------------------------------------------------------------------

SAMPLE = b"".join(
    (
        message("P", b"name\0select $1\0\0\0"),
        message("B", b"\0name\0"),
        message("D", b"P\0"),
        message("E", b"\0\0\0\0\0"),
        message("d", b"copy data, never shown"),
        message("H"),
        message("C", b"Sname\0"),
        message("d"),
        message("c"),
        message("f", b"no\0"),
        message("Q", b"select 'longer than the scanner wants to hold'\0"),
        message("F", b"function call"),
        message("S"),
        message("X"),
    )
)


def test_a_chunk_may_end_at_any_byte() -> None:
    whole, relayed = walk(frontend_scanner(), SAMPLE)
    assert "".join(tag for tag, _, _ in whole) == "PBDEHCcfQFSX"
    assert relayed == SAMPLE
    for cut in range(len(SAMPLE) + 1):
        assert walk(frontend_scanner(), SAMPLE[:cut], SAMPLE[cut:]) == (whole, relayed), cut


def test_bytes_may_come_one_by_one() -> None:
    chunks = [SAMPLE[at : at + 1] for at in range(len(SAMPLE))]
    assert walk(frontend_scanner(), *chunks) == walk(frontend_scanner(), SAMPLE)


@given(STREAMS, CUTS)
def test_any_split_gives_the_same_messages_and_bytes(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)
    scanner = small()
    met, relayed = walk(scanner, *split(stream, cuts))
    assert relayed == stream
    assert not scanner.partial
    wanted = [part for part in parts if part[0] != ord("d")]
    assert [tag for tag, _, _ in met] == [chr(part[0]) for part in wanted]
    for (tag, there, left), part in zip(met, wanted, strict=True):
        assert part.startswith(there)
        assert len(there) + left == len(part)
        if left:
            # Only a message that is streamed comes in part, and not before enough of it is there.
            assert tag in STREAM
            assert len(there) >= SMALL_HOLD


@given(STREAMS, CUTS, st.integers(0, 10_000))
def test_nothing_is_relayed_before_it_has_been_walked(parts: list[bytes], cuts: list[int], end: int) -> None:
    """A stream that stops anywhere: what was relayed is its beginning, and all but one message's begin."""
    stream = b"".join(parts)
    stream = stream[: end % (len(stream) + 1)]
    _, relayed = walk(small(), *split(stream, cuts))
    assert stream.startswith(relayed)
    at = 0
    for part in parts:
        if at + len(part) > len(stream):
            break
        at += len(part)
    assert len(relayed) >= at


@given(st.lists(st.binary(max_size=40), max_size=6))
@example([b"Q\xff\xff\xff\xff"])
@example([b"D\0\0\0\4\0", b"\0\0\0\4"])
def test_any_bytes_are_scanned_or_are_a_violation(chunks: list[bytes]) -> None:
    for make in (frontend_scanner, backend_scanner, small):
        scanner = make()
        relayed = b""
        try:
            for chunk in chunks:
                if scanner.feed(chunk):
                    while scanner.next():
                        pass
                    relayed += scanner.data[: scanner.pos]
        except ProtocolViolation as violation:
            assert violation.sqlstate == "08P01"  # noqa: PT017
        assert b"".join(chunks).startswith(relayed)


# --- streaming ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [SMALL_HOLD, 30, 54])
def test_a_long_message_is_delivered_as_soon_as_enough_is_there(there: int) -> None:
    whole = message("Q", b"x" * 50)
    scanner = small()
    assert walk(scanner, whole[: SMALL_HOLD - 1]) == ([], b"")
    assert walk(scanner, whole[SMALL_HOLD - 1 : there]) == (
        [("Q", whole[:there], len(whole) - there)],
        whole[:there],
    )
    assert scanner.partial
    assert walk(scanner, whole[there:] + message("S")) == (
        [("S", message("S"), 0)],
        whole[there:] + message("S"),
    )
    assert not scanner.partial


def test_a_message_as_long_as_is_held_is_delivered_whole() -> None:
    whole = message("B", b"x" * (SMALL_HOLD - 5))
    scanner = small()
    assert walk(scanner, whole[:-1]) == ([], b"")
    assert walk(scanner, whole[-1:]) == ([("B", whole, 0)], whole)


def test_a_huge_message_passes_without_being_collected() -> None:
    scanner = frontend_scanner()
    walk(scanner, head("d", MAX_MESSAGE_LENGTH) + b"x" * 100)
    assert scanner.left == MAX_MESSAGE_LENGTH - 4 - 100
    for _ in range(3):
        assert walk(scanner, b"x" * 1000) == ([], b"x" * 1000)
    assert scanner.left == MAX_MESSAGE_LENGTH - 4 - 3100


def test_a_text_to_be_prepared_is_held_up_to_its_limit() -> None:
    # (100 kB: far beyond what a message that is streamed is held for)
    whole = message("P", b"\0" + b"x" * 100_000 + b"\0\0\0")
    scanner = frontend_scanner()
    assert walk(scanner, whole[:70_000]) == ([], b"")
    assert walk(scanner, whole[70_000:]) == ([("P", whole, 0)], whole)


def test_a_text_beyond_its_limit_is_streamed() -> None:
    scanner = frontend_scanner()
    length = MAX_LARGE_LENGTH + 1000
    first = head("P", length) + b"x" * (MAX_LARGE_LENGTH - 6)
    assert walk(scanner, first) == ([], b"")
    met, relayed = walk(scanner, b"y")
    assert met == [("P", first + b"y", length + 1 - MAX_LARGE_LENGTH)]
    assert len(relayed) == MAX_LARGE_LENGTH


def test_a_long_error_is_streamed() -> None:
    whole = message("E", b"M" + b"x" * 100_000 + b"\0\0")
    met, _ = walk(backend_scanner(), whole[:70_000], whole[70_000:])
    assert met == [("E", whole[:70_000], len(whole) - 70_000)]


# --- memory and state -----------------------------------------------------------------------------------


def test_a_chunk_can_be_forgotten() -> None:
    scanner = frontend_scanner()
    scanner.feed(message("S"))
    assert (scanner.next(), scanner.next()) == (ord("S"), 0)
    scanner.forget()
    assert (scanner.data, scanner.size, scanner.pos) == (b"", 0, 0)


def test_a_message_that_has_begun_survives_forgetting() -> None:
    scanner = frontend_scanner()
    assert walk(scanner, message("S") + b"Q\0") == ([("S", message("S"), 0)], message("S"))
    assert scanner.partial
    assert walk(scanner, message("Q", b"\0")[2:]) == ([("Q", message("Q", b"\0"), 0)], message("Q", b"\0"))


def test_a_chunk_that_completes_nothing_is_told() -> None:
    scanner = frontend_scanner()
    assert scanner.feed(b"Q")
    assert scanner.next() == 0
    assert not scanner.feed(b"\0\0")
    assert not scanner.feed(b"\0")
    assert scanner.feed(b"\5\0")
    assert scanner.next() == ord("Q")


@pytest.mark.parametrize("chunk", [b"", message("S"), message("d", b"whole")])
def test_at_a_boundary_nothing_is_partial(chunk: bytes) -> None:
    scanner = frontend_scanner()
    walk(scanner, chunk)
    assert not scanner.partial


@pytest.mark.parametrize("chunk", [b"S", message("S") + b"Q\0\0\0", message("d", b"whole")[:-1]])
def test_inside_a_message_the_scanner_is_partial(chunk: bytes) -> None:
    scanner = frontend_scanner()
    walk(scanner, chunk)
    assert scanner.partial


# --- violations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 3, MAX_MESSAGE_LENGTH + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("tag", ["Q", "d", "S", "P"])
def test_impossible_lengths_are_violations(tag: str, length: int) -> None:
    with pytest.raises(ProtocolViolation, match=r"^invalid message length$"):
        walk(frontend_scanner(), head(tag, length))


def test_a_small_message_has_a_limit() -> None:
    longest = message("f", b"x" * 9_995 + b"\0")
    assert walk(frontend_scanner(), longest) == ([("f", longest, 0)], longest)
    too_long = message("f", b"x" * 9_996 + b"\0")
    for there in (5, 100, len(too_long)):
        with pytest.raises(ProtocolViolation, match=r"^invalid message length$"):
            walk(frontend_scanner(), too_long[:there])


@pytest.mark.parametrize(
    "stream", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01", b"\0\0\0\x08\x04\xd2"]
)
def test_other_protocols_are_violations(stream: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=rf"^invalid frontend message type {stream[0]}$"):
        walk(frontend_scanner(), stream)


def test_an_unknown_type_is_a_violation_after_what_is_before_it() -> None:
    scanner = frontend_scanner()
    scanner.feed(message("S") + message("p", b"secret\0"))
    assert scanner.next() == ord("S")
    with pytest.raises(ProtocolViolation, match=r"^invalid frontend message type 112$"):
        scanner.next()


def test_the_kinds_know_every_tag() -> None:
    frontend = {tag for tag in range(256) if FRONTEND_KINDS[tag]}
    backend = {tag for tag in range(256) if BACKEND_KINDS[tag]}
    assert frontend == set(FrontendTag) - {FrontendTag.PASSWORD}
    assert backend == set(BackendTag)
