from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.buffer import Reader, Writer, to_bytes, to_text
from protocol.errors import ProtocolViolation

INT16 = st.integers(-(2**15), 2**15 - 1)
UINT16 = st.integers(0, 2**16 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
UINT32 = st.integers(0, 2**32 - 1)
CSTRING = st.binary().filter(lambda data: b"\0" not in data)


@given(INT16, UINT16, INT32, UINT32, CSTRING, st.integers(0, 255), st.none() | st.binary())
def test_what_is_written_is_read(
    a: int, b: int, c: int, d: int, name: bytes, byte: int, value: bytes | None
) -> None:
    body = (
        Writer()
        .int16(a)
        .uint16(b)
        .int32(c)
        .uint32(d)
        .cstring(name)
        .byte(byte)
        .value(value)
        .raw(b"!")
        .finish()
    )
    reader = Reader(body)
    read = (reader.int16(), reader.uint16(), reader.int32(), reader.uint32())
    assert read == (a, b, c, d)
    assert (reader.cstring(), reader.byte(), reader.value(), reader.rest()) == (name, byte, value, b"!")
    reader.end()


@given(st.lists(INT16), st.lists(UINT32), st.lists(st.none() | st.binary()))
def test_counted_lists(shorts: list[int], oids: list[int], values: list[bytes | None]) -> None:
    reader = Reader(Writer().int16s(tuple(shorts)).oids(tuple(oids)).values(tuple(values)).finish())
    assert (reader.int16s(), reader.oids(), reader.values()) == (tuple(shorts), tuple(oids), tuple(values))
    reader.end()


def test_integers_are_big_endian() -> None:
    assert Writer().int16(1).int32(-2).finish() == b"\0\1\xff\xff\xff\xfe"


def test_a_count_may_use_the_sign_bit() -> None:
    values = (None,) * 40000
    assert Reader(Writer().values(values).finish()).values() == values


@given(st.binary())
def test_any_bytes_survive_as_text(data: bytes) -> None:
    assert to_bytes(to_text(data)) == data


@pytest.mark.parametrize(
    ("read", "body", "message"),
    [
        (Reader.byte, b"", "no data left in message"),
        (Reader.int16, b"\0", "insufficient data left in message"),
        (Reader.uint16, b"\0", "insufficient data left in message"),
        (Reader.int32, b"\0\0\0", "insufficient data left in message"),
        (Reader.uint32, b"", "insufficient data left in message"),
        (Reader.cstring, b"unterminated", "invalid string in message"),
        (Reader.text, b"", "invalid string in message"),
        (Reader.value, b"\0\0\0\2x", "insufficient data left in message"),
        (Reader.value, b"\xff\xff\xff\xfexxxx", "insufficient data left in message"),
        (Reader.value, b"\x7f\xff\xff\xff", "insufficient data left in message"),
        (Reader.int16s, b"\0\2\0\1\0", "insufficient data left in message"),
        (Reader.oids, b"\xff\xff", "insufficient data left in message"),
        (Reader.values, b"\0\1", "insufficient data left in message"),
        (Reader.end, b"x", "invalid message format"),
    ],
)
def test_missing_bytes_are_named_in_postgresqls_words(
    read: Callable[[Reader], object], body: bytes, message: str
) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        read(Reader(body))
    assert caught.value.message == message


def test_a_negative_length_never_moves_backwards() -> None:
    reader = Reader(b"abcdef", 4)
    with pytest.raises(ProtocolViolation):
        reader.raw(-2)
    assert reader.rest() == b"ef"


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.byte(256),
        lambda w: w.byte(-1),
        lambda w: w.int16(2**15),
        lambda w: w.uint16(-1),
        lambda w: w.int32(2**31),
        lambda w: w.uint32(2**32),
        lambda w: w.cstring(b"a\0b"),
        lambda w: w.text("a\0b"),
        lambda w: w.text("\ud800"),
        lambda w: w.values((None,) * 65536),
    ],
)
def test_what_does_not_fit_is_not_written(write: Callable[[Writer], object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the type is the promise, the wording is not
        write(Writer())
