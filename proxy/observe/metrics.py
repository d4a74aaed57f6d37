"""What Prometheus scrapes: statements, pools and clients as they are at that moment.

Statements come by fingerprint for the 50 with the most total time, and as `fingerprint="other"` for all
else. Who is among the 50 changes; see `TopSeries` for how the counters stay monotonic all the same.
"""

import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from operator import attrgetter
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy.build import VERSION, form
from proxy.observe.record import Fingerprint
from proxy.observe.statistics import QueryStatistics, Totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TOP_FINGERPRINTS = 50
QUERY_LENGTH = 200

# The duration's buckets end at powers of two from 2^-14 s (61 us) to 2^6 s (64 s), where the statistics'
# buckets end too: `Histogram.octaves` item k ends at 2^(k-20) s.
_FIRST_OCTAVE, _LAST_OCTAVE = 6, 26
_BOUNDS = [repr(2.0 ** (octave - 20)) for octave in range(_FIRST_OCTAVE, _LAST_OCTAVE + 1)] + ["+Inf"]

# What `_figures` gives, in this order; the counts of the duration's buckets follow.
_CALLS, _FAILURES, _ROWS, _BYTES_IN, _BYTES_OUT, _TOTAL_NS, _SERVER_NS, _WAIT_NS, _BUCKETS = range(9)
_FIGURES = _BUCKETS + len(_BOUNDS)


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """version: pgsluice's; form: compiled, pure or mixed; python: the interpreter's version."""

    version: str
    form: str
    python: str

    @classmethod
    def current(cls) -> "BuildInfo":
        """Those of this process."""
        return cls(VERSION, form(), platform.python_version())


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """One pool's state and counters; `size` is what it may grow to, `waiting` counts waiting clients."""

    user: str
    database: str
    size: int
    mode: str
    active: int
    idle: int
    opening: int
    waiting: int
    opened_total: int
    closed_total: int
    acquired_total: int
    wait_seconds_total: float
    waits_total: int
    connect_errors_total: int


@dataclass(frozen=True, slots=True)
class ClientFigures:
    """Client connections: `active` are those with a statement or transaction under way."""

    connected: int
    connected_total: int
    active: int
    login_failures_total: int
    protocol_violations_total: int
    cancels_total: int


class FiguresSource(Protocol):
    """Who knows the figures of pools and clients; no two pools have the same user and database."""

    def pools(self) -> list[PoolFigures]: ...

    def clients(self) -> ClientFigures: ...


class Metrics:
    """Everything there is to scrape; one object for all scrapes, since it remembers what it has shown."""

    def __init__(self, statistics: QueryStatistics, source: FiguresSource, build: BuildInfo) -> None:
        self._statistics = statistics
        self._series = TopSeries()
        self._collector = _Collector(statistics, source, build)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._collector)
        ProcessCollector(registry=self._registry)

    def render(self) -> tuple[bytes, str]:
        """The text exposition format and its content type."""
        top, other = self._series.update(self._statistics)
        self._collector.queries = [fingerprint for fingerprint, _ in top]
        rows = [(f"{fingerprint.id:016x}", figures) for fingerprint, figures in top]
        self._collector.rows = [*rows, ("other", other)]
        return generate_latest(self._registry) + _durations(self._collector.rows), CONTENT_TYPE


class _Series:
    """What one fingerprint's series show, and its figures when they last did (None: they don't now)."""

    __slots__ = ("seen", "shown")

    def __init__(self, shown: list[int], seen: list[int] | None) -> None:
        self.shown = shown
        self.seen = seen


class TopSeries:
    """Divides the growth of all figures among the fingerprints that are shown and `other`, each growth once.

    A fingerprint's growth while it is not shown belongs to `other`, whose figures are the totals less
    everything that was ever added to a fingerprint. One that comes back goes on where it was; one that is
    new since the last scrape brings all it has. So no counter ever goes back, rates add up, and the sum of
    the last values of all series ever shown is the total. Only when 1,000 others were shown since is a
    fingerprint forgotten, and begins at 0.
    """

    def __init__(self, top: int = TOP_FINGERPRINTS, remembered: int = 1000) -> None:
        self._top = top
        self._remembered = remembered
        self._series: dict[int, _Series] = {}
        self._known: set[int] = set()
        self._added = [0] * _FIGURES

    def update(self, statistics: QueryStatistics) -> tuple[list[tuple[Fingerprint, list[int]]], list[int]]:
        """The figures to show now: of the top fingerprints, most total time first, and of `other`."""
        entries = statistics.entries()
        shown: dict[int, _Series] = {}
        top: list[tuple[Fingerprint, list[int]]] = []
        for entry in nlargest(self._top, entries, key=attrgetter("total_ns")):
            identity = entry.fingerprint.id
            series = self._series.pop(identity, None) or _Series([0] * _FIGURES, None)
            now = _figures(entry)
            self._grow(series, now, is_new=identity not in self._known)
            shown[identity] = series
            top.append((entry.fingerprint, series.shown))
        for series in self._series.values():
            series.seen = None
        # The longest absent come first.
        for identity in list(islice(self._series, max(len(self._series) - self._remembered, 0))):
            del self._series[identity]
        self._series |= shown
        self._known = {entry.fingerprint.id for entry in entries}
        return top, [
            total - added for total, added in zip(_figures(statistics.total), self._added, strict=True)
        ]

    def _grow(self, series: _Series, now: list[int], *, is_new: bool) -> None:
        if series.seen is not None:
            growth = [after - before for after, before in zip(now, series.seen, strict=True)]
            if min(growth) < 0:
                # Its entry was evicted and made anew: all it has came since.
                growth = now
        elif is_new:
            growth = now
        else:
            growth = [0] * _FIGURES
        series.seen = now
        series.shown = [shown + more for shown, more in zip(series.shown, growth, strict=True)]
        self._added = [added + more for added, more in zip(self._added, growth, strict=True)]


def _figures(totals: Totals) -> list[int]:
    octaves = totals.histogram.octaves()
    return [
        totals.calls,
        totals.failures,
        totals.rows,
        totals.bytes_in,
        totals.bytes_out,
        totals.total_ns,
        totals.server_ns,
        totals.wait_ns,
        sum(octaves[: _FIRST_OCTAVE + 1]),
        *octaves[_FIRST_OCTAVE + 1 : _LAST_OCTAVE + 1],
        sum(octaves[_LAST_OCTAVE + 1 :]),
    ]


class _Collector(Collector):
    """All but the durations. `queries` and `rows` are set before each scrape."""

    def __init__(self, statistics: QueryStatistics, source: FiguresSource, build: BuildInfo) -> None:
        self._statistics = statistics
        self._source = source
        self._build = build
        self.queries: list[Fingerprint] = []
        self.rows: list[tuple[str, list[int]]] = []

    def collect(self) -> Iterable[Metric]:
        yield from self._of_build()
        yield from self._of_statements()
        yield from _of_pools(self._source.pools())
        yield from _of_clients(self._source.clients())

    def _of_build(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "pgsluice_build_info",
            "Always 1; which pgsluice this is.",
            labels=("version", "form", "python"),
        )
        info.add_metric((self._build.version, self._build.form, self._build.python), 1)
        yield info

    def _of_statements(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "pgsluice_query_info",
            "Always 1; the text of a fingerprint, without literals and shortened.",
            labels=("fingerprint", "query"),
        )
        for fingerprint in self.queries:
            info.add_metric((f"{fingerprint.id:016x}", fingerprint.text[:QUERY_LENGTH]), 1)
        yield info
        for name, documentation, figure, scale in _QUERY_COUNTERS:
            samples = [((fingerprint,), figures[figure] / scale) for fingerprint, figures in self.rows]
            yield _counter(name, documentation, ("fingerprint",), samples)
        total = self._statistics.total
        yield _counter("pgsluice_statements", "Statements finished.", (), [((), total.calls)])
        yield _counter(
            "pgsluice_statement_seconds",
            "Time from a statement's first byte to the end of its reply, summed.",
            (),
            [((), total.total_ns / 1e9)],
        )
        yield _counter(
            "pgsluice_statement_errors",
            "Statements that failed, by SQLSTATE.",
            ("sqlstate",),
            [((_label(sqlstate),), number) for sqlstate, number in sorted(total.errors.items())],
        )


# Name (without _total), help, which figure, and what divides it.
_QUERY_COUNTERS = (
    ("pgsluice_query_server_seconds", "Time servers needed for statements.", _SERVER_NS, 1e9),
    ("pgsluice_query_wait_seconds", "Time statements waited for a server connection.", _WAIT_NS, 1e9),
    ("pgsluice_query_rows", "Rows returned or changed.", _ROWS, 1),
    ("pgsluice_query_received_bytes", "Bytes of statements received from clients.", _BYTES_IN, 1),
    ("pgsluice_query_sent_bytes", "Bytes of replies sent to clients.", _BYTES_OUT, 1),
    ("pgsluice_query_errors", "Statements that failed.", _FAILURES, 1),
)


def _durations(rows: list[tuple[str, list[int]]]) -> bytes:
    """The histogram of durations as text: a thousand samples, which must not stop the event loop for long."""
    name = "pgsluice_query_duration_seconds"
    lines = [
        f"# HELP {name} Time from a statement's first byte to the end of its reply.",
        f"# TYPE {name} histogram",
    ]
    for fingerprint, figures in rows:
        label = f'fingerprint="{fingerprint}"'
        reached = 0
        for bound, count in zip(_BOUNDS, figures[_BUCKETS:], strict=True):
            reached += count
            lines.append(f'{name}_bucket{{{label},le="{bound}"}} {reached}')
        lines.append(f"{name}_count{{{label}}} {reached}")
        lines.append(f"{name}_sum{{{label}}} {figures[_TOTAL_NS] / 1e9!r}")
    lines.append("")
    return "\n".join(lines).encode()


def _counter(
    name: str, documentation: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(
    name: str, documentation: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _label(text: str) -> str:
    """What can be printed: names with bytes that are no UTF-8 come with surrogates in their place."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _of_pools(pools: list[PoolFigures]) -> Iterator[Metric]:
    labels = ("user", "database")
    named = [((_label(pool.user), _label(pool.database)), pool) for pool in pools]
    yield _gauge(
        "pgsluice_pool_info",
        "Always 1; the mode of a pool.",
        (*labels, "mode"),
        [((*names, pool.mode), 1) for names, pool in named],
    )
    yield _gauge(
        "pgsluice_pool_size",
        "Server connections a pool may have.",
        labels,
        [(names, pool.size) for names, pool in named],
    )
    yield _gauge(
        "pgsluice_pool_connections",
        "Server connections of a pool, by what they do.",
        (*labels, "state"),
        [
            ((*names, state), number)
            for names, pool in named
            for state, number in (("active", pool.active), ("idle", pool.idle), ("opening", pool.opening))
        ],
    )
    yield _gauge(
        "pgsluice_pool_waiting_clients",
        "Clients that wait for a server connection.",
        labels,
        [(names, pool.waiting) for names, pool in named],
    )
    for name, documentation, attribute in _POOL_COUNTERS:
        yield _counter(
            name, documentation, labels, [(names, getattr(pool, attribute)) for names, pool in named]
        )


_POOL_COUNTERS = (
    ("pgsluice_pool_opened", "Server connections opened.", "opened_total"),
    ("pgsluice_pool_closed", "Server connections closed.", "closed_total"),
    ("pgsluice_pool_connect_errors", "Server connections that could not be opened.", "connect_errors_total"),
    ("pgsluice_pool_acquired", "Times a client was given a server connection.", "acquired_total"),
    ("pgsluice_pool_waits", "Times a client had to wait for one.", "waits_total"),
    ("pgsluice_pool_wait_seconds", "Time clients waited for one.", "wait_seconds_total"),
)


def _of_clients(clients: ClientFigures) -> Iterator[Metric]:
    yield _gauge("pgsluice_clients", "Client connections.", (), [((), clients.connected)])
    yield _gauge(
        "pgsluice_active_clients",
        "Clients with a statement or transaction under way.",
        (),
        [((), clients.active)],
    )
    for name, documentation, attribute in _CLIENT_COUNTERS:
        yield _counter(name, documentation, (), [((), getattr(clients, attribute))])


_CLIENT_COUNTERS = (
    ("pgsluice_client_connections", "Client connections accepted.", "connected_total"),
    ("pgsluice_login_failures", "Clients that failed to log in.", "login_failures_total"),
    ("pgsluice_protocol_violations", "Clients that broke the protocol.", "protocol_violations_total"),
    ("pgsluice_cancels", "Cancel requests received.", "cancels_total"),
)
