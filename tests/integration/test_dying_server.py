"""Servers that die: the client is told what a server of its own would tell it, and nothing stays stuck."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import psycopg
import pytest
from support.postgres import PASSWORD, SUPERUSER, kill_backend, running_server, terminate_backend
from support.proxy import PgsluiceProcess
from support.wire import ServerError, WireConnection, rows_of

from protocol.messages import backend, frontend
from protocol.messages.codec import Message
from proxy.demo.embedded import PostgresServer

UNEXPECTED = ("FATAL", "08006", "server closed the connection unexpectedly")
"""What the proxy adds where a server is gone without a word: libpq's own words for that."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of these tests' own, for they kill it."""
    with running_server() as server:
        server.psql(
            "CREATE TABLE big AS SELECT i, repeat(md5(i::text), 30) AS text FROM generate_series(1, 20000) i"
        )
        # It commits asynchronously, and these tests crash it: what has not been written by then is gone.
        server.psql("CHECKPOINT")
        yield server


@pytest.fixture(params=["transaction", "session"])
def process(server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[PgsluiceProcess]:
    """A proxy with two server connections; afterwards nothing may be stuck."""
    settings = {"POOL_SIZE": "2", "POOL_MODE": request.param, "POOL__WAIT_TIMEOUT": "20"}
    with PgsluiceProcess(server.url(), settings=settings) as process:
        yield process
        asyncio.run(unstuck(process))


async def unstuck(process: PgsluiceProcess, size: int = 2) -> None:
    """No client holds a server or waits for one, no server is counted that does not exist."""
    deadline = time.monotonic() + 10
    while True:
        figures = {
            name: metric(process, name)
            for name in ("pgsluice_clients", "pgsluice_active_clients", "pgsluice_pool_waiting_clients")
        }
        for state in ("active", "opening"):
            labels = f'database="postgres",state="{state}",user="{SUPERUSER}"'
            figures[state] = metric(process, f"pgsluice_pool_connections{{{labels}}}")
        if not any(figures.values()):
            break
        assert time.monotonic() < deadline, f"left over: {figures}"
        await asyncio.sleep(0.02)
    servers = metric(process, "pgsluice_pool_opened_total") - metric(process, "pgsluice_pool_closed_total")
    assert metric(process, "pgsluice_pool_connections") == servers <= size


def metric(process: PgsluiceProcess, name: str) -> float:
    """The sum over all labels that are not given."""
    lines = [
        line
        for line in process.get("/metrics")[1].decode().splitlines()
        if line.startswith((f"{name} ", f"{name}{{"))
    ]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@contextlib.asynccontextmanager
async def session_at(address: tuple[str, int]) -> AsyncIterator[WireConnection]:
    session = await WireConnection.login(*address, SUPERUSER, PASSWORD)
    try:
        yield session
    finally:
        session.abort()


async def pid_of(session: WireConnection) -> int:
    return int(await session.value("SELECT pg_backend_pid()") or 0)


async def wait_active(server: PostgresServer, pid: int) -> None:
    async with asyncio.timeout(10):
        while server.psql(f"SELECT state FROM pg_stat_activity WHERE pid = {pid}") != "active":
            await asyncio.sleep(0.02)


async def wait_gone(server: PostgresServer, pid: int) -> None:
    async with asyncio.timeout(10):
        while server.psql(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}") != "0":
            await asyncio.sleep(0.02)


async def everything(session: WireConnection) -> list[Any]:
    """All that is said until the connection ends; errors and warnings by severity, SQLSTATE, message."""
    said: list[Any] = []
    while True:
        try:
            message: Message = await session.receive()
        except (asyncio.IncompleteReadError, ConnectionError):
            return said
        if isinstance(message, backend.ErrorResponse | backend.NoticeResponse):
            said.append((message.severity, message.sqlstate, message.message))
        else:
            said.append(message)


Act = Callable[[WireConnection], Awaitable[None]]


async def nothing(session: WireConnection) -> None:
    pass


async def sleep(session: WireConnection) -> None:
    await session.send(frontend.Query(b"SELECT pg_sleep(60)"))


async def pipeline(session: WireConnection) -> None:
    await session.send(
        frontend.Parse(b"", b"SELECT 1", ()),
        frontend.Bind(b"", b"", (), (), ()),
        frontend.Execute(b"", 0),
        frontend.Parse(b"", b"SELECT pg_sleep(60)", ()),
        frontend.Bind(b"", b"", (), (), ()),
        frontend.Execute(b"", 0),
        frontend.Sync(),
        frontend.Query(b"SELECT 2"),
    )


async def copy_in(session: WireConnection) -> None:
    await session.send(frontend.Query(b"COPY big FROM STDIN"))
    await session.receive_until(backend.CopyInResponse)
    await session.send(frontend.CopyData(b"1\tone\n"))


# What a session does when its server is ended.
ACTS: dict[str, Act] = {
    "between statements": nothing,
    "statement": sleep,
    "pipeline": pipeline,
    "COPY": copy_in,
}


@pytest.mark.parametrize("act", ACTS)
async def test_a_terminated_server(server: PostgresServer, process: PgsluiceProcess, act: str) -> None:
    """pg_terminate_backend inside a transaction: byte for byte what the server says to its own client."""
    told = []
    for address in (("127.0.0.1", server.port), process.address):
        async with session_at(address) as session:
            await session.query("BEGIN")
            pid = await pid_of(session)
            await ACTS[act](session)
            if ACTS[act] in (sleep, pipeline):
                await wait_active(server, pid)
            terminate_backend(server, pid)
            told.append(await everything(session))
    assert told[0][-1][:2] == ("FATAL", "57P01")
    assert told[1] == told[0]


@pytest.mark.parametrize("act", ["between statements", "statement", "COPY"])
async def test_a_killed_server(server: PostgresServer, process: PgsluiceProcess, act: str) -> None:
    """kill -9: it can't say anything. The postmaster then ends all others, and they say why."""
    told = []
    for address in (("127.0.0.1", server.port), process.address):
        async with session_at(address) as session, session_at(address) as other:
            for each in (session, other):
                await each.query("BEGIN")
            victim, bystander = await pid_of(session), await pid_of(other)
            await ACTS[act](session)
            await sleep(other)
            await wait_active(server, bystander)
            kill_backend(server, victim)
            told.append([await everything(session), await everything(other)])
        server.wait_restarted()
    direct, proxied = told
    assert direct[0] == []
    assert proxied[0] == [UNEXPECTED]
    assert direct[1][-1][:2] == ("WARNING", "57P02")
    assert proxied[1] == [*direct[1], UNEXPECTED]
    async with session_at(process.address) as session:
        assert await session.value("SELECT 'recovered'") == "recovered"


@pytest.mark.smoke
async def test_killed_in_the_middle_of_a_result(server: PostgresServer, process: PgsluiceProcess) -> None:
    """Rows that were sent are read; nothing is slipped into the middle of one."""
    async with session_at(process.address) as session:
        await session.query("BEGIN")
        pid = await pid_of(session)
        await session.send(frontend.Query(b"SELECT * FROM big"))
        await session.receive_until(backend.RowDescription)
        rows = [await session.expect(backend.DataRow) for _ in range(100)]
        kill_backend(server, pid)
        rest = await session.read_to_end()
    assert [row.values[0] for row in rows] == [str(i).encode() for i in range(1, 101)]
    number, torn = 100, False
    while rest:
        length = 1 + int.from_bytes(rest[1:5])
        if len(rest) < max(length, 5):
            torn = True
            break
        message = backend.decode_backend(rest[0], rest[5:length])
        rest = rest[length:]
        if isinstance(message, backend.ErrorResponse):
            assert (message.severity, message.sqlstate, message.message) == UNEXPECTED
            assert rest == b""
            break
        number += 1
        assert isinstance(message, backend.DataRow)
        assert message.values[0] == str(number).encode()
    assert number < 20_000
    assert torn or not rest
    server.wait_restarted()
    async with session_at(process.address) as session:
        assert await session.value("SELECT count(*) FROM big") == "20000"


def test_what_drivers_make_of_it(server: PostgresServer, process: PgsluiceProcess) -> None:
    with psycopg.connect(process.url()) as connection:
        (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        terminate_backend(server, int(pid))
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute("SELECT 1")
        assert connection.closed
    with psycopg.connect(process.url()) as connection:
        (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        kill_backend(server, int(pid))
        with pytest.raises(psycopg.OperationalError, match="server closed the connection unexpectedly"):
            connection.execute("SELECT 1")
        assert connection.closed
    server.wait_restarted()


async def test_a_server_that_dies_idle_is_handed_to_nobody(server: PostgresServer) -> None:
    with PgsluiceProcess(server.url(), settings={"POOL_SIZE": "2"}) as process:
        async with session_at(process.address) as session, session_at(process.address) as other:
            for number in range(15):
                pid = await pid_of(session)
                terminate_backend(server, pid)
                if number % 2:
                    await wait_gone(server, pid)
                else:
                    await asyncio.sleep(0.02)
                for each in (session, other):
                    assert await each.value(f"SELECT {number}") == str(number)
        await unstuck(process)


async def test_waiters_get_the_server_that_replaces_a_dead_one(server: PostgresServer) -> None:
    with PgsluiceProcess(server.url(), settings={"POOL_SIZE": "1", "POOL__WAIT_TIMEOUT": "20"}) as process:
        for end in (terminate_backend, kill_backend):
            async with (
                session_at(process.address) as holder,
                session_at(process.address) as first,
                session_at(process.address) as second,
            ):
                await holder.query("BEGIN")
                pid = await pid_of(holder)
                for number, waiter in enumerate((first, second)):
                    await waiter.send(frontend.Query(f"SELECT 'waiter {number}'".encode()))
                async with asyncio.timeout(10):
                    while metric(process, "pgsluice_pool_waiting_clients") != 2:
                        await asyncio.sleep(0.02)
                end(server, pid)
                for number, waiter in enumerate((first, second)):
                    said = await waiter.receive_until(backend.ReadyForQuery)
                    assert rows_of(said) == [(f"waiter {number}",)]
        server.wait_restarted()
        await unstuck(process)


async def test_a_restart(
    server: PostgresServer, process: PgsluiceProcess, request: pytest.FixtureRequest
) -> None:
    """Who is inside a transaction loses it, who holds no server hardly notices."""
    async with (
        session_at(process.address) as idle,
        session_at(process.address) as inside,
    ):
        await idle.query("SELECT 1")
        await inside.query("BEGIN")
        async with session_at(("127.0.0.1", server.port)) as direct:
            await direct.query("BEGIN")
            server.stop()
            expected = await everything(direct)
        assert expected == [("FATAL", "57P01", "terminating connection due to administrator command")]
        assert await everything(inside) == expected
        server.start()
        if request.node.callspec.params["process"] == "session":
            assert await everything(idle) == expected
        else:
            assert await idle.value("SELECT 'still here'") == "still here"
        async with session_at(process.address) as fresh:
            assert await fresh.value("SELECT 'new'") == "new"


async def test_a_crash_among_many_clients(server: PostgresServer) -> None:
    """Everybody is told something, nobody hangs, and all is well afterwards."""
    with PgsluiceProcess(server.url(), settings={"POOL_SIZE": "4", "POOL__WAIT_TIMEOUT": "20"}) as process:
        stop = asyncio.Event()
        outcomes: dict[str, int] = {}

        async def client(number: int) -> None:
            while not stop.is_set():
                try:
                    async with session_at(process.address) as session:
                        while not stop.is_set():
                            await session.query("BEGIN")
                            assert await session.value(f"SELECT {number} FROM pg_sleep(0.002)") == str(number)
                            await session.query("COMMIT")
                            outcomes["fine"] = outcomes.get("fine", 0) + 1
                except ServerError as failure:
                    outcomes[failure.sqlstate] = outcomes.get(failure.sqlstate, 0) + 1
                except (asyncio.IncompleteReadError, ConnectionError):
                    outcomes["closed"] = outcomes.get("closed", 0) + 1

        clients = [asyncio.create_task(client(number)) for number in range(12)]
        try:
            for _ in range(2):
                await asyncio.sleep(0.4)
                pid = await asyncio.to_thread(
                    server.psql,
                    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
                    "AND pid <> pg_backend_pid() LIMIT 1",
                )
                await asyncio.to_thread(kill_backend, server, int(pid))
                await asyncio.to_thread(server.wait_restarted)
            fine = outcomes["fine"]
            async with asyncio.timeout(15):
                while outcomes["fine"] < fine + 50:
                    await asyncio.sleep(0.02)
        finally:
            stop.set()
            await asyncio.gather(*clients)
        assert set(outcomes) <= {"fine", "closed", "08006", "57P02", "57P01", "57P03"}, outcomes
        assert len(outcomes) > 1, "somebody noticed"
        await unstuck(process, 4)


@pytest.mark.parametrize(
    ("setting", "act", "sqlstate"),
    [
        ("idle_in_transaction_session_timeout", nothing, "25P03"),
        ("transaction_timeout", sleep, "25P04"),
        ("statement_timeout", sleep, "57014"),
    ],
    ids=["idle in transaction", "transaction", "statement"],
)
async def test_timeouts_of_the_server(
    server: PostgresServer, process: PgsluiceProcess, setting: str, act: Act, sqlstate: str
) -> None:
    if setting == "transaction_timeout" and server.programs.major < 17:
        pytest.skip("transaction_timeout came with PostgreSQL 17")
    told = []
    for address in (("127.0.0.1", server.port), process.address):
        async with session_at(address) as session:
            await session.query(f"BEGIN; SET LOCAL {setting} = 100")
            await act(session)
            if sqlstate == "57014":
                (error,) = [
                    each
                    for each in await session.receive_until(backend.ReadyForQuery)
                    if isinstance(each, backend.ErrorResponse)
                ]
                told.append([(error.severity, error.sqlstate, error.message)])
            else:
                told.append(await everything(session))
    assert any(each[1] == sqlstate for each in told[0] if isinstance(each, tuple))
    assert told[1] == told[0]


async def test_servers_that_end_by_their_idle_timeout(server: PostgresServer) -> None:
    """A connection that lies in the pool is ended by the server: clients do not hear of it."""
    url = server.url() + "?options=-c%20idle_session_timeout%3D150"
    with PgsluiceProcess(url, settings={"POOL_SIZE": "2"}) as process:
        async with session_at(process.address) as session:
            for number in range(4):
                assert await session.value(f"SELECT {number}") == str(number)
                await asyncio.sleep(0.25)
            assert metric(process, "pgsluice_pool_opened_total") >= 3
        await unstuck(process)
