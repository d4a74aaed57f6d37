"""CPU time of a tree of processes, from Linux's /proc.

Living threads are read from `schedstat` (nanoseconds on a CPU, user and system together); children that
have ended and were waited for are in their parent's `cutime` and `cstime` (clock ticks). A process that ends
between two readings moves from the first to the second, so differences stay right. Threads that have ended
inside a living process are lost.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessTimes:
    """From /proc/PID/stat (proc(5)): the parent's pid, own and waited-for children's CPU time (ns)."""

    parent: int
    own_ns: int
    reaped_ns: int


def parse_stat(line: str) -> ProcessTimes:
    """Reads one /proc/PID/stat line, whatever the command's name holds. Raises ValueError, IndexError."""
    fields = line[line.rindex(")") + 2 :].split()
    user, system, reaped_user, reaped_system = (int(field) for field in fields[11:15])
    return ProcessTimes(
        parent=int(fields[1]),
        own_ns=(user + system) * _NS_PER_TICK,
        reaped_ns=(reaped_user + reaped_system) * _NS_PER_TICK,
    )


def _all_processes() -> dict[int, ProcessTimes]:
    processes = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                processes[int(entry.name)] = parse_stat((entry / "stat").read_text(errors="replace"))
            except OSError:
                continue  # It ended while we looked.
    return processes


def _threads_ns(pid: int) -> int | None:
    """Nanoseconds on a CPU of the process's living threads; None where the kernel keeps no statistics."""
    total = 0
    try:
        for task in (_PROC / str(pid) / "task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except OSError:
        return None
    return total or None


def descendants(root: int, parents: dict[int, int]) -> list[int]:
    """`root` and every process below it; `parents` maps pid to parent pid."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue.extend(children.get(pid, ()))
    return found


def tree_cpu_ns(root: int) -> int:
    """User and system CPU time, in nanoseconds, of process `root` and its descendants, ended ones included.

    Raises ProcessLookupError when `root` is gone.
    """
    processes = _all_processes()
    if root not in processes:
        raise ProcessLookupError(f"process {root} is gone")
    total = 0
    for pid in descendants(root, {pid: times.parent for pid, times in processes.items()}):
        times = processes[pid]
        living = _threads_ns(pid)
        total += times.reaped_ns + (times.own_ns if living is None else living)
    return total


def parse_machine(stat: str) -> int:
    """From /proc/stat (proc(5)): CPU time all of the machine's cores weren't idle for, in nanoseconds.

    Waiting for disks is idle; what a hypervisor took away is not.
    """
    user, nice, system, _idle, _waiting, hard, soft, stolen = map(int, stat.splitlines()[0].split()[1:9])
    return (user + nice + system + hard + soft + stolen) * _NS_PER_TICK


class Bystanders:
    """The share of the machine that others use while a load test runs; its clock starts on construction."""

    def __init__(self) -> None:
        self._started = time.monotonic_ns()
        self._others = self._others_ns()

    def share(self) -> float:
        """From 0 to 1: CPU time since the start used by neither this process nor its descendants."""
        elapsed = time.monotonic_ns() - self._started
        used = (self._others_ns() - self._others) / (elapsed * (os.cpu_count() or 1))
        return min(1.0, max(0.0, used))

    @staticmethod
    def _others_ns() -> int:
        return parse_machine((_PROC / "stat").read_text()) - tree_cpu_ns(os.getpid())
