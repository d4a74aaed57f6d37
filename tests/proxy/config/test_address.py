import pytest

from proxy.config.address import TcpAddress, UnixAddress, parse_listen, parse_listen_list, parse_tcp
from proxy.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:6432", TcpAddress("127.0.0.1", 6432)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:6432", TcpAddress("::1", 6432)),
        ("[fe80::1%eth0]:65535", TcpAddress("fe80::1%eth0", 65535)),
        ("db-proxy.example.com:5432", TcpAddress("db-proxy.example.com", 5432)),
        ("my_service:5432", TcpAddress("my_service", 5432)),
        ("unix:/run/pgsluice/.s.PGSQL.5432", UnixAddress("/run/pgsluice/.s.PGSQL.5432")),
        ("unix:socket", UnixAddress("socket")),
    ],
)
def test_addresses_are_read_and_print_back(text: str, address: TcpAddress | UnixAddress) -> None:
    assert parse_listen(text) == address
    assert parse_listen(f" {text} ") == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "6432", ":6432", "localhost", "localhost:", "localhost:x", "localhost:65536", "localhost:-1",
        "localhost:+1", "localhost:\u0661", "::1:6432", "[::1]", "[::1:6432", "[127.0.0.1]:6432", "[]:6432",
        "256.0.0.1:6432", "1.2.3:6432", "a b:6432", "-a:1", "http://localhost:6432", "*:6432", "unix:",
        "unix:/run/", "unix:/a\0b", f"{'a' * 300}:1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_listen(text)
    assert caught.value.setting == "listen"
    assert "HOST:PORT" in caught.value.allowed


def test_a_socket_path_longer_than_the_system_takes_is_refused() -> None:
    assert parse_listen("unix:/" + "a" * 106)
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        parse_listen("unix:/" + "a" * 107)
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        parse_listen("unix:/" + "ä" * 60)


def test_an_error_names_the_setting_it_is_for() -> None:
    with pytest.raises(ConfigError, match=r"^admin is 'x'; allowed: this$"):
        parse_tcp("x", setting="admin", allowed="this")


def test_several_are_separated_by_commas() -> None:
    assert parse_listen_list("127.0.0.1:1, unix:/s") == (TcpAddress("127.0.0.1", 1), UnixAddress("/s"))
    with pytest.raises(ConfigError):
        parse_listen_list("127.0.0.1:1,")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST.", "::ffff:127.0.0.1"]
)
def test_loopback(host: str) -> None:
    assert TcpAddress(host, 1).is_loopback


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", "::ffff:10.0.0.1", "1.127.0.0"],
)
def test_not_loopback(host: str) -> None:
    assert not TcpAddress(host, 1).is_loopback
