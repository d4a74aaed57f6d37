"""The file of users: one ``"user" "secret"`` a line, as PgBouncer's userlist.txt, which can be taken over.

A secret is a SCRAM verifier (``SCRAM-SHA-256$...``) or an md5 hash (``md5`` and 32 hexadecimal digits), both
as in pg_authid.rolpassword, or else a plain password. A quote inside quotes is doubled. Lines that start with
# or ; are comments.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from protocol.auth.scram import ScramVerifier
from proxy.config.url import Secret
from proxy.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Md5Hash:
    """md5(password + user) as PostgreSQL stores it, with the ``md5`` in front."""

    secret: Secret

    def reveal(self) -> str:
        return self.secret.reveal()


@dataclass(frozen=True, slots=True)
class PlainPassword:
    """The password itself; the only kind that can also log in to a server by any method."""

    secret: Secret

    def reveal(self) -> str:
        return self.secret.reveal()


Credential = ScramVerifier | Md5Hash | PlainPassword

_ENTRY = re.compile(r'\s*"((?:[^"]|"")*)"\s+"((?:[^"]|"")*)"\s*')
_MD5 = re.compile(r"md5[0-9a-f]{32}")
_SCRAM = "SCRAM-SHA-256$"
_FORMAT = 'a line is "user" "secret", both in double quotes'


def read_auth_file(path: Path | str) -> dict[str, Credential]:
    """Users and their credentials. Raises ConfigError with the file's name and the line, never a secret."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError("auth.file", str(path), f"a file that can be read ({error.strerror})") from None
    users: dict[str, Credential] = {}
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        place = f"{path}, line {number}"
        entry = _entry(place, line)
        if entry is None:
            continue
        user, secret = entry
        if user in users:
            raise ConfigError(place, None, f"user {user!r} is there twice")
        users[user] = _credential(place, secret)
    return users


def _entry(place: str, line: bytes) -> tuple[str, str] | None:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(place, None, "not UTF-8") from None
    if not text.strip() or text.lstrip().startswith(("#", ";")):
        return None
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise ConfigError(place, None, _FORMAT)
    user, secret = (part.replace('""', '"') for part in match.groups())
    if not user or "\0" in text:
        raise ConfigError(place, None, "the user's name is empty" if not user else "a zero byte in the line")
    if not secret:
        raise ConfigError(place, None, f"the secret of user {user!r} is empty; nobody could log in with it")
    return user, secret


def _credential(place: str, secret: str) -> Credential:
    if secret.startswith(_SCRAM):
        try:
            return ScramVerifier.parse(secret)
        except ValueError:
            raise ConfigError(
                place,
                None,
                "a broken SCRAM verifier; allowed: SCRAM-SHA-256$iterations:salt$key:key in base64",
            ) from None
    if _MD5.fullmatch(secret):
        return Md5Hash(Secret(secret))
    return PlainPassword(Secret(secret))
