"""Where the proxy listens: a TCP address or the path of a Unix socket."""

import ipaddress
import re
from dataclasses import dataclass

from proxy.errors import ConfigError

LISTEN_ALLOWED = "HOST:PORT, [IPv6]:PORT or unix:PATH, several separated by commas; port 0 picks a free one"
ADMIN_ALLOWED = 'HOST:PORT, [IPv6]:PORT, or "off"; port 0 picks a free one'

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9.])?")
_PORT = re.compile(r"[0-9]{1,5}")
_LONGEST_SOCKET_PATH = 107
"""Bytes, without the closing NUL: sockaddr_un.sun_path on Linux (macOS has 103)."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """host: a name or an IP address without brackets; port: 0 to 65535, 0 = any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect.

        A name other than localhost could mean any address, so it does not count.
        """
        if self.host.lower().rstrip(".") == "localhost":
            return True
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            return address.ipv4_mapped.is_loopback
        return address.is_loopback


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """path: of the socket itself; libpq looks for ``.s.PGSQL.<port>``, so name it like that."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


ListenAddress = TcpAddress | UnixAddress


def parse_tcp(text: str, *, setting: str = "listen", allowed: str = LISTEN_ALLOWED) -> TcpAddress:
    """Raises ConfigError naming the setting."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65535 or not _is_host(host):
        raise ConfigError(setting, text, allowed)
    return TcpAddress(host.removeprefix("[").removesuffix("]"), int(port))


def parse_listen(text: str) -> ListenAddress:
    """Raises ConfigError."""
    text = text.strip()
    if not text.startswith("unix:"):
        return parse_tcp(text)
    path = text.removeprefix("unix:")
    if not path or path.endswith("/") or "\0" in path:
        raise ConfigError("listen", text, LISTEN_ALLOWED)
    if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_SOCKET_PATH:
        raise ConfigError("listen", text, f"a socket path of at most {_LONGEST_SOCKET_PATH} bytes")
    return UnixAddress(path)


def parse_listen_list(text: str) -> tuple[ListenAddress, ...]:
    """Comma-separated addresses, each once. Raises ConfigError."""
    return tuple(parse_listen(part) for part in text.split(","))


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
        return True
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return False
        return True
    return _HOST_NAME.fullmatch(host) is not None
