"""Where clients arrive: what their log-ins and sessions have in common."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from protocol.auth.scram import ScramKeys, ScramVerifier
from protocol.types import CancelKey
from proxy.client.auth import Authenticator
from proxy.client.handshake import ClientHandshake
from proxy.client.registry import Registry
from proxy.client.session import Session
from proxy.config.auth_file import Credential
from proxy.config.schema import ClientTls, PoolMode, Settings
from proxy.errors import ConfigError
from proxy.net.link import Link
from proxy.net.poller import Poller
from proxy.net.tls import context_for_clients
from proxy.observe.logs import RepeatedEvents
from proxy.observe.statistics import QueryStatistics
from proxy.query.statements import StatementCatalog
from proxy.server.assignment import Flavour
from proxy.server.pool import Pool, Refusal
from proxy.server.primary import Primary


class Front:
    """Makes log-ins of connections and sessions of log-ins, and keeps the pools that they use."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        settings: Settings,
        primary: Primary,
        statistics: QueryStatistics,
        log: Any,
        registry: Registry | None = None,
    ) -> None:
        self.loop = loop
        self._poller = poller
        self.settings = settings
        self.primary = primary
        self.statistics = statistics
        self.log = log
        self.catalog = StatementCatalog()
        self.registry = registry if registry is not None else Registry()
        self.forward_cancel: Callable[[int, CancelKey], Awaitable[None]] | None = None
        self.arriving: set[ClientHandshake] = set()
        self.authenticator = Authenticator(settings)
        self.tls = _tls_context(settings)
        self.pools: dict[tuple[str, str], Pool] = {}
        self.connected_total = 0
        self.login_failures_total = 0
        self.protocol_violations_total = 0
        self.cancels_total = 0
        self._closing = False
        self._repeated = RepeatedEvents(log)

    # -- arrivals ----------------------------------------------------------------------------------

    def new_link(self) -> Link:
        """The protocol object of a connection that has just been accepted."""
        link = Link(self._poller, self.loop, None)
        self.connected_total += 1
        handshake = ClientHandshake(link, self)
        self.arriving.add(handshake)
        link.handler = handshake
        link.greeted = handshake.greeted
        return link

    @property
    def load(self) -> int:
        """Client connections: logged in, or about to."""
        return len(self.registry) + len(self.arriving)

    @property
    def newest_minor(self) -> int:
        """The newest minor version of protocol 3 that a client may have: the server's."""
        return self.primary.newest_minor

    def new_salt(self) -> bytes:
        """Four random bytes for an md5 log-in."""
        return secrets.token_bytes(4)

    def pool_for(
        self, user: str, database: str, credential: Credential | None, keys: ScramKeys | None
    ) -> Pool:
        """The pool of a user and a database. What the user has just proved to know is used for the server,
        too.
        """
        pool = self.pools.get((user, database))
        if pool is None:
            pool = Pool(
                self.loop,
                self.primary,
                user,
                database,
                self.settings.pool.size,
                self.settings.pool.wait_timeout,
                self.settings.pool.mode is PoolMode.SESSION,
                self.log,
            )
            self.pools[(user, database)] = pool
        pool.credential = keys if isinstance(credential, ScramVerifier) and keys is not None else credential
        return pool

    def session_began(self, key: CancelKey, session: Session) -> None:
        self.registry.add(key, session)
        if self._closing:
            session.terminate("57P01", "terminating connection due to administrator command")

    def session_ended(self, session: Session) -> None:
        self.registry.remove(session.key)
        self.flavour_left(session.pool, session.flavour)

    def flavour_left(self, pool: Pool, flavour: Flavour) -> None:
        """A session or log-in no longer uses the pool; a pool that nobody uses and that has no server is
        forgotten.
        """
        pool.session_ended(flavour)
        if not pool.sessions and not pool.assignment.total:
            self.pools.pop((pool.user, pool.database), None)

    # -- what goes wrong ---------------------------------------------------------------------------

    def protocol_violated(self, peer: str, reason: str) -> None:
        self.protocol_violations_total += 1
        self._repeated.warning("protocol violation", key=(_host(peer), reason), peer=peer, reason=reason)

    def tls_failed(self, peer: str, reason: str) -> None:
        self._repeated.warning("TLS handshake failed", key=_host(peer), peer=peer, reason=reason)

    def login_failed(
        self, peer: str, user: str | None, database: str | None, sqlstate: str, reason: str
    ) -> None:
        self.login_failures_total += 1
        self._repeated.warning(
            "log-in failed",
            key=(_host(peer), user, sqlstate),
            peer=peer,
            user=user,
            database=database,
            sqlstate=sqlstate,
            reason=reason,
        )

    # -- cancel ------------------------------------------------------------------------------------

    async def cancel(self, key: CancelKey) -> None:
        """Cancels what the session with this key runs, here or in another worker, if it runs anything;
        returns when the server has taken note.
        """
        owner = self.registry.owner(key)
        if owner == self.registry.worker:
            await self.cancel_own(key)
        elif self.forward_cancel is not None:
            await self.forward_cancel(owner, key)

    async def cancel_own(self, key: CancelKey) -> None:
        """As `cancel`, for sessions of this process only."""
        session = self.registry.find(key)
        if session is None:
            return
        if session.waiting:
            # A server of its own would run the statement already.
            self.cancels_total += 1
            session.pool.leave(session)
            session.refuse(Refusal("57014", "canceling statement due to user request"))
            return
        server = session.server
        if server is None or not len(server.pipeline):
            return
        self.cancels_total += 1
        self.primary.cancel(server)
        await self.primary.wait_for_cancels()

    # -- the end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends every session and every pool."""
        self._closing = True
        refusal = Refusal("57P01", "terminating connection due to administrator command")
        for pool in list(self.pools.values()):
            pool.shut(refusal)
        for session in self.registry.sessions():
            session.terminate("57P01", "terminating connection due to administrator command")
        for pool in list(self.pools.values()):
            pool.abort()
        self._repeated.flush()


def _host(peer: str) -> str:
    return peer.rpartition(":")[0]


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    client = settings.client
    if client.tls is ClientTls.OFF or client.tls_cert is None or client.tls_key is None:
        return None
    try:
        return context_for_clients(client.tls_cert, client.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "client_tls_cert", str(client.tls_cert), f"a certificate and key that can be used ({error})"
        ) from None
