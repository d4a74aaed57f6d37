"""What is measured of the statements that clients send."""

import pytest
from support.dialogue import SYNC, bind, execute, one_shot, parse, query
from support.relay import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage(size=1)


def test_statements_are_measured_by_their_shape(stage: Stage) -> None:
    client = stage.client()
    client.sends(parse("s", "select 1 where 2 = $1") + SYNC)
    stage.backend.says("1 Z")
    client.sends(bind("s") + execute() + SYNC + one_shot("select 3") + query("select 4"))
    stage.backend.says("2 D C Z 1 2 D C Z T D C Z")
    shapes = [(record.fingerprint.text, record.rows) for record in stage.records()]
    assert shapes == [("select ? where ? = ?", 1), ("select ?", 1), ("select ?", 1)]


def test_a_portal_is_measured_as_its_statement(stage: Stage) -> None:
    client = stage.client()
    client.sends(query("begin"))
    stage.backend.says("C Z:T")
    client.sends(parse("", "select 1") + bind("", "p") + execute("p") + parse("", "select 2, 3") + SYNC)
    stage.backend.says("1 2 s 1 Z:T")
    client.sends(execute("p") + SYNC)
    stage.backend.says("C Z:T")
    assert [record.fingerprint.text for record in stage.records()] == ["begin", "select ?", "select ?"]


def test_a_statement_knows_whether_it_was_in_a_transaction(stage: Stage) -> None:
    client = stage.client()
    for sql, status in (("begin", "T"), ("select 1", "T"), ("commit", "I"), ("select 2", "I")):
        client.sends(query(sql))
        stage.backend.says(f"C Z:{status}")
    assert [record.in_transaction for record in stage.records()] == [False, True, True, False]


def test_bytes_are_counted_once(stage: Stage) -> None:
    client = stage.client()
    first, second = one_shot("select 1"), query("select 2")
    client.sends(first[:10])
    client.sends(first[10:] + second)
    stage.backend.says("1 2 D C Z T D C Z")
    assert sum(record.bytes_in for record in stage.records()) == len(first + second)
