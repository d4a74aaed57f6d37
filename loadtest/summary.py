"""The arithmetic of the report: medians over rounds, ratios within a round, geometric means, the goal."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from loadtest.measure import Sample
from loadtest.plan import PROTOCOLS, Cell, Protocol, Script, TargetName

GOAL_RATIO = 1.15
GOAL_SCRIPT: Script = "select-only"
GOAL_CLIENTS = (16, 64)


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the rounds' ratios, and the lowest and highest of them."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class CellSummary:
    """One target in one cell, medians over the rounds; CPU in microseconds a transaction.

    `throughput` is relative to direct, `cpu` the proxy's relative to PgBouncer's; None where that is missing.
    """

    cell: Cell
    target: TargetName
    rounds: int
    tps: float
    latency_ms: float
    proxy_cpu_us: float | None
    server_cpu_us: float
    throughput: Ratio | None
    cpu: Ratio | None


@dataclass(frozen=True, slots=True)
class GeometricMean:
    """Over the cells of a script for one target; None where no cell has the ratio."""

    script: Script
    target: TargetName
    throughput: float | None
    cpu: float | None


@dataclass(frozen=True, slots=True)
class GoalResult:
    """pgsluice's CPU relative to PgBouncer's in one cell of the goal; `met` is None when not measured."""

    protocol: Protocol
    clients: int
    cpu: Ratio | None
    met: bool | None


def geometric_mean(values: Iterable[float]) -> float | None:
    """None for no values at all. The values must be positive."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else None


def paired_ratio(
    samples: Sequence[Sample], others: Sequence[Sample], figure: Callable[[Sample], float | None]
) -> Ratio | None:
    """`figure` of each sample relative to the other target's in the same round: the noise was much the same.

    None when no round has both.
    """
    other = {sample.run.round: figure(sample) for sample in others}
    ratios = []
    for sample in samples:
        above, below = figure(sample), other.get(sample.run.round)
        if above is not None and below:
            ratios.append(above / below)
    return Ratio(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def _tps(sample: Sample) -> float | None:
    return sample.tps


def _proxy_cpu(sample: Sample) -> float | None:
    return sample.proxy_cpu_us


def summarize(samples: Iterable[Sample]) -> list[CellSummary]:
    """One summary for each cell and target that has samples, in the order they first appear."""
    groups: dict[tuple[Cell, TargetName], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.run.cell, sample.run.target].append(sample)
    return [
        CellSummary(
            cell=cell,
            target=target,
            rounds=len(group),
            tps=statistics.median(sample.tps for sample in group),
            latency_ms=statistics.median(sample.latency_ms for sample in group),
            proxy_cpu_us=_median(
                [sample.proxy_cpu_us for sample in group if sample.proxy_cpu_us is not None]
            ),
            server_cpu_us=statistics.median(sample.server_cpu_us for sample in group),
            throughput=paired_ratio(group, groups.get((cell, "direct"), []), _tps),
            cpu=paired_ratio(group, groups.get((cell, "pgbouncer"), []), _proxy_cpu),
        )
        for (cell, target), group in groups.items()
    ]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def geometric_means(summaries: Sequence[CellSummary]) -> list[GeometricMean]:
    """One for each script and proxy."""
    pairs = dict.fromkeys((summary.cell.script, summary.target) for summary in summaries)
    means = []
    for script, target in pairs:
        if target == "direct":
            continue
        group = [
            summary for summary in summaries if (summary.cell.script, summary.target) == (script, target)
        ]
        means.append(
            GeometricMean(
                script=script,
                target=target,
                throughput=geometric_mean(row.throughput.median for row in group if row.throughput),
                cpu=geometric_mean(row.cpu.median for row in group if row.cpu),
            )
        )
    return means


def judge_goal(summaries: Sequence[CellSummary]) -> list[GoalResult]:
    """The goal's cells, whether measured or not."""
    ratios = {summary.cell: summary.cpu for summary in summaries if summary.target == "pgsluice"}
    results = []
    for protocol in PROTOCOLS:
        for clients in GOAL_CLIENTS:
            ratio = ratios.get(Cell(GOAL_SCRIPT, protocol, clients))
            met = None if ratio is None else ratio.median <= GOAL_RATIO
            results.append(GoalResult(protocol, clients, ratio, met))
    return results
