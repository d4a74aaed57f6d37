"""A cancel request reaches the statement of the client whose key it has, and nothing else."""

import asyncio
import contextlib
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from support.postgres import PASSWORD, SUPERUSER, client_program
from support.proxy import PgsluiceProcess
from support.wire import WireConnection, rows_of

from protocol.messages import backend, frontend
from protocol.messages.codec import Message
from protocol.messages.startup import CancelRequest
from protocol.types import CancelKey
from proxy.demo.embedded import PostgresServer

CANCELED = ("ERROR", "57014", "canceling statement due to user request")


@pytest.fixture(scope="module", params=["transaction", "session"])
def process(postgres: PostgresServer, request: pytest.FixtureRequest) -> Iterator[PgsluiceProcess]:
    """A proxy with three server connections, in both modes."""
    with PgsluiceProcess(postgres.url(), settings={"POOL_SIZE": "3", "POOL_MODE": request.param}) as process:
        yield process


@pytest.fixture
def narrow(newest_postgres: PostgresServer) -> Iterator[PgsluiceProcess]:
    """A proxy with a single server connection: whoever comes next is served by it."""
    with PgsluiceProcess(newest_postgres.url(), settings={"POOL_SIZE": "1"}) as process:
        yield process


async def login(process: PgsluiceProcess, **options: int) -> WireConnection:
    return await WireConnection.login(*process.address, SUPERUSER, PASSWORD, **options)  # type: ignore[arg-type]


async def send_cancel(process: PgsluiceProcess, key: CancelKey) -> None:
    """As a client does: a connection of its own, which the other side closes when it has taken note."""
    connection = await WireConnection.open(*process.address)
    await connection.send(CancelRequest(key))
    assert await connection.read_to_end() == b""
    connection.abort()


async def wait_until_running(server: PostgresServer, marker: str, count: int = 1) -> None:
    """Until so many statements with that text run on the server."""
    question = (
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep' "
        f"AND query LIKE '%{marker}%'"
    )
    async with asyncio.timeout(10):
        while server.psql(question) != str(count):
            await asyncio.sleep(0.02)


async def wait_until_gone(server: PostgresServer, marker: str) -> None:
    question = (
        f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{marker}%' AND pid <> pg_backend_pid() "
        "AND state <> 'idle'"
    )
    async with asyncio.timeout(10):
        while server.psql(question) != "0":
            await asyncio.sleep(0.02)


def errors(messages: list[Message]) -> list[tuple[str, str, str]]:
    return [
        (each.severity, each.sqlstate, each.message)
        for each in messages
        if isinstance(each, backend.ErrorResponse)
    ]


# --- the right one --------------------------------------------------------------------------------


@pytest.mark.smoke
async def test_one_of_many(postgres: PostgresServer, process: PgsluiceProcess) -> None:
    sessions = [await login(process) for _ in range(3)]
    for number, session in enumerate(sessions):
        seconds = 30 if number == 1 else 1
        await session.send(frontend.Query(f"SELECT pg_sleep({seconds}), {number}, 'one_of_many'".encode()))
    await wait_until_running(postgres, "one_of_many", 3)
    await sessions[1].cancel()
    assert errors(await sessions[1].receive_until(backend.ReadyForQuery)) == [CANCELED]
    for number in (0, 2):
        assert rows_of(await sessions[number].receive_until(backend.ReadyForQuery)) == [
            ("", str(number), "one_of_many")
        ]
    for session in sessions:
        assert await session.value("SELECT 'goes on'") == "goes on"
        await session.close()


@pytest.mark.parametrize("minor", [0, 2])
async def test_by_either_length_of_key(
    postgres: PostgresServer, process: PgsluiceProcess, minor: int
) -> None:
    async with await login(process, minor=minor) as session:
        key = session.key
        assert key is not None
        assert len(key.secret) == (32 if minor == 2 and postgres.programs.major >= 18 else 4)
        await session.send(frontend.Query(f"SELECT pg_sleep(30), 'by_length_{minor}'".encode()))
        await wait_until_running(postgres, f"by_length_{minor}")
        for secret in (
            key.secret[:-1] or b"x",
            key.secret[:-1] + bytes([key.secret[-1] ^ 1]),
            key.secret + b"\0",
        ):
            await send_cancel(process, CancelKey(key.pid, secret))
        for pid in (key.pid + 1, 0, -1):
            await send_cancel(process, CancelKey(pid, key.secret))
        await wait_until_running(postgres, f"by_length_{minor}")
        await send_cancel(process, key)
        assert errors(await session.receive_until(backend.ReadyForQuery)) == [CANCELED]


async def test_in_the_extended_protocol(postgres: PostgresServer, process: PgsluiceProcess) -> None:
    async with await login(process) as session:
        await session.send(
            frontend.Parse(b"sleeper", b"SELECT pg_sleep(30), 'extended_sleep'", ()),
            frontend.Bind(b"", b"sleeper", (), (), ()),
            frontend.Execute(b"", 0),
            frontend.Sync(),
        )
        await wait_until_running(postgres, "extended_sleep")
        await session.cancel()
        assert errors(await session.receive_until(backend.ReadyForQuery)) == [CANCELED]
        assert await session.value("SELECT 1") == "1"


async def test_in_a_transaction(postgres: PostgresServer, process: PgsluiceProcess) -> None:
    async with await login(process) as session:
        await session.query("BEGIN")
        await session.send(frontend.Query(b"SELECT pg_sleep(30), 'transaction_sleep'"))
        await wait_until_running(postgres, "transaction_sleep")
        await session.cancel()
        assert errors(await session.receive_until(backend.ReadyForQuery)) == [CANCELED]
        assert session.status == ord("E")
        assert [code for _, code, _ in errors(await session.query("SELECT 1"))] == ["25P02"]
        await session.query("ROLLBACK")
        assert session.status == ord("I")


async def test_while_copying(process: PgsluiceProcess) -> None:
    async with await login(process) as session:
        await session.send(frontend.Query(b"COPY (SELECT generate_series(1, 100000000)) TO STDOUT"))
        await session.receive_until(backend.CopyOutResponse)
        await session.cancel()
        assert errors(await session.receive_until(backend.ReadyForQuery)) == [CANCELED]
        assert await session.value("SELECT 1") == "1"


async def test_a_statement_that_waits_for_a_server(
    newest_postgres: PostgresServer, narrow: PgsluiceProcess
) -> None:
    """With a server of its own the statement would run, and end by the cancel."""
    async with await login(narrow) as holder, await login(narrow) as waiter, await login(narrow) as next_one:
        await holder.query("BEGIN")
        await waiter.send(frontend.Query(b"SELECT 'never'"))
        await next_one.send(frontend.Query(b"SELECT 'in turn'"))
        await wait_for_gauge(narrow, "pgsluice_pool_waiting_clients", 2)
        await waiter.cancel()
        assert errors(await waiter.receive_until(backend.ReadyForQuery)) == [CANCELED]
        assert metric(narrow, "pgsluice_pool_waiting_clients") == 1
        await holder.query("COMMIT")
        assert rows_of(await next_one.receive_until(backend.ReadyForQuery)) == [("in turn",)]
        assert await waiter.value("SELECT 'lives on'") == "lives on"


# --- and no other ---------------------------------------------------------------------------------


async def test_for_an_idle_client_nothing_happens(
    newest_postgres: PostgresServer, narrow: PgsluiceProcess
) -> None:
    async with await login(narrow) as idle, await login(narrow) as busy:
        assert await idle.value("SELECT 1") == "1"  # on the very server that the other uses next
        await busy.send(frontend.Query(b"SELECT pg_sleep(0.7), 'undisturbed'"))
        await wait_until_running(newest_postgres, "undisturbed")
        for _ in range(3):
            await idle.cancel()
        assert rows_of(await busy.receive_until(backend.ReadyForQuery)) == [("", "undisturbed")]


async def test_between_statements_of_a_transaction_nothing_happens(narrow: PgsluiceProcess) -> None:
    async with await login(narrow) as session:
        await session.query("BEGIN")
        await session.cancel()
        assert await session.value("SELECT 1") == "1"
        assert session.status == ord("T")
        await session.query("COMMIT")


async def test_the_keys_of_the_servers_themselves_are_worth_nothing(
    newest_postgres: PostgresServer, narrow: PgsluiceProcess
) -> None:
    """The pid that a client is told is a server's, and may be another client's too: the secret is its own."""
    async with await login(narrow) as one, await login(narrow) as other:
        assert one.key is not None
        assert other.key is not None
        assert one.key.secret != other.key.secret
        await one.send(frontend.Query(b"SELECT pg_sleep(0.7), 'own_keys'"))
        await wait_until_running(newest_postgres, "own_keys")
        await send_cancel(narrow, CancelKey(one.key.pid, other.key.secret))
        await send_cancel(narrow, CancelKey(other.key.pid, b"\0\0\0\0"))
        assert rows_of(await one.receive_until(backend.ReadyForQuery)) == [("", "own_keys")]


async def test_a_key_ends_with_its_session(newest_postgres: PostgresServer, narrow: PgsluiceProcess) -> None:
    async with await login(narrow) as gone:
        key = gone.key
    assert key is not None
    async with await login(narrow) as session:
        await session.send(frontend.Query(b"SELECT pg_sleep(0.5), 'ended_key'"))
        await wait_until_running(newest_postgres, "ended_key")
        await send_cancel(narrow, key)
        assert rows_of(await session.receive_until(backend.ReadyForQuery)) == [("", "ended_key")]


async def test_statements_that_end_while_they_are_canceled(narrow: PgsluiceProcess) -> None:
    """Cancels race with the ends of their statements, on one server that others use in between."""
    rounds = 60
    hasty, *others = [await login(narrow) for _ in range(4)]
    canceled = 0

    async def work(session: WireConnection) -> None:
        for number in range(rounds):
            assert rows_of(await session.query(f"SELECT pg_sleep(0.001), {number}")) == [("", str(number))]

    async def race() -> None:
        nonlocal canceled
        for number in range(rounds):
            await hasty.send(frontend.Query(f"SELECT pg_sleep(0.002), {number}".encode()))
            await asyncio.sleep(0.0005 * (number % 8))
            await hasty.cancel()
            said = await hasty.receive_until(backend.ReadyForQuery)
            if errors(said):
                assert errors(said) == [CANCELED]
                canceled += 1
            else:
                assert rows_of(said) == [("", str(number))]

    await asyncio.gather(race(), *map(work, others))
    assert canceled > 0, "some of the cancels came in time"
    for session in (hasty, *others):
        await session.close()
    await wait_for_gauge(narrow, "pgsluice_active_clients", 0)
    assert metric(narrow, "pgsluice_pool_waiting_clients") == 0


async def test_many_cancels_for_one_statement(
    newest_postgres: PostgresServer, narrow: PgsluiceProcess
) -> None:
    async with await login(narrow) as session, await login(narrow) as other:
        assert session.key is not None
        await session.send(frontend.Query(b"SELECT pg_sleep(30), 'many_cancels'"))
        await wait_until_running(newest_postgres, "many_cancels")
        cancels = [asyncio.create_task(send_cancel(narrow, session.key)) for _ in range(10)]
        assert errors(await session.receive_until(backend.ReadyForQuery)) == [CANCELED]
        for number in range(20):
            assert await other.value(f"SELECT {number}") == str(number)
        await asyncio.gather(*cancels)


async def test_a_client_that_is_gone_leaves_no_statement_running(
    newest_postgres: PostgresServer, narrow: PgsluiceProcess
) -> None:
    session = await login(narrow)
    await session.send(frontend.Query(b"SELECT pg_sleep(60), 'left_behind'"))
    await wait_until_running(newest_postgres, "left_behind")
    connection = session.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    session.abort()  # by a reset, as a process that is killed
    await wait_until_gone(newest_postgres, "left_behind")
    async with await login(narrow) as other:
        assert await other.value("SELECT 1") == "1"


async def test_what_a_client_asked_before_it_left_is_carried_out(
    newest_postgres: PostgresServer, narrow: PgsluiceProcess
) -> None:
    """As by a server, which reads the end of the stream after the statement."""
    newest_postgres.psql("CREATE TABLE last_words (word text)")
    try:
        session = await login(narrow)
        await session.send(frontend.Query(b"INSERT INTO last_words SELECT 'said' FROM pg_sleep(0.3)"))
        session.abort()
        async with await login(narrow) as other:
            async with asyncio.timeout(10):
                while await other.value("SELECT count(*) FROM last_words") == "0":
                    await asyncio.sleep(0.02)
            assert await other.rows("SELECT word FROM last_words") == [("said",)]
    finally:
        newest_postgres.psql("DROP TABLE last_words")


async def test_malformed_requests(newest_postgres: PostgresServer, narrow: PgsluiceProcess) -> None:
    async with await login(narrow) as session:
        await session.send(frontend.Query(b"SELECT pg_sleep(0.7), 'malformed'"))
        await wait_until_running(newest_postgres, "malformed")
        code = (80877102).to_bytes(4, "big")
        for packet in (
            b"\0\0\0\x08" + code,
            b"\0\0\0\x0c" + code + b"\0\0\0\x01",
            b"\0\0\x01\x10" + code + bytes(264),
        ):
            connection = await WireConnection.open(*narrow.address)
            await connection.send(packet)
            said = await connection.read_to_end()
            assert said == b"" or said.startswith(b"E")
            connection.abort()
        assert rows_of(await session.receive_until(backend.ReadyForQuery)) == [("", "malformed")]


# --- as real clients do it ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cancel", "cancel_safe"])
def test_by_libpq(newest_postgres: PostgresServer, narrow: PgsluiceProcess, method: str) -> None:
    marker = f"libpq_{method}"
    with psycopg.connect(narrow.url(), autocommit=True) as connection:

        def cancel() -> None:
            asyncio.run(wait_until_running(newest_postgres, marker))
            getattr(connection, method)()

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(f"SELECT pg_sleep(30), '{marker}'")
        thread.join()
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert metric(narrow, "pgsluice_cancels_total") == 1


def test_psql_interrupted(newest_postgres: PostgresServer, narrow: PgsluiceProcess) -> None:
    psql = subprocess.Popen(
        [client_program("psql"), "-X", "-d", narrow.url(), "-c", "SELECT pg_sleep(30), 'psql_interrupted'"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        asyncio.run(wait_until_running(newest_postgres, "psql_interrupted"))
        psql.send_signal(signal.SIGINT)
        _, said = psql.communicate(timeout=15)
    finally:
        with contextlib.suppress(ProcessLookupError):
            psql.kill()
        psql.wait()
    assert "canceling statement due to user request" in said


# --- figures --------------------------------------------------------------------------------------


def metric(process: PgsluiceProcess, name: str) -> float:
    """The sum over all labels."""
    status, body = process.get("/metrics")
    assert status == 200
    lines = [line for line in body.decode().splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    assert lines, f"no {name} in\n{body.decode()}"
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def wait_for_gauge(process: PgsluiceProcess, name: str, value: float) -> None:
    deadline = time.monotonic() + 10
    while metric(process, name) != value:
        assert time.monotonic() < deadline, f"{name} is {metric(process, name)}, not {value}"
        await asyncio.sleep(0.02)
