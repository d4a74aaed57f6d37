"""How sessions end: by the client's will, by the server's, by the proxy's, or by accident."""

from collections.abc import Callable

import pytest
from support.dialogue import (
    FLUSH,
    SYNC,
    TERMINATE,
    bind,
    copy_data,
    execute,
    messages,
    one_shot,
    parse,
    query,
    say,
)
from support.relay import Client, Stage

from protocol.messages.backend import ErrorResponse


@pytest.fixture
def stage() -> Stage:
    return Stage()


# --- ends -----------------------------------------------------------------------------------------------


def test_terminate_ends_the_session(stage: Stage) -> None:
    client = stage.client()
    client.sends(TERMINATE)
    assert client.gone
    assert stage.pool.sessions == 0


@pytest.mark.parametrize("behind", [b"", b"garbage"])
def test_what_was_asked_before_terminate_is_answered(stage: Stage, behind: bytes) -> None:
    client = stage.client()
    client.sends(query("one"), one_shot("two"), TERMINATE, behind)
    assert stage.backend.asked() == ["Query one", "Parse: two", "Bind", "Execute", "Sync"]
    stage.backend.says("C Z")
    assert not client.gone
    stage.backend.says("1 2 C Z")
    assert (client.heard(), client.gone) == ("C Z 1 2 C Z", True)
    assert stage.pool.assignment.idle == 1


def test_a_client_that_half_closes_is_answered(stage: Stage) -> None:
    client = stage.client()
    client.sends(query("one"))
    client.half_closes()
    assert not client.gone
    stage.backend.says("C Z")
    assert (client.heard(), client.gone) == ("C Z", True)


@pytest.mark.parametrize(
    "unfinished",
    [parse("", "x"), parse("", "x") + bind("") + execute(), query("x")[:4], copy_data(b"x"), b""],
)
@pytest.mark.parametrize(
    "how", [Client.half_closes, Client.breaks_off, lambda client: client.sends(TERMINATE)]
)
def test_an_idle_client_may_leave_in_any_way(
    stage: Stage, unfinished: bytes, how: Callable[[Client], None]
) -> None:
    client = stage.client()
    client.sends(query("select 1"))
    stage.backend.asked()
    stage.backend.says("C Z")
    client.sends(unfinished)
    if not unfinished.startswith(b"Q"):
        how(client)
        assert client.gone
    else:
        client.half_closes()
        assert client.gone
    assert stage.backend.asked() == []
    assert (stage.pool.assignment.idle, stage.pool.sessions) == (1, 0)


@pytest.mark.parametrize(
    "how", [Client.half_closes, Client.breaks_off, lambda client: client.sends(TERMINATE)]
)
def test_a_transaction_that_is_left_is_rolled_back(stage: Stage, how: Callable[[Client], None]) -> None:
    client = stage.in_transaction()
    how(client)
    assert client.gone
    assert stage.backend.asked() == ["Query ROLLBACK"]
    assert stage.pool.assignment.idle == 0
    stage.backend.says("C:ROLLBACK Z")
    assert stage.pool.assignment.idle == 1


@pytest.mark.parametrize(
    "how", [Client.half_closes, Client.breaks_off, lambda client: client.sends(TERMINATE)]
)
def test_unfinished_work_that_is_left_costs_the_server(stage: Stage, how: Callable[[Client], None]) -> None:
    client = stage.client()
    client.sends(parse("", "select 1") + FLUSH)
    backend = stage.backend
    backend.says("1")
    how(client)
    assert client.gone
    assert backend.link.closed
    assert stage.pool.assignment.total == 0


def test_a_client_that_breaks_off_has_its_query_cancelled(stage: Stage) -> None:
    client = stage.client()
    client.sends(query("select pg_sleep(1000)"))
    server = stage.backend.connection
    client.breaks_off()
    assert stage.primary.cancelled == [server]
    assert stage.backend.link.closed


def test_a_lost_server_takes_its_client_along(stage: Stage) -> None:
    client = stage.in_transaction()
    stage.backend.hangs_up()
    assert (client.heard(), client.gone) == ("E:FATAL-08006", True)
    assert stage.pool.assignment.total == 0


def test_a_server_that_says_why_it_goes_is_quoted(stage: Stage) -> None:
    client = stage.in_transaction()
    stage.backend.says("E:FATAL-57P01")
    stage.backend.hangs_up()
    assert (client.heard(), client.gone) == ("E:FATAL-57P01", True)


def test_a_server_lost_in_the_middle_of_a_row_leaves_it_at_that(stage: Stage) -> None:
    client = stage.client()
    client.sends(query("select 1"))
    stage.backend.sends(say("T") + say("D:abcdefg")[:9])
    stage.backend.hangs_up()
    assert client.link.take() == say("T") + say("D:abcdefg")[:9]
    assert client.gone


@pytest.mark.parametrize("where", [5, 9])
def test_a_session_ended_in_the_middle_of_a_row_leaves_it_at_that(stage: Stage, where: int) -> None:
    """Whatever came behind half a message would be read as its rest."""
    client = stage.client()
    client.sends(query("select 1"))
    stage.backend.sends(say("T") + say("D:abcdefg")[:where])
    client.session.terminate("57P01", "terminating connection due to administrator command")
    stage.loop.run()
    told = client.link.take()
    if where == 9:
        assert told == say("T") + say("D:abcdefg")[:where]
    assert client.gone


def test_a_server_lost_while_idle_is_nobodys_loss(stage: Stage) -> None:
    client = stage.client()
    client.sends(query("one"))
    stage.backend.says("C Z")
    first = stage.backend
    first.link.break_off()
    client.sends(query("two"))
    second = stage.backends[1]
    assert second.asked() == ["Query two"]
    second.says("C Z")
    assert (client.heard(), client.gone) == ("C Z C Z", False)


def test_a_server_that_gives_up_while_idle_is_nobodys_loss(stage: Stage) -> None:
    client = stage.client()
    client.sends(query("one"))
    stage.backend.says("C Z")
    stage.backend.says("E:FATAL-57P01")
    client.sends(query("two"))
    stage.backends[1].says("C Z")
    assert (client.heard(), client.gone) == ("C Z C Z", False)


def test_a_session_can_be_ended_from_outside(stage: Stage) -> None:
    client = stage.client()
    client.session.terminate("57P01", "terminating connection due to administrator command")
    stage.loop.run()
    assert (client.heard(), client.gone) == ("E:FATAL-57P01", True)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"Q\0\0\0\0", b"p\0\0\0\5\0", b"S\0\1\0\0"])
def test_what_is_not_the_protocol_ends_the_session(stage: Stage, data: bytes) -> None:
    client = stage.client()
    client.sends(data)
    assert (client.heard(), client.gone) == ("E:FATAL-08P01", True)
    assert len(stage.violations) == 1


def test_a_violation_in_a_transaction_rolls_it_back(stage: Stage) -> None:
    client = stage.in_transaction()
    client.sends(b"?????")
    assert (client.heard(), client.gone) == ("E:FATAL-08P01", True)
    assert stage.backend.asked() == ["Query ROLLBACK"]


@pytest.mark.parametrize(
    "malformed",
    [
        b"D\0\0\0\4",
        b"C\0\0\0\4",
        b"D\0\0\0\5S",
        b"B\0\0\0\4",
        b"B\0\0\0\6ab",
        b"E\0\0\0\4",
        b"P\0\0\0\4",
        b"P\0\0\0\7a\0b",
        b"Q\0\0\0\4",
        b"Q\0\0\0\6ab",
        b"S\0\0\0\5x",
    ],
)
def test_malformed_messages_are_the_servers_to_refuse(stage: Stage, malformed: bytes) -> None:
    client = stage.client()
    client.sends(malformed + SYNC)
    assert stage.backend.link.take() == malformed + SYNC
    stage.backend.says("E:08P01 Z Z" if malformed[0] in b"SQ" else "E:08P01 Z")
    assert client.heard() == ("E:08P01 Z Z" if malformed[0] in b"SQ" else "E:08P01 Z")
    assert not client.gone
    client.sends(query("select 1"))
    stage.backend.says("C Z")
    assert client.heard() == "C Z"


def test_an_error_is_what_a_driver_expects(stage: Stage) -> None:
    client = stage.client()
    client.session.terminate("57P01", "going")
    ((tag, body),) = messages(client.link.take())
    error = ErrorResponse.decode(body)
    assert (tag, error.severity, error.sqlstate, error.message) == (ord("E"), "FATAL", "57P01", "going")


def test_a_session_can_be_read_in_a_log(stage: Stage) -> None:
    assert repr(stage.client().session) == "<Session user@database client>"
