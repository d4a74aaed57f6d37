"""COPY through fewer servers than clients, in both protocols: told as by a server of one's own."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
from drivers.dialogue import Open, answer, ask, busy, close, login, run, same, say, tell
from support.proxy import PgsluiceProcess

from protocol.messages import backend
from protocol.messages.codec import CopyData, CopyDone
from protocol.messages.frontend import CopyFail, Flush, Parse, Query, Sync
from proxy.demo.embedded import PostgresServer

IN = b"COPY goods FROM STDIN"
OUT = b"COPY (SELECT * FROM goods ORDER BY a) TO STDOUT"
ROWS = CopyData(b"1\tone\n2\ttwo\n"), CopyData(b"3\tthr"), CopyData(b"ee\n")
PREPARED_IN = Parse(b"", IN), *run(b"")


@pytest.fixture(scope="module")
def proxied(postgres: PostgresServer) -> Iterator[PgsluiceProcess]:
    """Two servers for all clients."""
    with PgsluiceProcess(postgres.url(), settings={"POOL_SIZE": "2"}) as process:
        yield process


@pytest.fixture(autouse=True)
async def goods(postgres: PostgresServer) -> AsyncIterator[None]:
    """An empty table, gone afterwards."""
    postgres.psql("CREATE TABLE goods (a int PRIMARY KEY, b text)")
    yield
    postgres.psql("SET lock_timeout = '10s'; DROP TABLE goods")


# --- in ---------------------------------------------------------------------------------------------


async def test_in_and_out_by_simple_query(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        await client.send(Query(IN))
        told = tell([await client.receive()])
        await client.send(*ROWS, CopyDone())
        told += await answer(client)
        async with busy(occupant):
            told += await say(client, OUT)
            await client.send(Query(OUT + b" (FORMAT binary)"), Query(b"SELECT 'behind'"))
            told += await answer(client, 2)
        return told + await say(client, "DELETE FROM goods")

    told = await same(story, postgres, proxied)
    assert told[:3] == ["G", "C COPY 3", "Z I"]
    assert told[3:8] == ["H", "d 1\tone\n", "d 2\ttwo\n", "d 3\tthree\n", "c"]


@pytest.mark.smoke
async def test_everything_in_one_write(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        await client.send(Query(IN), *ROWS, CopyDone(), Query(b"SELECT count(*) FROM goods"))
        told = await answer(client, 2)
        await client.send(*PREPARED_IN, CopyData(b"4\tfour\n"), CopyDone(), Sync(), Query(b"SELECT 'behind'"))
        told += await answer(client, 2)
        await client.send(
            *PREPARED_IN, Sync(), CopyData(b"5\tfive\n"), CopyDone(), Sync(), Query(b"SELECT 'behind'")
        )
        told += await answer(client, 2)
        return told + await say(client, "DELETE FROM goods")

    await same(story, postgres, proxied)


@pytest.mark.parametrize("begin", [b"", b"BEGIN"], ids=["autocommit", "transaction"])
async def test_in_by_the_extended_protocol_with_an_early_sync(
    postgres: PostgresServer, proxied: PgsluiceProcess, begin: bytes
) -> None:
    """As libpq does: the Sync behind Execute is ignored by a server that reads COPY data."""

    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        told = await say(client, begin)
        await client.send(*PREPARED_IN, Sync())
        told += tell([await client.receive() for _ in range(3)])
        await client.send(*ROWS, CopyDone(), Sync())
        told += await answer(client)
        told += await say(client, "COMMIT")
        async with busy(occupant):
            told += await ask(client, Parse(b"", OUT), *run(b""))
        return told + await say(client, "DELETE FROM goods")

    await same(story, postgres, proxied)


async def test_in_by_the_extended_protocol_with_a_late_sync(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        await client.send(*PREPARED_IN, Flush())
        told = tell([await client.receive() for _ in range(3)])
        for row in ROWS:
            await client.send(row)
        await client.send(CopyDone(), Parse(b"", b"SELECT count(*) FROM goods"), *run(b""), Sync())
        told += await answer(client)
        await client.send(Parse(b"", OUT), *run(b""), Flush())
        told += tell(await client.receive_until(backend.CommandComplete))
        await client.send(Sync())
        told += await answer(client)
        return told + await say(client, "DELETE FROM goods")

    await same(story, postgres, proxied)


async def test_in_among_other_statements(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        await client.send(Query(b"SELECT 'first'; " + IN + b"; SELECT 'between'; " + IN + b"; SELECT 'last'"))
        told = tell([await client.receive() for _ in range(4)])
        await client.send(*ROWS, CopyDone())
        told += tell([await client.receive() for _ in range(5)])
        await client.send(CopyData(b"9\tnine\n"), CopyDone())
        told += await answer(client)
        told += await say(client, OUT + b"; " + OUT)
        return told + await say(client, "DELETE FROM goods")

    await same(story, postgres, proxied)


# --- in, failing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["simple", "early sync", "late sync"])
async def test_in_that_fails(postgres: PostgresServer, proxied: PgsluiceProcess, how: str) -> None:
    begin = {
        "simple": [Query(IN)],
        "early sync": [*PREPARED_IN, Sync()],
        "late sync": [*PREPARED_IN, Flush()],
    }[how]
    end = [] if how == "simple" else [Sync()]
    answers = 1 if how == "simple" else 3

    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        told = []
        for data in (
            [CopyData(b"1\tone\nx\tbad\n"), CopyData(b"2\ttwo\n"), CopyDone()],
            [CopyData(b"1\tone\n"), CopyFail(b"changed my mind")],
            [CopyData(b"1\tone\n"), CopyData(b"1\tagain\n"), CopyDone()],
            [CopyData(b"1\tone"), CopyDone(), CopyData(b"too late\n")],
        ):
            await client.send(*begin)
            told += tell([await client.receive() for _ in range(answers)])
            await client.send(*data, *end)
            told += await answer(client)
            told += await say(occupant, "SELECT 'others are not disturbed'")
            told += await say(client, "DELETE FROM goods")
        return told

    told = await same(story, postgres, proxied)
    assert any("changed my mind" in line for line in told)


async def test_data_behind_an_error(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    """The client is still sending when the error has long come: the rest of its data goes nowhere."""

    async def story(open_client: Open) -> list[str]:
        client, other = await open_client(), await open_client()
        told = []
        for begin in Query(IN), Query(b"COPY goods (nothing) FROM STDIN"):
            await client.send(begin, CopyData(b"x\tbad\n"))
            told += await answer(client)
            await client.send(*ROWS)
            told += await say(other, "SELECT 'others are not disturbed'")
            await client.send(*ROWS, CopyDone(), *ROWS)
            told += await say(client, "SELECT 'next'")
        told += await say(client, "BEGIN")
        await client.send(Query(IN), CopyData(b"x\tbad\n"))
        told += await answer(client)
        await client.send(*ROWS, CopyFail(b"never mind"))
        told += await say(client, "SELECT 'failed'")
        told += await say(client, "ROLLBACK")
        await client.send(*PREPARED_IN, CopyData(b"x\tbad\n"), *ROWS, CopyDone(), Sync())
        told += await answer(client)
        await client.send(Parse(b"", b"COPY nowhere FROM STDIN"), *run(b""), *ROWS, CopyDone(), Sync())
        told += await answer(client)
        return told + await say(client, "SELECT count(*) FROM goods")

    await same(story, postgres, proxied)


async def test_copy_messages_that_nobody_asked_for(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        client, other = await open_client(), await open_client()
        told = []
        for lost in ([CopyDone()], [CopyFail(b"what?")], list(ROWS), [*ROWS, CopyDone(), *ROWS]):
            await client.send(*lost)
            told += await say(other, "SELECT 'other'")
            told += await say(client, "SELECT 'next'")
            await client.send(*lost, Query(b"SELECT 'same write'"), *lost, Query(b"BEGIN"), *lost)
            told += await answer(client, 2)
            await client.send(*lost)
            told += await say(client, "COMMIT")
            await client.send(Parse(b"", b"SELECT 'ext'"), *lost, *run(b""), *lost, Sync(), *lost)
            told += await answer(client)
        return told

    await same(story, postgres, proxied)


async def test_other_messages_while_copying_in(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        told = await say(client, "TRUNCATE goods")
        await client.send(Query(IN))
        told += tell([await client.receive()])
        await client.send(CopyData(b"1\tone\n"), Flush(), Sync(), CopyData(b"2\ttwo\n"), CopyDone())
        told += await answer(client)
        await client.send(Query(IN))
        told += tell([await client.receive()])
        await client.send(CopyData(b"3\tthree\n"), Parse(b"", b"SELECT 'not now'"), Flush())
        with suppress(asyncio.IncompleteReadError):
            while True:
                told += tell([await client.receive()])
        return told

    told = await same(story, postgres, proxied)
    assert "FATAL" in told[-1]
    assert postgres.psql("SELECT a FROM goods") == "1\n2"


async def test_anything_else_behind_an_early_sync(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        told = []
        for name in b"", b"named":
            client = await open_client()
            begin = Parse(name, IN), *run(name), Sync()
            await client.send(*begin, CopyData(b"%d\tx\n" % len(name)), CopyDone(), close(name), Sync())
            told += await answer(client)
            await client.send(Parse(b"again", IN), *run(b"again"), Sync(), Query(b"SELECT 1"))
            with suppress(asyncio.IncompleteReadError):
                while True:
                    told += tell([await client.receive()])
        return told + await say(await open_client(), "DELETE FROM goods")

    told = await same(story, postgres, proxied)
    assert sum("FATAL" in line for line in told) == 2
    await both_servers_serve(proxied)


# --- size, and clients that go ----------------------------------------------------------------------


async def test_large_copies_of_several_clients_at_once(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    size, clients = 20_000, 5
    padding = b"x" * 200

    async def copies(number: int) -> int:
        client = await login(proxied)
        await client.send(Query(IN))
        await client.expect(backend.CopyInResponse)
        first = number * size
        for start in range(first, first + size, 500):
            await client.send(
                CopyData(b"".join(b"%d\t%s\n" % (a, padding) for a in range(start, start + 500)))
            )
        await client.send(CopyDone())
        assert await answer(client) == [f"C COPY {size}", "Z I"]
        where = b"COPY (SELECT * FROM goods WHERE a / %d = %d) TO STDOUT" % (size, number)
        received = 0
        for message in await client.query(where):
            if isinstance(message, CopyData):
                received += len(message.data)
        await client.close()
        return received

    received = await asyncio.gather(*(copies(number) for number in range(clients)))
    expected = [
        sum(len(str(a)) + 202 for a in range(number * size, (number + 1) * size)) for number in range(clients)
    ]
    assert received == expected
    assert (
        postgres.psql("SELECT count(*), sum(length(b)) FROM goods")
        == f"{size * clients}|{size * clients * 200}"
    )


async def test_a_reader_that_stops_holds_nobody_up(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    postgres.psql("INSERT INTO goods SELECT i, repeat('y', 1000) FROM generate_series(1, 30000) i")
    sleeper, other = await login(proxied), await login(proxied)
    await sleeper.send(Query(b"COPY goods TO STDOUT"))
    await sleeper.expect(backend.CopyOutResponse)
    for _ in range(20):
        assert await other.value("SELECT 'quick'") == "quick"
        await asyncio.sleep(0.01)
    told = await answer(sleeper)
    assert told[-2:] == ["C COPY 30000", "Z I"]
    assert len(told) == 30_000 + 3
    await sleeper.close()
    await other.close()


@pytest.mark.parametrize("begin", [[Query(IN)], [*PREPARED_IN, Sync()]], ids=["simple", "extended"])
async def test_a_client_gone_while_copying_in(
    postgres: PostgresServer, proxied: PgsluiceProcess, begin: list[Query]
) -> None:
    for reset in False, True:
        client = await login(proxied)
        await client.send(*begin, CopyData(b"1\tone\n2\t"))
        await client.receive_until(backend.CopyInResponse)
        if reset:
            connection: socket.socket = client.writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.abort()
    await both_servers_serve(proxied)
    assert postgres.psql("SET lock_timeout = '10s'; LOCK TABLE goods; SELECT count(*) FROM goods") == "0"


async def test_a_client_gone_while_copying_out(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    postgres.psql("INSERT INTO goods SELECT i, repeat('y', 1000) FROM generate_series(1, 30000) i")
    for _ in range(3):
        client = await login(proxied)
        await client.send(Query(b"COPY goods TO STDOUT"))
        await client.expect(backend.CopyOutResponse)
        client.abort()
    await both_servers_serve(proxied)
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY goods TO%' AND state = 'active'"
    for _ in range(200):
        if postgres.psql(running) == "0":
            break
        await asyncio.sleep(0.05)
    assert postgres.psql(running) == "0"


async def both_servers_serve(proxied: PgsluiceProcess) -> None:
    heirs = [await login(proxied) for _ in range(2)]
    for heir in heirs:
        assert tell(await heir.query("BEGIN")) == ["C BEGIN", "Z T"]
    for heir in heirs:
        assert await heir.value("SELECT count(*) FROM goods WHERE a < 0") == "0"
        await heir.query("COMMIT")
        await heir.close()
