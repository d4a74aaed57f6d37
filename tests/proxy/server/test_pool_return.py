"""Servers that come back to the pool: kept, reset, closed, lost; and the pool's end."""

import pytest
from support.guests import Scene

from proxy.server.pool import Refusal


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- giving back ----------------------------------------------------------------------------------------


def test_a_server_that_is_to_retire_is_closed(scene: Scene) -> None:
    guest = scene.guest().wants()
    backend, server = guest.backend, guest.server
    assert server is not None
    server.retire = "for a reason"
    guest.returns()
    assert backend.link.closed
    assert backend.asked() == ["Terminate"]
    assert scene.figures == (1, 1, 0)


def test_a_server_that_retires_makes_room_for_who_waits() -> None:
    scene = Scene(size=1)
    guest, waiter = scene.guest().wants(), scene.guest().wants()
    assert guest.server is not None
    guest.server.retire = "for a reason"
    guest.returns()
    assert waiter.server is not None
    assert scene.figures == (2, 1, 1)


def test_a_server_is_kept_back_while_a_cancel_is_on_its_way() -> None:
    """Whoever came next could be hit by it."""
    scene = Scene(size=1)
    guest, waiter = scene.guest().wants(), scene.guest().wants()
    server = guest.server
    assert server is not None
    server.cancels = 2
    guest.returns()
    scene.pool.cancel_over(server)
    assert waiter.waiting
    assert scene.pool.assignment.idle == 0
    scene.pool.cancel_over(server)
    assert waiter.server is server


def test_a_cancel_that_is_over_before_the_server_comes_back_is_forgotten(scene: Scene) -> None:
    guest = scene.guest().wants()
    server = guest.server
    assert server is not None
    server.cancels = 1
    scene.pool.cancel_over(server)
    assert guest.server is server
    guest.returns()
    assert scene.pool.assignment.idle == 1


def test_a_server_that_is_lost_while_kept_back(scene: Scene) -> None:
    guest = scene.guest().wants()
    backend, server = guest.backend, guest.server
    assert server is not None
    server.cancels = 1
    guest.returns()
    backend.hangs_up()
    assert scene.figures == (1, 1, 0)
    scene.pool.cancel_over(server)
    assert scene.figures == (1, 1, 0)


@pytest.mark.parametrize("state", ["idle", "in use", "opening"])
def test_a_lost_server_is_replaced_for_who_waits(state: str) -> None:
    scene = Scene(size=1)
    guest = scene.guest().wants()
    backend = guest.backend
    if state == "idle":
        guest.returns()
        backend.hangs_up()
        assert scene.figures == (1, 1, 0)
        assert scene.guest().wants().server is not None
    else:
        waiter = scene.guest().wants()
        backend.hangs_up()
        assert waiter.server is not None
    assert scene.figures == (2, 1, 1)


def test_a_server_that_broke_while_idle_is_given_to_nobody(scene: Scene) -> None:
    """Its loss is told only in the next turn."""
    guest = scene.guest().wants()
    backend, server = guest.backend, guest.server
    guest.returns()
    backend.link.closed = True
    again = scene.guest().wants()
    assert again.server is not None
    assert again.server is not server
    backend.link.connection_lost(None)
    assert scene.figures == (2, 1, 1)


# --- abandoned servers ----------------------------------------------------------------------------------


def test_a_clean_server_that_is_abandoned_is_given_back(scene: Scene) -> None:
    guest = scene.guest().wants()
    guest.abandons()
    assert (scene.pool.assignment.idle, scene.primary.cancelled) == (1, [])


@pytest.mark.parametrize("status", ["T", "E"])
def test_an_abandoned_transaction_is_rolled_back(scene: Scene, status: str) -> None:
    guest = scene.guest().wants()
    backend = guest.backend
    guest.sends("Q")
    backend.says(f"C Z:{status}")
    guest.abandons()
    assert backend.asked() == ["Query ROLLBACK"]
    assert scene.pool.assignment.idle == 0
    backend.says("N:warning C:ROLLBACK Z")
    assert (scene.pool.assignment.idle, scene.primary.cancelled) == (1, [])


@pytest.mark.parametrize("answer", ["E:57014 Z", "E:XX000 Z:E", "C:ROLLBACK Z:T"])
def test_a_transaction_that_can_not_be_rolled_back_costs_the_server(scene: Scene, answer: str) -> None:
    guest = scene.guest().wants()
    backend = guest.backend
    guest.sends("Q")
    backend.says("C Z:T")
    guest.abandons()
    backend.says(answer)
    assert backend.link.closed
    assert scene.figures == (1, 1, 0)


@pytest.mark.parametrize("kinds", ["Q", "PBES", "PBE", "P", "F"])
def test_a_server_that_still_has_work_is_cancelled_and_closed(scene: Scene, kinds: str) -> None:
    guest = scene.guest().wants()
    backend, server = guest.backend, guest.server
    guest.sends(kinds)
    guest.abandons()
    assert scene.primary.cancelled == [server]
    assert backend.link.closed
    assert scene.figures == (1, 1, 0)
    assert server is not None
    scene.pool.cancel_over(server)
    assert scene.figures == (1, 1, 0)


def test_a_server_that_skips_is_closed(scene: Scene) -> None:
    guest = scene.guest().wants()
    backend = guest.backend
    guest.sends("PQ")
    backend.says("E:42601")
    guest.abandons()
    assert backend.link.closed


@pytest.mark.parametrize("why", ["retire", "closed"])
def test_a_broken_server_that_is_abandoned_is_closed(scene: Scene, why: str) -> None:
    guest = scene.guest().wants()
    backend, server = guest.backend, guest.server
    assert server is not None
    if why == "retire":
        server.retire = "for a reason"
    else:
        backend.link.closed = True
        guest.sends("Q")
    guest.abandons()
    assert backend.link.closed
    assert (scene.figures, scene.primary.cancelled) == ((1, 1, 0), [])


def test_an_abandoned_server_is_read_again(scene: Scene) -> None:
    guest = scene.guest().wants()
    backend = guest.backend
    backend.link.pause()
    guest.abandons()
    assert not backend.link.paused


# --- session mode ---------------------------------------------------------------------------------------


def test_in_session_mode_a_server_is_reset_between_sessions() -> None:
    scene = Scene(size=1, session_mode=True)
    guest, waiter = scene.guest().wants(), scene.guest().wants()
    backend = guest.backend
    guest.abandons()
    assert backend.asked() == ["Query DISCARD ALL"]
    assert waiter.waiting
    backend.says("C:DISCARD-ALL Z")
    assert waiter.backend is backend


def test_a_transaction_is_rolled_back_before_the_reset() -> None:
    scene = Scene(session_mode=True)
    guest = scene.guest().wants()
    backend = guest.backend
    guest.sends("Q")
    backend.says("C Z:T")
    guest.abandons()
    assert backend.asked() == ["Query ROLLBACK"]
    backend.says("C:ROLLBACK Z")
    assert backend.asked() == ["Query DISCARD ALL"]
    backend.says("C:DISCARD-ALL Z")
    assert scene.pool.assignment.idle == 1
    # And so it goes with the next.
    again = scene.guest().wants()
    again.abandons()
    assert backend.asked() == ["Query DISCARD ALL"]


@pytest.mark.parametrize("answer", ["E:57014 Z", "E:25001 Z:E"])
def test_a_server_that_can_not_be_reset_is_closed(answer: str) -> None:
    scene = Scene(session_mode=True)
    guest = scene.guest().wants()
    backend = guest.backend
    guest.abandons()
    backend.says(answer)
    assert backend.link.closed
    assert scene.figures == (1, 1, 0)


def test_a_server_lost_during_its_reset_is_gone() -> None:
    scene = Scene(size=1, session_mode=True)
    guest, waiter = scene.guest().wants(), scene.guest().wants()
    backend = guest.backend
    guest.abandons()
    backend.hangs_up()
    assert scene.figures == (2, 1, 1)
    assert waiter.server is not None


def test_a_reset_waits_for_a_cancel() -> None:
    scene = Scene(session_mode=True)
    guest = scene.guest().wants()
    backend, server = guest.backend, guest.server
    assert server is not None
    server.cancels = 1
    guest.abandons()
    assert backend.asked() == []
    scene.pool.cancel_over(server)
    assert backend.asked() == ["Query DISCARD ALL"]


# --- the end --------------------------------------------------------------------------------------------


def test_sessions_are_counted(scene: Scene) -> None:
    flavour = scene.pool.assignment.flavour("a")
    scene.pool.session_began(flavour)
    scene.pool.session_began(flavour)
    scene.pool.session_ended(flavour)
    assert (scene.pool.sessions, flavour.sessions) == (1, 1)


def test_a_pool_that_shuts_turns_away_who_waits_and_closes_what_is_idle() -> None:
    scene = Scene(size=2)
    used, idle = scene.guest().wants(), scene.guest().wants()
    backends = used.backend, idle.backend
    idle.returns()
    other, waiter = scene.guest().wants(), scene.guest().wants()
    refusal = Refusal("57P01", "shutting down")
    scene.pool.shut(refusal)
    assert waiter.refusal == refusal
    assert not backends[0].link.closed
    assert scene.loop.timers == []
    for guest in (used, other):
        guest.returns()
    assert all(backend.link.closed for backend in backends)
    assert scene.figures == (2, 2, 0)


def test_a_server_that_comes_too_late_is_closed(scene: Scene) -> None:
    scene.primary.at_once = False
    scene.guest().wants()
    scene.pool.shut(Refusal("57P01", "shutting down"))
    backend = scene.attempt.succeed()
    assert backend.link.closed
    assert scene.figures == (0, 0, 0)


def test_a_pool_can_be_ended_at_once(scene: Scene) -> None:
    scene.guest().wants()
    idle = scene.guest().wants()
    idle.returns()
    scene.primary.at_once = False
    scene.guest().wants()
    scene.guest().wants()
    scene.pool.abort()
    scene.loop.run()
    assert all(backend.link.closed for backend in scene.primary.backends)
    assert scene.pool.servers == set()
    assert scene.loop.errors == []


def test_what_breaks_is_logged(scene: Scene) -> None:
    guest = scene.guest().wants()
    guest.backend.says("Z")
    assert [level for level, _ in scene.log.lines] == ["error", "info"]
    assert scene.pool.name == "user@database"


def test_a_server_whose_reset_ends_after_the_pool_has_shut_is_closed() -> None:
    scene = Scene(session_mode=True)
    guest = scene.guest().wants()
    backend = guest.backend
    guest.abandons()
    scene.pool.shut(Refusal("57P01", "shutting down"))
    assert backend.link.closed
    backend.says("C:DISCARD-ALL Z")
    assert scene.figures == (1, 1, 0)
