import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ProtocolViolation
from protocol.messages.codec import CopyData, CopyDone, Message
from protocol.messages.frontend import (
    AuthenticationResponse,
    Bind,
    Close,
    CopyFail,
    Describe,
    Execute,
    Flush,
    FunctionCall,
    Parse,
    PasswordMessage,
    Query,
    SASLInitialResponse,
    SASLResponse,
    Sync,
    Terminate,
    decode_frontend,
)
from protocol.types import FrontendTag, Target

NAME = st.binary(max_size=30).map(lambda data: data.replace(b"\0", b""))
OID = st.integers(0, 2**32 - 1)
INT16 = st.integers(-(2**15), 2**15 - 1)
VALUES = st.lists(st.none() | st.binary(max_size=20), max_size=5).map(tuple)
FORMATS = st.lists(INT16, max_size=5).map(tuple)
TARGET = st.sampled_from(Target)

MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Query, NAME),
    st.builds(Parse, NAME, NAME, st.lists(OID, max_size=5).map(tuple)),
    st.builds(Bind, NAME, NAME, FORMATS, VALUES, FORMATS),
    st.builds(Describe, TARGET, NAME),
    st.builds(Close, TARGET, NAME),
    st.builds(Execute, NAME, st.integers(-(2**31), 2**31 - 1)),
    st.builds(CopyData, st.binary(max_size=20)),
    st.builds(CopyFail, NAME),
    st.builds(FunctionCall, OID, FORMATS, VALUES, INT16),
    st.builds(AuthenticationResponse, st.binary(max_size=20)),
    st.sampled_from([Sync(), Flush(), Terminate(), CopyDone()]),
)
TAGS = st.sampled_from(FrontendTag) | st.integers(0, 255)


@given(MESSAGES)
def test_messages_survive_the_wire(message: Message) -> None:
    wire = message.encode()
    assert int.from_bytes(wire[1:5]) == len(wire) - 1
    assert decode_frontend(wire[0], wire[5:]) == message


@given(TAGS, st.binary(max_size=80))
def test_any_bytes_decode_or_are_a_violation(tag: int, body: bytes) -> None:
    decode_or_refuse(tag, body)


def decode_or_refuse(tag: int, body: bytes) -> None:
    try:
        message = decode_frontend(tag, body)
    except ProtocolViolation:
        return
    assert (message.TAG, message.body()) == (tag, body)


@given(MESSAGES, st.data())
def test_damaged_messages_decode_or_are_a_violation(message: Message, data: st.DataObject) -> None:
    body = bytearray(message.body())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(start + 4, len(body))))
        body[start:end] = data.draw(st.binary(max_size=4))
    decode_or_refuse(message.TAG, bytes(body))


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (Query(b"select 1"), b"Q\0\0\0\x0dselect 1\0"),
        (Parse(b"s", b"select $1", (23,)), b"P\0\0\0\x16s\0select $1\0\0\1\0\0\0\x17"),
        (
            Bind(b"", b"s", (1,), (b"\0\0\0\7", None), (0, 1)),
            b"B\0\0\0\x1f\0s\0\0\1\0\1\0\2\0\0\0\4\0\0\0\7\xff\xff\xff\xff\0\2\0\0\0\1",
        ),
        (Describe(Target.STATEMENT, b"s"), b"D\0\0\0\7Ss\0"),
        (Close(Target.PORTAL, b""), b"C\0\0\0\6P\0"),
        (Execute(), b"E\0\0\0\x09\0\0\0\0\0"),
        (Sync(), b"S\0\0\0\4"),
        (Flush(), b"H\0\0\0\4"),
        (Terminate(), b"X\0\0\0\4"),
        (CopyFail(b"no"), b"f\0\0\0\7no\0"),
        (
            FunctionCall(870, (0,), (b"ABC",), 1),
            b"F\0\0\0\x17\0\0\3\x66\0\1\0\0\0\1\0\0\0\3ABC\0\1",
        ),
        (PasswordMessage(b"pw"), b"p\0\0\0\7pw\0"),
        (SASLInitialResponse("SCRAM-SHA-256", b"n,,"), b"p\0\0\0\x19SCRAM-SHA-256\0\0\0\0\3n,,"),
        (SASLInitialResponse("X", None), b"p\0\0\0\x0aX\0\xff\xff\xff\xff"),
        (SASLResponse(b"c=biws"), b"p\0\0\0\x0ac=biws"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else "",
)
def test_bytes_as_in_the_manual(message: Message, wire: bytes) -> None:
    assert message.encode() == wire
    assert type(message).decode(wire[5:]) == message


def test_what_tag_p_means_only_the_exchange_knows() -> None:
    answer = decode_frontend(ord("p"), PasswordMessage(b"pw").body())
    assert isinstance(answer, AuthenticationResponse)
    assert PasswordMessage.decode(answer.data) == PasswordMessage(b"pw")


@pytest.mark.parametrize(
    "message",
    [
        AuthenticationResponse(b"hush"),
        PasswordMessage(b"hush"),
        SASLInitialResponse("PLAIN", b"hush"),
        SASLResponse(b"hush"),
    ],
)
def test_secrets_are_not_shown(message: Message) -> None:
    assert "hush" not in repr(message)


@pytest.mark.parametrize("body", [b"", b"pw", b"pw\0x", b"pw\0\0", b"\0pw"])
def test_a_password_ends_where_its_packet_ends(body: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=r"^invalid password packet size$"):
        PasswordMessage.decode(body)


@pytest.mark.parametrize(
    ("tag", "body", "message"),
    [
        (b"y", b"", "invalid frontend message type 121"),
        (b"D", b"Xs\0", "invalid DESCRIBE message subtype 88"),
        (b"C", b"\0s\0", "invalid CLOSE message subtype 0"),
        (b"D", b"", "no data left in message"),
        (b"Q", b"select 1", "invalid string in message"),
        (b"Q", b"select 1\0\0", "invalid message format"),
        (b"S", b"\0", "invalid message format"),
        (b"P", b"s\0select 1\0\0\1", "insufficient data left in message"),
        (b"B", b"\0\0\0\0\0\1\0\0\0\5abc", "insufficient data left in message"),
        (b"B", b"\0\0\0\0\0\1\xff\xff\xff\xfe\0\0", "insufficient data left in message"),
    ],
)
def test_violations_are_named_in_postgresqls_words(tag: bytes, body: bytes, message: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        decode_frontend(tag[0], body)
    assert caught.value.message == message
