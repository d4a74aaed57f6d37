"""A throwaway PostgreSQL cluster with pgbench's tables."""

import os
import pwd
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

from loadtest.cpu import tree_cpu_ns
from loadtest.errors import LoadtestError
from loadtest.pgbench import DATABASE, USER
from loadtest.ports import free_port
from loadtest.programs import Program
from loadtest.service import Service, capture

# The proxies are under test, not the disk: nothing is flushed, and nothing runs in the background on its own.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "300",
    "shared_buffers": "256MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "jit": "off",
    "log_min_messages": "warning",
}


class PostgresCluster:
    """PostgreSQL on a free loopback port, trusting everybody there, its data in `directory`; gone on leaving.

    `user` is the account to run it as when we are root; `scale` is pgbench's.
    """

    def __init__(
        self, program: Program, directory: Path, *, user: pwd.struct_passwd | None, scale: int
    ) -> None:
        self.program = program
        self.port = free_port()
        self._scale = scale
        self._user = user
        self._data = directory / "data"
        self._data.mkdir(mode=0o700)
        if user:
            os.chown(self._data, user.pw_uid, user.pw_gid)
        self._run(
            "initdb",
            "-D",
            str(self._data),
            "-U",
            USER,
            "--auth=trust",
            "--no-sync",
            "--locale=C",
            "-E",
            "UTF8",
        )
        settings = {**_SETTINGS, "port": str(self.port), "unix_socket_directories": str(self._data)}
        self._service = Service(
            "PostgreSQL",
            [
                str(program.path / "postgres"),
                *("-D", str(self._data)),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            directory / "postgres.log",
            user=user,
            env=program.env,
            cwd=directory,
            stop_signal=signal.SIGINT,
        )

    def __enter__(self) -> Self:
        try:
            self._service.wait_until(lambda: self.accepts(self.port))
            self.sql(f"create database {DATABASE}", database="postgres")
            self._run("pgbench", *self._connection(), "-i", "-q", "-s", str(self._scale), DATABASE)
        except BaseException:
            self._service.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._service.stop()

    def check(self) -> None:
        """Raises LoadtestError when the server has ended."""
        self._service.check()

    def cpu_ns(self) -> int:
        """CPU time so far of all the server's processes, in nanoseconds."""
        return tree_cpu_ns(self._service.pid)

    def sql(self, statement: str, *, database: str = DATABASE) -> str:
        """Runs one statement and returns what psql prints, without headers."""
        return self._run(
            "psql", *self._connection(), "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement, database
        )

    def tidy_after_updates(self) -> None:
        """Clears what tpcb-like leaves behind, so that no run pays for an earlier one's dead rows."""
        for statement in ("vacuum pgbench_branches", "vacuum pgbench_tellers", "truncate pgbench_history"):
            self.sql(statement)

    def _connection(self) -> tuple[str, ...]:
        return ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER)

    def accepts(self, port: int) -> bool:
        """Whether a server or proxy at 127.0.0.1:`port` accepts connections, by pg_isready."""
        place = ("-h", "127.0.0.1", "-p", str(port), "-U", USER, "-d", DATABASE)
        command = [str(self.program.path / "pg_isready"), "-q", *place]
        return capture(command, env=self.program.env, cwd=self._data.parent).returncode == 0

    def _run(self, name: str, *arguments: str) -> str:
        command = [str(self.program.path / name), *arguments]
        answer = capture(command, env=self.program.env, cwd=self._data.parent, user=self._user, seconds=None)
        if answer.returncode != 0:
            raise LoadtestError(f"{name} failed with {answer.returncode}\n{answer.stdout}".rstrip())
        return answer.stdout.strip()
