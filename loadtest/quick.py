"""`python -m loadtest.quick`: what a transaction costs PgBouncer and pgsluice, for use while developing."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtest.errors import LoadtestError
from loadtest.measure import measure, measure_all, warm_up
from loadtest.options import default_jobs, positive
from loadtest.pgbench import PgbenchSettings
from loadtest.plan import PROTOCOLS, SCRIPTS, Cell, Run, TargetName, interleave
from loadtest.profile import profiling
from loadtest.stage import Stage, StageSettings, open_stage
from loadtest.summary import CellSummary, summarize
from loadtest.targets import DEFAULT_PGSLUICE

PROXIES: tuple[TargetName, ...] = ("pgbouncer", "pgsluice")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.quick",
        description="The proxies' CPU per transaction in one cell, side by side; no report.",
    )
    add = parser.add_argument
    add("--script", choices=SCRIPTS, default="select-only", help="default: %(default)s")
    add("--protocol", choices=PROTOCOLS, default="simple", help="default: %(default)s")
    add("--clients", type=positive, default=16, help="default: %(default)s")
    add("--seconds", type=positive, default=4, help="of one pgbench run (default: %(default)s)")
    add("--rounds", type=positive, default=3, help="default: %(default)s")
    add(
        "--pgsluice",
        default=DEFAULT_PGSLUICE,
        metavar="COMMAND",
        help="before `run` (default: `%(default)s`)",
    )
    add("--postgres", type=Path, metavar="DIR", help="PostgreSQL's programs (default: the newest found)")
    add("--profile", action="store_true", help="one more run under `perf record`, or py-spy, if there is one")
    return parser


def comparison(summaries: Sequence[CellSummary]) -> str:
    """One line for each proxy, and one for the ratio where both were measured."""
    lines = [
        f"{row.target:<10} {row.proxy_cpu_us:6.2f} µs/tx   {row.tps:9,.0f} tps"
        for row in summaries
        if row.proxy_cpu_us is not None
    ]
    lines += [
        f"ratio      {row.cpu.median:6.2f}         {row.cpu.lowest:.2f} to {row.cpu.highest:.2f}"
        for row in summaries
        if row.target == "pgsluice" and row.cpu
    ]
    return "\n".join(lines)


def _profile(stage: Stage, cell: Cell, settings: PgbenchSettings) -> str:
    target = stage.targets["pgsluice"]
    if target.service is None:
        raise LoadtestError("there is no pgsluice process to profile")
    with profiling(target.service.pid, stage.directory, seconds=settings.seconds) as profile:
        measure(stage, Run(0, cell, "pgsluice"), target, settings)
    return profile.text()


def run(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 measured, 1 something failed. Raises LoadtestError when a server fails or ends."""
    given = _parser().parse_args(arguments)
    cell = Cell(given.script, given.protocol, given.clients)
    wanted = StageSettings(targets=PROXIES, pgsluice=given.pgsluice, postgres=given.postgres)
    settings = PgbenchSettings(seconds=given.seconds, jobs=default_jobs(), pool_size=wanted.pool_size)
    with open_stage(wanted) as stage:
        targets = [target for target in PROXIES if target in stage.targets]
        warm_up(stage, cell.clients, settings)
        runs = interleave([cell], targets, given.rounds)
        measured = measure_all(stage, runs, settings)
        print(comparison(summarize(measured.samples)), flush=True)
        if given.profile:
            print(_profile(stage, cell, settings), flush=True)
    return 1 if measured.failures else 0


def main() -> int:
    try:
        return run()
    except KeyboardInterrupt:
        return 130
    except LoadtestError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
