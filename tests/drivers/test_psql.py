"""psql, as somebody at a terminal or a script uses it."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from drivers.databases import SERVERS, Database
from support.parts import environment
from support.postgres import client_program
from support.proxy import PgsluiceProcess

from proxy.demo.embedded import PostgresServer


@pytest.fixture(params=["directly", "through_proxy"])
def database(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[Database]:
    """psql comes in the server's version, so there is a database on each."""
    postgres.psql("CREATE DATABASE for_psql")
    try:
        if request.param == "directly":
            yield Database("for_psql", postgres.port, postgres, proxied=False)
        else:
            with PgsluiceProcess(postgres.url(), settings={"POOL_SIZE": str(SERVERS)}) as process:
                yield Database("for_psql", process.port, postgres, proxied=True)
    finally:
        postgres.psql("DROP DATABASE for_psql WITH (FORCE)")


def psql(database: Database, *arguments: str, script: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs psql with these arguments, and the script on standard input."""
    program = client_program("psql", database.server.programs.major)
    return subprocess.run(
        [program, "-X", "-d", database.url, *arguments],
        env=environment(program) | database.server.programs.environment(),
        input=script,
        stdin=subprocess.DEVNULL if script is None else None,
        capture_output=True,
        text=True,
        timeout=40,
    )


def test_several_commands(database: Database) -> None:
    result = psql(
        database, "-At", "-c", "CREATE TABLE t (a int, b text)",
        "-c", "INSERT INTO t VALUES (1, 'one'), (2, 'two')",
        "-c", r"\d t", "-c", r"\dt", "-c", r"\l for_psql",
        "-c", "SELECT * FROM t ORDER BY a; SELECT count(*) FROM t",
    )  # fmt: skip
    assert result.stderr == ""
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert lines[:4] == ["CREATE TABLE", "INSERT 0 2", "a|integer|||", "b|text|||"]
    assert lines[4] == "public|t|table|postgres"
    assert lines[5].startswith("for_psql|postgres|")
    assert lines[-3:] == ["1|one", "2|two", "2"]


def test_copy(database: Database, tmp_path: Path) -> None:
    rows = "".join(f"{number}\tline {number}\n" for number in range(3000))
    (tmp_path / "in").write_text(rows)
    script = f"""
        CREATE TABLE t (a int PRIMARY KEY, b text);
        \\copy t FROM '{tmp_path}/in'
        \\copy (SELECT * FROM t ORDER BY a) TO '{tmp_path}/out'
        \\copy t FROM '{tmp_path}/in'
        COPY t FROM STDIN;
3000\tinline
\\.
        SELECT count(*) FROM t;
        COPY (SELECT * FROM t WHERE a > 2998 ORDER BY a) TO STDOUT;
    """
    result = psql(database, "-At", script=script)
    said = ["CREATE TABLE", "COPY 3000", "COPY 3000", "COPY 1", "3001", "2999\tline 2999", "3000\tinline"]
    assert result.stdout.splitlines() == said
    assert "duplicate key value violates unique constraint" in result.stderr
    assert (tmp_path / "out").read_text() == rows


def test_errors(database: Database) -> None:
    script = "SELECT 1;\nSELEC 2;\nSELECT 1/0;\nSELECT 'after';\n"
    result = psql(database, "-At", script=script)
    assert result.stdout == "1\nafter\n"
    assert 'ERROR:  syntax error at or near "SELEC"\nLINE 1: SELEC 2;\n        ^\n' in result.stderr
    assert "division by zero" in result.stderr
    assert result.returncode == 0
    result = psql(database, "-At", "-v", "ON_ERROR_STOP=1", script=script)
    assert result.stdout == "1\n"
    assert result.returncode == 3


def test_a_script_in_one_transaction(database: Database) -> None:
    script = "CREATE TABLE t (a int);\nINSERT INTO t VALUES (1);\nSELECT 1/0;\nSELECT 'never';\n"
    assert psql(database, "-1", "-v", "ON_ERROR_STOP=1", script=script).returncode == 3
    assert psql(database, "-At", "-c", "SELECT to_regclass('t') IS NULL").stdout == "t\n"
    assert psql(database, "-1", "-v", "ON_ERROR_STOP=1", script="CREATE TABLE t (a int);").returncode == 0
    assert psql(database, "-At", "-c", "SELECT to_regclass('t')").stdout == "t\n"


def test_transactions_cursors_and_bound_parameters(database: Database) -> None:
    script = r"""
        BEGIN;
        DECLARE c CURSOR FOR SELECT generate_series(1, 10);
        FETCH 2 FROM c;
        SAVEPOINT s;
        SELECT 1/0;
        ROLLBACK TO s;
        FETCH 1 FROM c;
        COMMIT;
        SELECT $1::int + $2::int \bind 40 2 \g
        SELECT 'described' AS a, 1 AS b \gdesc
        \set FETCH_COUNT 3
        SELECT generate_series(1, 8);
    """
    if database.server.programs.major < 16:
        script = script.replace(r"SELECT $1::int + $2::int \bind 40 2 \g", "SELECT 42;")
    result = psql(database, "-At", script=script)
    assert "division by zero" in result.stderr
    assert result.stdout.split() == [
        "BEGIN", "DECLARE", "CURSOR", "1", "2", "SAVEPOINT", "ROLLBACK", "3", "COMMIT", "42", "a|text",
        "b|integer", "1", "2", "3", "4", "5", "6", "7", "8",
    ]  # fmt: skip


def test_pipelines(database: Database) -> None:
    if database.server.programs.major < 18:
        pytest.skip("psql has pipelines from version 18 on")
    script = r"""
        \startpipeline
        SELECT $1 \bind one \sendpipeline
        SELECT 1/$1::int \bind 0 \sendpipeline
        SELECT $1 \bind skipped \sendpipeline
        \syncpipeline
        SELECT $1 \parse named
        \bind_named named two \sendpipeline
        \syncpipeline
        \bind_named named three \sendpipeline
        \endpipeline
        \close_prepared named
        \bind_named named four \g
    """
    result = psql(database, "-At", script=script)
    assert result.stdout.split() == ["one", "two", "three"]
    assert "division by zero" in result.stderr
    assert 'prepared statement "named" does not exist' in result.stderr


def test_notices(database: Database) -> None:
    notice = "DO $$BEGIN RAISE NOTICE 'heard'; END$$"
    result = psql(database, "-At", "-c", notice, "-c", "DROP TABLE IF EXISTS nothing")
    assert "NOTICE:  heard" in result.stderr
    assert 'NOTICE:  table "nothing" does not exist, skipping' in result.stderr


def test_the_wrong_password(database: Database) -> None:
    result = psql(replace(database, password="wrong"), "-w", "-c", "SELECT 1")
    assert result.returncode == 2
    assert 'FATAL:  password authentication failed for user "postgres"' in result.stderr
