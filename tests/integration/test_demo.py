"""`pgsluice demo` as a user sees it: figures at the end, and nothing left behind, whenever it is ended."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A TMPDIR of the demo's own, which PostgreSQL's account can reach."""
    with tempfile.TemporaryDirectory(prefix="pgsluice-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def _start(temporary: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "proxy", "demo", *arguments],
        env=os.environ | {"TMPDIR": str(temporary), "COLUMNS": "160"},
        cwd="/tmp",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    open_ends = [pid]
    while open_ends:
        for child in children.get(open_ends.pop(), []):
            found.add(child)
            open_ends.append(child)
    return found


def _imports_the_proxy(pid: int) -> bool:
    # The first extension module only the command line needs.
    return "pydantic" in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.smoke
def test_it_ends_by_itself_with_figures(temporary: Path) -> None:
    demo = _start(temporary, "--seconds", "3")
    try:
        shown, _ = demo.communicate(timeout=50)
    finally:
        demo.kill()
    assert demo.returncode == 0, shown
    assert "Traceback" not in shown
    assert re.search(r"psql 'postgresql://demo:[0-9a-f]+@127\.0\.0\.1:\d+/demo'", shown)
    assert re.search(r"p50 +p90 +p95 +p99 +p99\.9 +rows +errors +query", shown)
    assert "select owner, balance from accounts where aid = ?" in shown.lower()
    served = re.search(r"(\d+) clients at once .* were served by (\d+) server connections", shown)
    assert served, shown
    clients, servers = map(int, served.groups())
    assert clients >= 40
    assert 1 <= servers <= 8
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("moment", ["at once", "with its directory there", "at work"])
def test_ctrl_c_leaves_nothing_behind(temporary: Path, moment: str) -> None:
    demo = _start(temporary)
    try:
        deadline = time.monotonic() + 40
        if moment == "at work":
            assert demo.stdout is not None
            while "/metrics" not in demo.stdout.readline():
                assert demo.poll() is None
                assert time.monotonic() < deadline
        elif moment == "at once":
            # Not in the interpreter's own start, where no program can answer a signal.
            while not _imports_the_proxy(demo.pid):
                assert demo.poll() is None
                assert time.monotonic() < deadline
        else:
            while not list(temporary.iterdir()):
                assert demo.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
        processes = _descendants(demo.pid)
        demo.send_signal(signal.SIGINT)
        shown, _ = demo.communicate(timeout=40)
    finally:
        demo.kill()
    assert demo.returncode in (0, 130), shown
    assert "Traceback" not in shown
    assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []
    assert list(temporary.iterdir()) == []
