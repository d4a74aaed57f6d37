"""The pool's rules one by one; `test_assignment_simulation` has them all at once."""

import pytest

from proxy.server.assignment import Assignment, Close, Decision, Flavour, Grant, Open


class Scene:
    """An assignment whose decisions are carried out at once, but for opening, which the test completes."""

    def __init__(self, size: int) -> None:
        self.pool = Assignment(size)
        self.opening: list[Flavour] = []
        self.granted: list[tuple[str, str]] = []
        self.closed: list[str] = []
        self._opened = 0

    def flavour(self, key: str = "a") -> Flavour:
        return self.pool.flavour(key)

    def apply(self, decisions: list[Decision] | None) -> None:
        for decision in decisions or []:
            if isinstance(decision, Grant):
                self.granted.append((decision.waiter, decision.server))
            elif isinstance(decision, Close):
                self.closed.append(decision.server)
            else:
                assert isinstance(decision, Open)
                self.opening.append(decision.flavour)

    def waits(self, *waiters: str, key: str = "a") -> None:
        for waiter in waiters:
            self.apply(self.pool.wait(waiter, self.flavour(key)))

    def opens(self) -> str:
        """The next connection that was to be opened is there; its name."""
        flavour = self.opening.pop(0)
        self._opened += 1
        server = f"{flavour.key}{self._opened}"
        self.apply(self.pool.opened(server, flavour))
        return server

    def fails(self) -> None:
        self.pool.open_failed(self.opening.pop(0))

    def returns(self, server: str) -> None:
        self.apply(self.pool.give_back(server, self.flavour(server[0])))

    def lost(self, server: str) -> None:
        self.apply(self.pool.gone(server, self.flavour(server[0])))

    def idle(self, count: int, key: str = "a") -> list[str]:
        """That many idle connections, opened one after the other."""
        names = []
        for number in range(count):
            self.waits(f"{key}-{number}", key=key)
            names.append(self.opens())
        for name in names:
            self.returns(name)
        self.granted.clear()
        return names

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.pool.total, self.pool.idle, self.pool.opening


def test_the_first_who_comes_makes_a_connection_be_opened() -> None:
    scene = Scene(2)
    assert scene.pool.take(scene.flavour()) is None
    scene.waits("w")
    assert (scene.opening, scene.granted, scene.counts) == ([scene.flavour()], [], (1, 0, 1))
    scene.opens()
    assert (scene.granted, scene.counts) == ([("w", "a1")], (1, 0, 0))


def test_an_idle_connection_is_taken_at_once() -> None:
    scene = Scene(2)
    (server,) = scene.idle(1)
    assert scene.counts == (1, 1, 0)
    assert scene.pool.take(scene.flavour()) == server
    assert scene.counts == (1, 0, 0)


def test_the_connection_used_last_is_handed_out_first() -> None:
    scene = Scene(3)
    servers = scene.idle(3)
    assert [scene.pool.take(scene.flavour()) for _ in servers] == servers[::-1]


def test_nobody_overtakes_who_waits() -> None:
    scene = Scene(1)
    scene.waits("first", "second", key="a")
    server = scene.opens()
    assert scene.granted == [("first", server)]
    scene.returns(server)
    assert scene.granted == [("first", server), ("second", server)]


def test_what_comes_back_goes_to_the_first_in_the_line() -> None:
    scene = Scene(1)
    scene.waits("w1", "w2", "w3")
    server = scene.opens()
    assert scene.pool.next_waiter(scene.flavour()) == "w2"
    assert scene.pool.next_waiter(scene.flavour()) == "w3"
    assert scene.pool.next_waiter(scene.flavour()) is None
    scene.returns(server)
    assert (scene.granted, scene.counts) == ([("w1", server)], (1, 1, 0))


def test_every_waiter_makes_a_connection_be_opened_up_to_the_size() -> None:
    scene = Scene(3)
    scene.waits(*(f"w{number}" for number in range(5)))
    assert (len(scene.opening), scene.counts) == (3, (3, 0, 3))
    for _ in range(3):
        scene.opens()
    assert [waiter for waiter, _ in scene.granted] == ["w0", "w1", "w2"]


def test_a_connection_on_its_way_is_not_opened_twice() -> None:
    scene = Scene(5)
    scene.waits("w1", "w2")
    scene.apply(scene.pool.plan())
    assert len(scene.opening) == 2


def test_a_connection_nobody_waits_for_any_more_becomes_idle() -> None:
    scene = Scene(2)
    scene.waits("w")
    assert scene.pool.leave("w")
    assert not scene.pool.leave("w")
    scene.opens()
    assert (scene.granted, scene.counts) == ([], (1, 1, 0))


def test_a_failed_connection_counts_no_more() -> None:
    scene = Scene(1)
    scene.waits("w")
    scene.fails()
    assert (scene.counts, len(scene.pool.waiters)) == ((0, 0, 0), 1)
    scene.apply(scene.pool.plan())
    scene.opens()
    assert scene.granted == [("w", "a1")]


def test_while_it_is_patient_nothing_is_opened() -> None:
    scene = Scene(2)
    scene.pool.patient = True
    scene.waits("w1", "w2")
    assert not scene.opening
    scene.pool.patient = False
    scene.apply(scene.pool.plan())
    assert len(scene.opening) == 2


def test_while_it_is_patient_idle_connections_are_handed_out() -> None:
    scene = Scene(2)
    (server,) = scene.idle(1)
    scene.pool.patient = True
    scene.waits("b-waiter", key="b")
    scene.waits("a-waiter")
    assert (scene.granted, scene.opening, scene.closed) == ([("a-waiter", server)], [], [])


@pytest.mark.parametrize("idle", [True, False])
def test_a_lost_connection_makes_room(idle: bool) -> None:
    scene = Scene(1)
    (server,) = scene.idle(1)
    if not idle:
        assert scene.pool.take(scene.flavour()) == server
        scene.waits("w")
        assert not scene.opening
    scene.lost(server)
    assert scene.counts == ((0, 0, 0) if idle else (1, 0, 1))


def test_who_was_given_a_broken_connection_is_first_again() -> None:
    scene = Scene(1)
    scene.waits("w1", "w2")
    server = scene.opens()
    scene.pool.wait_first("w1", scene.flavour())
    scene.lost(server)
    scene.opens()
    assert [waiter for waiter, _ in scene.granted] == ["w1", "w1"]


# --- flavours -------------------------------------------------------------------------------------------


def test_connections_of_another_flavour_are_of_no_use() -> None:
    scene = Scene(2)
    scene.idle(1)
    assert scene.pool.take(scene.flavour("b")) is None
    scene.waits("w", key="b")
    assert scene.opening == [scene.flavour("b")]
    assert not scene.closed


def test_when_there_is_no_room_an_idle_connection_of_another_flavour_gives_way() -> None:
    scene = Scene(3)
    many = scene.idle(2, "a")
    scene.idle(1, "b")
    scene.waits("w", key="c")
    # Of the flavour with most idle ones, the one that was used longest ago.
    assert (scene.closed, scene.opening, scene.counts) == ([many[0]], [scene.flavour("c")], (3, 2, 1))


def test_a_rare_flavour_is_not_overtaken_for_ever() -> None:
    scene = Scene(1)
    scene.waits("a-0")
    server = scene.opens()
    scene.waits("rare", key="b")
    scene.waits("a-1", "a-2")
    assert scene.pool.next_waiter(scene.flavour("a")) is None
    scene.returns(server)
    assert (scene.closed, scene.opening) == ([server], [scene.flavour("b")])
    rare = scene.opens()
    assert scene.granted == [("a-0", server), ("rare", rare)]
    scene.returns(rare)
    scene.opens()
    assert scene.granted[2][0] == "a-1"


def test_who_waits_for_a_connection_on_its_way_does_not_hold_up_others() -> None:
    scene = Scene(2)
    (server,) = scene.idle(1, "a")
    assert scene.pool.take(scene.flavour("a")) == server
    scene.waits("b-waiter", key="b")
    scene.waits("a-waiter", key="a")
    scene.returns(server)
    assert scene.granted == [("a-waiter", server)]
    scene.opens()
    assert scene.granted[1][0] == "b-waiter"


def test_a_flavour_is_one_object_while_it_is_needed() -> None:
    pool = Assignment(1)
    flavour = pool.flavour("a")
    assert pool.flavour("a") is flavour
    assert pool.flavour("b") is not flavour
    flavour.sessions = 1
    pool.forget_flavour(flavour)
    assert pool.flavour("a") is flavour
    flavour.sessions = 0
    pool.forget_flavour(flavour)
    assert pool.flavour("a") is not flavour


@pytest.mark.parametrize("state", ["opening", "idle", "in use", "waiting"])
def test_a_flavour_is_needed_while_it_has_a_connection_or_a_waiter(state: str) -> None:
    scene = Scene(1 if state != "waiting" else 0)
    flavour = scene.flavour()
    scene.waits("w")
    if state in ("idle", "in use"):
        server = scene.opens()
    if state == "idle":
        scene.returns(server)
    scene.pool.forget_flavour(flavour)
    assert scene.flavour() is flavour
    if state == "idle":
        scene.lost(server)
        assert scene.flavour() is not flavour


def test_a_connection_that_comes_back_after_the_last_session_left_is_used_again() -> None:
    """It was busy (with a ROLLBACK, say) when its flavour's last session ended."""
    scene = Scene(1)
    flavour = scene.flavour()
    flavour.sessions = 1
    scene.waits("w")
    server = scene.opens()
    flavour.sessions = 0
    scene.pool.forget_flavour(flavour)
    scene.apply(scene.pool.give_back(server, flavour))
    assert scene.pool.take(scene.flavour()) == server


# --- size -----------------------------------------------------------------------------------------------


def test_a_smaller_pool_closes_idle_connections() -> None:
    scene = Scene(4)
    servers = scene.idle(4)
    scene.apply(scene.pool.resize(1))
    assert (scene.closed, scene.counts) == (servers[:3], (1, 1, 0))


def test_above_the_size_connections_are_closed_as_they_come_back() -> None:
    scene = Scene(3)
    scene.waits("w1", "w2", "w3", "w4")
    servers = [scene.opens() for _ in range(3)]
    scene.apply(scene.pool.resize(1))
    assert (scene.closed, scene.counts) == ([], (3, 0, 0))
    assert scene.pool.next_waiter(scene.flavour()) is None
    scene.returns(servers[0])
    scene.returns(servers[1])
    assert (scene.closed, len(scene.granted)) == (servers[:2], 3)
    scene.returns(servers[2])
    assert scene.granted[3] == ("w4", servers[2])


def test_a_larger_pool_opens_for_who_waits() -> None:
    scene = Scene(1)
    scene.waits("w1", "w2", "w3")
    assert len(scene.opening) == 1
    scene.apply(scene.pool.resize(2))
    assert len(scene.opening) == 2


def test_while_somebody_waits_all_go_through_the_line() -> None:
    scene = Scene(2)
    (server,) = scene.idle(1)
    scene.waits("b-waiter", key="b")
    assert scene.pool.take(scene.flavour("a")) is None
    scene.waits("a-waiter", key="a")
    assert scene.granted == [("a-waiter", server)]
