"""The report as text and as JSON."""

import json

import pytest

from loadtest.conditions import Conditions, Machine, cpu_model, pgsluice_form
from loadtest.measure import Failure, Measurements, Sample
from loadtest.plan import TARGETS, Cell, Run, TargetName
from loadtest.report import Report, goal_verdict, make_report, to_json, to_markdown
from loadtest.summary import GoalResult, Ratio

CELL = Cell("select-only", "prepared", 64)
CONDITIONS = Conditions(
    date="2030-01-02T03:04:05+00:00",
    machine=Machine("Some CPU", 2, 8.0, "Linux 6.1 x86_64", "3.12.1", 0.25),
    versions={"PostgreSQL": "15.4", "PgBouncer": "1.25.2", "pgsluice": "pgsluice 0.1.0 compiled"},
    pgsluice_command="python -m proxy.cli",
    pgsluice_form="compiled",
    seconds=4,
    rounds=1,
    scale=10,
    pool_size=20,
    jobs=1,
    bystanders=0.034,
)


def sample(target: TargetName, tps: float, cpu: float | None) -> Sample:
    return Sample(Run(1, CELL, target), 4000, tps, 1.5, cpu, 31.4)


def report(
    *samples: Sample, failures: tuple[Failure, ...] = (), targets: tuple[TargetName, ...] = TARGETS
) -> Report:
    return make_report(CONDITIONS, targets, ["A note."], Measurements(list(samples), list(failures)))


ALL = (sample("direct", 50_000, None), sample("pgbouncer", 40_000, 20.0), sample("pgsluice", 45_000, 21.0))


def test_markdown_has_figures_ratios_conditions_and_verdict() -> None:
    text = to_markdown(report(*ALL))
    assert (
        "| prepared, 64 | 50,000 | 1.50 | 40,000 | 0.80 | 1.50 | 20.0 | 45,000 | 0.90 | 1.50 | 21.0 | 1.05 |"
        in text
    )
    assert "| prepared, 64 clients | 1.05 (1.05 to 1.05) | met |" in text
    assert "**met** (5 of 6 cells not measured)" in text
    assert "Some CPU, 2 cores" in text
    assert "PgBouncer 1.25.2 · pgsluice 0.1.0 compiled · form: compiled" in text
    assert "other programs used 3% of the machine" in text
    assert "- A note." in text
    assert "Failed runs" not in text


def test_tables_are_rectangular() -> None:
    for block in to_markdown(report(*ALL)).split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


def test_a_missing_target_is_shown_as_missing() -> None:
    text = to_markdown(report(ALL[0], ALL[2]))
    assert "| prepared, 64 | 50,000 | 1.50 | - | - | - | - | 45,000 | 0.90 | 1.50 | 21.0 | - |" in text
    assert "not measured." in text


def test_failures_are_in_the_report_with_pgbenchs_words() -> None:
    failure = Failure(Run(2, CELL, "pgsluice"), "pgbench exited with 2\npgbench: error: client 3 aborted")
    made = report(*ALL, failures=(failure,))
    assert "Round 2, select-only, prepared, 64 clients, pgsluice:" in to_markdown(made)
    assert "pgbench: error: client 3 aborted" in to_markdown(made)
    assert json.loads(to_json(made))["failures"][0]["run"]["round"] == 2


def test_json_keeps_every_sample_and_the_conditions() -> None:
    document = json.loads(to_json(report(*ALL)))
    assert [entry["tps"] for entry in document["samples"]] == [50_000, 40_000, 45_000]
    assert document["samples"][0]["run"]["cell"] == {
        "script": "select-only",
        "protocol": "prepared",
        "clients": 64,
    }
    assert document["conditions"]["machine"]["cores"] == 2
    assert document["conditions"]["pgsluice_form"] == "compiled"
    assert document["cells"][2]["cpu"]["median"] == pytest.approx(1.05)


@pytest.mark.parametrize(
    ("met", "verdict"),
    [
        ([True, True], "**met**."),
        ([True, False], "**not met**."),
        ([False, None], "**not met** (1 of 2 cells not measured)."),
        ([None, None], "not measured."),
    ],
)
def test_verdict_over_all_cells(met: list[bool | None], verdict: str) -> None:
    goal = [GoalResult("simple", 16, None if one is None else Ratio(1.0, 1.0, 1.0), one) for one in met]
    assert goal_verdict(goal) == verdict


@pytest.mark.parametrize(
    ("version", "form"),
    [
        ("pgsluice 0.1.0 (compiled), Python 3.12", "compiled"),
        ("pgsluice 0.1.0 Pure", "pure"),
        ("pgsluice 0.1.0", "unknown"),
        ("compiled: framing; pure: link", "unknown"),
    ],
)
def test_the_form_is_what_version_says(version: str, form: str) -> None:
    assert pgsluice_form(version) == form


def test_cpu_model_is_read_from_cpuinfo() -> None:
    assert cpu_model("processor\t: 0\nmodel name\t: AMD EPYC 9000\nflags\t: fpu\n") == "AMD EPYC 9000"
    assert cpu_model("processor\t: 0\nBogoMIPS\t: 50.00\n")
