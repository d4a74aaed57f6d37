"""A pgsluice process, as an operator starts it: settings by flags and environment, log on standard error."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit


class PgsluiceProcess:
    """`pgsluice run` before a server. `start()` returns when the `ready` line is there; `stop()` checks the
    log.

    `primary` is the value of DATABASE_URL (None: not set). `settings` are environment variables without their
    prefix: {"POOL_SIZE": "5"}. By default it listens on a free port of 127.0.0.1, and so does the admin
    server.
    """

    def __init__(
        self,
        primary: str | None,
        *,
        arguments: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        listen: Sequence[str] = ("127.0.0.1:0",),
        admin: str | None = "127.0.0.1:0",
    ) -> None:
        self.primary = primary
        self.lines: list[str] = []
        self.events: list[dict[str, Any]] = []
        self._arguments = [*arguments, *(part for each in listen for part in ("--listen", each))]
        if admin is not None:
            self._arguments += ["--admin", admin]
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._changed = threading.Condition()
        self._reader: threading.Thread | None = None
        self._ended = False

    # --- running ------------------------------------------------------------------------------------

    def start(self, timeout: float = 30.0) -> "PgsluiceProcess":
        self.launch()
        self.wait_for("ready", timeout=timeout)
        return self

    def launch(self) -> None:
        """Start without waiting for anything."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PG", "PGSLUICE_")) and name != "DATABASE_URL"
        }
        environment |= {f"PGSLUICE_{name}": value for name, value in self._settings.items()}
        environment.setdefault("PGSLUICE_LOG__FORMAT", "json")
        if self.primary is not None:
            environment["DATABASE_URL"] = self.primary
        self._process = subprocess.Popen(
            # -P: the current directory must not decide which form of the package runs.
            [sys.executable, "-P", "-m", "proxy.cli", "run", *self._arguments],
            env=environment,
            cwd=tempfile.gettempdir(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="pgsluice log", daemon=True)
        self._reader.start()

    def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM and wait; returns the exit status. AssertionError for a traceback in the log."""
        status = self.end(timeout)
        self.assert_clean()
        return status

    def end(self, timeout: float = 20.0) -> int:
        """As `stop`, without looking at the log; kills what does not end by itself, and says so."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        if process.poll() is None:
            process.terminate()
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"pgsluice did not end {timeout:g} s after SIGTERM\n{self.log}") from None
        finally:
            if self._reader is not None:
                self._reader.join(10)
        return status

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for it to end by itself: the exit status."""
        assert self._process is not None, "not started"
        status = self._process.wait(timeout)
        assert self._reader is not None
        self._reader.join(10)
        return status

    @property
    def pid(self) -> int:
        assert self._process is not None, "not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> "PgsluiceProcess":
        return self if self._process is not None else self.start()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if error is None:
            self.stop()
        else:
            self.end()

    # --- addresses ----------------------------------------------------------------------------------

    @property
    def ready(self) -> dict[str, Any]:
        """The `ready` line of the log."""
        return self.wait_for("ready", timeout=0)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first TCP listener."""
        for listener in self.ready["listen"]:
            if not str(listener).startswith("unix:"):
                host, _, port = str(listener).rpartition(":")
                return host.strip("[]"), int(port)
        raise AssertionError(f"no TCP listener among {self.ready['listen']}")

    @property
    def port(self) -> int:
        return self.address[1]

    def url(
        self, database: str | None = None, *, user: str | None = None, password: str | None = None
    ) -> str:
        """What an application's DATABASE_URL would be: the primary's with the proxy's address in place."""
        assert self.primary is not None
        parts = urlsplit(self.primary)
        credentials = parts.netloc.rpartition("@")[0]
        if user is not None:
            credentials = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        host, port = self.address
        path = parts.path if database is None else "/" + quote(database, safe="")
        return urlunsplit((parts.scheme, f"{credentials}@{host}:{port}", path, "", ""))

    def get(self, path: str) -> tuple[int, bytes]:
        """GET from the admin server: status and body."""
        request = urllib.request.Request(f"http://{self.ready['admin']}{path}")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def get_json(self, path: str) -> Any:
        status, body = self.get(path)
        assert status == 200, f"{path}: {status} {body!r}"
        return json.loads(body)

    # --- log ----------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        with self._changed:
            return "\n".join(self.lines)

    def events_named(self, event: str) -> list[dict[str, Any]]:
        with self._changed:
            return [each for each in self.events if each.get("event") == event]

    def wait_for(self, event: str, *, timeout: float = 10.0, count: int = 1) -> dict[str, Any]:
        """The `count`-th log entry with that `event`; AssertionError with the log when it does not come."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = [each for each in self.events if each.get("event") == event]
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    ended = "ended" if self._ended else "is silent"
                    log = "\n".join(self.lines)
                    raise AssertionError(f"pgsluice {ended}, no {event!r} in its log:\n{log}")
                self._changed.wait(left)

    def assert_clean(self) -> None:
        """Nothing in the log that nobody meant: tracebacks, exceptions, entries of level critical."""
        text = self.log
        for sign in (
            "Traceback (most recent call last)",
            "Exception ignored",
            "was never retrieved",
            '"critical"',
        ):
            assert sign not in text, f"{sign} in pgsluice's log:\n{text}"

    def _read(self) -> None:
        assert self._process is not None
        stream = self._process.stderr
        assert stream is not None
        with stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip("\n")
                try:
                    entry = json.loads(line)
                except ValueError:
                    entry = None
                with self._changed:
                    self.lines.append(line)
                    if isinstance(entry, dict):
                        self.events.append(entry)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
