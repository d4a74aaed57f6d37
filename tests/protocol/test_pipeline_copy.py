"""COPY in the queue of replies (see `support.pipeline` for how to read the dialogues).

A server that reads COPY data ignores Sync and Flush; what the client sends ahead has to be told from that.
"""

from support.pipeline import play


def test_copy_in_by_a_simple_query() -> None:
    play("""
        client: Query
        server: G   => G
        state: due copying_in
        client: CopyDone-
        state: due
        server: C Z   => C Z
        state: idle
    """)


def test_copy_in_twice_in_one_query() -> None:
    play("""
        client: Query
        server: G   => G
        client: CopyDone-
        server: C G   => C G
        state: due copying_in
        client: CopyDone-
        server: C Z   => C Z
        state: idle
    """)


def test_copy_in_with_everything_sent_at_once() -> None:
    play("""
        client: Query CopyDone Query CopyFail Query
        server: G C Z   => G C Z
        server: G E Z   => G E Z
        server: C Z     => C Z
        state: idle
    """)


def test_two_copies_of_one_query_with_everything_sent_at_once() -> None:
    play("""
        client: Query CopyDone CopyDone Query
        server: G C G C Z   => G C G C Z
        server: C Z         => C Z
        state: idle
    """)


def test_copy_in_by_the_extended_protocol() -> None:
    play("""
        client: Parse Bind Execute
        server: 1 2 G   => 1 2 G
        state: due unsynced copying_in
        client: CopyDone- Sync
        server: C Z   => C Z
        state: idle
    """)


def test_a_sync_before_the_end_of_copy_data_goes_unanswered() -> None:
    """As libpq sends it: the server, reading COPY data, ignores it."""
    play("""
        client: Parse Bind Describe Execute Sync
        server: 1 2 n G   => 1 2 n G
        state: due unsynced copying_in
        client: Sync-
        client: CopyDone- Sync
        server: C Z   => C Z
        state: idle
    """)


def test_a_sync_before_copy_data_that_is_sent_at_once() -> None:
    play("""
        client: Parse Bind Execute Sync Sync CopyDone Sync
        server: 1 2 G C Z   => 1 2 G C Z
        state: idle
    """)


def test_copy_done_where_no_copy_came_to_pass() -> None:
    play("""
        client: CopyDone-
        state: idle
        client: Query CopyDone Query
        server: C Z   => C Z
        server: C Z   => C Z
        state: idle
    """)


def test_copy_that_fails_before_it_begins() -> None:
    play("""
        client: Parse Bind Execute Sync CopyDone Sync
        server: E   => E {Parse: Bind Execute}
        server: Z Z   => Z Z
        state: idle
    """)


def test_copy_in_that_fails_on_its_way() -> None:
    play("""
        client: Query
        server: G E Z   => G E Z
        state: idle
        client: CopyDone-
        state: idle
    """)


def test_copy_in_of_the_extended_protocol_that_fails_on_its_way() -> None:
    play("""
        client: Bind Execute Sync
        server: 2 G E   => 2 G E {Execute:}
        state: skipping unsynced
        client: CopyDone- Sync
        server: Z   => Z
        state: idle
    """)


def test_copy_in_whose_error_crosses_its_end() -> None:
    play("""
        client: Bind Execute Sync
        server: 2 G   => 2 G
        client: CopyDone- Sync Query
        server: E   => E {Execute:}
        server: Z C Z   => Z C Z
        state: idle
    """)


def test_copy_out() -> None:
    play("""
        client: Query
        server: H   => H
        state: due copying_out
        server: c C Z   => c C Z
        state: idle
    """)


def test_copy_out_by_the_extended_protocol_that_fails() -> None:
    play("""
        client: Bind Execute Sync
        server: 2 H   => 2 H
        state: due copying_out
        server: E   => E {Execute:}
        state: due
        server: Z   => Z
        state: idle
    """)


def test_copy_both() -> None:
    play("""
        client: Query
        server: W   => W
        state: due copying_in
        client: CopyDone-
        server: c C Z   => c C Z
        state: idle
    """)


def test_copy_in_without_its_last_sync_is_not_idle() -> None:
    """Everything was sent at once but for the Sync behind the data: the one before them was not read."""
    play("""
        client: Bind Execute Sync CopyDone
        server: 2 G C   => 2 G C
        state: unsynced
        client: Sync
        server: Z   => Z
        state: idle
    """)


def test_what_is_pipelined_behind_copy_in_wants_its_sync() -> None:
    play("""
        client: Query CopyDone Parse
        server: G C Z 1   => G C Z 1
        state: unsynced
        client: Sync
        server: Z   => Z
        state: idle
    """)
