"""What Prometheus gets: clean names, counters that never go back, and sums that are the truth."""

import asyncio
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from math import inf
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families
from support.parts import environment, locate
from support.ports import free_port

from proxy.build import VERSION, form
from proxy.observe.metrics import BuildInfo, ClientFigures, Metrics, PoolFigures, TopSeries
from proxy.observe.record import Fingerprint, QueryRecord
from proxy.observe.statistics import QueryStatistics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Figures:
    """Fixed figures of two pools and some clients."""

    def pools(self) -> list[PoolFigures]:
        return [
            PoolFigures("bob", "shop", 20, "transaction", 1, 2, 3, 4, 5, 6, 7, 8.5, 9, 10),
            PoolFigures('ann"\\\n\udcff', "shop", 5, "session", 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0),
        ]

    def clients(self) -> ClientFigures:
        return ClientFigures(11, 12, 13, 14, 15, 16)


def _observe(statistics: QueryStatistics, shape: Fingerprint, total: float, sqlstate: str = "") -> None:
    record = QueryRecord(shape, "bob", "shop", 0.0, 10, False)
    record.total, record.server, record.wait = total, total / 2, total / 4
    record.rows, record.bytes_out, record.sqlstate = 2, 100, sqlstate
    statistics.observe(record)


def _shape(number: int) -> Fingerprint:
    return Fingerprint(number, f"select {'a' * number}")


def _metrics(statistics: QueryStatistics) -> Metrics:
    return Metrics(statistics, Figures(), BuildInfo("1.2", "pure", "3.12.1"))


def _scraped(metrics: Metrics) -> Samples:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=0.0.4")
    samples: Samples = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return samples


def _of(samples: Samples, name: str) -> dict[str, float]:
    """The values of a metric with one label, by that label's value."""
    return {labels[0][1]: value for (found, labels), value in samples.items() if found == name}


@pytest.fixture
def busy() -> QueryStatistics:
    """200 shapes, the higher the number the more time; one in ten statements fails."""
    statistics = QueryStatistics()
    for number in range(200):
        for call in range(number % 10 + 1):
            _observe(statistics, _shape(number), 0.0001 * (number + 1), "" if call else "23505")
    return statistics


def test_the_top_fingerprints_and_other(busy: QueryStatistics) -> None:
    samples = _scraped(_metrics(busy))
    calls = _of(samples, "pgsluice_query_duration_seconds_count")
    assert len(calls) == 51
    ranking = sorted(busy.entries(), key=lambda entry: -entry.total_ns)
    assert calls.pop("other") == sum(entry.calls for entry in ranking[50:])
    assert calls == {f"{entry.fingerprint.id:016x}": entry.calls for entry in ranking[:50]}
    rows = _of(samples, "pgsluice_query_rows_total")
    assert sum(rows.values()) == busy.total.rows
    assert rows["00000000000000c7"] == 20
    assert samples["pgsluice_statements_total", ()] == busy.total.calls
    assert _of(samples, "pgsluice_statement_errors_total") == {"23505": 200}


def test_buckets_are_exact_at_powers_of_two() -> None:
    statistics = QueryStatistics()
    for seconds in (2.0**-20, 2.0**-14, 2.0**-14 + 1e-9, 0.5, 0.5000001, 64.0, 65.0):
        _observe(statistics, _shape(1), seconds)
    samples = _scraped(_metrics(statistics))
    reached = {
        float(dict(labels)["le"]): value
        for (name, labels), value in samples.items()
        if name == "pgsluice_query_duration_seconds_bucket" and dict(labels)["fingerprint"] != "other"
    }
    assert reached[2.0**-14] == 2
    assert reached[2.0**-13] == 3
    assert (reached[0.25], reached[0.5], reached[1.0]) == (3, 4, 5)
    assert (reached[64.0], reached[inf]) == (6, 7)
    assert list(reached.values()) == sorted(reached.values())


def test_the_text_of_a_query_is_shortened() -> None:
    statistics = QueryStatistics()
    _observe(statistics, Fingerprint(1, 'select "Ä\\\n" ' + "x" * 300), 0.1)
    ((labels, value),) = [
        (dict(labels), value)
        for (name, labels), value in _scraped(_metrics(statistics)).items()
        if "query_info" in name
    ]
    assert labels == {"fingerprint": "0000000000000001", "query": ('select "Ä\\\n" ' + "x" * 300)[:200]}
    assert value == 1


def test_pools_clients_and_build() -> None:
    samples = _scraped(_metrics(QueryStatistics()))
    pool = (("database", "shop"), ("user", "bob"))
    assert samples["pgsluice_pool_size", pool] == 20
    states = {
        state: samples["pgsluice_pool_connections", (pool[0], ("state", state), pool[1])]
        for state in ("active", "idle", "opening")
    }
    assert states == {"active": 1, "idle": 2, "opening": 3}
    assert samples["pgsluice_pool_waiting_clients", pool] == 4
    assert samples["pgsluice_pool_opened_total", pool] == 5
    assert samples["pgsluice_pool_closed_total", pool] == 6
    assert samples["pgsluice_pool_acquired_total", pool] == 7
    assert samples["pgsluice_pool_wait_seconds_total", pool] == 8.5
    assert samples["pgsluice_pool_waits_total", pool] == 9
    assert samples["pgsluice_pool_connect_errors_total", pool] == 10
    assert samples["pgsluice_pool_size", (("database", "shop"), ("user", 'ann"\\\n\\xff'))] == 5
    assert samples["pgsluice_pool_info", (pool[0], ("mode", "transaction"), pool[1])] == 1
    assert samples["pgsluice_clients", ()] == 11
    assert samples["pgsluice_client_connections_total", ()] == 12
    assert samples["pgsluice_active_clients", ()] == 13
    assert samples["pgsluice_login_failures_total", ()] == 14
    assert samples["pgsluice_protocol_violations_total", ()] == 15
    assert samples["pgsluice_cancels_total", ()] == 16
    assert samples["pgsluice_build_info", (("form", "pure"), ("python", "3.12.1"), ("version", "1.2"))] == 1
    assert samples["process_resident_memory_bytes", ()] > 0


def test_the_current_build_is_this_one() -> None:
    build = BuildInfo.current()
    assert (build.version, build.form) == (VERSION, form())
    assert build.python.startswith("3.")


def test_counters_never_go_back_and_add_up_while_the_top_changes() -> None:
    """Shapes come and go, in and out of the top and of the statistics' own table."""
    randomness = random.Random(5)
    statistics = QueryStatistics(max_fingerprints=80)
    metrics = _metrics(statistics)
    last: Samples = {}
    shown: set[str] = set()
    left_the_top = came_back = 0
    for scrape in range(100):
        for _ in range(randomness.randrange(40)):
            number = int(randomness.triangular(0, 400, scrape * 4))
            _observe(
                statistics, _shape(number), randomness.lognormvariate(-5, 2), randomness.choice(["", "40001"])
            )
        now = _scraped(metrics)
        counters = {
            key: value
            for key, value in now.items()
            if key[0].startswith("pgsluice_query_") and not key[0].endswith("_info")
        }
        assert all(value >= last.get(key, 0) for key, value in counters.items())
        top = set(_of(now, "pgsluice_query_rows_total"))
        left_the_top += len(shown - top)
        came_back += len(top - shown & _of(last, "pgsluice_query_rows_total").keys())
        shown = top
        last |= counters
        # `last` has the last value of every series ever shown.
        assert sum(_of(last, "pgsluice_query_duration_seconds_count").values()) == statistics.total.calls
        assert sum(_of(last, "pgsluice_query_rows_total").values()) == statistics.total.rows
        assert sum(_of(last, "pgsluice_query_errors_total").values()) == statistics.total.failures
        assert sum(_of(last, "pgsluice_query_duration_seconds_sum").values()) == pytest.approx(
            statistics.total.total_ns / 1e9
        )
    assert min(left_the_top, came_back, statistics.other.calls) > 0


class TestTopSeries:
    def _calls(self, series: TopSeries, statistics: QueryStatistics) -> tuple[dict[int, int], int]:
        top, other = series.update(statistics)
        return {fingerprint.id: figures[0] for fingerprint, figures in top}, other[0]

    def test_growth_out_of_the_top_belongs_to_other_and_a_return_goes_on(self) -> None:
        statistics, series = QueryStatistics(), TopSeries(top=1)
        one, two = _shape(1), _shape(2)
        _observe(statistics, one, 1.0)
        _observe(statistics, two, 0.1)
        assert self._calls(series, statistics) == ({1: 1}, 1)
        # Its calls so far were counted in other: it begins at zero.
        _observe(statistics, two, 2.0)
        assert self._calls(series, statistics) == ({2: 0}, 2)
        _observe(statistics, two, 0.1)
        _observe(statistics, one, 0.1)
        assert self._calls(series, statistics) == ({2: 1}, 3)
        # Back in the top: goes on at 1; the call that brought it back went to other, as did the one before.
        _observe(statistics, one, 5.0)
        assert self._calls(series, statistics) == ({1: 1}, 4)
        _observe(statistics, one, 5.0)
        assert self._calls(series, statistics) == ({1: 2}, 4)

    def test_one_that_is_new_since_the_last_scrape_brings_all_it_has(self) -> None:
        statistics, series = QueryStatistics(), TopSeries(top=1)
        _observe(statistics, _shape(1), 1.0)
        assert self._calls(series, statistics) == ({1: 1}, 0)
        for _ in range(3):
            _observe(statistics, _shape(2), 1.0)
        assert self._calls(series, statistics) == ({2: 3}, 0)

    def test_an_entry_made_anew_between_two_scrapes_adds_what_came_since(self) -> None:
        statistics, series = QueryStatistics(max_fingerprints=1), TopSeries(top=1)
        for _ in range(5):
            _observe(statistics, _shape(1), 1.0)
        assert self._calls(series, statistics) == ({1: 5}, 0)
        _observe(statistics, _shape(2), 1.0)
        _observe(statistics, _shape(1), 1.0)
        assert self._calls(series, statistics) == ({1: 6}, 1)

    def test_what_is_remembered_is_bounded(self) -> None:
        statistics, series = QueryStatistics(max_fingerprints=2), TopSeries(top=1, remembered=2)
        for number in range(1, 6):
            _observe(statistics, _shape(number), float(number))
            assert self._calls(series, statistics) == ({number: 1}, 0)
        for _ in range(2):
            _observe(statistics, _shape(1), 100.0)
            calls, _ = self._calls(series, statistics)
        assert calls == {1: 2}


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Path:
    """The program the test is parametrised with: from its environment variable, the path, or as obtained."""
    name: str = request.param
    found = os.environ.get(name.upper()) or shutil.which(name)
    return Path(found) if found else locate(name)


@pytest.mark.parametrize("program", ["promtool"], indirect=True)
def test_promtool_finds_nothing_to_complain_about(program: Path, busy: QueryStatistics) -> None:
    body, _ = _metrics(busy).render()
    checked = subprocess.run(
        [program, "check", "metrics"],
        input=body,
        capture_output=True,
        env=environment(program),
        timeout=30,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.fixture
def data_directory(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "prometheus"
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("program", ["prometheus"], indirect=True)
async def test_a_real_prometheus_scrapes_it(
    program: Path, busy: QueryStatistics, tmp_path: Path, data_directory: Path
) -> None:
    metrics = _metrics(busy)

    async def serve(request: web.Request) -> web.Response:
        body, content_type = metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    application = web.Application()
    application.router.add_get("/metrics", serve)
    runner = web.AppRunner(application)
    await runner.setup()
    target, own = free_port(), free_port()
    await web.TCPSite(runner, "127.0.0.1", target).start()
    configuration = tmp_path / "prometheus.yml"
    job = {"job_name": "pgsluice", "scrape_interval": "500ms", "scrape_timeout": "500ms"}
    scrape = job | {"static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
    configuration.write_text(json.dumps({"scrape_configs": [scrape]}))
    log = (tmp_path / "prometheus.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={data_directory}",
        f"--web.listen-address=127.0.0.1:{own}",
        env=environment(program),
        stdout=log,
        stderr=log,
    )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{own}") as session:
            up = await _answer(session, 'up{job="pgsluice"} == 1')
            assert up, (tmp_path / "prometheus.log").read_text()
            counts = await _answer(session, "sum(pgsluice_query_duration_seconds_count)")
            assert float(counts[0]["value"][1]) == busy.total.calls
            quantiles = await _answer(
                session, "histogram_quantile(0.5, sum by (le) (pgsluice_query_duration_seconds_bucket))"
            )
            assert 0.004 < float(quantiles[0]["value"][1]) < 0.017
    finally:
        process.terminate()
        await process.wait()
        log.close()
        await runner.cleanup()


async def _answer(session: aiohttp.ClientSession, query: str) -> list[dict[str, list[str]]]:
    """What Prometheus answers, as soon as it is something; nothing after half a minute without."""
    for _ in range(300):
        try:
            async with session.get("/api/v1/query", params={"query": query}) as response:
                result: list[dict[str, list[str]]] = (await response.json())["data"]["result"]
        except aiohttp.ClientError:
            result = []
        if result:
            return result
        await asyncio.sleep(0.1)
    return []
