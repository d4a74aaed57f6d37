"""Statement names: a session's own on the client's side, the proxy's on the servers.

The servers show the proxy's names as #1, #2 … in the order of the texts' first sight.
"""

import pytest
from support.dialogue import (
    FLUSH,
    SYNC,
    bind,
    close,
    close_portal,
    describe,
    describe_portal,
    execute,
    one_shot,
    parse,
    query,
)
from support.relay import Backend, Client, Stage


@pytest.fixture
def stage() -> Stage:
    return Stage(size=1)


def prepared(stage: Stage, name: str, sql: str) -> Client:
    """A client that has prepared a statement."""
    client = stage.client()
    prepares(stage, client, name, sql)
    return client


def prepares(stage: Stage, client: Client, name: str, sql: str) -> None:
    client.sends(parse(name, sql) + SYNC)
    backend = busiest(stage)
    skipped = "3 " * sum(text.startswith("Close") for text in backend.asked())
    backend.says(f"{skipped}1 Z")
    assert client.heard() == "1 Z"


def busiest(stage: Stage) -> Backend:
    """The server that has been asked something."""
    (backend,) = (backend for backend in stage.backends if backend.link.written)
    return backend


def two_servers() -> tuple[Stage, Backend, Backend]:
    """A pool with two idle servers, the second of which is used next."""
    stage = Stage(size=2)
    one, two = stage.in_transaction(), stage.in_transaction()
    for client, backend in zip((one, two), stage.backends, strict=True):
        client.sends(query("commit"))
        backend.asked()
        backend.says("C Z")
    return stage, *stage.backends


def hold(stage: Stage, backend: Backend) -> Client:
    """A client that takes the server used last, so that the next client gets another."""
    client = stage.client()
    client.sends(query("begin"))
    assert backend.asked() == ["Query begin"]
    backend.says("C Z:T")
    return client


# --- named statements -----------------------------------------------------------------------------------


def test_a_statement_has_another_name_on_the_server(stage: Stage) -> None:
    client = stage.client()
    client.sends(parse("mine", "select 1") + describe("mine") + bind("mine") + execute() + SYNC)
    assert stage.backend.asked() == ["Parse #1: select 1", "Describe #1", "Bind #1", "Execute", "Sync"]
    stage.backend.says("1 t T 2 D C Z")
    assert client.heard() == "1 t T 2 D C Z"


def test_only_the_name_changes(stage: Stage) -> None:
    client = prepared(stage, "mine", "select 1")
    portal = bind("mine", "portal") + execute("portal") + close_portal("portal")
    client.sends(portal + describe_portal() + SYNC)
    assert stage.backend.asked() == [
        "Bind #1 as portal",
        "Execute portal",
        "Close portal portal",
        "Describe portal",
        "Sync",
    ]


def test_equal_texts_share_a_statement(stage: Stage) -> None:
    one = prepared(stage, "a", "select 1")
    two = prepared(stage, "b", "select 1")
    for client, name in ((one, "a"), (two, "b")):
        client.sends(bind(name) + execute() + SYNC)
        assert stage.backend.asked() == ["Bind #1", "Execute", "Sync"]
        stage.backend.says("2 C Z")
    assert stage.backend.statements == ["#1"]


def test_a_name_means_each_sessions_own_statement(stage: Stage) -> None:
    one = prepared(stage, "s", "select 1")
    two = prepared(stage, "s", "select 2")
    for client, name in ((one, "#1"), (two, "#2"), (one, "#1")):
        client.sends(bind("s") + execute() + SYNC)
        assert stage.backend.asked() == [f"Bind {name}", "Execute", "Sync"]
        stage.backend.says("2 C Z")


def test_a_clients_own_parse_is_planned_anew(stage: Stage) -> None:
    prepared(stage, "a", "select 1")
    client = stage.client()
    client.sends(parse("b", "select 1") + SYNC)
    assert stage.backend.asked() == ["Close #1", "Parse #1: select 1", "Sync"]
    stage.backend.says("3 1 Z")
    assert client.heard() == "1 Z"


@pytest.mark.parametrize("request_", ["Bind", "Describe"])
def test_a_statement_that_is_missing_is_parsed_on_the_way(request_: str) -> None:
    stage, first, second = two_servers()
    client = prepared(stage, "s", "select 1")
    hold(stage, second)
    client.sends((bind("s") + execute() if request_ == "Bind" else describe("s")) + SYNC)
    if request_ == "Bind":
        assert first.asked() == ["Parse #1: select 1", "Bind #1", "Execute", "Sync"]
        first.says("1 2 D C Z")
        assert client.heard() == "2 D C Z"
    else:
        assert first.asked() == ["Parse #1: select 1", "Describe #1", "Sync"]
        first.says("1 t T Z")
        assert client.heard() == "t T Z"
    assert first.statements == ["#1"]


def test_a_statement_older_than_the_clients_parse_is_not_used_for_it() -> None:
    """It may have been planned before a change of the schema that the client knows of."""
    stage, first, second = two_servers()
    prepared(stage, "old", "select 1")
    holder = hold(stage, second)
    new = prepared(stage, "new", "select 1")
    assert first.statements == second.statements == ["#1"]
    hold(stage, first)
    holder.sends(query("commit"))
    second.asked()
    second.says("C Z")
    new.sends(bind("new") + execute() + SYNC)
    assert second.asked() == ["Close #1", "Parse #1: select 1", "Bind #1", "Execute", "Sync"]
    second.says("3 1 2 C Z")
    assert new.heard() == "2 C Z"


def test_a_parse_that_meets_an_error_is_the_clients_error() -> None:
    stage, first, second = two_servers()
    client = prepared(stage, "s", "select 1")
    hold(stage, second)
    client.sends(bind("s") + execute() + SYNC)
    first.says("E:42P01 Z")
    assert client.heard() == "E:42P01 Z"
    assert [record.sqlstate for record in stage.records()][-1] == "42P01"
    client.sends(bind("s") + execute() + SYNC)
    assert first.asked()[-4:] == ["Parse #1: select 1", "Bind #1", "Execute", "Sync"]
    first.says("3 1 2 C Z" if first.statements else "1 2 C Z")


def test_a_name_that_nobody_knows_is_the_servers_to_refuse(stage: Stage) -> None:
    client = stage.client()
    client.sends(bind("nobody's") + execute() + SYNC)
    assert stage.backend.asked() == ["Bind nobody's", "Execute", "Sync"]
    stage.backend.says("E:26000 Z")
    assert client.heard() == "E:26000 Z"


def test_a_clients_name_is_never_taken_for_one_of_ours(stage: Stage) -> None:
    client = prepared(stage, "s", "select 1")
    ours = stage.backend.connection.statements.names()[0].decode()
    client.sends(bind(ours) + execute() + SYNC)
    stage.backend.says("E:26000 Z")
    assert client.heard() == "E:26000 Z" or "#1" not in stage.backend.asked()


def test_a_parse_for_a_name_in_use_is_the_servers_to_refuse(stage: Stage) -> None:
    client = prepared(stage, "s", "select 1")
    client.sends(parse("s", "select 2") + SYNC)
    texts = stage.backend.asked()
    assert [text for text in texts if text.startswith("Parse")] == ["Parse s:", "Parse s: select 2"]
    stage.backend.says("3 " * sum(text.startswith("Close") for text in texts) + "1 E:42P05 Z")
    assert client.heard() == "E:42P05 Z"
    assert client.session.statements.names() == [b"s"]
    # The name is the client's own on this server now: nobody else is to meet it.
    assert stage.backend.link.closed


def test_the_statement_used_longest_ago_gives_way() -> None:
    stage = Stage(size=1, prepared=2)
    client = stage.client()
    for number in (1, 2):
        prepares(stage, client, f"s{number}", f"select {number}")
    client.sends(bind("s1") + execute() + SYNC)
    stage.backend.asked()
    stage.backend.says("2 C Z")
    client.heard()
    client.sends(parse("s3", "select 3") + SYNC)
    texts = stage.backend.asked()
    assert sorted(texts) == ["Close #2", "Parse #3: select 3", "Sync"]
    stage.backend.says("3 1 Z" if texts[0].startswith("Close") else "1 3 Z")
    assert (client.heard(), sorted(stage.backend.statements)) == ("1 Z", ["#1", "#3"])
    client.sends(bind("s2") + execute() + SYNC)
    texts = stage.backend.asked()
    assert "Parse #2: select 2" in texts
    assert texts.index("Parse #2: select 2") < texts.index("Bind #2")
    assert "Close #1" in texts


# --- closing --------------------------------------------------------------------------------------------


def test_closing_is_the_proxys_own_affair(stage: Stage) -> None:
    client = prepared(stage, "s", "select 1")
    client.sends(query("begin"))
    stage.backend.says("C Z:T")
    stage.backend.asked()
    client.heard()
    client.sends(bind("s") + execute() + close("s") + SYNC)
    assert stage.backend.asked() == ["Bind #1", "Execute", "Sync"]
    stage.backend.says("2 D C Z:T")
    assert client.heard() == "2 D C 3 Z:T"
    assert stage.backend.statements == ["#1"]


def test_a_closed_name_is_free(stage: Stage) -> None:
    client = prepared(stage, "s", "select 1")
    client.sends(close("s") + parse("s", "select 2") + bind("s") + execute() + SYNC)
    assert stage.backend.asked() == ["Parse #2: select 2", "Bind #2", "Execute", "Sync"]
    stage.backend.says("1 2 C Z")
    assert client.heard() == "3 1 2 C Z"


def test_closing_what_does_not_exist_is_the_servers_to_answer(stage: Stage) -> None:
    client = stage.client()
    client.sends(close("nothing") + SYNC)
    assert stage.backend.asked() == ["Close nothing", "Sync"]
    stage.backend.says("3 Z")
    assert client.heard() == "3 Z"


@pytest.mark.parametrize("text", ["DEALLOCATE s", 'deallocate prepare "s";'])
@pytest.mark.parametrize("extended", [False, True])
def test_deallocate_of_an_own_statement(stage: Stage, text: str, extended: bool) -> None:
    client = prepared(stage, "s", "select 1")
    client.sends(one_shot(text) if extended else query(text))
    texts = stage.backend.asked()
    assert texts[0] == "Parse #gone:"
    assert ("Parse: DEALLOCATE #gone" if extended else "Query DEALLOCATE #gone") in texts
    synced = "Z " * (texts[1] == "Sync")
    stage.backend.says(f"1 {synced}" + ("1 2 C:DEALLOCATE Z" if extended else "C:DEALLOCATE Z"))
    assert client.heard() == ("1 2 C Z" if extended else "C Z")
    assert client.session.statements.names() == ([b""] if extended else [])
    client.sends(bind("s") + SYNC)
    assert stage.backend.asked() == ["Bind s", "Sync"]


def test_deallocate_of_another_name_is_the_servers_to_answer(stage: Stage) -> None:
    client = stage.client()
    client.sends(query("DEALLOCATE nothing"))
    assert stage.backend.asked() == ["Query DEALLOCATE nothing"]


@pytest.mark.parametrize("command", ["DEALLOCATE ALL", "DISCARD ALL"])
def test_all_can_be_dropped(stage: Stage, command: str) -> None:
    other = prepared(stage, "o", "select 2")
    client = prepared(stage, "s", "select 1")
    client.sends(query(command))
    stage.backend.says(f"C:{command.replace(' ', '-')} Z")
    assert (client.session.statements.names(), stage.backend.statements) == ([], [])
    # The other session's statement is parsed again when it is needed.
    stage.backend.asked()
    other.sends(bind("o") + execute() + SYNC)
    assert stage.backend.asked() == ["Parse #1: select 2", "Bind #1", "Execute", "Sync"]


def test_what_is_parsed_behind_dropping_all_stays(stage: Stage) -> None:
    client = prepared(stage, "old", "select 1")
    client.sends(query("DEALLOCATE ALL") + parse("new", "select 2") + SYNC)
    stage.backend.says("C:DEALLOCATE-ALL Z")
    stage.backend.asked()
    stage.backend.says("1 Z")
    assert (client.session.statements.names(), stage.backend.statements) == ([b"new"], ["#2"])


# --- errors ---------------------------------------------------------------------------------------------


def test_a_statement_that_can_not_be_parsed_does_not_exist(stage: Stage) -> None:
    client = stage.client()
    client.sends(parse("s", "bad") + SYNC)
    stage.backend.asked()
    stage.backend.says("E:42601 Z")
    assert (client.heard(), client.session.statements.names()) == ("E:42601 Z", [])
    prepares(stage, client, "s", "select 1")


def test_what_is_dropped_behind_an_error_has_not_happened(stage: Stage) -> None:
    client = prepared(stage, "a", "select 1")
    client.sends(parse("", "bad") + close("a") + parse("b", "select 2") + parse("a", "select 3") + SYNC)
    stage.backend.asked()
    stage.backend.says("E:42601 Z")
    assert client.heard() == "E:42601 Z"
    assert client.session.statements.names() == [b"a"]
    client.sends(bind("a") + execute() + SYNC)
    assert stage.backend.asked()[-3:] == ["Bind #1", "Execute", "Sync"]


def test_what_comes_while_a_server_skips_has_not_happened(stage: Stage) -> None:
    client = prepared(stage, "a", "select 1")
    client.sends(parse("", "bad") + FLUSH)
    stage.backend.says("E:42601")
    client.sends(close("a") + parse("a", "select 1") + bind("a") + FLUSH)
    client.sends(SYNC)
    stage.backend.asked()
    stage.backend.says("Z")
    assert (client.heard(), client.session.statements.names()) == ("E:42601 Z", [b"a"])
    client.sends(bind("a") + execute() + SYNC)
    texts = stage.backend.asked()
    assert texts[-3:] == ["Bind #1", "Execute", "Sync"]
    # Whether it is still there is in doubt: closing what does not exist is no error, parsing what exists is.
    assert texts[:-3] in ([], ["Close #1", "Parse #1: select 1"])


def test_a_later_segment_waits_until_a_name_is_certain(stage: Stage) -> None:
    client = stage.client()
    client.sends(parse("s", "bad") + SYNC + parse("s", "select 1") + bind("s") + execute() + SYNC)
    assert stage.backend.asked() == ["Parse #1: bad", "Sync"]
    stage.backend.says("E:42601 Z")
    assert stage.backend.asked() == ["Parse #2: select 1", "Bind #2", "Execute", "Sync"]
    stage.backend.says("1 2 C Z")
    assert client.heard() == "E:42601 Z 1 2 C Z"


def test_a_later_segment_with_other_names_does_not_wait(stage: Stage) -> None:
    client = prepared(stage, "t", "select 2")
    client.sends(parse("s", "select 1") + SYNC + bind("t") + execute() + SYNC)
    assert stage.backend.asked() == ["Parse #2: select 1", "Sync", "Bind #1", "Execute", "Sync"]


def test_who_waits_for_a_name_goes_on_when_everything_was_dropped(stage: Stage) -> None:
    """The Query that made the name uncertain is dropped as well: no ReadyForQuery is to be waited for."""
    client = stage.client()
    client.sends(parse("", "fail") + bind("") + execute() + query("select 2") + bind("") + execute() + SYNC)
    texts = stage.backend.asked()
    stage.backend.says("1 2 E:22012")
    texts += stage.backend.asked()
    assert texts[:4] == ["Parse: fail", "Bind", "Execute", "Query select 2"]
    assert texts[-1] == "Sync"
    stage.backend.says("Z")
    assert client.heard() == "1 2 E:22012 Z"


# --- the unnamed statement ------------------------------------------------------------------------------


def test_the_unnamed_statement_passes_as_it_is(stage: Stage) -> None:
    client = stage.client()
    data = parse("", "select 1") + describe("") + bind("") + execute() + SYNC
    client.sends(data)
    assert stage.backend.link.take() == data


def test_it_is_parsed_again_where_it_is_missing() -> None:
    stage, first, second = two_servers()
    client = stage.client()
    client.sends(parse("", "select 1") + describe("") + SYNC)
    second.asked()
    second.says("1 t T Z")
    hold(stage, second)
    client.sends(bind("") + execute() + SYNC)
    assert first.asked() == ["Parse: select 1", "Bind", "Execute", "Sync"]
    first.says("1 2 D C Z")
    assert client.heard() == "1 t T Z 2 D C Z"


def test_it_is_not_parsed_again_where_it_still_is(stage: Stage) -> None:
    client = stage.client()
    client.sends(parse("", "select 1") + SYNC)
    stage.backend.asked()
    stage.backend.says("1 Z")
    for _ in range(2):
        client.sends(bind("") + execute() + SYNC)
        assert stage.backend.asked() == ["Bind", "Execute", "Sync"]
        stage.backend.says("2 C Z")


def test_another_session_s_is_never_met(stage: Stage) -> None:
    one, two = stage.client(), stage.client()
    one.sends(one_shot("delete from t"))
    stage.backend.asked()
    stage.backend.says("1 2 C Z")
    two.sends(bind("") + execute() + SYNC)
    assert stage.backend.asked() == ["Close", "Bind", "Execute", "Sync"]
    stage.backend.says("3 E:26000 Z")
    assert two.heard() == "E:26000 Z"
    one.sends(bind("") + execute() + SYNC)
    assert stage.backend.asked() == ["Parse: delete from t", "Bind", "Execute", "Sync"]


@pytest.mark.parametrize("drop", [query("select 2"), close("") + SYNC, parse("", "bad") + SYNC])
def test_once_dropped_it_is_gone(stage: Stage, drop: bytes) -> None:
    other, client = stage.client(), stage.client()
    client.sends(one_shot("select 1"))
    stage.backend.says("1 2 C Z")
    client.sends(drop)
    stage.backend.says({b"Q": "C Z", b"C": "3 Z", b"P": "E:42601 Z"}[drop[:1]])
    other.sends(one_shot("select 3"))
    stage.backend.says("1 2 C Z")
    stage.backend.asked()
    client.sends(bind("") + execute() + SYNC)
    assert stage.backend.asked() == ["Close", "Bind", "Execute", "Sync"]


def test_a_parse_that_failed_earlier_does_not_harm_a_later_one(stage: Stage) -> None:
    client = stage.client()
    client.sends(one_shot("bad") + one_shot("select 1"))
    stage.backend.says("E:42601 Z")
    stage.backend.says("1 2 C Z")
    stage.backend.asked()
    client.sends(bind("") + execute() + SYNC)
    assert stage.backend.asked()[-3:] == ["Bind", "Execute", "Sync"]
    stage.backend.says("2 C Z" if client.session.server else "Z")


def test_a_text_too_long_to_keep_passes_as_the_unnamed_statement(stage: Stage) -> None:
    client = stage.client()
    data = parse("", "x" * (17 << 20)) + bind("") + execute() + SYNC
    for at in range(0, len(data), 1 << 20):
        client.sends(data[at : at + (1 << 20)])
    assert stage.backend.link.take() == data
    stage.backend.says("1 2 C Z")
    assert client.heard() == "1 2 C Z"


def test_a_text_too_long_to_keep_can_not_have_a_name(stage: Stage) -> None:
    client = stage.client()
    client.sends(parse("s", "x" * (17 << 20))[: 16 << 20])
    assert client.heard().startswith("E:FATAL-")
    assert client.gone


# --- ends behind a bar -----------------------------------------------------------------------------------


def test_a_violation_behind_a_bar_ends_the_session_after_the_answers(stage: Stage) -> None:
    client = stage.client()
    client.sends(parse("s", "select 1") + SYNC + bind("s") + execute() + SYNC + b"?????")
    stage.backend.says("1 Z")
    assert not client.gone
    stage.backend.asked()
    stage.backend.says("2 C Z")
    assert (client.heard(), client.gone) == ("1 Z 2 C Z E:FATAL-08P01", True)


def test_a_client_that_half_closes_behind_a_bar_is_answered(stage: Stage) -> None:
    client = stage.client()
    client.sends(parse("s", "bad") + SYNC + parse("s", "select 1") + bind("s") + execute() + SYNC)
    client.half_closes()
    stage.backend.says("E:42601 Z")
    assert not client.gone
    stage.backend.says("1 2 C Z")
    assert (client.heard(), client.gone) == ("E:42601 Z 1 2 C Z", True)
