"""The server's URL, as libpq reads it (PostgreSQL manual, "Connection URIs" and "Parameter Key Words").

Nothing here prints the URL: a mistyped one has its password in unexpected places. Errors name the part that
is wrong.
"""

import difflib
import os
import pwd
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar
from urllib.parse import quote, unquote_to_bytes

from proxy.errors import ConfigError

DEFAULT_PORT = 5432
DEFAULT_SOCKET_DIRECTORY = "/var/run/postgresql"
URL_ALLOWED = "a URL like postgresql://user:password@host:5432/database?sslmode=verify-full"

_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_BAD_HOST = re.compile(r"[\s@?#/\\\[\]]")
_LONGEST_SOCKET_PATH = 107

Choice = TypeVar("Choice", bound=StrEnum)


class SslMode(StrEnum):
    """TLS to the server, weakest first ("SSL Support", table "SSL Mode Descriptions").

    ``allow`` is a plain connection first and TLS only when the server insists.
    """

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"

    @property
    def demands_tls(self) -> bool:
        return self in (SslMode.REQUIRE, SslMode.VERIFY_CA, SslMode.VERIFY_FULL)


class SslNegotiation(StrEnum):
    """postgres: ask by SSLRequest; direct: TLS at once (ALPN ``postgresql``, PostgreSQL 17 and newer)."""

    POSTGRES = "postgres"
    DIRECT = "direct"


class Secret:
    """A text that does not print itself; ``reveal()`` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """Where a PostgreSQL server is and how to log in.

    host: a name, an IP address without brackets, or the absolute directory of a Unix socket.
    sslrootcert: a file of certificates, or ``system`` for the operating system's; sslcert, sslkey: files.
    connect_timeout: seconds; None = not given, the setting ``server.connect_timeout`` holds.
    """

    host: str
    port: int
    user: str
    database: str
    password: Secret | None = None
    sslmode: SslMode = SslMode.PREFER
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    sslpassword: Secret | None = None
    sslnegotiation: SslNegotiation = SslNegotiation.POSTGRES
    connect_timeout: float | None = None
    application_name: str | None = None
    options: str | None = None
    parameters: dict[str, str] = field(default_factory=dict, hash=False)
    """Accepted because what they ask for is what pgsluice does anyway, e.g. gssencmode=disable."""

    @property
    def is_unix_socket(self) -> bool:
        return self.host.startswith("/")

    @property
    def socket_path(self) -> str:
        """The Unix socket's file; only where is_unix_socket."""
        return f"{self.host}/.s.PGSQL.{self.port}"

    @property
    def address(self) -> str:
        """For logs and errors: ``host:port``, ``[::1]:5432`` or the socket's path."""
        if self.is_unix_socket:
            return self.socket_path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """The URL with its password hidden."""
        host = quote(self.host, safe="") if self.is_unix_socket else self.host
        host = f"[{host}]" if ":" in host else host
        password = ":***" if self.password is not None else ""
        given = {
            "sslmode": self.sslmode.value,
            "sslrootcert": self.sslrootcert,
            "sslcert": self.sslcert,
            "sslkey": self.sslkey,
            "sslpassword": None if self.sslpassword is None else "***",
            "sslnegotiation": self.sslnegotiation.value
            if self.sslnegotiation is SslNegotiation.DIRECT
            else None,
            "connect_timeout": None if self.connect_timeout is None else f"{self.connect_timeout:g}",
            "application_name": self.application_name,
            "options": self.options,
            **self.parameters,
        }
        query = "&".join(
            f"{name}={quote(value, safe='/*')}" for name, value in given.items() if value is not None
        )
        user, database = quote(self.user, safe=""), quote(self.database, safe="")
        return f"postgresql://{user}{password}@{host}:{self.port}/{database}?{query}"


# Accepted where they ask for no more than pgsluice does anyway.
_HARMLESS = {
    "gssencmode": ("disable", "prefer"),
    "channel_binding": ("disable", "prefer"),
    "target_session_attrs": ("any",),
    "load_balance_hosts": ("disable",),
}
_PARAMETERS = (
    "host", "port", "user", "password", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey",
    "sslpassword", "sslnegotiation", "connect_timeout", "application_name", "options", *_HARMLESS,
)  # fmt: skip


def parse_url(text: str) -> ServerUrl:
    """Read a ``postgresql://`` or ``postgres://`` URL.

    Raises ConfigError (setting ``primary``, without a value).
    """
    given = _given(text)
    port = _port(given.get("port", ""))
    user = given.get("user") or _operating_system_user()
    sslmode = _choice(SslMode, "sslmode", given)
    return _consistent(
        ServerUrl(
            host=_host(given.get("host", ""), port),
            port=port,
            user=user,
            database=given.get("dbname") or user,
            password=_secret(given.get("password")),
            sslmode=sslmode or _default_sslmode(given),
            sslrootcert=given.get("sslrootcert") or None,
            sslcert=given.get("sslcert") or None,
            sslkey=given.get("sslkey") or None,
            sslpassword=_secret(given.get("sslpassword")),
            sslnegotiation=_choice(SslNegotiation, "sslnegotiation", given) or SslNegotiation.POSTGRES,
            connect_timeout=_seconds(given.get("connect_timeout", "")),
            application_name=given.get("application_name") or None,
            options=given.get("options") or None,
            parameters={name: given[name] for name in _HARMLESS if name in given},
        )
    )


def _wrong(reason: str) -> ConfigError:
    return ConfigError("primary", None, reason)


def _given(text: str) -> dict[str, str]:
    """Every parameter of the URL by libpq's name, percent-decoded; the part after ``?`` wins, as in libpq."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("postgresql", "postgres"):
        if separator and scheme.startswith(("postgresql+", "postgres+")):
            raise _wrong("a driver's name in the URL's scheme is not understood; write postgresql:// alone")
        raise _wrong(f"allowed: {URL_ALLOWED}")
    if text != text.strip() or not text.isprintable():
        raise _wrong(
            "blanks around the URL and control characters in it are not allowed; percent-encode them"
        )
    credentials, rest = _credentials(rest)
    location, _, query = rest.partition("?")
    hosts, _, database = location.partition("/")
    if "@" in rest:
        # libpq would take it as it is; far more likely, the piece before it belongs to the password.
        raise _wrong(
            "an @ after the host has begun; write @ as %40 and / as %2F in the user, password and parameters"
        )
    host, port = _host_and_port(hosts)
    given = {**credentials, "host": _decode(host, "host"), "port": _decode(port, "port")}
    given["dbname"] = _decode(database, "database")
    given.update(_query(query))
    return given


def _credentials(rest: str) -> tuple[dict[str, str], str]:
    # As in libpq: only an @ before the first slash ends the credentials.
    end = re.search("[@/]", rest)
    if end is None or end.group() == "/":
        return {}, rest
    user, colon, password = rest[: end.start()].partition(":")
    given = {"user": _decode(user, "user")}
    if colon:
        given["password"] = _decode(password, "password")
    return given, rest[end.end() :]


def _host_and_port(text: str) -> tuple[str, str]:
    if "," in text:
        raise _wrong("several hosts in the URL; one host only is supported for now")
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or not host or (port and not port.startswith(":")):
            raise _wrong("an IPv6 host is written [ADDRESS] or [ADDRESS]:PORT")
        return host, port.removeprefix(":")
    host, _, port = text.partition(":")
    if ":" in port:
        raise _wrong(
            "an IPv6 host is written in brackets, [ADDRESS]:PORT; a : or / in the password as %3A or %2F"
        )
    return host, port


def _query(query: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        name = _decode(name, "parameter name")
        if not equals or "=" in value:
            raise _wrong("a parameter is not of the form name=value; write = and & in a value as %3D and %26")
        value = _decode(value, name)
        if name == "ssl" and value == "true":
            # libpq takes the JDBC driver's spelling for sslmode=require.
            name, value = "sslmode", "require"
        if name not in _PARAMETERS:
            raise _wrong(_unknown_parameter(name))
        if name in _HARMLESS and value not in _HARMLESS[name]:
            raise _wrong(
                f"{name} is {value!r}; allowed: {' or '.join(_HARMLESS[name])} (pgsluice does no other)"
            )
        given[name] = value
    return given


def _unknown_parameter(name: str) -> str:
    close = difflib.get_close_matches(name, _PARAMETERS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(_PARAMETERS)}"
    return f"the URL parameter {name!r} is not supported; {hint}"


def _decode(text: str, part: str) -> str:
    if _BAD_PERCENT.search(text):
        raise _wrong(f"the {part} has a % that starts no percent-encoded byte; write a plain % as %25")
    raw = unquote_to_bytes(text)
    if b"\0" in raw:
        raise _wrong(f"the {part} has a zero byte (%00)")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _wrong(f"the {part} is not UTF-8 once percent-decoded") from None


def _host(host: str, port: int) -> str:
    if not host:
        return DEFAULT_SOCKET_DIRECTORY if os.path.isdir(DEFAULT_SOCKET_DIRECTORY) else "localhost"
    if "," in host:
        raise _wrong("several hosts in the URL; one host only is supported for now")
    if host.startswith("/"):
        path = f"{host}/.s.PGSQL.{port}"
        if len(path.encode()) > _LONGEST_SOCKET_PATH:
            raise _wrong(f"the socket's path is longer than {_LONGEST_SOCKET_PATH} bytes")
        return host.rstrip("/") or "/"
    # Not printed: with an unencoded / or ? in the password, this "host" is a piece of it.
    if _BAD_HOST.search(host):
        raise _wrong(
            "the host has a character no host name has; a socket directory starts with a slash, written %2F"
        )
    return host


def _port(text: str) -> int:
    if not text:
        return DEFAULT_PORT
    if "," in text:
        raise _wrong("several ports in the URL; one host only is supported for now")
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        # Not printed, for the same reason as the host.
        raise _wrong(
            "the port is not a number from 1 to 65535; a / or : in the password is written %2F or %3A"
        )
    return int(text)


def _seconds(text: str) -> float | None:
    if not text:
        return None
    if not re.fullmatch("-?[0-9]{1,9}", text):
        raise _wrong(f"connect_timeout is {text!r}; allowed: a whole number of seconds")
    # In libpq zero and less are the same as not giving it.
    return float(text) if int(text) > 0 else None


def _secret(text: str | None) -> Secret | None:
    return Secret(text) if text else None


def _choice(kind: type[Choice], name: str, given: dict[str, str]) -> Choice | None:
    text = given.get(name)
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError:
        raise _wrong(f"{name} is {text!r}; allowed: {', '.join(kind)}") from None


def _default_sslmode(given: dict[str, str]) -> SslMode:
    return SslMode.VERIFY_FULL if given.get("sslrootcert") == "system" else SslMode.PREFER


def _consistent(url: ServerUrl) -> ServerUrl:
    if url.sslnegotiation is SslNegotiation.DIRECT and not url.sslmode.demands_tls:
        raise _wrong(
            f"sslnegotiation=direct needs sslmode require, verify-ca or verify-full, not {url.sslmode}"
        )
    if url.sslrootcert == "system" and url.sslmode is not SslMode.VERIFY_FULL:
        raise _wrong(f"sslrootcert=system needs sslmode=verify-full, not {url.sslmode}")
    if url.sslkey is not None and url.sslcert is None:
        raise _wrong("sslkey is given without sslcert")
    return url


def _operating_system_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise _wrong("the URL names no user, and the operating system has no name for this one") from None
