"""asyncpg at its defaults: it prepares and caches every statement, uses binary formats and its own pool."""

import asyncio
import datetime
import decimal
import io
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from drivers.databases import CLIENTS, Database

Pool = asyncpg.Pool


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    """The driver's pool, all its connections open."""
    async with asyncpg.create_pool(database.url, min_size=CLIENTS, max_size=CLIENTS) as pool:
        yield pool


@pytest.mark.smoke
async def test_many_tasks_share_the_drivers_pool(pool: Pool, accounts: str) -> None:
    async def work(number: int) -> None:
        for turn in range(10):
            assert (
                await pool.fetchval("SELECT owner FROM accounts WHERE id = $1", turn + 1)
                == f"owner {turn + 1}"
            )
            assert await pool.fetchval(f"SELECT $1::int + {turn}", number) == number + turn
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("UPDATE accounts SET balance = balance + 1 WHERE id = $1", turn + 1)
                assert await connection.fetchval("SELECT $1::text", f"{number}") == f"{number}"

    await asyncio.gather(*(work(number) for number in range(30)))
    assert await pool.fetchval("SELECT sum(balance) FROM accounts") == 1000 + 30 * 10


async def test_prepared_statements_outlive_transactions(database: Database, accounts: str) -> None:
    async def work(number: int) -> None:
        connection = await asyncpg.connect(database.url)
        statement = await connection.prepare("SELECT id, owner FROM accounts WHERE id = $1")
        assert [each.name for each in statement.get_attributes()] == ["id", "owner"]
        assert [each.name for each in statement.get_parameters()] == ["int4"]
        other = await connection.prepare(f"SELECT $1::int * {number}")
        for turn in range(20):
            assert (await statement.fetchrow(turn % 10 + 1))["owner"] == f"owner {turn % 10 + 1}"
            assert await other.fetchval(turn) == number * turn
            async with connection.transaction():
                assert await other.fetchval(turn) == number * turn
        await connection.close()

    await asyncio.gather(*(work(number) for number in range(CLIENTS)))


async def test_values_of_many_types(pool: Pool) -> None:
    values: list[tuple[str, Any]] = [
        ("int8", 2**40), ("text", "ünïcödé \N{SNOWMAN}"), ("bytea", b"\x00\xff"), ("bool", None),
        ("numeric", decimal.Decimal("12345.6789")), ("int4[]", [1, None, 3]), ("text[]", ["a", 'b"c']),
        ("uuid", uuid.UUID(int=5)), ("jsonb", '{"a": 1}'), ("interval", datetime.timedelta(days=1)),
        ("timestamptz", datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)), ("float8", 1.5),
        ("date", datetime.date(2026, 1, 31)), ("int4range", asyncpg.Range(1, 5)),
    ]  # fmt: skip
    for kind, value in values:
        got = await asyncio.gather(*(pool.fetchval(f"SELECT $1::{kind}", value) for _ in range(CLIENTS)))
        assert got == [value] * CLIENTS


async def test_types_the_driver_has_to_look_up(database: Database, pool: Pool) -> None:
    database.psql("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b mood[])")

    async def work(number: int) -> None:
        async with pool.acquire() as connection:
            row = await connection.fetchval("SELECT $1::pair", (number, ["happy", "sad"]))
            assert tuple(row) == (number, ["happy", "sad"])
            assert await connection.fetchval("SELECT $1::mood[]", ["sad"]) == ["sad"]

    await asyncio.gather(*(work(number) for number in range(CLIENTS)))


async def test_transactions(pool: Pool, accounts: str) -> None:
    async def pay(source: int, target: int, amount: int) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE accounts SET balance = balance + $1 WHERE id = $2", amount, target
            )
            await connection.execute(
                "UPDATE accounts SET balance = balance - $1 WHERE id = $2", amount, source
            )

    async def work(number: int) -> None:
        await pay(10, number + 1, 1)
        with pytest.raises(asyncpg.CheckViolationError):
            await pay(number + 1, 9, 10_000)
        async with pool.acquire() as connection:
            outer = connection.transaction(isolation="repeatable_read")
            await outer.start()
            inner = connection.transaction()
            await inner.start()
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.fetchval("SELECT 1 / $1::int", 0)
            with pytest.raises(asyncpg.InFailedSQLTransactionError):
                await connection.fetchval("SELECT 1")
            await inner.rollback()
            assert await connection.fetchval("SHOW transaction_isolation") == "repeatable read"
            await outer.commit()

    await asyncio.gather(*(work(number) for number in range(CLIENTS)))
    assert await pool.fetchval("SELECT sum(balance) FROM accounts") == 1000
    assert await pool.fetchval("SELECT balance FROM accounts WHERE id = 10") == 100 - CLIENTS


async def test_errors_leave_the_connection_usable(database: Database, accounts: str) -> None:
    connection = await asyncpg.connect(database.url)
    for _ in range(3):
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await connection.fetch("SELEC 1")
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.prepare("SELECT * FROM nowhere")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("INSERT INTO accounts VALUES ($1, 'twice', 1)", 1)
        with pytest.raises(asyncpg.DataError):
            await connection.fetch("SELECT $1::int", "text")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute("SELECT 1; SELECT 1/0; SELECT 2")
        assert await connection.fetchval("SELECT $1::int", 1) == 1
    await connection.close()


async def test_a_timeout_cancels(pool: Pool) -> None:
    async def work(number: int) -> None:
        async with pool.acquire() as connection:
            with pytest.raises(TimeoutError):
                await connection.fetchval("SELECT pg_sleep(30), $1::int", number, timeout=0.3)
            assert await connection.fetchval("SELECT $1::int", number) == number

    await asyncio.gather(*(work(number) for number in range(2)))
    bystander = asyncio.create_task(pool.fetchval("SELECT 'finished' FROM pg_sleep(0.5)"))
    await work(3)
    assert await bystander == "finished"


async def test_a_cancelled_task_cancels_its_statement(database: Database, pool: Pool) -> None:
    task = asyncio.create_task(pool.fetchval("SELECT pg_sleep(30) /* cancel me */"))
    while database.sleeping("cancel me") == 0:
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.gather(*(pool.fetchval("SELECT $1::int", number) for number in range(20))) == [
        *range(20)
    ]
    assert database.sleeping("cancel me") == 0


async def test_cursors(pool: Pool) -> None:
    async def work(number: int) -> None:
        async with pool.acquire() as connection, connection.transaction():
            series = connection.cursor("SELECT i FROM generate_series($1::int, 500) i", number, prefetch=60)
            assert [record["i"] async for record in series] == list(range(number, 501))
            cursor = await connection.cursor("SELECT i FROM generate_series(1, 100) i")
            assert len(await cursor.fetch(10)) == 10
            assert await cursor.forward(20) == 20
            assert (await cursor.fetchrow())["i"] == 31

    await asyncio.gather(*(work(number) for number in range(CLIENTS)))


async def test_executemany(pool: Pool, accounts: str) -> None:
    async def work(number: int) -> None:
        rows = [(1000 * (number + 1) + each, f"new {each}", each) for each in range(200)]
        await pool.executemany("INSERT INTO accounts VALUES ($1, $2, $3)", rows)
        with pytest.raises(asyncpg.UniqueViolationError):
            await pool.executemany("INSERT INTO accounts VALUES ($1, $2, $3)", [(-number - 1, "", 1), *rows])

    await asyncio.gather(*(work(number) for number in range(CLIENTS)))
    assert await pool.fetchval("SELECT count(*) FROM accounts") == 10 + 200 * CLIENTS


async def test_copy(pool: Pool, accounts: str) -> None:
    async def work(number: int) -> None:
        rows = [(1000 * (number + 1) + each, f"new\t{each}", each) for each in range(200)]
        async with pool.acquire() as connection:
            assert await connection.copy_records_to_table("accounts", records=rows) == "COPY 200"
            text = io.BytesIO()
            query = "SELECT * FROM accounts WHERE id / 1000 = $1 ORDER BY id"
            assert (
                await connection.copy_from_query(query, number + 1, output=text, format="csv") == "COPY 200"
            )
            assert text.getvalue().decode().splitlines() == [f"{a},{b},{c}" for a, b, c in rows]
            with pytest.raises(asyncpg.UniqueViolationError):
                await connection.copy_to_table("accounts", source=io.BytesIO(text.getvalue()), format="csv")
            async with connection.transaction():
                await connection.execute("DELETE FROM accounts WHERE id / 1000 = $1", number + 1)
                text.seek(0)
                assert await connection.copy_to_table("accounts", source=text, format="csv") == "COPY 200"
            with pytest.raises(asyncpg.UndefinedTableError):
                await connection.copy_records_to_table("nowhere", records=rows)
            binary = io.BytesIO()
            await connection.copy_from_table("accounts", output=binary, format="binary")
            assert binary.getvalue().startswith(b"PGCOPY\n\xff\r\n\x00")

    await asyncio.gather(*(work(number) for number in range(CLIENTS)))
    assert await pool.fetchval("SELECT count(*) FROM accounts") == 10 + 200 * CLIENTS


async def test_ddl_between_cached_statements(database: Database, accounts: str) -> None:
    """By the server's error the driver finds out that its statement is outdated, and prepares it anew."""
    connections = [await asyncpg.connect(database.url) for _ in range(CLIENTS)]

    async def width(connection: asyncpg.Connection) -> int:
        return len(await connection.fetchrow("SELECT * FROM accounts WHERE id = 1"))

    for columns in range(3, 7):
        for connection in connections:
            assert await width(connection) == columns
        assert await asyncio.gather(*map(width, connections)) == [columns] * CLIENTS
        database.psql(f"ALTER TABLE accounts ADD COLUMN more_{columns} int")
        if columns % 2:
            assert set(await asyncio.gather(*map(width, connections))) == {columns + 1}
    for connection in connections:
        await connection.close()


async def test_a_fresh_connection_after_ddl(database: Database, accounts: str) -> None:
    for columns in range(3, 7):
        connections = [await asyncpg.connect(database.url) for _ in range(2)]
        for _ in range(2):
            for connection in connections:
                await connection.execute("BEGIN")
                assert len(await connection.fetchrow("SELECT * FROM accounts WHERE id = 1")) == columns
            for connection in connections:
                await connection.execute("ROLLBACK")
                assert len(await connection.fetchrow("SELECT * FROM accounts WHERE id = 1")) == columns
        for connection in connections:
            await connection.close()
        database.psql(f"ALTER TABLE accounts ADD COLUMN more_{columns} int")


async def test_more_statements_than_the_drivers_cache(database: Database) -> None:
    async def work(number: int) -> None:
        connection = await asyncpg.connect(database.url, statement_cache_size=4)
        for turn in range(60):
            which = turn * 5 % 9
            assert await connection.fetchval(f"SELECT $1::int + {which}", number) == number + which
        await connection.close()

    await asyncio.gather(*(work(number) for number in range(CLIENTS)))


async def test_without_the_drivers_cache(database: Database) -> None:
    async def work(number: int) -> None:
        connection = await asyncpg.connect(database.url, statement_cache_size=0)
        for turn in range(20):
            assert await connection.fetchval("SELECT $1::int + $2", number, turn) == number + turn
        await connection.close()

    await asyncio.gather(*(work(number) for number in range(CLIENTS)))
