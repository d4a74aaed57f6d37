"""What the demo shows: the banner, the line of progress, and the table of the slowest queries."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

_QUERIES_SHOWN = 12
_PERCENTILES = ("p50", "p90", "p95", "p99", "p99.9")


def banner(console: Console, *, version: str, form: str, postgres: str, url: str, admin: str) -> None:
    console.print()
    console.print(f"[bold]pgsluice {version}[/] ({form}) before PostgreSQL {postgres}")
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
    rate = statements / elapsed if elapsed else 0.0
    return Text.assemble(
        "  ",
        (f"{elapsed:3.0f} of {total:.0f} s", "bold"),
        f"   {statements:,} statements   {rate:,.0f}/s   {clients} clients on {servers} server connections",
    )


def slowest(queries: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The queries that took most time in all, from `/api/queries`; times there are in seconds."""
    table = Table(
        title="Where the time went (latencies in ms)", title_justify="left", title_style="bold", box=None
    )
    table.add_column("query", ratio=1, no_wrap=True, overflow="ellipsis")
    for heading in ("calls", "total s", *_PERCENTILES, "rows", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    for query in queries[:_QUERIES_SHOWN]:
        table.add_row(
            Text(re.sub(r"\s+", " ", str(query["query"]))),
            f"{query['calls']:,}",
            f"{query['total_seconds']:.2f}",
            *(_milliseconds(query["latency"][name]) for name in _PERCENTILES),
            f"{query['rows']:,}",
            Text(f"{query['errors']:,}", style="red" if query["errors"] else ""),
        )
    hidden = len(queries) - _QUERIES_SHOWN
    more = Text(f"and {hidden} more", style="dim") if hidden > 0 else Text("")
    return Group(table, more)


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


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    value = seconds * 1000
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"
