"""The admin server over HTTP, at a port of its own."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.ports import free_port

from proxy.admin import http
from proxy.admin.http import AdminServer
from proxy.observe.metrics import BuildInfo, ClientFigures, Metrics, PoolFigures
from proxy.observe.record import Fingerprint, QueryRecord
from proxy.observe.statistics import QueryStatistics


class Figures:
    def pools(self) -> list[PoolFigures]:
        return []

    def clients(self) -> ClientFigures:
        return ClientFigures(0, 0, 0, 0, 0, 0)


class Stage:
    """An admin server over statistics of three queries; `problem` is why the proxy is not ready."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self.statistics = QueryStatistics()
        for number in (1, 2, 3):
            record = QueryRecord(Fingerprint(number, f"select {number} ä"), "bob", "shop", 0.0, 10, False)
            record.total = 0.1 * number
            self.statistics.observe(record)
        metrics = Metrics(self.statistics, Figures(), BuildInfo.current())
        self.server = AdminServer(metrics, self.statistics, lambda: self.problem)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    await stage.server.start("127.0.0.1", free_port())
    yield stage
    await stage.server.close()


@pytest.fixture
async def session(stage: Stage) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{stage.server.address}") as session:
        yield session


async def test_alive(session: aiohttp.ClientSession) -> None:
    async with session.get("/livez") as response:
        assert (response.status, await response.text()) == (200, "ok")


async def test_ready_and_not(session: aiohttp.ClientSession, stage: Stage) -> None:
    async with session.get("/readyz") as response:
        assert (response.status, await response.text()) == (200, "ready")
    stage.problem = "db.example:5432 refuses connections"
    async with session.get("/readyz") as response:
        assert (response.status, await response.text()) == (503, "db.example:5432 refuses connections")
    async with session.get("/livez") as response:
        assert response.status == 200


async def test_answers_are_of_what_was_refreshed_for_them() -> None:
    stage = Stage()

    async def refresh() -> None:
        await asyncio.sleep(0)
        stage.problem = "refreshed"
        stage.statistics.observe(QueryRecord(Fingerprint(4, "select 4"), "bob", "shop", 0.0, 10, False))

    metrics = Metrics(stage.statistics, Figures(), BuildInfo.current())
    server = AdminServer(metrics, stage.statistics, lambda: stage.problem, refresh)
    await server.start("127.0.0.1", free_port())
    try:
        async with aiohttp.ClientSession(f"http://{server.address}") as session:
            async with session.get("/metrics") as response:
                assert "pgsluice_statements_total 4.0" in await response.text()
            async with session.get("/api/queries") as response:
                assert len(await response.json()) == 4
            stage.problem = None
            async with session.get("/readyz") as response:
                assert (response.status, await response.text()) == (503, "refreshed")
    finally:
        await server.close()


async def test_metrics(session: aiohttp.ClientSession) -> None:
    async with session.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        names = {family.name for family in text_string_to_metric_families(await response.text())}
    assert {"pgsluice_query_duration_seconds", "pgsluice_build_info", "pgsluice_clients"} <= names


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({}, [3, 2, 1]),
        ({"order": "asc"}, [1, 2, 3]),
        ({"sort": "p99.9", "order": "desc", "limit": "2"}, [3, 2]),
        ({"limit": "10000"}, [3, 2, 1]),
    ],
)
async def test_queries(session: aiohttp.ClientSession, parameters: dict[str, str], found: list[int]) -> None:
    async with session.get("/api/queries", params=parameters) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        rows = await response.json()
    assert [row["query"] for row in rows] == [f"select {number} ä" for number in found]


@pytest.mark.parametrize(
    ("query", "parameter", "message"),
    [
        ("sort=p98", "sort", "must be one of total, calls, mean"),
        ("sort=", "sort", "must be one of"),
        ("order=down", "order", "must be one of desc, asc"),
        ("limit=0", "limit", "from 1 to 10000"),
        ("limit=10001", "limit", "from 1 to 10000"),
        ("limit=-1", "limit", "from 1 to 10000"),
        ("limit=x", "limit", "from 1 to 10000"),
        ("limit=%D9%A3", "limit", "from 1 to 10000"),
        ("limit=1&limit=2", "limit", "is given twice"),
        ("limt=1", "limt", "is unknown; there are sort, order, limit"),
    ],
)
async def test_bad_parameters_are_named(
    session: aiohttp.ClientSession, query: str, parameter: str, message: str
) -> None:
    async with session.get(f"/api/queries?{query}") as response:
        assert response.status == 400
        error = await response.json()
    assert error["parameter"] == parameter
    assert error["error"].startswith(f"{parameter} ")
    assert message in error["error"]


async def test_other_paths_and_methods(session: aiohttp.ClientSession) -> None:
    async with session.get("/") as response:
        assert response.status == 404
        assert "/metrics" in (await response.json())["error"]
    async with session.post("/metrics", data=b"x") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET,HEAD"
        assert "GET" in (await response.json())["error"]
    async with session.head("/metrics") as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST.:9187", 200),
        ("pgsluice.localhost:80", 200),
        ("127.0.0.1", 200),
        ("192.0.2.7:9187", 200),
        ("[::1]:9187", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:9187", 403),
        ("localhost.evil.example", 403),
        ("", 403),
    ],
)
async def test_a_page_elsewhere_cannot_read_it_under_its_own_name(
    session: aiohttp.ClientSession, host: str, status: int
) -> None:
    async with session.get("/api/queries", headers={"Host": host}) as response:
        assert response.status == status


async def test_beyond_loopback_any_name_will_do() -> None:
    stage = Stage()
    await stage.server.start("0.0.0.0", free_port())
    try:
        port = stage.server.address.rpartition(":")[2]
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                f"http://127.0.0.1:{port}/livez", headers={"Host": f"pgsluice.example:{port}"}
            ) as response,
        ):
            assert response.status == 200
    finally:
        await stage.server.close()


async def _reply(stage: Stage, request: bytes) -> bytes:
    """Everything the server answers to these bytes until it closes."""
    host, _, port = stage.server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /livez?" + b"x" * 10000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 10000 + b"\r\n\r\n",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f\r\n\r\n",
    ],
    ids=["a long line", "a long field", "PostgreSQL"],
)
async def test_what_is_too_large_or_no_http_is_refused(
    session: aiohttp.ClientSession, stage: Stage, request_bytes: bytes
) -> None:
    assert (await _reply(stage, request_bytes)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    async with session.get("/livez") as response:
        assert response.status == 200


async def test_a_request_that_does_not_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_KEEPALIVE_SECONDS", 0.1)
    stage = Stage()
    await stage.server.start("127.0.0.1", free_port())
    try:
        assert await _reply(stage, b"GET /livez HTTP/1.1\r\nHost: local") == b""
    finally:
        await stage.server.close()


async def test_without_a_host_it_answers() -> None:
    stage = Stage()
    await stage.server.start("127.0.0.1", free_port())
    try:
        assert (await _reply(stage, b"GET /livez HTTP/1.0\r\n\r\n")).endswith(b"\r\n\r\nok")
    finally:
        await stage.server.close()


async def test_it_listens_where_it_says_until_it_is_closed() -> None:
    stage = Stage()
    assert stage.server.address == ""
    port = free_port()
    await stage.server.start("127.0.0.1", port)
    assert stage.server.address == f"127.0.0.1:{port}"
    await stage.server.close()
    await stage.server.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_taken_port_is_an_error(stage: Stage) -> None:
    port = int(stage.server.address.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        await Stage().server.start("127.0.0.1", port)
