"""Every driver test runs twice: directly, and through a proxy with fewer servers than there are clients."""

from collections.abc import Iterator

import pytest
from drivers.databases import SERVERS, Database
from support.proxy import PgsluiceProcess

from proxy.demo.embedded import PostgresServer


@pytest.fixture(scope="session")
def directly(newest_postgres: PostgresServer) -> Database:
    newest_postgres.psql("CREATE DATABASE directly")
    return Database("directly", newest_postgres.port, newest_postgres, proxied=False)


@pytest.fixture(scope="session")
def through_proxy(newest_postgres: PostgresServer) -> Iterator[Database]:
    newest_postgres.psql("CREATE DATABASE through_proxy")
    with PgsluiceProcess(newest_postgres.url(), settings={"POOL_SIZE": str(SERVERS)}) as process:
        yield Database("through_proxy", process.port, newest_postgres, proxied=True)


@pytest.fixture(params=["directly", "through_proxy"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Where the driver connects to, with an empty schema public."""
    database: Database = request.getfixturevalue(request.param)
    yield database
    if database.proxied:
        assert database.connections <= SERVERS
    database.psql("SET lock_timeout = '10s'; DROP SCHEMA public CASCADE; CREATE SCHEMA public")


@pytest.fixture
def accounts(database: Database) -> str:
    """A table of ten accounts with a balance of 100 each, its name."""
    database.psql(
        "CREATE TABLE accounts (id int PRIMARY KEY, owner text NOT NULL, balance int CHECK (balance >= 0));"
        "INSERT INTO accounts SELECT i, 'owner ' || i, 100 FROM generate_series(1, 10) i"
    )
    return "accounts"
