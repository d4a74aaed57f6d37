import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ProtocolViolation
from protocol.messages.backend import (
    AuthenticationCleartextPassword,
    AuthenticationMD5Password,
    AuthenticationOk,
    AuthenticationOther,
    AuthenticationSASL,
    AuthenticationSASLContinue,
    AuthenticationSASLFinal,
    BackendKeyData,
    BindComplete,
    CloseComplete,
    CommandComplete,
    CopyBothResponse,
    CopyInResponse,
    CopyOutResponse,
    DataRow,
    EmptyQueryResponse,
    ErrorResponse,
    FieldDescription,
    FunctionCallResponse,
    NegotiateProtocolVersion,
    NoData,
    NoticeResponse,
    NotificationResponse,
    ParameterDescription,
    ParameterStatus,
    ParseComplete,
    PortalSuspended,
    ReadyForQuery,
    RowDescription,
    decode_backend,
)
from protocol.messages.codec import CopyData, CopyDone, Message
from protocol.types import BackendTag, CancelKey, TransactionStatus

NAME = st.binary(max_size=30).map(lambda data: data.replace(b"\0", b""))
TEXT = NAME.map(lambda data: data.decode("utf-8", "surrogateescape"))
INT16 = st.integers(-(2**15), 2**15 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
OID = st.integers(0, 2**32 - 1)
VALUE = st.none() | st.binary(max_size=20)
DATA = st.binary(max_size=20)
FORMATS = st.lists(INT16, max_size=5).map(tuple)
BYTE = st.integers(0, 255)
FIELD = st.builds(FieldDescription, NAME, OID, INT16, OID, INT16, INT32, INT16)
REPORT = st.dictionaries(st.integers(1, 255).map(chr), TEXT, max_size=8)

MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(AuthenticationMD5Password, st.binary(min_size=4, max_size=4)),
    st.builds(AuthenticationSASL, st.lists(TEXT.filter(bool), max_size=3).map(tuple)),
    st.builds(AuthenticationSASLContinue, DATA),
    st.builds(AuthenticationSASLFinal, DATA),
    st.builds(AuthenticationOther, st.sampled_from([2, 6, 7, 8, 9, 4711, -1]), DATA),
    st.builds(BackendKeyData, INT32, st.binary(min_size=4, max_size=256)),
    st.builds(ParameterStatus, TEXT, TEXT),
    st.builds(NegotiateProtocolVersion, st.integers(0, 0xFFFF), st.lists(TEXT, max_size=3).map(tuple)),
    st.builds(ReadyForQuery, st.sampled_from(TransactionStatus)),
    st.builds(ErrorResponse, REPORT),
    st.builds(NoticeResponse, REPORT),
    st.builds(NotificationResponse, INT32, NAME, NAME),
    st.builds(CommandComplete, NAME),
    st.builds(RowDescription, st.lists(FIELD, max_size=3).map(tuple)),
    st.builds(ParameterDescription, st.lists(OID, max_size=5).map(tuple)),
    st.builds(DataRow, st.lists(VALUE, max_size=5).map(tuple)),
    st.builds(FunctionCallResponse, VALUE),
    st.builds(CopyInResponse, BYTE, FORMATS),
    st.builds(CopyOutResponse, BYTE, FORMATS),
    st.builds(CopyBothResponse, BYTE, FORMATS),
    st.builds(CopyData, DATA),
    st.sampled_from(
        [
            AuthenticationCleartextPassword(),
            AuthenticationOk(),
            BindComplete(),
            CloseComplete(),
            CopyDone(),
            EmptyQueryResponse(),
            NoData(),
            ParseComplete(),
            PortalSuspended(),
        ]
    ),
)
TAGS = st.sampled_from(BackendTag) | BYTE


@given(MESSAGES)
def test_messages_survive_the_wire(message: Message) -> None:
    wire = message.encode()
    assert int.from_bytes(wire[1:5]) == len(wire) - 1
    assert decode_backend(wire[0], wire[5:]) == message


@given(TAGS, st.binary(max_size=80))
def test_any_bytes_decode_or_are_a_violation(tag: int, body: bytes) -> None:
    decode_or_refuse(tag, body)


@given(MESSAGES, st.data())
def test_damaged_messages_decode_or_are_a_violation(message: Message, data: st.DataObject) -> None:
    body = bytearray(message.body())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(start + 4, len(body))))
        body[start:end] = data.draw(st.binary(max_size=4))
    decode_or_refuse(message.TAG, bytes(body))


def decode_or_refuse(tag: int, body: bytes) -> None:
    try:
        message = decode_backend(tag, body)
    except ProtocolViolation:
        return
    assert tag == message.TAG
    assert decode_backend(tag, message.body()) == message
    # A field code given twice is the one thing that is not kept as it was.
    if not isinstance(message, ErrorResponse | NoticeResponse):
        assert message.body() == body


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (AuthenticationOk(), b"R\0\0\0\x08\0\0\0\0"),
        (AuthenticationCleartextPassword(), b"R\0\0\0\x08\0\0\0\3"),
        (AuthenticationMD5Password(b"salt"), b"R\0\0\0\x0c\0\0\0\5salt"),
        (AuthenticationSASL(("SCRAM-SHA-256",)), b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"),
        (AuthenticationSASLContinue(b"r="), b"R\0\0\0\x0a\0\0\0\x0br="),
        (AuthenticationSASLFinal(b"v="), b"R\0\0\0\x0a\0\0\0\x0cv="),
        (AuthenticationOther(7), b"R\0\0\0\x08\0\0\0\7"),
        (BackendKeyData(258, b"abcd"), b"K\0\0\0\x0c\0\0\1\2abcd"),
        (ParameterStatus("a", "b"), b"S\0\0\0\x08a\0b\0"),
        (NegotiateProtocolVersion(2, ("_pq_.x",)), b"v\0\0\0\x13\0\3\0\2\0\0\0\1_pq_.x\0"),
        (ReadyForQuery(TransactionStatus.FAILED), b"Z\0\0\0\5E"),
        (ErrorResponse({"S": "ERROR", "C": "42601"}), b"E\0\0\0\x13SERROR\0C42601\0\0"),
        (NoticeResponse({"M": "hi"}), b"N\0\0\0\x09Mhi\0\0"),
        (NotificationResponse(7, b"ch", b"hi"), b"A\0\0\0\x0e\0\0\0\7ch\0hi\0"),
        (CommandComplete(b"SELECT 1"), b"C\0\0\0\x0dSELECT 1\0"),
        (
            RowDescription((FieldDescription(b"a", 16384, 1, 23, 4, -1, 0),)),
            b"T\0\0\0\x1a\0\1a\0\0\0\x40\0\0\1\0\0\0\x17\0\4\xff\xff\xff\xff\0\0",
        ),
        (ParameterDescription((23,)), b"t\0\0\0\x0a\0\1\0\0\0\x17"),
        (DataRow((b"7", None)), b"D\0\0\0\x0f\0\2\0\0\0\x017\xff\xff\xff\xff"),
        (FunctionCallResponse(None), b"V\0\0\0\x08\xff\xff\xff\xff"),
        (CopyInResponse(0, (0,)), b"G\0\0\0\x09\0\0\1\0\0"),
        (CopyOutResponse(1, (1, 1)), b"H\0\0\0\x0b\1\0\2\0\1\0\1"),
        (CopyBothResponse(0), b"W\0\0\0\7\0\0\0"),
        (ParseComplete(), b"1\0\0\0\4"),
        (BindComplete(), b"2\0\0\0\4"),
        (CloseComplete(), b"3\0\0\0\4"),
        (NoData(), b"n\0\0\0\4"),
        (EmptyQueryResponse(), b"I\0\0\0\4"),
        (PortalSuspended(), b"s\0\0\0\4"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else "",
)
def test_bytes_as_in_the_manual(message: Message, wire: bytes) -> None:
    assert message.encode() == wire
    assert decode_backend(wire[0], wire[5:]) == message
    assert type(message).decode(wire[5:]) == message


def test_an_error_as_postgresql_sends_it() -> None:
    body = (
        b"SFEHLER\0VERROR\0C42P01\0MRelation \xc2\xbbt\xc2\xab existiert nicht\0Hhint\0Ddetail\0P15\0"
        b"Fparse_relation.c\0L1392\0RparserOpenTable\0\0"
    )
    error = ErrorResponse.decode(body)
    assert (error.severity, error.sqlstate, error.message) == (
        "ERROR",
        "42P01",
        "Relation »t« existiert nicht",
    )
    assert (error.detail, error.hint, error.fields["P"]) == ("detail", "hint", "15")
    assert error.body() == body


def test_an_error_of_an_old_server_has_only_a_translated_severity() -> None:
    assert ErrorResponse.decode(b"SFATAL\0\0").severity == "FATAL"


def test_an_error_takes_any_field_bytes() -> None:
    body = b"M\xff\xfe latin\xfc\0\xe9what\0\1\0\0"
    error = ErrorResponse.decode(body)
    assert error.fields == {"M": "\udcff\udcfe latin\udcfc", "é": "what", "\1": ""}
    assert error.body() == body


def test_an_error_may_have_no_fields() -> None:
    error = ErrorResponse.decode(b"\0")
    assert (error.severity, error.sqlstate, error.message, error.detail, error.hint) == (
        "",
        "",
        "",
        None,
        None,
    )


def test_an_error_of_our_own() -> None:
    error = ErrorResponse.of("FATAL", "53300", "pool is full", detail="20 of 20", hint="wait")
    assert error.body() == b"SFATAL\0VFATAL\0C53300\0Mpool is full\0D20 of 20\0Hwait\0\0"
    assert ErrorResponse.of("ERROR", "XX000", "oops").fields == {
        "S": "ERROR",
        "V": "ERROR",
        "C": "XX000",
        "M": "oops",
    }
    assert isinstance(NoticeResponse.of("NOTICE", "00000", "hi"), NoticeResponse)


def test_a_zero_byte_in_a_text_of_our_own_does_not_end_the_message() -> None:
    error = ErrorResponse.of("ERROR", "08P01", "bad\0Cname")
    assert ErrorResponse.decode(error.body()).message == "bad Cname"


def test_a_cancel_key_is_not_shown() -> None:
    message = BackendKeyData(1, b"hush")
    assert "hush" not in repr(message)
    assert message.key == CancelKey(1, b"hush")


@pytest.mark.parametrize(
    ("tag", "body"),
    [
        (b"R", b"\0\0\0\0x"),
        (b"R", b"\0\0\0\5abc"),
        (b"R", b"\0\0\0\x0aSCRAM-SHA-256\0"),
        (b"R", b"\0\0"),
        (b"K", b"\0\0\0\1abc"),
        (b"K", b"\0\0\0\1" + b"k" * 257),
        (b"Z", b"X"),
        (b"Z", b""),
        (b"Z", b"IT"),
        (b"E", b"Mhi\0"),
        (b"E", b"M"),
        (b"E", b"\0\0"),
        (b"v", b"\0\2\0\0\0\0\0\0"),
        (b"v", b"\0\3\0\0\xff\xff\xff\xff"),
        (b"v", b"\0\3\0\0\x7f\xff\xff\xff"),
        (b"T", b"\0\1a\0"),
        (b"D", b"\0\1\0\0\0\2x"),
        (b"C", b"SELECT"),
        (b"1", b"x"),
        (b"Q", b"select 1\0"),
        (b"\0", b""),
    ],
)
def test_malformed_messages(tag: bytes, body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        decode_backend(tag[0], body)


def test_an_authentication_message_is_not_mistaken_for_another() -> None:
    with pytest.raises(ProtocolViolation, match=r"^invalid message format$"):
        AuthenticationOk.decode(AuthenticationCleartextPassword().body())
