"""The report's arithmetic."""

import pytest

from loadtest.measure import Sample
from loadtest.plan import Cell, Run, TargetName
from loadtest.summary import (
    GOAL_RATIO,
    GeometricMean,
    Ratio,
    geometric_mean,
    geometric_means,
    judge_goal,
    paired_ratio,
    summarize,
)

CELL = Cell("select-only", "simple", 16)


def sample(
    target: TargetName, round_: int, *, tps: float = 1000.0, cpu: float | None = None, cell: Cell = CELL
) -> Sample:
    return Sample(
        run=Run(round_, cell, target),
        transactions=4000,
        tps=tps,
        latency_ms=16_000 / tps,
        proxy_cpu_us=cpu,
        server_cpu_us=30.0,
    )


def test_geometric_mean_of_ratios() -> None:
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert geometric_mean([1.1, 1.1, 1.1]) == pytest.approx(1.1)
    assert geometric_mean([]) is None


def test_ratios_are_taken_within_a_round() -> None:
    # The machine halved its speed in round 2: the ratio of the medians would blame the proxy or flatter it.
    proxies = [sample("pgsluice", 1, tps=900), sample("pgsluice", 2, tps=450), sample("pgsluice", 3, tps=800)]
    directs = [sample("direct", 1, tps=1000), sample("direct", 2, tps=500), sample("direct", 3, tps=1000)]
    assert paired_ratio(proxies, directs, lambda one: one.tps) == Ratio(0.9, 0.8, 0.9)


def test_a_round_without_the_other_target_counts_for_nothing() -> None:
    proxies = [sample("pgsluice", 1, tps=900), sample("pgsluice", 2, tps=100)]
    assert paired_ratio(proxies, [sample("direct", 1)], lambda one: one.tps) == Ratio(0.9, 0.9, 0.9)
    assert paired_ratio(proxies, [], lambda one: one.tps) is None


def test_a_figure_that_is_missing_or_zero_gives_no_ratio() -> None:
    ours = [sample("pgsluice", 1, cpu=20.0)]
    assert paired_ratio(ours, [sample("pgbouncer", 1, cpu=None)], lambda one: one.proxy_cpu_us) is None
    assert paired_ratio(ours, [sample("pgbouncer", 1, cpu=0.0)], lambda one: one.proxy_cpu_us) is None


def test_summary_has_medians_and_both_ratios() -> None:
    samples = [
        *(sample("direct", round_, tps=tps) for round_, tps in enumerate((1000, 1000, 2000), 1)),
        *(sample("pgbouncer", round_, tps=800, cpu=cpu) for round_, cpu in enumerate((20.0, 10.0, 40.0), 1)),
        *(sample("pgsluice", round_, tps=900, cpu=cpu) for round_, cpu in enumerate((22.0, 12.0, 44.0), 1)),
    ]
    direct, pgbouncer, pgsluice = summarize(samples)
    assert (direct.target, direct.rounds, direct.tps, direct.proxy_cpu_us, direct.cpu) == (
        "direct",
        3,
        1000,
        None,
        None,
    )
    assert (pgbouncer.proxy_cpu_us, pgsluice.proxy_cpu_us) == (20.0, 22.0)
    assert pgbouncer.throughput is not None
    assert pgbouncer.throughput.median == pytest.approx(0.8)
    assert pgsluice.cpu is not None
    assert pgsluice.cpu.median == pytest.approx(1.1)
    assert pgsluice.cpu.highest == pytest.approx(1.2)


def test_without_direct_and_pgbouncer_there_are_figures_but_no_ratios() -> None:
    (only,) = summarize([sample("pgsluice", 1, cpu=22.0)])
    assert (only.proxy_cpu_us, only.throughput, only.cpu) == (22.0, None, None)
    assert geometric_means([only]) == [GeometricMean("select-only", "pgsluice", None, None)]


def test_geometric_means_are_per_script_and_proxy() -> None:
    tpcb = Cell("tpcb-like", "simple", 16)
    cells = summarize(
        [
            *(sample("direct", 1, tps=1000, cell=cell) for cell in (CELL, tpcb)),
            *(sample("pgbouncer", 1, tps=500, cpu=20, cell=cell) for cell in (CELL, tpcb)),
            sample("pgsluice", 1, tps=900, cpu=30, cell=CELL),
            sample("pgsluice", 1, tps=700, cpu=20, cell=tpcb),
        ]
    )
    means = {(mean.script, mean.target): mean for mean in geometric_means(cells)}
    assert set(means) == {
        (script, target) for script in ("select-only", "tpcb-like") for target in ("pgbouncer", "pgsluice")
    }
    assert means["select-only", "pgsluice"].cpu == pytest.approx(1.5)
    assert means["tpcb-like", "pgsluice"].throughput == pytest.approx(0.7)


@pytest.mark.parametrize(("cpu", "met"), [(GOAL_RATIO * 10, True), (GOAL_RATIO * 10 + 0.01, False)])
def test_the_goal_is_met_up_to_its_ratio(cpu: float, met: bool) -> None:
    goal = judge_goal(summarize([sample("pgbouncer", 1, cpu=10.0), sample("pgsluice", 1, cpu=cpu)]))
    verdicts = {(result.protocol, result.clients): result.met for result in goal}
    assert verdicts.pop(("simple", 16)) is met
    assert len(verdicts) == 5
    assert set(verdicts.values()) == {None}


def test_other_scripts_and_client_counts_are_no_part_of_the_goal() -> None:
    others = [Cell("tpcb-like", "simple", 16), Cell("select-only", "simple", 1)]
    cells = summarize(
        [sample(target, 1, cpu=10.0, cell=cell) for target in ("pgbouncer", "pgsluice") for cell in others]
    )
    assert all(result.met is None for result in judge_goal(cells))
