"""`python -m loadtest`: measures the grid and writes the report."""

import sys
from pathlib import Path

from loadtest.chart import draw_chart
from loadtest.conditions import Conditions, now, pgsluice_form, this_machine
from loadtest.cpu import Bystanders
from loadtest.errors import LoadtestError
from loadtest.measure import measure_all, warm_up
from loadtest.options import Options, parse_options
from loadtest.pgbench import PgbenchSettings
from loadtest.plan import TARGETS, grid, interleave
from loadtest.report import Report, make_report, to_json, to_markdown
from loadtest.stage import StageSettings, open_stage

INTERRUPTED = 130


def run(options: Options) -> Report:
    """Measures everything asked for. Raises LoadtestError when a server doesn't come up or ends."""
    machine, date = this_machine(), now()
    settings = StageSettings(
        targets=options.targets,
        pgsluice=options.pgsluice,
        pool_size=options.pool_size,
        scale=options.scale,
        postgres=options.postgres,
    )
    with open_stage(settings) as stage:
        if not stage.targets:
            raise LoadtestError("nothing to measure: none of the targets is there")
        targets = [target for target in TARGETS if target in stage.targets]
        cells = grid(options.scripts, options.protocols, options.clients)
        runs = list(interleave(cells, targets, options.rounds))
        minutes = len(runs) * (options.seconds + 0.5) / 60
        print(f"{len(runs)} runs, about {minutes:.0f} minutes", file=sys.stderr, flush=True)
        pgbench = PgbenchSettings(options.seconds, options.jobs, options.pool_size)
        warm_up(stage, max(options.clients), pgbench)
        bystanders = Bystanders()
        measurements = measure_all(stage, runs, pgbench)
        version = stage.versions.get("pgsluice", "")
        conditions = Conditions(
            date=date,
            machine=machine,
            versions=stage.versions,
            pgsluice_command=options.pgsluice,
            pgsluice_form=pgsluice_form(version),
            seconds=options.seconds,
            rounds=options.rounds,
            scale=options.scale,
            pool_size=options.pool_size,
            jobs=options.jobs,
            bystanders=round(bystanders.share(), 3),
        )
        return make_report(conditions, targets, stage.notes, measurements)


def write(report: Report, directory: Path) -> list[Path]:
    """Writes report.md, .json and, where matplotlib is, .svg and .png; gives their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    markdown, document = directory / "report.md", directory / "report.json"
    markdown.write_text(to_markdown(report), encoding="utf-8")
    document.write_text(to_json(report), encoding="utf-8")
    try:
        charts = draw_chart(report, directory, "report")
    except ImportError as error:
        print(f"no chart, matplotlib is missing: {error}", file=sys.stderr)
        charts = []
    return [markdown, document, *charts]


def main() -> int:
    """Exit status: 0 measured and written, 1 something failed, 130 interrupted."""
    options = parse_options()
    try:
        report = run(options)
    except KeyboardInterrupt:
        print("interrupted; no report written", file=sys.stderr)
        return INTERRUPTED
    except LoadtestError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 1
    paths = write(report, options.output)
    print(to_markdown(report))
    print("written: " + ", ".join(str(path) for path in paths), file=sys.stderr)
    failures = len(report.measurements.failures)
    if failures:
        print(f"loadtest: {failures} runs failed", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
