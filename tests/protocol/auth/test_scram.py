import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.auth.scram import (
    MAX_ITERATIONS,
    ScramClient,
    ScramKeys,
    ScramServer,
    ScramVerifier,
    saslprep,
)
from protocol.errors import AuthenticationFailed, ProtocolError, ProtocolViolation, UnsupportedFeature

# RFC 7677, section 3.
RFC_CLIENT_NONCE = b"rOprNGfwEbeRWgbNEkqO"
RFC_SERVER_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
RFC_SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
RFC_CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
RFC_SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
RFC_CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
RFC_SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

# As PostgreSQL 15 wrote them into pg_authid: for a plain password, one to normalise (no-break space, Roman
# numeral, soft hyphen), one with forbidden characters, one with a digit after Arabic, and a lone ordinal.
PG_AUTHID = [
    (
        "pencil",
        (
            "SCRAM-SHA-256$4096:tQrwoBo7czriiGXT2f472Q==$0iznNrRUpxjT4wFQvlGgPSbKk2bi4B8zkNZI4B84jFA="
            ":bq9+xyAfh0WuByYcIu9uvpxEUERPYWmbezFquiCGkUw="
        ),
    ),
    (
        "grüße \u00a0 \u2168\u00ad",
        (
            "SCRAM-SHA-256$4096:P6dq1JUqTy4qLvaE2tKnrQ==$V2roo4nLGelQ3hXkjLx2NUD8q1Jb4AV1qFglv8beebM="
            ":G2R7Roy0IEWYwfM3BionCaXAYKxNtRBmJMeMHag8n/0="
        ),
    ),
    (
        "a\u0007\u0221b",
        (
            "SCRAM-SHA-256$4096:924CzLrHoNZ2nnJzGr38uA==$070O7a/p4M8hpBGuzkA/Tgwru2UEWvgToeYyEdm5Ess="
            ":pFZbs5zFY1lwfxzF8A16Bkwo0HyFfPO2MylvqjKct6I="
        ),
    ),
    (
        "\u06271",
        (
            "SCRAM-SHA-256$4096:VIfuUTdoXlpmB55Tm8fiZA==$LNJD5LJY/aBDAHXOwBvzzo4DQ5kuROuc+mof99+a0J8="
            ":Ka3RgVXcSGm9jOi2GCYiUJXdaG1/rRDY54y/erI0Q/8="
        ),
    ),
    (
        "\u00aa",
        (
            "SCRAM-SHA-256$4096:AmdQQPnVfWVoCea0HRF1pw==$U3MpLVaRqr3l5FqDeKt3BL6f+VGErzzAPDAqIPWYqZw="
            ":VY6KZy7lv9wazy6sEHOop6JjuU6RU5Tw/E3WGw0fLEs="
        ),
    ),
]

# Few iterations: what is tested besides the vectors does not depend on them.
VERIFIER = ScramVerifier.from_password("pencil", iterations=2)
PROOF = b",p=" + base64.b64encode(b"x" * 32)


# What a start-up packet can hold: anything but a zero byte.
USER = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)


def exchange(server: ScramServer, client: ScramClient) -> None:
    final = client.step(server.step(client.first()))
    assert final is not None
    assert not server.finished
    assert client.step(server.step(final)) is None


def server_after_first() -> tuple[ScramServer, bytes]:
    """A server that waits for the final message, and the nonce it is to carry."""
    server = ScramServer(VERIFIER)
    return server, server.step(b"n,,n=,r=abc").split(b",")[0].removeprefix(b"r=")


# --- the vector -----------------------------------------------------------------------------------


def test_the_rfcs_example_from_the_clients_side() -> None:
    client = ScramClient("pencil", user="user", nonce=RFC_CLIENT_NONCE)
    assert client.first() == RFC_CLIENT_FIRST
    assert client.step(RFC_SERVER_FIRST) == RFC_CLIENT_FINAL
    assert not client.finished
    assert client.step(RFC_SERVER_FINAL) is None
    assert client.finished


def test_the_rfcs_example_from_the_servers_side() -> None:
    server = ScramServer(ScramVerifier.from_password("pencil", salt=RFC_SALT), nonce=RFC_SERVER_NONCE)
    assert server.step(RFC_CLIENT_FIRST) == RFC_SERVER_FIRST
    assert not server.finished
    assert server.step(RFC_CLIENT_FINAL) == RFC_SERVER_FINAL
    assert server.finished


# --- verifiers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("password", "text"), PG_AUTHID, ids=[ascii(password) for password, _ in PG_AUTHID])
def test_verifiers_of_postgresql(password: str, text: str) -> None:
    verifier = ScramVerifier.parse(text)
    assert str(verifier) == text
    assert (
        ScramVerifier.from_password(password, salt=verifier.salt, iterations=verifier.iterations) == verifier
    )
    assert verifier.verify(password)
    assert not verifier.verify(password + "x")
    exchange(ScramServer(verifier), ScramClient(password))


def test_a_verifier_does_not_show_itself() -> None:
    shown = repr(VERIFIER) + repr(ScramKeys(b"hush", b"hush"))
    assert shown == "ScramVerifier(iterations=2)ScramKeys()"


def test_salts_are_random() -> None:
    assert (
        ScramVerifier.from_password("a", iterations=1).salt
        != ScramVerifier.from_password("a", iterations=1).salt
    )


KEY = base64.b64encode(b"k" * 32).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pencil",
        "md50098e7fab7b4d8d091067152a80b3f12",
        f"SCRAM-SHA-1$4096:c2FsdA==${KEY}:{KEY}",
        f"SCRAM-SHA-256$0:c2FsdA==${KEY}:{KEY}",
        f"SCRAM-SHA-256$-1:c2FsdA==${KEY}:{KEY}",
        f"SCRAM-SHA-256$٣:c2FsdA==${KEY}:{KEY}",
        f"SCRAM-SHA-256$4096:c2FsdA=${KEY}:{KEY}",
        f"SCRAM-SHA-256$4096:c2F sdA==${KEY}:{KEY}",
        f"SCRAM-SHA-256$4096:c2FsdA==${KEY}",
        f"SCRAM-SHA-256$4096:c2FsdA==$a2V5:{KEY}",
        f"SCRAM-SHA-256$4096:c2FsdA==${KEY}:a2V5",
        f"SCRAM-SHA-256$4096:c2FsdA==${KEY}:{KEY}:",
        f"SCRAM-SHA-256$4096:c2FsdA==${KEY}:{KEY}\n",
        f"SCRAM-SHA-256$4096:c2FsdA==${KEY}:é{KEY}",
    ],
)
def test_what_is_no_verifier(text: str) -> None:
    with pytest.raises(ValueError, match="not a SCRAM-SHA-256 verifier") as caught:
        ScramVerifier.parse(text)
    assert KEY not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_parses_or_is_a_value_error(text: str) -> None:
    for candidate in (text, f"SCRAM-SHA-256$1:{text}${KEY}:{KEY}"):
        try:
            verifier = ScramVerifier.parse(candidate)
        except ValueError:
            continue
        assert ScramVerifier.parse(str(verifier)) == verifier


# --- users who do not exist -----------------------------------------------------------------------


def test_a_mock_verifier_stays_the_same_for_a_user() -> None:
    assert ScramVerifier.mock("ann", b"secret") == ScramVerifier.mock("ann", b"secret")


def test_mock_verifiers_differ_by_user_and_by_secret() -> None:
    salts = {ScramVerifier.mock(*given).salt for given in [("ann", b"a"), ("ann", b"b"), ("bob", b"a")]}
    assert len(salts) == 3


def test_a_client_cannot_tell_a_mock_exchange_from_a_wrong_password() -> None:
    real = ScramServer(ScramVerifier.from_password("pencil"))
    mock = ScramServer(ScramVerifier.mock("nobody", b"secret"), mock="no such user")
    outcomes = []
    for server in (real, mock):
        client = ScramClient("guess")
        server_first = server.step(client.first())
        final = client.step(server_first)
        assert final is not None
        with pytest.raises(AuthenticationFailed) as caught:
            server.step(final)
        fields = [part.partition(b"=")[0::2] for part in server_first.split(b",")]
        shape = [(name, value if name == b"i" else len(value)) for name, value in fields]
        outcomes.append((shape, caught.value.message, caught.value.detail, server.finished))
        reason = caught.value.reason
    assert outcomes[0] == outcomes[1]
    assert reason == "no such user"


def test_not_even_the_right_proof_gets_through_a_mock_exchange() -> None:
    with pytest.raises(AuthenticationFailed):
        exchange(ScramServer(VERIFIER, mock="log-in not permitted"), ScramClient("pencil"))


# --- both sides together --------------------------------------------------------------------------


@given(st.text(max_size=10), USER, st.binary(max_size=20), st.integers(1, 5))
def test_the_password_opens(password: str, user: str, salt: bytes, iterations: int) -> None:
    verifier = ScramVerifier.from_password(password, salt=salt, iterations=iterations)
    server = ScramServer(verifier)
    client = ScramClient(password, user=user)
    exchange(server, client)
    assert server.finished
    assert client.finished


def test_a_wrong_password_does_not() -> None:
    server = ScramServer(VERIFIER)
    with pytest.raises(AuthenticationFailed) as caught:
        exchange(server, ScramClient("Pencil"))
    assert (caught.value.sqlstate, caught.value.reason) == ("28P01", "wrong password")
    assert not server.finished
    with pytest.raises(RuntimeError, match="has not authenticated"):
        _ = server.client_key


def test_a_log_in_yields_the_keys_for_the_next() -> None:
    server = ScramServer(VERIFIER)
    exchange(server, ScramClient("pencil"))
    assert server.client_key == server.keys.client_key
    upstream = ScramServer(VERIFIER)
    exchange(upstream, ScramClient(keys=server.keys))
    assert upstream.finished


def test_keys_of_another_verifier_do_not() -> None:
    server = ScramServer(VERIFIER)
    exchange(server, ScramClient("pencil"))
    other = ScramVerifier.from_password("pencil", iterations=2)
    with pytest.raises(AuthenticationFailed):
        exchange(ScramServer(other), ScramClient(keys=server.keys))


def test_an_exchange_cannot_be_repeated() -> None:
    server, client = ScramServer(VERIFIER), ScramClient("pencil")
    exchange(server, client)
    with pytest.raises(ProtocolViolation, match="the exchange is over"):
        server.step(b"n,,n=,r=abc")
    with pytest.raises(ProtocolViolation, match="the exchange is over"):
        client.step(b"v=")
    assert not server.finished
    assert not client.finished


def test_after_a_failure_there_is_no_second_guess() -> None:
    server, nonce = server_after_first()
    with pytest.raises(AuthenticationFailed):
        server.step(b"c=biws,r=" + nonce + PROOF)
    with pytest.raises(ProtocolViolation):
        server.step(b"c=biws,r=" + nonce + PROOF)


# --- the server's strictness ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        (b"", "The message is empty."),
        (b"n,,n=,r=a\0", "Message length does not match input length."),
        (b"n", 'Comma expected, but found character "0x00".'),
        (b"n ,n=,r=a", 'Comma expected, but found character "0x20".'),
        (b"n,,", 'Expected attribute "n" but found "0x00".'),
        (b"x,,n=,r=a", "Unexpected channel-binding flag \"'x'\"."),
        (b"\xff,,n=,r=a", 'Unexpected channel-binding flag "0xff".'),
        (b"n,b=,n=,r=a", "Unexpected attribute \"'b'\" in client-first-message."),
        (b"n,,r=a", 'Expected attribute "n" but found "\'r\'".'),
        (b"n,,n,r=a", 'Expected character "=" for attribute "n".'),
        (b"n,,n=,r=a,1=2", "Attribute expected, but found invalid character \"'1'\"."),
        (b"n,,n=,r=a,x", 'Expected character "=" for attribute "x".'),
        (
            b"p=tls-server-end-point,,n=,r=a",
            (
                "The client selected SCRAM-SHA-256 without channel binding, "
                "but the SCRAM message includes channel binding data."
            ),
        ),
    ],
)
def test_malformed_first_messages(message: bytes, detail: str) -> None:
    with pytest.raises(ProtocolViolation, match=r"^malformed SCRAM message$") as caught:
        ScramServer(VERIFIER).step(message)
    assert caught.value.detail == detail


@pytest.mark.parametrize(
    ("message", "wording"),
    [
        (b"n,a=ann,n=,r=a", "client uses authorization identity, but it is not supported"),
        (b"n,,m=x,n=,r=a", "client requires an unsupported SCRAM extension"),
    ],
)
def test_optional_parts_postgresql_lacks(message: bytes, wording: str) -> None:
    with pytest.raises(UnsupportedFeature) as caught:
        ScramServer(VERIFIER).step(message)
    assert (caught.value.sqlstate, caught.value.message) == ("0A000", wording)


def test_a_nonce_is_printable() -> None:
    with pytest.raises(ProtocolViolation, match=r"^non-printable characters in SCRAM nonce$"):
        ScramServer(VERIFIER).step(b"n,,n=,r=a\x01")


@pytest.mark.parametrize(
    "message", [b"n,,n=,r=abc", b"y,,n=,r=abc", b"n,,n=bob=2C,r=abc", b"n,,n=,r=abc,x=1", b"n,,n=,r=abc,"]
)
def test_first_messages_postgresql_accepts(message: bytes) -> None:
    answer = ScramServer(VERIFIER, nonce=b"def").step(message)
    assert answer == b"r=abcdef,s=" + base64.b64encode(VERIFIER.salt) + b",i=2"


def test_server_nonces_are_never_the_same() -> None:
    assert server_after_first()[1] != server_after_first()[1]


@pytest.mark.parametrize(
    ("message", "wording", "detail"),
    [
        (b"", "malformed SCRAM message", "The message is empty."),
        (b"c=biws", "malformed SCRAM message", 'Expected attribute "r" but found "0x00".'),
        (b"c=biws,r=%b", "malformed SCRAM message", "Attribute expected, but found end of string."),
        (b"c=biws,r=%b,p", "malformed SCRAM message", 'Expected character "=" for attribute "p".'),
        (b"c=biws,r=%b,p=AAAA", "malformed SCRAM message", "Malformed proof in client-final-message."),
        (b"c=biws,r=%b,p=!", "malformed SCRAM message", "Malformed proof in client-final-message."),
        (
            b"c=biws,r=%b" + PROOF + b",x=1",
            "malformed SCRAM message",
            "Garbage found at the end of client-final-message.",
        ),
        (b"c=biws,r=%bx" + PROOF, "invalid SCRAM response", "Nonce does not match."),
        (b"c=biws,r=abc" + PROOF, "invalid SCRAM response", "Nonce does not match."),
        (
            b"c=eSws,r=%b" + PROOF,
            "unexpected SCRAM channel-binding attribute in client-final-message",
            None,
        ),
    ],
)
def test_malformed_final_messages(message: bytes, wording: str, detail: str | None) -> None:
    server, nonce = server_after_first()
    with pytest.raises(ProtocolViolation) as caught:
        server.step(message.replace(b"%b", nonce))
    assert (caught.value.message, caught.value.detail) == (wording, detail)


def test_the_channel_binding_repeats_the_flag() -> None:
    server = ScramServer(VERIFIER, nonce=b"def")
    server.step(b"y,,n=,r=abc")
    with pytest.raises(ProtocolViolation, match="unexpected SCRAM channel-binding attribute"):
        server.step(b"c=biws,r=abcdef" + PROOF)


def test_extensions_of_the_final_message_are_ignored_but_signed() -> None:
    server, nonce = server_after_first()
    with pytest.raises(AuthenticationFailed):
        server.step(b"c=biws,r=" + nonce + b",x=1" + PROOF)


def refuses(side: ScramServer | ScramClient, *messages: bytes) -> bool:
    try:
        for message in messages:
            side.step(message)
    except ProtocolError:
        return True
    return False


ATTRIBUTES = st.lists(
    st.sampled_from(
        [
            b"n",
            b"y",
            b"p=x",
            b"a=b",
            b"n=",
            b"r=abc",
            b"r=abcdef",
            b"c=biws",
            b"x=1",
            b"m=",
            b"",
            PROOF[1:],
            b"=",
            b"i=1",
            b"s=AA==",
            b"v=",
            b"e=x",
        ]
    )
    | st.binary(max_size=5)
).map(b",".join)


@given(ATTRIBUTES, ATTRIBUTES)
def test_a_server_never_fails_otherwise_and_never_lets_strangers_in(first: bytes, final: bytes) -> None:
    for message in (first, b"n,,n=,r=abc"):
        server = ScramServer(VERIFIER, nonce=b"def")
        assert refuses(server, message, final)
        assert not server.finished


# --- the client's strictness ----------------------------------------------------------------------


def client_after_first() -> ScramClient:
    client = ScramClient("pencil", nonce=b"abc")
    client.first()
    return client


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"r=abc,s=c2FsdA==,i=1",
        b"r=,s=c2FsdA==,i=1",
        b"r=abd123,s=c2FsdA==,i=1",
        b"r=xabc123,s=c2FsdA==,i=1",
        b"m=x,r=abc123,s=c2FsdA==,i=1",
        b"r=abc123,i=1",
        b"r=abc123,s=c2FsdA,i=1",
        b"r=abc123,s=c2FsdA==",
        b"r=abc123,s=c2FsdA==,i=",
        b"r=abc123,s=c2FsdA==,i=0",
        b"r=abc123,s=c2FsdA==,i=-1",
        b"r=abc123,s=c2FsdA==,i=+1",
        b"r=abc123,s=c2FsdA==,i=1_0",
        b"r=abc123,s=c2FsdA==,i=1,x",
        b"r=abc123,s=c2FsdA==,i=%d" % (MAX_ITERATIONS + 1),
        b"r=abc123,s=c2FsdA==,i=99999999999999999999999",
    ],
)
def test_server_first_messages_a_client_refuses(message: bytes) -> None:
    client = client_after_first()
    with pytest.raises(ProtocolViolation):
        client.step(message)
    with pytest.raises(ProtocolViolation):
        client.step(b"r=abc123,s=c2FsdA==,i=1")


def test_extensions_of_server_first_are_ignored() -> None:
    assert client_after_first().step(b"r=abc123,s=c2FsdA==,i=1,x=1") is not None


def test_a_server_that_does_not_know_the_verifier_is_found_out() -> None:
    client = client_after_first()
    client.step(b"r=abc123,s=c2FsdA==,i=1")
    with pytest.raises(AuthenticationFailed, match=r"^incorrect server signature$"):
        client.step(b"v=" + base64.b64encode(b"x" * 32))
    assert not client.finished


def test_a_server_may_report_an_error() -> None:
    client = client_after_first()
    client.step(b"r=abc123,s=c2FsdA==,i=1")
    with pytest.raises(AuthenticationFailed, match="invalid-proof"):
        client.step(b"e=invalid-proof")


@pytest.mark.parametrize("message", [b"", b"v", b"v=", b"v=AAAA", b"v=!", b"x=1", RFC_SERVER_FINAL + b"!"])
def test_malformed_server_final_messages(message: bytes) -> None:
    client = client_after_first()
    client.step(b"r=abc123,s=c2FsdA==,i=1")
    with pytest.raises(ProtocolViolation):
        client.step(message)


@given(ATTRIBUTES, ATTRIBUTES)
def test_a_client_never_fails_otherwise_and_trusts_no_stranger(first: bytes, final: bytes) -> None:
    for message in (first, b"r=abc123,s=c2FsdA==,i=1"):
        client = client_after_first()
        assert refuses(client, message, final)
        assert not client.finished


def test_a_client_speaks_first_and_once() -> None:
    client = ScramClient("pencil")
    with pytest.raises(ProtocolViolation):
        client.step(b"r=abc123,s=c2FsdA==,i=1")
    client = client_after_first()
    with pytest.raises(RuntimeError, match="has begun"):
        client.first()


def test_a_client_sends_an_empty_user_as_libpq_does() -> None:
    assert ScramClient("pencil", nonce=b"abc").first() == b"n,,n=,r=abc"
    assert ScramClient("pencil", nonce=b"abc", user="a=b,c").first() == b"n,,n=a=3Db=2Cc,r=abc"


def test_a_client_needs_a_password_or_keys() -> None:
    for password, keys in [(None, None), ("pencil", ScramKeys(b"", b""))]:
        with pytest.raises(ValueError, match="either a password or keys"):
            ScramClient(password, keys=keys)


# --- SASLprep -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("pencil", b"pencil"),
        ("", b""),
        ("I\u00adX", b"IX"),
        ("\u2168", b"IX"),
        ("\u00aa", b"a"),
        ("a\u00a0b\u3000c", b"a b c"),
        ("e\u0301", "é".encode()),
        ("\u200bx", b" x"),
        ("\u06271\u0627", "\u06271\u0627".encode()),
    ],
)
def test_passwords_are_normalised(password: str, prepared: bytes) -> None:
    assert saslprep(password) == prepared


@pytest.mark.parametrize(
    "password",
    [
        "tab\t",
        "\u00ad",
        "ü\u0007",
        "ü\u0221",
        "ü\ue000",
        "ü\ufffd",
        "ü\u2028",
        "\u06271",
        "\u0627a\u0627",
        "ü\U000e0001",
        "\u2168\udcff",
    ],
)
def test_what_cannot_be_prepared_is_used_as_it_is(password: str) -> None:
    assert saslprep(password) == password.encode("utf-8", "surrogateescape")


@given(st.binary(max_size=12))
def test_any_password_has_bytes(password: bytes) -> None:
    assert isinstance(saslprep(password.decode("utf-8", "surrogateescape")), bytes)
