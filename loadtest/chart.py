"""The report's chart: throughput relative to direct, and what a transaction costs the proxies."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loadtest.plan import Cell, Script, TargetName
from loadtest.report import LABELS, Report
from loadtest.summary import GOAL_RATIO, CellSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: dict[TargetName, str] = {"direct": "#8a8f98", "pgbouncer": "#e0963c", "pgsluice": "#2a6fb0"}
_GROUP_WIDTH = 0.8

Figure = Callable[[CellSummary], float | None]


def draw_chart(report: Report, directory: Path, name: str) -> list[Path]:
    """Writes `name`.svg and `name`.png; gives what it wrote, nothing when no proxy was measured.

    Raises ImportError without matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scripts = list(dict.fromkeys(row.cell.script for row in report.cells))
    proxies = [target for target in report.targets if target != "direct"]
    if not scripts or not proxies:
        return []
    matplotlib.rcParams["svg.hashsalt"] = "pgsluice"
    figure, axes = pyplot.subplots(len(scripts), 2, figsize=(13, 3.6 * len(scripts)), squeeze=False)
    for (throughput, cpu), script in zip(axes, scripts, strict=True):
        _bars(
            throughput, report, script, proxies, lambda row: row.throughput.median if row.throughput else None
        )
        throughput.axhline(1.0, color=_COLOURS["direct"], linewidth=1, linestyle="--")
        throughput.set_title(f"{script}: throughput relative to direct")
        _bars(cpu, report, script, proxies, lambda row: row.proxy_cpu_us)
        _mark_goal(cpu, report, script)
        cpu.set_title(f"{script}: proxy CPU per transaction (µs)")
    machine = report.conditions.machine
    figure.suptitle(f"{machine.cpu}, {machine.cores} cores · {report.conditions.date[:10]}", fontsize=9)
    handles, labels = axes[0][1].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    paths = [directory / f"{name}.svg", directory / f"{name}.png"]
    for path in paths:
        figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
    return paths


def _cells(report: Report, script: Script) -> list[Cell]:
    return list(dict.fromkeys(row.cell for row in report.cells if row.cell.script == script))


def _bars(
    axes: "Axes", report: Report, script: Script, targets: Sequence[TargetName], figure: Figure
) -> None:
    cells = _cells(report, script)
    values = {(row.cell, row.target): figure(row) for row in report.cells}
    width = _GROUP_WIDTH / len(targets)
    for index, target in enumerate(targets):
        offset = (index - (len(targets) - 1) / 2) * width
        heights = [values.get((cell, target)) or 0.0 for cell in cells]
        places = [place + offset for place in range(len(cells))]
        axes.bar(places, heights, width * 0.92, color=_COLOURS[target], label=LABELS[target])
    axes.set_xticks(range(len(cells)), [f"{cell.protocol}\n{cell.clients} cl." for cell in cells], fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _mark_goal(axes: "Axes", report: Report, script: Script) -> None:
    """A tick over each of the goal's cells at the goal's multiple of PgBouncer's figure."""
    goal = {(result.protocol, result.clients) for result in report.goal}
    costs = {row.cell: row.proxy_cpu_us for row in report.cells if row.target == "pgbouncer"}
    drawn = False
    for place, cell in enumerate(_cells(report, script)):
        cost = costs.get(cell)
        if script == "select-only" and (cell.protocol, cell.clients) in goal and cost:
            label = "_nolegend_" if drawn else f"goal: {GOAL_RATIO} times PgBouncer's CPU"
            axes.hlines(cost * GOAL_RATIO, place - 0.45, place + 0.45, color="#333333", lw=1.2, label=label)
            drawn = True
