"""Reading pgbench's summary, and how it is called."""

from itertools import pairwise

import pytest

from loadtest.errors import PgbenchError
from loadtest.pgbench import PgbenchSettings, parse_result, pgbench_arguments
from loadtest.plan import Cell

SUMMARY = """\
pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: <builtin: select only>
scaling factor: 10
query mode: simple
number of clients: 16
number of threads: 1
maximum number of tries: 1
duration: 2 s
number of transactions actually processed: 89123
number of failed transactions: 0 (0.000%)
latency average = 0.357 ms
initial connection time = 21.518 ms
tps = 44834.105283 (without initial connection time)
"""
SETTINGS = PgbenchSettings(seconds=4, jobs=2, pool_size=20)


def test_reads_the_summary() -> None:
    result = parse_result(SUMMARY, "pgbench: hint\n")
    assert (result.transactions, result.failed) == (89123, 0)
    assert (result.tps, result.latency_ms) == (44834.105283, 0.357)
    assert result.warnings == "pgbench: hint"


def test_failed_transactions_are_counted() -> None:
    assert parse_result(SUMMARY.replace("transactions: 0 (0.000%)", "transactions: 7 (0.008%)")).failed == 7


def test_the_release_without_failed_transactions_is_read_too() -> None:
    lines = [line for line in SUMMARY.splitlines() if "failed" not in line]
    assert parse_result("\n".join(lines)).failed == 0


@pytest.mark.parametrize("figure", ["tps = ", "latency average", "number of transactions actually"])
def test_a_missing_figure_is_an_error_that_shows_the_output(figure: str) -> None:
    output = "\n".join(line for line in SUMMARY.splitlines() if not line.startswith(figure))
    with pytest.raises(PgbenchError, match="scaling factor: 10"):
        parse_result(output)


def test_arguments_name_script_protocol_clients_and_time() -> None:
    words = pgbench_arguments(Cell("tpcb-like", "extended", 16), 20001, SETTINGS)
    pairs = dict(pairwise(words))
    assert {name: pairs[name] for name in ("-b", "-M", "-c", "-j", "-T", "-p")} == {
        "-b": "tpcb-like",
        "-M": "extended",
        "-c": "16",
        "-j": "2",
        "-T": "4",
        "-p": "20001",
    }


@pytest.mark.parametrize(
    ("cell", "threads"),
    [
        (Cell("select-only", "prepared", 64), 2),
        (Cell("tpcb-like", "simple", 64), 2),
        (Cell("tpcb-like", "prepared", 20), 2),
        (Cell("tpcb-like", "prepared", 21), 21),
        (Cell("tpcb-like", "prepared", 1), 1),
    ],
)
def test_a_thread_a_client_where_preparing_could_wait_for_the_same_thread(cell: Cell, threads: int) -> None:
    assert SETTINGS.threads(cell) == threads
