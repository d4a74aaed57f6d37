from hypothesis import given
from hypothesis import strategies as st

from protocol.debug import backend_text, frontend_text
from protocol.messages.backend import (
    AuthenticationOk,
    BackendKeyData,
    CommandComplete,
    DataRow,
    NoticeResponse,
    ParameterStatus,
    ReadyForQuery,
)
from protocol.messages.frontend import PasswordMessage, Query, SASLInitialResponse, SASLResponse, Sync
from protocol.messages.startup import CancelRequest, SSLRequest, StartupMessage
from protocol.types import CancelKey, TransactionStatus


def test_a_session_from_the_clients_side() -> None:
    stream = (
        SSLRequest().encode()
        + StartupMessage(3, 0, {"user": "ann"}).encode()
        + PasswordMessage(b"hush").encode()
        + Query(b"select 1").encode()
        + Sync().encode()
    )
    assert frontend_text(stream).splitlines() == [
        "SSLRequest()",
        "StartupMessage(major=3, minor=0, parameters={'user': 'ann'})",
        "AuthenticationResponse()",
        "Query(sql=b'select 1')",
        "Sync()",
    ]


def test_a_session_from_the_servers_side() -> None:
    stream = (
        b"N"
        + AuthenticationOk().encode()
        + ParameterStatus("TimeZone", "UTC").encode()
        + BackendKeyData(7, b"hush").encode()
        + ReadyForQuery(TransactionStatus.IDLE).encode()
    )
    assert backend_text(stream).splitlines() == [
        "answer 'N' to an encryption request",
        "AuthenticationOk()",
        "ParameterStatus(name='TimeZone', value='UTC')",
        "BackendKeyData(pid=7, secret=<4 bytes>)",
        "ReadyForQuery(status=<TransactionStatus.IDLE: 73>)",
    ]


def test_an_answer_to_an_encryption_request_is_told_from_the_tag_it_looks_like() -> None:
    notice = NoticeResponse({"M": "hi"})
    assert backend_text(b"S") == "answer 'S' to an encryption request"
    assert backend_text(notice.encode()) == repr(notice)
    assert backend_text(b"G" + b"N" + notice.encode()).splitlines() == [
        "answer 'G' to an encryption request",
        "answer 'N' to an encryption request",
        repr(notice),
    ]


def test_nothing_is_no_line() -> None:
    assert (frontend_text(b""), backend_text(b"")) == ("", "")


def test_secrets_are_left_out_however_broken_their_message_is() -> None:
    messages = [
        PasswordMessage(b"hush").encode(),
        SASLInitialResponse("SCRAM-SHA-256", b"hush").encode(),
        SASLResponse(b"hush").encode(),
        CancelRequest(CancelKey(1, b"hush")).encode(),
    ]
    for wire in messages:
        for end in range(len(wire) + 1):
            assert "hush" not in frontend_text(wire[:end])
            assert "hush" not in frontend_text(wire[:end] + b"junk")
    assert "hus" not in backend_text(b"K\0\0\0\x0b\0\0\0\1hus")


def test_what_is_unfinished_says_what_is_missing() -> None:
    wire = CommandComplete(b"SELECT 1").encode()
    assert backend_text(wire[:3]) == "… COMMAND_COMPLETE: 3 bytes of ?"
    assert backend_text(wire[:9]) == "… COMMAND_COMPLETE: 9 bytes of 14"
    assert frontend_text(b"\0\0") == "… start-up packet: 2 bytes of ?"
    assert frontend_text(SSLRequest().encode()[:5]) == "… start-up packet: 5 bytes of 8"


def test_what_is_malformed_says_why() -> None:
    assert backend_text(b"Z\0\0\0\5X1\0\0\0\4").splitlines() == [
        "?? READY_FOR_QUERY with 1 bytes: invalid message format",
        "ParseComplete()",
    ]
    assert frontend_text(b"y\0\0\0\4") == "?? tag 0x79 with 0 bytes: invalid frontend message type 121"
    assert frontend_text(b"Q\0\0\0\3rest") == "?? QUERY: impossible length 3; 9 bytes left unread"
    assert frontend_text(b"\0\0\0\1") == "?? start-up packet: invalid length of startup packet"


def test_long_messages_stay_on_a_short_line() -> None:
    line = backend_text(DataRow((b"x" * 10_000,)).encode())
    assert len(line) < 300
    assert line.endswith("characters)")


def test_a_message_stays_one_line_whatever_it_says() -> None:
    assert frontend_text(Query(b"select\n1\r\n").encode()).splitlines() == [r"Query(sql=b'select\n1\r\n')"]
    assert len(backend_text(ParameterStatus("a\nb", "c\u2028d").encode()).splitlines()) == 1


BYTES = st.binary(max_size=100) | st.lists(
    st.binary(max_size=12)
    | st.sampled_from([b"\0\0\0\4", b"\0\0\0\x0a", b"\0\0\0\x09\0\3\0\0", b"Z", b"E", b"S", b"N", b"p", b"D"])
).map(b"".join)


@given(BYTES)
def test_any_bytes_can_be_shown(stream: bytes) -> None:
    for text in (frontend_text(stream), backend_text(stream)):
        assert bool(text) == bool(stream)
