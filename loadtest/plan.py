"""What is measured, and in which order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Script = Literal["select-only", "tpcb-like"]
Protocol = Literal["simple", "extended", "prepared"]
TargetName = Literal["direct", "pgbouncer", "pgsluice"]

SCRIPTS: tuple[Script, ...] = get_args(Script)
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
TARGETS: tuple[TargetName, ...] = get_args(TargetName)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the grid: pgbench's built-in script, its query protocol (`-M`) and number of clients."""

    script: Script
    protocol: Protocol
    clients: int

    def __str__(self) -> str:
        return f"{self.script}, {self.protocol}, {self.clients} client{'s' if self.clients > 1 else ''}"


@dataclass(frozen=True, slots=True)
class Run:
    """One pgbench run: a cell against a target in a round (counted from 1)."""

    round: int
    cell: Cell
    target: TargetName


def grid(scripts: Sequence[Script], protocols: Sequence[Protocol], clients: Sequence[int]) -> list[Cell]:
    return [
        Cell(script, protocol, count) for script in scripts for protocol in protocols for count in clients
    ]


def interleave(cells: Sequence[Cell], targets: Sequence[TargetName], rounds: int) -> Iterator[Run]:
    """Every cell against every target in every round, the targets of a cell right after each other.

    Which target comes first rotates from cell to cell and, within a cell, from round to round: a machine that
    speeds up or slows down meanwhile hits all of them the same.
    """
    for round_ in range(rounds):
        for index, cell in enumerate(cells):
            first = (round_ + index) % len(targets)
            for target in (*targets[first:], *targets[:first]):
                yield Run(round_ + 1, cell, target)
