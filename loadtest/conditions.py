"""The circumstances figures were taken under; without them they mean nothing."""

import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """`load_average` is the number of runnable processes over the minute before the load test."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    load_average: float


@dataclass(frozen=True, slots=True)
class Conditions:
    """`seconds` a run, `jobs` pgbench threads at most; `versions` in the programs' own words.

    `bystanders` is the share of the machine's CPU time that other programs used meanwhile, from 0 to 1.
    """

    date: str
    machine: Machine
    versions: dict[str, str]
    pgsluice_command: str
    pgsluice_form: str
    seconds: int
    rounds: int
    scale: int
    pool_size: int
    jobs: int
    bystanders: float


def pgsluice_form(version: str) -> str:
    """`compiled` or `pure`, as `pgsluice version` has it; `unknown` when it says neither or both."""
    forms = {form for form in ("compiled", "pure") if re.search(rf"\b{form}\b", version, re.IGNORECASE)}
    return forms.pop() if len(forms) == 1 else "unknown"


def this_machine() -> Machine:
    return Machine(
        cpu=cpu_model(Path("/proc/cpuinfo").read_text(errors="replace")),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        load_average=round(os.getloadavg()[0], 2),
    )


def cpu_model(cpuinfo: str) -> str:
    """The model in /proc/cpuinfo's words; machines that aren't x86 often name none."""
    found = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
