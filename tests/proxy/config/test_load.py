from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.config.load import SETTINGS, load, load_admin, load_settings
from proxy.config.schema import AuthMode, ClientTls, PoolMode, Settings, TcpAddress, UnixAddress
from proxy.config.url import Secret
from proxy.errors import ConfigError

URL = "postgresql://app:hunter2@db/shop"
ENVIRONMENT = {"DATABASE_URL": URL}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pgsluice.toml"


def from_environment(**variables: str) -> Settings:
    return load_settings({}, {**ENVIRONMENT, **variables})


def refused(
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags or {}, {**ENVIRONMENT, **(environment or {})}, file)
    line = str(caught.value)
    assert line.isprintable()
    assert "hunter2" not in line
    return line


class TestPrecedence:
    def test_a_database_url_is_enough(self) -> None:
        settings = load_settings({}, ENVIRONMENT)
        assert settings.primary.password == Secret("hunter2")
        assert settings.pool.size == 20

    def test_flag_environment_file_default(self, file: Path) -> None:
        file.write_text("workers = 2\n[pool]\nsize = 2\nwait_timeout = 2\nmode = 'session'")
        environment = {**ENVIRONMENT, "PGSLUICE_POOL_SIZE": "3", "PGSLUICE_POOL_WAIT_TIMEOUT": "3"}
        settings = load_settings({"pool.size": "4", "workers": None}, environment, file)
        assert settings.pool.size == 4
        assert settings.pool.wait_timeout == 3.0
        assert settings.workers == 2
        assert settings.pool.mode is PoolMode.SESSION
        assert settings.server.connect_timeout == 5.0

    def test_the_origin_of_each_is_known(self, file: Path) -> None:
        file.write_text("pool_mode = 'session'\nauth = 'scram'")
        loaded = load({"workers": "2", "pool.size": 4}, ENVIRONMENT, file)
        assert loaded.origins == {
            "workers": "--workers",
            "pool.size": "--pool-size",
            "primary": "DATABASE_URL",
            "pool.mode": f"pool_mode in {file}",
            "auth.mode": f"auth in {file}",
        }

    def test_a_list_is_replaced_not_added_to(self, file: Path) -> None:
        file.write_text("listen = ['127.0.0.1:1']")
        settings = load_settings({"listen": ["[::1]:2", "unix:/s"]}, ENVIRONMENT, file)
        assert settings.listen == (TcpAddress("::1", 2), UnixAddress("/s"))

    def test_the_file_may_be_named_by_the_environment_and_the_flag_wins(
        self, file: Path, tmp_path: Path
    ) -> None:
        file.write_text("workers = 2")
        other = tmp_path / "other.toml"
        other.write_text("workers = 3")
        environment = {**ENVIRONMENT, "PGSLUICE_CONFIG": str(file)}
        assert load_settings({}, environment).workers == 2
        assert load_settings({}, environment, other).workers == 3

    def test_without_a_primary_there_is_nothing_to_do(self) -> None:
        with pytest.raises(ConfigError, match=r"^DATABASE_URL: not set"):
            load_settings({}, {})

    def test_the_applications_own_url_does_not_disturb(self) -> None:
        settings = from_environment(PGSLUICE_PRIMARY="postgresql://other:pw@elsewhere/x")
        assert settings.primary.host == "elsewhere"


class TestEnvironment:
    def test_every_setting_in_every_spelling(self, tmp_path: Path) -> None:
        values = {
            "listen": "127.0.0.1:1,unix:/s", "admin": "127.0.0.1:2", "admin_public": "true", "primary": URL,
            "workers": "2", "pool.size": "3", "pool.mode": "session", "pool.wait_timeout": "0.5",
            "auth.mode": "scram", "auth.file": "/users", "client.tls": "off", "client.tls_cert": "/c",
            "client.tls_key": "/k", "client.login_timeout": "7", "server.connect_timeout": "1.5",
            "server.prepared_statements": "9", "log.level": "debug", "log.format": "json",
            "statistics.max_fingerprints": "10",
        }  # fmt: skip
        assert set(values) == set(SETTINGS)
        settings = []
        for spelling in (0, -1):
            environment = {SETTINGS[name].environment[spelling]: value for name, value in values.items()}
            settings.append(load_settings({}, environment))
        assert settings[0] == settings[1]
        assert settings[0].listen == (TcpAddress("127.0.0.1", 1), UnixAddress("/s"))
        assert settings[0].pool.wait_timeout == 0.5
        assert settings[0].auth.file == Path("/users")
        assert settings[0].statistics.max_fingerprints == 10

    @pytest.mark.parametrize("text", ["true", "YES", "on", "1"])
    def test_true(self, text: str) -> None:
        assert from_environment(PGSLUICE_ADMIN_PUBLIC=text).admin_public

    @pytest.mark.parametrize("text", ["false", "No", "off", "0"])
    def test_false(self, text: str) -> None:
        assert not from_environment(PGSLUICE_ADMIN_PUBLIC=text).admin_public

    def test_both_spellings_at_once_are_a_mistake(self) -> None:
        line = refused(environment={"PGSLUICE_POOL_SIZE": "3", "PGSLUICE_POOL__SIZE": "3"})
        assert line == "PGSLUICE_POOL__SIZE: given as PGSLUICE_POOL_SIZE too; allowed: one of them"

    @pytest.mark.parametrize(
        ("variable", "suggestion"),
        [
            ("PGSLUICE_POOL_SISE", "PGSLUICE_POOL_SIZE"),
            ("PGSLUICE_POOLSIZE", "PGSLUICE_POOL_SIZE"),
            ("PGSLUICE_PRIMRAY", "PGSLUICE_PRIMARY"),
            ("PGSLUICE_CONFIG_FILE", "PGSLUICE_CONFIG"),
            ("PGSLUICE_POOL_SIZE_FILE", "PGSLUICE_POOL_SIZE"),
        ],
    )
    def test_what_is_unknown_is_a_mistake(self, variable: str, suggestion: str) -> None:
        line = refused(environment={variable: "hunter2"})
        assert line == f"{variable}: no such setting; did you mean {suggestion}?"

    def test_what_resembles_nothing_is_a_mistake_too(self) -> None:
        assert refused(environment={"PGSLUICE_XYZZY": "1"}).startswith("PGSLUICE_XYZZY: no such setting")

    def test_other_programs_variables_are_theirs(self) -> None:
        assert (
            from_environment(PGHOST="x", PGSLUICER="1", pgsluice_pool_size="1", PATH="/bin").pool.size == 20
        )

    def test_what_kubernetes_says_of_a_service_with_our_name_is_no_setting(self) -> None:
        for service in ("PGSLUICE", "PGSLUICE_ADMIN"):
            from_environment(
                **{
                    f"{service}_SERVICE_HOST": "10.0.0.1",
                    f"{service}_SERVICE_PORT": "6432",
                    f"{service}_SERVICE_PORT_POSTGRES": "6432",
                    f"{service}_PORT": "tcp://10.0.0.1:6432",
                    f"{service}_PORT_6432_TCP": "tcp://10.0.0.1:6432",
                    f"{service}_PORT_6432_TCP_PROTO": "tcp",
                    f"{service}_PORT_6432_TCP_PORT": "6432",
                    f"{service}_PORT_6432_TCP_ADDR": "10.0.0.1",
                }
            )
        assert "no such setting" in refused(environment={"PGSLUICE_PORT": "6432"})


class TestSecretFiles:
    @pytest.mark.parametrize("variable", ["DATABASE_URL_FILE", "PGSLUICE_PRIMARY_FILE"])
    @pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
    def test_a_secret_may_come_from_a_file(self, variable: str, ending: str, tmp_path: Path) -> None:
        secret = tmp_path / "url"
        secret.write_bytes((URL + ending).encode())
        settings = load_settings({}, {variable: str(secret)})
        assert settings.primary.password == Secret("hunter2")
        assert settings.primary.database == "shop"

    def test_only_one_line_break_is_taken_off(self, tmp_path: Path) -> None:
        secret = tmp_path / "url"
        secret.write_text(URL + "\n\n")
        with pytest.raises(ConfigError, match=r"^DATABASE_URL_FILE: "):
            load_settings({}, {"DATABASE_URL_FILE": str(secret)})

    def test_both_are_a_mistake(self) -> None:
        line = refused(environment={"DATABASE_URL_FILE": "/x"})
        assert line == "DATABASE_URL_FILE: given together with DATABASE_URL; allowed: one of them"

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        path = tmp_path / "none"
        with pytest.raises(ConfigError) as caught:
            load_settings({}, {"DATABASE_URL_FILE": str(path)})
        wanted = "a file that can be read (No such file or directory)"
        assert str(caught.value) == f"DATABASE_URL_FILE is '{path}'; allowed: {wanted}"

    def test_the_file_of_users_is_a_setting(self) -> None:
        assert from_environment(PGSLUICE_AUTH_FILE="/users").auth.file == Path("/users")


class TestFile:
    def test_sections_and_flat_names_are_the_same(self, file: Path) -> None:
        file.write_text(
            f"primary = '{URL}'\nlisten = '127.0.0.1:1, unix:/s'\nadmin = 'off'\nauth = 'trust'\n"
            "pool_size = 3\nclient_tls = 'require'\nclient_tls_cert = '/c'\nclient_tls_key = '/k'"
        )
        flat = load_settings({}, {}, file)
        file.write_text(
            f"primary = '{URL}'\nlisten = ['127.0.0.1:1', 'unix:/s']\nadmin = 'off'\nauth.mode = 'trust'\n"
            "[pool]\nsize = 3\n[client]\ntls = 'require'\ntls_cert = '/c'\ntls_key = '/k'"
        )
        assert load_settings({}, {}, file) == flat
        assert flat.pool.size == 3
        assert flat.admin is None
        assert flat.auth.mode is AuthMode.TRUST
        assert flat.client.tls is ClientTls.REQUIRE

    @pytest.mark.parametrize(
        "text",
        [
            "pool_size = 3\n[pool]\nsize = 3",
            "auth = 'trust'\nauth_mode = 'trust'",
            "auth_mode = 'trust'\n[auth]\nmode='trust'",
        ],
    )
    def test_both_spellings_at_once_are_a_mistake(self, text: str, file: Path) -> None:
        file.write_text(text)
        assert "too; allowed: one" in refused(file=file)

    def test_home_is_expanded_in_paths(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/app")
        file.write_text("auth_file = '~/users.txt'")
        assert load_settings({}, ENVIRONMENT, file).auth.file == Path("/home/app/users.txt")

    @pytest.mark.parametrize(
        ("text", "name", "hint"),
        [
            ("pool_sise = 3", "pool_sise", "did you mean pool_size?"),
            ("[pool]\nsise = 3", "pool.sise", "did you mean pool.size?"),
            ("[pol]\nsize = 3", "pol", "did you mean pool?"),
            ("[pool]\nxyzzy = 3", "pool.xyzzy", "allowed: pool.mode, pool.size, pool.wait_timeout"),
            ("Workers = 3", "Workers", "did you mean workers?"),
            ("xyzzy = 'hunter2'", "xyzzy", ""),
            ("pasword = 'hunter2'", "pasword", ""),
        ],
    )
    def test_what_is_unknown_is_a_mistake(self, text: str, name: str, hint: str, file: Path) -> None:
        file.write_text(text)
        line = refused(file=file)
        assert line.startswith(f"{name} in {file}: no such setting")
        assert hint in line

    def test_a_section_is_a_table(self, file: Path) -> None:
        file.write_text("pool = 3")
        assert refused(file=file) == f"pool in {file} is 3; allowed: a section, [pool]"

    @pytest.mark.parametrize("text", ["[pool\nsize = 3", "\n\nsize = ", "a = 1\na = 2", "x = 'hunter2"])
    def test_bad_toml_names_file_and_line(self, text: str, file: Path) -> None:
        file.write_text(text)
        line = refused(file=file)
        assert line.startswith(str(file))
        assert "not TOML" in line

    def test_the_line_is_the_right_one(self, file: Path) -> None:
        file.write_text("workers = 1\n\nsize = [}\n")
        assert refused(file=file).startswith(f"{file}, line 3, column 9: not TOML: ")

    def test_a_file_must_be_utf_8(self, file: Path) -> None:
        file.write_bytes(b"# one\n# two\nx = '\xff'")
        assert "UTF-8 (line 3" in refused(file=file)

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        assert refused(file=tmp_path).startswith(
            f"--config is '{tmp_path}'; allowed: a file that can be read"
        )
        line = refused(environment={"PGSLUICE_CONFIG": str(tmp_path / "none")})
        assert line.startswith(f"PGSLUICE_CONFIG is '{tmp_path / 'none'}'; allowed: a file that can be read")
        assert "path of a file" in refused(environment={"PGSLUICE_CONFIG": "a\0b"})


class TestValues:
    @pytest.mark.parametrize(
        ("variable", "text", "allowed"),
        [
            ("PGSLUICE_POOL_SIZE", "many", "a whole number from 1 to 10000"),
            ("PGSLUICE_POOL_SIZE", "", "a whole number from 1 to 10000"),
            ("PGSLUICE_POOL_SIZE", "0", "a whole number from 1 to 10000"),
            ("PGSLUICE_POOL_SIZE", "10001", "a whole number from 1 to 10000"),
            ("PGSLUICE_POOL_SIZE", "1.5", "a whole number from 1 to 10000"),
            ("PGSLUICE_POOL_SIZE", "1_000", "a whole number from 1 to 10000"),
            ("PGSLUICE_POOL_SIZE", "\u0663", "a whole number from 1 to 10000"),
            ("PGSLUICE_POOL_SIZE", "9" * 5000, "a whole number from 1 to 10000"),
            ("PGSLUICE_POOL__SIZE", "-3", "a whole number from 1 to 10000"),
            ("PGSLUICE_WORKERS", "auto", "a whole number from 1 to 256"),
            ("PGSLUICE_POOL_MODE", "statement", "transaction or session"),
            ("PGSLUICE_POOL_MODE", "Session", "transaction or session"),
            ("PGSLUICE_POOL_WAIT_TIMEOUT", "nan", "a number of seconds from 0.001 to 86400"),
            ("PGSLUICE_POOL_WAIT_TIMEOUT", "inf", "a number of seconds from 0.001 to 86400"),
            ("PGSLUICE_POOL_WAIT_TIMEOUT", "30s", "a number of seconds from 0.001 to 86400"),
            ("PGSLUICE_POOL_WAIT_TIMEOUT", "0", "a number of seconds from 0.001 to 86400"),
            ("PGSLUICE_ADMIN_PUBLIC", "maybe", "true or false"),
            ("PGSLUICE_AUTH", "yes", "auto or scram or trust"),
            ("PGSLUICE_AUTH_FILE", "", "the path of a file"),
            ("PGSLUICE_LISTEN", "6432", "HOST:PORT, [IPv6]:PORT or unix:PATH"),
            ("PGSLUICE_LISTEN", "", "HOST:PORT, [IPv6]:PORT or unix:PATH"),
            ("PGSLUICE_ADMIN", "on", 'HOST:PORT, [IPv6]:PORT, or "off"'),
            ("PGSLUICE_LISTEN", "postgresql://app:hunter2@db:5432", "HOST:PORT"),
            ("PGSLUICE_LOG_LEVEL", "trace", "debug or info or warning or error"),
        ],
    )
    def test_in_the_environment(self, variable: str, text: str, allowed: str) -> None:
        line = refused(environment={variable: text})
        assert line.startswith(f"{variable} is ")
        assert f"; allowed: {allowed}" in line

    @pytest.mark.parametrize(
        ("text", "name", "shown"),
        [
            ("pool_size = '20'", "pool_size", "'20'"),
            ("pool.size = true", "pool.size", "true"),
            ("pool.size = 20.0", "pool.size", "20.0"),
            ("pool.size.x = 1", "pool.size", "a table"),
            ("pool.wait_timeout = inf", "pool.wait_timeout", "inf"),
            ("pool.wait_timeout = nan", "pool.wait_timeout", "nan"),
            ("pool.wait_timeout = true", "pool.wait_timeout", "true"),
            ("pool.mode = 1", "pool.mode", "1"),
            ("auth = true", "auth", "true"),
            ("auth_file = 3", "auth_file", "3"),
            ("admin_public = 1", "admin_public", "1"),
            ("listen = []", "listen", "[]"),
            ("listen = 6432", "listen", "6432"),
            ("listen = [6432]", "listen", "[6432]"),
            ("listen = [['127.0.0.1:1']]", "listen", "[['127.0.0.1:1']]"),
            ("listen = ['x']", "listen", "'x'"),
            ("admin = false", "admin", "false"),
            ("admin = 9187", "admin", "9187"),
            ("workers = 1979-05-27", "workers", "'1979-05-27'"),
        ],
    )
    def test_in_the_file(self, text: str, name: str, shown: str, file: Path) -> None:
        file.write_text(text)
        assert refused(file=file).startswith(f"{name} in {file} is {shown}; allowed: ")

    def test_of_a_flag(self) -> None:
        line = refused(flags={"pool.size": "0"})
        assert line == "--pool-size is '0'; allowed: a whole number from 1 to 10000"
        assert refused(flags={"listen": ["127.0.0.1:1", "x"]}).startswith("--listen is 'x'; allowed: ")
        assert "did you mean pool.size?" in refused(flags={"pool.sise": "0"})

    def test_of_the_url_only_what_is_wrong_is_said(self, file: Path) -> None:
        url = f"{URL}?sslmode=full"
        wrong = "sslmode is 'full'; allowed: disable, allow, prefer, require, verify-ca, verify-full"
        assert refused(environment={"DATABASE_URL": url}) == f"DATABASE_URL: {wrong}"
        assert refused(environment={"PGSLUICE_PRIMARY": url}) == f"PGSLUICE_PRIMARY: {wrong}"
        assert refused(flags={"primary": url}) == f"--primary: {wrong}"
        file.write_text("primary = 3")
        with pytest.raises(ConfigError) as caught:
            load_settings({}, {}, file)
        assert str(caught.value).startswith(f"primary in {file}: a URL like postgresql://")

    def test_what_does_not_fit_together_is_named_as_it_was_written(self) -> None:
        line = refused(
            flags={"listen": ["0.0.0.0:6432"]}, environment={"DATABASE_URL": "postgresql://app@db/shop"}
        )
        assert line.startswith("--listen is '0.0.0.0:6432'; allowed: loopback or unix:PATH")
        assert refused(environment={"PGSLUICE_CLIENT_TLS": "require"}).startswith(
            "client.tls_cert: a PEM file"
        )


class TestAdminAlone:
    def test_it_needs_no_primary(self, file: Path) -> None:
        assert load_admin({}, {}) == TcpAddress("127.0.0.1", 9187)
        file.write_text("admin = '0.0.0.0:2'")
        assert load_admin({}, {}, file) == TcpAddress("0.0.0.0", 2)
        assert load_admin({}, {"PGSLUICE_ADMIN": "off"}, file) is None
        assert load_admin({"admin": "[::1]:4"}, {"PGSLUICE_ADMIN": "off"}, file) == TcpAddress("::1", 4)

    @pytest.mark.parametrize(("text", "line"), [("'x'", "admin in {} is 'x'"), ("3", "admin in {} is 3")])
    def test_a_mistake_is_named(self, text: str, line: str, file: Path) -> None:
        file.write_text(f"admin = {text}")
        with pytest.raises(ConfigError) as caught:
            load_admin({}, {}, file)
        assert str(caught.value).startswith(line.format(file))
