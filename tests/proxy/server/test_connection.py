import pytest
from support.dialogue import heard, say
from support.ears import Ear, Relay

from protocol.messages.backend import ErrorResponse, FieldDescription, NoticeResponse, RowDescription
from protocol.pipeline import FAKE, SKIP, Reply
from proxy.clock import now
from proxy.server.prepared import UNKNOWN

LONG_SHAPE = RowDescription(
    tuple(FieldDescription(b"column %060d" % number, 0, 0, 25, -1, -1, 0) for number in range(1000))
).encode()


@pytest.fixture
def relay() -> Relay:
    return Relay()


def fake(relay: Relay, of: Ear | None = None) -> Reply:
    (reply,) = relay.asks("C", of=of, action=FAKE)
    reply.fake = say("3")
    return reply


# --- bytes ----------------------------------------------------------------------------------------------


def test_a_chunk_in_which_nothing_is_skipped_goes_on_as_it_is(relay: Relay) -> None:
    relay.asks("PBES")
    chunk = say("1 2 D D C Z")
    relay.sends(chunk)
    assert relay.ear.chunks[0] is chunk
    assert len(relay.ear.chunks) == 1


def test_answers_to_what_was_slipped_in_are_left_out(relay: Relay) -> None:
    relay.asks("C", action=SKIP)
    relay.asks("P", action=SKIP)
    relay.asks("BES")
    relay.says("3 1 2 D C Z")
    assert relay.ear.heard() == "2 D C Z"


def test_rows_before_what_is_left_out_stay(relay: Relay) -> None:
    relay.asks("BE")
    relay.asks("P", action=SKIP)
    relay.asks("BES")
    relay.says("2 D D C 1 2 D C Z")
    assert relay.ear.heard() == "2 D D C 2 D C Z"


def test_answers_of_the_proxys_own_come_in_their_turn(relay: Relay) -> None:
    relay.asks("BE")
    fake(relay)
    fake(relay)
    relay.asks("BES")
    fake(relay)
    relay.says("2 D C 2 D C Z")
    assert relay.ear.heard() == "2 D C 3 3 2 D C Z 3"


def test_answers_that_need_no_server_can_be_given_at_once(relay: Relay) -> None:
    fake(relay)
    relay.asks("S")
    relay.server.answer_fakes()
    assert relay.ear.heard() == "3"
    relay.says("Z")
    assert relay.ear.heard() == "Z"


def test_receivers_get_their_own(relay: Relay) -> None:
    other = Ear()
    relay.asks("BES")
    relay.asks("BES", of=other)
    relay.asks("Q")
    relay.says("2 D C Z 2 D D C Z T D C Z")
    assert (relay.ear.heard(), other.heard()) == ("2 D C Z T D C Z", "2 D D C Z")


def scene(relay: Relay) -> tuple[bytes, Ear]:
    """All kinds of things at once: what the server says, and who else listens."""
    other = Ear()
    relay.asks("C", action=SKIP)
    relay.asks("P", action=SKIP)
    relay.asks("D")
    relay.asks("P", action=SKIP)
    relay.asks("BE")
    fake(relay)
    relay.asks("S")
    relay.asks("P", of=other, action=SKIP)
    relay.asks("BES", of=other)
    fake(relay, of=other)
    relay.asks("Q")
    return say("3 N:hidden 1 t T 1 2 D D N:shown D C S:a=b Z 1 2 D C Z T D:abc C A:ch C Z N:late"), other


def test_chunks_may_end_anywhere() -> None:
    relay = Relay()
    stream, other = scene(relay)
    relay.sends(stream)
    first, second = (b"".join(ear.chunks) for ear in (relay.ear, other))
    assert heard(first) == "t T 2 D D N D C 3 S Z T D C A C Z N"
    assert heard(second) == "2 D C Z 3"
    records = [(record.rows, record.bytes_out) for record in relay.ear.records + other.records]
    assert [rows for rows, _ in records] == [1, 2, 1]
    for cut in range(1, len(stream)):
        relay = Relay()
        _, other = scene(relay)
        relay.sends(stream[:cut], stream[cut:])
        assert (b"".join(relay.ear.chunks), b"".join(other.chunks)) == (first, second), cut
        assert [(r.rows, r.bytes_out) for r in relay.ear.records + other.records] == records, cut


def test_bytes_may_come_one_by_one() -> None:
    relay = Relay()
    stream, other = scene(relay)
    relay.sends(*(stream[at : at + 1] for at in range(len(stream))))
    assert (relay.ear.heard(), other.heard()) == ("t T 2 D D N D C 3 S Z T D C A C Z N", "2 D C Z 3")


@pytest.mark.parametrize("cut", [65_542, 70_000, len(LONG_SHAPE) + 4])
@pytest.mark.parametrize("then", ["skip", "fake", "other"])
def test_a_long_message_is_not_cut_by_what_comes_next(relay: Relay, cut: int, then: str) -> None:
    """It completes its reply when its beginning is there; its rest still belongs to who got that."""
    other = Ear()
    relay.asks("D")
    if then == "skip":
        relay.asks("P", action=SKIP)
    elif then == "fake":
        fake(relay)
    relay.asks("BES", of=other if then == "other" else None)
    stream = say("t") + LONG_SHAPE + say("1 2 C Z" if then == "skip" else "2 C Z")
    relay.sends(stream[:cut])
    relay.server.answer_fakes()
    relay.sends(stream[cut : cut + 100], stream[cut + 100 :])
    whole = b"".join(relay.ear.chunks)
    assert whole[: len(say("t")) + len(LONG_SHAPE)] == say("t") + LONG_SHAPE
    if then == "other":
        assert (relay.ear.heard(), other.heard()) == ("t T", "2 C Z")
    else:
        assert relay.ear.heard() == ("t T 2 C Z" if then == "skip" else "t T 3 2 C Z")


def test_a_long_notice_to_nobody_is_left_out_whole(relay: Relay) -> None:
    notice = NoticeResponse({"S": "NOTICE", "C": "00000", "M": "x" * 100_000}).encode()
    relay.asks("P", action=SKIP)
    relay.asks("BES")
    stream = notice + say("1 2 C Z")
    relay.sends(stream[:66_000], stream[66_000:80_000], stream[80_000:])
    assert relay.ear.heard() == "2 C Z"


def test_a_long_error_arrives_whole(relay: Relay) -> None:
    error = ErrorResponse.of("ERROR", "22P02", "x" * 100_000).encode()
    relay.asks("PBE")
    fake(relay)
    relay.asks("S")
    stream = error + say("Z")
    relay.sends(stream[:66_000], stream[66_000:80_000], stream[80_000:])
    assert relay.ear.heard() == "E:22P02 Z"


# --- what nobody asked for ------------------------------------------------------------------------------


def test_asynchronous_messages_go_to_the_owner(relay: Relay) -> None:
    relay.says("A:channel S:TimeZone=UTC N:hint")
    assert relay.ear.heard() == "A S N"


def test_without_an_owner_they_go_nowhere(relay: Relay) -> None:
    relay.server.owner = None
    relay.says("A:channel S:TimeZone=UTC N:hint")
    relay.server.owner = relay.ear
    relay.asks("Q")
    relay.says("C Z")
    assert relay.ear.heard() == "C Z"


def test_a_notice_about_what_was_slipped_in_is_left_out(relay: Relay) -> None:
    relay.asks("P", action=SKIP)
    relay.asks("BES")
    relay.says("N:slipped A:channel S:x=y 1 N:own 2 C Z")
    assert relay.ear.heard() == "A S N 2 C Z"


@pytest.mark.parametrize(("line", "reason"), [("Z", "Z"), ("C Z", "C"), ("1", "1"), ("T", "T")])
def test_an_answer_nobody_asked_for_breaks_the_connection(relay: Relay, line: str, reason: str) -> None:
    relay.says(line)
    assert relay.server.retire is not None
    assert relay.link.aborted
    assert relay.pool.calls[0] == (
        "broken",
        f"server sent message type {ord(reason)} that nothing asked for",
    )
    assert relay.ear.told("lost") == [None]
    assert relay.ear.heard() == ""


@pytest.mark.parametrize(
    "data", [b"?\0\0\0\4", b"C\0\0\0\3", b"Z\0\0\0\4", b"Z\0\0\0\6II", b"1\xff\xff\xff\xff"]
)
def test_what_is_not_the_protocol_breaks_the_connection(relay: Relay, data: bytes) -> None:
    relay.asks("SQ")
    relay.sends(data)
    assert relay.link.aborted
    assert [call for call, _ in relay.pool.calls] == ["broken", "lost"]


# --- measurements ---------------------------------------------------------------------------------------


def test_a_query_is_measured(relay: Relay) -> None:
    (reply,) = relay.asks("Q")
    record = reply.record
    record.started, reply.sent = now() - 4.0, now() - 3.0
    relay.says("T D D C:SELECT-2")
    assert relay.ear.records == []
    before = now()
    relay.says("Z")
    after = now()
    assert relay.ear.records == [record]
    assert (record.rows, record.sqlstate, record.server_pid) == (2, "", 4711)
    assert before - reply.sent <= record.server <= after - reply.sent
    assert before - record.started <= record.total <= after - record.started
    assert record.bytes_out == len(say("T D D C:SELECT-2 Z"))


def test_the_rows_of_all_statements_of_a_query_count(relay: Relay) -> None:
    (reply,) = relay.asks("Q")
    relay.says("C:INSERT-0-5 C:UPDATE-7 T D C:SELECT-1 C:COMMIT Z")
    assert reply.record.rows == 13


def test_each_execute_is_measured(relay: Relay) -> None:
    """The commit, which its Sync brings about, is part of the last one's time."""
    first, second = (reply for reply in relay.asks("BEBES") if reply.record is not None)
    sent = first.sent = second.sent = now() - 5.0
    relay.says("2 D C:SELECT-1")
    relay.says("2 C:UPDATE-3")
    before = now()
    relay.says("Z")
    assert relay.ear.records == [first.record, second.record]
    assert (first.record.rows, second.record.rows) == (1, 3)
    assert before - sent <= first.record.server + second.record.server <= now() - sent
    assert first.record.bytes_out + second.record.bytes_out == len(say("2 D C:SELECT-1 2 C:UPDATE-3 Z"))


def test_a_statement_that_waits_in_the_pipeline_is_not_charged_for_those_before(relay: Relay) -> None:
    first, second = relay.asks("QQ")
    first.sent = second.sent = now() - 10.0
    before = now()
    relay.says("C Z")
    assert first.record.server >= 10.0
    relay.says("C Z")
    assert second.record.server <= now() - before


@pytest.mark.parametrize("end", ["s", "I"])
def test_an_execute_without_a_tag_is_measured(relay: Relay, end: str) -> None:
    relay.asks("BES")
    relay.says(f"2 {end} Z")
    assert [(record.rows, record.sqlstate) for record in relay.ear.records] == [(0, "")]


def test_what_was_left_out_does_not_count(relay: Relay) -> None:
    relay.asks("P", action=SKIP)
    relay.asks("BES")
    relay.says("1 2 D C Z")
    assert [record.bytes_out for record in relay.ear.records] == [len(say("2 D C Z"))]


def test_a_query_that_fails_has_its_sqlstate(relay: Relay) -> None:
    relay.asks("Q")
    relay.says("T D E:22012 Z")
    assert [record.sqlstate for record in relay.ear.records] == ["22012"]


@pytest.mark.parametrize("before", ["", "1", "1 2", "1 2 D"])
def test_a_statement_that_fails_anywhere_is_measured_once(relay: Relay, before: str) -> None:
    relay.asks("PBES")
    relay.says(f"{before} E:42P01 Z")
    assert [record.sqlstate for record in relay.ear.records] == ["42P01"]
    assert relay.ear.told("failed") == []


def test_of_what_is_dropped_only_the_first_is_measured(relay: Relay) -> None:
    relay.asks("BEBES")
    relay.says("2 C 2 E:22012 Z")
    assert [record.sqlstate for record in relay.ear.records] == ["", "22012"]
    relay.asks("BEBES")
    relay.says("2 E:22012 Z")
    assert [record.sqlstate for record in relay.ear.records] == ["", "22012", "22012"]


def test_a_commit_that_fails_is_the_last_statements_failure(relay: Relay) -> None:
    relay.asks("BES")
    relay.says("2 C:INSERT-0-1 E:23503 Z")
    assert [(record.rows, record.sqlstate) for record in relay.ear.records] == [(1, "23503")]


def test_a_failure_without_a_statement_to_measure_is_told(relay: Relay) -> None:
    parse, _ = relay.asks("PS")
    relay.says("E:42601 Z")
    assert relay.ear.told("failed") == [(parse, "42601")]
    assert relay.ear.records == []


# --- undoing --------------------------------------------------------------------------------------------


def test_what_the_server_did_not_carry_out_is_undone_last_first(relay: Relay) -> None:
    parse, bind, execute, close = relay.asks("PBEC")
    relay.asks("S")
    relay.says("E:42601")
    assert relay.ear.told("undo") == [(close, False), (execute, False), (bind, False), (parse, True)]


@pytest.mark.parametrize("kind", ["P", "C"])
def test_a_statement_that_may_or_may_not_be_there_is_in_doubt(relay: Relay, kind: str) -> None:
    statements = relay.server.statements
    statements.note(b"name", 7, 1)
    relay.asks("P")
    (reply,) = relay.asks(kind, action=SKIP)
    reply.server_name = b"name"
    relay.asks("S")
    relay.says("E:42601 Z")
    assert statements.has(b"name")
    assert not statements.use(b"name", 1, 5)


def test_a_query_that_was_dropped_leaves_the_unnamed_statement_unknown(relay: Relay) -> None:
    relay.asks("PQS")
    relay.says("E:42601 Z")
    assert relay.server.statements.unnamed == UNKNOWN


@pytest.mark.parametrize("command", ["DEALLOCATE-ALL", "DISCARD-ALL"])
@pytest.mark.parametrize("kind", ["Q", "E"])
def test_all_statements_may_be_dropped(relay: Relay, command: str, kind: str) -> None:
    statements = relay.server.statements
    statements.note(b"gone", 1, 0)
    relay.asks(kind + ("S" if kind == "E" else ""))
    (parse, _) = relay.asks("PS")
    parse.name, parse.server_name = b"mine", b"kept"
    statements.note(b"kept", 2, 1)
    relay.says(f"C:{command} Z")
    assert statements.names() == [b"kept"]
    assert relay.ear.told("dropped") == [{b"mine"}]


@pytest.mark.parametrize("command", ["DEALLOCATE", "DISCARD-TEMP", "DISCARD", "DELETE-5", "DROP-TABLE"])
def test_other_commands_drop_nothing(relay: Relay, command: str) -> None:
    relay.server.statements.note(b"kept", 1, 0)
    relay.asks("Q")
    relay.says(f"C:{command} Z")
    assert relay.server.statements.names() == [b"kept"]


# --- its state ------------------------------------------------------------------------------------------


def test_the_owner_is_told_of_every_ready_for_query_after_its_bytes(relay: Relay) -> None:
    heard_before: list[int] = []

    class Owner(Ear):
        def settled(self, server: object) -> None:
            heard_before.append(len(self.chunks))

    relay.server.owner = owner = Owner()
    relay.asks("QQ", of=owner)
    relay.says("C Z C Z")
    assert heard_before == [1, 2]


def test_the_pool_is_told_when_its_own_query_is_over(relay: Relay) -> None:
    relay.server.owner = None
    relay.server.pipeline.add(Reply(ord("Q"), SKIP, None))
    relay.says("N:warning C:ROLLBACK Z")
    assert relay.pool.calls == [("done", ord("I"))]
    assert relay.server.retire is None
    assert relay.ear.chunks == []


def test_a_reset_that_fails_retires_the_connection(relay: Relay) -> None:
    relay.server.owner = None
    relay.server.pipeline.add(Reply(ord("Q"), SKIP, None))
    relay.says("E:57014 Z")
    assert relay.server.retire is not None
    assert "57014" in relay.server.retire


def test_a_server_that_gives_up_is_not_used_again(relay: Relay) -> None:
    relay.asks("Q")
    relay.says("T D E:FATAL-57P01")
    assert relay.server.fatal
    assert relay.server.retire is not None
    assert relay.ear.heard() == "T D E:FATAL-57P01"
    assert not relay.link.closed


def test_a_server_that_gives_up_while_idle_is_closed_at_once(relay: Relay) -> None:
    relay.server.owner = None
    relay.says("E:FATAL-57P01")
    assert relay.link.closed
    assert relay.pool.calls == [("lost", None)]


def test_a_lost_connection_is_told_to_pool_and_owner(relay: Relay) -> None:
    error = ConnectionResetError()
    relay.link.break_off(error)
    relay.loop.run()
    assert (relay.pool.calls, relay.ear.calls) == ([("lost", error)], [("lost", error)])
    assert relay.server.retire == "server closed the connection"
    assert relay.server.owner is None


def test_a_server_that_hangs_up_is_lost(relay: Relay) -> None:
    relay.server.ended()
    relay.loop.run()
    assert relay.ear.told("lost") == [None]


def test_back_pressure_reaches_the_owner(relay: Relay) -> None:
    relay.link.pause_writing()
    relay.link.resume_writing()
    assert relay.ear.told("choked") == [True, False]
    relay.server.owner = None
    relay.link.pause_writing()
    relay.link.resume_writing()


def test_a_connection_is_ended_in_good_order(relay: Relay) -> None:
    relay.server.close()
    assert relay.link.take() == b"X\0\0\0\4"
    assert relay.link.closed


def test_it_can_be_read_in_a_log(relay: Relay) -> None:
    relay.asks("Q")
    assert repr(relay.server) == "<ServerConnection pid=4711 1 due>"
