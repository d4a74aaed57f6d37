"""SCRAM-SHA-256, both sides, without channel binding.

Manual: "Frontend/Backend Protocol" > "SASL Authentication"; RFC 5802 and RFC 7677. Messages here are the data
of SASLInitialResponse, AuthenticationSASLContinue, SASLResponse and AuthenticationSASLFinal. With n for both
nonces, one after the other:

    client-first  n,,n=,r=<client nonce>            server-first  r=<n>,s=<salt>,i=<iterations>
    client-final  c=biws,r=<n>,p=<client proof>     server-final  v=<server signature>

What is proved is knowledge of the client key: client proof = client key XOR HMAC(stored key, all that was
said). The stored key is the hash of the client key, so who has the verifier and sees a right proof learns the
client key, which logs in elsewhere under the same verifier (`ScramServer.keys`, `ScramClient(keys=...)`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Self

from protocol.buffer import to_bytes, to_text
from protocol.errors import AuthenticationFailed, ProtocolViolation, UnsupportedFeature

MECHANISM: Final = "SCRAM-SHA-256"
DEFAULT_ITERATIONS: Final = 4096
# What a client computes at a server's word: about half a second of work. PostgreSQL's default is 4096.
MAX_ITERATIONS: Final = 1_000_000

_KEY_LENGTH: Final = 32
_SALT_LENGTH: Final = 16
_NONCE_LENGTH: Final = 18
_VERIFIER: Final = re.compile(r"SCRAM-SHA-256\$([0-9]{1,10}):([^$:]*)\$([^$:]*):([^$:]*)", re.ASCII)
# The base64 of what a client without channel binding repeats: the first bytes of its first message.
_HEADERS: Final = {b"n": b"biws", b"y": b"eSws"}


# --- verifiers ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """Stands in for the password of one verifier: to prove oneself and to check the server's proof."""

    client_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """What a server keeps of a password, as in pg_authid. `str` is PostgreSQL's text, `repr` hides it."""

    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>"; ValueError for all else."""
        match = _VERIFIER.fullmatch(text)
        if match is None or int(match[1]) < 1:
            raise ValueError("not a SCRAM-SHA-256 verifier")
        try:
            salt, stored_key, server_key = (_from_base64(match[i].encode()) for i in (2, 3, 4))
        except ValueError:
            raise ValueError("not a SCRAM-SHA-256 verifier: invalid base64") from None
        if len(stored_key) != _KEY_LENGTH or len(server_key) != _KEY_LENGTH:
            raise ValueError(f"not a SCRAM-SHA-256 verifier: keys must have {_KEY_LENGTH} bytes")
        return cls(int(match[1]), salt, stored_key, server_key)

    @classmethod
    def from_password(
        cls, password: str, *, salt: bytes | None = None, iterations: int = DEFAULT_ITERATIONS
    ) -> Self:
        """What PostgreSQL would store for this password, the salt random if not given. Takes milliseconds."""
        salt = secrets.token_bytes(_SALT_LENGTH) if salt is None else salt
        keys = _derive(password, salt, iterations)
        return cls(iterations, salt, _hash(keys.client_key), keys.server_key)

    @classmethod
    def mock(cls, user: str, secret: bytes, *, iterations: int = DEFAULT_ITERATIONS) -> Self:
        """A verifier no password fits, for a user who does not exist: the same while `secret` is the same.

        Clients cannot tell it from a real one of the same iteration count. Goes with ScramServer's `mock`.
        """
        name = to_bytes(user)
        return cls(
            iterations,
            _hmac(secret, b"salt", name)[:_SALT_LENGTH],
            _hmac(secret, b"stored key", name),
            _hmac(secret, b"server key", name),
        )

    def verify(self, password: str) -> bool:
        """Whether a password sent in clear text is the right one. Some milliseconds, right or wrong."""
        server_key = _derive(password, self.salt, self.iterations).server_key
        return hmac.compare_digest(server_key, self.server_key)

    def __str__(self) -> str:
        salt, stored, server = (_to_base64(x).decode() for x in (self.salt, self.stored_key, self.server_key))
        return f"{MECHANISM}${self.iterations}:{salt}${stored}:{server}"


# --- the exchange ---------------------------------------------------------------------------------


class _Stage(Enum):
    BEGIN = auto()
    FIRST_SENT = auto()
    FINAL_SENT = auto()
    FINISHED = auto()
    FAILED = auto()


class ScramServer:
    """Lets one client prove that it knows the password of `verifier`: two steps, then it is `finished`.

    `mock` is a reason, for the log, why this log-in fails whatever the client sends (no such user, say). The
    exchange does the same work, with messages of the same sizes, and ends as with a wrong password.
    `nonce` is for tests; it is otherwise random.
    """

    __slots__ = (
        "_client_key",
        "_first_bare",
        "_flag",
        "_mock",
        "_nonce",
        "_server_first",
        "_stage",
        "_verifier",
    )

    def __init__(
        self, verifier: ScramVerifier, *, mock: str | None = None, nonce: bytes | None = None
    ) -> None:
        self._verifier = verifier
        self._mock = mock
        self._nonce = _new_nonce() if nonce is None else nonce
        self._stage = _Stage.BEGIN
        self._flag = b""
        self._first_bare = b""
        self._server_first = b""
        self._client_key = b""

    @property
    def finished(self) -> bool:
        """Whether the client has proved itself: only then may it be let in."""
        return self._stage is _Stage.FINISHED

    @property
    def client_key(self) -> bytes:
        """The key the client proved to know. RuntimeError before it has."""
        if not self.finished:
            raise RuntimeError("the client has not authenticated")
        return self._client_key

    @property
    def keys(self) -> ScramKeys:
        """What logs in elsewhere in this client's name, where the same verifier is stored."""
        return ScramKeys(self.client_key, self._verifier.server_key)

    def step(self, data: bytes) -> bytes:
        """Answer client-first with server-first, client-final with server-final.

        ProtocolViolation for what PostgreSQL calls malformed, AuthenticationFailed for a wrong proof. After
        either there is no going on.
        """
        stage, self._stage = self._stage, _Stage.FAILED
        if not data or b"\0" in data:
            detail = "Message length does not match input length." if data else "The message is empty."
            raise ProtocolViolation("malformed SCRAM message", detail=detail)
        if stage is _Stage.BEGIN:
            answer = self._first(data)
            self._stage = _Stage.FIRST_SENT
        elif stage is _Stage.FIRST_SENT:
            answer = self._final(data)
            self._stage = _Stage.FINISHED
        else:
            raise ProtocolViolation("unexpected SASL response: the exchange is over")
        return answer

    def _first(self, data: bytes) -> bytes:
        self._flag, bare = _read_header(data)
        if bare[:1] == b"m":
            raise UnsupportedFeature("client requires an unsupported SCRAM extension")
        attributes = _Attributes(bare)
        # The user of the start-up packet counts; libpq leaves this one empty.
        attributes.expect(b"n")
        nonce = attributes.expect(b"r")
        if not all(0x21 <= byte <= 0x7E for byte in nonce):
            raise ProtocolViolation("non-printable characters in SCRAM nonce")
        attributes.skip_rest()
        self._first_bare = bare
        self._nonce = nonce + self._nonce
        salt = _to_base64(self._verifier.salt)
        self._server_first = b"r=%b,s=%b,i=%d" % (self._nonce, salt, self._verifier.iterations)
        return self._server_first

    def _final(self, data: bytes) -> bytes:
        attributes = _Attributes(data)
        if attributes.expect(b"c") != _HEADERS[self._flag]:
            raise ProtocolViolation("unexpected SCRAM channel-binding attribute in client-final-message")
        nonce = attributes.expect(b"r")
        end = attributes.position
        name, value = attributes.next()
        while name != b"p":
            end = attributes.position
            name, value = attributes.next()
        proof = _key(value, "Malformed proof in client-final-message.")
        if attributes.remaining:
            detail = "Garbage found at the end of client-final-message."
            raise ProtocolViolation("malformed SCRAM message", detail=detail)
        if not hmac.compare_digest(nonce, self._nonce):
            raise ProtocolViolation("invalid SCRAM response", detail="Nonce does not match.")

        # Position is past the comma that separates what was read from what comes.
        said = b",".join((self._first_bare, self._server_first, data[: end - 1]))
        verifier = self._verifier
        client_key = _xor(proof, _hmac(verifier.stored_key, said))
        signature = _to_base64(_hmac(verifier.server_key, said))
        proved = hmac.compare_digest(_hash(client_key), verifier.stored_key)
        if self._mock is not None or not proved:
            raise AuthenticationFailed(reason=self._mock or "wrong password")
        self._client_key = client_key
        return b"v=" + signature


class ScramClient:
    """Proves to one server that we know the password (or keys in its place), and has it prove the same.

    `user` goes into the message, where PostgreSQL ignores it. `nonce` is for tests; it is otherwise random.
    ValueError unless there is exactly one of password and keys.
    """

    __slots__ = ("_first_bare", "_keys", "_nonce", "_password", "_signature", "_stage")

    def __init__(
        self,
        password: str | None = None,
        *,
        keys: ScramKeys | None = None,
        user: str = "",
        nonce: bytes | None = None,
    ) -> None:
        if (password is None) == (keys is None):
            raise ValueError("SCRAM needs either a password or keys")
        self._password = password
        self._keys = keys
        self._nonce = _new_nonce() if nonce is None else nonce
        name = to_bytes(user.replace("=", "=3D").replace(",", "=2C"))
        self._first_bare = b"n=%b,r=%b" % (name, self._nonce)
        self._signature = b""
        self._stage = _Stage.BEGIN

    @property
    def finished(self) -> bool:
        """Whether the server has proved itself too. An AuthenticationOk before that is not to be trusted."""
        return self._stage is _Stage.FINISHED

    def first(self) -> bytes:
        """The client-first message. RuntimeError the second time."""
        if self._stage is not _Stage.BEGIN:
            raise RuntimeError("the exchange has begun already")
        self._stage = _Stage.FIRST_SENT
        return b"n,," + self._first_bare

    def step(self, data: bytes) -> bytes | None:
        """Answer server-first with client-final; None for a server-final message that proves the server.

        ProtocolViolation for a malformed message, a nonce that does not extend ours and an iteration count
        beyond MAX_ITERATIONS; AuthenticationFailed when the server reports an error or its proof is wrong.
        With a password the first step takes some milliseconds, in proportion to the server's iteration count.
        """
        stage, self._stage = self._stage, _Stage.FAILED
        if stage is _Stage.FIRST_SENT:
            answer = self._final(data)
            self._stage = _Stage.FINAL_SENT
            return answer
        if stage is not _Stage.FINAL_SENT:
            raise ProtocolViolation("unexpected SASL message: the exchange is over or has not begun")
        self._check(data)
        self._stage = _Stage.FINISHED
        return None

    def _final(self, data: bytes) -> bytes:
        attributes = _Attributes(data)
        nonce = attributes.expect(b"r")
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ProtocolViolation("invalid SCRAM response (nonce mismatch)")
        try:
            salt = _from_base64(attributes.expect(b"s"))
        except ValueError:
            raise ProtocolViolation("malformed SCRAM message (invalid salt)") from None
        count = attributes.expect(b"i")
        if re.fullmatch(rb"[0-9]{1,10}", count) is None or int(count) < 1:
            raise ProtocolViolation("malformed SCRAM message (invalid iteration count)")
        attributes.skip_rest()

        keys = self._keys or self._derived_keys(salt, int(count))
        without_proof = b"c=%b,r=%b" % (_HEADERS[b"n"], nonce)
        said = b",".join((self._first_bare, data, without_proof))
        proof = _xor(keys.client_key, _hmac(_hash(keys.client_key), said))
        self._signature = _hmac(keys.server_key, said)
        return b"%b,p=%b" % (without_proof, _to_base64(proof))

    def _derived_keys(self, salt: bytes, iterations: int) -> ScramKeys:
        if iterations > MAX_ITERATIONS:
            raise ProtocolViolation(
                f"SCRAM iteration count {iterations} is beyond the limit of {MAX_ITERATIONS}"
            )
        assert self._password is not None
        return _derive(self._password, salt, iterations)

    def _check(self, data: bytes) -> None:
        attributes = _Attributes(data)
        name, value = attributes.next()
        if name == b"e":
            raise AuthenticationFailed(f"error received from server in SCRAM exchange: {to_text(value)}")
        if name != b"v":
            raise ProtocolViolation("malformed SCRAM message (server-final-message without a signature)")
        signature = _key(value, "Malformed signature in server-final-message.")
        attributes.skip_rest()
        if not hmac.compare_digest(signature, self._signature):
            raise AuthenticationFailed("incorrect server signature")


# --- reading messages -----------------------------------------------------------------------------


class _Attributes:
    """Takes a message apart into its x=value attributes. ProtocolViolation in PostgreSQL's words."""

    __slots__ = ("_data", "position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        # May come to stand one past the end: the comma that would be there is counted as read.
        self.position = 0

    @property
    def remaining(self) -> bool:
        return self.position < len(self._data)

    def expect(self, name: bytes) -> bytes:
        """The value of the next attribute, which must have this name."""
        found = self._data[self.position : self.position + 1]
        if found != name:
            raise ProtocolViolation(
                "malformed SCRAM message",
                detail=f'Expected attribute "{name.decode()}" but found "{_shown(found)}".',
            )
        return self.next()[1]

    def next(self) -> tuple[bytes, bytes]:
        """Name and value of the next attribute, whatever it is."""
        name = self._data[self.position : self.position + 1]
        if not name:
            detail = "Attribute expected, but found end of string."
            raise ProtocolViolation("malformed SCRAM message", detail=detail)
        if not name.isalpha():
            detail = f'Attribute expected, but found invalid character "{_shown(name)}".'
            raise ProtocolViolation("malformed SCRAM message", detail=detail)
        if self._data[self.position + 1 : self.position + 2] != b"=":
            detail = f'Expected character "=" for attribute "{name.decode()}".'
            raise ProtocolViolation("malformed SCRAM message", detail=detail)
        start = self.position + 2
        end = self._data.find(b",", start)
        end = len(self._data) if end < 0 else end
        self.position = end + 1
        return name, self._data[start:end]

    def skip_rest(self) -> None:
        """Pass over optional extensions, which must be attributes all the same."""
        while self.remaining:
            self.next()


def _read_header(data: bytes) -> tuple[bytes, bytes]:
    """The channel-binding flag of a client-first message and what follows its header."""
    flag = data[:1]
    if flag == b"p":
        detail = (
            "The client selected SCRAM-SHA-256 without channel binding, "
            "but the SCRAM message includes channel binding data."
        )
        raise ProtocolViolation("malformed SCRAM message", detail=detail)
    # y is a client that could do channel binding and thinks we cannot: it is right, none is offered here.
    if flag not in _HEADERS:
        detail = f'Unexpected channel-binding flag "{_shown(flag)}".'
        raise ProtocolViolation("malformed SCRAM message", detail=detail)
    if data[1:2] != b",":
        detail = f'Comma expected, but found character "{_shown(data[1:2])}".'
        raise ProtocolViolation("malformed SCRAM message", detail=detail)
    if data[2:3] == b"a":
        raise UnsupportedFeature("client uses authorization identity, but it is not supported")
    if data[2:3] != b",":
        detail = f'Unexpected attribute "{_shown(data[2:3])}" in client-first-message.'
        raise ProtocolViolation("malformed SCRAM message", detail=detail)
    return flag, data[3:]


def _shown(character: bytes) -> str:
    if not character:
        return "0x00"
    return f"'{character.decode()}'" if 0x21 <= character[0] <= 0x7E else f"0x{character[0]:02x}"


def _key(text: bytes, complaint: str) -> bytes:
    try:
        key = _from_base64(text)
    except ValueError:
        key = b""
    if len(key) != _KEY_LENGTH:
        raise ProtocolViolation("malformed SCRAM message", detail=complaint)
    return key


# --- arithmetic -----------------------------------------------------------------------------------


def saslprep(password: str) -> bytes:
    """The bytes PostgreSQL hashes for a password: normalised by SASLprep (RFC 4013), or as they are.

    As they are: plain ASCII, what is not UTF-8, and what SASLprep forbids. There PostgreSQL is laxer than
    the RFC, and so it is in looking for forbidden characters before the normalisation instead of after it.
    """
    if password.isascii():
        return to_bytes(password)
    # A zero-width space is in both tables: first is what counts.
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c
        for c in password
        if stringprep.in_table_c12(c) or not stringprep.in_table_b1(c)
    )
    if not mapped or any(map(_is_forbidden, mapped)) or not _is_bidi_sound(mapped):
        return to_bytes(password)
    return unicodedata.normalize("NFKC", mapped).encode()


_FORBIDDEN: Final = (
    stringprep.in_table_a1,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def _is_forbidden(character: str) -> bool:
    return any(table(character) for table in _FORBIDDEN)


def _is_bidi_sound(text: str) -> bool:
    """RFC 3454, section 6: text with right-to-left characters has them at both ends, and no others."""
    if not any(map(stringprep.in_table_d1, text)):
        return True
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return ends and not any(map(stringprep.in_table_d2, text))


def _derive(password: str, salt: bytes, iterations: int) -> ScramKeys:
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password), salt, iterations)
    return ScramKeys(_hmac(salted, b"Client Key"), _hmac(salted, b"Server Key"))


def _hmac(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b"".join(parts), "sha256")


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def _new_nonce() -> bytes:
    return _to_base64(secrets.token_bytes(_NONCE_LENGTH))


def _to_base64(data: bytes) -> bytes:
    return base64.b64encode(data)


def _from_base64(text: bytes) -> bytes:
    """ValueError (binascii.Error is one) unless it is strict base64."""
    return binascii.a2b_base64(text, strict_mode=True)
