"""Prepared statements of the protocol through fewer servers than clients: told as by one's own server."""

import random
from collections.abc import Iterator

import pytest
from drivers.dialogue import Open, answer, ask, busy, close, describe, login, pid, run, same, say
from support.proxy import PgsluiceProcess

from protocol.messages.frontend import Bind, Describe, Execute, Flush, Parse, Query, Sync
from protocol.types import Target
from proxy.demo.embedded import PostgresServer

TWO = b"SELECT $1::int * 2 AS twice"


@pytest.fixture(scope="module")
def proxied(postgres: PostgresServer) -> Iterator[PgsluiceProcess]:
    """Two servers for all clients."""
    with PgsluiceProcess(postgres.url(), settings={"POOL_SIZE": "2"}) as process:
        yield process


@pytest.fixture(scope="module")
def forgetful(postgres: PostgresServer) -> Iterator[PgsluiceProcess]:
    """Two servers, on which no more than two statements may stay prepared."""
    settings = {"POOL_SIZE": "2", "SERVER__PREPARED_STATEMENTS": "2"}
    with PgsluiceProcess(postgres.url(), settings=settings) as process:
        yield process


# --- across servers ---------------------------------------------------------------------------------


async def test_equal_texts_share_one_statement_on_a_server(proxied: PgsluiceProcess) -> None:
    first, second = await login(proxied), await login(proxied)
    shared = Parse(b"mine", b"SELECT 'shared'", ())
    assert await ask(first, shared, *run(b"mine")) == ["1", "2", "D shared", "C SELECT 1", "Z I"]
    assert await ask(second, shared, *run(b"mine")) == ["1", "2", "D shared", "C SELECT 1", "Z I"]
    other = Parse(b"other", b"SELECT 'shared'", ())
    assert await ask(second, other, *run(b"other")) == ["1", "2", "D shared", "C SELECT 1", "Z I"]
    there = "SELECT count(*) FROM pg_prepared_statements WHERE statement = $$SELECT 'shared'$$"
    assert await first.value(there) == "1"
    await first.close()
    await second.close()


async def test_a_statement_follows_its_client_to_another_server(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    pids = []

    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        told = await ask(client, Parse(b"twice", TWO), describe(b"twice"), *run(b"twice", b"1"))
        pids.append(await pid(client))
        async with busy(occupant):
            told += await ask(client, *run(b"twice", b"2"))
            pids.append(await pid(client))
            told += await ask(client, describe(b"twice"))
        return told

    told = await same(story, postgres, proxied)
    assert told[-3:] == ["t 23", "T twice:23:0", "Z I"]
    direct, elsewhere = pids[:2], pids[2:]
    assert direct[0] == direct[1]
    assert elsewhere[0] != elsewhere[1]


async def test_the_unnamed_statement_follows_too(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        told = await ask(client, Parse(b"", TWO), describe(b""))
        told += await ask(occupant, Parse(b"", b"SELECT 'not yours'"), *run(b""))
        told += await ask(client, *run(b"", b"21"))
        async with busy(occupant):
            told += await ask(client, *run(b"", b"22"))
            told += await ask(client, describe(b""))
            told += await ask(client, *run(b"", b"23"), *run(b"", b"24"))
        told += await ask(occupant, *run(b""))  # a simple query has ended it
        return told

    told = await same(story, postgres, proxied)
    assert [line for line in told if line.startswith("D ")] == ["D not yours", "D 42", "D 44", "D 46", "D 48"]


async def test_nobody_meets_another_clients_unnamed_statement(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        victim, stranger = await open_client(), await open_client()
        told = await ask(victim, Parse(b"", b"SELECT 'secret'"), *run(b""))
        told += await ask(stranger, *run(b""))
        told += await ask(stranger, describe(b""))
        told += await ask(stranger, close(b""))
        told += await ask(stranger, *run(b""))
        told += await ask(victim, *run(b""))
        return told

    told = await same(story, postgres, proxied)
    assert told.count("D secret") == 2


async def test_texts_with_other_parameter_types_are_other_statements(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        first, second = await open_client(), await open_client()
        text = b"SELECT $1 AS given"
        told = await ask(first, Parse(b"s", text, (23,)), describe(b"s"), *run(b"s", b"7"))
        told += await ask(second, Parse(b"s", text, (25,)), describe(b"s"), *run(b"s", b"7"))
        told += await ask(first, describe(b"s"), *run(b"s", b"8"))
        return told

    await same(story, postgres, proxied)


async def test_names_may_be_anything(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    names = [b"x" * 500, b'"quoted"', b"with space", "größe".encode(), b"pgsluice_1", b"all"]

    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        told: list[str] = []
        for name in names:
            told += await ask(client, Parse(name, b"SELECT " + b"'%d'" % len(name)))
        async with busy(occupant):
            for name in names:
                told += await ask(client, describe(name), *run(name), close(name))
        return told

    await same(story, postgres, proxied)


async def test_no_more_statements_stay_on_a_server_than_wanted(forgetful: PgsluiceProcess) -> None:
    client = await login(forgetful)
    texts = [b"SELECT 'text %d'" % number for number in range(6)]
    for number, text in enumerate(texts):
        await ask(client, Parse(b"s%d" % number, text))
    for number in [0, 5, 1, 0, 4, 5, 3, 2]:
        told = await ask(client, *run(b"s%d" % number))
        assert told == ["2", f"D text {number}", "C SELECT 1", "Z I"]
        assert int(await client.value("SELECT count(*) FROM pg_prepared_statements") or 0) <= 2
    all_at_once = [part for number in range(6) for part in run(b"s%d" % number)]
    told = await ask(client, *all_at_once)
    assert [line for line in told if line.startswith("D")] == [f"D text {number}" for number in range(6)]
    await client.close()


async def test_many_clients_with_more_statements_than_servers_remember(forgetful: PgsluiceProcess) -> None:
    chance = random.Random(4711)
    clients = [await login(forgetful) for _ in range(6)]
    known: list[dict[bytes, int]] = [{} for _ in clients]
    inside: set[int] = set()
    for _ in range(400):
        who = chance.randrange(len(clients))
        if who not in inside and len(inside) == 2:
            who = chance.choice(sorted(inside))
        client, names = clients[who], known[who]
        name = b"n%d" % chance.randrange(4)
        deed = chance.random()
        if deed < 0.15:
            await client.query("COMMIT" if who in inside else "BEGIN")
            inside ^= {who}
        elif deed < 0.25:
            assert "3" in await ask(client, close(name))
            names.pop(name, None)
        elif name not in names:
            names[name] = chance.randrange(5)
            told = await ask(client, Parse(name, b"SELECT $1::int + %d" % names[name]))
            assert told[0] == "1"
        else:
            number = chance.randrange(1000)
            told = await ask(client, *run(name, b"%d" % number))
            assert told[:3] == ["2", f"D {number + names[name]}", "C SELECT 1"]
    for client in clients:
        await client.close()


# --- names ------------------------------------------------------------------------------------------


async def test_a_name_already_in_use(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        told = await ask(client, Parse(b"taken", b"SELECT 'first'"))
        told += await ask(client, Parse(b"taken", b"SELECT 'second'"), *run(b"taken"))
        told += await ask(client, *run(b"taken"))
        told += await ask(client, Parse(b"taken", b"SELECT 'first'"))  # the same text makes no difference
        told += await ask(client, Parse(b"taken", b"SELEC 'wrong'"))
        async with busy(occupant):
            told += await ask(client, Parse(b"taken", b"SELECT 'third'"))
            told += await ask(client, *run(b"taken"))
        told += await ask(client, Parse(b"new", b"SELECT 1"), Parse(b"new", b"SELECT 2"))
        told += await ask(client, *run(b"new"))
        await client.query("BEGIN")
        told += await ask(client, Parse(b"taken", b"SELECT 'fourth'"))
        told += await ask(client, Parse(b"taken", b"SELECT 'fifth'"))
        told += await say(client, "ROLLBACK")
        told += await ask(client, *run(b"taken"))
        told += await ask(occupant, Parse(b"taken", b"SELECT 'of another'"), *run(b"taken"))
        return told

    told = await same(story, postgres, proxied)
    assert told[2] == 'E ERROR 42P05 prepared statement "taken" already exists'


async def test_a_name_nobody_knows(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client, other = await open_client(), await open_client()
        told = await ask(other, Parse(b"elsewhere", b"SELECT 'secret'"))
        told += await ask(client, *run(b"elsewhere"))
        told += await ask(client, describe(b"elsewhere"))
        told += await ask(client, close(b"elsewhere"))
        told += await ask(client, Bind(b"", b"", (), (), ()))
        told += await ask(client, describe(b""))
        told += await ask(client, Describe(Target.PORTAL, b"no portal"))
        told += await ask(client, Execute(b"no portal"))
        told += await ask(client, Execute(b""))
        told += await ask(other, *run(b"elsewhere"))
        return told

    told = await same(story, postgres, proxied)
    assert told[2] == 'E ERROR 26000 prepared statement "elsewhere" does not exist'


async def test_a_closed_name_is_free_again(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        told = await ask(client, Parse(b"s", b"SELECT 'one'"), *run(b"s"))
        told += await ask(client, close(b"s"))
        told += await ask(client, *run(b"s"))
        told += await ask(client, Parse(b"s", b"SELECT 'two'"), *run(b"s"))
        async with busy(occupant):
            told += await ask(client, close(b"s"), Parse(b"s", b"SELECT 'three'"), *run(b"s"))
        told += await ask(client, *run(b"s"), close(b"s"), close(b"s"))
        told += await ask(client, close(b"s"), *run(b"s"))
        await client.query("BEGIN")
        told += await ask(client, Parse(b"s", b"SELECT 'four'"))
        told += await say(client, "SELECT 1/0")
        told += await ask(client, close(b"s"))
        told += await say(client, "ROLLBACK")
        told += await ask(client, *run(b"s"))
        return told

    await same(story, postgres, proxied)


async def test_close_with_flush(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        told = await ask(client, Parse(b"s", b"SELECT 'one'"))
        await client.send(close(b"s"), Flush())
        told += [chr((await client.receive()).TAG)]
        await client.send(*run(b"s"), Flush())
        told += [chr((await client.receive()).TAG)]
        told += await ask(client, Parse(b"s", b"SELECT 'two'"))  # skipped: the Sync comes behind it
        told += await ask(client, *run(b"s"))
        return told

    await same(story, postgres, proxied)


# --- failures ---------------------------------------------------------------------------------------


async def test_a_name_after_a_failed_parse(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        told = await ask(client, Parse(b"s", b"SELECT * FROM no_such_table"))
        told += await ask(client, *run(b"s"))
        told += await ask(client, Parse(b"s", b"SELECT 'good'"), *run(b"s"))
        told += await ask(client, close(b"s"), Parse(b"s", b"SELEC"))
        told += await ask(client, *run(b"s"))
        async with busy(occupant):
            told += await ask(client, Parse(b"s", b"SELECT 'better'"), *run(b"s"))
        told += await ask(client, Parse(b"", b"SELEC"), *run(b""))
        told += await ask(client, *run(b""))
        told += await ask(client, Parse(b"", b"SELECT 'unnamed'"), *run(b""))
        return told

    await same(story, postgres, proxied)


async def test_a_name_after_a_failed_parse_in_the_same_write(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        client = await open_client()
        await client.send(Parse(b"s", b"SELEC"), Sync(), Parse(b"s", b"SELECT 'good'"), *run(b"s"), Sync())
        told = await answer(client, 2)
        told += await ask(client, *run(b"s"))
        await client.send(
            Parse(b"t", b"SELEC"), Parse(b"u", b"SELECT 'dropped'"), Sync(), *run(b"u"), Sync(),
            Parse(b"u", b"SELECT 'kept'"), Sync(), *run(b"u"), Sync(),
        )  # fmt: skip
        told += await answer(client, 4)
        told += await ask(client, *run(b"t"))
        return told + await ask(client, *run(b"u"))

    await same(story, postgres, proxied)


async def test_what_an_error_skips_was_never_prepared_nor_closed(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        told = await ask(client, Parse(b"kept", b"SELECT 'kept'"))
        bad = Parse(b"", b"SELECT 1/0"), *run(b"")
        told += await ask(
            client, *bad, Parse(b"new", b"SELECT 'new'"), close(b"kept"), Parse(b"kept", b"SELECT 2")
        )
        told += await ask(client, *run(b"kept"))
        told += await ask(client, *run(b"new"))
        told += await ask(client, Parse(b"new", b"SELECT 'newer'"), *run(b"new"))
        async with busy(occupant):
            told += await ask(client, *bad, *run(b"new"), *run(b"kept"))
            told += await ask(client, *run(b"new"), *run(b"kept"))
        return told

    await same(story, postgres, proxied)


async def test_a_statement_first_needed_on_a_server_behind_an_error(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        told = await ask(client, Parse(b"s", b"SELECT 'moved with error'"))
        async with busy(occupant):
            await client.send(
                Parse(b"", b"SELEC"), *run(b"s"), Sync(), *run(b"s"), Sync(), *run(b"s"), Sync()
            )
            told += await answer(client, 3)
            told += await ask(client, *run(b"s"))
        return told

    told = await same(story, postgres, proxied)
    assert told.count("D moved with error") == 3


async def test_a_statement_whose_table_is_gone(postgres: PostgresServer, proxied: PgsluiceProcess) -> None:
    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        await client.query("CREATE TABLE passing (a int); INSERT INTO passing VALUES (1)")
        told = await ask(client, Parse(b"s", b"SELECT * FROM passing"), *run(b"s"))
        await client.query("DROP TABLE passing")
        told += await ask(client, *run(b"s"))
        async with busy(occupant):
            told += await ask(client, *run(b"s"))
            told += await ask(client, *run(b"s"))
        await client.query("CREATE TABLE passing (a int); INSERT INTO passing VALUES (2)")
        told += await ask(client, *run(b"s"))
        async with busy(occupant):
            told += await ask(client, *run(b"s"))
        await client.query("DROP TABLE passing")
        return told

    await same(story, postgres, proxied)


# --- DDL between ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"", b"s"], ids=["unnamed", "named"])
async def test_a_fresh_parse_after_ddl_is_planned_afresh_on_every_server(
    postgres: PostgresServer, proxied: PgsluiceProcess, name: bytes
) -> None:
    async def story(open_client: Open) -> list[str]:
        client, other, occupant = await open_client(), await open_client(), await open_client()
        await client.query("DROP TABLE IF EXISTS growing; CREATE TABLE growing (a int)")
        await client.query("INSERT INTO growing VALUES (1)")
        parse = Parse(name, b"SELECT * FROM growing")
        told = []
        for each in client, other:
            told += await ask(each, parse, describe(name), *run(name))
            async with busy(occupant):
                told += await ask(each, parse if not name else describe(name), *run(name))
        await client.query("ALTER TABLE growing ADD COLUMN b text DEFAULT 'new'")
        fresh = (close(name), parse) if name else (parse,)
        told += await ask(client, *fresh)
        async with busy(occupant):
            told += await ask(client, describe(name), *run(name))
            told += await ask(other, *fresh, describe(name), *run(name))
        told += await ask(client, describe(name), *run(name))
        told += await ask(other, describe(name), *run(name))
        late = await open_client()
        told += await ask(late, parse, describe(name), *run(name))
        async with busy(occupant):
            told += await ask(late, describe(name), *run(name))
        await client.query("DROP TABLE growing")
        return told

    told = await same(story, postgres, proxied)
    assert not [line for line in told if line.startswith("E")]
    assert told.count("D 1|new") == 6


async def test_a_parse_from_before_ddl_meets_what_a_server_says(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        client, other, occupant = await open_client(), await open_client(), await open_client()
        await client.query("DROP TABLE IF EXISTS widening; CREATE TABLE widening (a int)")
        await client.query("INSERT INTO widening VALUES (1)")
        parse = Parse(b"s", b"SELECT * FROM widening")
        told = await ask(client, parse, describe(b"s"), *run(b"s"))
        told += await ask(other, parse, describe(b"s"), *run(b"s"))
        await client.query("ALTER TABLE widening ADD COLUMN b text DEFAULT 'new'")
        told += await ask(other, close(b"s"), parse, describe(b"s"), *run(b"s"))
        told += await ask(client, *run(b"s"))  # it has never heard of column b
        async with busy(occupant):
            told += await ask(client, *run(b"s"))
            told += await ask(other, *run(b"s"))
        told += await ask(client, close(b"s"), parse, *run(b"s"))
        await client.query("DROP TABLE widening")
        return told

    told = await same(story, postgres, proxied)
    assert sum("cached plan must not change result type" in line for line in told) == 2


async def test_a_statement_that_lives_through_harmless_ddl(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        await client.query("DROP TABLE IF EXISTS steady; CREATE TABLE steady (a int, b int)")
        await client.query("INSERT INTO steady VALUES (1, 2)")
        told = await ask(client, Parse(b"s", b"SELECT a FROM steady"), describe(b"s"), *run(b"s"))
        await client.query("ALTER TABLE steady DROP COLUMN b")
        told += await ask(client, *run(b"s"))
        async with busy(occupant):
            told += await ask(client, *run(b"s"))
        await client.query("DROP TABLE steady")
        return told

    await same(story, postgres, proxied)


# --- dropped by SQL ---------------------------------------------------------------------------------


async def test_deallocate_of_a_protocol_level_statement(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        client, other, occupant = await open_client(), await open_client(), await open_client()
        told = []
        for each in client, other:
            told += await ask(each, Parse(b"s", b"SELECT 'stays'"), *run(b"s"))
        told += await say(client, "DEALLOCATE s")
        told += await ask(client, *run(b"s"))
        told += await ask(other, *run(b"s"))
        told += await say(client, "DEALLOCATE s")
        told += await ask(client, Parse(b"s", b"SELECT 'again'"), *run(b"s"))
        async with busy(occupant):
            told += await say(client, "deallocate prepare S ;")
            told += await ask(client, *run(b"s"))
        told += await ask(client, Parse(b"With Space", b"SELECT 'again'"))
        told += await say(client, 'DEALLOCATE "With Space"')
        told += await say(client, 'DEALLOCATE "With Space"')
        told += await say(other, "BEGIN")
        told += await say(other, "DEALLOCATE s")
        told += await say(other, "ROLLBACK")
        told += await ask(other, *run(b"s"))
        return told

    await same(story, postgres, proxied)


async def test_deallocate_in_the_extended_protocol(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        told = await ask(client, Parse(b"s", b"SELECT 'extended'"), *run(b"s"))
        async with busy(occupant):
            told += await ask(client, Parse(b"", b"DEALLOCATE s"), describe(b""), *run(b""))
        told += await ask(client, *run(b"s"))
        told += await ask(client, Parse(b"s", b"SELECT 'again'"), *run(b"s"))
        return told

    await same(story, postgres, proxied)


@pytest.mark.parametrize(
    "drop", ["DEALLOCATE ALL", "DISCARD ALL", "deallocate prepare all;", "SELECT 1; DEALLOCATE ALL"]
)
async def test_statements_dropped_all_at_once(
    postgres: PostgresServer, proxied: PgsluiceProcess, drop: str
) -> None:
    async def story(open_client: Open) -> list[str]:
        client, other, occupant = await open_client(), await open_client(), await open_client()
        told = []
        for each in client, other:
            told += await ask(each, Parse(b"s", b"SELECT 'still there'"), *run(b"s"))
        told += await say(client, drop)
        told += await ask(client, *run(b"s"))
        told += await ask(other, *run(b"s"))
        async with busy(occupant):
            told += await ask(client, *run(b"s"))
            told += await ask(other, *run(b"s"))
        told += await ask(client, Parse(b"s", b"SELECT 'afterwards'"), *run(b"s"))
        if drop != "DISCARD ALL":
            told += await say(client, "BEGIN")
            told += await say(client, drop)
            told += await ask(client, *run(b"s"))
            told += await say(client, "ROLLBACK")
        return told

    await same(story, postgres, proxied)


async def test_statements_prepared_in_the_same_write_behind_deallocate_all(
    postgres: PostgresServer, proxied: PgsluiceProcess
) -> None:
    async def story(open_client: Open) -> list[str]:
        client, occupant = await open_client(), await open_client()
        told = await ask(client, Parse(b"s", b"SELECT 'before'"), *run(b"s"))
        behind = Parse(b"s", b"SELECT 'behind'"), *run(b"s")
        await client.send(Query(b"DEALLOCATE ALL"), *behind, Sync())
        told += await answer(client, 2)
        told += await ask(client, *run(b"s"))
        async with busy(occupant):
            told += await ask(client, *run(b"s"))
        told += await ask(
            client, Parse(b"", b"DEALLOCATE ALL"), *run(b""), Parse(b"t", b"SELECT 't'"), *run(b"t")
        )
        told += await ask(client, *run(b"t"))
        told += await ask(client, *run(b"s"))
        return told

    await same(story, postgres, proxied)
