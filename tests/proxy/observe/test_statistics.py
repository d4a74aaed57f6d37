"""Totals per fingerprint: bounded, nothing lost, mergeable, and the same after a journey as JSON."""

import json
import random

import pytest

from proxy.observe.record import Fingerprint, QueryRecord
from proxy.observe.statistics import MAX_SQLSTATES, OTHER_SQLSTATE, Entry, QueryStatistics, Totals


def _record(
    fingerprint: Fingerprint,
    total: float = 0.001,
    *,
    server: float = 0.0,
    wait: float = 0.0,
    sqlstate: str = "",
) -> QueryRecord:
    record = QueryRecord(fingerprint, "bob", "shop", 0.0, 10, False)
    record.total, record.server, record.wait = total, server, wait
    record.rows, record.bytes_out, record.sqlstate = 2, 100, sqlstate
    return record


def _shape(number: int) -> Fingerprint:
    return Fingerprint(number, f"select {number}")


def _entry(statistics: QueryStatistics, number: int) -> Entry:
    (found,) = [entry for entry in statistics.entries() if entry.fingerprint.id == number]
    return found


def _sums(totals: Totals) -> tuple[int, ...]:
    return (
        totals.calls,
        totals.rows,
        totals.bytes_in,
        totals.bytes_out,
        totals.failures,
        totals.total_ns,
        totals.server_ns,
        totals.wait_ns,
        totals.histogram.count,
    )


def test_sums_and_extremes() -> None:
    statistics = QueryStatistics()
    shape = _shape(1)
    for total, server, wait in ((0.25, 0.125, 0.0625), (0.5, 0.5, 0.0), (0.125, 0.0, 0.125)):
        statistics.observe(_record(shape, total, server=server, wait=wait))
    entry = _entry(statistics, 1)
    assert _sums(entry) == (3, 6, 30, 300, 0, 875_000_000, 625_000_000, 187_500_000, 3)
    assert (entry.total_min_ns, entry.total_max_ns) == (125_000_000, 500_000_000)
    assert (entry.server_min_ns, entry.server_max_ns) == (0, 500_000_000)
    assert (entry.wait_min_ns, entry.wait_max_ns) == (0, 125_000_000)
    assert _sums(statistics.total) == _sums(entry)
    assert _sums(statistics.other) == (0,) * 9


def test_percentiles_are_near_the_exact_ones_and_within_the_extremes() -> None:
    statistics = QueryStatistics()
    shape = _shape(1)
    randomness = random.Random(7)
    times = sorted(randomness.lognormvariate(-7, 1.5) for _ in range(5000))
    for seconds in randomness.sample(times, len(times)):
        statistics.observe(_record(shape, seconds))
    exact = {
        "p50": times[2499],
        "p90": times[4499],
        "p95": times[4749],
        "p99": times[4949],
        "p99_9": times[4994],
    }
    assert _entry(statistics, 1).percentiles() == pytest.approx(exact, rel=0.0109)
    assert statistics.percentiles() == _entry(statistics, 1).percentiles()
    assert _entry(statistics, 1).percentile(0.9) == _entry(statistics, 1).percentiles()["p90"]


def test_percentiles_of_one_call_are_its_time() -> None:
    statistics = QueryStatistics()
    statistics.observe(_record(_shape(1), 0.003))
    assert set(statistics.percentiles().values()) == {0.003}


def test_no_calls_have_percentiles_of_zero() -> None:
    assert set(QueryStatistics().percentiles().values()) == {0.0}


@pytest.mark.parametrize(
    ("seconds", "ns"), [(-1.0, 0), (float("nan"), 0), (float("inf"), 10**18), (1e30, 10**18)]
)
def test_impossible_durations_do_no_harm(seconds: float, ns: int) -> None:
    statistics = QueryStatistics()
    statistics.observe(_record(_shape(1), seconds, server=seconds, wait=seconds))
    total = statistics.total
    assert (total.total_ns, total.server_ns, total.wait_ns) == (ns, ns, ns)


def test_equal_ids_share_an_entry_whatever_the_object() -> None:
    statistics = QueryStatistics()
    one, same = _shape(1), _shape(1)
    for shape in (one, same, one, same):
        statistics.observe(_record(shape))
    assert _entry(statistics, 1).calls == 4


def test_two_statistics_do_not_mix_up_their_entries() -> None:
    one, other = QueryStatistics(), QueryStatistics()
    shape = _shape(1)
    for statistics in (one, other, one):
        statistics.observe(_record(shape))
    assert (_entry(one, 1).calls, _entry(other, 1).calls) == (2, 1)


def test_errors_are_counted_by_sqlstate() -> None:
    statistics = QueryStatistics()
    for sqlstate in ("23505", "40001", "23505", ""):
        statistics.observe(_record(_shape(1), sqlstate=sqlstate))
    statistics.observe(_record(_shape(2), sqlstate="40001"))
    assert _entry(statistics, 1).errors == {"23505": 2, "40001": 1}
    assert _entry(statistics, 1).failures == 3
    assert statistics.total.errors == {"23505": 2, "40001": 2}


def test_the_number_of_sqlstates_is_bounded() -> None:
    statistics = QueryStatistics()
    for n in range(MAX_SQLSTATES + 10):
        statistics.observe(_record(_shape(1), sqlstate=f"X{n:04}"))
    statistics.observe(_record(_shape(1), sqlstate="X0000"))
    errors = statistics.total.errors
    assert len(errors) == MAX_SQLSTATES + 1
    assert (errors["X0000"], errors[OTHER_SQLSTATE]) == (2, 10)


def test_the_least_recently_used_make_room_and_nothing_is_lost() -> None:
    statistics = QueryStatistics(max_fingerprints=32)
    shapes = [_shape(n) for n in range(32)]
    for shape in shapes:
        statistics.observe(_record(shape, 0.001, sqlstate="23505"))
    statistics.observe(_record(shapes[0]))
    statistics.observe(_record(_shape(100)))
    left = {entry.fingerprint.id for entry in statistics.entries()}
    assert left == {0, *range(3, 32), 100}
    assert statistics.other.calls == 2
    assert statistics.other.errors == {"23505": 2}
    assert shapes[1].slot is None
    # One that comes back begins anew.
    statistics.observe(_record(shapes[1]))
    assert _entry(statistics, 1).calls == 1
    assert statistics.total.calls == 35


def test_total_is_always_the_sum_of_all() -> None:
    statistics = QueryStatistics(max_fingerprints=50)
    randomness = random.Random(11)
    shapes = [_shape(n) for n in range(300)]
    for _ in range(5000):
        shape = randomness.choice(shapes)
        sqlstate = randomness.choice(["", "", "23505", "40001"])
        statistics.observe(
            _record(shape, randomness.lognormvariate(-7, 2), server=1e-4, wait=1e-5, sqlstate=sqlstate)
        )
        assert len(statistics.entries()) <= 50
    together = Totals()
    for part in (*statistics.entries(), statistics.other):
        together.merge(part)
    assert together.export() | {"histogram": None} == statistics.total.export() | {"histogram": None}
    assert together.histogram.octaves() == statistics.total.histogram.octaves()
    assert together.percentiles() == statistics.total.percentiles()


def test_one_fingerprint_is_enough() -> None:
    statistics = QueryStatistics(max_fingerprints=1)
    for n in (1, 2, 1, 2):
        statistics.observe(_record(_shape(n)))
    assert len(statistics.entries()) == 1
    assert (statistics.other.calls, statistics.total.calls) == (3, 4)
    with pytest.raises(ValueError, match="max_fingerprints"):
        QueryStatistics(max_fingerprints=0)


def test_merging_adds_entry_by_entry() -> None:
    one, two = QueryStatistics(), QueryStatistics()
    for n, statistics in ((1, one), (2, one), (2, two), (3, two)):
        statistics.observe(_record(_shape(n), 0.001 * n, sqlstate="23505"))
    one.merge(two)
    assert {entry.fingerprint.id: entry.calls for entry in one.entries()} == {1: 1, 2: 2, 3: 1}
    assert _entry(one, 2).errors == {"23505": 2}
    assert one.total.calls == 4
    assert one.total.total_max_ns == 3_000_000
    assert two.total.calls == 2
    # What was merged goes on counting where it was.
    one.observe(_record(_shape(3)))
    assert (_entry(one, 3).calls, _entry(two, 3).calls) == (2, 1)


def test_merging_more_than_there_is_room_for() -> None:
    one, two = QueryStatistics(max_fingerprints=4), QueryStatistics()
    for n in range(10):
        two.observe(_record(_shape(n)))
    one.merge(two)
    assert {entry.fingerprint.id for entry in one.entries()} == {6, 7, 8, 9}
    assert (one.other.calls, one.total.calls) == (6, 10)


def test_an_export_survives_json() -> None:
    statistics = QueryStatistics(max_fingerprints=20)
    for n in range(40):
        statistics.observe(
            _record(Fingerprint(2**64 - 1 - n, "select ä"), 0.001 * n, sqlstate="23505" if n % 3 else "")
        )
    exported = statistics.export()
    restored = QueryStatistics.from_export(json.loads(json.dumps(exported)))
    assert restored.export() == exported
    assert restored.percentiles() == statistics.percentiles()
    restored.observe(_record(Fingerprint(2**64 - 1, "select ä")))
    assert restored.total.calls == statistics.total.calls + 1


@pytest.mark.parametrize(
    "damage",
    [
        {"max_fingerprints": "20"},
        {"total": None},
        {"other": []},
        {"entries": None},
        {"total": {"calls": 1}},
        {"total": QueryStatistics().total.export() | {"rows": 2**63}},
        {"total": QueryStatistics().total.export() | {"rows": -1}},
        {"total": QueryStatistics().total.export() | {"errors": None}},
        {"entries": [1]},
        {"entries": [{"id": 1, "text": "select"}]},
        {"entries": [{"id": "1", "text": "select"}]},
        {"entries": [{"id": "0" * 16, "text": "select"}]},
    ],
)
def test_a_damaged_export_is_refused(damage: dict[str, object]) -> None:
    exported = QueryStatistics().export() | damage
    with pytest.raises(ValueError, match="statistics need"):
        QueryStatistics.from_export(exported)


def test_what_is_taken_is_the_whole_in_pieces() -> None:
    shapes = [_shape(number) for number in range(40)]
    chance = random.Random(5)
    whole, source, sum_of_pieces = QueryStatistics(30), QueryStatistics(30), QueryStatistics(1000)
    for turn in range(2000):
        record = _record(chance.choice(shapes), chance.random(), sqlstate=chance.choice(("", "42P01")))
        # One fingerprint object is observed by both in turn, as after a worker's report.
        source.observe(record)
        whole.observe(record)
        if turn % 97 == 0:
            sum_of_pieces.merge(source.take())
            assert source.entries() == []
            assert source.total.calls == source.other.calls == 0
    sum_of_pieces.merge(source.take())
    assert _sums(sum_of_pieces.total) == _sums(whole.total)
    assert sum_of_pieces.total.errors == whole.total.errors
    assert sum_of_pieces.percentiles() == whole.percentiles()
    assert sum(entry.calls for entry in sum_of_pieces.entries()) + sum_of_pieces.other.calls == 2000


def test_what_was_taken_counts_no_more() -> None:
    source = QueryStatistics()
    shape = _shape(1)
    source.observe(_record(shape))
    taken = source.take()
    source.observe(_record(shape))
    source.observe(_record(shape))
    assert _entry(taken, 1).calls == taken.total.calls == 1
    assert _entry(source, 1).calls == source.total.calls == 2
