"""The tables' columns, and the order of queries."""

import pytest

from proxy.admin.views import POOLS, QUERIES, SORTS, queries, record_of
from proxy.observe.metrics import PoolFigures
from proxy.observe.record import Fingerprint, QueryRecord
from proxy.observe.statistics import QueryStatistics


def _observe(
    statistics: QueryStatistics, number: int, total: float, *, rows: int = 0, sqlstate: str = ""
) -> None:
    record = QueryRecord(Fingerprint(number, f"select {number}"), "bob", "shop", 0.0, 10, False)
    record.total, record.server, record.wait = total, total / 2, total / 4
    record.rows, record.bytes_out, record.sqlstate = rows, 100, sqlstate
    statistics.observe(record)


@pytest.fixture
def statistics() -> QueryStatistics:
    """1: many short ones; 2: few long ones, wide; 3: one in between, failed."""
    statistics = QueryStatistics()
    for _ in range(1000):
        _observe(statistics, 1, 0.001)
    for total in (0.1, 0.1, 0.3):
        _observe(statistics, 2, total, rows=50)
    _observe(statistics, 3, 0.2, sqlstate="40001")
    return statistics


def test_a_row_of_queries(statistics: QueryStatistics) -> None:
    (row,) = queries(statistics, sort="max", limit=1)
    percentiles = {name: row.pop(name) for name in ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms")}
    assert row == {
        "fingerprint": "0000000000000002",
        "query": "select 2",
        "calls": 3,
        "errors": 0,
        "errors_by_sqlstate": {},
        "rows": 150,
        "bytes_in": 30,
        "bytes_out": 300,
        "total_seconds": 0.5,
        "server_seconds": 0.25,
        "wait_seconds": 0.125,
        "mean_ms": 166.666667,
        "min_ms": 100.0,
        "max_ms": 300.0,
        "mean_server_ms": 83.333333,
        "max_server_ms": 150.0,
        "mean_wait_ms": 41.666667,
        "max_wait_ms": 75.0,
    }
    assert percentiles == pytest.approx(
        {"p50_ms": 100.0, "p90_ms": 300.0, "p95_ms": 300.0, "p99_ms": 300.0, "p99_9_ms": 300.0}, rel=0.011
    )


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("total", [1, 2, 3]),
        ("calls", [1, 2, 3]),
        ("mean", [3, 2, 1]),
        ("p50", [3, 2, 1]),
        ("p90", [2, 3, 1]),
        ("p95", [2, 3, 1]),
        ("p99", [2, 3, 1]),
        ("p99.9", [2, 3, 1]),
        ("max", [2, 3, 1]),
        ("rows", [2, 1, 3]),
        ("errors", [3, 1, 2]),
        ("wait", [1, 2, 3]),
    ],
)
def test_orders(statistics: QueryStatistics, sort: str, order: list[int]) -> None:
    found = [int(str(row["fingerprint"]), 16) for row in queries(statistics, sort=sort)]
    figures = {entry.fingerprint.id: SORTS[sort](entry) for entry in statistics.entries()}
    assert [figures[number] for number in found] == [figures[number] for number in order]
    ascending = [int(str(row["fingerprint"]), 16) for row in queries(statistics, sort=sort, descending=False)]
    assert [figures[number] for number in ascending] == [figures[number] for number in order[::-1]]


def test_every_sort_is_tested() -> None:
    tested = {mark.args[1][n][0] for mark in test_orders.pytestmark for n in range(len(mark.args[1]))}
    assert tested == set(SORTS)


def test_the_limit(statistics: QueryStatistics) -> None:
    assert len(queries(statistics, limit=2)) == 2
    assert queries(QueryStatistics()) == []


def test_a_row_of_pools() -> None:
    row = record_of(POOLS, PoolFigures("bob", "shop", 20, "transaction", 1, 2, 3, 4, 5, 6, 7, 8.5, 9, 10))
    assert row == {
        "user": "bob",
        "database": "shop",
        "mode": "transaction",
        "size": 20,
        "active": 1,
        "idle": 2,
        "opening": 3,
        "waiting": 4,
        "opened_total": 5,
        "closed_total": 6,
        "connect_errors_total": 10,
        "acquired_total": 7,
        "waits_total": 9,
        "wait_seconds_total": 8.5,
    }


def test_names_are_unique_and_all_columns_explained() -> None:
    for columns in (QUERIES, POOLS):
        names = [column.name for column in columns]
        assert len(set(names)) == len(names)
        assert all(column.meaning for column in columns)
