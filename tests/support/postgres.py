"""Real PostgreSQL servers for tests: any installed version, any way to authenticate, TLS where it is built
in.
"""

import atexit
import contextlib
import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from support import parts
from support.obtain import UNPACKED

from proxy.demo.embedded import PostgresServer, ServerCertificate
from proxy.demo.programs import Account, Programs, find_programs, server_account, temporary_root

SUPERUSER = "postgres"
PASSWORD = "sluice gate: 100% & 'quoted'"
"""The superuser's password in every test server: it needs quoting in URLs, SQL and configuration files."""


@functools.cache
def installations() -> dict[int, Programs]:
    """Every PostgreSQL found, by major version, runnable by the account servers run as."""
    account = server_account()
    return {
        programs.major: _runnable(programs, account) for programs in find_programs(extra_roots=[UNPACKED])
    }


def programs(major: int | None = None) -> Programs:
    """The programs of a major version (None: the newest). Skips the test without them; fails it in CI."""
    found = installations()
    if not found:
        parts.refuse("PostgreSQL: no server programs found")
    if major is None:
        major = max(found)
    if major not in found:
        parts.refuse(f"PostgreSQL {major}: not found, only {', '.join(map(str, sorted(found)))}")
    return found[major]


def programs_with_tls() -> Programs:
    """The newest PostgreSQL built with TLS (the wheel's is not)."""
    for each in installations().values():
        if _links_openssl(each):
            return each
    return parts.refuse("PostgreSQL: none found is built with TLS")


def client_program(name: str, major: int | None = None) -> Path:
    """The path of psql, pgbench, pg_dump, ... of a version; skips without it."""
    path = programs(major).program(name)
    if not path.exists():
        parts.refuse(f"PostgreSQL {programs(major).major} has no {name} here")
    return path


@contextlib.contextmanager
def running_server(
    major: int | None = None,
    *,
    tls: ServerCertificate | None = None,
    auth: str = "scram-sha-256",
    settings: Mapping[str, str] | None = None,
    hba: Sequence[str] = (),
) -> Iterator[PostgresServer]:
    """A server of its own for one test: started, and stopped and removed afterwards."""
    with new_server(major, tls=tls, auth=auth, settings=settings, hba=hba) as server:
        server.start()
        yield server


@contextlib.contextmanager
def new_server(
    major: int | None = None,
    *,
    tls: ServerCertificate | None = None,
    auth: str = "scram-sha-256",
    settings: Mapping[str, str] | None = None,
    hba: Sequence[str] = (),
) -> Iterator[PostgresServer]:
    """As `running_server`, but not started yet: `.start()`, `.stop()`, `.start()` as the test likes."""
    chosen = programs_with_tls() if tls is not None and major is None else programs(major)
    with tempfile.TemporaryDirectory(prefix="pgsluice-test-", dir=_temporary_root()) as name:
        server = PostgresServer(
            chosen,
            Path(name),
            server_account(),
            auth=auth,
            user=SUPERUSER,
            password=PASSWORD,
            settings={"max_connections": "200"} | dict(settings or {}),
            hba=hba,
            certificate=tls,
            template=_template(chosen.major),
        )
        try:
            yield server
        finally:
            server.stop(immediate=True)


def kill_backend(server: PostgresServer, pid: int) -> None:
    """kill -9 a server process, as the kernel does when memory is short: the postmaster then restarts them
    all.
    """
    if server.psql(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {int(pid)}") != "1":
        raise ProcessLookupError(f"process {pid} is not a backend of this server")
    os.kill(pid, signal.SIGKILL)


def terminate_backend(server: PostgresServer, pid: int) -> None:
    """pg_terminate_backend: the client gets 57P01."""
    server.psql(f"SELECT pg_terminate_backend({int(pid)})")


@functools.cache
def _template(major: int) -> Path:
    # initdb once a version: every further server is a copy.
    directory = Path(tempfile.mkdtemp(prefix="pgsluice-template-", dir=_temporary_root()))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    server = PostgresServer(
        installations()[major], directory, server_account(), user=SUPERUSER, password=PASSWORD
    )
    server.initdb()
    return server.data


def _runnable(programs: Programs, account: Account | None) -> Programs:
    if programs.runnable_by(account):
        return programs
    directory = Path(tempfile.mkdtemp(prefix="pgsluice-programs-", dir=_temporary_root()))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return programs.copied_to(directory)


def _links_openssl(programs: Programs) -> bool:
    return b"libssl.so" in programs.program("postgres").read_bytes()


def _temporary_root() -> Path:
    return temporary_root(server_account())
