"""Base-2 exponential buckets: 1.1 % everywhere, exact at powers of two, and they merge."""

from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.observe.histogram import LAST_BUCKET, SMALLEST_SECONDS, Histogram, bucket_of, seconds_of

ERROR = 0.0109

_seconds = st.floats(SMALLEST_SECONDS, 4096.0)
_lists = st.lists(_seconds, max_size=60)


def _histogram(times: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in times:
        histogram.add(bucket_of(seconds))
    return histogram


@pytest.mark.parametrize("power", range(-20, 13))
def test_powers_of_two_end_a_bucket_exactly(power: int) -> None:
    bucket = (power + 20) * 32
    assert bucket_of(2.0**power) == bucket
    if power < 12:
        assert bucket_of(2.0**power * (1 + 1e-9)) == bucket + 1


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (-1.0, 0), (float("nan"), 0), (1e-9, 0), (1e6, LAST_BUCKET), (float("inf"), LAST_BUCKET)],
)
def test_what_lies_outside_goes_into_the_outer_buckets(seconds: float, bucket: int) -> None:
    assert bucket_of(seconds) == bucket


@given(_seconds)
def test_a_time_read_back_is_nearly_itself(seconds: float) -> None:
    assert seconds_of(bucket_of(seconds)) == pytest.approx(seconds, rel=ERROR)


@given(_seconds)
def test_indexes_are_those_of_native_histograms(seconds: float) -> None:
    # Prometheus, schema 5: bucket i holds 2^((i-1)/32) < t <= 2^(i/32). (Rounding decides within 1e-9 of a
    # bound.)
    index = log2(seconds) * 32
    if abs(index - round(index)) > 1e-6:
        assert bucket_of(seconds) - 640 == ceil(index)


@given(st.lists(_seconds, min_size=1, max_size=200), st.lists(st.floats(0.0, 1.0), max_size=5))
def test_quantiles_are_those_of_the_sorted_times(times: list[float], fractions: list[float]) -> None:
    fractions.sort()
    ordered = sorted(times)
    exact = [ordered[max(ceil(fraction * len(times) - 1e-9), 1) - 1] for fraction in fractions]
    assert _histogram(times).quantiles(fractions) == pytest.approx(exact, rel=ERROR)


def test_p99_9_of_a_thousand_is_the_second_greatest() -> None:
    times = [0.001] * 998 + [1.0, 60.0]
    assert _histogram(times).quantiles([0.5, 0.999, 1.0]) == pytest.approx([0.001, 1.0, 60.0], rel=ERROR)


def test_nothing_counted_has_no_quantiles() -> None:
    assert Histogram().quantiles([0.5, 0.99]) == [0.0, 0.0]


@given(_lists, _lists, _lists)
def test_merging_is_counting_all_together(one: list[float], two: list[float], three: list[float]) -> None:
    merged = _histogram(one)
    merged.merge(_histogram(two))
    merged.merge(_histogram(three))
    together = _histogram(one + two + three)
    assert merged.count == together.count
    assert merged.octaves() == together.octaves()
    fractions = [0.1, 0.5, 0.9, 0.99]
    assert merged.quantiles(fractions) == together.quantiles(fractions)


@given(_lists)
def test_octaves_count_every_time_once(times: list[float]) -> None:
    octaves = _histogram(times).octaves()
    assert len(octaves) == 33
    for k, count in enumerate(octaves):
        assert count == sum(1 for t in times if 2.0 ** (k - 21) * (k > 0) < t <= 2.0 ** (k - 20))


def test_memory_is_for_the_range_that_occurs() -> None:
    histogram = _histogram([0.001, 0.0012, 0.0009])
    assert len(histogram.counts) < 40
    whole = _histogram([0.0, 1e9, *(2.0 ** (k / 7 - 20) for k in range(200))])
    assert len(whole.counts) == LAST_BUCKET + 1


@given(_lists)
def test_an_export_restores(times: list[float]) -> None:
    histogram = _histogram(times)
    restored = Histogram.from_export(histogram.export())
    assert restored.export() == histogram.export()
    assert restored.count == histogram.count


@pytest.mark.parametrize(
    "exported",
    [
        {},
        {"offset": 0},
        {"offset": "0", "counts": []},
        {"offset": -1, "counts": [1]},
        {"offset": 1024, "counts": [1, 1]},
        {"offset": 0, "counts": [-1]},
        {"offset": 0, "counts": ["1"]},
    ],
)
def test_an_impossible_export_is_refused(exported: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="histogram"):
        Histogram.from_export(exported)
