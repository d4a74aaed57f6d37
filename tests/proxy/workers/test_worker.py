"""A worker's share of the settings, and its statistics in pages."""

import json

from proxy.config.schema import PoolSettings, Settings
from proxy.config.url import parse_url
from proxy.observe.record import Fingerprint, QueryRecord
from proxy.observe.statistics import QueryStatistics
from proxy.workers.control import MAX_MESSAGE
from proxy.workers.worker import pages, worker_settings


def counted(number: int, text: str = "select {}") -> QueryStatistics:
    statistics = QueryStatistics(10_000)
    for each in range(number):
        statistics.observe(QueryRecord(Fingerprint(each, text.format(each)), "u", "d", 0.0, 7, False))
    return statistics


def together(pieces: list[dict[str, object]]) -> QueryStatistics:
    whole = dict(pieces[0])
    whole["entries"] = [entry for piece in pieces for entry in piece["entries"]]  # type: ignore[attr-defined]
    return QueryStatistics.from_export(json.loads(json.dumps(whole)))


def test_pages_make_the_whole_again() -> None:
    statistics = counted(3000, "select {} " + "x" * 1000)
    pieces = list(pages(statistics))
    assert len(pieces) > 3
    assert [piece["more"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert together(pieces).export() == statistics.export()


def test_no_page_is_longer_than_a_message_may_be() -> None:
    for piece in pages(counted(2000, "\x01" * 4096 + "{}")):
        assert len(json.dumps(piece)) < MAX_MESSAGE / 2


def test_nothing_counted_is_one_page() -> None:
    (piece,) = pages(counted(0))
    assert together([piece]).total.calls == 0


def test_a_worker_has_its_share_of_the_pool_and_no_admin_server() -> None:
    settings = Settings(
        primary=parse_url("postgresql://app:secret@db/shop"),
        workers=3,
        pool=PoolSettings(size=5, wait_timeout=7),
    )
    each = [worker_settings(settings, worker) for worker in range(3)]
    assert [one.pool.size for one in each] == [2, 2, 1]
    assert [one.admin for one in each] == [None] * 3
    assert {one.pool.wait_timeout for one in each} == {7}
    assert each[0].primary == settings.primary
    assert settings.pool.size == 5
