"""A short real workload: what an application's services, jobs and reports do, each in its driver's way."""

import asyncio
import contextlib
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import asyncpg
import psycopg

from proxy.demo.stage import ACCOUNTS, BRANCHES, TELLERS

ASYNCPG_CLIENTS = 40
_CONNECT_TIMEOUT = 10
_ASYNCPG_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

Connection = psycopg.Connection[tuple[object, ...]]
Style = Callable[[Connection], None]


@dataclass(slots=True)
class Tally:
    """What the clients counted themselves, from all threads."""

    statements: int = 0
    failed: int = 0
    connected: int = 0
    most_connected: int = 0
    sessions: int = 0
    #: Errors nobody meant, by text.
    surprises: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, statements: int = 1, *, failed: int = 0) -> None:
        with self._lock:
            self.statements += statements
            self.failed += failed

    def opened(self, clients: int = 1) -> None:
        with self._lock:
            self.connected += clients
            self.sessions += clients
            self.most_connected = max(self.most_connected, self.connected)

    def closed(self, clients: int = 1) -> None:
        with self._lock:
            self.connected -= clients

    def surprise(self, error: BaseException) -> None:
        text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        with self._lock:
            self.surprises[text] = self.surprises.get(text, 0) + 1


class Workload:
    """All styles at once against one connection string, until `stop()` or the deadline."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.tally = Tally()
        self._stop = threading.Event()

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        """Returns when every client has finished its statement and left; only `stop()` brings that about."""
        styles: list[tuple[Style, int]] = [
            (self._literals, 3),
            (self._lookups, 3),
            (self._transfer, 4),
            (self._report, 1),
            (self._branch_totals, 1),
            (self._import_rows, 1),
            (self._mistakes, 1),
        ]
        # Clients of one process take turns at its interpreter. In the usual 5 ms, a transaction keeps
        # its server while its client waits, and the figures tell of this process, not of the proxy.
        sys.setswitchinterval(0.0002)
        clients = [style for style, count in styles for _ in range(count)]
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(len(clients) + 1, thread_name_prefix="demo client")
        try:
            await asyncio.gather(
                self._asyncpg_service(),
                loop.run_in_executor(executor, self._short_visits),
                *(loop.run_in_executor(executor, self._client, style) for style in clients),
            )
        finally:
            self.stop()
            executor.shutdown(wait=False)

    # --- psycopg ------------------------------------------------------------------------------------

    def _client(self, style: Style) -> None:
        while not self._stop.is_set():
            try:
                with self._connected() as connection:
                    while not self._stop.is_set():
                        style(connection)
            except psycopg.Error as error:
                self._surprised(error)
                self._stop.wait(0.5)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=_CONNECT_TIMEOUT) as connection:
            self.tally.opened()
            try:
                yield connection
            finally:
                self.tally.closed()

    def _surprised(self, error: Exception) -> None:
        if not self._stop.is_set():
            self.tally.surprise(error)

    def _pause(self, seconds: float) -> None:
        self._stop.wait(random.uniform(0.5, 1.5) * seconds)

    def _literals(self, connection: Connection) -> None:
        """The simple protocol with values in the text, as many older programs and ORMs' shells do."""
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute("SELECT owner, balance FROM accounts WHERE aid = %s", [_account()])
            cursor.fetchone()
        self.tally.count()
        self._pause(0.01)

    def _lookups(self, connection: Connection) -> None:
        """psycopg's defaults: parameters, and a prepared statement from the sixth execution on."""
        connection.execute(
            "SELECT t.tid, t.balance, b.name FROM tellers t JOIN branches b USING (bid) WHERE t.tid = %s",
            [random.randint(1, TELLERS)],
        ).fetchone()
        self.tally.count()
        self._pause(0.01)

    def _transfer(self, connection: Connection) -> None:
        """A transaction after the pattern of TPC-B."""
        account, teller, delta = _account(), random.randint(1, TELLERS), random.randint(-500, 500)
        branch = 1 + teller % BRANCHES
        with connection.transaction():
            connection.execute("UPDATE accounts SET balance = balance + %s WHERE aid = %s", [delta, account])
            connection.execute("SELECT balance FROM accounts WHERE aid = %s", [account]).fetchone()
            connection.execute("UPDATE tellers SET balance = balance + %s WHERE tid = %s", [delta, teller])
            connection.execute("UPDATE branches SET balance = balance + %s WHERE bid = %s", [delta, branch])
            connection.execute(
                "INSERT INTO history (tid, bid, aid, delta) VALUES (%s, %s, %s, %s)",
                [teller, branch, account, delta],
            )
        self.tally.count(7)
        self._pause(0.02)

    def _report(self, connection: Connection) -> None:
        """What somebody should look at: a window over the whole table."""
        connection.execute(
            "SELECT bid, owner, balance FROM (SELECT bid, owner, balance, rank() OVER (PARTITION BY bid"
            " ORDER BY balance DESC, md5(owner)) AS place FROM accounts) ranked WHERE place <= %s",
            [10],
        ).fetchall()
        self.tally.count()
        self._pause(2)

    def _branch_totals(self, connection: Connection) -> None:
        connection.execute(
            "SELECT count(*), sum(balance), max(balance) FROM accounts WHERE bid = %s",
            [random.randint(1, BRANCHES)],
        ).fetchone()
        self.tally.count()
        self._pause(0.4)

    def _import_rows(self, connection: Connection) -> None:
        """A job that loads: one INSERT of many rows, then COPY."""
        rows = 500
        connection.execute(
            "INSERT INTO history (tid, bid, aid, delta, note)"
            " SELECT 1, 1, n, 0, 'batch' FROM unnest(%s::int[]) AS n",
            [random.sample(range(1, ACCOUNTS + 1), rows)],
        )
        with (
            connection.cursor() as cursor,
            cursor.copy("COPY history (tid, bid, aid, delta, note) FROM STDIN") as copy,
        ):
            for _ in range(rows):
                copy.write_row((1, 1, _account(), 0, "copied"))
        self.tally.count(2)
        self._pause(1)

    def _mistakes(self, connection: Connection) -> None:
        """Statements that fail, as some always do."""
        for statement in (
            "INSERT INTO branches (bid, name) VALUES (1, 'there already')",
            "SELECT balance / 0 FROM accounts WHERE aid = 1",
            "SELECT nickname FROM accounts WHERE aid = 1",
        ):
            try:
                connection.execute(statement)
            except (psycopg.errors.IntegrityError, psycopg.errors.DataError, psycopg.errors.UndefinedColumn):
                self.tally.count(failed=1)
            self._pause(0.5)

    def _short_visits(self) -> None:
        """A script, or PHP: connect, ask once, leave."""
        while not self._stop.is_set():
            try:
                with self._connected() as connection:
                    connection.execute("SELECT count(*) FROM tellers WHERE balance < 0").fetchone()
                    self.tally.count()
            except psycopg.Error as error:
                self._surprised(error)
            self._pause(0.25)

    # --- asyncpg ------------------------------------------------------------------------------------

    async def _asyncpg_service(self) -> None:
        """A web service: asyncpg's own pool, as many requests as connections."""
        while not self._stop.is_set():
            try:
                async with asyncpg.create_pool(
                    self.url, min_size=ASYNCPG_CLIENTS, max_size=ASYNCPG_CLIENTS, timeout=_CONNECT_TIMEOUT
                ) as pool:
                    self.tally.opened(ASYNCPG_CLIENTS)
                    try:
                        await asyncio.gather(*(self._asyncpg_requests(pool) for _ in range(ASYNCPG_CLIENTS)))
                    finally:
                        self.tally.closed(ASYNCPG_CLIENTS)
            except _ASYNCPG_ERRORS as error:
                self._surprised(error)
                await asyncio.sleep(0.5)

    async def _asyncpg_requests(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        while not self._stop.is_set():
            try:
                async with pool.acquire() as connection:
                    await self._asyncpg_request(connection)
            except _ASYNCPG_ERRORS as error:
                self._surprised(error)
                await asyncio.sleep(0.5)
            await asyncio.sleep(random.uniform(0.02, 0.12))

    async def _asyncpg_request(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        choice = random.random()
        if choice < 0.8:
            await connection.fetchrow("SELECT aid, owner, balance FROM accounts WHERE aid = $1", _account())
        elif choice < 0.95:
            await connection.fetch(
                "SELECT aid, delta, at FROM history WHERE at > now() - interval '5 seconds'"
                " ORDER BY at DESC LIMIT $1",
                20,
            )
        else:
            await connection.execute("UPDATE accounts SET owner = owner WHERE aid = $1", _account())
        self.tally.count()


def _account() -> int:
    return random.randint(1, ACCOUNTS)
