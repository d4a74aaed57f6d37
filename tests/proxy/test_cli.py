import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from proxy import build
from proxy.cli import main
from proxy.config.schema import Settings
from proxy.errors import ConfigError, StartupError

URL = "postgresql://app:hunter2@db/shop"
COMMANDS = ("run", "check-config", "demo", "version", "healthcheck")

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pgsluice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Call the command, with nothing of the outside environment: exit code, standard output and error."""
    for name in os.environ:
        if name.startswith(("PGSLUICE_", "DATABASE_URL")):
            monkeypatch.delenv(name)

    def invoke(*arguments: str, **variables: str) -> tuple[int, str, str]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        code = main(arguments)
        output, errors = capsys.readouterr()
        assert "hunter2" not in output + errors
        return code, output, errors

    return invoke


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings with which the proxy was started, by a composition root that starts nothing."""
    settings: list[Settings] = []
    application = ModuleType("proxy.workers")

    def run(given: Settings) -> int:
        settings.append(given)
        return 0

    application.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "proxy.workers", application)
    return settings


def failing_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    application = ModuleType("proxy.workers")

    def run(given: Settings) -> int:
        raise error

    application.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "proxy.workers", application)


class TestRun:
    def test_every_flag_arrives(self, pgsluice: Invoke, started: list[Settings], tmp_path: Path) -> None:
        config = tmp_path / "pgsluice.toml"
        config.write_text("[pool]\nwait_timeout = 7")
        code, output, errors = pgsluice(
            "run", "--config", str(config), "--listen", "127.0.0.1:0", "--listen", "unix:/tmp/s", "--admin",
            "off", "--primary", URL, "--pool-size", "3", "--pool-mode", "session", "--workers", "2",
        )  # fmt: skip
        assert (code, output, errors) == (0, "", "")
        (settings,) = started
        assert [str(address) for address in settings.listen] == ["127.0.0.1:0", "unix:/tmp/s"]
        assert settings.admin is None
        assert settings.primary.host == "db"
        assert settings.pool.size == 3
        assert settings.pool.mode == "session"
        assert settings.pool.wait_timeout == 7.0
        assert settings.workers == 2

    def test_every_flag_has_its_variable(
        self, pgsluice: Invoke, started: list[Settings], tmp_path: Path
    ) -> None:
        config = tmp_path / "pgsluice.toml"
        config.write_text("[pool]\nwait_timeout = 7")
        pgsluice(
            "run",
            PGSLUICE_CONFIG=str(config),
            PGSLUICE_LISTEN="127.0.0.1:0,unix:/tmp/s",
            PGSLUICE_ADMIN="off",
            DATABASE_URL=URL,
            PGSLUICE_POOL_SIZE="3",
            PGSLUICE_POOL_MODE="session",
            PGSLUICE_WORKERS="2",
        )
        pgsluice(
            "run", "--config", str(config), "--listen", "127.0.0.1:0", "--listen", "unix:/tmp/s", "--admin",
            "off", "--primary", URL, "--pool-size", "3", "--pool-mode", "session", "--workers", "2",
        )  # fmt: skip
        assert started[0] == started[1]

    def test_the_exit_code_is_the_proxys(self, pgsluice: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        application = ModuleType("proxy.workers")
        application.run = lambda settings: 3  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "proxy.workers", application)
        assert pgsluice("run", DATABASE_URL=URL)[0] == 3

    def test_what_the_proxy_refuses_is_named_as_the_user_wrote_it(
        self, pgsluice: Invoke, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failing_with(monkeypatch, ConfigError("listen", "127.0.0.1:80", "a free port"))
        code, _, errors = pgsluice("run", DATABASE_URL=URL, PGSLUICE_LISTEN="127.0.0.1:80")
        assert code == 2
        assert errors == "pgsluice: PGSLUICE_LISTEN is '127.0.0.1:80'; allowed: a free port\n"

    def test_other_reasons_not_to_start_are_one_line_too(
        self, pgsluice: Invoke, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failing_with(monkeypatch, StartupError("no more\nfile descriptors"))
        assert pgsluice("run", DATABASE_URL=URL) == (2, "", "pgsluice: no more file descriptors\n")

    def test_a_second_ctrl_c_is_no_traceback(self, pgsluice: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
        failing_with(monkeypatch, KeyboardInterrupt())  # type: ignore[arg-type]
        assert pgsluice("run", DATABASE_URL=URL) == (130, "", "")

    def test_files_are_tried_before_anything_is_started(
        self, pgsluice: Invoke, started: list[Settings], tmp_path: Path
    ) -> None:
        users = tmp_path / "none.txt"
        code, _, errors = pgsluice("run", DATABASE_URL=URL, PGSLUICE_AUTH_FILE=str(users))
        assert code == 2
        assert errors.startswith(
            f"pgsluice: PGSLUICE_AUTH_FILE is '{users}'; allowed: a file that can be read"
        )
        assert not started

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["--pool-size", "0"], "pgsluice: --pool-size is '0'; allowed: a whole number from 1 to 10000"),
            (["--pool-mode", "x"], "pgsluice: --pool-mode is 'x'; allowed: transaction or session"),
            (["--workers", ""], "pgsluice: --workers is ''; allowed: a whole number from 1 to 256"),
            (["--listen", "0.0.0.0"], "pgsluice: --listen is '0.0.0.0'; allowed: HOST:PORT, "),
            (["--admin", "0.0.0.0:1"], "pgsluice: --admin is '0.0.0.0:1'; allowed: a loopback address"),
            (["--config", "/none"], "pgsluice: --config is '/none'; allowed: a file that can be read"),
            (["--primary", "postgresql://a:hunter2@b:x"], "pgsluice: --primary: the port is not a number"),
            (["--pool-sise", "3"], "pgsluice run: No such option"),
            (["--pool-size"], "pgsluice: Option '--pool-size' requires an argument"),
            (["more"], "pgsluice run: Got unexpected extra argument"),
        ],
    )
    def test_wrong_use_is_one_line_and_code_2(
        self, arguments: list[str], line: str, pgsluice: Invoke, started: list[Settings]
    ) -> None:
        code, output, errors = pgsluice("run", *arguments, DATABASE_URL=URL)
        assert code == 2
        assert output == ""
        assert errors.count("\n") == 1
        assert errors.startswith(line)
        assert not started


class TestCheckConfig:
    def test_it_prints_what_is_in_effect_as_toml(self, pgsluice: Invoke) -> None:
        code, output, errors = pgsluice(
            "check-config", "--pool-size", "3", DATABASE_URL=URL, PGSLUICE_ADMIN="off"
        )
        assert (code, errors) == (0, "")
        tree = tomllib.loads(output)
        assert tree["pool"]["size"] == 3
        assert tree["admin"] == "off"
        assert tree["listen"] == ["127.0.0.1:6432"]
        assert tree["primary"] == "postgresql://app:***@db:5432/shop?sslmode=prefer"
        assert 'admin = "off"  # PGSLUICE_ADMIN\n' in output
        assert "workers = 1  # default, PGSLUICE_WORKERS sets it\n" in output
        assert "# auth.file is not set" in output
        assert "without a password" not in output

    def test_it_says_when_clients_are_trusted(self, pgsluice: Invoke) -> None:
        _, output, _ = pgsluice("check-config", DATABASE_URL="postgresql://app@db")
        assert output.startswith("# Clients log in without a password.\n")

    def test_it_tries_the_files(self, pgsluice: Invoke, tmp_path: Path) -> None:
        users = tmp_path / "users.txt"
        users.write_text('"app" "hunter2"\napp')
        code, output, errors = pgsluice("check-config", DATABASE_URL=URL, PGSLUICE_AUTH_FILE=str(users))
        assert (code, output) == (2, "")
        assert errors == f'pgsluice: {users}, line 2: a line is "user" "secret", both in double quotes\n'

    def test_a_misspelt_variable_is_found(self, pgsluice: Invoke) -> None:
        code, _, errors = pgsluice("check-config", DATABASE_URL=URL, PGSLUICE_POOL_SISE="hunter2")
        assert code == 2
        assert errors == "pgsluice: PGSLUICE_POOL_SISE: no such setting; did you mean PGSLUICE_POOL_SIZE?\n"


class TestDemo:
    @pytest.mark.parametrize(("arguments", "seconds"), [([], None), (["--seconds", "2.5"], 2.5)])
    def test_it_runs_for_so_long(
        self, arguments: list[str], seconds: float | None, pgsluice: Invoke, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: list[float | None] = []
        demo = ModuleType("proxy.demo")

        def run(seconds: float | None) -> int:
            given.append(seconds)
            return 4

        demo.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "proxy.demo", demo)
        assert pgsluice("demo", *arguments) == (4, "", "")
        assert given == [seconds]

    @pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", "", "86401"])
    def test_a_wrong_time_is_refused(self, text: str, pgsluice: Invoke) -> None:
        code, _, errors = pgsluice("demo", "--seconds", text)
        assert code == 2
        assert errors.startswith(f"pgsluice: --seconds is '{text}'; allowed: a number of seconds")

    def test_without_its_packages_it_says_how_to_get_them(
        self, pgsluice: Invoke, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "proxy.demo", None)
        code, _, errors = pgsluice("demo")
        assert code == 2
        assert "pip install 'pgsluice[demo]'" in errors


class TestVersion:
    @pytest.mark.parametrize("arguments", [["version"], ["--version"]])
    def test_it_says_the_form_and_what_it_runs_on(self, arguments: list[str], pgsluice: Invoke) -> None:
        code, output, errors = pgsluice(*arguments)
        assert (code, errors) == (0, "")
        assert output.startswith(
            f"pgsluice {build.VERSION} ({build.form()}), Python {sys.version.split()[0]}, uvloop "
        )

    @pytest.mark.parametrize("form", ["compiled", "pure", "mixed"])
    def test_it_says_each_form(
        self, form: build.Form, pgsluice: Invoke, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(build, "form", lambda: form)
        assert pgsluice("version")[1].startswith(f"pgsluice 0.1.0 ({form})")


class TestHealthcheck:
    @pytest.fixture
    def admin(self) -> Iterator[HTTPServer]:
        """An admin endpoint that answers as its attributes say."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answers[self.path]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        answers: dict[str, tuple[int, bytes]] = {}
        server = HTTPServer(("127.0.0.1", 0), Handler)
        server.answers = answers  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
        server.server_close()

    def test_ready(self, admin: HTTPServer, pgsluice: Invoke) -> None:
        admin.answers["/readyz"] = (200, b"ok\n")  # type: ignore[attr-defined]
        assert pgsluice("healthcheck", "--admin", f"127.0.0.1:{admin.server_port}") == (0, "ready\n", "")
        assert pgsluice("healthcheck", PGSLUICE_ADMIN=f"127.0.0.1:{admin.server_port}")[0] == 0

    def test_the_address_of_all_interfaces_is_asked_on_this_machine(
        self, admin: HTTPServer, pgsluice: Invoke
    ) -> None:
        admin.answers["/readyz"] = (200, b"")  # type: ignore[attr-defined]
        assert pgsluice("healthcheck", "--admin", f"0.0.0.0:{admin.server_port}")[0] == 0

    @pytest.mark.parametrize(
        ("body", "reason"), [(b"primary\nunreachable\n", "primary unreachable"), (b"", "answers 503")]
    )
    def test_not_ready(self, body: bytes, reason: str, admin: HTTPServer, pgsluice: Invoke) -> None:
        admin.answers["/readyz"] = (503, body)  # type: ignore[attr-defined]
        code, output, errors = pgsluice("healthcheck", "--admin", f"127.0.0.1:{admin.server_port}")
        assert (code, errors) == (1, "")
        assert output.startswith("not ready: ")
        assert reason in output
        assert output.count("\n") == 1

    def test_nobody_there(self, admin: HTTPServer, pgsluice: Invoke) -> None:
        port = admin.server_port
        admin.server_close()
        code, output, _ = pgsluice("healthcheck", "--admin", f"127.0.0.1:{port}", "--timeout", "5")
        assert code == 1
        assert output.startswith(f"not ready: no answer at 127.0.0.1:{port} (")

    def test_off(self, pgsluice: Invoke) -> None:
        assert pgsluice("healthcheck", PGSLUICE_ADMIN="off") == (1, "not ready: admin is off\n", "")

    def test_a_wrong_address(self, pgsluice: Invoke) -> None:
        code, output, _ = pgsluice("healthcheck", "--admin", "x")
        assert code == 1
        assert output.startswith("not ready: --admin is 'x'; allowed: HOST:PORT")


class TestHelp:
    def test_it_teaches_every_command(self, pgsluice: Invoke) -> None:
        code, output, errors = pgsluice("--help")
        assert (code, errors) == (0, "")
        assert "DATABASE_URL=postgresql://" in output
        for command in COMMANDS:
            assert f"  {command} " in output

    def test_without_a_command_it_is_the_help(self, pgsluice: Invoke) -> None:
        assert pgsluice() == pgsluice("--help") == pgsluice("-h")

    @pytest.mark.parametrize("command", [command for command in COMMANDS if command != "version"])
    def test_every_command_has_an_example(self, command: str, pgsluice: Invoke) -> None:
        code, output, _ = pgsluice(command, "--help")
        assert code == 0
        example = [line for line in output.splitlines() if line.startswith("      ") and "pgsluice" in line]
        assert example

    def test_flags_name_their_variables(self, pgsluice: Invoke) -> None:
        output = " ".join(pgsluice("run", "--help")[1].split())
        for variable in ("CONFIG", "LISTEN", "ADMIN", "POOL_SIZE", "POOL_MODE", "WORKERS"):
            assert f"PGSLUICE_{variable}" in output
        assert "[::1]" in output or "HOST:PORT" in output

    def test_the_shell_completes(self, pgsluice: Invoke) -> None:
        assert "--install-completion" in pgsluice("--help")[1]
        result = subprocess.run(
            [sys.executable, "-m", "proxy.cli"],
            env={
                **os.environ,
                "_PGSLUICE_COMPLETE": "complete_bash",
                "COMP_WORDS": "pgsluice ch",
                "COMP_CWORD": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.stdout.split() == ["check-config"]


def test_an_unknown_command_is_one_line(pgsluice: Invoke) -> None:
    code, output, errors = pgsluice("runn")
    assert (code, output) == (2, "")
    assert errors.startswith("pgsluice: No such command 'runn'")
    assert errors.count("\n") == 1


def test_the_process_exits_with_the_code_and_no_traceback() -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        [sys.executable, "-m", "proxy.cli", "run"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("pgsluice: DATABASE_URL: not set; ")
    assert result.stderr.count("\n") == 1
