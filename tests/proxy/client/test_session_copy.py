"""COPY through a session: a server is clean only when it is not in the middle of a message."""

import pytest
from support.dialogue import (
    COPY_DONE,
    FLUSH,
    SYNC,
    TERMINATE,
    bind,
    copy_data,
    copy_fail,
    execute,
    parse,
    query,
)
from support.relay import Client, Stage

DATA = copy_data(b"0123456789" * 10)


@pytest.fixture
def stage() -> Stage:
    return Stage(size=1)


def copying(stage: Stage, *, transaction: bool = False) -> Client:
    """A client whose COPY FROM STDIN the server waits for."""
    client = stage.in_transaction() if transaction else stage.client()
    client.sends(query("copy t from stdin"))
    stage.backends[-1].asked()
    stage.backends[-1].says("G")
    assert client.heard() == "G"
    return client


def free(stage: Stage) -> bool:
    """Whether the next client gets a server that understands it."""
    stage.backends[-1].link.take()
    client = stage.client()
    client.sends(query("next"))
    if stage.backends[-1].link.take() != query("next"):
        return False
    stage.backends[-1].says("C Z")
    return client.heard() == "C Z"


def test_data_goes_through(stage: Stage) -> None:
    client = copying(stage)
    client.sends(DATA)
    client.sends(DATA, COPY_DONE)
    assert stage.backend.link.take() == DATA + DATA + COPY_DONE
    stage.backend.says("C:COPY-20 Z")
    assert (client.heard(), client.session.server) == ("C Z", None)
    (record,) = stage.records()
    assert (record.rows, record.bytes_in) == (20, len(query("copy t from stdin") + DATA + DATA + COPY_DONE))
    assert free(stage)


def test_data_may_be_sent_ahead(stage: Stage) -> None:
    client = stage.client()
    data = query("copy t from stdin") + DATA + COPY_DONE
    client.sends(data)
    assert stage.backend.link.take() == data
    stage.backend.says("G C:COPY-10 Z")
    assert (client.heard(), client.session.server) == ("G C Z", None)
    assert free(stage)


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 50, len(DATA) - 1])
def test_data_may_come_in_pieces(stage: Stage, cut: int) -> None:
    client = copying(stage)
    client.sends(DATA[:cut])
    client.sends(DATA[cut:])
    client.sends(COPY_DONE)
    assert stage.backend.link.take() == DATA + COPY_DONE


@pytest.mark.parametrize("early", [b"", SYNC])
def test_copy_by_the_extended_protocol(stage: Stage, early: bytes) -> None:
    client = stage.client()
    client.sends(parse("", "copy t from stdin") + bind("") + execute() + (early or FLUSH))
    stage.backend.says("1 2 G")
    client.sends(DATA + COPY_DONE + SYNC)
    stage.backend.says("C:COPY-10 Z")
    assert (client.heard(), client.session.server) == ("1 2 G C Z", None)
    assert free(stage)


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 50, len(DATA) - 1, len(DATA)])
@pytest.mark.parametrize("together", [True, False])
def test_a_copy_that_fails_in_the_middle_of_a_message(stage: Stage, cut: int, together: bool) -> None:
    """The server still reads the message that has begun: until its end it is no good for anybody else."""
    client = copying(stage)
    client.sends(DATA[:cut])
    stage.backend.says("E:22P04 Z")
    assert client.heard() == "E:22P04 Z"
    if together:
        client.sends(DATA[cut:] + COPY_DONE + query("go on"))
    else:
        for part in (DATA[cut:], COPY_DONE, query("go on")):
            client.sends(part)
    written = b"".join(backend.link.take() for backend in stage.backends)
    # (Whole messages may be left out: no COPY is under way any more.)
    if cut >= 5:
        assert written.startswith(DATA)
    assert written.removeprefix(DATA).removeprefix(COPY_DONE) == query("go on")
    stage.backends[-1].says("C Z")
    assert (client.heard(), client.session.server) == ("C Z", None)
    assert free(stage)


@pytest.mark.parametrize("transaction", [False, True])
@pytest.mark.parametrize("cut", [6, 50])
@pytest.mark.parametrize("how", ["break off", "half close", "terminate"])
def test_a_client_that_leaves_in_the_middle_of_a_message_costs_the_server(
    stage: Stage, transaction: bool, cut: int, how: str
) -> None:
    client = copying(stage, transaction=transaction)
    backend = stage.backend
    client.sends(DATA[:cut])
    backend.says("E:22P04 Z:E" if transaction else "E:22P04 Z")
    if how == "break off":
        client.breaks_off()
    elif how == "half close":
        client.half_closes()
    else:
        client.session.terminate("57P01", "going")
        stage.loop.run()
    assert client.gone
    assert backend.link.closed
    assert b"ROLLBACK" not in backend.link.take()
    assert free(stage)


@pytest.mark.parametrize("cut", [6, 50])
def test_a_client_that_leaves_before_the_rest_was_sent_costs_the_server(stage: Stage, cut: int) -> None:
    """The rest of the message has come, but lies in a batch that has not ended."""
    client = copying(stage)
    backend = stage.backend
    client.sends(DATA[:cut])
    backend.says("E:22P04 Z")
    client.sends(DATA[cut:] + parse("", "select 1"))
    client.breaks_off()
    written = backend.link.take()
    assert backend.link.closed or DATA in written
    assert free(stage)


def test_a_copy_that_is_left_is_not_committed(stage: Stage) -> None:
    client = copying(stage)
    backend = stage.backend
    client.sends(DATA)
    client.breaks_off()
    assert backend.link.closed
    assert COPY_DONE not in backend.link.take()
    assert free(stage)


def test_a_copy_whose_last_sync_never_comes_is_not_committed(stage: Stage) -> None:
    client = stage.client()
    client.sends(parse("", "copy t from stdin") + bind("") + execute() + SYNC + DATA + COPY_DONE)
    backend = stage.backend
    backend.says("1 2 G C:COPY-10")
    client.breaks_off()
    assert backend.link.closed
    assert free(stage)


@pytest.mark.parametrize("end", [COPY_DONE, copy_fail()])
def test_the_end_of_data_may_cross_the_error(stage: Stage, end: bytes) -> None:
    client = copying(stage)
    client.sends(DATA + end)
    stage.backend.says("E:22P04 Z")
    assert (client.heard(), client.session.server) == ("E:22P04 Z", None)
    assert free(stage)


def test_the_end_of_data_may_come_after_the_error(stage: Stage) -> None:
    client = copying(stage)
    stage.backend.says("E:57014 Z")
    client.sends(DATA + COPY_DONE)
    client.sends(query("go on"))
    stage.backend.says("C Z")
    assert client.heard() == "E:57014 Z C Z"
    assert free(stage)


def test_copy_out(stage: Stage) -> None:
    client = stage.client()
    client.sends(query("copy t to stdout"))
    stage.backend.says("H d:one d:two c C:COPY-2 Z")
    assert (client.heard(), client.session.server) == ("H d d c C Z", None)
    (record,) = stage.records()
    assert record.rows == 2


def test_a_server_lost_while_it_copies(stage: Stage) -> None:
    client = copying(stage)
    client.sends(DATA[:20])
    stage.backend.hangs_up()
    assert (client.heard(), client.gone) == ("E:FATAL-08006", True)
    assert free(stage)


def test_terminate_in_the_middle_of_copy_data(stage: Stage) -> None:
    client = copying(stage)
    backend = stage.backend
    client.sends(DATA + TERMINATE)
    assert client.gone
    assert backend.link.closed
    assert free(stage)
