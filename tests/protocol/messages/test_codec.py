import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ProtocolViolation
from protocol.messages.codec import CopyData, CopyDone, encode_message


@given(st.integers(0, 255), st.binary())
def test_the_length_counts_itself_and_the_body(tag: int, body: bytes) -> None:
    message = encode_message(tag, body)
    assert message[0] == tag
    assert int.from_bytes(message[1:5]) == len(message) - 1
    assert message[5:] == body


@pytest.mark.parametrize("tag", [-1, 256])
def test_a_tag_is_a_byte(tag: int) -> None:
    with pytest.raises(ValueError, match="cannot be encoded"):
        encode_message(tag, b"")


@given(st.binary())
def test_copy_data_is_its_body(data: bytes) -> None:
    message = CopyData(data)
    assert message.encode() == encode_message(ord("d"), data)
    assert CopyData.decode(data) == message


def test_copy_done_has_no_body() -> None:
    assert CopyDone().encode() == b"c\0\0\0\4"
    assert CopyDone.decode(b"") == CopyDone()
    with pytest.raises(ProtocolViolation, match=r"^invalid message format$"):
        CopyDone.decode(b"x")
