"""The figures of all workers together: sums, and no counter that goes back."""

import json
import random
from dataclasses import fields, replace

import pytest

from proxy.observe.metrics import ClientFigures, PoolFigures
from proxy.workers.figures import Report, Sums, share

NO_CLIENTS = ClientFigures(0, 0, 0, 0, 0, 0)


def pool(database: str = "shop", **figures: float) -> PoolFigures:
    whole = PoolFigures("app", database, 10, "transaction", 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0)
    return replace(whole, **figures)  # type: ignore[arg-type]


def report(
    *pools: PoolFigures, clients: ClientFigures = NO_CLIENTS, unreachable: str | None = None
) -> Report:
    return Report(pools, clients, unreachable)


def only(sums: Sums) -> PoolFigures:
    (found,) = sums.pools()
    return found


def test_pools_and_clients_add_up() -> None:
    sums = Sums(20)
    some = ClientFigures(1, 20, 1, 3, 4, 5)
    sums.reported(0, report(pool(active=1, idle=2, opened_total=3, wait_seconds_total=0.5), clients=some))
    sums.reported(1, report(pool(active=4, waiting=7, opened_total=5, wait_seconds_total=0.25), clients=some))
    sums.reported(2, report(pool("other", opened_total=1), clients=some))
    shop, other = sorted(sums.pools(), key=lambda each: each.database, reverse=True)
    assert shop == pool(size=20, active=5, idle=2, waiting=7, opened_total=8, wait_seconds_total=0.75)
    assert other == pool("other", size=20, opened_total=1)
    assert sums.clients() == ClientFigures(3, 60, 3, 9, 12, 15)


def test_a_report_replaces_the_one_before() -> None:
    sums = Sums(20)
    sums.reported(0, report(pool(active=3, acquired_total=10)))
    sums.reported(0, report(pool(active=1, acquired_total=12)))
    assert (only(sums).active, only(sums).acquired_total) == (1, 12)


def test_what_a_dead_worker_counted_stays_and_what_it_had_does_not() -> None:
    sums = Sums(20)
    clients = ClientFigures(7, 70, 6, 5, 4, 3)
    sums.reported(0, report(pool(active=1, acquired_total=10), clients=clients))
    sums.reported(1, report(pool(active=2, acquired_total=100), clients=clients))
    sums.ended(1)
    assert (only(sums).active, only(sums).acquired_total) == (1, 110)
    assert sums.clients() == ClientFigures(7, 140, 6, 10, 8, 6)
    sums.reported(1, report(pool(active=1, acquired_total=1), clients=ClientFigures(1, 1, 0, 0, 0, 0)))
    assert (only(sums).active, only(sums).acquired_total) == (2, 111)
    assert sums.clients().connected_total == 141


def test_what_the_only_worker_with_a_pool_counted_stays_when_it_dies() -> None:
    sums = Sums(20)
    sums.reported(0, report(pool(active=1, acquired_total=10)))
    sums.reported(1, report())
    sums.ended(0)
    sums.reported(1, report())
    assert only(sums) == pool(size=20, acquired_total=10)


def test_a_worker_that_never_reported_may_end() -> None:
    sums = Sums(20)
    sums.ended(0)
    assert sums.pools() == []
    assert sums.clients() == NO_CLIENTS


def test_a_pool_given_up_by_one_worker_counts_on() -> None:
    sums = Sums(20)
    sums.reported(0, report(pool(acquired_total=10)))
    sums.reported(1, report(pool(acquired_total=5)))
    sums.reported(0, report())
    assert only(sums).acquired_total == 15
    sums.reported(0, report(pool(acquired_total=1)))
    assert only(sums).acquired_total == 16


def test_a_pool_given_up_and_made_anew_between_two_reports_counts_on() -> None:
    sums = Sums(20)
    sums.reported(0, report(pool(acquired_total=10, waits_total=1)))
    sums.reported(0, report(pool(acquired_total=3, waits_total=1)))
    assert only(sums).acquired_total == 13


def test_a_pool_that_all_have_given_up_is_forgotten() -> None:
    sums = Sums(20)
    sums.reported(0, report(pool(acquired_total=10)))
    sums.reported(1, report(pool(acquired_total=5)))
    sums.reported(0, report())
    sums.reported(1, report())
    assert sums.pools() == []


def test_no_counter_ever_goes_back_whatever_workers_do() -> None:
    chance = random.Random(4)
    sums = Sums(20)
    counted = dict.fromkeys(range(3), 0)
    before = shown = 0
    for _ in range(2000):
        worker = chance.randrange(3)
        if chance.random() < 0.1:
            sums.ended(worker)
            counted[worker] = 0
        else:
            counted[worker] += chance.randrange(5)
            clients = ClientFigures(1, counted[worker], 0, 0, 0, 0)
            sums.reported(worker, report(pool(acquired_total=counted[worker]), clients=clients))
        before, shown = shown, sums.clients().connected_total
        assert shown >= before
        assert sum(each.acquired_total for each in sums.pools()) == shown


def test_a_report_survives_the_journey() -> None:
    names = {field.name: number for number, field in enumerate(fields(ClientFigures), 1)}
    original = report(
        pool(active=3), pool("caf\udce9"), clients=ClientFigures(**names), unreachable="no route"
    )
    assert Report.from_export(json.loads(json.dumps(original.export()))) == original


@pytest.mark.parametrize(
    "exported",
    [{}, {"pools": [], "clients": {}, "unreachable": None}, {"pools": [{"user": "a"}], "clients": {}}],
)
def test_what_is_no_report_is_refused(exported: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no worker's report"):
        Report.from_export(exported)


@pytest.mark.parametrize(("total", "workers"), [(20, 1), (20, 3), (3, 3), (256, 255), (7, 4)])
def test_shares_are_even_and_make_the_whole(total: int, workers: int) -> None:
    shares = [share(total, worker, workers) for worker in range(workers)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert min(shares) >= 1
