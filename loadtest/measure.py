"""One measured pgbench run after the other."""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from loadtest.errors import PgbenchError
from loadtest.pgbench import PgbenchResult, PgbenchSettings, run_pgbench
from loadtest.plan import Cell, Run
from loadtest.stage import Stage
from loadtest.targets import Target

# After pgbench has ended, its server processes end too and are waited for by the postmaster.
_SETTLE_SECONDS = 0.15


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run gave: CPU in microseconds a transaction, of the proxy's and of the server's processes."""

    run: Run
    transactions: int
    tps: float
    latency_ms: float
    proxy_cpu_us: float | None
    server_cpu_us: float


@dataclass(frozen=True, slots=True)
class Failure:
    run: Run
    message: str


@dataclass(slots=True)
class Measurements:
    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(
    stage: Stage, run: Run, target: Target, settings: PgbenchSettings
) -> tuple[Sample, PgbenchResult]:
    """Runs pgbench once. Raises PgbenchError when pgbench did, LoadtestError when a server has ended."""
    if run.cell.script == "tpcb-like":
        stage.postgres.tidy_after_updates()
    server_before, proxy_before = stage.postgres.cpu_ns(), target.cpu_ns()
    result = run_pgbench(stage.postgres.program, run.cell, target.port, settings)
    time.sleep(_SETTLE_SECONDS)
    server_after, proxy_after = stage.postgres.cpu_ns(), target.cpu_ns()
    proxy_cpu_us = None
    if proxy_before is not None and proxy_after is not None:
        proxy_cpu_us = (proxy_after - proxy_before) / 1000 / result.transactions
    sample = Sample(
        run=run,
        transactions=result.transactions,
        tps=result.tps,
        latency_ms=result.latency_ms,
        proxy_cpu_us=proxy_cpu_us,
        server_cpu_us=(server_after - server_before) / 1000 / result.transactions,
    )
    return sample, result


def warm_up(stage: Stage, clients: int, settings: PgbenchSettings) -> None:
    """One second for every target, not measured: its server connections open, the tables are in memory."""
    for target in stage.targets.values():
        cell = Cell("select-only", "simple", clients)
        run_pgbench(stage.postgres.program, cell, target.port, replace(settings, seconds=1))


def measure_all(
    stage: Stage,
    runs: Iterable[Run],
    settings: PgbenchSettings,
    *,
    say: Callable[[str], None] = to_stderr,
) -> Measurements:
    """Measures every run a target supports. A failed pgbench is reported and kept, and the next run goes on.

    Raises LoadtestError when a server has ended: nothing after that could be compared.
    """
    gathered = Measurements()
    for run in runs:
        target = stage.targets[run.target]
        if run.cell.protocol not in target.protocols:
            continue
        try:
            sample, result = measure(stage, run, target, settings)
        except PgbenchError as failure:
            say(f"round {run.round}, {run.cell}, {run.target}: FAILED\n{failure}")
            gathered.failures.append(Failure(run, str(failure)))
            target.cpu_ns()
            stage.postgres.check()
            continue
        if result.warnings:
            say(f"pgbench says: {result.warnings}")
        gathered.samples.append(sample)
        say(_progress(sample))
    return gathered


def _progress(sample: Sample) -> str:
    cost = "" if sample.proxy_cpu_us is None else f", proxy {sample.proxy_cpu_us:.1f} µs/tx"
    return (
        f"round {sample.run.round}, {sample.run.cell}, {sample.run.target}: {sample.tps:,.0f} tps, "
        f"{sample.latency_ms:.2f} ms{cost}, server {sample.server_cpu_us:.0f} µs/tx"
    )
