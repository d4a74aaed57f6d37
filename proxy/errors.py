"""The errors an operator sees: each is one line that says what to change, and never holds a password."""

import re
from collections.abc import Mapping

_CREDENTIALS = re.compile(r"(://).*@", re.DOTALL)
_PASSWORD_WORD = re.compile(r"(password\s*=\s*)('[^']*'|[^&\s,]*)", re.IGNORECASE)
_LONGEST_VALUE = 120


class PgsluiceError(Exception):
    """Base of every error pgsluice raises by itself."""


class StartupError(PgsluiceError):
    """The proxy cannot start for a reason outside its settings; the message is one line."""


class ConfigError(PgsluiceError):
    """A setting that cannot be used.

    setting: its name as the user wrote it, e.g. ``PGSLUICE_POOL_SIZE`` or ``pool.size in pgsluice.toml``.
    value:   what was given; None when there is none, or when it must not be shown.
    allowed: what would be right, e.g. ``a whole number from 1 to 10000``.

    ``str()`` is one line.
    """

    def __init__(self, setting: str, value: object, allowed: str) -> None:
        super().__init__(setting, value, allowed)
        self.setting = setting
        self.value = value
        self.allowed = allowed

    def respelt(self, spellings: Mapping[str, str]) -> "ConfigError":
        """The same error, its setting by the name the user wrote; spellings: by setting (``pool.size``)."""
        return ConfigError(spellings.get(self.setting, self.setting), self.value, self.allowed)

    def __str__(self) -> str:
        if self.value is None:
            return one_line(f"{self.setting}: {self.allowed}")
        return one_line(f"{self.setting} is {shown(self.value)}; allowed: {self.allowed}")


def shown(value: object) -> str:
    """A value as an error may print it: quoted, shortened, without anything that looks like a password."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        # An int of thousands of digits cannot be printed at all (and nobody would read it).
        return str(value) if abs(value) < 10**30 else "a very large number"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(part) for part in value) + "]"
    if isinstance(value, dict):
        return "a table"
    text = str(value)
    # Shortened after hiding: a cut could take away the "@" by which a password is recognised.
    text = _PASSWORD_WORD.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text))
    if len(text) > _LONGEST_VALUE:
        text = text[:_LONGEST_VALUE] + "..."
    return repr(text)


def one_line(text: str) -> str:
    """The text with every line break and other control character replaced by a blank."""
    return "".join(character if character.isprintable() else " " for character in text)
