"""Everything that runs during a load test, brought up together and taken down together."""

import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from loadtest.plan import TargetName
from loadtest.postgres import PostgresCluster
from loadtest.programs import Program, find_pgbouncer, find_postgres
from loadtest.service import unprivileged_user
from loadtest.targets import DEFAULT_PGSLUICE, Target, pgsluice_command, start_pgbouncer, start_pgsluice

NO_PGBOUNCER = "PgBouncer was not found ($PGBOUNCER, PATH, .cache/os/usr/sbin): its column is missing."


@dataclass(frozen=True, slots=True)
class StageSettings:
    """What to bring up. `pgsluice` is the command before `run`, `pgsluice_flags` come after it."""

    targets: Sequence[TargetName]
    pgsluice: str = DEFAULT_PGSLUICE
    pgsluice_flags: Sequence[str] = ()
    pool_size: int = 20
    scale: int = 10
    postgres: Path | None = None


@dataclass(slots=True)
class Stage:
    """What is up. `notes` says what was wanted and isn't there; `versions` has the programs' own words."""

    postgres: PostgresCluster
    directory: Path
    targets: dict[TargetName, Target] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _end_as_interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """SIGTERM, like Ctrl-C, ends the load test in order. Puts the handlers back on leaving."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, _end_as_interrupted)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def open_stage(settings: StageSettings) -> Iterator[Stage]:
    """Starts PostgreSQL and the proxies asked for; on leaving, for whatever reason, nothing of them is left.

    Raises LoadtestError when something doesn't come up. A PgBouncer that isn't there is only noted.
    """
    user = unprivileged_user()
    with ExitStack() as stack:
        stack.enter_context(_signals_end_it())
        try:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgsluice-loadtest-")))
            directory.chmod(0o711)  # So that the unprivileged user gets to what is its own in there.
            program = find_postgres(user, settings.postgres)
            _announce(f"starting PostgreSQL {program.version}, pgbench scale {settings.scale}")
            postgres = stack.enter_context(
                PostgresCluster(program, directory, user=user, scale=settings.scale)
            )
            stage = Stage(postgres, directory, versions={"PostgreSQL": program.version})
            for name in settings.targets:
                target = _start(stack, stage, name, settings)
                if target:
                    stage.targets[name] = target
            yield stage
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            _announce("stopping everything")


def _start(stack: ExitStack, stage: Stage, name: TargetName, settings: StageSettings) -> Target | None:
    if name == "direct":
        return Target("direct", stage.postgres.port, None)
    if name == "pgbouncer":
        return _start_pgbouncer(stack, stage, find_pgbouncer(), settings)
    command = pgsluice_command(settings.pgsluice, stage.directory)
    stage.versions["pgsluice"] = command.version()
    _announce(f"starting pgsluice: {stage.versions['pgsluice']}")
    return start_pgsluice(
        stack,
        command,
        stage.postgres,
        stage.directory,
        pool_size=settings.pool_size,
        extra=settings.pgsluice_flags,
    )


def _start_pgbouncer(
    stack: ExitStack, stage: Stage, program: Program | None, settings: StageSettings
) -> Target | None:
    if program is None:
        stage.notes.append(NO_PGBOUNCER)
        _announce(NO_PGBOUNCER)
        return None
    stage.versions["PgBouncer"] = program.version
    _announce(f"starting PgBouncer {program.version}")
    user = unprivileged_user()
    target = start_pgbouncer(
        stack, program, stage.postgres, stage.directory, user=user, pool_size=settings.pool_size
    )
    if "prepared" not in target.protocols:
        stage.notes.append(
            f"PgBouncer {program.version} has no prepared statements in transaction mode (1.21 has)."
        )
    return target


def _announce(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
