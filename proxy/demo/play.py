"""The demo's course: start, work, show; and on the way out, whatever the way, clear the stage."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import aiohttp
import asyncpg
from rich.console import Console
from rich.live import Live

from proxy.build import VERSION, form
from proxy.demo import INTERRUPTED, report
from proxy.demo.stage import DATABASE, Stage
from proxy.demo.workload import Workload
from proxy.errors import PgsluiceError

_USUAL_SECONDS = 20.0
_PATIENCE = 10.0
_LINE_EVERY = 5.0

_Result = TypeVar("_Result")


class Interrupted(Exception):
    """The user wants out before there is anything to show."""


def play(seconds: float | None) -> int:
    """Run the demo; see `proxy.demo.run`."""
    try:
        return asyncio.run(_play(seconds))
    except Interrupted:
        return INTERRUPTED


async def _play(seconds: float | None) -> int:
    console = Console()
    stopped = asyncio.Event()
    # The drivers' own complaints would tear the picture; what goes wrong is in the report.
    logging.disable()
    with _signals_set(stopped):
        stage = Stage()
        try:
            with console.status("Starting a PostgreSQL and the proxy before it ..."):
                await _unless_stopped(stage.start(), stopped)
            return await _perform(console, stage, stopped, seconds)
        except (OSError, TimeoutError, aiohttp.ClientError, asyncpg.PostgresError) as error:
            raise PgsluiceError(f"the demo cannot go on: {error}; {stage.last_words()}") from error
        finally:
            await stage.close()


async def _perform(console: Console, stage: Stage, stopped: asyncio.Event, seconds: float | None) -> int:
    version = stage.postgres.programs.version
    report.banner(console, version=VERSION, form=form(), postgres=version, url=stage.url, admin=stage.admin)
    workload = Workload(stage.url)
    working = asyncio.create_task(workload.run())
    watch = ServerWatch(stage)
    started = time.monotonic()
    try:
        await _progress(console, workload, watch, stopped, seconds if seconds is not None else _USUAL_SECONDS)
    finally:
        workload.stop()
        # Should a client hang, the end of the proxy will free it.
        await asyncio.wait([working], timeout=_PATIENCE)
    worked = time.monotonic() - started
    if working.done():
        working.result()
    tally = workload.tally
    if seconds is None and not stopped.is_set():
        console.print("  The workload is done, the servers go on. Ctrl-C shows the figures and ends all.")
        await stopped.wait()
    queries = await stage.get_json("/api/queries")
    console.print(report.slowest(queries, console.width))
    console.print(
        report.served(
            clients=tally.most_connected,
            sessions=tally.sessions,
            servers=watch.most,
            statements=tally.statements,
            seconds=worked,
        ),
        soft_wrap=True,
    )
    if tally.surprises:
        console.print(report.surprises(tally.surprises))
        return 1
    return 0


class ServerWatch:
    """Counts the server connections where nobody can be wrong about it: in PostgreSQL's pg_stat_activity."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.now = 0
        self.most = 0

    async def look(self) -> None:
        # Through the socket and into another database: this connection must not count itself.
        postgres = self._stage.postgres
        connection = await asyncpg.connect(
            host=str(postgres.socket_directory), port=postgres.port, user=postgres.user, database="postgres"
        )
        try:
            self.now = await connection.fetchval(
                "SELECT count(*)::int FROM pg_stat_activity WHERE datname = $1", DATABASE
            )
        finally:
            await connection.close()
        self.most = max(self.most, self.now)


async def _progress(
    console: Console, workload: Workload, watch: ServerWatch, stopped: asyncio.Event, total: float
) -> None:
    started = time.monotonic()
    last_line = 0.0
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
    with live or contextlib.nullcontext():
        while not stopped.is_set() and (elapsed := time.monotonic() - started) < total:
            await watch.look()
            line = report.progress(
                elapsed=elapsed,
                total=total,
                statements=workload.tally.statements,
                clients=workload.tally.connected,
                servers=watch.now,
            )
            if live is not None:
                live.update(line, refresh=True)
            elif elapsed - last_line >= _LINE_EVERY:
                last_line = elapsed
                console.print(line, soft_wrap=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), min(0.5, max(0.01, total - elapsed)))


@contextlib.contextmanager
def _signals_set(stopped: asyncio.Event) -> Iterator[None]:
    """The first signal ends the demo in order; further ones change nothing about that."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stopped.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _unless_stopped(work: Coroutine[Any, Any, _Result], stopped: asyncio.Event) -> _Result:
    """The work's result; Interrupted when the user wants out before (the work is cancelled and has cleaned
    up).
    """
    working = asyncio.create_task(work)
    waiting = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        raise Interrupted
    finally:
        waiting.cancel()
