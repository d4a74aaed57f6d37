"""The written report: a Markdown table for people and JSON with every sample for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain

from loadtest.conditions import Conditions
from loadtest.measure import Measurements
from loadtest.plan import Cell, Script, TargetName
from loadtest.summary import (
    GOAL_RATIO,
    CellSummary,
    GeometricMean,
    GoalResult,
    Ratio,
    geometric_means,
    judge_goal,
    summarize,
)

LABELS: dict[TargetName, str] = {"direct": "direct", "pgbouncer": "PgBouncer", "pgsluice": "pgsluice"}
_MISSING = "-"
_HOW_TO_READ = """\
Figures are medians over the rounds. Ratios are medians of the ratios within each round, so they need not be
the ratio of two medians. CPU is user and system time of all of a program's processes per transaction. In
tpcb-like with prepared statements and more clients than the pool has connections, pgbench has one thread for
each client, whatever the target: it prepares statements blocking, and a thread could wait for itself."""
GOAL_TEXT = f"CPU per transaction at most {GOAL_RATIO} times PgBouncer's in select-only at 16 and 64 clients"


@dataclass(frozen=True, slots=True)
class Report:
    conditions: Conditions
    targets: tuple[TargetName, ...]
    notes: tuple[str, ...]
    measurements: Measurements
    cells: list[CellSummary]
    means: list[GeometricMean]
    goal: list[GoalResult]


def make_report(
    conditions: Conditions, targets: Sequence[TargetName], notes: Sequence[str], measurements: Measurements
) -> Report:
    cells = summarize(measurements.samples)
    return Report(
        conditions=conditions,
        targets=tuple(targets),
        notes=tuple(notes),
        measurements=measurements,
        cells=cells,
        means=geometric_means(cells),
        goal=judge_goal(cells),
    )


def to_json(report: Report) -> str:
    document = {
        "schema": 1,
        "units": {
            "latency_ms": "milliseconds",
            "proxy_cpu_us": "µs/transaction",
            "server_cpu_us": "µs/transaction",
        },
        "conditions": asdict(report.conditions),
        "targets": report.targets,
        "notes": report.notes,
        "goal": {"text": GOAL_TEXT, "ratio": GOAL_RATIO, "cells": [asdict(result) for result in report.goal]},
        "geometric_means": [asdict(mean) for mean in report.means],
        "cells": [asdict(cell) for cell in report.cells],
        "samples": [asdict(sample) for sample in report.measurements.samples],
        "failures": [asdict(failure) for failure in report.measurements.failures],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def to_markdown(report: Report) -> str:
    scripts = dict.fromkeys(cell.cell.script for cell in report.cells)
    parts = [
        "# Load test",
        _conditions(report),
        *([] if not report.notes else ["\n".join(f"- {note}" for note in report.notes)]),
        "## Goal\n\n" + GOAL_TEXT + ": " + goal_verdict(report.goal) + "\n\n" + _goal_table(report.goal),
        *(_script_section(report, script) for script in scripts),
        *([] if not report.measurements.failures else [_failures(report)]),
    ]
    return "\n\n".join(parts) + "\n"


def goal_verdict(goal: Sequence[GoalResult]) -> str:
    """`**met**`, `**not met**` or `not measured`, for all of the goal's cells together."""
    verdicts = [result.met for result in goal]
    if not any(met is not None for met in verdicts):
        return "not measured."
    missing = verdicts.count(None)
    suffix = f" ({missing} of {len(verdicts)} cells not measured)" if missing else ""
    return ("**not met**" if False in verdicts else "**met**") + suffix + "."


def _conditions(report: Report) -> str:
    conditions, machine = report.conditions, report.conditions.machine
    facts = [
        conditions.date,
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib:g} GiB, {machine.kernel}",
        *(f"{name} {version.removeprefix(name).strip()}" for name, version in conditions.versions.items()),
        *([f"form: {conditions.pgsluice_form}"] if "pgsluice" in report.targets else []),
        f"pgbench scale {conditions.scale}, threads {conditions.jobs}, {conditions.seconds} s a run",
        f"{conditions.rounds} rounds, interleaved",
        f"pool size {conditions.pool_size}, transaction mode",
        f"other programs used {conditions.bystanders:.0%} of the machine meanwhile",
    ]
    return " · ".join(facts) + "\n\n" + _HOW_TO_READ


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _with_range(ratio: Ratio | None) -> str:
    return f"{ratio.median:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f})" if ratio else _MISSING


def _goal_table(goal: Sequence[GoalResult]) -> str:
    words = {True: "met", False: "not met", None: "not measured"}
    return _table(
        ["select-only", "CPU relative to PgBouncer (range)", "goal"],
        [[f"{one.protocol}, {one.clients} clients", _with_range(one.cpu), words[one.met]] for one in goal],
    )


def _number(value: float | None, digits: int) -> str:
    return _MISSING if value is None else f"{value:,.{digits}f}"


def _cell_texts(target: TargetName, row: CellSummary | None) -> list[str]:
    """The columns of one target: as `_target_columns` names them."""
    if row is None:
        return [_MISSING] * len(_target_columns(target))
    texts = [_number(row.tps, 0)]
    if target != "direct":
        texts.append(_number(row.throughput.median if row.throughput else None, 2))
    texts.append(_number(row.latency_ms, 2))
    if target != "direct":
        texts.append(_number(row.proxy_cpu_us, 1))
    if target == "pgsluice":
        texts.append(_number(row.cpu.median if row.cpu else None, 2))
    return texts


def _target_columns(target: TargetName) -> list[str]:
    label = LABELS[target]
    if target == "direct":
        return ["direct tps", "ms"]
    columns = [f"{label} tps", "of direct", "ms", f"{label} CPU µs/tx"]
    return [*columns, "of PgBouncer's"] if target == "pgsluice" else columns


def _script_section(report: Report, script: Script) -> str:
    rows: dict[Cell, dict[TargetName, CellSummary]] = {}
    for summary in report.cells:
        if summary.cell.script == script:
            rows.setdefault(summary.cell, {})[summary.target] = summary
    header = ["clients"]
    for target in report.targets:
        header += _target_columns(target)
    lines = []
    for cell, found in rows.items():
        texts = [_cell_texts(target, found.get(target)) for target in report.targets]
        lines.append([f"{cell.protocol}, {cell.clients}", *chain.from_iterable(texts)])
    means = {mean.target: mean for mean in report.means if mean.script == script}
    texts = [_mean_texts(target, means.get(target)) for target in report.targets]
    lines.append(["geometric mean", *chain.from_iterable(texts)])
    server = _table(
        ["server's CPU µs/tx", *(LABELS[target] for target in report.targets)],
        [
            [
                f"{cell.protocol}, {cell.clients}",
                *(
                    _number(found[target].server_cpu_us if target in found else None, 0)
                    for target in report.targets
                ),
            ]
            for cell, found in rows.items()
        ],
    )
    return f"## {script}\n\n{_table(header, lines)}\n\n{server}"


def _mean_texts(target: TargetName, mean: GeometricMean | None) -> list[str]:
    texts = [""] * len(_target_columns(target))
    if mean is not None:
        texts[1] = _number(mean.throughput, 2)
        if target == "pgsluice":
            texts[4] = _number(mean.cpu, 2)
    return texts


def _failures(report: Report) -> str:
    parts = ["## Failed runs"]
    for failure in report.measurements.failures:
        run = failure.run
        parts.append(f"Round {run.round}, {run.cell}, {LABELS[run.target]}:\n\n```\n{failure.message}\n```")
    return "\n\n".join(parts)
