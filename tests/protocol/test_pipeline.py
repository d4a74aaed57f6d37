"""Whose each message of a server is (see `support.pipeline` for how to read the dialogues)."""

import pytest
from support.pipeline import Dialogue, play

from protocol.errors import ProtocolViolation
from protocol.pipeline import FORWARD, IDLE, SKIP, Reply, ReplyPipeline

# --- the plain course of things -------------------------------------------------------------------------


def test_a_new_connection_is_idle() -> None:
    pipeline = play("state: idle")
    assert (len(pipeline), pipeline.head(), pipeline.pending(), pipeline.status) == (0, None, [], IDLE)


def test_a_simple_query() -> None:
    play("""
        client: Query
        state: due
        server: T C Z   => T C Z
        state: idle
    """)


def test_a_simple_query_of_several_statements() -> None:
    play("""
        client: Query
        server: C T C I C   => C T C I C
        state: due
        server: Z           => Z
        state: idle
    """)


def test_an_extended_query() -> None:
    play("""
        client: Parse Bind Describe Execute
        state: due unsynced
        client: Sync
        state: due
        server: 1 2 T C Z   => 1 2 T C Z
        state: idle
    """)


def test_without_sync_the_connection_is_not_idle() -> None:
    play("""
        client: Parse Bind Execute
        server: 1 2 C   => 1 2 C
        state: unsynced
        client: Sync
        server: Z       => Z
        state: idle
    """)


@pytest.mark.parametrize("end", ["C", "I", "s"])
def test_an_execute_may_end_in_three_ways(end: str) -> None:
    pipeline = play("client: Execute Sync")
    execute = pipeline.head()
    assert pipeline.answer(ord(end), 0) == FORWARD
    assert pipeline.done is execute
    assert len(pipeline) == 1


@pytest.mark.parametrize("end", ["T", "n"])
def test_a_describe_of_a_statement_ends_with_its_rows_shape(end: str) -> None:
    pipeline = play("client: Describe Sync")
    assert pipeline.answer(ord("t"), 0) == FORWARD
    assert pipeline.done is None
    assert pipeline.answer(ord(end), 0) == FORWARD
    assert pipeline.done is not None
    assert len(pipeline) == 1


def test_a_portal_may_be_executed_in_parts() -> None:
    play("""
        client: Bind Execute Execute Execute Close Sync
        server: 2 s s C 3 Z   => 2 s s C 3 Z
        state: idle
    """)


def test_a_function_call() -> None:
    play("""
        client: FunctionCall
        server: V Z   => V Z
        state: idle
    """)


@pytest.mark.parametrize(("request_", "answer"), [("Query", "C Z"), ("FunctionCall", "V Z")])
def test_what_ends_with_ready_for_query_needs_no_sync(request_: str, answer: str) -> None:
    play(f"""
        client: Parse {request_}
        state: due
        server: 1 {answer}   => 1 {answer}
        state: idle
    """)


def test_pipelined_transactions() -> None:
    play("""
        client: Parse Bind Execute Sync Query Bind Execute Sync Sync
        server: 1 2 C Z   => 1 2 C Z
        state: due
        server: C ZT 2 C ZT Z   => C ZT 2 C ZT Z
        state: idle
    """)


def test_a_long_pipeline_comes_in_order() -> None:
    pipeline = ReplyPipeline()
    replies = [Reply(ord("S"), FORWARD, None) for _ in range(300)]
    for reply in replies:
        pipeline.add(reply)
    for number, reply in enumerate(replies):
        assert pipeline.pending() == replies[number:]
        assert len(pipeline) == 300 - number
        assert pipeline.head() is reply
        pipeline.answer(ord("Z"), IDLE)
        assert pipeline.done is reply


def test_the_status_is_that_of_the_last_ready_for_query() -> None:
    dialogue = Dialogue()
    for status in "TETI":
        dialogue.play(f"client: Query\nserver: C Z{status} => C Z{status}")
        assert dialogue.pipeline.status == ord(status)


# --- what the proxy adds and answers itself -------------------------------------------------------------


def test_answers_to_what_was_slipped_in_are_skipped() -> None:
    play("""
        client: (Close) (Parse) Bind Execute Sync
        server: 3 1 2 C Z   => . . 2 C Z
        state: idle
    """)


def test_an_answer_of_the_proxys_own_waits_for_its_turn() -> None:
    play("""
        client: Parse [Close] [Close] Bind Execute Sync
        server: 1   => 1 [Close] [Close]
        server: 2 C Z   => 2 C Z
        state: idle
    """)


def test_an_answer_of_the_proxys_own_may_be_due_at_once() -> None:
    pipeline = play("client: [Close] Sync")
    close = pipeline.head()
    assert pipeline.next_fake() is close
    assert pipeline.next_fake() is None
    assert pipeline.done is None
    assert len(pipeline) == 1


def test_an_answer_of_the_proxys_own_leaves_the_connection_idle() -> None:
    pipeline = play("""
        client: [Close]
        state: due
    """)
    assert pipeline.next_fake() is not None
    assert pipeline.idle


def test_an_answer_of_the_proxys_own_comes_after_ready_for_query() -> None:
    play("""
        client: Query [Close] Sync
        server: C Z   => C Z [Close]
        server: Z     => Z
    """)


# --- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("request_", "more"), [("Query", "C"), ("Query", ""), ("FunctionCall", "")])
def test_an_error_outside_the_extended_protocol_goes_on_to_ready_for_query(request_: str, more: str) -> None:
    play(f"""
        client: {request_} Query
        server: {more} E   => {more} E
        state: due
        server: ZE C Z     => ZE C Z
        state: idle
    """)


@pytest.mark.parametrize(
    ("before", "dropped"),
    [
        ("", "{Parse: Bind Describe Execute Close}"),
        ("1", "{Bind: Describe Execute Close}"),
        ("1 2", "{Describe: Execute Close}"),
        ("1 2 T", "{Execute: Close}"),
        ("1 2 T C", "{Close:}"),
    ],
)
def test_an_error_drops_everything_up_to_the_sync(before: str, dropped: str) -> None:
    play(f"""
        client: Parse Bind Describe Execute Close Sync Query
        server: {before} E   => {before} E {dropped}
        state: due
        server: ZE C Z       => ZE C Z
        state: idle
    """)


def test_an_error_in_the_middle_of_an_execute() -> None:
    play("""
        client: Execute Execute Sync Bind Execute Sync
        server: C E   => C E {Execute:}
        server: Z 2 C Z   => Z 2 C Z
    """)


def test_an_error_while_committing_at_sync() -> None:
    play("""
        client: Bind Execute Sync Bind Execute Sync
        server: 2 C E Z   => 2 C E Z
        server: 2 C Z     => 2 C Z
        state: idle
    """)


def test_an_error_drops_a_query_without_sync_before_it_as_well() -> None:
    play("""
        client: Parse Query FunctionCall Bind Sync
        server: E   => E {Parse: Query FunctionCall Bind}
        server: Z   => Z
        state: idle
    """)


def test_until_the_next_sync_nothing_is_due() -> None:
    play("""
        client: Parse
        server: E   => E {Parse:}
        state: skipping unsynced
        client: Bind- Execute- Query- FunctionCall- [Close]- (Parse)-
        state: skipping unsynced
        client: Sync Query
        state: due
        server: Z C Z   => Z C Z
        state: idle
    """)


def test_while_a_server_skips_it_is_not_idle() -> None:
    """A Query ends the implicit transaction, but not when it is dropped itself."""
    play("""
        client: Parse Query
        server: E   => E {Parse: Query}
        state: skipping
        client: Query-
        state: skipping
        client: Sync
        server: Z   => Z
        state: idle
    """)


def test_an_error_meets_what_was_slipped_in() -> None:
    """It answers what the session asked; who caused it is not the client's concern."""
    play("""
        client: (s/Parse) s/Bind s/Execute s/Sync
        server: E   => s/E {s/Parse: s/Bind s/Execute}
        server: Z   => s/Z
    """)


def test_an_error_meets_what_nobody_asked_for() -> None:
    pipeline = ReplyPipeline()
    pipeline.add(Reply(ord("P"), SKIP, None))
    assert pipeline.answer(ord("E"), 0) == SKIP


def test_an_answer_of_the_proxys_own_is_dropped_like_others() -> None:
    play("""
        client: Parse [Close] Bind Sync [Close]
        server: E   => E {Parse: Close Bind}
        server: Z   => Z [Close]
        state: idle
    """)


def test_a_server_may_give_up_at_any_time() -> None:
    play("""
        server: E   => E
        client: Query
        server: T E   => T E
    """)


def test_what_failed_is_forgotten_with_the_next_message() -> None:
    pipeline = play("""
        client: Parse Bind Sync
        server: E   => E {Parse: Bind}
        server: Z   => Z
    """)
    assert (pipeline.failed, pipeline.dropped) == (None, None)
    pipeline.add(Reply(ord("S"), FORWARD, None))
    assert pipeline.next_fake() is None


# --- several receivers ----------------------------------------------------------------------------------


def test_answers_go_to_those_who_asked() -> None:
    play("""
        client: a/Bind a/Execute a/Sync b/Query [a/Close] (c/Parse) c/Bind c/Execute c/Sync
        server: 2 C Z    => a/2 a/C a/Z
        server: T C Z    => b/T b/C b/Z [a/Close]
        server: 1 2 C Z  => . c/2 c/C c/Z
        state: idle
    """)


def test_an_error_of_one_session_is_over_at_its_sync() -> None:
    play("""
        client: a/Parse a/Bind a/Execute a/Sync b/Bind b/Execute b/Sync
        server: E   => a/E {a/Parse: a/Bind a/Execute}
        server: Z 2 C Z   => a/Z b/2 b/C b/Z
        state: idle
    """)


# --- out of step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", list("123CDGHITVZnst"))
def test_an_answer_that_nobody_asked_for(tag: str) -> None:
    with pytest.raises(
        ProtocolViolation, match=rf"^server sent message type {ord(tag)} that nothing asked for$"
    ):
        ReplyPipeline().answer(ord(tag), IDLE)


@pytest.mark.parametrize(
    ("request_", "tags"),
    [
        ("Query", "123"),
        ("Parse", "23CIsZ"),
        ("Bind", "13CIsZ"),
        ("Describe", "123CIsZ"),
        ("Execute", "123Z"),
        ("Close", "12CIsZ"),
        ("Sync", "123CIs"),
        ("FunctionCall", "123CIs"),
    ],
)
def test_an_answer_to_something_else(request_: str, tags: str) -> None:
    for tag in tags:
        pipeline = play(f"client: {request_}")
        with pytest.raises(ProtocolViolation, match=f"server sent message type {ord(tag)} where a reply to"):
            pipeline.answer(ord(tag), IDLE)


def test_a_reply_can_be_read_in_a_log() -> None:
    assert repr(Reply(ord("P"), SKIP, None)) == "<Reply P SKIP>"
