"""The proxy put together, and run as a single process with one event loop."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import uvloop

from proxy import build
from proxy.client.front import Front
from proxy.client.registry import Registry
from proxy.config.schema import Settings
from proxy.errors import ConfigError
from proxy.net.listener import Listener, ListeningSockets
from proxy.net.poller import Poller
from proxy.observe import logs
from proxy.observe.metrics import BuildInfo, ClientFigures, Metrics, PoolFigures
from proxy.observe.statistics import QueryStatistics
from proxy.server.pool import Pool
from proxy.server.primary import Primary

if TYPE_CHECKING:
    from proxy.admin.http import AdminServer


class Proxy:
    """What serves clients, in a single process or as one worker of several.  `registry` tells which of them;
    `log` is the process's logger.  Raises `ConfigError`.
    """

    def __init__(self, settings: Settings, log: Any, registry: Registry | None = None) -> None:
        self.settings = settings
        self.log = log
        loop = asyncio.get_running_loop()
        self.poller = Poller(loop)
        try:
            self.primary = Primary(
                loop,
                self.poller,
                settings.primary,
                settings.connect_timeout,
                settings.server.prepared_statements,
                log,
            )
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                "primary", None, f"a certificate file named by the URL can't be used ({error})"
            ) from None
        self.statistics = QueryStatistics(settings.statistics.max_fingerprints)
        self.front = Front(loop, self.poller, settings, self.primary, self.statistics, log, registry)
        self.listener = Listener(loop, self.poller, self.front.new_link, log)

    def start(self, sockets: Iterable[socket.socket]) -> None:
        """Serves clients who connect to these listening sockets, and begins to look for the primary."""
        self.listener.start(sockets)
        self.primary.start()

    async def stop(self) -> None:
        """Ends every session with 57P01 and closes everything but the listening sockets."""
        self.listener.close()
        self.front.close()
        await self.primary.stop()
        self.poller.close()

    def not_ready(self) -> str | None:
        """Why the proxy can't serve; None when it can."""
        return self.primary.unreachable

    # -- figures for the metrics -------------------------------------------------------------------

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
    # Not at the top: each worker loads this module, too, and its HTTP server would be 12 MB for nothing.
    from proxy.admin.http import AdminServer

    stopping = stop_signal()
    proxy = Proxy(settings, log)
    sockets = ListeningSockets()
    metrics = Metrics(proxy.statistics, proxy, BuildInfo.current())
    admin = AdminServer(metrics, proxy.statistics, proxy.not_ready)
    try:
        await sockets.bind(settings.listen)
        await start_admin(admin, settings)
        proxy.start(sockets.sockets)
        say_ready(log, settings, sockets.addresses, admin.address)
        await stopping.wait()
        log.info("stopping", clients=len(proxy.front.registry))
    finally:
        await proxy.stop()
        sockets.close()
        await admin.close()
    return 0


def stop_signal() -> asyncio.Event:
    """Is set by SIGTERM and SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


async def start_admin(admin: AdminServer, settings: Settings) -> None:
    """Has the admin server listen where the settings say, if anywhere.  Raises `ConfigError`."""
    if settings.admin is None:
        return
    try:
        await admin.start(settings.admin.host, settings.admin.port)
    except OSError as error:
        raise ConfigError(
            "admin", str(settings.admin), f"an address that is free ({error.strerror})"
        ) from None


def say_ready(log: Any, settings: Settings, addresses: list[str], admin: str, **more: object) -> None:
    """The `ready` line: from now on clients are served."""
    if build.form() != "compiled":
        log.warning(
            "not compiled: several times slower than it could be; install a C compiler and install again",
            form=build.form(),
        )
    log.info(
        "ready",
        listen=addresses,
        admin=admin or None,
        primary=settings.primary.address,
        form=build.form(),
        **more,
    )
