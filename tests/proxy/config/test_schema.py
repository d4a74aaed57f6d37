import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from proxy.config.schema import (
    AuthMode,
    AuthSettings,
    ClientSettings,
    ClientTls,
    ListenAddress,
    PoolMode,
    Settings,
    TcpAddress,
    UnixAddress,
    all_settings,
    toml,
)
from proxy.config.url import parse_url
from proxy.errors import ConfigError

WITH_PASSWORD = parse_url("postgresql://app:secret@db/shop")
WITHOUT_PASSWORD = parse_url("postgresql://app@db/shop")
EVERYWHERE = TcpAddress("0.0.0.0", 6432)


def test_defaults() -> None:
    settings = Settings(primary=WITH_PASSWORD)
    assert settings.listen == (TcpAddress("127.0.0.1", 6432),)
    assert settings.admin == TcpAddress("127.0.0.1", 9187)
    assert settings.workers == 1
    assert settings.pool.size == 20
    assert settings.pool.mode is PoolMode.TRANSACTION
    assert settings.pool.wait_timeout == 30.0
    assert settings.auth.mode is AuthMode.AUTO
    assert settings.auth.file is None
    assert settings.client.tls is ClientTls.OFF
    assert settings.client.login_timeout == 60.0
    assert settings.server.connect_timeout == 5.0
    assert settings.server.prepared_statements == 200
    assert settings.statistics.max_fingerprints == 5000


def test_settings_cannot_be_changed_and_take_nothing_unknown() -> None:
    settings = Settings(primary=WITH_PASSWORD)
    with pytest.raises(ValidationError):
        settings.pool.size = 3
    with pytest.raises(ValidationError):
        Settings.model_validate({"primary": WITH_PASSWORD, "pool": {"sise": 3}})


def test_the_password_does_not_print() -> None:
    assert "secret" not in repr(Settings(primary=WITH_PASSWORD)) + str(Settings(primary=WITH_PASSWORD))


class TestTrust:
    """A server that needs no password makes an open door of a proxy that anybody reaches."""

    @pytest.mark.parametrize(
        "address",
        [TcpAddress("127.0.0.1", 1), TcpAddress("::1", 1), TcpAddress("localhost", 1), UnixAddress("/s")],
    )
    def test_close_by_is_fine(self, address: ListenAddress) -> None:
        assert Settings(primary=WITHOUT_PASSWORD, listen=(address,)).trusts_clients

    @pytest.mark.parametrize("address", [EVERYWHERE, TcpAddress("::", 1), TcpAddress("db-proxy", 1)])
    def test_beyond_loopback_is_refused(self, address: TcpAddress) -> None:
        with pytest.raises(ConfigError) as caught:
            Settings(primary=WITHOUT_PASSWORD, listen=(UnixAddress("/s"), address))
        assert caught.value.setting == "listen"
        assert caught.value.value == str(address)
        assert 'auth = "trust"' in caught.value.allowed

    def test_unless_it_is_written_out(self) -> None:
        settings = Settings(
            primary=WITHOUT_PASSWORD, listen=(EVERYWHERE,), auth=AuthSettings(mode=AuthMode.TRUST)
        )
        assert settings.trusts_clients

    def test_a_password_or_a_file_of_users_closes_the_door(self) -> None:
        assert not Settings(primary=WITH_PASSWORD, listen=(EVERYWHERE,)).trusts_clients
        users = AuthSettings(file=Path("users.txt"))
        assert not Settings(primary=WITHOUT_PASSWORD, listen=(EVERYWHERE,), auth=users).trusts_clients

    def test_an_empty_password_is_none(self) -> None:
        with pytest.raises(ConfigError):
            Settings(primary=parse_url("postgresql://app:@db"), listen=(EVERYWHERE,))

    def test_scram_needs_something_to_check_against(self) -> None:
        with pytest.raises(ConfigError, match=r"^auth\.mode is 'scram'"):
            Settings(primary=WITHOUT_PASSWORD, auth=AuthSettings(mode=AuthMode.SCRAM))
        assert not Settings(primary=WITH_PASSWORD, auth=AuthSettings(mode=AuthMode.SCRAM)).trusts_clients


class TestAdmin:
    def test_off_is_none(self) -> None:
        assert Settings.model_validate({"primary": WITH_PASSWORD, "admin": "off"}).admin is None

    def test_beyond_loopback_it_must_be_public_in_so_many_words(self) -> None:
        with pytest.raises(ConfigError, match=r"^admin is '0\.0\.0\.0:9187'.*admin_public = true"):
            Settings(primary=WITH_PASSWORD, admin=TcpAddress("0.0.0.0", 9187))
        assert Settings(primary=WITH_PASSWORD, admin=TcpAddress("0.0.0.0", 9187), admin_public=True).admin


class TestClientTls:
    @pytest.mark.parametrize("mode", [ClientTls.ALLOW, ClientTls.REQUIRE])
    def test_it_needs_both_files(self, mode: ClientTls) -> None:
        with pytest.raises(ConfigError, match=r"^client\.tls_cert:"):
            Settings(primary=WITH_PASSWORD, client=ClientSettings(tls=mode, tls_key=Path("k")))
        with pytest.raises(ConfigError, match=r"^client\.tls_key:"):
            Settings(primary=WITH_PASSWORD, client=ClientSettings(tls=mode, tls_cert=Path("c")))
        both = ClientSettings(tls=mode, tls_cert=Path("c"), tls_key=Path("k"))
        assert Settings(primary=WITH_PASSWORD, client=both).client.tls is mode

    def test_files_without_tls_are_a_mistake_unless_it_is_off_in_so_many_words(self) -> None:
        with pytest.raises(ConfigError, match=r"client\.tls_cert"):
            Settings(primary=WITH_PASSWORD, client=ClientSettings(tls_cert=Path("c"), tls_key=Path("k")))
        off = ClientSettings(tls=ClientTls.OFF, tls_cert=Path("c"), tls_key=Path("k"))
        assert Settings(primary=WITH_PASSWORD, client=off).client.tls is ClientTls.OFF


def test_the_same_address_twice_is_a_mistake_but_for_any_free_port() -> None:
    with pytest.raises(ConfigError, match="each address once"):
        Settings(primary=WITH_PASSWORD, listen=(TcpAddress("127.0.0.1", 1), TcpAddress("127.0.0.1", 1)))
    free = TcpAddress("127.0.0.1", 0)
    assert Settings(primary=WITH_PASSWORD, listen=(free, free)).listen == (free, free)


def test_the_urls_connect_timeout_wins() -> None:
    assert Settings(primary=WITH_PASSWORD).connect_timeout == 5.0
    assert Settings(primary=parse_url("postgresql://a:b@db?connect_timeout=7")).connect_timeout == 7.0


class TestReference:
    """The table of settings that documentation is made from."""

    def test_every_setting_says_what_it_means_and_what_is_allowed(self) -> None:
        for setting in all_settings():
            assert re.match(r"[A-Za-z].*[.\"]$", setting.meaning), setting.name
            assert setting.allowed, setting.name
            assert "None" not in setting.allowed, setting.name

    def test_defaults_are_as_the_file_would_have_them(self) -> None:
        for setting in all_settings():
            if setting.default:
                value = tomllib.loads(f"x = {setting.default}")["x"]
                tree: dict[str, object] = {"primary": WITH_PASSWORD}
                section, _, key = setting.name.rpartition(".")
                tree.update({section: {key: value}} if section else {key: value})
                assert Settings.model_validate(tree) == Settings(primary=WITH_PASSWORD), setting.name

    def test_names_are_unique_in_every_spelling(self) -> None:
        settings = list(all_settings())
        variables = [name for setting in settings for name in setting.environment]
        variables += [
            f"{name}_FILE" for setting in settings if setting.secret for name in setting.environment
        ]
        flat = [setting.flat for setting in settings]
        assert len(set(variables)) == len(variables)
        assert len(set(flat)) == len(flat)

    def test_a_row(self) -> None:
        row = next(setting for setting in all_settings() if setting.name == "pool.wait_timeout")
        assert row.environment == ("PGSLUICE_POOL_WAIT_TIMEOUT", "PGSLUICE_POOL__WAIT_TIMEOUT")
        assert row.default == "30"
        assert row.allowed == "a number of seconds from 0.001 to 86400"
        assert row.meaning.endswith("In seconds.")


def test_each_worker_needs_a_server_connection() -> None:
    assert Settings(primary=WITH_PASSWORD, workers=20).workers == 20
    with pytest.raises(ConfigError, match=r"pool\.size is 20; allowed: at least workers, which is 21"):
        Settings(primary=WITH_PASSWORD, workers=21)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (20, "20"),
        (30.0, "30"),
        (0.25, "0.25"),
        ((TcpAddress("::1", 1), UnixAddress("/s")), '["[::1]:1", "unix:/s"]'),
        (PoolMode.SESSION, '"session"'),
        (Path('a"b\\c'), '"a\\"b\\\\c"'),
        (WITH_PASSWORD, '"postgresql://app:***@db:5432/shop?sslmode=prefer"'),
    ],
)
def test_values_as_toml(value: object, text: str) -> None:
    assert toml(value) == text
    tomllib.loads(f"x = {text}")
