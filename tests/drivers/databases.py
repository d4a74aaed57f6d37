"""What a driver test connects to: a database of PostgreSQL itself, or one through the proxy."""

from dataclasses import dataclass

from support.postgres import PASSWORD, SUPERUSER

from proxy.demo.embedded import PostgresServer

SERVERS = 2
"""The proxy's pool size in the driver tests."""

CLIENTS = 8
"""How many connections a driver opens where it opens many."""


@dataclass(frozen=True, slots=True)
class Database:
    """A database for a driver to use; `proxied` tells whether the way to it goes through the proxy."""

    name: str
    port: int
    server: PostgresServer
    proxied: bool
    host: str = "127.0.0.1"
    user: str = SUPERUSER
    password: str = PASSWORD

    @property
    def url(self) -> str:
        """A connection string, as in DATABASE_URL."""
        direct = self.server.url(self.name, user=self.user, password=self.password)
        return direct.replace(f":{self.server.port}/", f":{self.port}/")

    def psql(self, sql: str) -> str:
        """Looks in past the proxy: rows as psql -At prints them."""
        return self.server.psql(sql, self.name)

    @property
    def connections(self) -> int:
        """How many connections there are to it (by TCP: the tests' own look in by the Unix socket)."""
        return self._count("client_port > 0 AND backend_type = 'client backend'")

    def sleeping(self, comment: str) -> int:
        """How many statements with that comment are in pg_sleep."""
        return self._count(f"query LIKE '%{comment} */%' AND wait_event = 'PgSleep'")

    def _count(self, condition: str) -> int:
        activity = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{self.name}' AND "
        return int(self.server.psql(activity + condition))
