"""The command line of `python -m loadtest`."""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from loadtest.plan import PROTOCOLS, SCRIPTS, TARGETS, Protocol, Script, TargetName
from loadtest.targets import DEFAULT_PGSLUICE

CLIENTS = (1, 16, 64)

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True, slots=True)
class Options:
    """`seconds` a run; `jobs`: pgbench threads at most; `scale`: pgbench's, 100,000 accounts each."""

    seconds: int
    rounds: int
    clients: tuple[int, ...]
    scripts: tuple[Script, ...]
    protocols: tuple[Protocol, ...]
    targets: tuple[TargetName, ...]
    pgsluice: str
    pool_size: int
    scale: int
    jobs: int
    postgres: Path | None
    output: Path


def default_jobs() -> int:
    """pgbench threads: a single one already drives two cores; more where there are cores to spare."""
    return max(1, len(os.sched_getaffinity(0)) // 4)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def some_of(names: Sequence[Name]) -> Callable[[str], tuple[Name, ...]]:
    """Reads a comma-separated choice of `names`."""

    def read(text: str) -> tuple[Name, ...]:
        chosen = {name.strip() for name in text.split(",")}
        unknown = sorted(chosen.difference(names))
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(names)}")
        return tuple(name for name in names if name in chosen)

    return read


def numbers(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(positive(number) for number in text.split(",")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest",
        description="pgbench against PostgreSQL, PgBouncer and pgsluice side by side; writes a report.",
        epilog="PgBouncer: $PGBOUNCER, else `pgbouncer` on PATH, else .cache/os/usr/sbin/pgbouncer.",
    )
    add = parser.add_argument
    add("--seconds", type=positive, help="of one pgbench run (default: 4)")
    add("--rounds", type=positive, help="times each cell is measured (default: 3)")
    add("--clients", type=numbers, default=CLIENTS, help="default: 1,16,64")
    add("--scripts", type=some_of(SCRIPTS), default=SCRIPTS, help=f"default: {','.join(SCRIPTS)}")
    add("--protocols", type=some_of(PROTOCOLS), default=PROTOCOLS, help=f"default: {','.join(PROTOCOLS)}")
    add("--targets", type=some_of(TARGETS), default=TARGETS, help=f"default: {','.join(TARGETS)}")
    add(
        "--pgsluice",
        default=DEFAULT_PGSLUICE,
        metavar="COMMAND",
        help="before `run` (default: `%(default)s`)",
    )
    add("--pool-size", type=positive, default=20, help="of both proxies (default: %(default)s)")
    add("--scale", type=positive, default=10, help="pgbench's scale (default: %(default)s)")
    add(
        "--jobs",
        type=positive,
        default=default_jobs(),
        help="pgbench threads at most (default here: %(default)s)",
    )
    add("--postgres", type=Path, metavar="DIR", help="PostgreSQL's programs (default: the newest found)")
    add("--output", type=Path, default=Path("loadtest/results"), metavar="DIR", help="default: %(default)s")
    add("--quick", action="store_true", help="1 second, 2 rounds: a first look, not a result")
    return parser


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """Exits with 2 and a line saying what is allowed when an argument is wrong."""
    given = _parser().parse_args(arguments)
    seconds, rounds = (1, 2) if given.quick else (4, 3)
    return Options(
        seconds=given.seconds or seconds,
        rounds=given.rounds or rounds,
        clients=given.clients,
        scripts=given.scripts,
        protocols=given.protocols,
        targets=given.targets,
        pgsluice=given.pgsluice,
        pool_size=given.pool_size,
        scale=given.scale,
        jobs=given.jobs,
        postgres=given.postgres,
        output=given.output,
    )
