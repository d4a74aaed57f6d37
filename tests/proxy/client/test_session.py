"""A session between its client and the pool: when it has a server, and what it says by itself."""

import pytest
from support.dialogue import (
    COPY_DONE,
    FLUSH,
    SYNC,
    TERMINATE,
    bind,
    close,
    copy_data,
    copy_fail,
    execute,
    function_call,
    messages,
    one_shot,
    parse,
    query,
)
from support.relay import Stage

from proxy.server.handshake import FailureKind


@pytest.fixture
def stage() -> Stage:
    return Stage()


# --- having a server, and giving it back ----------------------------------------------------------------


def test_a_client_that_asks_nothing_has_no_server(stage: Stage) -> None:
    client = stage.client()
    assert client.session.server is None
    assert stage.backends == []


def test_a_query_is_relayed(stage: Stage) -> None:
    client = stage.client()
    client.sends(query("select 1"))
    assert stage.backend.asked() == ["Query select 1"]
    stage.backend.says("T D C Z")
    assert client.heard() == "T D C Z"
    assert client.session.server is None


def test_the_very_bytes_are_relayed(stage: Stage) -> None:
    client = stage.client()
    data = query("select 'ä'") + one_shot("select 2") + function_call() + query("")
    client.sends(data)
    assert stage.backend.link.take() == data


def test_a_server_serves_one_client_after_the_other(stage: Stage) -> None:
    for number in range(3):
        client = stage.client()
        client.sends(query(f"select {number}"))
        assert stage.backend.asked() == [f"Query select {number}"]
        stage.backend.says("C Z")
        assert client.heard() == "C Z"


def test_two_at_once_have_two_servers(stage: Stage) -> None:
    one, two = stage.client(), stage.client()
    one.sends(query("one"))
    two.sends(query("two"))
    first, second = stage.backends
    assert (first.asked(), second.asked()) == (["Query one"], ["Query two"])
    second.says("C:TWO Z")
    first.says("C:ONE Z")
    assert (one.heard(), two.heard()) == ("C Z", "C Z")


@pytest.mark.parametrize("status", ["T", "E"])
def test_a_transaction_keeps_its_server(stage: Stage, status: str) -> None:
    client, other = stage.client(), stage.client()
    client.sends(query("begin"))
    stage.backend.says(f"C Z:{status}")
    other.sends(query("other"))
    assert len(stage.backends) == 2
    client.sends(query("commit"))
    assert stage.backends[0].asked() == ["Query begin", "Query commit"]
    stage.backends[0].says("C Z")
    assert client.session.server is None


def test_in_session_mode_a_session_keeps_its_server() -> None:
    stage = Stage(session_mode=True)
    client = stage.client()
    for _ in range(2):
        client.sends(query("select 1"))
        stage.backend.says("C Z")
        assert client.session.server is stage.backend.connection


@pytest.mark.parametrize(
    "request_",
    [
        parse("", "select 1"),
        parse("s", "select 1"),
        bind(""),
        execute(),
        parse("", "x") + bind("") + execute(),
    ],
)
def test_without_sync_nothing_is_sent(stage: Stage, request_: bytes) -> None:
    client = stage.client()
    client.sends(request_)
    assert stage.backends == []
    client.sends(SYNC)
    assert len(stage.backend.asked()) >= 2


def test_what_is_flushed_is_sent_and_keeps_its_server(stage: Stage) -> None:
    client = stage.client()
    client.sends(parse("", "select 1") + FLUSH)
    assert stage.backend.asked() == ["Parse: select 1", "Flush"]
    stage.backend.says("1")
    assert client.heard() == "1"
    assert client.session.server is not None
    client.sends(bind("") + execute() + SYNC)
    assert stage.backend.asked() == ["Bind", "Execute", "Sync"]
    stage.backend.says("2 D C Z")
    assert (client.heard(), client.session.server) == ("2 D C Z", None)


def test_a_large_batch_is_sent_before_it_ends(stage: Stage) -> None:
    client = stage.client()
    for number in range(40):
        client.sends(parse("", f"select {number} -- {'x' * 2000}") + bind("") + execute())
    assert len(stage.backend.asked()) > 60
    client.sends(SYNC)
    stage.backend.asked()
    stage.backend.says("1 2 C " * 40 + "Z")
    assert client.heard().split().count("C") == 40
    assert client.session.server is None


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_messages_may_come_in_pieces(stage: Stage, cut: int) -> None:
    client = stage.client()
    data = one_shot("select 1") + one_shot("select 2") + query("select 3")
    for at in range(0, len(data), cut):
        client.sends(data[at : at + cut])
        for backend in stage.backends:
            taken = backend.link.take()
            answers = {ord("P"): "1", ord("B"): "2", ord("E"): "C", ord("S"): "Z", ord("Q"): "C Z"}
            backend.says(" ".join(answers[tag] for tag, _ in messages(taken)))
    assert client.heard() == "1 2 C Z 1 2 C Z C Z"


@pytest.mark.parametrize("tag", ["Q", "B"])
def test_a_message_longer_than_any_chunk_passes_in_parts(stage: Stage, tag: str) -> None:
    client = stage.client()
    sql = "select '" + "x" * 200_000 + "'"
    data = query(sql) if tag == "Q" else parse("", "select 1") + bind("") + b"" + execute() + SYNC
    if tag == "B":
        long_bind = b"B" + (4 + 2 + 2 + 2 + 4 + 200_000 + 2).to_bytes(4) + b"\0\0" + b"\0\0\0\1"
        long_bind += (200_000).to_bytes(4) + b"v" * 200_000 + b"\0\0"
        data = parse("", "select $1") + long_bind + execute() + SYNC
    for at in range(0, len(data), 65_536):
        client.sends(data[at : at + 65_536])
    assert stage.backend.link.take() == data
    stage.backend.says("C Z" if tag == "Q" else "1 2 C Z")
    assert client.session.server is None
    (record,) = stage.records()
    assert record.bytes_in == len(data) - len(SYNC) * (tag == "B")


# --- answered without a server --------------------------------------------------------------------------


def test_sync_alone_needs_no_server(stage: Stage) -> None:
    client = stage.client()
    client.sends(SYNC, FLUSH, SYNC)
    assert (client.heard(), stage.backends) == ("Z Z", [])


def test_closing_statements_needs_no_server(stage: Stage) -> None:
    client = stage.client()
    client.sends(parse("a", "select 1") + parse("b", "select 2") + SYNC)
    stage.backend.asked()
    stage.backend.says("1 1 Z")
    client.heard()
    client.sends(close("a") + close("b") + SYNC)
    assert (client.heard(), stage.backend.asked()) == ("3 3 Z", [])


@pytest.mark.parametrize(
    "data", [COPY_DONE, copy_fail(), copy_data(b"x" * 100), copy_data(b"x") + COPY_DONE, FLUSH]
)
def test_copy_data_without_a_copy_goes_nowhere(stage: Stage, data: bytes) -> None:
    client = stage.client()
    client.sends(data)
    assert (client.heard(), stage.backends) == ("", [])
    client.sends(query("select 1"))
    assert stage.backend.asked() == ["Query select 1"]


# --- waiting --------------------------------------------------------------------------------------------


def test_who_waits_gets_the_server_when_it_is_free() -> None:
    stage = Stage(size=1)
    client, other = stage.in_transaction(), stage.client()
    other.sends(query("other"))
    assert other.session.waiting
    client.sends(query("commit"))
    stage.backend.says("C Z")
    assert not other.session.waiting
    assert stage.backend.asked() == ["Query commit", "Query other"]
    stage.backend.says("C Z")
    assert other.heard() == "C Z"


def test_what_comes_while_waiting_is_read_afterwards() -> None:
    stage = Stage(size=1)
    client, other = stage.in_transaction(), stage.client()
    other.sends(query("one"))
    assert not other.link.paused
    other.sends(query("two") + query("three")[:3])
    assert other.link.paused
    other.sends(query("three")[3:])
    client.sends(query("commit"))
    stage.backend.says("C Z")
    assert not other.link.paused
    assert stage.backend.asked() == ["Query commit", "Query one", "Query two", "Query three"]
    stage.backend.says("C Z C Z C Z")
    assert (other.heard(), other.session.server) == ("C Z C Z C Z", None)


def test_waiting_is_measured() -> None:
    stage = Stage(size=1)
    client, other = stage.in_transaction(), stage.client()
    stage.records()
    other.sends(query("other"))
    other.session.waiting_since -= 5.0
    client.sends(query("commit"))
    stage.backend.says("C Z")
    stage.backend.says("C Z")
    commit, record = stage.records()
    assert commit.wait == 0.0
    assert record.wait >= 5.0


def test_who_waits_too_long_is_refused_and_lives_on() -> None:
    stage = Stage(size=1)
    stage.pool.wait_timeout = 0.0
    client, other = stage.in_transaction(), stage.client()
    other.sends(query("one"), query("two"), one_shot("three"))
    stage.loop.advance(1.0)
    assert other.heard() == "E:53300 Z E:53300 Z E:53300 Z"
    assert not other.gone
    assert [record.sqlstate for record in stage.records()][1:] == ["53300"] * 3
    client.sends(query("commit"))
    stage.backend.says("C Z")
    other.sends(query("again"))
    stage.backend.says("C Z")
    assert other.heard() == "C Z"


@pytest.mark.parametrize("sent", [parse("", "x") + FLUSH, query("a") + parse("", "x") + FLUSH])
def test_who_is_refused_in_the_middle_of_something_is_sent_away(sent: bytes) -> None:
    """The server would have gone on; there is no telling the client where it stands."""
    stage = Stage(size=1)
    stage.pool.wait_timeout = 0.0
    stage.in_transaction()
    other = stage.client()
    other.sends(sent)
    stage.loop.advance(1.0)
    assert other.heard() == "E:FATAL-53300"
    assert other.gone


def test_what_was_refused_has_not_happened() -> None:
    stage = Stage(size=1)
    stage.pool.wait_timeout = 0.0
    stage.in_transaction()
    other = stage.client()
    other.sends(parse("s", "select 1") + bind("s") + execute() + SYNC)
    stage.loop.advance(1.0)
    assert other.heard() == "E:53300 Z"
    assert other.session.statements.names() == []


def test_a_refusal_of_the_server_is_passed_on() -> None:
    stage = Stage(size=1)
    stage.primary.at_once = False
    client = stage.client()
    client.sends(query("select 1"))
    stage.primary.attempts[0].fail(FailureKind.REFUSED, "3D000", "no such database")
    assert client.heard() == "E:3D000 Z"


def test_who_leaves_the_line_is_not_missed() -> None:
    stage = Stage(size=1)
    client, leaver, other = stage.in_transaction(), stage.client(), stage.client()
    leaver.sends(query("never"))
    other.sends(query("other"))
    leaver.breaks_off()
    client.sends(query("commit"))
    stage.backend.says("C Z")
    assert stage.backend.asked() == ["Query commit", "Query other"]


def test_a_terminate_behind_what_waits_is_obeyed_afterwards() -> None:
    stage = Stage(size=1)
    client, other = stage.in_transaction(), stage.client()
    other.sends(query("other"))
    other.sends(TERMINATE)
    client.sends(query("commit"))
    stage.backend.says("C Z")
    assert not other.gone
    stage.backend.says("C Z")
    assert (other.heard(), other.gone) == ("C Z", True)


# --- back-pressure --------------------------------------------------------------------------------------


def test_a_client_that_does_not_read_stops_its_server(stage: Stage) -> None:
    client = stage.in_transaction()
    client.link.pause_writing()
    assert stage.backend.link.paused
    client.link.resume_writing()
    assert not stage.backend.link.paused


def test_a_server_that_does_not_read_stops_its_client(stage: Stage) -> None:
    client = stage.in_transaction()
    stage.backend.link.pause_writing()
    assert client.link.paused
    stage.backend.link.resume_writing()
    assert not client.link.paused


def test_a_server_is_given_back_readable(stage: Stage) -> None:
    client = stage.client()
    client.sends(query("select 1"))
    client.link.pause_writing()
    assert stage.backend.link.paused
    stage.backend.says("C Z")
    assert not stage.backend.link.paused
    other = stage.client()
    other.sends(query("select 2"))
    stage.backend.says("C Z")
    assert other.heard() == "C Z"


def test_a_client_that_still_does_not_read_stops_its_next_server(stage: Stage) -> None:
    client = stage.client()
    client.link.pause_writing()
    client.sends(query("select 1"))
    assert stage.backend.link.paused
    client.link.resume_writing()
    assert not stage.backend.link.paused


def test_a_client_is_not_read_while_its_new_server_is_choking() -> None:
    stage = Stage(size=1)
    client, other = stage.in_transaction(), stage.client()
    other.sends(query("one"))
    other.sends(query("two"))
    stage.backend.link.pause_writing()
    client.sends(query("commit"))
    stage.backend.says("C Z")
    assert other.link.paused
    stage.backend.link.resume_writing()
    assert not other.link.paused
