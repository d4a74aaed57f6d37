"""What the proxy says of itself: after known statements the figures are known."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from support import parts
from support.ports import free_port
from support.postgres import PASSWORD, SUPERUSER
from support.proxy import PgsluiceProcess
from support.wire import WireConnection

from protocol.messages import backend, frontend
from proxy.build import VERSION, form
from proxy.demo.embedded import PostgresServer

PERCENTILES = ("min_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms")
LABELS = f'database="postgres",user="{SUPERUSER}"'


@pytest.fixture
def process(newest_postgres: PostgresServer) -> Iterator[PgsluiceProcess]:
    """A proxy that has seen no statement yet, with three server connections."""
    with PgsluiceProcess(newest_postgres.url(), settings={"POOL_SIZE": "3"}) as process:
        yield process


async def login(process: PgsluiceProcess, **parameters: str) -> WireConnection:
    return await WireConnection.login(*process.address, SUPERUSER, PASSWORD, **parameters)


def shapes(process: PgsluiceProcess) -> dict[str, dict[str, Any]]:
    """The rows of /api/queries by their normalised text, each there once."""
    rows = process.get_json("/api/queries?limit=10000")
    by_text = {row["query"]: row for row in rows}
    assert len(by_text) == len(rows)
    return by_text


def samples(process: PgsluiceProcess) -> dict[str, float]:
    """The lines of /metrics: name with labels, value."""
    status, body = process.get("/metrics")
    assert status == 200
    lines = [line for line in body.decode().splitlines() if line and not line.startswith("#")]
    found = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
    assert len(found) == len(lines), "each series once"
    return found


def counts(row: Mapping[str, Any]) -> tuple[int, int, int]:
    return row["calls"], row["rows"], row["errors"]


# --- statements -----------------------------------------------------------------------------------


@pytest.mark.smoke
async def test_statements_that_differ_in_literals_only_are_one(process: PgsluiceProcess) -> None:
    async with await login(process) as session:
        for number in range(5):
            await session.query(f"SELECT i FROM generate_series(1, {number}) AS i WHERE i <> -{number}.5e3")
        await session.query("select  i from generate_series(1,\n  1) as i -- comment\nwhere i <> '7'")
        await session.query("SELECT 1 WHERE 5 IN (1, 2, 3)")
        await session.query("SELECT 2 WHERE 5 IN (5)")
        await session.query("SELECT 2 WHERE 5 NOT IN (5)")
    seen = shapes(process)
    assert {text: counts(row) for text, row in seen.items()} == {
        "select i from generate_series(?, ?) as i where i <> ?": (6, 0 + 1 + 2 + 3 + 4 + 1, 0),
        "select ? where ? in (?)": (2, 1, 0),
        "select ? where ? not in (?)": (1, 0, 0),
    }
    assert len({row["fingerprint"] for row in seen.values()}) == 3
    assert all(len(row["fingerprint"]) == 16 for row in seen.values())


async def test_rows_of_every_kind_of_statement(process: PgsluiceProcess) -> None:
    async with await login(process) as session:
        for sql in (
            "BEGIN",
            "CREATE TEMP TABLE counted (id int)",
            "INSERT INTO counted VALUES (1), (2), (3)",
            "UPDATE counted SET id = id + 1 WHERE id > 1",
            "DELETE FROM counted WHERE id = 1",
            "SELECT * FROM counted",
            "COPY counted TO STDOUT",
            "DECLARE walk CURSOR FOR SELECT * FROM counted",
            "FETCH ALL FROM walk",
            "SELECT 1; SELECT 2; SELECT 3",
            "",
        ):
            await session.query(sql)
        await session.send(frontend.Query(b"COPY counted FROM STDIN"))
        await session.receive_until(backend.CopyInResponse)
        await session.send(frontend.CopyData(b"7\n8\n9\n10\n"), frontend.CopyDone())
        await session.receive_until(backend.ReadyForQuery)
        await session.query("ROLLBACK")
    assert {text: counts(row)[:2] for text, row in shapes(process).items()} == {
        "begin": (1, 0),
        "create temp table counted (id int)": (1, 0),
        "insert into counted values (?)": (1, 3),
        "update counted set id = id + ? where id > ?": (1, 2),
        "delete from counted where id = ?": (1, 1),
        "select * from counted": (1, 2),
        "copy counted to stdout": (1, 2),
        "declare walk cursor for select * from counted": (1, 0),
        "fetch all from walk": (1, 2),
        "select ?; select ?; select ?": (1, 3),
        "": (1, 0),
        "copy counted from stdin": (1, 4),
        "rollback": (1, 0),
    }


async def test_errors_by_sqlstate(newest_postgres: PostgresServer, process: PgsluiceProcess) -> None:
    async with await login(process) as session:
        for divisor in (0, 0, 0, 1):
            await session.query(f"SELECT 1 / {divisor}")
        await session.query("SELECT 1 / '0x'::int")
        await session.query("SELEC nonsense")
        await session.query("SELECT * FROM no_such_table")
        # In the extended protocol the Parse fails, and what follows until Sync never happens.
        await session.send(
            frontend.Parse(b"", b"SELECT * FROM no_such_table", ()),
            frontend.Bind(b"", b"", (), (), ()),
            frontend.Execute(b"", 0),
            frontend.Parse(b"", b"SELECT 'skipped'", ()),
            frontend.Bind(b"", b"", (), (), ()),
            frontend.Execute(b"", 0),
            frontend.Sync(),
        )
        await session.receive_until(backend.ReadyForQuery)
    seen = shapes(process)
    assert seen["select ? / ?"]["errors_by_sqlstate"] == {"22012": 3}
    assert counts(seen["select ? / ?"]) == (4, 1, 3)
    assert seen["select ? / ?::int"]["errors_by_sqlstate"] == {"22P02": 1}
    assert seen["selec nonsense"]["errors_by_sqlstate"] == {"42601": 1}
    assert seen["select * from no_such_table"]["errors_by_sqlstate"] == {"42P01": 2}
    assert "select ?" not in seen
    figures = samples(process)
    assert figures['pgsluice_statement_errors_total{sqlstate="22012"}'] == 3
    assert figures['pgsluice_statement_errors_total{sqlstate="42P01"}'] == 2
    identity = seen["select ? / ?"]["fingerprint"]
    assert figures[f'pgsluice_query_errors_total{{fingerprint="{identity}"}}'] == 3


async def test_prepared_and_pipelined_statements(process: PgsluiceProcess) -> None:
    async with await login(process) as session:
        await session.send(
            frontend.Parse(b"many", b"SELECT generate_series(1, $1::int)", ()), frontend.Sync()
        )
        await session.receive_until(backend.ReadyForQuery)
        await session.send(
            *(
                part
                for number in range(10)
                for part in (
                    frontend.Bind(b"", b"many", (), (str(number).encode(),), ()),
                    frontend.Execute(b"", 0),
                )
            ),
            frontend.Sync(),
        )
        await session.receive_until(backend.ReadyForQuery)
    (row,) = shapes(process).values()
    assert row["query"] == "select generate_series(?, ?::int)"
    assert counts(row) == (10, sum(range(10)), 0)


async def test_a_portal_in_parts(process: PgsluiceProcess) -> None:
    """Two executions of one portal, of two rows and of one, as drivers with a fetch size do."""
    async with await login(process) as session:
        await session.send(
            frontend.Parse(b"", b"SELECT generate_series(1, $1::int)", ()),
            frontend.Bind(b"", b"", (), (b"3",), ()),
            frontend.Execute(b"", 2),
            frontend.Execute(b"", 2),
            frontend.Sync(),
        )
        await session.receive_until(backend.ReadyForQuery)
    (row,) = shapes(process).values()
    assert counts(row) == (2, 3, 0)


def test_drivers_statements(process: PgsluiceProcess) -> None:
    with psycopg.connect(process.url(), autocommit=True) as connection:
        for number in range(8):  # from the sixth on by a prepared statement
            connection.execute("SELECT %s::int + 1", (number,)).fetchone()
        with connection.transaction():
            connection.execute("SELECT 'inside'")
    assert {text: counts(row) for text, row in shapes(process).items()} == {
        "select ?::int + ?": (8, 8, 0),
        "select ?": (1, 1, 0),
        "begin": (1, 0, 0),
        "commit": (1, 0, 0),
    }


async def test_bytes(process: PgsluiceProcess) -> None:
    query = frontend.Query(b"SELECT repeat('x', 100000), 'y'").encode()
    async with await login(process) as session:
        await session.send(query, query)
        received = 0
        for _ in range(2):
            tag = 0
            while tag != ord("Z"):
                tag, body = await session.receive_raw()
                received += 5 + len(body)
    (row,) = shapes(process).values()
    assert (row["bytes_in"], row["bytes_out"]) == (2 * len(query), received)
    figures = samples(process)
    label = f'{{fingerprint="{row["fingerprint"]}"}}'
    assert figures[f"pgsluice_query_received_bytes_total{label}"] == 2 * len(query)
    assert figures[f"pgsluice_query_sent_bytes_total{label}"] == received


async def test_times(process: PgsluiceProcess) -> None:
    async with await login(process) as session:
        for _ in range(5):
            await session.query("SELECT pg_sleep(0.05)")
        await session.query("SELECT pg_sleep(0.4)")
    (row,) = shapes(process).values()
    assert row["calls"] == 6
    assert [row[name] for name in PERCENTILES] == sorted(row[name] for name in PERCENTILES)
    assert row["min_ms"] >= 50
    assert 50 <= row["p50_ms"] < 400 <= row["p99_ms"] * 1.03  # buckets are some two percent wide
    assert row["max_ms"] >= 400
    assert row["total_seconds"] >= 5 * 0.05 + 0.4
    assert row["server_seconds"] <= row["total_seconds"]
    assert row["mean_ms"] == pytest.approx(row["total_seconds"] * 1000 / 6, rel=1e-3)
    figures = samples(process)
    label = f'fingerprint="{row["fingerprint"]}"'
    buckets = [
        value
        for name, value in figures.items()
        if name.startswith(f"pgsluice_query_duration_seconds_bucket{{{label}")
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == figures[f"pgsluice_query_duration_seconds_count{{{label}}}"] == 6
    assert figures[f"pgsluice_query_duration_seconds_sum{{{label}}}"] == pytest.approx(row["total_seconds"])


async def test_waiting_is_measured_apart(newest_postgres: PostgresServer) -> None:
    with PgsluiceProcess(newest_postgres.url(), settings={"POOL_SIZE": "1"}) as process:
        async with await login(process) as holder, await login(process) as waiter:
            await holder.query("BEGIN")
            await waiter.send(frontend.Query(b"SELECT 'waited'"))
            await asyncio.sleep(0.2)
            assert samples(process)[f"pgsluice_pool_waiting_clients{{{LABELS}}}"] == 1
            await holder.query("COMMIT")
            await waiter.receive_until(backend.ReadyForQuery)
            figures = samples(process)
            assert figures[f"pgsluice_pool_waits_total{{{LABELS}}}"] >= 1
            assert figures[f"pgsluice_pool_wait_seconds_total{{{LABELS}}}"] >= 0.15
        row = shapes(process)["select ?"]
        assert row["wait_seconds"] >= 0.15
        assert row["max_wait_ms"] >= 150
        assert row["total_seconds"] >= row["wait_seconds"] + row["server_seconds"] - 0.001
        assert row["server_seconds"] < row["total_seconds"] - 0.1
        assert shapes(process)["begin"]["wait_seconds"] < 0.15


# --- everything else ------------------------------------------------------------------------------


async def test_pools_and_clients(newest_postgres: PostgresServer, process: PgsluiceProcess) -> None:
    def connections(state: str) -> float:
        return samples(process)[
            f'pgsluice_pool_connections{{database="postgres",state="{state}",user="{SUPERUSER}"}}'
        ]

    # The server is shared: other tests' proxies may have idle connections to it (and some may be going).
    await asyncio.sleep(0.5)
    strangers = (
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
        "AND pid <> pg_backend_pid() AND client_port IS NOT NULL AND application_name = ''"
    )
    others = int(newest_postgres.psql(strangers))
    sessions = [await login(process) for _ in range(5)]
    for session in sessions[:2]:
        await session.query("BEGIN")
    figures = samples(process)
    assert figures["pgsluice_clients"] == 5
    assert figures["pgsluice_active_clients"] == 2
    assert figures["pgsluice_client_connections_total"] == 5
    assert figures[f"pgsluice_pool_size{{{LABELS}}}"] == 3
    assert figures[f'pgsluice_pool_info{{database="postgres",mode="transaction",user="{SUPERUSER}"}}'] == 1
    assert connections("active") == 2
    for session in sessions[:2]:
        await session.query("COMMIT")
    assert connections("active") == 0
    assert connections("idle") == 2
    assert figures[f"pgsluice_pool_opened_total{{{LABELS}}}"] == 2
    assert int(newest_postgres.psql(strangers)) == others + 2
    for session in sessions:
        await session.close()
    async with asyncio.timeout(10):
        while samples(process)["pgsluice_clients"] != 0:
            await asyncio.sleep(0.02)
    assert samples(process)["pgsluice_active_clients"] == 0


async def test_the_whole_adds_up(process: PgsluiceProcess) -> None:
    """The series of single shapes, `other` included, sum to the totals, however many shapes there are."""
    async with await login(process) as session:
        for number in range(70):
            await session.query(f"SELECT 1 AS column_{number}")
        await session.query("SELECT 1/0")
    rows = process.get_json("/api/queries?limit=10000")
    assert len(rows) == 71
    figures = samples(process)
    per_shape = {
        name: value
        for name, value in figures.items()
        if name.startswith("pgsluice_query_duration_seconds_count")
    }
    assert len(per_shape) == 51
    assert 'pgsluice_query_duration_seconds_count{fingerprint="other"}' in per_shape
    assert sum(per_shape.values()) == figures["pgsluice_statements_total"] == 71
    assert figures["pgsluice_statement_seconds_total"] == pytest.approx(
        sum(row["total_seconds"] for row in rows)
    )
    by_calls = process.get_json("/api/queries?sort=calls&order=asc&limit=3")
    assert len(by_calls) == 3
    totals = [row["total_seconds"] for row in process.get_json("/api/queries?sort=total&limit=20")]
    assert totals == sorted(totals, reverse=True)


async def test_memory_for_shapes_is_bounded(newest_postgres: PostgresServer) -> None:
    with PgsluiceProcess(newest_postgres.url(), settings={"STATISTICS__MAX_FINGERPRINTS": "20"}) as process:
        async with await login(process) as session:
            for number in range(100):
                await session.query(f"SELECT 1 AS column_{number}")
        assert len(process.get_json("/api/queries?limit=10000")) <= 20
        assert samples(process)["pgsluice_statements_total"] == 100


async def test_prometheus_accepts_it(process: PgsluiceProcess) -> None:
    promtool = parts.locate("promtool")
    async with await login(process, application_name='a "name" with \\ and é') as session:
        await session.query('SELECT 1 AS "quoted ""name""", \'\\\'')
        await session.query("SELECT 1/0")
        await session.query("SELECT 'ä' AS \"grün\nund blau\"")
    body = process.get("/metrics")[1]
    result = subprocess.run(
        [promtool, "check", "metrics"],
        input=body,
        env=parts.environment(promtool),
        capture_output=True,
        timeout=30,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    build = f'pgsluice_build_info{{form="{form()}",python='
    assert any(name.startswith(build) and VERSION in name for name in samples(process))


def healthcheck(admin: str | None, **environment: str) -> tuple[int, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    arguments = [] if admin is None else ["--admin", admin]
    result = subprocess.run(
        [sys.executable, "-P", "-m", "proxy.cli", "healthcheck", *arguments],
        env=inherited | environment,
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1
    return result.returncode, result.stdout.strip()


def test_health(process: PgsluiceProcess) -> None:
    process.wait_for("primary reached")
    assert process.get("/livez") == (200, b"ok")
    assert process.get("/readyz") == (200, b"ready")
    admin = process.ready["admin"]
    assert healthcheck(admin) == (0, "ready")
    assert healthcheck(None, PGSLUICE_ADMIN=admin) == (0, "ready")
    port = free_port()
    status, reason = healthcheck(f"127.0.0.1:{port}")
    assert status == 1
    assert reason.startswith(f"not ready: no answer at 127.0.0.1:{port}")


async def test_no_admin_server(newest_postgres: PostgresServer) -> None:
    with PgsluiceProcess(newest_postgres.url(), admin="off") as process:
        assert process.ready["admin"] is None
        async with await login(process) as session:
            assert await session.value("SELECT 1") == "1"


async def test_strangers_at_the_admin_port(process: PgsluiceProcess) -> None:
    host, _, port = str(process.ready["admin"]).rpartition(":")
    for data in (
        bytes(100),
        b"\x16\x03\x01\x02\0",
        b"GET /" + b"x" * 100_000,
        b"POST /metrics HTTP/1.1\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 15)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
        writer.close()
    for path in ("/", "/metrics/..%2f..%2fetc/passwd", "/api/queries?sort=nonsense", "/api/queries?limit=0"):
        assert process.get(path)[0] in (400, 404)
    async with await login(process) as session:
        assert await session.value("SELECT 1") == "1"
    assert process.get("/livez")[0] == 200
