"""The shape of a statement: its text without literals."""

from hashlib import blake2b

from proxy.observe.record import Fingerprint

_INTERNED: dict[bytes, Fingerprint] = {}


def normalise(sql: bytes) -> bytes:
    """The statement without its literals (every run of white space is one space)."""
    return b" ".join(sql.split())


def fingerprint(sql: bytes) -> Fingerprint:
    """The fingerprint of a statement; equal shapes give the same object."""
    text = normalise(sql)
    known = _INTERNED.get(text)
    if known is None:
        identity = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
        known = Fingerprint(identity, text.decode("utf-8", "replace"))
        _INTERNED[text] = known
    return known
