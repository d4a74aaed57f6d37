"""CPU time from /proc."""

import os
import subprocess
import sys

import pytest

from loadtest.cpu import descendants, parse_machine, parse_stat, tree_cpu_ns

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
STAT = "42 (post) gres: (x y) S 7 42 42 0 -1 4194304 100 200 0 0 11 22 33 44 20 0 1 0 5000 1000 300 0 0"
BURN = "import time\nwhile time.process_time() < 0.3:\n    pass\n"


def test_stat_line_with_parentheses_in_the_name() -> None:
    times = parse_stat(STAT)
    assert (times.parent, times.own_ns, times.reaped_ns) == (7, 33 * TICK_NS, 77 * TICK_NS)


def test_machine_is_busy_with_all_but_idling_and_waiting_for_disks() -> None:
    stat = "cpu  1 2 4 1000 2000 8 16 32 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nintr 5\n"
    assert parse_machine(stat) == 63 * TICK_NS


def test_descendants_are_all_generations_and_nobody_else() -> None:
    parents = {1: 0, 10: 1, 11: 10, 12: 10, 13: 12, 20: 1, 21: 20}
    assert sorted(descendants(10, parents)) == [10, 11, 12, 13]


def test_work_of_living_and_of_ended_children_is_counted() -> None:
    # The child has a child of its own burn 0.3 s of CPU, waits for it, does the same and then answers.
    program = [
        "import subprocess",
        "import sys",
        f"subprocess.run([sys.executable, '-c', {BURN!r}])",
        BURN,
        "print(flush=True)",
        "input()",
    ]
    command = [sys.executable, "-c", "\n".join(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert tree_cpu_ns(process.pid) >= 580_000_000
        finally:
            process.kill()


def test_a_process_that_is_gone_is_an_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(ProcessLookupError):
        tree_cpu_ns(process.pid)
