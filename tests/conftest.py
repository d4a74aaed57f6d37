"""Fixtures for all tests: PostgreSQL servers of every version there is, the proxy before them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import CertificateAuthority
from support.postgres import installations, programs, running_server
from support.proxy import PgsluiceProcess

from proxy.demo.embedded import PostgresServer

_TESTS = Path(__file__).parent
_UNIT = ("protocol", "proxy", "loadtest")
_WANTED_VERSIONS = {15, 18}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "unit: tests of one module, without PostgreSQL (set by the directory)")


def pytest_sessionstart(session: pytest.Session) -> None:
    """The form under test is the one that was meant, or nothing is tested at all."""
    wanted = os.environ.get("PGSLUICE_TEST_FORM")
    if not wanted:
        return
    import protocol
    import proxy
    from proxy.build import form

    live = form()
    places = ", ".join(sorted({str(Path(package.__file__ or "").parent) for package in (protocol, proxy)}))
    if live != wanted:
        pytest.exit(f"PGSLUICE_TEST_FORM={wanted}, but the {live} form is live, from {places}", returncode=3)


def pytest_report_header(config: pytest.Config) -> list[str]:
    import proxy
    from proxy.build import form

    versions = ", ".join(f"{each.version} ({each.bindir})" for each in installations().values())
    return [
        f"pgsluice: {form()} form, from {Path(proxy.__file__ or '').parent}",
        f"PostgreSQL: {versions or 'none found'}",
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_TESTS) and item.path.relative_to(_TESTS).parts[0] in _UNIT:
            item.add_marker(pytest.mark.unit)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "postgres_version" in metafunc.fixturenames:
        versions = sorted(_WANTED_VERSIONS | set(installations()))
        metafunc.parametrize("postgres_version", versions, ids=lambda major: f"pg{major}", scope="session")


@pytest.fixture(scope="session")
def postgres(postgres_version: int) -> Iterator[PostgresServer]:
    """A server shared by the whole run, once for every PostgreSQL version; SCRAM on TCP, trust on its socket.

    Tests leave it as they found it: objects of their own are created in databases or schemas of their own.
    """
    programs(postgres_version)
    with running_server(postgres_version) as server:
        yield server


@pytest.fixture(scope="session")
def newest_postgres() -> Iterator[PostgresServer]:
    """A server of the newest version, shared by the whole run: for what the version does not matter to."""
    with running_server() as server:
        yield server


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[PgsluiceProcess]:
    """A proxy of the test's own before `postgres`, at its default settings; its log is checked at the end."""
    with PgsluiceProcess(postgres.url()) as process:
        yield process


@pytest.fixture(scope="session")
def authority() -> CertificateAuthority:
    return CertificateAuthority()
