"""A profile of a running process, by whichever profiler the machine has."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtest.errors import LoadtestError
from loadtest.programs import program_environment
from loadtest.service import capture

_LINES = 70
_SAMPLES_PER_SECOND = 1999


@dataclass(frozen=True, slots=True)
class Profile:
    """What the profiler wrote, once profiling is over."""

    profiler: str
    data: Path

    def text(self) -> str:
        """perf: the functions by their own time. py-spy: the stacks seen, the most frequent first."""
        if self.profiler == "py-spy":
            stacks = (line.rsplit(" ", 1) for line in self.data.read_text(errors="replace").splitlines())
            counted = sorted(((int(count), stack) for stack, count in stacks), reverse=True)
            return "\n".join(f"{count:6} {stack}" for count, stack in counted[:_LINES])
        command = ["perf", "report", "--stdio", "--no-children", "-g", "none", "-i", str(self.data)]
        answer = capture(command, env=program_environment(Path("perf")), cwd=self.data.parent, seconds=None)
        lines = [line for line in answer.stdout.splitlines() if line.strip() and not line.startswith("#")]
        return "\n".join(lines[:_LINES])


def _command(pid: int, data: Path, seconds: int) -> tuple[str, list[str]]:
    if shutil.which("perf"):
        options = ["-F", str(_SAMPLES_PER_SECOND), "-g", "-p", str(pid), "-o", str(data)]
        return "perf", ["perf", "record", *options]
    if shutil.which("py-spy"):
        options = [
            "--native",
            "--format",
            "raw",
            "--pid",
            str(pid),
            "--duration",
            str(seconds),
            "-o",
            str(data),
        ]
        return "py-spy", ["py-spy", "record", *options]
    raise LoadtestError("--profile: neither perf nor py-spy is on PATH")


@contextmanager
def profiling(pid: int, directory: Path, *, seconds: int) -> Iterator[Profile]:
    """Profiles `pid` meanwhile, for `seconds`. Raises LoadtestError without a profiler or a profile."""
    data = directory / "profile.data"
    profiler, command = _command(pid, data, seconds)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield Profile(profiler, data)
        finally:
            if profiler == "perf":
                process.send_signal(signal.SIGINT)
            printed, _ = process.communicate()
    if not data.exists():
        raise LoadtestError(f"{profiler} wrote no profile\n{printed}")
