"""Settings that can't be: one line on standard error, exit code 2. And secrets: nowhere to be read."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from support.certificates import write_private
from support.ports import free_port
from support.postgres import PASSWORD, SUPERUSER
from support.proxy import PgsluiceProcess
from support.wire import ServerError, WireConnection

from proxy.demo.embedded import PostgresServer

SECRET = "s3cr3t/not:to@be?seen"
QUOTED_SECRET = "s3cr3t%2Fnot%3Ato%40be%3Fseen"
PRIMARY = f"postgresql://app:{QUOTED_SECRET}@127.0.0.1:5432/shop"


def pgsluice(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "PGSLUICE_")) and name != "DATABASE_URL"
    }
    return subprocess.run(
        [sys.executable, "-P", "-m", "proxy.cli", *arguments],
        env=inherited | ({"DATABASE_URL": PRIMARY} if environment is None else dict(environment)),
        cwd=tempfile.gettempdir(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


def refused(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    for part in parts:
        assert part in line, line
    for secret in (SECRET, QUOTED_SECRET):
        assert secret not in line


# Arguments, environment, contents of the settings file; what the line must hold.
WRONG: dict[str, tuple[Sequence[str], Mapping[str, str], str | None, Sequence[str]]] = {
    "misspelt in the environment": ((), {"PGSLUICE_POOL__SIZ": "3"}, None, ("PGSLUICE_POOL__SIZ",)),
    "misspelt in the file": ((), {}, "[pool]\nsiez = 3\n", ("siez",)),
    "misspelt section": ((), {}, "[pol]\nsize = 3\n", ("pol",)),
    "misspelt flag": (("--pool-sise", "3"), {}, None, ("--pool-sise",)),
    "pool size of 0": (("--pool-size", "0"), {}, None, ("--pool-size", "0", "1")),
    "pool size in words": ((), {"PGSLUICE_POOL_SIZE": "many"}, None, ("PGSLUICE_POOL_SIZE", "many")),
    "pool size as text": ((), {}, '[pool]\nsize = "3"\n', ("size", "3")),
    "pool mode": ((), {"PGSLUICE_POOL_MODE": "statement"}, None, ("statement", "transaction", "session")),
    "wait timeout": ((), {"PGSLUICE_POOL__WAIT_TIMEOUT": "-1"}, None, ("PGSLUICE_POOL__WAIT_TIMEOUT", "-1")),
    "listen": (("--listen", "nonsense"), {}, None, ("--listen", "nonsense")),
    "port": (("--listen", "127.0.0.1:70000"), {}, None, ("127.0.0.1:70000",)),
    "address of another machine": (("--listen", "192.0.2.1:6432"), {}, None, ("192.0.2.1:6432",)),
    "name of no machine": (("--listen", "nowhere.invalid:6432"), {}, None, ("nowhere.invalid:6432",)),
    "admin for everybody": (("--admin", "0.0.0.0:0"), {}, None, ("0.0.0.0:0", "loopback")),
    "no file": (("--config", "/nonexistent/pgsluice.toml"), {}, None, ("/nonexistent/pgsluice.toml",)),
    "no TOML": ((), {}, "[pool\n", ("settings.toml",)),
    "no URL": ((), {"DATABASE_URL": f"app:{SECRET}@db"}, None, ("DATABASE_URL", "postgresql://")),
    "sslmode": ((), {"DATABASE_URL": f"{PRIMARY}?sslmode=verify"}, None, ("DATABASE_URL", "verify-full")),
    "no auth file": ((), {"PGSLUICE_AUTH__FILE": "/nonexistent/users"}, None, ("/nonexistent/users",)),
    "TLS without a certificate": ((), {"PGSLUICE_CLIENT__TLS": "require"}, None, ("client.tls_cert",)),
    "no root certificate": (
        (),
        {"DATABASE_URL": f"{PRIMARY}?sslmode=verify-ca&sslrootcert=/nonexistent/root.pem"},
        None,
        ("/nonexistent/root.pem",),
    ),
    "log level": ((), {"PGSLUICE_LOG__LEVEL": "loud"}, None, ("loud", "warning")),
    "both spellings": ((), {}, "pool_size = 3\n[pool]\nsize = 3\n", ("pool",)),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings(case: str, tmp_path: Path) -> None:
    arguments, environment, contents, parts = WRONG[case]
    given = ["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *arguments]
    for flag in ("--listen", "--admin"):
        if flag in arguments:
            del given[given.index(flag) : given.index(flag) + 2]
    if contents is not None:
        file = tmp_path / "settings.toml"
        file.write_text(contents)
        given += ["--config", str(file)]
    refused(pgsluice(*given, environment={"DATABASE_URL": PRIMARY} | dict(environment)), *parts)


def test_an_unreadable_file(tmp_path: Path) -> None:
    directory = tmp_path / "settings.toml"
    directory.mkdir()
    refused(pgsluice("run", "--config", str(directory)), str(directory))
    for variable in ("PGSLUICE_AUTH__FILE", "DATABASE_URL_FILE"):
        url = {} if variable == "DATABASE_URL_FILE" else {"DATABASE_URL": PRIMARY}
        refused(pgsluice("run", environment=url | {variable: str(directory)}), str(directory))


def test_a_broken_auth_file_is_named_with_its_line_and_without_its_secrets(tmp_path: Path) -> None:
    file = tmp_path / "users.txt"
    for line, reason in (
        (f'"app" {SECRET}', '"user" "secret"'),
        (f'"app" "SCRAM-SHA-256${SECRET}"', "SCRAM"),
    ):
        file.write_text(f'"first" "password"\n{line}\n')
        environment = {"DATABASE_URL": PRIMARY, "PGSLUICE_AUTH__FILE": str(file)}
        refused(pgsluice("run", environment=environment), f"{file}, line 2", reason)


@pytest.mark.parametrize("which", ["listen", "admin"])
def test_a_port_that_is_taken(which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "admin" if which == "listen" else "listen"
        result = pgsluice("run", f"--{which}", address, f"--{other}", "127.0.0.1:0")
        refused(result, f"--{which}", address, "free")


def test_a_socket_that_is_taken(newest_postgres: PostgresServer, tmp_path: Path) -> None:
    path = Path(tempfile.mkdtemp()) / ".s.PGSQL.6432"
    try:
        with PgsluiceProcess(newest_postgres.url(), listen=(f"unix:{path}",)):
            refused(
                pgsluice("run", "--listen", f"unix:{path}", "--admin", "127.0.0.1:0"), str(path), "in use"
            )
            assert path.is_socket()
        assert not path.exists()
        path.write_text("something else")
        refused(pgsluice("run", "--listen", f"unix:{path}", "--admin", "127.0.0.1:0"), str(path))
        assert path.read_text() == "something else"
    finally:
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def test_a_socket_left_behind_is_taken_over(newest_postgres: PostgresServer) -> None:
    path = Path(tempfile.mkdtemp()) / ".s.PGSQL.6432"
    try:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        with PgsluiceProcess(newest_postgres.url(), listen=(f"unix:{path}",)) as process:
            assert process.ready["listen"] == [f"unix:{path}"]
    finally:
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def test_check_config_finds_the_same(tmp_path: Path) -> None:
    refused(pgsluice("check-config", "--pool-size", "0"), "--pool-size")
    result = pgsluice("check-config", "--pool-size", "7")
    assert result.returncode == 0, result.stderr
    assert "pool.size = 7" in result.stdout
    assert SECRET not in result.stdout
    assert QUOTED_SECRET not in result.stdout


def test_the_ready_line(newest_postgres: PostgresServer, tmp_path: Path) -> None:
    """By it others find the ports: exactly one, with every address."""
    process = PgsluiceProcess(newest_postgres.url(), listen=("127.0.0.1:0", "[::1]:0"))
    with process:
        (ready,) = process.events_named("ready")
        first, second = ready["listen"]
        assert first.startswith("127.0.0.1:")
        assert second.startswith("[::1]:")
        assert not first.endswith(":0")
        assert ready["admin"].startswith("127.0.0.1:")
        assert ready["primary"] == f"127.0.0.1:{newest_postgres.port}"
        assert process.get("/livez") == (200, b"ok")


async def test_settings_from_a_file_and_what_goes_before_it(
    newest_postgres: PostgresServer, tmp_path: Path
) -> None:
    """Flag before environment before file."""
    file = tmp_path / "pgsluice.toml"
    file.write_text("[pool]\nsize = 2\nmode = 'session'\nwait_timeout = 7\n")
    process = PgsluiceProcess(
        newest_postgres.url(),
        arguments=("--config", str(file), "--pool-size", "4"),
        settings={"POOL_SIZE": "3", "POOL_MODE": "transaction"},
    )
    with process:
        async with await WireConnection.login(*process.address, SUPERUSER, PASSWORD) as session:
            assert await session.value("SELECT 1") == "1"
        metrics = process.get("/metrics")[1].decode()
        assert 'pgsluice_pool_size{database="postgres",user="postgres"} 4.0' in metrics
        assert 'mode="transaction"' in metrics


def test_a_password_from_a_file(
    newest_postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = write_private(tmp_path / "url", newest_postgres.url().encode() + b"\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(secret))
    with PgsluiceProcess(None) as process:
        process.wait_for("primary reached")


async def test_secrets_are_nowhere_to_be_read(newest_postgres: PostgresServer, tmp_path: Path) -> None:
    """Logs at their most talkative, metrics and API after all that could bring a password into them."""
    users = tmp_path / "users.txt"
    users.write_text(f'"somebody" "{SECRET}"\n')
    settings = {"AUTH__FILE": str(users), "LOG__LEVEL": "debug", "POOL__WAIT_TIMEOUT": "0.3"}
    with PgsluiceProcess(newest_postgres.url(), settings=settings) as process:
        async with await WireConnection.login(*process.address, SUPERUSER, PASSWORD) as session:
            await session.query(f"SELECT 'a literal: {SECRET}'")
            await session.query(f"SELEC '{SECRET}'")
            await session.query(f"ALTER ROLE nobody PASSWORD '{SECRET}'")
            await session.query(f"SELECT $pw${SECRET}$pw$, E'{SECRET}', U&'{SECRET}'")
        for user, password in (("somebody", SECRET), (SUPERUSER, SECRET)):
            with pytest.raises(ServerError):
                await WireConnection.login(*process.address, user, password)
        queries = process.get("/api/queries")[1].decode()
        assert "ALTER ROLE" in queries.upper()
        said = process.get("/metrics")[1].decode() + queries + process.get("/readyz")[1].decode()
        for secret in (SECRET, QUOTED_SECRET, PASSWORD):
            assert secret not in said
    for secret in (SECRET, QUOTED_SECRET, PASSWORD):
        assert secret not in process.log
