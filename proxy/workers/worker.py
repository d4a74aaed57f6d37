"""A worker process: serves clients, and tells the supervisor what it counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import uvloop

from protocol.types import CancelKey
from proxy.app import Proxy
from proxy.client.registry import Registry
from proxy.config.schema import Settings
from proxy.errors import ConfigError
from proxy.observe import logs
from proxy.observe.statistics import QueryStatistics
from proxy.workers.board import Board
from proxy.workers.control import Body, Channel, ControlError
from proxy.workers.figures import Report, share
from proxy.workers.spawn import Orders, read_orders

CANCEL_TIMEOUT = 30.0
"""Seconds that another worker may take to deliver a cancel request."""

PAGE_BYTES = 64 * 1024
"""Bytes of JSON after which a page of statistics is full: clients wait while one is made, for a millisecond
or two.  A single fingerprint has some 40 kB at most.
"""


def main() -> int:
    """The process's exit code.  The supervisor has blocked SIGINT here."""
    try:
        orders = read_orders()
    except EOFError:
        return 1
    log = logs.configure(orders.settings.log, worker=orders.worker + 1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(orders, log))


async def _serve(orders: Orders, log: Any) -> int:
    worker = Worker(orders)
    control = await Channel.over(socket.socket(fileno=orders.control), worker.answer)
    return await worker.run(control, log)


class Worker:
    """What a worker does besides serving clients.  `stopping` is set when it shall end."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.stopping = asyncio.Event()
        self._proxy: Proxy | None = None
        self._pages: Iterator[Body] = iter(())

    async def run(self, control: Channel, log: Any) -> int:
        """Serves until told to stop, or until the supervisor is gone; the exit code."""
        listening = asyncio.create_task(self._listen_to(control))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.stopping.set)
        orders = self.orders
        try:
            proxy = Proxy(
                worker_settings(orders.settings, orders.worker), log, Registry(orders.worker, orders.workers)
            )
        except ConfigError as error:
            refusal = {"setting": error.setting, "value": _shown(error.value), "allowed": error.allowed}
            with contextlib.suppress(ControlError):
                await control.request("refused", refusal)
            return 2
        self._proxy = proxy
        board = Board(open(orders.board, "r+b", buffering=0), orders.workers)  # noqa: SIM115
        proxy.listener.others_first = lambda: board.others_first(orders.worker, proxy.front.load)
        proxy.front.forward_cancel = lambda worker, key: self._forward_cancel(control, worker, key, log)
        sockets = [socket.socket(fileno=fd) for fd in orders.listening]
        proxy.start(sockets)
        board.write(orders.worker, 0)
        try:
            with contextlib.suppress(ControlError):
                await control.request("listening")
                await self.stopping.wait()
        finally:
            await proxy.stop()
            for sock in sockets:
                sock.close()
            listening.cancel()
        return 0

    async def _listen_to(self, control: Channel) -> None:
        try:
            await control.serve()
        finally:
            # Without a supervisor nobody would restart this worker, or tell anybody how it is.
            self.stopping.set()

    async def answer(self, kind: str, body: Body) -> Body:
        """What the supervisor asks for."""
        match kind:
            case "report":
                return self._report()
            case "more":
                return next(self._pages)
            case "cancel":
                if self._proxy is not None:
                    key = CancelKey(int(body["pid"]), bytes.fromhex(body["secret"]))
                    await self._proxy.front.cancel_own(key)
                return {}
        raise ControlError(f"a worker knows no {kind}")

    def _report(self) -> Body:
        """How it is and what was counted since the last report, of which the first page."""
        proxy = self._proxy
        if proxy is None:
            raise ControlError("not yet")
        report = Report(tuple(proxy.pools()), proxy.clients(), proxy.not_ready())
        self._pages = pages(proxy.statistics.take())
        return report.export() | {"statistics": next(self._pages)}

    async def _forward_cancel(self, control: Channel, worker: int, key: CancelKey, log: Any) -> None:
        """Returns when the worker that has the session has delivered the request, or can't."""
        body = {"worker": worker, "pid": key.pid, "secret": key.secret.hex()}
        try:
            await control.request("cancel", body, CANCEL_TIMEOUT)
        except (ControlError, TimeoutError) as error:
            log.warning("cancel request not forwarded", to=worker + 1, reason=str(error) or "no answer")


def worker_settings(settings: Settings, worker: int) -> Settings:
    """The settings of one worker (from 0): its share of every pool, and no admin server."""
    size = share(settings.pool.size, worker, settings.workers)
    pool = settings.pool.model_copy(update={"size": size})
    return settings.model_copy(update={"pool": pool, "admin": None})


def pages(statistics: QueryStatistics) -> Iterator[Body]:
    """What `statistics` export in pieces that fit a message, each made when it is asked for: the first has
    all but some of the `entries`, the others have only these; `more` tells that another one follows.
    """
    page: Body = {
        "max_fingerprints": statistics.max_fingerprints,
        "total": statistics.total.export(),
        "other": statistics.other.export(),
        "entries": [],
    }
    size = 0
    for entry in sorted(statistics.entries(), key=attrgetter("used")):
        exported = entry.export()
        length = len(json.dumps(exported))
        if size + length > PAGE_BYTES and page["entries"]:
            yield page | {"more": True}
            page, size = {"entries": []}, 0
        size += length
        page["entries"].append(exported)
    yield page | {"more": False}


def _shown(value: object) -> str | int | float | None:
    return value if value is None or isinstance(value, str | int | float) else str(value)
