"""The sessions by their cancel keys."""

from __future__ import annotations

import secrets

from protocol.types import CancelKey
from proxy.client.session import Session


class Registry:
    """Every logged-in session of this process, which is number `worker` (from 0) of `workers`.

    A key that nobody has is answered like one that is wrong: not at all.

    A cancel request may arrive at any worker, so a key tells whose it is: the first four bytes of its secret,
    as a number, leave the worker's number when divided by `workers`.  They are random otherwise, which leaves
    a stranger 32 - log2(workers) bits to guess in protocol 3.0, 24 with the 256 workers there may be at most,
    and 28 random bytes more in 3.2.
    """

    def __init__(self, worker: int = 0, workers: int = 1) -> None:
        self.worker = worker
        self._workers = workers
        self._sessions: dict[CancelKey, Session | None] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def new_key(self, pid: int, minor: int) -> CancelKey:
        """A fresh key: `pid` is that of a server connection, the secret has 4 bytes in protocol 3.0 and 32 in
        3.2.
        """
        while True:
            number = secrets.randbelow((1 << 32) // self._workers) * self._workers + self.worker
            key = CancelKey(pid, number.to_bytes(4, "big") + secrets.token_bytes(28 if minor >= 2 else 0))
            if key not in self._sessions:
                self._sessions[key] = None
                return key

    def add(self, key: CancelKey, session: Session) -> None:
        self._sessions[key] = session

    def remove(self, key: CancelKey) -> None:
        self._sessions.pop(key, None)

    def owner(self, key: CancelKey) -> int:
        """The number of the worker that gave the key out, if one of them did."""
        return int.from_bytes(key.secret[:4], "big") % self._workers

    def find(self, key: CancelKey) -> Session | None:
        return self._sessions.get(key)

    def sessions(self) -> list[Session]:
        return [session for session in self._sessions.values() if session is not None]
