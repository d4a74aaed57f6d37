"""What pgbench is pointed at: PostgreSQL itself, PgBouncer, pgsluice. Both proxies pool alike."""

import importlib.util
import json
import pwd
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from loadtest.cpu import tree_cpu_ns
from loadtest.errors import LoadtestError
from loadtest.pgbench import DATABASE, USER
from loadtest.plan import Protocol, TargetName
from loadtest.ports import free_port
from loadtest.postgres import PostgresCluster
from loadtest.programs import Program, program_environment
from loadtest.service import Service, capture

DEFAULT_PGSLUICE = "python -m proxy.cli"
PREPARED_STATEMENTS = 200


@dataclass(frozen=True, slots=True)
class Target:
    """Where pgbench connects; `service` is the proxy's process (None: no proxy in between)."""

    name: TargetName
    port: int
    service: Service | None
    protocols: frozenset[Protocol] = frozenset(("simple", "extended", "prepared"))

    def cpu_ns(self) -> int | None:
        """CPU time so far of the proxy's processes, nanoseconds. Raises LoadtestError when it has ended."""
        if self.service is None:
            return None
        self.service.check()
        return tree_cpu_ns(self.service.pid)


def _pgbouncer_configuration(
    program: Program, server_port: int, port: int, pool_size: int, users: Path
) -> str:
    settings: dict[str, str | int] = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "trust",
        "auth_file": str(users),
        "pool_mode": "transaction",
        "default_pool_size": pool_size,
        "max_client_conn": 1000,
        "server_reset_query": "",
        "log_connections": 0,
        "log_disconnections": 0,
        "log_stats": 0,
    }
    if _keeps_prepared_statements(program):
        settings["max_prepared_statements"] = PREPARED_STATEMENTS
    lines = [
        "[databases]",
        f"{DATABASE} = host=127.0.0.1 port={server_port} dbname={DATABASE}",
        "[pgbouncer]",
        *(f"{name} = {value}" for name, value in settings.items()),
    ]
    return "\n".join(lines) + "\n"


def _keeps_prepared_statements(program: Program) -> bool:
    """Whether this PgBouncer supports prepared statements in transaction mode (1.21 and newer)."""
    major, minor = (int(part) for part in program.version.split(".")[:2])
    return (major, minor) >= (1, 21)


def start_pgbouncer(
    stack: ExitStack,
    program: Program,
    postgres: PostgresCluster,
    directory: Path,
    *,
    user: pwd.struct_passwd | None,
    pool_size: int,
) -> Target:
    """Starts PgBouncer before `postgres`. Raises LoadtestError with its log when it doesn't come up."""
    port = free_port()
    users = directory / "pgbouncer-users.txt"
    users.write_text(f'"{USER}" ""\n')
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(_pgbouncer_configuration(program, postgres.port, port, pool_size, users))
    service = stack.enter_context(
        Service(
            "PgBouncer",
            # It refuses to stay root. Left to change users itself, it starts from where that user can't read.
            [str(program.path), *(("-u", user.pw_name) if user else ()), str(configuration)],
            directory / "pgbouncer.log",
            env=program.env,
            cwd=directory,
        )
    )
    service.wait_until(lambda: postgres.accepts(port))
    with_prepared: tuple[Protocol, ...] = ("prepared",) if _keeps_prepared_statements(program) else ()
    return Target("pgbouncer", port, service, frozenset(("simple", "extended", *with_prepared)))


@dataclass(frozen=True, slots=True)
class PgsluiceCommand:
    """How pgsluice is started: the words before `run`, and the directory to start them in."""

    words: tuple[str, ...]
    cwd: Path

    def version(self) -> str:
        """What `version` prints, on one line; says so when it can't be had."""
        answer = capture((*self.words, "version"), env=program_environment(Path(self.words[0])), cwd=self.cwd)
        if answer.returncode != 0:
            return f"unknown (`version` exited with {answer.returncode})"
        return " ".join(answer.stdout.split()) or "unknown"


def pgsluice_command(text: str, directory: Path) -> PgsluiceCommand:
    """Turns `--pgsluice` into a command. By default it is this interpreter's installed pgsluice.

    The installed one is started from `directory`: started here, Python would take the checkout's plain
    sources for the installed, compiled modules. Raises LoadtestError for an empty command.
    """
    words = shlex.split(text)
    if not words:
        raise LoadtestError("--pgsluice: the command is empty")
    if text != DEFAULT_PGSLUICE:
        return PgsluiceCommand(tuple(words), Path.cwd())
    command = (sys.executable, *words[1:])
    python_environment = program_environment(Path(sys.executable))
    installed = capture(
        [sys.executable, "-c", "import proxy, protocol"], env=python_environment, cwd=directory
    )
    if installed.returncode == 0:
        return PgsluiceCommand(command, directory)
    if importlib.util.find_spec("proxy") is None:
        raise LoadtestError("pgsluice is neither installed nor in the current directory")
    return PgsluiceCommand(command, Path.cwd())


def start_pgsluice(
    stack: ExitStack,
    command: PgsluiceCommand,
    postgres: PostgresCluster,
    directory: Path,
    *,
    pool_size: int,
    extra: Sequence[str] = (),
) -> Target:
    """Starts pgsluice before `postgres`, with `extra` flags. Raises LoadtestError with its log otherwise."""
    port = free_port()
    service = stack.enter_context(
        Service(
            "pgsluice",
            [
                *command.words,
                "run",
                *("--listen", f"127.0.0.1:{port}"),
                *("--admin", f"127.0.0.1:{free_port()}"),
                *("--primary", f"postgresql://{USER}@127.0.0.1:{postgres.port}/{DATABASE}"),
                *("--pool-size", str(pool_size)),
                *extra,
            ],
            directory / "pgsluice.log",
            env=program_environment(Path(command.words[0])),
            cwd=command.cwd,
        )
    )
    service.wait_until(lambda: is_ready(service.log.read_text(errors="replace")))
    return Target("pgsluice", port, service)


def is_ready(log: str) -> bool:
    """Whether one of the log's complete lines is the JSON object that says `"event": "ready"`."""
    for line in log.split("\n")[:-1]:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("event") == "ready":
            return True
    return False
