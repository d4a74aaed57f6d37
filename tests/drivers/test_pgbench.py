"""pgbench: sixty-four clients on three servers, in each of its protocols; not one transaction may fail."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers.databases import Database
from support.parts import environment
from support.postgres import client_program
from support.proxy import PgsluiceProcess

from proxy.demo.embedded import PostgresServer

SERVERS = 3


@pytest.fixture(scope="module")
def database(newest_postgres: PostgresServer) -> Iterator[Database]:
    newest_postgres.psql("CREATE DATABASE for_pgbench")
    with PgsluiceProcess(newest_postgres.url(), settings={"POOL_SIZE": str(SERVERS)}) as process:
        database = Database("for_pgbench", process.port, newest_postgres, proxied=True)
        result = pgbench(database, "-i", "-s", "2", "-q")
        assert result.returncode == 0, result.stderr
        assert database.psql("SELECT count(*) FROM pgbench_accounts") == "200000"
        yield database


def pgbench(database: Database, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = client_program("pgbench")
    return subprocess.run(
        [program, *arguments, database.url],
        env=environment(program) | database.server.programs.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=55,
    )


def transactions(result: subprocess.CompletedProcess[str]) -> int:
    """How many transactions pgbench has processed; none may have failed."""
    assert result.returncode == 0, result.stderr
    assert "number of failed transactions: 0 (0.000%)" in result.stdout
    processed = re.search(r"transactions actually processed: (\d+)/(\d+)", result.stdout)
    assert processed
    assert processed[1] == processed[2]
    return int(processed[1])


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_select_only(database: Database, protocol: str) -> None:
    result = pgbench(database, "-n", "-S", "-M", protocol, "-c", "64", "-t", "20")
    assert transactions(result) == 64 * 20
    assert database.connections <= SERVERS


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_tpcb_like(database: Database, protocol: str) -> None:
    before = int(database.psql("SELECT count(*) FROM pgbench_history"))
    # A thread for each client: pgbench waits for the answer to a Parse, and one client waiting for a server
    # must not keep those who have one from going on.
    result = pgbench(database, "-n", "-M", protocol, "-c", "64", "-j", "64", "-t", "5")
    assert transactions(result) == 64 * 5
    assert database.connections <= SERVERS
    assert int(database.psql("SELECT count(*) FROM pgbench_history")) == before + 64 * 5
    sums = "SELECT sum(abalance) FROM pgbench_accounts", "SELECT sum(delta) FROM pgbench_history"
    assert database.psql(sums[0]) == database.psql(sums[1])


def test_pipelines_in_a_script(database: Database, tmp_path: Path) -> None:
    script = tmp_path / "pipeline.sql"
    script.write_text(
        "\\set a random(1, 1000)\n\\startpipeline\nBEGIN;\n"
        "SELECT abalance FROM pgbench_accounts WHERE aid = :a;\n"
        "SELECT :a + 1;\nCOMMIT;\nSELECT :a;\n\\endpipeline\n"
    )
    for protocol in "extended", "prepared":
        result = pgbench(
            database, "-n", "-f", str(script), "-M", protocol, "-c", "32", "-j", "32", "-t", "10"
        )
        assert transactions(result) == 320


def test_a_connection_for_every_transaction(database: Database) -> None:
    assert transactions(pgbench(database, "-n", "-S", "-C", "-M", "prepared", "-c", "16", "-t", "5")) == 80
    assert database.connections <= SERVERS
