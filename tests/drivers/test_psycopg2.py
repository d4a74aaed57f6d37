"""psycopg 2: the simple protocol, and autocommit off."""

import io
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool
import pytest
from drivers.databases import CLIENTS, Database


def test_many_threads_share_the_drivers_pool(database: Database, accounts: str) -> None:
    pool = psycopg2.pool.ThreadedConnectionPool(CLIENTS, CLIENTS, database.url)

    def work(number: int) -> None:
        for turn in range(15):
            connection = pool.getconn()
            with connection, connection.cursor() as cursor:
                cursor.execute("UPDATE accounts SET balance = balance + 1 WHERE id = %s", (turn % 10 + 1,))
                cursor.execute("SELECT owner, %s FROM accounts WHERE id = %s", (number, turn % 10 + 1))
                assert cursor.fetchone() == (f"owner {turn % 10 + 1}", number)
            pool.putconn(connection)

    with ThreadPoolExecutor(CLIENTS) as threads:
        for result in [threads.submit(work, number) for number in range(CLIENTS)]:
            result.result(timeout=40)
    pool.closeall()
    assert database.psql("SELECT sum(balance) FROM accounts") == str(1000 + 15 * CLIENTS)


def test_transactions_and_errors(database: Database, accounts: str) -> None:
    connection = psycopg2.connect(database.url)
    cursor = connection.cursor()
    with pytest.raises(psycopg2.errors.UniqueViolation):
        cursor.execute("INSERT INTO accounts VALUES (1, 'twice', 1)")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        cursor.execute("SELECT 1")
    connection.rollback()
    cursor.execute("UPDATE accounts SET balance = 0; SELECT count(*) FROM accounts WHERE balance = 0")
    assert cursor.fetchone() == (10,)
    connection.rollback()
    cursor.execute("SELECT sum(balance) FROM accounts")
    assert cursor.fetchone() == (1000,)
    connection.set_session(
        isolation_level="SERIALIZABLE", autocommit=False
    ) if not connection.status else None
    connection.rollback()
    connection.autocommit = True
    cursor.execute("UPDATE accounts SET balance = 1 WHERE id = 1")
    cursor.execute("DO $$BEGIN RAISE NOTICE 'heard'; END$$")
    assert connection.notices == ["NOTICE:  heard\n"]
    connection.close()
    assert database.psql("SELECT balance FROM accounts WHERE id = 1") == "1"


def test_server_side_cursors(database: Database) -> None:
    connections = [psycopg2.connect(database.url) for _ in range(2)]
    for connection in connections:
        with connection, connection.cursor("reader") as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT i FROM generate_series(1, 1000) i")
            assert [row[0] for row in cursor] == list(range(1, 1001))
        connection.close()


def test_copy(database: Database, accounts: str) -> None:
    connection = psycopg2.connect(database.url)
    with connection, connection.cursor() as cursor:
        cursor.copy_expert(
            "COPY accounts FROM STDIN", io.StringIO("".join(f"{i}\tnew\t{i}\n" for i in range(100, 5000)))
        )
        out = io.StringIO()
        cursor.copy_expert("COPY (SELECT * FROM accounts WHERE id >= 100 ORDER BY id) TO STDOUT", out)
        assert out.getvalue() == "".join(f"{i}\tnew\t{i}\n" for i in range(100, 5000))
    with pytest.raises(psycopg2.errors.UniqueViolation), connection.cursor() as cursor:
        cursor.copy_from(io.StringIO("1\ttwice\t1\n"), "accounts")
    connection.rollback()
    connection.close()
    assert database.psql("SELECT count(*) FROM accounts") == "4910"


def test_many_rows_at_once(database: Database, accounts: str) -> None:
    with psycopg2.connect(database.url) as connection, connection.cursor() as cursor:
        rows = [(i, "new", i) for i in range(100, 1100)]
        psycopg2.extras.execute_values(cursor, "INSERT INTO accounts VALUES %s", rows)
        psycopg2.extras.execute_batch(
            cursor, "UPDATE accounts SET balance = %s WHERE id = %s", [(7, i[0]) for i in rows]
        )
        cursor.execute("SELECT sum(balance) FROM accounts WHERE id >= 100")
        assert cursor.fetchone() == (7000,)
    connection.close()


def test_cancel(database: Database) -> None:
    connection, other = psycopg2.connect(database.url), psycopg2.connect(database.url)
    with ThreadPoolExecutor(1) as thread:
        sleeping = thread.submit(connection.cursor().execute, "SELECT pg_sleep(30) /* psycopg2 */")
        while database.sleeping("psycopg2") == 0:
            time.sleep(0.02)
        connection.cancel()
        with pytest.raises(psycopg2.errors.QueryCanceled):
            sleeping.result(timeout=20)
    connection.rollback()
    for each in connection, other:
        cursor = each.cursor()
        cursor.execute("SELECT 'alive'")
        assert cursor.fetchone() == ("alive",)
        each.close()
