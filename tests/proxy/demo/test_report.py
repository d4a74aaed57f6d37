"""What the demo shows fits the terminal and says what was measured."""

from typing import Any

import pytest
from rich.console import Console

from proxy.demo import report


def _query(text: str = "select 1", **figures: Any) -> dict[str, Any]:
    percentiles = {"p50_ms": 0.123, "p90_ms": 4.5, "p95_ms": 67.8, "p99_ms": 901.0, "p99_9_ms": 23456.0}
    return (
        {"query": text, "calls": 12345, "total_seconds": 6.789, "rows": 42, "errors": 0}
        | percentiles
        | figures
    )


def _shown(renderable: Any, width: int) -> list[str]:
    console = Console(width=width, file=None, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().splitlines()


@pytest.mark.parametrize(("width", "lines_for_a_query"), [(80, 2), (160, 1)])
def test_a_query_is_beside_its_figures_or_below_them(width: int, lines_for_a_query: int) -> None:
    lines = _shown(report.slowest([_query("select 'x'\n  from t"), _query("z" * 500)], width), width)
    assert len(lines) == 2 + 2 * lines_for_a_query
    figures = " ".join(lines[2].split())
    assert figures.startswith("12,345 6.79 0.12 4.50 67.8 901 23,456 42 0")
    assert "select 'x' from t" in lines[1 + lines_for_a_query]
    assert lines[-1].endswith("…")
    assert all(len(line) <= width for line in lines)


def test_more_queries_than_shown_are_counted() -> None:
    lines = _shown(report.slowest([_query(f"select {number}") for number in range(20)], 160), 160)
    assert len(lines) == 2 + 12 + 1
    assert lines[-1] == "and 8 more"


def test_the_columns_stand_below_their_headings() -> None:
    lines = _shown(report.slowest([_query(calls=1_234_567, errors=3), _query(calls=1)], 160), 160)
    ends = [line.split("  select")[0] for line in lines[2:]]
    assert len(set(map(len, ends))) == 1
    assert lines[1].split("  query")[0].rstrip().endswith("errors")
    assert ends[0].endswith("3")


def test_no_queries_are_no_error() -> None:
    assert len(_shown(report.slowest([], 80), 80)) == 2


def test_who_was_served_by_how_many() -> None:
    (line,) = _shown(report.served(clients=55, sessions=81, servers=8, statements=12345, seconds=7.4), 160)
    assert line == (
        "55 clients at once (81 in all) were served by 8 server connections: 12,345 statements in 7 s."
    )
