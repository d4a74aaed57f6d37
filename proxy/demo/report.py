"""What the demo shows: the banner, the line of progress, and the table of the slowest queries."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

_QUERIES_SHOWN = 12
_NARROWEST_TEXT = 40
_PERCENTILES = {"p50": "p50_ms", "p90": "p90_ms", "p95": "p95_ms", "p99": "p99_ms", "p99.9": "p99_9_ms"}


def banner(console: Console, *, version: str, form: str, postgres: str, url: str, admin: str) -> None:
    console.print()
    console.print(f"[bold]pgsluice {version}[/] ({form}) before PostgreSQL {postgres}", highlight=False)
    console.print()
    console.print("  Connect from another terminal:", highlight=False)
    # Never wrapped: it is there to be copied.
    console.print(Text(f"    psql '{url}'", style="bold cyan"), soft_wrap=True)
    console.print("  See what it measures:", highlight=False)
    for path, meaning in (("/api/queries", "every query, as JSON"), ("/metrics", "for Prometheus")):
        console.print(
            Text(f"    http://{admin}{path}", style="cyan"), Text(f"  {meaning}", style="dim"), soft_wrap=True
        )
    console.print()


def progress(*, elapsed: float, total: float, statements: int, clients: int, servers: int) -> RenderableType:
    """One line; times in seconds."""
    rate = statements / max(elapsed, 1.0)
    return Text.assemble(
        "  ",
        (f"{elapsed:3.0f} of {total:.0f} s", "bold"),
        f"   {statements:,} statements   {rate:,.0f}/s   {clients} clients on {servers} server connections",
    )


def slowest(queries: Sequence[Mapping[str, Any]], width: int) -> RenderableType:
    """The queries that took most time in all, from `/api/queries`; `width` is the terminal's, in columns."""
    heading = ("calls", "total s", *_PERCENTILES, "rows", "errors")
    rows = [heading, *(_figures(query) for query in queries[:_QUERIES_SHOWN])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heading))]
    # Where the figures leave little room, each query's text has a line of its own below them.
    beside = width - sum(widths) - 2 * len(widths) - 2 >= _NARROWEST_TEXT
    lines = [Text("Where the time went (p50 ... p99.9: latencies in ms)", style="bold")]
    for number, row in enumerate(rows):
        line = Text("  ").join(Text(cell.rjust(space)) for cell, space in zip(row, widths, strict=True))
        text = "query" if number == 0 else re.sub(r"\s+", " ", str(queries[number - 1]["query"]))
        line.stylize("dim" if number == 0 else "")
        if number and row[-1] != "0":
            line.stylize("red", len(line) - len(row[-1]))
        if beside:
            line.append("  ").append(text, style="cyan" if number else "dim")
        lines.append(line)
        if not beside and number:
            lines.append(Text("    " + text, style="cyan"))
    if len(queries) > _QUERIES_SHOWN:
        lines.append(Text(f"and {len(queries) - _QUERIES_SHOWN} more", style="dim"))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)


def _figures(query: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{query['calls']:,}",
        f"{query['total_seconds']:.2f}",
        *(_milliseconds(query[column]) for column in _PERCENTILES.values()),
        f"{query['rows']:,}",
        f"{query['errors']:,}",
    )


def served(*, clients: int, sessions: int, servers: int, statements: int, seconds: float) -> RenderableType:
    return Text.assemble(
        (
            f"{clients} clients at once ({sessions} in all) were served by {servers} server connections",
            "bold",
        ),
        f": {statements:,} statements in {seconds:.0f} s.",
    )


def surprises(texts: Mapping[str, int]) -> RenderableType:
    return Group(*(Text(f"{count} × {text}", style="red") for text, count in list(texts.items())[:5]))


def _milliseconds(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"
