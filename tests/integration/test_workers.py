"""Several workers are to a client what one process is, and to an operator, too, but for the processes."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.proxy import PgsluiceProcess
from support.wire import ServerError, WireConnection

from protocol.messages import backend, frontend
from protocol.messages.startup import CancelRequest
from protocol.types import CancelKey
from proxy.client.registry import Registry
from proxy.demo.embedded import PostgresServer

WORKERS = 2


def two_workers(postgres: PostgresServer, **more: Any) -> PgsluiceProcess:
    return PgsluiceProcess(postgres.url(), arguments=("--workers", str(WORKERS)), **more)


@pytest.fixture
def proxied(newest_postgres: PostgresServer) -> Iterator[PgsluiceProcess]:
    with two_workers(newest_postgres) as process:
        yield process


async def login(proxy: PgsluiceProcess, postgres: PostgresServer, **more: Any) -> WireConnection:
    return await WireConnection.login(*proxy.address, postgres.user, postgres.password, **more)


async def crowd(proxy: PgsluiceProcess, postgres: PostgresServer, number: int) -> list[WireConnection]:
    """Logged-in clients, some at every worker."""
    clients = [await login(proxy, postgres) for _ in range(number)]
    assert {worker_of(client) for client in clients} == set(range(WORKERS))
    return clients


async def leave(clients: list[WireConnection]) -> None:
    for client in clients:
        await client.close()


def worker_of(client: WireConnection) -> int:
    """Which worker serves the client: its cancel key tells."""
    assert client.key is not None
    return Registry(0, WORKERS).owner(client.key)


def pids(proxy: PgsluiceProcess) -> dict[int, int]:
    """The workers' processes by their numbers from 0."""
    return {event["worker"] - 1: event["pid"] for event in proxy.events_named("worker started")}


def samples(proxy: PgsluiceProcess) -> dict[str, float]:
    status, body = proxy.get("/metrics")
    assert status == 200
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def calls_of(proxy: PgsluiceProcess, query: str) -> int:
    rows = proxy.get_json("/api/queries?limit=10000")
    return sum(row["calls"] for row in rows if row["query"] == query)


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"still not: {what}"
        await asyncio.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- what clients and operators see -----------------------------------------------------------------


@pytest.mark.smoke
async def test_one_ready_line_when_all_workers_listen(
    newest_postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    clients = await crowd(proxied, newest_postgres, 6)
    (ready,) = proxied.events_named("ready")
    assert ready["workers"] == WORKERS
    assert proxied.port != 0
    assert set(pids(proxied)) == set(range(WORKERS))
    assert len({*pids(proxied).values(), proxied.pid}) == WORKERS + 1
    started = [event["event"] for event in proxied.events].index("ready")
    assert [event["event"] for event in proxied.events[:started]].count("worker started") == WORKERS
    await leave(clients)


@pytest.mark.smoke
async def test_figures_are_those_of_all_workers(
    newest_postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    clients = await crowd(proxied, newest_postgres, 8)
    for turn in range(10):
        for client in clients:
            assert await client.value(f"SELECT {turn} + 1") == str(turn + 1)
    with pytest.raises(ServerError):
        await clients[0].rows("SELECT 1/0")
    for _ in range(2):  # scraping changes nothing
        found = samples(proxied)
        pool = f'{{database="postgres",user="{newest_postgres.user}"}}'
        assert found["pgsluice_statements_total"] == 81
        assert found['pgsluice_statement_errors_total{sqlstate="22012"}'] == 1
        assert found["pgsluice_clients"] == 8
        assert found["pgsluice_client_connections_total"] == 8
        assert found[f"pgsluice_pool_size{pool}"] == 20
        assert found[f"pgsluice_pool_opened_total{pool}"] >= WORKERS
        assert found[f"pgsluice_pool_acquired_total{pool}"] >= 81
        assert calls_of(proxied, "select ? + ?") == 80
    await leave(clients)


async def test_the_pool_is_shared_out(newest_postgres: PostgresServer) -> None:
    settings = {"POOL_SIZE": "3", "POOL_WAIT_TIMEOUT": "0.3"}
    with two_workers(newest_postgres, settings=settings) as proxy:
        clients = await crowd(proxy, newest_postgres, 10)
        told = []
        for client in clients:
            try:
                await client.rows("BEGIN")
                told.append("begun")
            except ServerError as error:
                told.append(error.sqlstate)
        assert told.count("begun") == 3
        assert told.count("53300") == 7
        pool = f'{{database="postgres",user="{newest_postgres.user}"}}'
        assert samples(proxy)[f"pgsluice_pool_size{pool}"] == 3
        await leave(clients)


async def test_a_unix_socket_serves_all_workers_and_is_removed(newest_postgres: PostgresServer) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/.s.PGSQL.6432"
        with two_workers(newest_postgres, listen=("127.0.0.1:0", f"unix:{path}")) as proxy:
            assert proxy.ready["listen"][1] == f"unix:{path}"
            user, password = newest_postgres.user, newest_postgres.password
            clients = [await WireConnection.login(path, 0, user, password) for _ in range(6)]
            assert {worker_of(client) for client in clients} == set(range(WORKERS))
            assert [await client.value("SELECT 1") for client in clients] == ["1"] * 6
            await leave(clients)
        assert os.listdir(directory) == []


async def test_not_ready_while_the_primary_is_away(newest_postgres: PostgresServer) -> None:
    nowhere = "postgresql://app:secret@127.0.0.1:1/shop"
    with PgsluiceProcess(nowhere, arguments=("--workers", str(WORKERS))) as proxy:
        await until(lambda: b"127.0.0.1" in proxy.get("/readyz")[1], "the reason names the primary")
        assert proxy.get("/readyz")[0] == 503
        assert proxy.get("/livez") == (200, b"ok")


async def test_lines_of_workers_name_the_worker(
    newest_postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    for _ in range(20):
        stranger = await WireConnection.open(*proxied.address)
        await stranger.send(b"GET / HTTP/1.1\r\n\r\n")
        await stranger.read_to_end()
        stranger.abort()
    await until(lambda: bool(proxied.events_named("protocol violation")), "a line about it")
    for event in proxied.events_named("protocol violation") + proxied.events_named("primary reached"):
        assert event["worker"] in range(1, WORKERS + 1)
    await until(lambda: samples(proxied)["pgsluice_protocol_violations_total"] == 20, "all are counted")


# --- cancel -----------------------------------------------------------------------------------------


async def send_cancel(proxy: PgsluiceProcess, key: CancelKey) -> None:
    connection = await WireConnection.open(*proxy.address)
    await connection.send(CancelRequest(key))
    assert await connection.read_to_end() == b""
    connection.abort()


async def wait_until_running(observer: WireConnection, text: str) -> None:
    question = f"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{text}'"
    deadline = time.monotonic() + 30
    while await observer.value(question) != "1":
        assert time.monotonic() < deadline, f"never seen running: {text}"
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("minor", [0, 2])
@pytest.mark.parametrize("crowded", range(WORKERS))
async def test_a_cancel_request_finds_its_session_from_any_worker(
    newest_postgres: PostgresServer, proxied: PgsluiceProcess, crowded: int, minor: int
) -> None:
    observer = await WireConnection.login(
        "127.0.0.1", newest_postgres.port, newest_postgres.user, newest_postgres.password
    )
    clients = [await login(proxied, newest_postgres, minor=minor) for _ in range(8)]
    # Requests arrive at the worker with fewer clients: the one that does not have the session.
    await leave([client for client in clients if worker_of(client) != crowded])
    victim, bystander, *others = [client for client in clients if worker_of(client) == crowded]
    await bystander.send(frontend.Query(b"SELECT 'undisturbed' FROM pg_sleep(3)"))
    for turn in range(15):
        assert victim.key is not None
        text = f"SELECT {turn}, pg_sleep(600)"
        await victim.send(frontend.Query(text.encode()))
        await wait_until_running(observer, text)
        wrong = CancelKey(victim.key.pid, victim.key.secret[:3] + bytes([victim.key.secret[3] ^ WORKERS]))
        await send_cancel(proxied, wrong)
        await send_cancel(proxied, victim.key)
        with pytest.raises(ServerError) as caught:
            raise_error(await victim.receive_until(backend.ReadyForQuery))
        assert caught.value.sqlstate == "57014"
        # It has hit that statement, and not the next one.
        assert await victim.value(f"SELECT {turn}") == str(turn)
    said = await bystander.receive_until(backend.ReadyForQuery)
    assert any(isinstance(message, backend.DataRow) for message in said)
    assert samples(proxied)["pgsluice_cancels_total"] == 15
    await leave([observer, victim, bystander, *others])


def raise_error(messages: list[Any]) -> None:
    for message in messages:
        if isinstance(message, backend.ErrorResponse):
            raise ServerError(message)


# --- workers that die -------------------------------------------------------------------------------


async def test_a_worker_killed_is_replaced_and_the_others_notice_nothing(
    newest_postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    clients = await crowd(proxied, newest_postgres, 8)
    for client in clients:
        await client.rows("SELECT 'before'")
    before = samples(proxied)
    killed = pids(proxied)[0]
    lost = [client for client in clients if worker_of(client) == 0]
    kept = [client for client in clients if worker_of(client) == 1]
    for client in kept:
        await client.rows("BEGIN")
        await client.rows("SELECT set_config('test.mine', 'kept', true)")

    os.kill(killed, signal.SIGKILL)
    for client in lost:
        assert await client.read_to_end() == b""
        client.abort()
    for client in kept:
        assert await client.value("SELECT current_setting('test.mine')") == "kept"
    await asyncio.to_thread(proxied.wait_for, "worker ended")
    (ended,) = proxied.events_named("worker ended")
    assert (ended["worker"], ended["pid"], ended["reason"]) == (1, killed, "killed by SIGKILL")
    await asyncio.to_thread(proxied.wait_for, "worker started", count=WORKERS + 1)
    assert pids(proxied)[0] != killed
    await until(lambda: proxied.get("/readyz") == (200, b"ready"), "ready again")

    fresh = [await login(proxied, newest_postgres) for _ in range(3)]
    assert 0 in {worker_of(client) for client in fresh}
    for client in fresh:
        await client.rows("SELECT 'after'")
    for client in kept:
        await client.rows("COMMIT")
    after = samples(proxied)
    more = 4 * len(kept) + len(fresh)
    assert after["pgsluice_statements_total"] == before["pgsluice_statements_total"] + more
    assert calls_of(proxied, "select ?") == len(clients) + len(fresh)
    assert after["pgsluice_clients"] == len(kept) + len(fresh)
    assert {
        name for name in before.keys() & after.keys() if "_total" in name and after[name] < before[name]
    } == set()
    await leave(kept + fresh)


async def test_a_worker_that_is_told_to_end_does_so_properly_and_is_replaced(
    newest_postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    clients = await crowd(proxied, newest_postgres, 4)
    os.kill(pids(proxied)[1], signal.SIGTERM)
    for client in clients:
        if worker_of(client) == 1:
            assert (await client.expect(backend.ErrorResponse)).sqlstate == "57P01"
        else:
            assert await client.value("SELECT 1") == "1"
    assert (await asyncio.to_thread(proxied.wait_for, "worker ended"))["reason"] == "exit status 0"
    await asyncio.to_thread(proxied.wait_for, "worker started", count=WORKERS + 1)
    await leave(clients)


async def test_the_admin_server_answers_while_a_worker_hangs(
    newest_postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    clients = await crowd(proxied, newest_postgres, 4)
    for client in clients:
        await client.rows("SELECT 1")
    assert samples(proxied)["pgsluice_statements_total"] == 4
    hanging = pids(proxied)[1]
    os.kill(hanging, signal.SIGSTOP)
    try:
        assert (await asyncio.to_thread(samples, proxied))["pgsluice_statements_total"] == 4
        await until(lambda: b"worker 2" in proxied.get("/readyz")[1], "the worker that hangs is named")
    finally:
        os.kill(hanging, signal.SIGCONT)
    await until(lambda: proxied.get("/readyz") == (200, b"ready"), "ready again")
    for client in clients:
        await client.rows("SELECT 1")
    assert samples(proxied)["pgsluice_statements_total"] == 8
    await leave(clients)


# --- beginning and end ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_end_is_everybodys(newest_postgres: PostgresServer, number: signal.Signals) -> None:
    """Ctrl-C goes to the whole group of processes, and so may SIGTERM."""
    proxy = two_workers(newest_postgres).start()
    with proxy:
        clients = await crowd(proxy, newest_postgres, 6)
        processes = [proxy.pid, *pids(proxy).values()]
        os.killpg(proxy.pid, number)
        for client in clients:
            error = await client.expect(backend.ErrorResponse)
            assert (error.severity, error.sqlstate) == ("FATAL", "57P01")
            assert await client.read_to_end() == b""
            client.abort()
        assert await asyncio.to_thread(proxy.wait) == 0
        assert not [pid for pid in processes if alive(pid)]
        with pytest.raises(ConnectionRefusedError):
            await WireConnection.open(*proxy.address)


async def test_sigterm_to_the_supervisor_alone(newest_postgres: PostgresServer) -> None:
    proxy = two_workers(newest_postgres).start()
    clients = await crowd(proxy, newest_postgres, 4)
    processes = [proxy.pid, *pids(proxy).values()]
    assert await asyncio.to_thread(proxy.stop) == 0
    assert not [pid for pid in processes if alive(pid)]
    for client in clients:
        assert (await client.expect(backend.ErrorResponse)).sqlstate == "57P01"
        client.abort()


async def test_workers_end_when_the_supervisor_is_gone(newest_postgres: PostgresServer) -> None:
    proxy = two_workers(newest_postgres).start()
    clients = await crowd(proxy, newest_postgres, 4)
    workers = list(pids(proxy).values())
    os.kill(proxy.pid, signal.SIGKILL)
    assert await asyncio.to_thread(proxy.wait) == -signal.SIGKILL
    await until(lambda: not [pid for pid in workers if alive(pid)], "the workers have ended")
    for client in clients:
        assert (await client.expect(backend.ErrorResponse)).sqlstate == "57P01"
        client.abort()
    proxy.assert_clean()


@pytest.mark.parametrize("command", ["run", "check-config"])
def test_a_pool_smaller_than_the_workers_is_refused(command: str) -> None:
    arguments = [
        "--workers",
        "4",
        "--pool-size",
        "3",
        "--primary",
        "postgresql://app:secret@127.0.0.1:1/shop",
    ]
    result = pgsluice(command, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("pgsluice: --pool-size is 3; allowed: at least workers, which is 4")
    assert result.stderr.count("\n") == 1


def test_what_a_worker_refuses_is_one_line(tmp_path: Path) -> None:
    roots = tmp_path / ".postgresql" / "root.crt"
    roots.parent.mkdir()
    roots.write_text("no certificate")
    url = "postgresql://app:secret@127.0.0.1:1/shop?sslmode=require"
    arguments = ["--workers", "2", "--listen", "127.0.0.1:0", "--admin", "off", "--primary", url]
    result = pgsluice("run", *arguments, HOME=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.startswith("pgsluice: --primary: a certificate file named by the URL can't be used")
    assert result.stderr.count("\n") == 1


def test_a_port_in_use_is_one_line(newest_postgres: PostgresServer) -> None:
    taken = f"127.0.0.1:{newest_postgres.port}"
    result = pgsluice("run", "--workers", "2", "--listen", taken, "--primary", newest_postgres.url())
    assert result.returncode == 2
    assert result.stderr.startswith(f"pgsluice: --listen is '{taken}'; allowed: an address that is free")
    assert result.stderr.count("\n") == 1


def pgsluice(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "PGSLUICE_")) and name != "DATABASE_URL"
    }
    return subprocess.run(
        [sys.executable, "-P", "-m", "proxy.cli", *arguments],
        env=environment | variables,
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        timeout=30,
    )
