"""The sessions by their cancel keys."""

from __future__ import annotations

import secrets

from protocol.types import CancelKey
from proxy.client.session import Session


class Registry:
    """Every logged-in session of this process. A key that nobody has is answered like one that is wrong: not
    at all.
    """

    def __init__(self) -> None:
        self._sessions: dict[CancelKey, Session | None] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def new_key(self, pid: int, minor: int) -> CancelKey:
        """A fresh key: `pid` is that of a server connection, the secret has 4 bytes in protocol 3.0 and 32 in
        3.2.
        """
        while True:
            key = CancelKey(pid, secrets.token_bytes(32 if minor >= 2 else 4))
            if key not in self._sessions:
                self._sessions[key] = None
                return key

    def add(self, key: CancelKey, session: Session) -> None:
        self._sessions[key] = session

    def remove(self, key: CancelKey) -> None:
        self._sessions.pop(key, None)

    def find(self, key: CancelKey) -> Session | None:
        return self._sessions.get(key)

    def sessions(self) -> list[Session]:
        return [session for session in self._sessions.values() if session is not None]
