"""A primary that can't be reached: the proxy starts all the same, says so, and recovers by itself."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import psycopg
import pytest
from support.ports import free_port
from support.postgres import PASSWORD, SUPERUSER, new_server
from support.proxy import PgsluiceProcess
from support.wire import ServerError, WireConnection

from proxy.demo.embedded import PostgresServer

SECRET = "must-not-be-said"


@pytest.fixture
def stopped() -> Iterator[PostgresServer]:
    """A server that has a port, but has not been started yet."""
    with new_server() as server:
        server.port = free_port()
        yield server


async def login(process: PgsluiceProcess, **parameters: str) -> WireConnection:
    return await WireConnection.login(*process.address, SUPERUSER, PASSWORD, **parameters)


def healthcheck(process: PgsluiceProcess) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "proxy.cli", "healthcheck", "--admin", process.ready["admin"]],
        env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        timeout=30,
    )


async def wait_ready(process: PgsluiceProcess) -> None:
    async with asyncio.timeout(15):
        while process.get("/readyz")[0] != 200:
            await asyncio.sleep(0.05)


def metric(process: PgsluiceProcess, name: str) -> float:
    """The sum over all labels that are not given."""
    lines = [
        line
        for line in process.get("/metrics")[1].decode().splitlines()
        if line.startswith((f"{name} ", f"{name}{{"))
    ]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def url_of(port: int) -> str:
    return f"postgresql://{SUPERUSER}:{SECRET}@127.0.0.1:{port}/postgres"


async def test_it_starts_and_says_why_it_is_not_ready() -> None:
    port = free_port()
    with PgsluiceProcess(url_of(port), settings={"POOL__WAIT_TIMEOUT": "0.5"}) as process:
        process.wait_for("primary can't be reached")
        assert process.get("/livez") == (200, b"ok")
        status, reason = process.get("/readyz")
        assert status == 503
        assert f"127.0.0.1:{port}" in reason.decode()
        result = healthcheck(process)
        assert result.returncode == 1
        assert f"127.0.0.1:{port}" in result.stdout

        began = time.monotonic()
        with pytest.raises(ServerError) as refused:
            await WireConnection.login(*process.address, SUPERUSER, SECRET)
        assert time.monotonic() - began >= 0.4, "clients wait before they are refused"
        response = refused.value.response
        assert (response.severity, response.sqlstate) == ("FATAL", "08001")
        assert f"127.0.0.1:{port}" in response.message
        assert "Connection refused" in response.message
        for text in (*response.fields.values(), reason.decode(), result.stdout):
            assert SECRET not in text
        # The password is asked for as ever: a stranger does not learn whether the server is up.
        with pytest.raises(ServerError) as wrong:
            await WireConnection.login(*process.address, SUPERUSER, "wrong")
        assert wrong.value.sqlstate == "28P01"
    assert SECRET not in process.log


def test_drivers_show_the_reason() -> None:
    port = free_port()
    reason = f"could not connect to server at 127.0.0.1:{port}"
    with PgsluiceProcess(url_of(port), settings={"POOL__WAIT_TIMEOUT": "0.2"}) as process:
        for _ in range(2):
            with pytest.raises(psycopg.OperationalError, match=reason):
                psycopg.connect(process.url())


async def test_clients_that_wait_are_served_when_it_comes(stopped: PostgresServer) -> None:
    with PgsluiceProcess(stopped.url(), settings={"POOL__WAIT_TIMEOUT": "30", "POOL_SIZE": "2"}) as process:
        process.wait_for("primary can't be reached")
        clients = [asyncio.create_task(login(process, geqo_seed=f"0.{i}")) for i in (1, 1, 2, 3)]
        await asyncio.sleep(0.3)
        assert not any(client.done() for client in clients)
        stopped.start()
        sessions = await asyncio.gather(*clients)
        assert [await session.value("SHOW geqo_seed") for session in sessions] == ["0.1", "0.1", "0.2", "0.3"]
        for session in sessions:
            await session.close()
        await wait_ready(process)
        assert healthcheck(process).returncode == 0
        process.wait_for("primary reached")
        assert len(process.events_named("primary can't be reached")) == 1, "said once, not at every attempt"


async def test_it_becomes_ready_without_any_client(stopped: PostgresServer) -> None:
    with PgsluiceProcess(stopped.url()) as process:
        process.wait_for("primary can't be reached")
        assert process.get("/readyz")[0] == 503
        stopped.start()
        await wait_ready(process)


@pytest.mark.smoke
async def test_a_primary_that_goes_and_comes(stopped: PostgresServer) -> None:
    stopped.start()
    with PgsluiceProcess(stopped.url(), settings={"POOL__WAIT_TIMEOUT": "0.5"}) as process:
        await wait_ready(process)
        async with await login(process) as session, await login(process) as other:
            assert await session.value("SELECT 1") == "1"
            stopped.stop()
            # Sessions without a transaction hold no server: they live on and are told for each statement.
            for each in (session, other):
                with pytest.raises(ServerError) as failed:
                    await each.value("SELECT 1")
                assert (failed.value.response.severity, failed.value.sqlstate) == ("ERROR", "08001")
                assert f"127.0.0.1:{stopped.port}" in failed.value.response.message
            with pytest.raises(ServerError) as refused:
                await login(process)
            assert refused.value.sqlstate == "08001"
            assert process.get("/readyz")[0] == 503
            assert metric(process, "pgsluice_pool_connect_errors_total") > 0
            assert metric(process, "pgsluice_pool_waiting_clients") == 0
            assert metric(process, "pgsluice_pool_connections") == 0

            stopped.start()
            await wait_ready(process)
            # Attempts are up to two seconds apart by now, longer than anybody here waits.
            async with asyncio.timeout(10):
                answer = None
                while answer is None:
                    with contextlib.suppress(ServerError):
                        answer = await session.value("SELECT 2")
            assert answer == "2"
            assert await other.value("SELECT 3") == "3"
        assert metric(process, 'pgsluice_statement_errors_total{sqlstate="08001"}') >= 2


async def test_a_server_that_accepts_and_says_nothing() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", free_port()))
        silent.listen()
        port = silent.getsockname()[1]
        settings = {"POOL__WAIT_TIMEOUT": "0.6", "SERVER__CONNECT_TIMEOUT": "0.2"}
        with PgsluiceProcess(url_of(port), settings=settings) as process:
            with pytest.raises(ServerError) as refused:
                await WireConnection.login(*process.address, SUPERUSER, SECRET)
            assert refused.value.sqlstate == "08001"
            assert f"127.0.0.1:{port}" in refused.value.response.message
            assert "0.2 s" in refused.value.response.message


@pytest.mark.parametrize(
    "greeting",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"E\x7f\xff\xff\xff", b"S", b"R\0\0\0\x08\0\0\0\x63", b""],
    ids=["HTTP", "enormous", "TLS and nothing", "unknown authentication", "closes"],
)
async def test_a_server_that_is_no_postgresql(greeting: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(greeting)
        await asyncio.sleep(0.05)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", free_port()) as server:
        port = server.sockets[0].getsockname()[1]
        with PgsluiceProcess(url_of(port), settings={"POOL__WAIT_TIMEOUT": "0.3"}) as process:
            with pytest.raises(ServerError) as refused:
                await WireConnection.login(*process.address, SUPERUSER, SECRET)
            assert refused.value.sqlstate in ("08001", "28P01")
            assert f"127.0.0.1:{port}" in refused.value.response.message
            assert SECRET not in refused.value.response.message
            assert metric(process, "pgsluice_pool_waiting_clients") == 0


async def test_a_name_that_means_no_machine() -> None:
    primary = f"postgresql://{SUPERUSER}:{SECRET}@nowhere.invalid:5432/postgres"
    with PgsluiceProcess(primary, settings={"POOL__WAIT_TIMEOUT": "0.3"}) as process:
        with pytest.raises(ServerError) as refused:
            await WireConnection.login(*process.address, SUPERUSER, SECRET)
        assert refused.value.sqlstate == "08001"
        assert "nowhere.invalid:5432" in refused.value.response.message


async def test_a_primary_that_refuses_the_proxy_s_own_log_in(newest_postgres: PostgresServer) -> None:
    """It is up, but nobody could be served: not ready, and the reason is the server's."""
    with PgsluiceProcess(url_of(newest_postgres.port)) as process:
        process.wait_for("primary can't be reached")
        status, reason = process.get("/readyz")
        assert status == 503
        assert "password authentication failed" in reason.decode()
        assert SECRET not in reason.decode()
        with pytest.raises(ServerError) as refused:
            await WireConnection.login(*process.address, SUPERUSER, SECRET)
        assert (refused.value.sqlstate, refused.value.response.message) == (
            "28P01",
            f'password authentication failed for user "{SUPERUSER}"',
        )


async def test_a_server_that_has_no_more_connections(stopped: PostgresServer) -> None:
    """It may have some again soon: clients wait for that, and else get the server's own words."""
    stopped.settings = dict(stopped.settings) | {
        "max_connections": "4",
        "superuser_reserved_connections": "0",
        "max_wal_senders": "0",
    }
    if stopped.programs.major >= 16:
        stopped.settings["reserved_connections"] = "0"
    stopped.start()
    with PgsluiceProcess(stopped.url(), settings={"POOL__WAIT_TIMEOUT": "1"}) as process:
        await wait_ready(process)
        hogs = []
        async with asyncio.timeout(10):
            while len(hogs) < 4:
                try:
                    hogs.append(await WireConnection.login("127.0.0.1", stopped.port, SUPERUSER, PASSWORD))
                except ServerError as full:
                    words = full.response.message
                    await asyncio.sleep(0.05)
        with pytest.raises(ServerError) as direct:
            await WireConnection.login("127.0.0.1", stopped.port, SUPERUSER, PASSWORD)
        words = direct.value.response.message
        with pytest.raises(ServerError) as refused:
            await login(process)
        assert (refused.value.sqlstate, refused.value.response.message) == ("53300", words)
        waiting = asyncio.create_task(login(process))
        await asyncio.sleep(0.2)
        for hog in hogs:
            await hog.close()
        async with await waiting as session:
            assert await session.value("SELECT 1") == "1"
