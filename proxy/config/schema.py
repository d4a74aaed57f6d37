"""Every setting: name, type, limits, default and meaning.

This file is the reference; the documentation's table is made from it. A setting ``key`` of section
``section`` is written

- in the TOML file ``[section] key = ...``, or flat ``section_key = ...`` at the top level;
- in the environment ``PGSLUICE_SECTION_KEY`` or ``PGSLUICE_SECTION__KEY``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from annotated_types import Ge, Le
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator
from pydantic.fields import FieldInfo

from proxy.config.address import (
    ADMIN_ALLOWED,
    LISTEN_ALLOWED,
    ListenAddress,
    TcpAddress,
    UnixAddress,
    parse_listen_list,
    parse_tcp,
)
from proxy.config.url import URL_ALLOWED, Secret, ServerUrl, SslMode, SslNegotiation, parse_url
from proxy.errors import ConfigError

__all__ = [
    "AuthMode", "AuthSettings", "ClientSettings", "ClientTls", "ListenAddress", "LogFormat", "LogLevel",
    "LogSettings", "PoolMode", "PoolSettings", "Secret", "ServerSettings", "ServerUrl", "Setting", "Settings",
    "SslMode", "SslNegotiation", "StatisticsSettings", "TcpAddress", "UnixAddress", "all_settings", "toml",
]  # fmt: skip


class PoolMode(StrEnum):
    TRANSACTION = "transaction"
    SESSION = "session"


class AuthMode(StrEnum):
    """auto: by the URL's password and auth.file, trust when there is neither; scram: always; trust: never."""

    AUTO = "auto"
    SCRAM = "scram"
    TRUST = "trust"


class ClientTls(StrEnum):
    """off: TLS is answered N; allow: both; require: plain connections are refused."""

    OFF = "off"
    ALLOW = "allow"
    REQUIRE = "require"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """auto: text when standard error is a terminal, else json."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


def _path(value: object) -> object:
    if isinstance(value, str) and value and "\0" not in value:
        return Path(value).expanduser()
    if isinstance(value, Path):
        return value
    raise ValueError("not a path")


def _listen(value: object) -> tuple[ListenAddress, ...]:
    if isinstance(value, str):
        value = parse_listen_list(value)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("not a list of addresses")
    addresses: list[ListenAddress] = []
    for part in value:
        if isinstance(part, str):
            addresses += parse_listen_list(part)
        elif isinstance(part, TcpAddress | UnixAddress):
            addresses.append(part)
        else:
            raise ValueError("not an address")
    for address in addresses:
        if addresses.count(address) > 1 and not (isinstance(address, TcpAddress) and address.port == 0):
            raise ConfigError("listen", str(address), "each address once")
    return tuple(addresses)


def _admin(value: object) -> TcpAddress | None:
    if value is None or isinstance(value, TcpAddress):
        return value
    if not isinstance(value, str):
        raise ValueError("not an address")
    return None if value.strip() == "off" else parse_tcp(value, setting="admin", allowed=ADMIN_ALLOWED)


def _primary(value: object) -> ServerUrl:
    if isinstance(value, ServerUrl):
        return value
    if not isinstance(value, str):
        raise ValueError("not a URL")
    return parse_url(value)


FilePath = Annotated[Path, BeforeValidator(_path)]


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=False
    )


class PoolSettings(_Section):
    size: int = Field(
        default=20,
        ge=1,
        le=10_000,
        description="Most server connections for each pair of user and database, of all workers together.",
    )
    mode: PoolMode = Field(
        default=PoolMode.TRANSACTION,
        strict=False,
        description="How long a client keeps a server connection: a transaction, or until it disconnects.",
    )
    wait_timeout: float = Field(
        default=30.0,
        ge=0.001,
        le=86_400,
        description="How long a client waits for a server connection before it gets an error.",
        json_schema_extra={"unit": "seconds"},
    )


class AuthSettings(_Section):
    mode: AuthMode = Field(
        default=AuthMode.AUTO,
        strict=False,
        description="How clients log in. auto: with the primary URL's user and password, and those of "
        "auth.file; when there is neither the server is taken to trust, and clients are trusted too, on "
        "loopback and Unix sockets only. scram: always with a password. trust: without one, wherever they "
        'come from. May be written auth = "...".',
    )
    file: FilePath | None = Field(
        default=None,
        description='File of users, `"user" "secret"` a line; a secret is SCRAM-SHA-256$..., md5... or '
        "a password.",
    )


class ClientSettings(_Section):
    tls: ClientTls = Field(
        default=ClientTls.OFF,
        strict=False,
        description="TLS from clients: off, allow (the client decides), require (or be refused).",
    )
    tls_cert: FilePath | None = Field(
        default=None, description="PEM file: the proxy's certificate, then its chain."
    )
    tls_key: FilePath | None = Field(
        default=None, description="PEM file: the private key of client.tls_cert."
    )
    login_timeout: float = Field(
        default=60.0,
        ge=0.1,
        le=3600,
        description="How long a client may take to log in.",
        json_schema_extra={"unit": "seconds"},
    )


class ServerSettings(_Section):
    connect_timeout: float = Field(
        default=5.0,
        ge=0.1,
        le=3600,
        description="How long connecting and logging in to it may take; the URL's connect_timeout wins.",
        json_schema_extra={"unit": "seconds"},
    )
    prepared_statements: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="Prepared statements kept on each server connection; the least recently used goes first.",
    )


class LogSettings(_Section):
    level: LogLevel = Field(
        default=LogLevel.INFO, strict=False, description="Least severe event that is logged."
    )
    format: LogFormat = Field(
        default=LogFormat.AUTO, strict=False, description="auto is text on a terminal and json elsewhere."
    )


class StatisticsSettings(_Section):
    max_fingerprints: int = Field(
        default=5000,
        ge=1,
        le=1_000_000,
        description="Query shapes whose statistics are kept; the memory they take is bounded by it.",
    )


class Settings(_Section):
    """All settings, valid together.

    Raises ConfigError or pydantic's ValidationError; load_settings() only the former.
    """

    listen: Annotated[tuple[ListenAddress, ...], PlainValidator(_listen)] = Field(
        default=(TcpAddress("127.0.0.1", 6432),),
        description="Where clients connect: a list, or separated by commas. PATH is the socket itself.",
        json_schema_extra={"allowed": LISTEN_ALLOWED},
    )
    admin: Annotated[TcpAddress | None, PlainValidator(_admin)] = Field(
        default=TcpAddress("127.0.0.1", 9187),
        description="Where /metrics, /api/queries, /livez and /readyz are served over HTTP; off for nowhere.",
        json_schema_extra={"allowed": ADMIN_ALLOWED},
    )
    admin_public: bool = Field(
        default=False,
        description="Let admin be an address beyond loopback. It has no authentication: whoever reaches it "
        "reads the texts of queries (without their literals).",
    )
    primary: Annotated[ServerUrl, PlainValidator(_primary)] = Field(
        description="URL of the PostgreSQL server, as libpq reads it.",
        json_schema_extra={"allowed": URL_ALLOWED, "secret": True},
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Processes that share the clients, and the connections of each pool.",
    )
    pool: PoolSettings = PoolSettings()
    auth: AuthSettings = AuthSettings()
    client: ClientSettings = ClientSettings()
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    statistics: StatisticsSettings = StatisticsSettings()

    @property
    def trusts_clients(self) -> bool:
        """Whether clients get in without a password."""
        if self.auth.mode is AuthMode.AUTO:
            return self.primary.password is None and self.auth.file is None
        return self.auth.mode is AuthMode.TRUST

    @property
    def connect_timeout(self) -> float:
        """Seconds to connect to the primary: the URL's, else server.connect_timeout."""
        return self.primary.connect_timeout or self.server.connect_timeout

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        self._check_auth()
        self._check_admin()
        self._check_client_tls()
        self._check_workers()
        return self

    def _check_auth(self) -> None:
        if self.auth.mode is AuthMode.SCRAM and self.primary.password is None and self.auth.file is None:
            raise ConfigError(
                "auth.mode",
                "scram",
                "scram with a password in the primary's URL, or with auth.file; nobody could log in",
            )
        if self.auth.mode is AuthMode.TRUST or not self.trusts_clients:
            return
        for address in self.listen:
            if isinstance(address, TcpAddress) and not address.is_loopback:
                raise ConfigError(
                    "listen",
                    str(address),
                    "loopback or unix:PATH while clients need no password (the primary's URL has none); give "
                    'the URL a password, set auth.file, or write auth = "trust" to let everybody in',
                )

    def _check_admin(self) -> None:
        if self.admin is not None and not self.admin.is_loopback and not self.admin_public:
            raise ConfigError(
                "admin",
                str(self.admin),
                "a loopback address, or any with admin_public = true (it has no authentication)",
            )

    def _check_client_tls(self) -> None:
        client = self.client
        for name, path in (("client.tls_cert", client.tls_cert), ("client.tls_key", client.tls_key)):
            if client.tls is not ClientTls.OFF and path is None:
                raise ConfigError(name, None, f"a PEM file is needed when client.tls is {client.tls}")
            if client.tls is ClientTls.OFF and path is not None and "tls" not in client.model_fields_set:
                # Whoever names a certificate thinks TLS is on; a written "off" is believed.
                raise ConfigError(name, str(path), "only with client.tls = allow, require, or a written off")

    def _check_workers(self) -> None:
        if self.pool.size < self.workers:
            raise ConfigError(
                "pool.size",
                self.pool.size,
                f"at least workers, which is {self.workers}: the workers share a pool's connections, and "
                "each needs one",
            )


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the reference.

    name:        ``pool.size``.
    environment: the variables it can be given by; where several are set, the first of them holds.
    default:     as written in TOML; empty when there is none.
    allowed:     what a value must be.
    meaning:     prose, with the unit.
    """

    name: str
    environment: tuple[str, ...]
    default: str
    allowed: str
    meaning: str
    secret: bool
    kind: Any
    """The field's type, None left out."""

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.name.split("."))

    @property
    def flat(self) -> str:
        """The spelling at the top level of the file, e.g. ``pool_size``."""
        return self.name.replace(".", "_")


def all_settings() -> Iterator[Setting]:
    """The settings table, in the order of this file."""
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, _Section):
            for key, part in kind.model_fields.items():
                yield _setting((name, key), part)
        else:
            yield _setting((name,), field)


def toml(value: object) -> str:
    """A setting's value as it is written in the file; a URL without its password."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:g}" if value != int(value) else f"{value:.0f}"
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(part) for part in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _setting(path: tuple[str, ...], field: FieldInfo) -> Setting:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    name = ".".join(path)
    upper = [part.upper() for part in path]
    environment = ["PGSLUICE_" + "_".join(upper)]
    if len(path) == 2:
        environment.append("PGSLUICE_" + "__".join(upper))
    if name == "auth.mode":
        environment.append("PGSLUICE_AUTH")
    if name == "primary":
        # Second: an application's DATABASE_URL may be in the same environment and point at the proxy itself.
        environment.append("DATABASE_URL")
    kind = field.annotation
    while arguments := get_args(kind):
        kind = arguments[0]
    unit = extra.get("unit")
    default = "" if field.is_required() else toml(field.default)
    return Setting(
        name=name,
        environment=tuple(environment),
        default='"off"' if name == "admin" and field.default is None else default,
        allowed=str(extra.get("allowed") or _allowed(kind, field, unit)),
        meaning=f"{field.description or ''}" + (f" In {unit}." if unit else ""),
        secret=bool(extra.get("secret")),
        kind=kind,
    )


def _allowed(kind: Any, field: FieldInfo, unit: object) -> str:
    if kind is bool:
        return "true or false"
    if kind is Path:
        return "the path of a file"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return " or ".join(kind)
    least = next((limit.ge for limit in field.metadata if isinstance(limit, Ge)), None)
    most = next((limit.le for limit in field.metadata if isinstance(limit, Le)), None)
    what = "a whole number" if kind is int else "a number"
    return f"{what}{f' of {unit}' if unit else ''} from {least} to {most}"
