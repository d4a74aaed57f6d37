import os
import socket
from collections.abc import Callable

import pytest
from support.sockets import Turns

from proxy.net.poller import BROKEN, READABLE, WRITABLE, Pollable


class Watched(Pollable):
    """Notes what it is told; `then` is done with it, e.g. to read."""

    def __init__(self, sock: socket.socket, then: Callable[[int], object] = lambda _: None) -> None:
        self.sock = sock
        self.then = then
        self.events: list[int] = []
        self.errors: list[Exception] = []

    def ready(self, events: int) -> None:
        self.events.append(events)
        self.then(events)

    def failed(self, error: Exception) -> None:
        self.errors.append(error)


class Reader(Watched):
    """Reads what there is."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, self.read)
        self.data = b""

    def read(self, events: int) -> None:
        if events & READABLE:
            self.data += self.sock.recv(1000)


def test_who_can_read_is_told(turns: Turns) -> None:
    near, far = turns.pair()
    reader = Reader(near)
    turns.poller.add(near.fileno(), reader, READABLE)
    turns.settle()
    assert reader.events == []
    far.send(b"one")
    turns.until(lambda: reader.data == b"one")
    far.send(b"two")
    turns.until(lambda: reader.data == b"onetwo")
    assert all(events & READABLE for events in reader.events)


def test_who_does_not_read_is_told_again(turns: Turns) -> None:
    near, far = turns.pair()
    watched = Watched(near)
    turns.poller.add(near.fileno(), watched, READABLE)
    far.send(b"x")
    turns.until(lambda: len(watched.events) > 2)


def test_who_can_write_is_told(turns: Turns) -> None:
    near, _ = turns.pair()
    watched = Watched(near)
    turns.poller.add(near.fileno(), watched, READABLE)
    turns.poller.change(near.fileno(), READABLE | WRITABLE)
    turns.until(lambda: watched.events)
    assert watched.events[0] == WRITABLE
    turns.poller.change(near.fileno(), READABLE)
    turns.settle()
    told = len(watched.events)
    turns.settle()
    assert len(watched.events) == told


def test_who_wants_nothing_is_told_nothing(turns: Turns) -> None:
    near, far = turns.pair()
    watched = Watched(near)
    turns.poller.add(near.fileno(), watched, READABLE)
    turns.poller.change(near.fileno(), 0)
    far.send(b"x")
    turns.settle()
    assert watched.events == []
    turns.poller.change(near.fileno(), READABLE)
    turns.until(lambda: watched.events)


@pytest.mark.parametrize("epoll", [True])
def test_a_broken_connection_is_told_in_any_case(turns: Turns) -> None:
    near, far = turns.pair()
    watched = Watched(near, lambda _: turns.poller.remove(near.fileno()))
    turns.poller.add(near.fileno(), watched, 0)
    far.close()
    turns.until(lambda: watched.events)
    assert watched.events[0] & BROKEN


def test_nothing_is_told_after_removal(turns: Turns) -> None:
    near, far = turns.pair()
    watched = Watched(near)
    turns.poller.add(near.fileno(), watched, READABLE | WRITABLE)
    assert len(turns.poller) == 1
    turns.poller.remove(near.fileno())
    turns.poller.remove(near.fileno())
    assert len(turns.poller) == 0
    far.send(b"x")
    turns.settle()
    assert watched.events == []


def test_who_is_removed_by_another_in_the_same_turn_is_told_nothing(turns: Turns) -> None:
    pairs = [turns.pair() for _ in range(2)]
    watched: list[Watched] = []

    def remove_the_other(_: int) -> None:
        for one in watched:
            turns.poller.remove(one.sock.fileno())

    for near, far in pairs:
        watched.append(Watched(near, remove_the_other))
        far.send(b"x")
    for one in watched:
        turns.poller.add(one.sock.fileno(), one, READABLE)
    turns.until(lambda: any(one.events for one in watched))
    turns.settle()
    assert sorted(len(one.events) for one in watched) == [0, 1]


def test_a_descriptor_that_is_used_again_is_another_connection(turns: Turns) -> None:
    near, far = turns.pair()
    first, second = Reader(near), Reader(turns.pair()[0])
    fd = near.fileno()
    turns.poller.add(fd, first, READABLE)
    far.send(b"to nobody")
    turns.poller.remove(fd)
    os.dup2(second.sock.fileno(), fd)
    turns.poller.add(fd, second, READABLE)
    turns.settle()
    assert (first.events, second.events) == ([], [])


@pytest.mark.parametrize("epoll", [True])
def test_what_was_to_be_told_to_one_is_not_told_to_the_next_of_the_same_descriptor(turns: Turns) -> None:
    """Who is served first in a turn closes the other, whose connection is broken, and a new connection gets
    its descriptor at once: that is not broken.
    """
    (busy, far), (broken, broken_far), (fresh, _) = turns.pair(), turns.pair(), turns.pair()
    fd = broken.fileno()
    after, before = Watched(fresh), Watched(broken)

    def exchange(_: int) -> None:
        busy.recv(1)
        turns.poller.remove(fd)
        os.dup2(fresh.fileno(), fd)
        turns.poller.add(fd, after, READABLE)

    far.send(b"x")
    turns.poller.add(busy.fileno(), Watched(busy, exchange), READABLE)
    turns.poller.add(fd, before, 0)
    broken_far.close()
    turns.settle()
    assert before.events == [], "the order of the events is not what the test is made for"
    assert after.events == []


def test_many_are_all_served(turns: Turns) -> None:
    readers = []
    for _ in range(300):
        near, far = turns.pair()
        readers.append(Reader(near))
        turns.poller.add(near.fileno(), readers[-1], READABLE)
        far.send(b"x")
    turns.until(lambda: all(reader.data == b"x" for reader in readers))
    assert len(turns.poller) == 300


def test_others_are_served_when_one_fails(turns: Turns) -> None:
    def fail(_: int) -> None:
        turns.poller.remove(bad.sock.fileno())
        raise ValueError("a bug")

    good = []
    near, far = turns.pair()
    bad = Watched(near, fail)
    far.send(b"x")
    turns.poller.add(near.fileno(), bad, READABLE)
    for near, far in [turns.pair() for _ in range(2)]:
        good.append(Reader(near))
        turns.poller.add(near.fileno(), good[-1], READABLE)
        far.send(b"x")
    turns.until(lambda: all(reader.data == b"x" for reader in good))
    assert [str(error) for error in bad.errors] == ["a bug"]
    (context,) = turns.errors
    assert (str(context["exception"]), context["message"]) == ("a bug", "a connection's handler failed")
    turns.errors.clear()


def test_a_closed_poller_tells_nothing(turns: Turns) -> None:
    near, far = turns.pair()
    watched = Watched(near)
    turns.poller.add(near.fileno(), watched, READABLE)
    far.send(b"x")
    turns.poller.close()
    turns.settle()
    assert (watched.events, len(turns.poller)) == ([], 0)


def test_a_handler_may_close_the_poller(turns: Turns) -> None:
    pairs = [turns.pair() for _ in range(3)]
    told = []
    for near, far in pairs:
        watched = Watched(near, lambda _: (told.append(1), turns.poller.close()))
        turns.poller.add(near.fileno(), watched, READABLE)
        far.send(b"x")
    turns.settle()
    assert told == [1]
