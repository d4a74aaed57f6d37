"""Who may log in, and with what: the user of the primary's URL and those of the auth file."""

from __future__ import annotations

import secrets

from protocol.auth.scram import ScramVerifier
from proxy.config.auth_file import Credential, Md5Hash, PlainPassword, read_auth_file
from proxy.config.schema import Settings


class Authenticator:
    """`trusting` lets everybody in without a password.

    An unknown user is put through the same exchange as a known one, with a verifier that no password fits.
    """

    def __init__(self, settings: Settings) -> None:
        self.trusting = settings.trusts_clients
        self._mock_secret = secrets.token_bytes(32)
        self._credentials: dict[str, Credential] = {}
        self._verifiers: dict[str, ScramVerifier] = {}
        if settings.auth.file is not None:
            self._credentials.update(read_auth_file(settings.auth.file))
        url = settings.primary
        if url.password is not None:
            self._credentials.setdefault(url.user, PlainPassword(url.password))

    def credential(self, user: str) -> Credential | None:
        """What is known of the user; None for an unknown one."""
        return self._credentials.get(user)

    def md5_hash(self, user: str) -> str | None:
        """The md5 hash of a user of whom nothing else is known."""
        credential = self._credentials.get(user)
        return credential.reveal() if isinstance(credential, Md5Hash) else None

    def verifier(self, user: str) -> tuple[ScramVerifier, str | None]:
        """The SCRAM verifier to use, and the reason why it can't be satisfied, if so."""
        known = self._verifiers.get(user)
        if known is not None:
            return known, None
        credential = self._credentials.get(user)
        if isinstance(credential, ScramVerifier):
            verifier = credential
        elif isinstance(credential, PlainPassword):
            verifier = ScramVerifier.from_password(credential.reveal())
        else:
            return ScramVerifier.mock(user, self._mock_secret), "no such user"
        self._verifiers[user] = verifier
        return verifier, None
