"""What is not PostgreSQL's protocol, and more than there is: answered, logged once, harm to nobody."""

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.postgres import PASSWORD, SUPERUSER
from support.proxy import PgsluiceProcess
from support.wire import ServerError, WireConnection, rows_of

from protocol.messages import backend, frontend
from protocol.messages.codec import Message
from protocol.messages.startup import StartupMessage
from proxy.demo.embedded import PostgresServer

STARTUP = StartupMessage(3, 0, {"user": SUPERUSER, "database": "postgres"}).encode()


@pytest.fixture(scope="module")
def shared(newest_postgres: PostgresServer) -> Iterator[PgsluiceProcess]:
    """One proxy for all of this: whatever one test does to it, the next must find it well."""
    with PgsluiceProcess(newest_postgres.url(), settings={"POOL_SIZE": "4"}) as process:
        yield process


@pytest.fixture
def process(shared: PgsluiceProcess) -> Iterator[PgsluiceProcess]:
    """The same, and afterwards nobody may hold a server or wait for one."""
    yield shared
    settled(shared)


def settled(process: PgsluiceProcess) -> None:
    names = ("pgsluice_clients", "pgsluice_active_clients", "pgsluice_pool_waiting_clients")
    deadline = time.monotonic() + 10
    while True:
        left = {name: metric(process, name) for name in names}
        busy = metric(
            process, 'pgsluice_pool_connections{database="postgres",state="active",user="postgres"}'
        )
        if not any(left.values()) and not busy:
            return
        assert time.monotonic() < deadline, f"left over: {left}, {busy} busy servers"
        time.sleep(0.02)


def metric(process: PgsluiceProcess, name: str) -> float:
    """The sum over all labels that are not given."""
    status, body = process.get("/metrics")
    assert status == 200
    lines = [line for line in body.decode().splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def login(process: PgsluiceProcess, **parameters: str) -> WireConnection:
    return await WireConnection.login(*process.address, SUPERUSER, PASSWORD, **parameters)


async def answer_to(process: PgsluiceProcess, data: bytes, *, end: bool = False) -> tuple[bytes, str]:
    """All that is said to a stranger who sends this, and the stranger's address."""
    connection = await WireConnection.open(*process.address)
    try:
        name = connection.writer.get_extra_info("sockname")
        await connection.send(data)
        if end:
            connection.writer.write_eof()
        return await connection.read_to_end(), f"{name[0]}:{name[1]}"
    finally:
        connection.abort()


def parsed(data: bytes) -> list[Message]:
    messages = []
    while data:
        length = 1 + int.from_bytes(data[1:5])
        messages.append(backend.decode_backend(data[0], data[5:length]))
        data = data[length:]
    return messages


def refusal(data: bytes) -> tuple[str, str, str]:
    """Severity, SQLSTATE and message of the only thing that was said."""
    (message,) = parsed(data)
    assert isinstance(message, backend.ErrorResponse)
    return message.severity, message.sqlstate, message.message


# --- before log-in --------------------------------------------------------------------------------

LENGTH = "invalid length of startup packet"
LAYOUT = "invalid startup packet layout: expected terminator as last byte"

STRANGERS = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", LENGTH),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", LENGTH),
    "zeros": (bytes(64), LENGTH),
    "too short": (b"\0\0\0\x07\0\0\0\0", LENGTH),
    "too long": (b"\0\0\x27\x15\0\x03\0\0", LENGTH),
    "negative": (b"\xff\xff\xff\xff\0\x03\0\0", LENGTH),
    "enormous": (b"\x7f\xff\xff\xff\0\x03\0\0", LENGTH),
    "no terminator": (b"\0\0\0\x0d\0\x03\0\0user\0", LAYOUT),
    "name without value": (b"\0\0\0\x0e\0\x03\0\0user\0\0", LAYOUT),
    "data behind the terminator": (b"\0\0\0\x11\0\x03\0\0user\0a\0\0x", LAYOUT),
}


@pytest.mark.parametrize("case", STRANGERS)
async def test_a_stranger_is_told_and_logged_once(process: PgsluiceProcess, case: str) -> None:
    data, message = STRANGERS[case]
    said, _ = await answer_to(process, data)
    assert refusal(said) == ("FATAL", "08P01", message)
    assert (await answer_to(process, data))[0] == said
    # From the same host for the same reason: counted, but logged only once.
    process.wait_for("protocol violation")
    assert [entry["reason"] for entry in process.events_named("protocol violation")].count(message) == 1


@pytest.mark.parametrize("length", [1, 4, 7, 20])
async def test_a_truncated_start_up_is_the_end(process: PgsluiceProcess, length: int) -> None:
    said, _ = await answer_to(process, STARTUP[:length], end=True)
    assert said == b""


async def test_random_bytes(process: PgsluiceProcess) -> None:
    """Whatever it is, it ends, and nobody else notices."""
    source = random.Random(20240607)
    async with await login(process) as witness:
        for number in range(60):
            data = source.randbytes(source.choice((1, 5, 8, 9, 100, 5000, 20000)))
            if number % 3 == 0:
                data = STARTUP[:8] + data
            elif number % 3 == 1:
                data = STARTUP + data
            said, _ = await answer_to(process, data, end=True)
            for message in parsed(said):
                assert isinstance(message, backend.ErrorResponse | backend.AuthenticationSASL)
            assert await witness.value(f"SELECT {number}") == str(number)


async def test_violations_are_counted(process: PgsluiceProcess) -> None:
    before = metric(process, "pgsluice_protocol_violations_total")
    for _ in range(3):
        await answer_to(process, STRANGERS["HTTP"][0])
    assert metric(process, "pgsluice_protocol_violations_total") == before + 3


async def test_connections_that_say_nothing(process: PgsluiceProcess) -> None:
    """A port scan: accepted, gone, nothing logged."""
    before = len(process.lines)
    for _ in range(20):
        connection = await WireConnection.open(*process.address)
        connection.abort()
    silent = [await WireConnection.open(*process.address) for _ in range(20)]
    async with await login(process) as session:
        assert await session.value("SELECT 1") == "1"
    for connection in silent:
        connection.abort()
    assert process.lines[before:] == []


# --- in a session ---------------------------------------------------------------------------------

QUERY = frontend.Query(b"SELECT 1").encode()

VIOLATIONS = {
    "unknown type": b"?\0\0\0\x04",
    "a server's message": b"Z\0\0\0\x05I",
    "start-up again": STARTUP,
    "TLS handshake": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "Sync with a body": b"S\0\0\0\x08body",
    "query without terminator": b"Q\0\0\0\x0cSELECT 1",
    "bind without terminator": b"B\0\0\0\x08name",
    "parse without a text": b"P\0\0\0\x06x\0",
    "describe of nothing": b"D\0\0\0\x04",
    "describe of an unknown kind": b"D\0\0\0\x06X\0",
    "execute without row count": b"E\0\0\0\x05\0",
    "password after log-in": frontend.PasswordMessage(b"secret").encode(),
}


@pytest.mark.parametrize("case", VIOLATIONS)
async def test_violations_in_a_session(
    newest_postgres: PostgresServer, process: PgsluiceProcess, case: str
) -> None:
    """Refused as by the server: the same SQLSTATE, and the session ends where it would end there."""
    outcomes = []
    async with await login(process) as witness:
        await witness.query("BEGIN")
        for address in (("127.0.0.1", newest_postgres.port), process.address):
            session = await WireConnection.login(*address, SUPERUSER, PASSWORD)
            await session.send(VIOLATIONS[case], frontend.Sync())
            outcomes.append(await outcome(session))
            session.abort()
        assert await witness.value("SELECT 1") == "1"
        await witness.query("COMMIT")
    direct, proxied = outcomes
    assert proxied == direct


IMPOSSIBLE_LENGTHS = {
    "3": b"Q\0\0\0\x03",
    "0": b"S\0\0\0\0",
    "negative": b"Q\xff\xff\xff\xff",
    "enormous": b"Q\x7f\xff\xff\xffSELECT 1",
    "Sync of 11,000 bytes": b"S\0\0\x2a\xf8",
}


@pytest.mark.parametrize("case", IMPOSSIBLE_LENGTHS)
async def test_impossible_lengths_in_a_session(
    newest_postgres: PostgresServer, process: PgsluiceProcess, case: str
) -> None:
    """The server ends the connection without a word; we say why."""
    outcomes = []
    for address in (("127.0.0.1", newest_postgres.port), process.address):
        session = await WireConnection.login(*address, SUPERUSER, PASSWORD)
        await session.send(IMPOSSIBLE_LENGTHS[case])
        outcomes.append(await outcome(session))
        session.abort()
    assert outcomes == [("ended", []), ("ended", [("FATAL", "08P01", "invalid message length")])]


async def outcome(session: WireConnection) -> tuple[str, Any]:
    """SQLSTATEs until the session is ready again, or has ended."""
    states = []
    try:
        while True:
            message = await session.receive()
            if isinstance(message, backend.ErrorResponse):
                states.append((message.severity, message.sqlstate, message.message))
            elif isinstance(message, backend.ReadyForQuery):
                return "ready", states
    except (asyncio.IncompleteReadError, ConnectionError):
        return "ended", states


async def test_a_violation_is_said_after_what_was_asked_before(process: PgsluiceProcess) -> None:
    session = await login(process)
    await session.send(QUERY, frontend.Query(b"SELECT 2"), b"Q\0\0\0\x03")
    for number in ("1", "2"):
        assert rows_of(await session.receive_until(backend.ReadyForQuery)) == [(number,)]
    refused = await session.expect(backend.ErrorResponse)
    assert (refused.severity, refused.sqlstate, refused.message) == (
        "FATAL",
        "08P01",
        "invalid message length",
    )
    assert await session.read_to_end() == b""
    session.abort()


async def test_a_violation_inside_a_transaction_rolls_it_back(
    newest_postgres: PostgresServer, process: PgsluiceProcess
) -> None:
    newest_postgres.psql("CREATE TABLE half_done (id int)")
    try:
        session = await login(process)
        await session.query("BEGIN")
        await session.query("INSERT INTO half_done VALUES (1)")
        await session.send(b"?\0\0\0\x04")
        assert (await session.expect(backend.ErrorResponse)).sqlstate == "08P01"
        assert await session.read_to_end() == b""
        session.abort()
        async with await login(process) as other:
            assert await other.value("SELECT count(*) FROM half_done") == "0"
    finally:
        newest_postgres.psql("DROP TABLE half_done")


async def test_a_message_that_is_never_finished(process: PgsluiceProcess) -> None:
    """The start of a message holds nothing but its own connection."""
    halves = []
    for cut in (1, 4, 5, 8):
        session = await login(process)
        await session.send(QUERY[:cut])
        halves.append(session)
    async with await login(process) as other:
        for number in range(10):
            assert await other.value(f"SELECT {number}") == str(number)
    for cut, session in zip((1, 4, 5, 8), halves, strict=True):
        await session.send(QUERY[cut:])
        assert rows_of(await session.receive_until(backend.ReadyForQuery)) == [("1",)]
        await session.send(QUERY[:cut])
        session.abort()


async def test_random_bytes_in_a_session(process: PgsluiceProcess) -> None:
    source = random.Random(19650412)
    async with await login(process) as witness:
        for number in range(40):
            session = await login(process)
            body = source.randbytes(source.choice((0, 1, 7, 40, 3000)))
            tag = source.choice(b"BCDEFHPSQXcdf\0\x80!")
            await session.send(bytes([tag]) + (len(body) + 4).to_bytes(4) + body, frontend.Sync())
            session.writer.write_eof()
            await session.read_to_end()
            session.abort()
            assert await witness.value(f"SELECT {number}") == str(number)


async def test_logged_once_with_the_peer(newest_postgres: PostgresServer) -> None:
    with PgsluiceProcess(newest_postgres.url()) as process:
        _, first = await answer_to(process, STRANGERS["HTTP"][0])
        for _ in range(4):
            await answer_to(process, STRANGERS["HTTP"][0])
        session = await login(process)
        address = session.writer.get_extra_info("sockname")
        await session.send(b"?\0\0\0\x04")
        await session.read_to_end()
        session.abort()
        process.wait_for("protocol violation", count=2)
        entries = [
            (entry["level"], entry["peer"], entry["reason"])
            for entry in process.events_named("protocol violation")
        ]
        assert entries == [
            ("warning", first, LENGTH),
            ("warning", f"{address[0]}:{address[1]}", "invalid frontend message type 63"),
        ]
        assert metric(process, "pgsluice_protocol_violations_total") == 6
        assert metric(process, "pgsluice_client_connections_total") == 6


# --- more than there is ---------------------------------------------------------------------------


@pytest.mark.smoke
async def test_an_exhausted_pool_is_said_with_its_figures(newest_postgres: PostgresServer) -> None:
    settings = {"POOL_SIZE": "2", "POOL__WAIT_TIMEOUT": "0.4"}
    with PgsluiceProcess(newest_postgres.url(), settings=settings) as process:
        holders = [await login(process) for _ in range(2)]
        for holder in holders:
            await holder.query("BEGIN")
        waiters = [await login(process) for _ in range(3)]
        for waiter in waiters:
            await waiter.send(QUERY)
        for waiter in waiters:
            said = await waiter.receive_until(backend.ReadyForQuery)
            assert [type(each) for each in said] == [backend.ErrorResponse, backend.ReadyForQuery]
            error = said[0]
            assert isinstance(error, backend.ErrorResponse)
            assert (error.severity, error.sqlstate) == ("ERROR", "53300")
            assert f'pool "{SUPERUSER}@postgres" is exhausted: 2 of 2 servers busy' in error.message
            assert "waited 0.4 s (pool_wait_timeout)" in error.message
        # The extended protocol: one error, the rest is skipped until Sync.
        await waiters[0].send(
            frontend.Parse(b"one", b"SELECT 1", ()),
            frontend.Bind(b"", b"one", (), (), ()),
            frontend.Execute(b"", 0),
            frontend.Sync(),
        )
        said = await waiters[0].receive_until(backend.ReadyForQuery)
        assert [type(each) for each in said] == [backend.ErrorResponse, backend.ReadyForQuery]
        # A log-in with parameters of its own needs a server, too.
        with pytest.raises(ServerError) as refused:
            await login(process, application_name="latecomer")
        assert (refused.value.response.severity, refused.value.sqlstate) == ("FATAL", "53300")

        await holders[0].query("COMMIT")
        for waiter in waiters:
            assert await waiter.value("SELECT 'lives on'") == "lives on"
        # What was not carried out left no statement behind.
        said = await waiters[0].query("EXECUTE one")
        assert isinstance(said[0], backend.ErrorResponse)
        await holders[1].query("COMMIT")
        for session in (*holders, *waiters):
            await session.close()
        settled(process)
        errors = [row for row in process.get_json("/api/queries") if row["errors"]]
        assert sum(row["errors"] for row in errors) >= 4
        assert metric(process, 'pgsluice_statement_errors_total{sqlstate="53300"}') >= 4


async def test_waiters_are_served_in_the_order_of_their_coming(newest_postgres: PostgresServer) -> None:
    with PgsluiceProcess(newest_postgres.url(), settings={"POOL_SIZE": "1"}) as process:
        holder = await login(process)
        await holder.query("BEGIN")
        waiters = [await login(process) for _ in range(8)]
        order: list[int] = []

        async def wait(number: int) -> None:
            await waiters[number].receive_until(backend.ReadyForQuery)
            order.append(number)

        tasks = []
        for number, waiter in enumerate(waiters):
            await waiter.send(frontend.Query(b"SELECT pg_sleep(0.02)"))
            tasks.append(asyncio.create_task(wait(number)))
            async with asyncio.timeout(10):
                while metric(process, "pgsluice_pool_waiting_clients") != number + 1:
                    await asyncio.sleep(0.01)
        waiters[3].abort()  # who goes away while waiting stands in nobody's way
        tasks.pop(3).cancel()
        await holder.query("COMMIT")
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 4, 5, 6, 7]
        for session in (holder, *waiters[:3], *waiters[4:]):
            await session.close()
        settled(process)
