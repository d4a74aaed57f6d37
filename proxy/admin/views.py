"""The tables an operator sees: each is one list of columns, for JSON and whatever else shows it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nlargest, nsmallest
from typing import Generic, TypeVar

from proxy.observe.metrics import PoolFigures
from proxy.observe.statistics import Entry, QueryStatistics

Value = str | int | float | dict[str, int]
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """name: as in JSON, with the unit at its end; meaning: one phrase; value: of one row."""

    name: str
    meaning: str
    value: Callable[[Row], Value]


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 6)


def _percentile(fraction: float) -> Callable[[Entry], float]:
    return lambda entry: _milliseconds(entry.percentile(fraction))


def _mean_ms(nanoseconds: int, calls: int) -> float:
    return round(nanoseconds / calls / 1e6, 6) if calls else 0.0


QUERIES: Sequence[Column[Entry]] = (
    Column(
        "fingerprint",
        "id of the normalised text, 16 hexadecimal digits",
        lambda e: f"{e.fingerprint.id:016x}",
    ),
    Column("query", "normalised text", lambda e: e.fingerprint.text),
    Column("calls", "statements finished", lambda e: e.calls),
    Column("errors", "of these, those that failed", lambda e: e.failures),
    Column("errors_by_sqlstate", "failures by SQLSTATE", lambda e: dict(e.errors)),
    Column("rows", "rows returned or changed", lambda e: e.rows),
    Column("bytes_in", "bytes received from clients", lambda e: e.bytes_in),
    Column("bytes_out", "bytes sent to clients", lambda e: e.bytes_out),
    Column("total_seconds", "time from first byte to end of reply, summed", lambda e: e.total_ns / 1e9),
    Column("server_seconds", "time servers needed, summed", lambda e: e.server_ns / 1e9),
    Column("wait_seconds", "time spent waiting for a server connection, summed", lambda e: e.wait_ns / 1e9),
    Column("mean_ms", "mean total time", lambda e: _mean_ms(e.total_ns, e.calls)),
    Column("min_ms", "least total time", lambda e: e.total_min_ns / 1e6),
    Column("p50_ms", "median of the total time", _percentile(0.5)),
    Column("p90_ms", "90th percentile of the total time", _percentile(0.9)),
    Column("p95_ms", "95th percentile of the total time", _percentile(0.95)),
    Column("p99_ms", "99th percentile of the total time", _percentile(0.99)),
    Column("p99_9_ms", "99.9th percentile of the total time", _percentile(0.999)),
    Column("max_ms", "greatest total time", lambda e: e.total_max_ns / 1e6),
    Column("mean_server_ms", "mean server time", lambda e: _mean_ms(e.server_ns, e.calls)),
    Column("max_server_ms", "greatest server time", lambda e: e.server_max_ns / 1e6),
    Column("mean_wait_ms", "mean wait for a server connection", lambda e: _mean_ms(e.wait_ns, e.calls)),
    Column("max_wait_ms", "greatest wait for a server connection", lambda e: e.wait_max_ns / 1e6),
)

POOLS: Sequence[Column[PoolFigures]] = (
    Column("user", "user of the pool's connections", lambda p: p.user),
    Column("database", "database of the pool's connections", lambda p: p.database),
    Column("mode", "transaction or session", lambda p: p.mode),
    Column("size", "server connections allowed", lambda p: p.size),
    Column("active", "server connections in use", lambda p: p.active),
    Column("idle", "server connections free", lambda p: p.idle),
    Column("opening", "server connections being opened", lambda p: p.opening),
    Column("waiting", "clients waiting for one", lambda p: p.waiting),
    Column("opened_total", "server connections opened so far", lambda p: p.opened_total),
    Column("closed_total", "server connections closed so far", lambda p: p.closed_total),
    Column(
        "connect_errors_total",
        "server connections that could not be opened",
        lambda p: p.connect_errors_total,
    ),
    Column("acquired_total", "times a client was given one", lambda p: p.acquired_total),
    Column("waits_total", "times a client had to wait", lambda p: p.waits_total),
    Column("wait_seconds_total", "time clients waited, summed", lambda p: p.wait_seconds_total),
)

SORTS: dict[str, Callable[[Entry], float]] = {
    "total": lambda e: e.total_ns,
    "calls": lambda e: e.calls,
    "mean": lambda e: e.total_ns / e.calls if e.calls else 0.0,
    "p50": lambda e: e.percentile(0.5),
    "p90": lambda e: e.percentile(0.9),
    "p95": lambda e: e.percentile(0.95),
    "p99": lambda e: e.percentile(0.99),
    "p99.9": lambda e: e.percentile(0.999),
    "max": lambda e: e.total_max_ns,
    "rows": lambda e: e.rows,
    "errors": lambda e: e.failures,
    "wait": lambda e: e.wait_ns,
}
"""What queries may be sorted by: the name in a request, and the figure."""


def record_of(columns: Sequence[Column[Row]], row: Row) -> dict[str, Value]:
    """One row by its columns' names."""
    return {column.name: column.value(row) for column in columns}


def queries(
    statistics: QueryStatistics, *, sort: str = "total", descending: bool = True, limit: int = 100
) -> list[dict[str, Value]]:
    """The first `limit` rows of QUERIES in the order of `sort`, a key of SORTS (KeyError when it is none)."""
    chosen = (nlargest if descending else nsmallest)(limit, statistics.entries(), key=SORTS[sort])
    return [record_of(QUERIES, entry) for entry in chosen]
