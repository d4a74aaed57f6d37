"""Servers shared by more clients, in transaction mode and in session mode."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
from drivers.dialogue import Open, ask, busy, database_of, login, pid, run, same, say
from support.postgres import PASSWORD, SUPERUSER
from support.proxy import PgsluiceProcess
from support.wire import WireConnection

from protocol.messages import backend
from protocol.messages.frontend import Parse, Query
from proxy.demo.embedded import PostgresServer


def servers(process: PgsluiceProcess, database: str | None = None) -> str:
    """Counts the connections to the proxy's database; the tests' own look in by the Unix socket."""
    return (
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND client_port > 0 "
        f"AND datname = '{database or database_of(process)}'"
    )


async def in_line(process: PgsluiceProcess, clients: int) -> None:
    """Waits until so many clients are waiting for a server of the proxy's pools."""
    for _ in range(500):
        metrics = (await asyncio.to_thread(process.get, "/metrics"))[1].decode()
        waiting = re.findall(r"^pgsluice_pool_waiting_clients\{.*\} ([\d.]+)$", metrics, re.MULTILINE)
        if sum(map(float, waiting)) == clients:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{waiting} clients are waiting, not {clients}")


@pytest.fixture(scope="module")
def transactions(postgres: PostgresServer) -> Iterator[PgsluiceProcess]:
    """Three servers, lent for a transaction each."""
    postgres.psql("CREATE DATABASE lent_for_transactions")
    url = postgres.url("lent_for_transactions")
    with PgsluiceProcess(url, settings={"POOL_SIZE": "3"}) as process:
        yield process


@pytest.fixture(scope="module")
def sessions(postgres: PostgresServer) -> Iterator[PgsluiceProcess]:
    """Two servers, lent for a session each."""
    postgres.psql("CREATE DATABASE lent_for_sessions")
    url = postgres.url("lent_for_sessions")
    with PgsluiceProcess(url, settings={"POOL_SIZE": "2", "POOL_MODE": "session"}) as process:
        yield process


@pytest.fixture
async def crowd(transactions: PgsluiceProcess) -> AsyncIterator[list[WireConnection]]:
    """Twenty clients of three servers."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(await login(transactions)) for _ in range(20)]


# --- transaction mode -------------------------------------------------------------------------------


@pytest.mark.smoke
async def test_a_crowd_needs_no_more_servers_than_the_pool_has(
    postgres: PostgresServer, transactions: PgsluiceProcess, crowd: list[WireConnection]
) -> None:
    seen: list[int] = []
    pids: set[int] = set()

    async def work(client: WireConnection, number: int) -> None:
        for turn in range(5):
            await client.query("BEGIN")
            pids.add(await pid(client))
            assert await client.value(f"SELECT {number * turn} FROM pg_sleep(0.002)") == str(number * turn)
            await client.query("COMMIT" if turn % 2 else "ROLLBACK")
            told = await ask(client, Parse(b"", b"SELECT $1::int"), *run(b"", b"%d" % number))
            assert told[2] == f"D {number}"

    async def watch() -> None:
        while True:
            seen.append(int(await asyncio.to_thread(postgres.psql, servers(transactions))))

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(work(client, number) for number, client in enumerate(crowd)))
    watching.cancel()
    assert max(seen) == 3
    assert len(pids) == 3


async def test_servers_are_opened_on_demand_and_the_warm_one_is_used_first(postgres: PostgresServer) -> None:
    with PgsluiceProcess(postgres.url(), settings={"POOL_SIZE": "3"}) as process:
        clients = [await login(process) for _ in range(5)]
        pids = [await pid(client) for client in clients]
        assert len(set(pids)) == 1
        async with busy(clients[0], clients[1]):
            third = await pid(clients[2])
            assert third not in pids
        last = await pid(clients[3])
        assert [await pid(client) for client in clients] == [last] * len(clients)
        for client in clients:
            await client.close()


async def test_who_waits_is_served_in_the_order_of_arrival(
    postgres: PostgresServer, transactions: PgsluiceProcess, crowd: list[WireConnection]
) -> None:
    database = database_of(transactions)
    postgres.psql("CREATE TABLE arrivals (place serial, who int)", database)
    async with busy(*crowd[:3]):
        for who, client in enumerate(crowd[3:]):
            await client.send(Query(b"INSERT INTO arrivals (who) VALUES (%d)" % who))
            await in_line(transactions, who + 1)
        await crowd[0].query("SELECT pg_sleep(0.05)")
        await crowd[0].query("ROLLBACK")  # one server serves them all
        for client in crowd[3:]:
            await client.receive_until(backend.ReadyForQuery)
    assert postgres.psql("SELECT bool_and(place = who + 1) FROM arrivals", database) == "t"
    postgres.psql("DROP TABLE arrivals", database)


async def test_a_client_that_does_nothing_holds_no_server(
    transactions: PgsluiceProcess, crowd: list[WireConnection]
) -> None:
    await asyncio.gather(*(client.query("SELECT 1") for client in crowd))
    async with busy(*crowd[:2]):
        assert await crowd[-1].value("SELECT 'the third'") == "the third"


async def test_an_exhausted_pool_says_so(postgres: PostgresServer) -> None:
    settings = {"POOL_SIZE": "1", "POOL__WAIT_TIMEOUT": "0.3"}
    with PgsluiceProcess(postgres.url(), settings=settings) as process:
        holder, patient, pipelining = [await login(process) for _ in range(3)]
        async with busy(holder):
            told = await say(patient, "SELECT 1")
            assert re.match(
                r'E ERROR 53300 pool "postgres@postgres" is exhausted: 1 of 1 servers busy', told[0]
            )
            assert told[1:] == ["Z I"]
            told = await ask(pipelining, Parse(b"s", b"SELECT 1"), *run(b"s"))
            assert told[0].startswith("E ERROR 53300")
            assert told[1:] == ["Z I"]
        assert await say(patient, "SELECT 'later'") == ["T ?column?:25:0", "D later", "C SELECT 1", "Z I"]
        assert await ask(pipelining, Parse(b"s", b"SELECT 'later'"), *run(b"s")) == [
            "1", "2", "D later", "C SELECT 1", "Z I"
        ]  # fmt: skip
        for client in holder, patient, pipelining:
            await client.close()


async def test_waiters_that_leave_are_forgotten(
    transactions: PgsluiceProcess, crowd: list[WireConnection]
) -> None:
    async with busy(*crowd[:3]):
        impatient = [await login(transactions) for _ in range(5)]
        for client in impatient:
            await client.send(Query(b"SELECT pg_sleep(30)"))
        patient = asyncio.create_task(crowd[3].value("SELECT 'served'"))
        await in_line(transactions, 6)
        for client in impatient:
            client.abort()
        await in_line(transactions, 1)
    assert await patient == "served"


async def test_users_and_databases_have_servers_of_their_own(
    postgres: PostgresServer, transactions: PgsluiceProcess
) -> None:
    postgres.psql("CREATE DATABASE second")
    first = [await login(transactions) for _ in range(4)]
    second = [await login(transactions, "second") for _ in range(4)]
    async with busy(*first[:3]), busy(*second[:3]):
        assert postgres.psql(servers(transactions)) == "3"
        assert postgres.psql(servers(transactions, "second")) == "3"
        assert await first[0].value("SELECT current_database()") == "lent_for_transactions"
        assert await second[0].value("SELECT current_database()") == "second"
    for client in [*first, *second]:
        await client.close()


async def test_start_up_parameters_are_each_clients_own(
    postgres: PostgresServer, transactions: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        plain, german, tuned = [
            await open_client(),
            await open_client(DateStyle="German", TimeZone="Europe/Berlin"),
            await open_client(options="-c work_mem=7MB -c statement_timeout=12345"),
        ]
        told = [str(client.parameters.get("DateStyle")) for client in (plain, german, tuned)]
        for _ in range(2):
            for client in plain, german, tuned:
                told += await say(client, "SELECT '2026-01-31'::date, current_setting('TimeZone')")
                told += await say(
                    client, "SELECT current_setting('work_mem'), current_setting('statement_timeout')"
                )
        return told

    await same(story, postgres, transactions)
    assert int(postgres.psql(servers(transactions))) <= 3


async def test_more_kinds_of_clients_than_servers(
    postgres: PostgresServer, transactions: PgsluiceProcess
) -> None:
    clients = [await login(transactions, options=f"-c work_mem={number + 1}MB") for number in range(8)]

    async def work(client: WireConnection, number: int) -> None:
        for _ in range(5):
            assert await client.value("SHOW work_mem") == f"{number + 1}MB"

    await asyncio.gather(*(work(client, number) for number, client in enumerate(clients)))
    assert int(postgres.psql(servers(transactions))) <= 3
    for client in clients:
        await client.close()


# --- session mode -----------------------------------------------------------------------------------


async def test_a_session_keeps_its_server(postgres: PostgresServer, sessions: PgsluiceProcess) -> None:
    first, second = await login(sessions), await login(sessions)
    pids = [await pid(first), await pid(second)]
    assert pids[0] != pids[1]
    for _ in range(3):
        assert [await pid(first), await pid(second)] == pids
    third = asyncio.create_task(served(sessions))
    await in_line(sessions, 1)
    await first.close()
    assert await third == pids[0]
    await second.close()
    assert postgres.psql(servers(sessions)) == "2"


async def served(process: PgsluiceProcess) -> int:
    async with await login(process) as client:
        return await pid(client)


async def test_session_state_lasts_as_long_as_the_session(
    postgres: PostgresServer, sessions: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        told = []
        for _ in range(3):  # the same again for each heir of the server
            client = await open_client()
            for sql in (
                "SHOW work_mem", "SET work_mem = '9MB'", "SHOW work_mem", "CREATE TEMP TABLE mine (a int)",
                "INSERT INTO mine VALUES (1) RETURNING a", "PREPARE p AS SELECT 'prepared'", "EXECUTE p",
                "SELECT pg_try_advisory_lock(4711)", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "FETCH c",
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SHOW transaction_read_only",
                "SET application_name = 'marked'", "SET DateStyle = 'German'", "SELECT '2026-01-31'::date",
                "SET ROLE pg_monitor", "SELECT current_user", "LISTEN news",
            ):  # fmt: skip
                told += await say(client, sql)
            told += await ask(client, Parse(b"s", b"SELECT 'by protocol'"), *run(b"s"))
            told += await ask(client, *run(b"s"))
            await client.close()
        return told

    await same(story, postgres, sessions)


async def test_nothing_of_a_session_leaks_to_the_next(postgres: PostgresServer) -> None:
    with PgsluiceProcess(postgres.url(), settings={"POOL_SIZE": "1", "POOL_MODE": "session"}) as process:
        for farewell in "abort", "close":
            first = await login(process)
            served_by = await pid(first)
            for sql in (
                "SET work_mem = '9MB'", "CREATE TEMP TABLE leak (a int)", "SELECT pg_advisory_lock(4711)",
                "LISTEN leak", "PREPARE leak AS SELECT 1", "SET ROLE pg_monitor", "BEGIN",
                "SET LOCAL enable_seqscan = off", "SELECT 1/0",
            ):  # fmt: skip
                await first.query(sql)
            if farewell == "abort":
                first.abort()
            else:
                await first.close()
            async with await login(process) as heir:
                assert await pid(heir) == served_by
                assert await heir.value("SHOW work_mem") == "4MB"
                assert await heir.value("SHOW enable_seqscan") == "on"
                assert await heir.value("SELECT current_user") == SUPERUSER
                assert await heir.value("SELECT to_regclass('leak')") is None
                assert await heir.rows("SELECT * FROM pg_listening_channels()") == []
                assert await heir.rows("SELECT name FROM pg_prepared_statements") == []
                assert await heir.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0"


async def test_notifications_reach_who_listens(postgres: PostgresServer, sessions: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        listener, sender = await open_client(), await open_client()
        told = await say(listener, "LISTEN news")
        told += await say(sender, "NOTIFY news, 'first'")
        message = await listener.expect(backend.NotificationResponse)  # it is idle
        assert message.pid == await pid(sender)
        told += [f"{message.channel!r} {message.payload!r}"]
        told += await say(listener, "BEGIN")
        told += await say(sender, "NOTIFY news, 'second'; NOTIFY other, 'unheard'")
        told += await say(listener, "SELECT 'inside'")
        told += await say(listener, "COMMIT")
        told += await say(listener, "NOTIFY news, 'to myself'")
        told += await say(listener, "UNLISTEN news; NOTIFY news, 'too late'")
        return told

    told = await same(story, postgres, sessions)
    assert sum("A news" in line for line in told) == 2


async def test_discard_all_in_session_mode(postgres: PostgresServer, sessions: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client(DateStyle="German")
        told = await ask(client, Parse(b"s", b"SELECT '2026-01-31'::date"), *run(b"s"))
        told += await say(client, "SET DateStyle = 'ISO, DMY'; CREATE TEMP TABLE mine (a int); LISTEN news")
        told += await ask(client, *run(b"s"))
        told += await say(client, "DISCARD ALL")
        told += await ask(client, *run(b"s"))
        told += await say(client, "SELECT '2026-01-31'::date, to_regclass('mine')")
        told += await say(client, "SELECT * FROM pg_listening_channels()")
        told += await say(client, "RESET ALL")
        return told

    await same(story, postgres, sessions)


async def test_a_session_that_waited_too_long(postgres: PostgresServer) -> None:
    settings = {"POOL_SIZE": "1", "POOL_MODE": "session", "POOL__WAIT_TIMEOUT": "0.3"}
    with PgsluiceProcess(postgres.url(), settings=settings) as process:
        first = await login(process)
        await first.query("SELECT 1")
        second = await login(process)
        assert (await say(second, "SELECT 1"))[0].startswith("E ERROR 53300")
        await first.close()
        assert await second.value("SELECT 'my turn'") == "my turn"
        await second.close()


async def test_the_passwords_owner_only(transactions: PgsluiceProcess) -> None:
    """A pool is entered with its user's own password, whoever has opened its servers before."""
    async with await login(transactions) as client:
        await client.query("SELECT 1")
    other = WireConnection.login("127.0.0.1", transactions.port, SUPERUSER, PASSWORD + "x")
    with pytest.raises(Exception, match="28P01"):
        await other
