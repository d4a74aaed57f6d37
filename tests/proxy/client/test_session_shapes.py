"""A session that was told what a statement returns is never answered something else.

The statement may be planned on another server after a change of the schema. A server of its own would refuse
to run it (0A000, "cached plan must not change result type"), and so does the proxy.
"""

import pytest
from support.dialogue import SYNC, bind, describe, describe_portal, execute, parse, query
from support.relay import Backend, Client, Stage


class Move:
    """A client that has prepared s on one server and meets another next; `told` what it was told of it."""

    def __init__(self, told: str = "t T") -> None:
        self.stage = Stage(size=2)
        pair = [self.stage.in_transaction() for _ in range(2)]
        for client, backend in zip(pair, self.stage.backends, strict=True):
            client.sends(query("commit"))
            backend.asked()
            backend.says("C Z")
        self.other, self.first = self.stage.backends
        self.client = self.stage.client()
        self.client.sends(parse("s", "select 1") + (describe("s") if told else b"") + SYNC)
        self.first.asked()
        self.first.says(f"1 {told} Z")
        self.client.heard()
        self.holder = self.stage.client()
        self.holder.sends(query("begin"))
        self.first.asked()
        self.first.says("C Z:T")

    def sends(self, *data: bytes) -> None:
        self.client.sends(*data)

    def goes_back(self) -> None:
        """Its first server is the one that is used next."""
        self.holder.sends(query("commit"))
        self.first.asked()
        self.first.says("C Z")


@pytest.fixture
def move() -> Move:
    return Move()


def asked(backend: Backend, *texts: str) -> None:
    assert backend.asked() == list(texts)


RUN = bind("s") + execute() + SYNC


def test_another_server_is_asked_what_the_statement_returns_there(move: Move) -> None:
    move.sends(RUN)
    asked(move.other, "Parse #1: select 1", "Describe #1", "Flush")
    move.other.says("1 t T")
    asked(move.other, "Bind #1", "Execute", "Sync")
    move.other.says("2 D C Z")
    assert (move.client.heard(), move.client.session.server) == ("2 D C Z", None)
    # Once is enough.
    move.sends(RUN)
    asked(move.other, "Bind #1", "Execute", "Sync")
    move.other.says("2 D C Z")


@pytest.mark.parametrize(
    "request_", [bind("s") + execute(), bind("s", "portal"), bind("s") + describe_portal()]
)
def test_if_it_returns_something_else_the_client_is_told(move: Move, request_: bytes) -> None:
    move.sends(request_ + SYNC)
    asked(move.other, "Parse #1: select 1", "Describe #1", "Flush")
    move.other.says("1 t n")
    # The server is made to fail, so that it skips to the Sync.
    assert move.other.asked()[0] == "Bind pgsluice_changed"
    move.other.says("E:26000 Z")
    assert (move.client.heard(), move.client.session.server) == ("E:0A000 Z", None)
    assert not move.other.link.closed


def test_the_failure_is_measured_as_what_the_client_was_told(move: Move) -> None:
    move.stage.records()
    move.sends(RUN)
    move.other.says("1 t n")
    move.other.says("E:26000 Z")
    assert [record.sqlstate for record in move.stage.records()] == ["0A000"]


def test_a_new_parse_accepts_what_there_is(move: Move) -> None:
    move.sends(RUN)
    move.other.says("1 t n")
    move.other.says("E:26000 Z")
    move.other.asked()
    move.client.heard()
    move.sends(parse("new", "select 1") + describe("new") + bind("new") + execute() + SYNC)
    asked(move.other, "Close #1", "Parse #1: select 1", "Describe #1", "Bind #1", "Execute", "Sync")
    move.other.says("3 1 t n 2 C Z")
    assert move.client.heard() == "1 t n 2 C Z"


def test_a_new_description_is_what_counts(move: Move) -> None:
    move.sends(describe("s") + SYNC)
    texts = move.other.asked()
    assert texts[:2] == ["Parse #1: select 1", "Describe #1"]
    if texts[-1] == "Flush":
        move.other.says("1 t T")
        move.other.says("t T Z")
    else:
        move.other.says("1 t T Z")
    move.other.asked()
    move.sends(RUN)
    asked(move.other, "Bind #1", "Execute", "Sync")


def test_who_was_told_nothing_is_not_held_up() -> None:
    move = Move(told="")
    move.sends(RUN)
    asked(move.other, "Parse #1: select 1", "Bind #1", "Execute", "Sync")
    move.other.says("1 2 D C Z")
    assert move.client.heard() == "2 D C Z"


def test_on_the_server_that_told_nothing_is_asked(move: Move) -> None:
    move.goes_back()
    move.sends(RUN)
    asked(move.first, "Bind #1", "Execute", "Sync")


def test_what_comes_before_goes_ahead(move: Move) -> None:
    move.sends(parse("", "select 2") + bind("") + execute() + RUN)
    asked(
        move.other,
        "Parse: select 2",
        "Bind",
        "Execute",
        "Parse #1: select 1",
        "Describe #1",
        "Flush",
    )
    move.other.says("1 2 D C 1 t T")
    asked(move.other, "Bind #1", "Execute", "Sync")
    move.other.says("2 D C Z")
    assert move.client.heard() == "1 2 D C 2 D C Z"


def test_what_comes_meanwhile_is_read_afterwards(move: Move) -> None:
    move.sends(RUN)
    move.sends(query("select 3") + query("select 4"))
    assert move.client.link.paused
    move.other.asked()
    move.other.says("1 t T")
    asked(move.other, "Bind #1", "Execute", "Sync", "Query select 3", "Query select 4")
    assert not move.client.link.paused
    move.other.says("2 C Z C Z C Z")
    assert (move.client.heard(), move.client.session.server) == ("2 C Z C Z C Z", None)


def test_a_later_segment_does_not_rely_on_what_was_parsed_on_the_way(move: Move) -> None:
    """An error before it could have dropped that Parse."""
    move.sends(RUN + RUN)
    move.other.asked()
    move.other.says("1 t T")
    texts = move.other.asked()
    assert texts == ["Bind #1", "Execute", "Sync", "Close #1", "Parse #1: select 1", "Describe #1", "Flush"]
    move.other.says("2 C Z 3 1 t T")
    asked(move.other, "Bind #1", "Execute", "Sync")
    move.other.says("2 C Z")
    assert (move.client.heard(), move.client.session.server) == ("2 C Z 2 C Z", None)


def test_a_statement_that_can_not_be_parsed_there_is_the_clients_error(move: Move) -> None:
    move.sends(RUN)
    move.other.says("E:42P01")
    texts = move.other.asked()
    assert texts[-1] == "Sync"
    move.other.says("Z")
    assert (move.client.heard(), move.client.session.server) == ("E:42P01 Z", None)


@pytest.mark.parametrize("how", [Client.breaks_off, Client.half_closes])
def test_a_client_may_leave_meanwhile(move: Move, how: object) -> None:
    move.sends(RUN)
    assert callable(how)
    how(move.client)
    if not move.client.gone:
        # (It has only said that it sends no more: what it asked is answered.)
        move.other.says("1 t T")
        move.other.says("2 C Z")
    assert move.client.gone
    assert move.other.link.closed or move.stage.pool.assignment.idle == 1


def test_a_server_may_be_lost_meanwhile(move: Move) -> None:
    move.sends(RUN)
    move.other.hangs_up()
    assert (move.client.heard(), move.client.gone) == ("E:FATAL-08006", True)


def test_in_a_failed_transaction_the_server_refuses_by_itself(move: Move) -> None:
    move.sends(query("begin"))
    move.other.says("C Z:T")
    move.sends(query("fail"))
    move.other.says("E:22012 Z:E")
    move.other.asked()
    move.sends(RUN)
    asked(move.other, "Parse #1: select 1", "Bind #1", "Execute", "Sync")
    move.other.says("E:25P02 Z:E")
    assert move.client.heard() == "C Z:T E:22012 Z:E E:25P02 Z:E"
