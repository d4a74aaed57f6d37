"""The bookkeeping of a session's names; `test_batch` shows it at work, with what is slipped in for it."""

import pytest

from protocol.messages.frontend import Parse
from protocol.pipeline import FORWARD, Reply
from proxy.client.prepared import SessionStatements, next_generation
from proxy.query.statements import Statement, StatementCatalog


@pytest.fixture
def statements() -> SessionStatements:
    return SessionStatements()


CATALOG = StatementCatalog()


def statement(sql: str) -> Statement:
    return CATALOG.find(Parse(b"", sql.encode()).encode()[6:])


def define(statements: SessionStatements, name: bytes, sql: str, segment: int = 1) -> Reply:
    """A Parse; the reply that is due to it."""
    reply = Reply(ord("P"), FORWARD, None)
    statements.define(reply, name, statement(sql), segment)
    return reply


def remove(statements: SessionStatements, name: bytes, segment: int = 1) -> Reply:
    """A Close; the reply that is due to it."""
    reply = Reply(ord("C"), FORWARD, None)
    statements.remove(reply, name, segment)
    return reply


def text(statements: SessionStatements, name: bytes) -> str | None:
    prepared = statements.get(name)
    return None if prepared is None or prepared.statement is None else prepared.statement.text().decode()


def test_generations_grow() -> None:
    numbers = [next_generation() for _ in range(3)]
    assert numbers == sorted(set(numbers))


def test_a_name_stands_for_what_was_parsed_last(statements: SessionStatements) -> None:
    first = define(statements, b"a", "select 1")
    second = define(statements, b"a", "select 2")
    assert (text(statements, b"a"), len(statements), statements.names()) == ("select 2", 1, [b"a"])
    assert second.generation > first.generation
    prepared = statements.get(b"a")
    assert prepared is not None
    assert prepared.generation == second.generation


def test_a_name_can_be_taken_away(statements: SessionStatements) -> None:
    define(statements, b"a", "select 1")
    remove(statements, b"a")
    remove(statements, b"b")
    assert (statements.get(b"a"), len(statements)) == (None, 0)


def test_a_request_is_told_what_it_refers_to(statements: SessionStatements) -> None:
    parse = define(statements, b"a", "select 1")
    bind = Reply(ord("B"), FORWARD, None)
    assert statements.refer(bind, b"a") is statement("select 1")
    assert (bind.statement, bind.generation) == (statement("select 1"), parse.generation)
    other = Reply(ord("B"), FORWARD, None)
    assert statements.refer(other, b"b") is None
    assert other.statement is None


# --- undoing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_parse_that_was_not_carried_out_leaves_no_name(
    statements: SessionStatements, carried_out: bool
) -> None:
    statements.undo(define(statements, b"a", "select 1"), carried_out)
    assert statements.names() == []


def test_a_close_that_was_not_carried_out_leaves_the_name(statements: SessionStatements) -> None:
    define(statements, b"a", "select 1")
    statements.undo(remove(statements, b"a"), False)
    assert text(statements, b"a") == "select 1"


def test_what_was_not_carried_out_is_undone_last_first(statements: SessionStatements) -> None:
    define(statements, b"a", "select 1")
    close, parse = remove(statements, b"a"), define(statements, b"a", "select 2")
    statements.undo(parse, False)
    statements.undo(close, False)
    assert text(statements, b"a") == "select 1"


def test_a_parse_that_fails_takes_the_unnamed_statement_away(statements: SessionStatements) -> None:
    """As PostgreSQL does it: the one before is dropped before the new one is looked at."""
    define(statements, b"", "select 1")
    statements.undo(define(statements, b"", "bad"), True)
    assert statements.get(b"") is None


def test_a_parse_that_was_dropped_leaves_the_unnamed_statement(statements: SessionStatements) -> None:
    define(statements, b"", "select 1")
    statements.undo(define(statements, b"", "select 2"), False)
    assert text(statements, b"") == "select 1"


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("name", [b"", b"a"])
def test_what_a_later_parse_has_noted_stays(
    statements: SessionStatements, name: bytes, carried_out: bool
) -> None:
    failed = define(statements, name, "bad", segment=1)
    define(statements, name, "select 1", segment=2)
    statements.undo(failed, carried_out)
    assert text(statements, name) == "select 1"


def test_other_requests_have_nothing_to_undo(statements: SessionStatements) -> None:
    define(statements, b"a", "select 1")
    bind = Reply(ord("B"), FORWARD, None)
    statements.refer(bind, b"a")
    statements.undo(bind, True)
    assert text(statements, b"a") == "select 1"


# --- certainty ------------------------------------------------------------------------------------------


def test_within_a_segment_names_are_certain(statements: SessionStatements) -> None:
    define(statements, b"a", "select 1", segment=1)
    assert statements.certain(b"a", 1)
    assert statements.certain(b"b", 1)


def test_a_later_segment_has_to_wait_for_a_name_that_changed(statements: SessionStatements) -> None:
    define(statements, b"a", "select 1", segment=1)
    remove(statements, b"b", segment=1)
    assert not statements.certain(b"a", 2)
    assert not statements.certain(b"b", 2)
    assert statements.certain(b"c", 2)
    statements.settled()
    assert statements.certain(b"a", 2)
    assert statements.certain(b"b", 2)


def test_dropping_all_makes_every_name_uncertain(statements: SessionStatements) -> None:
    define(statements, b"a", "select 1", segment=1)
    statements.settled()
    statements.removing_all(2)
    assert statements.certain(b"a", 2)
    assert not statements.certain(b"a", 3)
    assert not statements.certain(b"new", 3)
    statements.settled()
    assert statements.certain(b"a", 3)


def test_all_can_be_dropped_but_those_being_prepared(statements: SessionStatements) -> None:
    for name in (b"", b"a", b"b"):
        define(statements, name, "select 1")
    statements.dropped({b"b", None})
    # DEALLOCATE ALL leaves the unnamed statement alone.
    assert statements.names() == [b"", b"b"]
