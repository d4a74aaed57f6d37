import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.errors import ProtocolViolation, UnsupportedProtocolVersion
from protocol.messages.backend import NegotiateProtocolVersion
from protocol.messages.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    StartupPacket,
    decode_startup,
    negotiation,
    startup_length,
)
from protocol.types import CancelKey

TERMINATOR = "^invalid startup packet layout: expected terminator as last byte$"
LENGTH = "^invalid length of startup packet$"


def packet(code: bytes, body: bytes = b"") -> bytes:
    return (8 + len(body)).to_bytes(4) + code + body


def wire_text(min_size: int = 0) -> st.SearchStrategy[str]:
    """Whatever text zero-terminated bytes can hold, what is not UTF-8 included."""
    return st.binary(min_size=min_size, max_size=30).map(
        lambda data: data.replace(b"\0", b"?").decode("utf-8", "surrogateescape")
    )


PARAMETERS = st.dictionaries(wire_text(min_size=1), wire_text(), max_size=10)
PACKETS: st.SearchStrategy[StartupPacket] = st.one_of(
    st.builds(StartupMessage, st.just(3), st.integers(0, 0xFFFF), PARAMETERS),
    st.just(SSLRequest()),
    st.just(GSSENCRequest()),
    st.builds(
        CancelRequest,
        st.builds(CancelKey, st.integers(-(2**31), 2**31 - 1), st.binary(min_size=1, max_size=256)),
    ),
)


@given(PACKETS)
def test_packets_survive_the_wire(message: StartupPacket) -> None:
    wire = message.encode()
    assert startup_length(wire[:4]) == len(wire)
    assert decode_startup(wire) == message


@given(
    st.binary(max_size=60), st.sampled_from([b"\0\3\0\0", b"\0\3\0\2", b"\x04\xd2\x16\x2e", b"\0\2\0\0", b""])
)
@example(b"", b"")
def test_any_bytes_decode_or_are_a_violation(body: bytes, code: bytes) -> None:
    for wire in (packet(code, body), code + body):
        try:
            message = decode_startup(wire)
        except ProtocolViolation:
            continue
        if not isinstance(message, StartupMessage) or message.major == 3:
            assert decode_startup(message.encode()) == message


def test_a_start_up_message_as_libpq_sends_it() -> None:
    wire = b"\0\0\0\x2f\0\3\0\0user\0ann\0database\0shop\0options\0-c x=1\0\0"
    message = decode_startup(wire)
    assert message == StartupMessage(3, 0, {"user": "ann", "database": "shop", "options": "-c x=1"})
    assert message.encode() == wire
    assert isinstance(message, StartupMessage)
    assert (message.user, message.database, message.options) == ("ann", "shop", ())


def test_the_database_defaults_to_the_user() -> None:
    assert StartupMessage(3, 0, {"user": "ann"}).database == "ann"
    assert StartupMessage(3, 0, {"user": "ann", "database": ""}).database == "ann"


@pytest.mark.parametrize("parameters", [{}, {"user": ""}])
def test_a_user_may_be_missing(parameters: dict[str, str]) -> None:
    message = StartupMessage(3, 0, parameters)
    assert message.user is None
    assert message.database is None


def test_of_a_parameter_given_twice_the_last_counts() -> None:
    message = decode_startup(packet(b"\0\3\0\0", b"user\0a\0user\0b\0\0"))
    assert message == StartupMessage(3, 0, {"user": "b"})


def test_bytes_that_are_no_utf8_come_back_as_they_were() -> None:
    wire = packet(b"\0\3\0\0", b"user\0m\xfcller\0\0")
    message = decode_startup(wire)
    assert isinstance(message, StartupMessage)
    assert message.encode() == wire


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"a",
        b"user\0ann\0",
        b"user\0ann",
        b"user\0",
        b"user\0\0",
        b"user\0ann\0\0\0",
        b"user\0ann\0\0more",
        b"user\0ann\0database\0\0",
    ],
)
def test_a_terminator_must_end_the_parameters(body: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=TERMINATOR):
        decode_startup(packet(b"\0\3\0\0", body))


@pytest.mark.parametrize(
    ("major", "minor"), [(2, 0), (4, 0), (4, 7), (1, 0), (0, 0), (1234, 1), (1234, 5681)]
)
def test_other_major_versions_are_left_to_the_caller(major: int, minor: int) -> None:
    message = decode_startup(packet(major.to_bytes(2) + minor.to_bytes(2), b"unknown layout"))
    assert message == StartupMessage(major, minor, {})


@pytest.mark.parametrize(
    ("prefix", "length"), [(b"", None), (b"\0\0\0", None), (b"\0\0\0\x08", 8), (b"\0\0\x27\x14", 10004)]
)
def test_the_length_of_a_packet(prefix: bytes, length: int | None) -> None:
    assert startup_length(prefix) == length


def test_what_follows_the_length_does_not_matter_to_it() -> None:
    assert startup_length(b"\0\0\0\x08whatever") == 8


@pytest.mark.parametrize(
    "prefix", [b"\0\0\0\0", b"\0\0\0\7", b"\0\0\x27\x15", b"\xff\xff\xff\xff", b"GET ", b"\x16\3\1\2"]
)
def test_impossible_lengths(prefix: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=LENGTH):
        startup_length(prefix)


@pytest.mark.parametrize(
    "wire", [b"", b"\0\0\0", b"\0\0\0\x09\0\3\0\0", b"\0\0\0\x08\0\3\0\0\0", b"\0\0\0\x07\0\3\0"]
)
def test_a_packet_is_whole_and_alone(wire: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=LENGTH):
        decode_startup(wire)


def test_encryption_requests() -> None:
    assert SSLRequest().encode() == b"\0\0\0\x08\x04\xd2\x16\x2f"
    assert GSSENCRequest().encode() == b"\0\0\0\x08\x04\xd2\x16\x30"


def test_postgresql_does_not_look_behind_an_encryption_request() -> None:
    assert decode_startup(packet(b"\x04\xd2\x16\x2f", b"x")) == SSLRequest()
    assert decode_startup(packet(b"\x04\xd2\x16\x30", b"x")) == GSSENCRequest()


def test_a_cancel_request_of_protocol_3_0() -> None:
    request = CancelRequest(CancelKey(258, b"\1\2\3\4"))
    assert request.encode() == b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\1\2\1\2\3\4"
    assert "\\x01" not in repr(request)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "^invalid length of cancel request packet$"),
        (b"\0\0\0", "^invalid length of cancel request packet$"),
        (b"\0\0\0\1", "^invalid length of cancel key in cancel request packet$"),
        (b"\0\0\0\1" + b"k" * 257, "^invalid length of cancel key in cancel request packet$"),
    ],
)
def test_a_cancel_key_has_1_to_256_bytes(body: bytes, message: str) -> None:
    with pytest.raises(ProtocolViolation, match=message):
        decode_startup(packet(b"\x04\xd2\x16\x2e", body))


@pytest.mark.parametrize(
    ("minor", "parameters", "answer"),
    [
        (0, {"user": "a"}, None),
        (2, {"user": "a"}, None),
        (1, {"_pq": "not an option"}, None),
        (3, {"user": "a"}, NegotiateProtocolVersion(2)),
        (9999, {"_pq_.grease": "1"}, NegotiateProtocolVersion(2, ("_pq_.grease",))),
        (0, {"_pq_.b": "", "user": "a", "_pq_.a": ""}, NegotiateProtocolVersion(0, ("_pq_.b", "_pq_.a"))),
    ],
)
def test_negotiation(minor: int, parameters: dict[str, str], answer: NegotiateProtocolVersion | None) -> None:
    assert negotiation(StartupMessage(3, minor, parameters), newest_minor=2) == answer


@pytest.mark.parametrize(("major", "minor"), [(2, 0), (4, 1)])
def test_there_is_no_negotiating_a_major_version(major: int, minor: int) -> None:
    with pytest.raises(UnsupportedProtocolVersion) as caught:
        negotiation(StartupMessage(major, minor), newest_minor=2)
    assert (
        caught.value.message == f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"
    )
