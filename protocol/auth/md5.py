"""The md5 password method: what pg_authid stores, what goes over the wire, and whether the two agree.

Manual: "Client Authentication" > "Password Authentication", and "Message Flow" > "Start-up" for the formula.
Passwords and names are `str` decoded with surrogateescape, so that any bytes a client may type are possible.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from protocol.buffer import to_bytes

_PREFIX: Final = "md5"
_HASH: Final = re.compile(r"md5[0-9a-f]{32}")


def is_md5_hash(text: str) -> bool:
    """Whether the text has the form in which PostgreSQL stores an md5 password."""
    return _HASH.fullmatch(text) is not None


def md5_hash(user: str, password: str) -> str:
    """The form of a password stored in pg_authid: "md5" and 32 hexadecimal digits."""
    return _PREFIX + _digest(to_bytes(password) + to_bytes(user))


def md5_response(stored_md5: str, salt: bytes) -> str:
    """The answer to AuthenticationMD5Password. To know the stored hash is enough to give it.

    `salt` has the 4 bytes of the request. ValueError when `stored_md5` is not an md5 hash.
    """
    if not is_md5_hash(stored_md5):
        raise ValueError("not an md5 password hash")
    return _PREFIX + _digest(stored_md5.removeprefix(_PREFIX).encode("ascii") + salt)


def verify(stored_md5: str, salt: bytes, response: bytes) -> bool:
    """Whether a client's answer (the password of its PasswordMessage) is right, compared in constant time."""
    return hmac.compare_digest(md5_response(stored_md5, salt).encode("ascii"), response)


def verify_password(stored_md5: str, user: str, password: str) -> bool:
    """Whether a password sent in clear text is the one whose hash is stored, compared in constant time."""
    return hmac.compare_digest(md5_hash(user, password).encode("ascii"), to_bytes(stored_md5))


def _digest(data: bytes) -> str:
    # The protocol's choice, not ours: where FIPS mode forbids md5 for security, this says it is none.
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
