"""A server process of the load test: in its own process group, logged to a file, always stopped."""

import contextlib
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from loadtest.errors import LoadtestError

_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02


def unprivileged_user() -> pwd.struct_passwd | None:
    """Who runs what refuses to run as root: `postgres`, else `nobody`; None when we are not root ourselves.

    Raises LoadtestError when we are root and there is neither.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise LoadtestError(
        "PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it"
    )


def capture(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    user: pwd.struct_passwd | None = None,
    seconds: float | None = 30.0,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, as `user` when given; what it prints, errors included, is in `stdout`.

    One that can't be started or takes longer than `seconds` gives exit status -1 and the reason as output.
    """
    try:
        return subprocess.run(
            list(command),
            check=False,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(list(command), -1, str(error))


class Service:
    """One server process and its descendants. A context manager: leaving it stops them all.

    `command` runs with standard output and error going to `log`; `user` is the account to run it as (root
    only); `stop_signal` asks for an orderly end, and SIGKILL follows after 10 seconds.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        user: pwd.struct_passwd | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        with log.open("wb") as output:
            try:
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(env) if env is not None else None,
                    cwd=cwd,
                    start_new_session=True,
                    user=user.pw_uid if user else None,
                    group=user.pw_gid if user else None,
                    extra_groups=[] if user else None,
                )
            except OSError as error:
                raise LoadtestError(f"can't start {name}: {error}") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Raises LoadtestError with the end of the log when the process has ended."""
        status = self._process.poll()
        if status is not None:
            raise LoadtestError(f"{self.name} ended with status {status}\n{self.log_tail()}")

    def wait_until(self, ready: Callable[[], bool], seconds: float = 30.0) -> None:
        """Returns when `ready()` is true. Raises LoadtestError if the process ends, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise LoadtestError(f"{self.name} is not ready after {seconds:g} s\n{self.log_tail()}")
            time.sleep(_POLL_SECONDS)

    def log_tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """Ends the process and everything in its process group."""
        if self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._kill_group()
                self._process.wait()
        self._kill_group()

    def _kill_group(self) -> None:
        # The group bears our child's pid and nothing else can have joined it: it leads its own session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
