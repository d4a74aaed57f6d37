import contextlib
import socket
from collections.abc import Callable

import pytest
from support.links import MUCH, End, Recorder
from support.sockets import Turns, read_all, reset

from proxy.net.link import HIGH_WATER, Link, peer_name


@pytest.fixture
def end(turns: Turns) -> End:
    return End(turns)


# --- receiving ------------------------------------------------------------------------------------------


def test_what_the_peer_sends_is_received(end: End) -> None:
    assert not end.link.closed
    end.far.send(b"one")
    end.turns.until(lambda: end.handler.data == b"one")
    end.far.send(b"two")
    end.turns.until(lambda: end.handler.data == b"onetwo")
    assert end.link.peer == "peer"


def test_much_is_received_in_order(end: End) -> None:
    sent = 0

    def pump() -> bool:
        nonlocal sent
        with contextlib.suppress(BlockingIOError):
            sent += end.far.send(MUCH[sent : sent + 300_000])
        return sent == len(MUCH)

    end.turns.until(pump)
    end.turns.until(lambda: len(end.handler.data) == len(MUCH))
    assert end.handler.data == MUCH


def test_a_paused_link_does_not_read(end: End) -> None:
    end.link.pause()
    end.link.pause()
    assert end.link.paused
    end.far.send(b"later")
    end.turns.settle()
    assert end.handler.data == b""
    end.link.resume()
    end.link.resume()
    assert not end.link.paused
    end.turns.until(lambda: end.handler.data == b"later")


def test_a_handler_may_pause_its_link(end: End) -> None:
    class Pausing(Recorder):
        def received(self, data: bytes) -> None:
            super().received(data)
            end.link.pause()

    end.link.handler = handler = Pausing()
    end.far.send(b"x" * 100_000)
    end.turns.until(lambda: handler.data)
    end.turns.settle()
    first = len(handler.data)
    assert first <= 65_536
    end.link.resume()
    end.turns.until(lambda: len(handler.data) > first)


def test_a_handler_may_hand_over_to_another(end: End) -> None:
    second = Recorder()

    class First(Recorder):
        def received(self, data: bytes) -> None:
            super().received(data)
            end.link.handler = second

    end.link.handler = first = First()
    end.far.send(b"one")
    end.turns.until(lambda: first.data)
    end.far.send(b"two")
    end.turns.until(lambda: second.data)
    assert (first.data, second.data) == (b"one", b"two")


def test_without_a_handler_nothing_happens(end: End) -> None:
    end.link.handler = None
    end.far.send(b"to nobody")
    end.turns.settle()
    end.far.close()
    end.turns.settle()
    assert end.calls == []


# --- the first byte -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads_on", [True, False])
def test_the_first_byte_is_shown_and_left_where_it_is(end: End, reads_on: bool) -> None:
    shown: list[bytes] = []

    def greeted(first: bytes) -> bool:
        shown.append(first)
        if not reads_on:
            end.link.pause()
        return reads_on

    end.link.greeted = greeted
    end.turns.settle()
    assert shown == []
    end.far.send(b"hello")
    end.turns.until(lambda: shown)
    end.turns.settle()
    assert shown == [b"h"]
    assert end.handler.data == (b"hello" if reads_on else b"")
    end.link.resume()
    end.turns.until(lambda: end.handler.data == b"hello")
    assert shown == [b"h"]


def test_who_says_nothing_is_shown_with_nothing(end: End) -> None:
    shown: list[bytes] = []
    end.link.greeted = lambda first: shown.append(first) is None
    end.far.shutdown(socket.SHUT_WR)
    end.turns.until(lambda: end.calls)
    assert (shown, end.calls) == ([b""], ["ended"])


# --- sending --------------------------------------------------------------------------------------------


def test_what_is_written_is_sent_at_once(end: End) -> None:
    end.link.write(b"one")
    end.link.write(b"two")
    assert read_all(end.far) == b"onetwo"


def test_what_the_socket_does_not_take_is_sent_later(end: End) -> None:
    end.link.write(MUCH)
    end.link.write(b"behind it")
    end.link.write(b"")
    end.link.write(b" and more")
    assert end.drain(len(MUCH) + 18) == MUCH + b"behind it and more"
    end.turns.settle()
    end.link.write(b"and now?")
    assert end.drain(8) == b"and now?"


def test_a_peer_that_does_not_read_chokes_the_link(end: End) -> None:
    end.link.write(MUCH)
    assert end.link.choking
    assert end.calls == ["choked"]
    end.link.write(MUCH)
    end.turns.settle()
    assert end.calls == ["choked"]
    end.drain(2 * len(MUCH))
    end.turns.until(lambda: not end.link.choking)
    assert end.calls == ["choked", "cleared"]
    end.link.write(MUCH)
    assert end.calls == ["choked", "cleared", "choked"]


def test_a_little_that_is_queued_does_not_choke_the_link(turns: Turns) -> None:
    near, far = turns.pair()
    with contextlib.suppress(BlockingIOError):
        while near.send(b"x" * 100):
            pass
    end = End(turns, (near, far))
    end.link.write(b"x" * HIGH_WATER)
    assert (end.link.choking, end.calls) == (False, [])
    end.link.write(b"x")
    assert (end.link.choking, end.calls) == (True, ["choked"])


def test_sending_and_receiving_go_on_side_by_side(end: End) -> None:
    end.link.write(MUCH)
    end.far.send(b"meanwhile")
    end.turns.until(lambda: end.handler.data == b"meanwhile")
    assert end.drain(len(MUCH)) == MUCH


def test_a_paused_link_sends(end: End) -> None:
    end.link.pause()
    end.link.write(MUCH)
    end.far.send(b"not yet")
    assert end.drain(len(MUCH)) == MUCH
    assert end.handler.data == b""


# --- the end --------------------------------------------------------------------------------------------


def test_the_end_of_input_is_told_after_the_input(end: End) -> None:
    end.far.send(b"last words")
    end.far.shutdown(socket.SHUT_WR)
    end.turns.until(lambda: "ended" in end.calls)
    end.turns.settle()
    assert (end.handler.data, end.calls) == (b"last words", ["received", "ended"])
    assert not end.link.closed


def test_after_the_end_of_input_the_peer_can_be_answered(end: End) -> None:
    end.far.shutdown(socket.SHUT_WR)
    end.turns.until(lambda: end.calls)
    end.link.write(MUCH)
    end.link.resume()
    assert end.drain(len(MUCH)) == MUCH
    assert end.calls == ["ended", "choked", "cleared"]


@pytest.mark.parametrize("epoll", [True])
def test_a_peer_that_is_gone_for_good_after_its_input_has_ended(end: End) -> None:
    end.far.shutdown(socket.SHUT_WR)
    end.turns.until(lambda: end.calls)
    end.far.close()
    end.turns.until(lambda: "lost" in end.calls)
    assert end.calls == ["ended", "lost"]
    assert end.link.closed


def test_a_broken_connection_is_lost(turns: Turns) -> None:
    end = End(turns, turns.tcp_pair())
    reset(end.far)
    turns.until(lambda: end.calls)
    assert end.calls == ["lost"]
    assert isinstance(end.handler.error, ConnectionResetError)
    assert end.link.closed


def test_a_connection_that_breaks_while_paused_is_lost_when_it_is_read(turns: Turns) -> None:
    end = End(turns, turns.tcp_pair())
    end.link.pause()
    reset(end.far)
    turns.settle()
    assert end.calls == []
    end.link.resume()
    turns.until(lambda: end.calls)
    assert end.calls == ["lost"]
    assert isinstance(end.handler.error, ConnectionResetError)


def test_what_came_before_the_peer_went_is_read_after_a_pause(end: End) -> None:
    end.link.pause()
    end.far.send(b"last words")
    end.hang_up()
    end.turns.settle()
    assert end.calls == []
    end.link.resume()
    end.turns.until(lambda: "ended" in end.calls or "lost" in end.calls)
    assert end.handler.data == b"last words"


def test_a_paused_link_whose_peer_has_gone_can_be_written_and_closed(turns: Turns) -> None:
    end = End(turns, turns.tcp_pair())
    end.link.pause()
    reset(end.far)
    turns.settle()
    end.link.write(b"anybody there?")
    end.link.close()
    turns.until(lambda: "lost" in end.calls)
    assert end.calls == ["lost"]


@pytest.mark.parametrize("epoll", [True])
def test_writing_to_a_broken_connection_is_no_error(turns: Turns) -> None:
    end = End(turns, turns.tcp_pair())
    reset(end.far)
    for _ in range(3):
        end.link.write(b"anybody there?")
    turns.until(lambda: "lost" in end.calls)
    told = list(end.calls)
    end.link.write(b"no")
    end.link.pause()
    end.link.resume()
    end.link.close()
    end.link.abort()
    turns.settle()
    assert end.calls == told


def test_a_connection_that_breaks_with_data_queued_is_lost(turns: Turns) -> None:
    end = End(turns, turns.tcp_pair())
    end.link.write(MUCH)
    reset(end.far)
    turns.until(lambda: "lost" in end.calls)
    turns.settle()
    assert end.calls == ["choked", "lost"]


def test_closing_is_told_in_the_next_turn(end: End) -> None:
    end.link.write(b"good bye")
    end.link.close()
    assert end.link.closed
    assert end.calls == []
    end.link.write(b"too late")
    end.link.close()
    assert read_all(end.far) == b"good bye"
    assert end.far.recv(1) == b""
    end.turns.until(lambda: end.calls)
    end.turns.settle()
    assert (end.calls, end.handler.error) == (["lost"], None)


def test_what_is_queued_is_sent_before_the_connection_is_closed(end: End) -> None:
    end.link.write(MUCH)
    end.link.close()
    assert end.link.closed
    end.link.write(b"too late")
    assert end.drain(len(MUCH)) == MUCH
    end.turns.until(lambda: "lost" in end.calls)
    assert end.calls == ["choked", "lost"]


def test_a_closed_connection_is_not_read_while_it_lingers(end: End) -> None:
    end.link.write(MUCH)
    end.link.close()
    end.far.send(b"not read any more")
    end.turns.settle()
    assert (end.handler.data, end.calls) == (b"", ["choked"])


def test_a_closed_connection_does_not_linger_for_ever(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.net.link.LINGER", 0.02)
    end.link.write(MUCH)
    end.link.close()
    end.turns.settle()
    assert end.calls == ["choked"]
    end.turns.until(lambda: "lost" in end.calls)
    assert len(read_all(end.far)) < len(MUCH)


def test_a_lingering_connection_that_breaks_is_lost(turns: Turns) -> None:
    end = End(turns, turns.tcp_pair())
    end.link.write(MUCH)
    end.link.close()
    reset(end.far)
    turns.until(lambda: "lost" in end.calls)
    assert end.calls == ["choked", "lost"]


def test_aborting_drops_what_is_queued(end: End) -> None:
    end.link.write(MUCH)
    end.link.abort()
    assert end.link.closed
    end.link.abort()
    end.turns.until(lambda: "lost" in end.calls)
    end.turns.settle()
    assert (end.calls, end.handler.error) == (["choked", "lost"], None)
    assert len(read_all(end.far)) < len(MUCH)


def test_a_lingering_connection_can_be_aborted(end: End) -> None:
    end.link.write(MUCH)
    end.link.close()
    end.link.abort()
    end.turns.settle()
    assert end.calls == ["choked", "lost"]


def test_a_link_that_was_never_attached_is_closed(turns: Turns) -> None:
    handler = Recorder()
    link = Link(turns.poller, turns.loop, handler)
    assert link.closed
    link.write(b"x")
    link.close()
    link.abort()
    turns.settle()
    assert handler.calls == []


@pytest.mark.parametrize("how", [Link.close, Link.abort], ids=["close", "abort"])
def test_a_handler_may_end_its_link(end: End, how: Callable[[Link], None]) -> None:
    class Ending(Recorder):
        def received(self, data: bytes) -> None:
            super().received(data)
            how(end.link)

    end.link.handler = handler = Ending()
    end.far.send(b"x" * 200_000)
    end.turns.until(lambda: "lost" in handler.calls)
    assert handler.calls == ["received", "lost"]


def test_descriptors_are_used_again(turns: Turns) -> None:
    """Connections that come and go get the same descriptor; none hears of another."""
    for number in range(20):
        end = End(turns)
        word = b"%d" % number
        end.far.send(word)
        turns.until(lambda end=end: end.handler.data)
        assert end.handler.data == word
        if number % 2:
            end.link.close()
        else:
            end.hang_up()
            turns.until(lambda end=end: end.calls[-1:] in (["ended"], ["lost"]))
            end.link.abort()
        turns.settle()
        assert end.calls.count("lost") == 1
    assert len(turns.poller) == 0


# --- failures -------------------------------------------------------------------------------------------


def test_a_handler_that_fails_loses_its_connection_and_no_other(turns: Turns) -> None:
    class Failing(Recorder):
        def received(self, data: bytes) -> None:
            raise ValueError("a bug")

    bad, good = End(turns), End(turns)
    bad.link.handler = handler = Failing()
    bad.far.send(b"x")
    good.far.send(b"x")
    turns.until(lambda: handler.calls and good.calls)
    assert (handler.calls, good.calls) == (["lost"], ["received"])
    assert [str(context["exception"]) for context in turns.errors] == ["a bug"]
    turns.errors.clear()


# --- names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (("127.0.0.1", 5432), "127.0.0.1:5432"),
        (("::1", 5432, 0, 0), "[::1]:5432"),
        ("", "unix"),
        ("/run/postgresql/.s.PGSQL.5432", "unix"),
        (None, "unix"),
    ],
)
def test_a_peer_has_a_name(address: object, name: str) -> None:
    assert peer_name(address) == name
