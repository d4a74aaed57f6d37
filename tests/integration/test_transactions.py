"""Transactions, pipelines and portals through fewer servers than clients: told as by one's own server."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
from drivers.dialogue import Open, answer, ask, busy, login, pid, run, same, say, tell
from support.proxy import PgsluiceProcess
from support.wire import WireConnection

from protocol.messages.codec import Message
from protocol.messages.frontend import Bind, Close, Describe, Execute, Flush, FunctionCall, Parse, Query, Sync
from protocol.types import Target
from proxy.demo.embedded import PostgresServer

BAD = Parse(b"", b"SELECT 1/0"), *run(b"")
INT4_PLUS = 177
"""int4pl(integer, integer)'s object id."""


@pytest.fixture(scope="module")
def proxied(postgres: PostgresServer) -> Iterator[PgsluiceProcess]:
    """Two servers for all clients."""
    with PgsluiceProcess(postgres.url(), settings={"POOL_SIZE": "2"}) as process:
        yield process


@pytest.fixture
async def ledger(postgres: PostgresServer) -> AsyncIterator[str]:
    """A table of accounts, gone afterwards."""
    postgres.psql(
        "CREATE TABLE ledger (id int PRIMARY KEY, amount int CHECK (amount >= 0), "
        "twin int UNIQUE DEFERRABLE INITIALLY DEFERRED);"
        "INSERT INTO ledger SELECT i, 100 FROM generate_series(1, 5) i"
    )
    yield "ledger"
    postgres.psql("SET lock_timeout = '10s'; DROP TABLE ledger")


async def eventually(server: PostgresServer, sql: str, wanted: str) -> None:
    """Waits until a query on the server answers what is wanted."""
    for _ in range(200):
        if server.psql(sql) == wanted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{sql} still answers {server.psql(sql)}, not {wanted}")


# --- blocks -----------------------------------------------------------------------------------------


async def test_a_transaction_keeps_its_server(proxied: PgsluiceProcess, ledger: str) -> None:
    first, second, third = [await login(proxied) for _ in range(3)]
    await first.query("BEGIN")
    await second.query("BEGIN")
    pids = await pid(first), await pid(second)
    assert pids[0] != pids[1]
    waiting = asyncio.create_task(third.rows("SELECT 'had to wait'"))
    await first.query("UPDATE ledger SET amount = 0 WHERE id = 1")
    assert await second.value("SELECT amount FROM ledger WHERE id = 1") == "100"
    assert (await pid(first), await pid(second)) == pids
    assert not waiting.done()
    await first.query("COMMIT")
    assert await waiting == [("had to wait",)]
    assert await second.value("SELECT amount FROM ledger WHERE id = 1") == "0"
    await second.query("COMMIT")
    for client in first, second, third:
        await client.close()


async def test_failing_transactions(postgres: PostgresServer, proxied: PgsluiceProcess, ledger: str) -> None:
    async def story(open_client: Open) -> list[str]:
        client, other = await open_client(), await open_client()
        told = []
        for sql in (
            "BEGIN", "SELECT 1/0", "SELECT 1", "SAVEPOINT late", "", "COMMIT", "SELECT 'alive'", "ROLLBACK",
            "BEGIN", "SAVEPOINT a", "SELEC", "SELECT 1", "ROLLBACK TO a", "SELECT 'back'", "RELEASE a",
            "COMMIT", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "UPDATE ledger SET amount = 1",
            "ROLLBACK AND CHAIN", "SHOW transaction_isolation", "COMMIT AND CHAIN",
            "SHOW transaction_read_only", "COMMIT", "COMMIT",
            "BEGIN", "BEGIN", "END", "ABORT", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        ):  # fmt: skip
            told += await say(client, sql)
            if client.status == ord("I"):
                told += await say(other, "SELECT 'in between'")
        return told

    await same(story, postgres, proxied)


async def test_errors_at_commit(postgres: PostgresServer, proxied: PgsluiceProcess, ledger: str) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        clash = b"INSERT INTO ledger VALUES (10, 1, 7), (11, 1, 7)"
        told = await ask(client, Parse(b"", clash), *run(b""))  # only the Sync commits
        told += await say(client, "SELECT 'next'")
        told += await say(client, clash)
        told += await say(client, "BEGIN")
        told += await ask(client, Parse(b"", clash), *run(b""))
        told += await say(client, "COMMIT")
        told += await ask(client, Parse(b"", clash), *run(b""), Parse(b"", b"SELECT 'unaware'"), *run(b""))
        told += await say(client, "SELECT count(*) FROM ledger")
        return told

    told = await same(story, postgres, proxied)
    assert told[2:5] == ["C INSERT 0 2", told[3], "Z I"]
    assert told[3].startswith("E ERROR 23505")


async def test_transactions_of_the_extended_protocol(
    postgres: PostgresServer, proxied: PgsluiceProcess, ledger: str
) -> None:
    async def story(open_client: Open) -> list[str]:
        client, other = await open_client(), await open_client()
        told = await ask(client, Parse(b"begin", b"BEGIN"), Parse(b"rollback", b"ROLLBACK"))
        told += await ask(client, *run(b"begin"))
        told += await ask(client, Parse(b"pay", b"UPDATE ledger SET amount = amount - $1 WHERE id = $2"))
        told += await ask(client, *run(b"pay", b"30", b"1"), *run(b"pay", b"30", b"2"))
        told += await ask(client, *run(b"pay", b"1000", b"3"), *run(b"pay", b"1", b"4"))
        told += await ask(client, *run(b"pay", b"1", b"4"))
        told += await ask(other, Parse(b"", b"SELECT sum(amount) FROM ledger"), *run(b""))
        told += await ask(client, *run(b"rollback"))
        told += await ask(client, *run(b"begin"), *run(b"pay", b"1", b"5"), *run(b"rollback"))
        told += await ask(client, *run(b"pay", b"1", b"5"), *BAD)  # one implicit transaction
        told += await say(client, "SELECT sum(amount) FROM ledger")
        return told

    told = await same(story, postgres, proxied)
    assert told[-3] == "D 500"


async def test_procedures_that_commit(
    postgres: PostgresServer, proxied: PgsluiceProcess, ledger: str
) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        told = await say(client, "DO $$BEGIN DELETE FROM ledger WHERE id = 1; COMMIT; PERFORM 1/0; END$$")
        told += await say(client, "SELECT count(*) FROM ledger")
        told += await say(client, "INSERT INTO ledger VALUES (1, 100)")
        return told

    await same(story, postgres, proxied)


async def test_texts_with_several_statements(
    postgres: PostgresServer, proxied: PgsluiceProcess, ledger: str
) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        told = []
        for sql in (
            "SELECT 1; SELECT 2; SELECT 3",
            "UPDATE ledger SET amount = 1 WHERE id = 1; SELECT 1/0; SELECT 'never'",
            "SELECT amount FROM ledger WHERE id = 1",
            "BEGIN; UPDATE ledger SET amount = 2 WHERE id = 1; COMMIT; SELECT 1/0",
            "SELECT amount FROM ledger WHERE id = 1; BEGIN; SELECT 'open'",
            "SELECT 'still open'; ROLLBACK; SELECT 'closed'",
            ";", "", " ; ; ", "-- nothing", "SELECT 1;;SELECT 2;", "SELECT 1; SELEC",
            "BEGIN; SELECT 1/0; COMMIT", "ROLLBACK; BEGIN; SELECT 'x'", "COMMIT; SELECT 'y'; BEGIN",
            "ROLLBACK",
        ):  # fmt: skip
            told += await say(client, sql)
        await say(client, "UPDATE ledger SET amount = 100")
        return told

    await same(story, postgres, proxied)


async def test_notices_come_where_they_belong(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        raising = b"DO $$BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING HINT = 'h'; PERFORM 1/0; END$$"
        told = await say(client, raising)
        told += await ask(client, Parse(b"s", b"DO $$BEGIN RAISE NOTICE 'ext'; END$$"), *run(b"s"))
        async with busy(occupant):
            told += await ask(client, *run(b"s"), *run(b"s"))
        told += await say(client, "SET LOCAL work_mem = '1MB'")
        told += await say(client, "SET client_min_messages = debug1; SELECT 1; RESET client_min_messages")
        return told

    told = await same(story, postgres, proxied)
    assert len([line for line in told if line.startswith("N ")]) == 6


# --- pipelines --------------------------------------------------------------------------------------


@pytest.mark.smoke
async def test_an_error_in_the_middle_of_a_pipeline(
    postgres: PostgresServer, proxied: PgsluiceProcess, ledger: str
) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        pay = b"UPDATE ledger SET amount = amount - 1 WHERE id = 1"
        told = await ask(client, Parse(b"s", b"SELECT $1::int"), Parse(b"pay", pay))
        await client.send(
            *run(b"pay"), *run(b"s", b"x"), *run(b"s", b"2"), *run(b"pay"), Sync(), *run(b"s", b"3"), Sync()
        )
        told += await answer(client, 2)
        await client.send(*BAD, Query(b"SELECT 'skipped'"), *run(b"s", b"4"), Sync(), Query(b"SELECT 'seen'"))
        told += await answer(client, 2)
        await client.send(Sync(), Sync(), *BAD, Sync(), Sync(), Query(b""), Sync())
        told += await answer(client, 6)
        told += await say(client, "SELECT amount FROM ledger WHERE id = 1")
        return told

    told = await same(story, postgres, proxied)
    assert told[-3] == "D 100"


async def test_hundreds_of_messages_in_one_write(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        told = await ask(client, Parse(b"s", b"SELECT $1::text"))
        each = [part for number in range(300) for part in (*run(b"s", b"%d" % number), Sync())]
        await client.send(*each)
        told += await answer(client, 300)
        together = [part for number in range(300) for part in run(b"s", b"%d" % number)]
        told += await ask(client, *together)
        await client.send(*(Query(b"SELECT %d" % number) for number in range(100)))
        told += await answer(client, 100)
        return told

    told = await same(story, postgres, proxied)
    assert told.count("D 299") == 2


async def receive(client: WireConnection, count: int) -> list[str]:
    messages: list[Message] = [await client.receive() for _ in range(count)]
    return tell(messages)


async def test_pipelines_driven_by_flush(
    postgres: PostgresServer, proxied: PgsluiceProcess, ledger: str
) -> None:
    async def story(open_client: Open) -> list[str]:
        client, other = await open_client(), await open_client()
        await client.send(Parse(b"s", b"SELECT $1::int"), Describe(Target.STATEMENT, b"s"), Flush())
        told = await receive(client, 3)
        await client.send(*run(b"s", b"1"), Flush())
        told += await receive(client, 3)
        told += await say(other, "SELECT 'meanwhile'")
        await client.send(Parse(b"", b"UPDATE ledger SET amount = 0 WHERE id = 1"), *run(b""), Flush())
        told += await receive(client, 3)
        told += await say(other, "SELECT amount FROM ledger WHERE id = 1")  # not committed yet
        await client.send(*run(b"s", b"x"), Flush())
        told += await receive(client, 1)
        await client.send(*run(b"s", b"2"), Flush())  # skipped
        told += await ask(client)
        told += await say(other, "SELECT amount FROM ledger WHERE id = 1")
        await client.send(Flush(), Flush())
        await client.send(Flush())
        told += await ask(client, *run(b"s", b"3"))
        return told

    await same(story, postgres, proxied)


async def test_a_query_behind_messages_without_sync(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        client, other = await open_client(), await open_client()
        told = await ask(client, Parse(b"s", b"SELECT $1::int"))
        await client.send(*run(b"s", b"4"), Flush())
        told += await receive(client, 3)
        told += await say(client, "SELECT 'in the middle'")
        told += await ask(client)
        # (PostgreSQL 18 is confused after this and fails the next statement: nobody else may get that server)
        told += await ask(other, Parse(b"t", b"SELECT 'not my fault'"), *run(b"t"))
        return told

    await same(story, postgres, proxied)


async def test_messages_in_small_pieces(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        messages = [
            Parse(b"s", b"SELECT $1::text"),
            *run(b"s", b"in pieces"),
            Sync(),
            *BAD,
            Sync(),
            Query(b"SELECT 1"),
        ]
        wire = b"".join(message.encode() for message in messages)
        told = []
        for size in (1, 3, 7):
            await client.send_in_pieces(wire, size)
            told += await answer(client, 3)
            told += await ask(client, Close(Target.STATEMENT, b"s"))
        return told

    await same(story, postgres, proxied)


# --- portals ----------------------------------------------------------------------------------------


async def test_suspended_portals(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client, other = await open_client(), await open_client()
        series = Parse(b"series", b"SELECT * FROM generate_series(1, $1::int)")
        told = await ask(
            client, series, Bind(b"", b"series", (), (b"5",), ()), Execute(b"", 2), Execute(b"", 2)
        )
        told += await ask(client, Execute(b"", 2))  # gone with its transaction
        told += await ask(other, Parse(b"", b"SELECT 'other'"), *run(b""))
        await client.query("BEGIN")
        told += await ask(client, Bind(b"p", b"series", (), (b"5",), ()), Execute(b"p", 2))
        told += await ask(client, Bind(b"", b"series", (), (b"3",), ()), Execute(b"", 1))
        told += await ask(client, Execute(b"p", 2), Execute(b"", 1), Describe(Target.PORTAL, b"p"))
        told += await ask(client, Bind(b"p", b"series", (), (b"5",), ()))
        told += await say(client, "ROLLBACK")
        await client.query("BEGIN")
        told += await ask(
            client, Bind(b"p", b"series", (), (b"5",), (1,)), Execute(b"p", 5), Execute(b"p", 5)
        )
        told += await ask(client, Close(Target.PORTAL, b"p"), Execute(b"p", 5))
        told += await say(client, "COMMIT")
        return told

    told = await same(story, postgres, proxied)
    assert "s" in told


async def test_cursors(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client, other = await open_client(), await open_client()
        told = []
        for sql in (
            "BEGIN", "DECLARE c SCROLL CURSOR FOR SELECT generate_series(1, 10)", "FETCH 3 FROM c",
            "MOVE FORWARD 2 IN c", "FETCH c", "FETCH BACKWARD 2 FROM c",
        ):  # fmt: skip
            told += await say(client, sql)
            told += await say(other, "SELECT 1")
        told += await ask(client, Execute(b"c", 2))
        told += await say(client, "CLOSE c; FETCH c")
        told += await say(client, "COMMIT")
        return told

    await same(story, postgres, proxied)


# --- rare messages ----------------------------------------------------------------------------------


async def test_empty_queries(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        told = await say(client, "")
        told += await ask(client, Parse(b"", b""), Describe(Target.STATEMENT, b""), *run(b""))
        told += await ask(client, Parse(b"e", b"-- nothing"), *run(b"e"), *run(b"e"))
        told += await ask(client)
        await client.query("BEGIN")
        told += await ask(client, *run(b"e"))
        told += await ask(client)
        told += await say(client, "COMMIT")
        return told

    told = await same(story, postgres, proxied)
    assert told[:2] == ["I", "Z I"]


async def test_function_calls(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        plus = FunctionCall(INT4_PLUS, (), (b"40", b"2"), 0)
        await client.send(plus)
        told = await answer(client)
        await client.send(FunctionCall(INT4_PLUS, (), (b"40", b"x"), 0))
        told += await answer(client)
        await client.send(FunctionCall(INT4_PLUS, (), (None, b"2"), 0))
        told += await answer(client)
        await client.send(FunctionCall(1, (), (), 0))
        told += await answer(client)
        told += await say(client, "BEGIN")
        await client.send(plus, Query(b"SELECT 'behind'"), plus)
        told += await answer(client, 3)
        told += await say(client, "ROLLBACK")
        await client.send(*BAD, plus, Sync(), plus)  # the first call is skipped
        return told + await answer(client, 2)

    told = await same(story, postgres, proxied)
    assert told[:2] == ["V 42", "Z I"]


# --- clients that go --------------------------------------------------------------------------------


async def two_servers_serve(proxied: PgsluiceProcess) -> None:
    """Both servers of the pool are there for others, outside of any transaction."""
    heirs = [await login(proxied) for _ in range(2)]
    for heir in heirs:
        assert tell(await heir.query("BEGIN")) == ["C BEGIN", "Z T"]
    for heir in heirs:
        assert await heir.value("SELECT 'good'") == "good"
        await heir.query("COMMIT")
        await heir.close()


async def test_a_client_gone_in_a_transaction_leaves_nothing(
    postgres: PostgresServer, proxied: PgsluiceProcess, ledger: str
) -> None:
    for farewell in "abort", "close":
        client = await login(proxied)
        await client.query("BEGIN")
        await client.query("UPDATE ledger SET amount = 0")
        served_by = await pid(client)
        if farewell == "abort":
            client.abort()
        else:
            await client.close()
        locks = "SELECT count(*) FROM pg_locks WHERE relation = 'ledger'::regclass AND mode LIKE 'RowEx%'"
        await eventually(postgres, locks, "0")
        async with await login(proxied) as heir:
            assert await pid(heir) == served_by  # rolled back and used again
            assert heir.status == ord("I")
            assert await heir.value("SELECT sum(amount) FROM ledger") == "500"


async def test_a_client_gone_in_a_failed_transaction_leaves_nothing(proxied: PgsluiceProcess) -> None:
    client = await login(proxied)
    await client.query("BEGIN; SELECT 1/0")
    assert client.status == ord("E")
    client.abort()
    await two_servers_serve(proxied)


async def test_a_query_goes_on_when_its_client_sends_no_more(
    postgres: PostgresServer, proxied: PgsluiceProcess, ledger: str
) -> None:
    """As a server does: it looks for the client's end only when it has answered.

    As many clients as servers: one that hangs up while it stands in the line leaves it.
    """
    for _ in range(2):
        client = await login(proxied)
        await client.send(Query(b"UPDATE ledger SET amount = amount + 1 WHERE pg_sleep(0.1) IS NOT NULL"))
        client.abort()
    await eventually(postgres, "SELECT sum(amount) FROM ledger", "510")
    await two_servers_serve(proxied)


async def test_a_query_is_cancelled_when_its_client_is_reset(
    postgres: PostgresServer, proxied: PgsluiceProcess, ledger: str
) -> None:
    client = await login(proxied)
    await client.send(Query(b"UPDATE ledger SET amount = 0 WHERE pg_sleep(30) IS NOT NULL /* left */"))
    sleeping = (
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%/* left */' AND wait_event = 'PgSleep'"
    )
    await eventually(postgres, sleeping, "1")
    connection: socket.socket = client.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.abort()
    await eventually(postgres, sleeping, "0")
    await two_servers_serve(proxied)
    assert postgres.psql("SELECT sum(amount) FROM ledger") == "500"


async def test_a_client_gone_between_parse_and_sync(proxied: PgsluiceProcess) -> None:
    for unfinished in (
        [Parse(b"", b"SELECT 1"), Flush()],
        [*BAD, Flush()],
        [Parse(b"", b"SELECT 1")],
        [Parse(b"", b"BEGIN"), *run(b""), Flush()],
    ):
        client = await login(proxied)
        await client.send(*unfinished)
        await asyncio.sleep(0.05)
        client.abort()
    await two_servers_serve(proxied)


async def test_what_was_asked_before_terminate_is_carried_out(
    postgres: PostgresServer, proxied: PgsluiceProcess, ledger: str
) -> None:
    client = await login(proxied)
    for number in (1, 2, 3):
        client.writer.write(Query(b"UPDATE ledger SET amount = 7 WHERE id = %d" % number).encode())
    await client.close()
    await eventually(postgres, "SELECT count(*) FROM ledger WHERE amount = 7", "3")
