"""The supervisor: starts the workers, replaces those that die, and serves the admin server for all of them.

It accepts no client, so that whatever it does (a scrape adds up thousands of fingerprints) delays no query.
The event loop is asyncio's own: its use of SIGCHLD and of child processes is none but ours.
"""

from __future__ import annotations

import asyncio
import signal
from time import monotonic
from typing import Any

from proxy.admin.http import AdminServer
from proxy.app import say_ready, start_admin, stop_signal
from proxy.config.schema import Settings
from proxy.errors import ConfigError, StartupError
from proxy.net.listener import ListeningSockets
from proxy.observe import logs
from proxy.observe.metrics import BuildInfo, Metrics
from proxy.observe.statistics import QueryStatistics
from proxy.workers.board import Board
from proxy.workers.control import Body, ControlError
from proxy.workers.figures import Report, Sums
from proxy.workers.member import Member

REPORT_INTERVAL = 1.0
"""Seconds between two reports: what a worker that dies has counted since its last one is lost."""

REPORT_TIMEOUT = 2.0
"""Seconds that an answer of the admin server waits for the workers' reports."""

SILENCE = 5.0
"""Seconds without a report after which a worker, and so the instance, is not ready."""

FIRST_RESTART = 0.1
LONGEST_RESTART = 10.0
"""Seconds before a worker that has died is started again, doubling from the first to the longest."""

STABLE = 30.0
"""Seconds of life after which a worker's next death is its first again."""

STOP_TIMEOUT = 10.0
"""Seconds that workers have to end their sessions and themselves."""


def run(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code.  Raises `ConfigError` and `StartupError`."""
    log = logs.configure(settings.log)
    return asyncio.run(_supervise(settings, log))


async def _supervise(settings: Settings, log: Any) -> int:
    stopping = stop_signal()
    supervisor = Supervisor(settings, log)
    try:
        await supervisor.start(stopping)
        await stopping.wait()
    finally:
        await supervisor.stop()
    return 0


class Supervisor:
    """`members` are the workers, in the order of their numbers."""

    def __init__(self, settings: Settings, log: Any) -> None:
        self.settings = settings
        self.log = log
        self.statistics = QueryStatistics(settings.statistics.max_fingerprints)
        self.sums = Sums(settings.pool.size)
        metrics = Metrics(self.statistics, self.sums, BuildInfo.current())
        self.admin = AdminServer(metrics, self.statistics, self.not_ready, self.refresh)
        self.sockets = ListeningSockets()
        self.board = Board.new(settings.workers)
        self.members = [Member(number, self.answer) for number in range(settings.workers)]
        self._tasks: list[asyncio.Task[None]] = []
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopping = False

    # -- beginning and end ------------------------------------------------------------------------

    async def start(self, stopping: asyncio.Event) -> None:
        """Returns when all workers listen, or when it shall stop.  Raises `ConfigError`, `StartupError`."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._child_ended)
        await self.sockets.bind(self.settings.listen)
        await start_admin(self.admin, self.settings)
        self._tasks = [loop.create_task(self._keep(member)) for member in self.members]
        stop = asyncio.ensure_future(stopping.wait())
        await asyncio.wait((self._started, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not self._started.done():
            return
        self._started.result()
        self._tasks.append(loop.create_task(self._collect_for_ever()))
        addresses = self.sockets.addresses
        say_ready(self.log, self.settings, addresses, self.admin.address, workers=self.settings.workers)

    async def stop(self) -> None:
        """Has all workers end their sessions and exit; kills those that don't."""
        self._stopping = True
        if self._started.done() and not self._started.exception():
            self.log.info("stopping", clients=self.sums.clients().connected)
        self.sockets.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(member.stop(STOP_TIMEOUT) for member in self.members))
        await self.admin.close()

    def _child_ended(self) -> None:
        for member in self.members:
            member.look()

    # -- keeping workers alive ---------------------------------------------------------------------

    async def _keep(self, member: Member) -> None:
        """Starts a worker again and again."""
        pause = FIRST_RESTART
        while True:
            began = monotonic()
            try:
                await member.start(self.settings, self.board.file, self.sockets.sockets)
                reason = await member.exited()
            except OSError as error:
                reason = f"could not be started ({error.strerror})"
            self.board.wipe(member.number)
            self.sums.ended(member.number)
            if self._stopping:
                return
            if not self._started.done():
                self._started.set_exception(StartupError(f"worker {member.number + 1}: {reason}"))
                return
            if monotonic() - began >= STABLE:
                pause = FIRST_RESTART
            self.log.error(
                "worker ended", worker=member.number + 1, pid=member.pid, reason=reason, restart_seconds=pause
            )
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_RESTART)

    # -- what workers ask for ----------------------------------------------------------------------

    async def answer(self, member: Member, kind: str, body: Body) -> Body:
        """What a worker asks for."""
        match kind:
            case "listening":
                self._listens(member)
            case "refused":
                error = ConfigError(body["setting"], body["value"], body["allowed"])
                if not self._started.done():
                    self._started.set_exception(error)
                else:
                    self.log.error("worker can't start", worker=member.number + 1, reason=str(error))
            case "cancel":
                await self._cancel(int(body["worker"]), {"pid": body["pid"], "secret": body["secret"]})
            case _:
                raise ControlError(f"the supervisor knows no {kind}")
        return {}

    def _listens(self, member: Member) -> None:
        member.listening = True
        member.heard = monotonic()
        self.log.info("worker started", worker=member.number + 1, pid=member.pid)
        if not self._started.done() and all(each.listening for each in self.members):
            self._started.set_result(None)

    async def _cancel(self, worker: int, body: Body) -> None:
        member = self.members[worker]
        if member.listening:
            await member.request("cancel", body)

    # -- figures -----------------------------------------------------------------------------------

    def not_ready(self) -> str | None:
        """Why the instance can't serve; None when every worker can."""
        now = monotonic()
        for member in self.members:
            if not member.listening:
                return f"worker {member.number + 1} is being started"
            if now - member.heard > SILENCE:
                return f"worker {member.number + 1} has not answered for {now - member.heard:.0f} s"
            if member.unreachable is not None:
                return member.unreachable
        return None

    async def refresh(self) -> None:
        """Collects a report that begins now from every worker, or leaves those out that take too long."""
        reports = [self._report_of(member) for member in self.members if member.listening]
        if reports:
            await asyncio.wait(reports, timeout=REPORT_TIMEOUT)

    def _report_of(self, member: Member) -> asyncio.Task[None]:
        """A report that has not begun yet: what is counted up to now will be in it."""
        if member.next_report is None:
            member.next_report = asyncio.get_running_loop().create_task(self._collect(member))
        return member.next_report

    async def _collect(self, member: Member) -> None:
        """One report.  It has no time limit: what was counted must not get lost because a worker is slow."""
        async with member.reporting:
            member.next_report = None
            try:
                first = await member.request("report")
                pieces = [first["statistics"]]
                while pieces[-1]["more"]:
                    pieces.append(await member.request("more"))
                self._add(member, Report.from_export(first), pieces)
            except ControlError:
                return  # it has ended
            except (KeyError, TypeError, ValueError) as error:
                self.log.error("report not understood", worker=member.number + 1, reason=repr(error))

    def _add(self, member: Member, report: Report, pieces: list[Body]) -> None:
        for piece in pieces[1:]:
            pieces[0]["entries"] += piece["entries"]
        self.statistics.merge(QueryStatistics.from_export(pieces[0]))
        self.sums.reported(member.number, report)
        member.heard = monotonic()
        member.unreachable = report.unreachable

    async def _collect_for_ever(self) -> None:
        while True:
            await asyncio.sleep(REPORT_INTERVAL)
            for member in self.members:
                if member.listening and not member.reporting.locked():
                    self._report_of(member)
