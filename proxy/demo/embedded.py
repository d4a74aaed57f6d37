"""A throw-away PostgreSQL server with its data in a directory of its own. The demo and the tests share it."""

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from proxy.demo.ports import free_port
from proxy.demo.programs import Account, EmbeddedServerError, Programs, as_account

_PR_SET_PDEATHSIG = 1
_START_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """PEM texts for `ssl = on`; with `client_ca`, pg_hba lines may ask for client certificates."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None = None


@dataclass(slots=True)
class PostgresServer:
    """One database cluster below `directory` and its postmaster.

    `directory` must exist, be empty, and be reachable by the account. The superuser is `user`; connections by
    the Unix socket are always trusted (the directory keeps strangers out), those by TCP authenticate by
    `auth`: `trust`, `scram-sha-256`, `md5` or `password`. `settings` go to postgresql.conf, `hba` are lines
    before our own.
    """

    programs: Programs
    directory: Path
    account: Account | None = None
    auth: str = "scram-sha-256"
    user: str = "postgres"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12), repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)
    hba: Sequence[str] = ()
    certificate: ServerCertificate | None = field(default=None, repr=False)
    #: A data directory initialised before (same version, user, password): copied instead of running initdb.
    template: Path | None = None
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def socket_directory(self) -> Path:
        return self.directory

    @property
    def log_file(self) -> Path:
        return self.directory / "postgresql.log"

    @property
    def pid(self) -> int:
        """The postmaster's process id; EmbeddedServerError when it was not started."""
        if self._process is None:
            raise EmbeddedServerError("PostgreSQL has not been started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def url(self, database: str = "postgres", *, user: str | None = None, password: str | None = None) -> str:
        """A connection string by TCP; the superuser's unless another user is named."""
        credentials = quote(user or self.user, safe="")
        secret = password if password is not None or user is not None else self.password
        if secret and self.auth != "trust":
            credentials += ":" + quote(secret, safe="")
        return f"postgresql://{credentials}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def socket_url(self, database: str = "postgres") -> str:
        """The superuser's connection string by the Unix socket."""
        host = quote(str(self.socket_directory), safe="")
        place = f"/{quote(database, safe='')}?host={host}&port={self.port}"
        return f"postgresql://{quote(self.user, safe='')}@{place}"

    def prepare(self) -> None:
        """Initialise the data directory (a second or two) and configure it; may run in any thread."""
        if self.template is not None:
            self._own_directory()
            shutil.copytree(self.template, self.data)
            self._hand_over(self.data)
        else:
            self.initdb()
        self._configure()

    def start(self, timeout: float = 60.0) -> None:
        """Prepare when that was not done, launch, and wait until connections are accepted."""
        if not self.data.exists():
            self.prepare()
        for attempt in range(1, _START_ATTEMPTS + 1):
            self.launch()
            try:
                self.wait_ready(timeout)
                break
            except EmbeddedServerError:
                if attempt == _START_ATTEMPTS or "Address already in use" not in self.log_tail():
                    raise
                self.port = 0
        if self.auth == "md5":
            self.psql(f"ALTER ROLE {_identifier(self.user)} PASSWORD {_literal(self.password)}")

    def launch(self) -> None:
        """Start the postmaster on `port` (0: a free one) and return at once; only from the main thread.

        The server shuts down when the thread that started it is gone, even by SIGKILL.
        """
        self.port = self.port or free_port()
        self.log_file.unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs.program("postgres"), "-D", self.data, "-p", str(self.port)],
                env=self.programs.environment(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C in the terminal is for us to answer: clients, then the proxy, then the server.
                start_new_session=True,
                preexec_fn=shut_down_with_parent(),
                **as_account(self.account),
            )

    def ready(self) -> bool:
        """Whether connections are accepted; raises EmbeddedServerError when the postmaster has ended."""
        if self._process is None or self._process.poll() is not None:
            raise EmbeddedServerError(f"PostgreSQL {self.programs.version} did not start: {self.log_tail()}")
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def wait_ready(self, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while not self.ready():
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f"PostgreSQL was not ready after {timeout:g} s: {self.log_tail()}")
            time.sleep(0.02)

    def wait_restarted(self, timeout: float = 60.0) -> None:
        """After a backend has crashed: wait until the postmaster has recovered and accepts connections."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.psql("SELECT 1")
                return
            except EmbeddedServerError:
                if time.monotonic() > deadline or not self.running:
                    raise
            time.sleep(0.05)

    def stop(self, *, immediate: bool = False) -> None:
        """Shut down: clients are disconnected (`fast`), or all is dropped as in a crash (`immediate`)."""
        if self._process is None:
            return
        for number, patience in (
            (signal.SIGQUIT if immediate else signal.SIGINT, 15.0),
            (signal.SIGQUIT, 10.0),
        ):
            if self._process.poll() is None:
                self._process.send_signal(number)
            try:
                self._process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
        else:
            self._process.kill()
            self._process.wait()
        self._process = None

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Run statements as the superuser by the Unix socket; returns the rows as psql -At prints them."""
        result = subprocess.run(
            [
                self.programs.program("psql"),
                "-XqAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                self.socket_url(database),
                "-c",
                sql,
            ],
            env=self.programs.environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if result.returncode != 0:
            raise EmbeddedServerError(f"psql: {result.stderr.strip()}")
        return result.stdout.removesuffix("\n")

    def log_tail(self, lines: int = 5) -> str:
        try:
            text = self.log_file.read_text(errors="replace")
        except OSError:
            return "(no log)"
        return " | ".join(line.strip() for line in text.splitlines()[-lines:]) or "(empty log)"

    def initdb(self) -> None:
        """Initialise the data directory and leave it as initdb made it: a `template` for other servers."""
        self._own_directory()
        password_file = self.directory / "password"
        password_file.touch(0o600)
        password_file.write_text(self.password + "\n")
        self._hand_over(password_file)
        try:
            result = subprocess.run(
                [
                    *(
                        self.programs.program("initdb"),
                        "-D",
                        self.data,
                        "-U",
                        self.user,
                        "--pwfile",
                        password_file,
                    ),
                    *("--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust"),
                ],
                env=self.programs.environment(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                **as_account(self.account),
            )
        except OSError as error:
            raise EmbeddedServerError(f"initdb: {error}") from error
        finally:
            password_file.unlink()
        if result.returncode != 0:
            raise EmbeddedServerError(f"initdb: {' | '.join(result.stdout.splitlines()[-3:])}")

    def _configure(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.socket_directory),
            # Nothing here outlives the process, so nothing has to reach the disk.
            **dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "off"),
            "shared_buffers": "64MB",
            "max_connections": "100",
        }
        if self.auth == "md5":
            settings["password_encryption"] = "md5"
        if self.certificate is not None:
            settings |= {"ssl": "on"} | self._certificate_files(self.certificate)
        settings |= self.settings
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {_literal(value)}\n" for name, value in settings.items())
        (self.data / "pg_hba.conf").write_text(
            "\n".join(
                [
                    *self.hba,
                    "local all all trust",
                    "local replication all trust",
                    f"host all all 127.0.0.1/32 {self.auth}",
                    f"host all all ::1/128 {self.auth}",
                    f"host replication all 127.0.0.1/32 {self.auth}",
                    "",
                ]
            )
        )

    def _certificate_files(self, certificate: ServerCertificate) -> dict[str, str]:
        texts = {"server.crt": certificate.certificate, "server.key": certificate.key}
        settings = {"ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}
        if certificate.client_ca is not None:
            texts["root.crt"] = certificate.client_ca
            settings["ssl_ca_file"] = "root.crt"
        for name, text in texts.items():
            path = self.data / name
            path.touch(0o600)
            path.write_bytes(text)
            self._hand_over(path)
        return settings

    def _own_directory(self) -> None:
        if self.account is not None:
            os.chown(self.directory, self.account.uid, self.account.gid)
        self.directory.chmod(0o700)

    def _hand_over(self, path: Path) -> None:
        if self.account is None:
            return
        for each in [path, *path.rglob("*")]:
            os.chown(each, self.account.uid, self.account.gid, follow_symlinks=False)


def shut_down_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn`: SIGINT for the child when the thread that starts it is gone (Linux; elsewhere None)."""
    if not sys.platform.startswith("linux"):
        return None
    # Loaded before the fork: between fork and exec only the system call itself is safe.
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _identifier(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
