"""The pool opens servers, hands them over, lets wait and turns away."""

import pytest
from support.guests import Guest, Scene

from protocol.messages.backend import ErrorResponse
from proxy.server.handshake import ConnectFailure, FailureKind
from proxy.server.pool import FIRST_RETRY, LONGEST_RETRY, Refusal


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- opening --------------------------------------------------------------------------------------------


def test_a_server_is_opened_for_who_wants_one(scene: Scene) -> None:
    scene.primary.at_once = False
    guest = scene.guest("parameters").wants()
    assert guest.waiting
    assert scene.attempt.parameters == "parameters"
    scene.attempt.succeed()
    assert guest.server is not None
    assert (guest.server.pid, guest.server.flavour) == (1001, guest.flavour)
    assert scene.figures == (1, 0, 1)
    assert (scene.pool.acquired_total, scene.pool.waits_total) == (1, 1)


def test_an_idle_server_is_given_at_once(scene: Scene) -> None:
    first = scene.guest().wants()
    server = first.server
    first.returns()
    guest = scene.guest().wants()
    assert guest.server is server
    assert (scene.pool.acquired_total, scene.pool.waits_total) == (2, 1)
    assert scene.figures == (1, 0, 1)


def test_what_a_server_says_at_log_in_is_remembered_while_one_is_there(scene: Scene) -> None:
    guest = scene.guest().wants()
    assert guest.flavour.greeting.pid == 1001
    guest.backend.hangs_up()
    assert guest.flavour.greeting is None


def test_the_line_is_served_in_order(scene: Scene) -> None:
    guests = [scene.guest().wants() for _ in range(5)]
    assert [guest.waiting for guest in guests] == [False, False, True, True, True]
    guests[1].returns()
    guests[0].returns()
    assert [guest.waiting for guest in guests] == [False, False, False, False, True]


def test_who_leaves_the_line_makes_room(scene: Scene) -> None:
    guests = [scene.guest().wants() for _ in range(4)]
    scene.pool.leave(guests[2])
    guests[0].returns()
    assert guests[2].server is None
    assert guests[3].server is not None


def test_other_parameters_want_other_servers() -> None:
    scene = Scene(size=1)
    first = scene.guest("a").wants()
    other = scene.guest("b").wants()
    assert other.waiting
    server = first.server
    first.returns()
    assert other.server is not None
    assert other.server is not server
    assert scene.primary.backends[0].link.closed
    assert scene.figures == (2, 1, 1)


# --- failures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FailureKind.UNREACHABLE, FailureKind.BUSY])
def test_what_may_pass_is_tried_again_less_and_less_often(scene: Scene, kind: FailureKind) -> None:
    scene.primary.at_once = False
    guest = scene.guest().wants()
    delays = []
    for _ in range(8):
        scene.attempt.fail(kind, "08001")
        assert guest.waiting
        assert scene.primary.attempts == []
        delays.append(min(scene.loop.timers) - scene.loop.now)
        scene.loop.advance(delays[-1])
    assert delays[:3] == pytest.approx([FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY])
    assert max(delays) == delays[-1] == pytest.approx(LONGEST_RETRY)
    assert scene.pool.connect_errors_total == 8
    scene.attempt.succeed()
    assert guest.server is not None


def test_who_comes_meanwhile_does_not_try_earlier(scene: Scene) -> None:
    scene.primary.at_once = False
    guests = [scene.guest().wants()]
    scene.attempt.fail()
    guests += [scene.guest().wants() for _ in range(5)]
    scene.pool.leave(guests[0])
    assert scene.primary.attempted == 1
    scene.loop.advance(FIRST_RETRY)
    assert len(scene.primary.attempts) == 2


def test_after_a_success_nobody_is_patient(scene: Scene) -> None:
    scene.primary.at_once = False
    one, two = scene.guest().wants(), scene.guest().wants()
    first, second = scene.primary.attempts
    first.fail()
    second.succeed()
    assert one.server is not None
    assert len(scene.primary.attempts) == 1
    assert two.waiting
    scene.attempt.fail()
    assert min(scene.loop.timers) - scene.loop.now == pytest.approx(FIRST_RETRY)


def test_with_nobody_waiting_nothing_is_tried_again(scene: Scene) -> None:
    scene.primary.at_once = False
    guest = scene.guest().wants()
    scene.pool.leave(guest)
    scene.attempt.fail()
    scene.loop.advance(10.0)
    assert scene.primary.attempted == 1
    scene.guest().wants()
    assert scene.primary.attempted == 2


def test_a_server_that_refuses_is_quoted(scene: Scene) -> None:
    scene.primary.at_once = False
    guests = [scene.guest().wants() for _ in range(3)]
    response = ErrorResponse.of("FATAL", "3D000", 'database "x" does not exist', detail="none such")
    failure = ConnectFailure(FailureKind.REFUSED, "3D000", response.message, response)
    scene.primary.attempts[0].fail_with(failure)
    for guest in guests:
        assert guest.refusal is not None
        assert (guest.refusal.sqlstate, guest.refusal.message) == ("3D000", 'database "x" does not exist')
        assert guest.refusal.detail == "none such"
    assert scene.pool.connect_errors_total == 1


def test_a_refusal_concerns_only_those_with_the_same_parameters(scene: Scene) -> None:
    scene.primary.at_once = False
    bad, good = scene.guest("bad").wants(), scene.guest("good").wants()
    scene.primary.attempts[0].fail(FailureKind.REFUSED, "22023", "invalid value for parameter")
    assert bad.refusal is not None
    assert good.waiting
    scene.attempt.succeed()
    assert good.server is not None


def test_a_server_lost_before_it_is_handed_over_is_tried_again(scene: Scene) -> None:
    scene.primary.at_once = False
    guest = scene.guest().wants()
    scene.attempt.succeed(lost=True)
    assert guest.waiting
    assert scene.figures == (0, 0, 0)
    scene.loop.advance(FIRST_RETRY)
    scene.attempt.succeed()
    assert guest.server is not None


def test_an_error_nobody_expected_is_logged_and_tried_again(scene: Scene) -> None:
    scene.primary.at_once = False
    guest = scene.guest().wants()
    scene.attempt.fail_with(ZeroDivisionError("a bug"))
    assert scene.log.lines == [("error", "opening a server connection failed")]
    scene.loop.advance(FIRST_RETRY)
    scene.attempt.succeed()
    assert guest.server is not None


# --- waiting too long -----------------------------------------------------------------------------------


def late(*guests: Guest, seconds: float) -> None:
    for guest in guests:
        guest.waiting_since -= seconds


def test_who_waits_too_long_is_told_how_things_stand() -> None:
    scene = Scene(size=1, wait_timeout=30.0)
    scene.guest().wants()
    guests = [scene.guest().wants() for _ in range(3)]
    late(guests[0], seconds=40)
    scene.loop.advance(30.0)
    assert [guest.waiting for guest in guests] == [False, True, True]
    assert guests[0].refusal == Refusal(
        "53300",
        'pool "user@database" is exhausted: 1 of 1 servers busy, 3 clients waiting, '
        "waited 30 s (pool_wait_timeout)",
    )
    late(guests[1], guests[2], seconds=40)
    scene.loop.advance(30.0)
    assert [guest.waiting for guest in guests] == [False] * 3
    assert scene.pool.wait_seconds_total >= 100.0


def test_who_comes_later_has_his_own_time() -> None:
    scene = Scene(size=1, wait_timeout=30.0)
    first = scene.guest().wants()
    waiter = scene.guest().wants()
    first.returns()
    assert waiter.server is not None
    another = scene.guest().wants()
    scene.loop.advance(30.0)
    assert another.waiting
    assert len(scene.loop.timers) == 1
    late(another, seconds=30)
    scene.loop.advance(31.0)
    assert another.refusal is not None


def test_who_waits_for_a_server_that_can_not_be_reached_is_told_so() -> None:
    scene = Scene()
    scene.primary.at_once = False
    guest = scene.guest().wants()
    scene.attempt.fail(message="could not connect to server at example:5432: Connection refused")
    late(guest, seconds=31)
    scene.loop.advance(30.0)
    assert guest.refusal == Refusal(
        "08001",
        "could not connect to server at example:5432: Connection refused",
        "waited 30 s (pool_wait_timeout)",
    )


def test_when_nobody_waits_nothing_expires() -> None:
    scene = Scene(size=1)
    guest = scene.guest().wants()
    guest.returns()
    scene.loop.advance(100.0)
    assert scene.loop.timers == []


def test_who_waits_for_a_server_that_is_busy_is_told_its_reason() -> None:
    scene = Scene()
    scene.primary.at_once = False
    guest = scene.guest().wants()
    response = ErrorResponse.of("FATAL", "53300", "sorry, too many clients already", detail="so many")
    scene.attempt.fail_with(ConnectFailure(FailureKind.BUSY, "53300", response.message, response))
    late(guest, seconds=31)
    scene.loop.advance(30.0)
    assert guest.refusal is not None
    assert (guest.refusal.sqlstate, guest.refusal.message) == ("53300", "sorry, too many clients already")


def test_a_full_pool_that_also_could_not_grow_says_why() -> None:
    scene = Scene(size=2)
    scene.guest().wants()
    scene.primary.at_once = False
    guest = scene.guest().wants()
    scene.attempt.fail(FailureKind.BUSY, "53300", "sorry, too many clients already")
    late(guest, seconds=31)
    scene.loop.advance(30.0)
    assert guest.refusal is not None
    assert guest.refusal.message.startswith('pool "user@database" is exhausted: 1 of 2 servers busy')
    assert guest.refusal.detail == "sorry, too many clients already"
