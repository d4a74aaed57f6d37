"""The server that `primary` names: opens connections to it, cancels on it, and knows whether it can be
reached.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from protocol.auth.scram import ScramKeys
from protocol.types import CancelKey
from proxy.config.auth_file import Credential, PlainPassword
from proxy.config.url import ServerUrl
from proxy.net.link import Link
from proxy.net.poller import Poller
from proxy.net.tls import context_to_server
from proxy.server.connection import ServerConnection
from proxy.server.handshake import ConnectFailure, FailureKind, Greeting, connect, send_cancel

PROBE_INTERVAL = 1.0
"""Seconds between attempts to reach a primary that can't be reached."""

StartupParameters = tuple[tuple[str, str], ...]
"""What a client asks for at start-up besides user and database: sorted (name, value) pairs."""


class Primary:
    """`reachable` is the reason why the primary can't be reached, None while it can; `newest_minor` the
    newest protocol 3 it speaks.

    Raises `ssl.SSLError` or `OSError` at construction for certificate files that can't be used.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        url: ServerUrl,
        timeout: float,
        prepared_statements: int,
        log: Any,
    ) -> None:
        self.url = url
        self.prepared_statements = prepared_statements
        self.unreachable: str | None = "the primary has not been reached yet"
        self.newest_minor = 2
        self._loop = loop
        self._poller = poller
        self._timeout = timeout
        self._context: ssl.SSLContext | None = context_to_server(url)
        self._log = log
        self._cancels: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None

    async def connect(
        self,
        user: str,
        database: str,
        parameters: StartupParameters,
        credential: Credential | ScramKeys | None,
    ) -> tuple[Link, Greeting]:
        """A logged-in connection.  Raises `ConnectFailure`."""
        startup = {"user": user, "database": database}
        if self.url.application_name is not None:
            startup["application_name"] = self.url.application_name
        if self.url.options is not None:
            startup["options"] = self.url.options
        startup.update(parameters)
        try:
            link, greeting = await connect(
                self._poller, self.url, startup, credential, self._context, self._timeout
            )
        except ConnectFailure as failure:
            if failure.kind is FailureKind.UNREACHABLE:
                self._lost(failure.message)
            raise
        self.newest_minor = greeting.newest_minor
        self._found()
        return link, greeting

    def cancel(self, server: ServerConnection) -> None:
        """Cancels what the connection runs. Until the server has taken note the connection serves nobody
        else.
        """
        server.cancels += 1
        task = self._loop.create_task(self._cancel(server))
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)

    async def wait_for_cancels(self) -> None:
        """Waits until the cancel requests under way have been delivered."""
        if self._cancels:
            await asyncio.wait(self._cancels)

    async def _cancel(self, server: ServerConnection) -> None:
        # The way the connection itself was made is known to work.
        context = self._context if server.link.tls is not None else None
        try:
            await send_cancel(
                self._poller, self.url, context, CancelKey(server.pid, server.secret), self._timeout
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            self._log.warning(
                "cancel request failed", server=self.url.address, pid=server.pid, reason=str(error)
            )
            server.retire = "a cancel request to it may still be under way"
        finally:
            server.pool.cancel_over(server)

    # -- reachability ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to look for the primary."""
        self._watch = self._loop.create_task(self._probe_until_found())

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for task in list(self._cancels):
            task.cancel()

    def _found(self) -> None:
        if self.unreachable is not None:
            self.unreachable = None
            self._log.info("primary reached", server=self.url.address)

    def _lost(self, reason: str) -> None:
        if self.unreachable is None:
            self._log.warning("primary can't be reached", server=self.url.address, reason=reason)
        self.unreachable = reason
        if self._watch is None or self._watch.done():
            self._watch = self._loop.create_task(self._probe_until_found())

    async def _probe_until_found(self) -> None:
        """Logs in, or at least gets as far as being refused by a server that is up, again and again until it
        works.
        """
        credential = PlainPassword(self.url.password) if self.url.password is not None else None
        first = True
        while True:
            startup = {"user": self.url.user, "database": self.url.database, "application_name": "pgsluice"}
            try:
                link, greeting = await connect(
                    self._poller, self.url, startup, credential, self._context, self._timeout
                )
            except ConnectFailure as failure:
                if first:
                    self._log.warning(
                        "primary can't be reached", server=self.url.address, reason=failure.message
                    )
                first = False
                self.unreachable = failure.message
                await asyncio.sleep(PROBE_INTERVAL)
                continue
            link.write(b"X\0\0\0\4")
            link.close()
            self.newest_minor = greeting.newest_minor
            self._found()
            return
