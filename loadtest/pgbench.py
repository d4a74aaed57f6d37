"""Running pgbench and reading what it says."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.errors import PgbenchError
from loadtest.plan import Cell
from loadtest.programs import Program

DATABASE = "bench"
USER = "bench"
# Beyond the run's own length: connecting, and the last transactions.
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class PgbenchSettings:
    """`seconds` a run; `jobs`: threads at most; `pool_size`: server connections of the proxies."""

    seconds: int
    jobs: int
    pool_size: int

    def threads(self, cell: Cell) -> int:
        """`jobs` at most, but one for each client where a thread would end up waiting for itself.

        pgbench prepares a statement when it first needs it, and waits for that alone. With more clients than
        server connections, the connection it waits for can be held by a transaction whose next statement the
        same thread would have to send.
        """
        if cell.protocol == "prepared" and cell.script == "tpcb-like" and cell.clients > self.pool_size:
            return cell.clients
        return min(self.jobs, cell.clients)


@dataclass(frozen=True, slots=True)
class PgbenchResult:
    """`tps` leaves out the initial connection time; `latency_ms` is the average of a transaction."""

    transactions: int
    failed: int
    tps: float
    latency_ms: float
    warnings: str


def _figure(name: str, pattern: str, output: str) -> str:
    found = re.search(pattern, output, re.MULTILINE)
    if not found:
        raise PgbenchError(f"pgbench printed no {name}:\n{output}")
    return found.group(1)


def parse_result(output: str, warnings: str = "") -> PgbenchResult:
    """Reads pgbench's summary (PostgreSQL 14 and newer). Raises PgbenchError when a figure is missing."""
    failed = re.search(r"^number of failed transactions: (\d+)", output, re.MULTILINE)
    return PgbenchResult(
        transactions=int(
            _figure("transactions", r"^number of transactions actually processed: (\d+)", output),
        ),
        failed=int(failed.group(1)) if failed else 0,
        tps=float(_figure("tps", r"^tps = ([\d.]+) \(without initial connection time\)", output)),
        latency_ms=float(_figure("latency", r"^latency average = ([\d.]+) ms", output)),
        warnings=warnings.strip(),
    )


def pgbench_arguments(cell: Cell, port: int, settings: PgbenchSettings) -> list[str]:
    return [
        *("-h", "127.0.0.1", "-p", str(port), "-U", USER),
        *("-n", "-b", cell.script, "-M", cell.protocol, "-T", str(settings.seconds)),
        *("-c", str(cell.clients), "-j", str(settings.threads(cell))),
        DATABASE,
    ]


def _run(command: Sequence[str], env: dict[str, str], seconds: float) -> tuple[int, str, str]:
    with subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            raise PgbenchError(f"pgbench was still running after {seconds:g} s\n{errors.strip()}") from None
        except BaseException:
            process.kill()
            raise
    return process.returncode, output, errors


def run_pgbench(postgres: Program, cell: Cell, port: int, settings: PgbenchSettings) -> PgbenchResult:
    """Runs one cell against 127.0.0.1:`port`.

    Raises PgbenchError with pgbench's own words when it exits with an error, hangs, or a transaction failed.
    """
    command = [str(postgres.path / "pgbench"), *pgbench_arguments(cell, port, settings)]
    status, output, errors = _run(command, postgres.env, settings.seconds + _PATIENCE_SECONDS)
    if status != 0:
        raise PgbenchError(f"pgbench exited with {status}\n{errors.strip()}")
    result = parse_result(output, errors)
    if result.failed:
        raise PgbenchError(f"{result.failed} transactions failed\n{errors.strip()}")
    if not result.transactions:
        raise PgbenchError(f"no transaction was processed\n{errors.strip()}")
    return result
