"""psycopg 3, blocking and asynchronous, at its defaults unless a test says otherwise."""

import asyncio
import datetime
import decimal
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from drivers.databases import CLIENTS, Database
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[tuple[Any, ...]]


def in_threads(work: Callable[[int], None]) -> None:
    """Runs the work for so many clients at once; what fails in one fails the test."""
    with ThreadPoolExecutor(CLIENTS) as threads:
        for result in [threads.submit(work, number) for number in range(CLIENTS)]:
            result.result(timeout=40)


@pytest.mark.parametrize("threshold", [5, 0, 1, None], ids=lambda value: f"prepare_threshold={value}")
def test_many_clients_repeat_their_statements(
    database: Database, accounts: str, threshold: int | None
) -> None:
    def work(number: int) -> None:
        with psycopg.connect(database.url, autocommit=number % 2 == 0) as connection:
            connection.prepare_threshold = threshold
            for turn in range(15):
                with connection.transaction(), connection.cursor() as cursor:
                    cursor.execute("SELECT owner FROM accounts WHERE id = %s", (turn % 10 + 1,))
                    assert cursor.fetchone() == (f"owner {turn % 10 + 1}",)
                    cursor.execute(f"SELECT {number} + %s", (turn,))
                    assert cursor.fetchone() == (number + turn,)
                row = connection.execute("SELECT %s::text, %s::int", (f"{number}", turn)).fetchone()
                assert row == (f"{number}", turn)

    in_threads(work)


def test_values_of_many_types(database: Database) -> None:
    values: list[Any] = [
        None, True, 2**40, 1.5, decimal.Decimal("12345.678900"), "ünïcödé 'quoted' \\ \N{SNOWMAN}",
        b"\x00\xff", [1, None, 3], Jsonb({"a": [1, 2]}), uuid.UUID(int=5), datetime.date(2026, 1, 31),
        datetime.timedelta(days=1, seconds=2), datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC),
    ]  # fmt: skip
    for binary in False, True:
        with psycopg.connect(database.url) as connection, connection.cursor(binary=binary) as cursor:
            for value in values:
                for _ in range(7):
                    got = cursor.execute("SELECT %s", (value,)).fetchone()
                    assert got == (value.obj if isinstance(value, Jsonb) else value,)


def test_transactions(database: Database, accounts: str) -> None:
    def pay(connection: Connection, source: int, target: int, amount: int) -> None:
        with connection.transaction():
            connection.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (amount, target))
            connection.execute("UPDATE accounts SET balance = balance - %s WHERE id = %s", (amount, source))

    def work(number: int) -> None:
        with psycopg.connect(database.url) as connection:
            for turn in range(10):
                source, target = sorted(((number + turn) % 10 + 1, (number + 3 * turn + 1) % 10 + 1))
                if source != target:
                    with suppress(psycopg.errors.DeadlockDetected):
                        pay(connection, source, target, 1)
                with pytest.raises(psycopg.errors.CheckViolation):
                    pay(connection, 1, 2, 1_000)

    in_threads(work)
    assert database.psql("SELECT sum(balance) FROM accounts") == "1000"


def test_errors_and_savepoints(database: Database, accounts: str) -> None:
    with psycopg.connect(database.url) as connection:
        with pytest.raises(psycopg.errors.UniqueViolation) as duplicate:
            connection.execute("INSERT INTO accounts VALUES (1, 'twice', 1)")
        assert duplicate.value.diag.constraint_name == "accounts_pkey"
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("SELECT 1")
        connection.rollback()
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM nowhere WHERE a = %s", (1,))
        connection.rollback()
        with connection.transaction():
            connection.execute("UPDATE accounts SET balance = 1 WHERE id = 1")
            with connection.transaction():
                connection.execute("UPDATE accounts SET balance = 2 WHERE id = 1")
                raise psycopg.Rollback
            with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
                connection.execute("SELECT 1 / %s", (0,))
            assert connection.execute("SELECT balance FROM accounts WHERE id = 1").fetchone() == (1,)
        connection.commit()
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_rollback_drops_the_drivers_statements(database: Database, accounts: str) -> None:
    """psycopg sends DEALLOCATE ALL after a rollback that may have undone DDL."""

    def work(number: int) -> None:
        with psycopg.connect(database.url, prepare_threshold=0) as connection:
            for turn in range(8):
                connection.execute("SELECT balance FROM accounts WHERE id = %s", (number + 1,))
                connection.execute("SELECT %s::int", (turn,))
                if turn % 3 == 0:
                    connection.execute(f"CREATE TABLE IF NOT EXISTS scrap_{number} (a int)")
                if turn % 2:
                    connection.rollback()
                else:
                    connection.commit()
                connection.execute("DEALLOCATE ALL")
                assert connection.execute("SELECT %s::int", (turn,)).fetchone() == (turn,)
                connection.commit()

    in_threads(work)


def test_more_statements_than_the_driver_keeps(database: Database) -> None:
    """Those that psycopg drops (prepared_max) are deallocated one by one."""

    def work(number: int) -> None:
        with psycopg.connect(database.url, prepare_threshold=0, autocommit=True) as connection:
            connection.prepared_max = 3
            for turn in range(30):
                which = turn * 7 % 5
                assert connection.execute(f"SELECT %s::int + {which}", (number,)).fetchone() == (
                    number + which,
                )
            count = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
            assert count is not None

    in_threads(work)


@pytest.mark.smoke
def test_pipelines(database: Database, accounts: str) -> None:
    def work(number: int) -> None:
        with psycopg.connect(database.url, autocommit=True) as connection:
            for turn in range(5):
                with (
                    connection.pipeline() as pipeline,
                    connection.cursor() as first,
                    connection.cursor() as second,
                ):
                    first.execute("SELECT owner FROM accounts WHERE id = %s", (number + 1,), prepare=True)
                    second.execute("SELECT %s::int", (turn,), prepare=True)
                    assert first.fetchone() == (f"owner {number + 1}",)
                    with pytest.raises(psycopg.errors.DivisionByZero):
                        connection.execute("SELECT 1 / %s", (0,), prepare=True).fetchone()
                    pipeline.sync()
                    assert second.fetchone() == (turn,)
                    assert connection.execute("SELECT %s::int", (turn,), prepare=True).fetchone() == (turn,)

    in_threads(work)


def fail_in_the_middle_of_a_pipeline(connection: Connection) -> None:
    with connection.pipeline():
        connection.execute("UPDATE accounts SET balance = 0 WHERE id = %s", (1,), prepare=True)
        connection.execute("SELECT 1 / %s", (0,), prepare=True)
        connection.execute("UPDATE accounts SET balance = 0 WHERE id = %s", (2,), prepare=True)


def test_an_error_undoes_the_whole_pipeline(database: Database, accounts: str) -> None:
    def work(number: int) -> None:
        with psycopg.connect(database.url, autocommit=True) as connection:
            for turn in range(5):
                with pytest.raises(psycopg.errors.DivisionByZero):
                    fail_in_the_middle_of_a_pipeline(connection)
                with connection.pipeline():
                    cursor = connection.execute("SELECT %s::int", (turn,), prepare=True)
                    assert cursor.fetchone() == (turn,)

    in_threads(work)
    assert database.psql("SELECT sum(balance) FROM accounts") == "1000"


def test_executemany(database: Database, accounts: str) -> None:
    def work(number: int) -> None:
        with psycopg.connect(database.url) as connection, connection.cursor() as cursor:
            rows = [(100 * (number + 1) + each, f"new {each}", each) for each in range(20)]
            cursor.executemany("INSERT INTO accounts VALUES (%s, %s, %s) RETURNING id", rows, returning=True)
            returned = []
            while True:
                returned += cursor.fetchall()
                if not cursor.nextset():
                    break
            assert returned == [(row[0],) for row in rows]
            connection.commit()
            with pytest.raises(psycopg.errors.UniqueViolation):
                cursor.executemany(
                    "INSERT INTO accounts VALUES (%s, %s, %s)", [(5000 + number, "", 1), *rows]
                )
            connection.rollback()
            cursor.executemany("DELETE FROM accounts WHERE id = %s", [(row[0],) for row in rows])
            assert cursor.rowcount == len(rows)

    in_threads(work)
    assert database.psql("SELECT count(*) FROM accounts") == "10"


def test_server_side_cursors(database: Database) -> None:
    def work(number: int) -> None:
        with psycopg.connect(database.url) as connection:
            with connection.cursor(f"reader_{number}", row_factory=dict_row) as cursor:
                cursor.itersize = 50
                cursor.execute("SELECT i FROM generate_series(%s::int, 1000) i", (number,))
                assert [row["i"] for row in cursor] == list(range(number, 1001))
            connection.commit()
            with connection.cursor("same_name_everywhere", scrollable=True) as cursor:
                cursor.execute("SELECT generate_series(1, 100)")
                assert cursor.fetchmany(3) == [(1,), (2,), (3,)]
                cursor.scroll(50)
                assert cursor.fetchone() == (54,)
                cursor.scroll(10, mode="absolute")
                assert cursor.fetchone() == (11,)

    in_threads(work)


def copy_in(cursor: psycopg.Cursor[Any], rows: Iterable[Any]) -> None:
    with cursor.copy("COPY accounts FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def copy_out_in_part(cursor: psycopg.Cursor[Any]) -> None:
    with cursor.copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT") as copy:
        copy.read()
        raise ZeroDivisionError  # the driver cancels


def test_copy(database: Database, accounts: str) -> None:
    def work(number: int) -> None:
        with psycopg.connect(database.url) as connection, connection.cursor() as cursor:
            rows = [(1000 * (number + 1) + each, f"tab\tnewline\n{each}", each) for each in range(500)]
            copy_in(cursor, rows)
            connection.commit()
            query = "COPY (SELECT * FROM accounts WHERE id / 1000 = %s ORDER BY id) TO STDOUT (FORMAT binary)"
            with cursor.copy(query, (number + 1,)) as copy:
                copy.set_types(["int4", "text", "int4"])
                assert list(copy.rows()) == rows
            with pytest.raises(psycopg.errors.UniqueViolation):
                copy_in(cursor, rows)
            connection.rollback()
            with pytest.raises(ZeroDivisionError):
                copy_in(cursor, (1 / (number - number) for _ in rows))
            connection.rollback()
            with pytest.raises(ZeroDivisionError):
                copy_out_in_part(cursor)
            connection.rollback()
            assert cursor.execute("SELECT 'alive'").fetchone() == ("alive",)

    in_threads(work)
    assert database.psql("SELECT count(*) FROM accounts") == str(500 * CLIENTS + 10)


def test_a_fresh_statement_after_ddl(database: Database, accounts: str) -> None:
    def columns(connection: Connection) -> int:
        return len(connection.execute("SELECT * FROM accounts WHERE id = %s", (1,)).fetchone() or ())

    for width in range(3, 7):
        with psycopg.connect(database.url) as first, psycopg.connect(database.url) as second:
            for connection in first, second:
                connection.prepare_threshold = 0
                assert columns(connection) == width  # (inside transactions: each has a server)
            for connection in second, first, second:
                connection.commit()
                assert columns(connection) == width
        database.psql(f"ALTER TABLE accounts ADD COLUMN more_{width} int")


def test_cancel(database: Database) -> None:
    with psycopg.connect(database.url) as connection, psycopg.connect(database.url) as other:
        with ThreadPoolExecutor(1) as thread:
            sleeping = thread.submit(connection.execute, "SELECT pg_sleep(30) /* to be cancelled */")
            while database.sleeping("to be cancelled") == 0:
                time.sleep(0.02)
            connection.cancel_safe(timeout=10)
            with pytest.raises(psycopg.errors.QueryCanceled):
                sleeping.result(timeout=20)
        connection.rollback()
        assert connection.execute("SELECT 'alive'").fetchone() == ("alive",)
        assert other.execute("SELECT 'untouched'").fetchone() == ("untouched",)


def test_notices(database: Database) -> None:
    heard: list[str | None] = []
    with psycopg.connect(database.url) as connection:
        connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
        connection.execute("DO $$BEGIN RAISE NOTICE 'hear, hear'; END$$")
    assert heard == ["hear, hear"]


def test_several_statements_in_one_text(database: Database) -> None:
    with psycopg.connect(database.url) as connection:
        cursor = connection.execute("SELECT 1; SELECT 2; CREATE TABLE t (a int); SELECT 3")
        results = [result.fetchall() for result in cursor.results() if result.description]
        assert results == [[(1,)], [(2,)], [(3,)]]


async def test_asynchronous_clients(database: Database, accounts: str) -> None:
    async def work(number: int) -> None:
        connection = await psycopg.AsyncConnection.connect(database.url)
        async with connection:
            for turn in range(12):
                cursor = await connection.execute(
                    "SELECT owner FROM accounts WHERE id = %s", (turn % 10 + 1,)
                )
                assert await cursor.fetchone() == (f"owner {turn % 10 + 1}",)
                await connection.commit()
                async with connection.transaction():
                    await connection.execute(
                        "UPDATE accounts SET balance = balance + 1 WHERE id = %s", (number + 1,)
                    )
                try:
                    await connection.execute("SELECT 1 / %s", (turn % 3,))
                    await connection.commit()
                except psycopg.errors.DivisionByZero:
                    await connection.rollback()
            async with connection.pipeline():
                cursors = [await connection.execute("SELECT %s::int", (each,)) for each in range(20)]
                assert [await cursor.fetchone() for cursor in cursors] == [(each,) for each in range(20)]
            async with connection.cursor(f"async_{number}") as cursor:
                await cursor.execute("SELECT generate_series(1, 250)")
                assert [row[0] async for row in cursor] == list(range(1, 251))
            async with connection.cursor() as cursor, cursor.copy("COPY accounts TO STDOUT") as copy:
                assert len([row async for row in copy.rows()]) == 10

    await asyncio.gather(*(work(number) for number in range(CLIENTS)))
    assert database.psql("SELECT sum(balance) FROM accounts") == str(1000 + 12 * CLIENTS)
