"""The proxy put together: one process, one event loop."""

from __future__ import annotations

import asyncio
import signal
import ssl
from typing import Any

import uvloop

from proxy import build
from proxy.admin.http import AdminServer
from proxy.client.front import Front
from proxy.config.schema import Settings
from proxy.errors import ConfigError
from proxy.net.listener import Listener
from proxy.net.poller import Poller
from proxy.observe import logs
from proxy.observe.metrics import BuildInfo, ClientFigures, Metrics, PoolFigures
from proxy.observe.statistics import QueryStatistics
from proxy.server.pool import Pool
from proxy.server.primary import Primary


class Proxy:
    """`addresses` and `admin_address` are where it listens, once started."""

    def __init__(self, settings: Settings, log: Any) -> None:
        self.settings = settings
        self.log = log
        loop = asyncio.get_running_loop()
        self.poller = Poller(loop)
        try:
            self.primary = Primary(
                loop, self.poller, settings.primary, settings.connect_timeout, settings.server.prepared_statements, log
            )
        except (OSError, ssl.SSLError) as error:
            raise ConfigError("primary", None, f"a certificate file named by the URL can't be used ({error})") from None
        self.statistics = QueryStatistics(settings.statistics.max_fingerprints)
        self.front = Front(loop, self.poller, settings, self.primary, self.statistics, log)
        self.listener = Listener(loop, self.poller, self.front.new_link, log)
        self.metrics = Metrics(self.statistics, self, BuildInfo.current())
        self.admin = AdminServer(self.metrics, self.statistics, self.not_ready)
        self.addresses: list[str] = []
        self.admin_address: str | None = None

    async def start(self) -> None:
        """Listens.  Raises `ConfigError` for an address that can't be had."""
        await self.listener.start(self.settings.listen)
        self.addresses = self.listener.addresses
        if self.settings.admin is not None:
            try:
                await self.admin.start(self.settings.admin.host, self.settings.admin.port)
            except OSError as error:
                self.listener.close()
                raise ConfigError("admin", str(self.settings.admin), f"an address that is free ({error.strerror})") from None
            self.admin_address = self.admin.address
        self.primary.start()

    async def stop(self) -> None:
        """Ends every session with 57P01 and closes everything."""
        self.listener.close()
        self.front.close()
        await self.primary.stop()
        await self.admin.close()
        self.poller.close()

    def not_ready(self) -> str | None:
        """Why the proxy can't serve; None when it can."""
        return self.primary.unreachable

    # -- figures for the metrics ----------------------------------------------------------------------------------------------------------

    def pools(self) -> list[PoolFigures]:
        return [_figures(pool) for pool in self.front.pools.values()]

    def clients(self) -> ClientFigures:
        sessions = self.front.registry.sessions()
        return ClientFigures(
            connected=len(sessions),
            connected_total=self.front.connected_total,
            active=sum(1 for session in sessions if session.server is not None),
            login_failures_total=self.front.login_failures_total,
            protocol_violations_total=self.front.protocol_violations_total,
            cancels_total=self.front.cancels_total,
        )


def _figures(pool: Pool) -> PoolFigures:
    assignment = pool.assignment
    idle = assignment.idle
    return PoolFigures(
        user=pool.user,
        database=pool.database,
        size=assignment.size,
        mode="session" if pool.holds_for_session else "transaction",
        active=len(pool.servers) - idle,
        idle=idle,
        opening=assignment.opening,
        waiting=len(assignment.waiters),
        opened_total=pool.opened_total,
        closed_total=pool.closed_total,
        acquired_total=pool.acquired_total,
        wait_seconds_total=pool.wait_seconds_total,
        waits_total=pool.waits_total,
        connect_errors_total=pool.connect_errors_total,
    )


def run(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code.  Raises `ConfigError`."""
    log = logs.configure(settings.log)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, log))


async def _serve(settings: Settings, log: Any) -> int:
    proxy = Proxy(settings, log)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await proxy.start()
    if build.form() != "compiled":
        log.warning("not compiled: several times slower than it could be; install a C compiler and install again", form=build.form())
    log.info("ready", listen=proxy.addresses, admin=proxy.admin_address, primary=settings.primary.address, form=build.form())
    await stopping.wait()
    log.info("stopping", clients=len(proxy.front.registry))
    await proxy.stop()
    return 0
