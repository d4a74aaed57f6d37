# cython: annotation_typing=False
"""Totals per fingerprint: in bounded memory, cheap to record, mergeable.

The most recently used fingerprints have an entry of their own; the others' figures go on in `other`, so that
`total` is always the sum of the entries and `other`. Sums are whole nanoseconds: they add up exactly, in any
order.
"""

from collections.abc import Mapping
from heapq import nsmallest
from operator import attrgetter

from proxy.observe.histogram import Histogram, bucket_of
from proxy.observe.record import Fingerprint, QueryRecord

PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99_9", 0.999))

# A server may raise any five characters it likes; beyond this many different ones they count as
# OTHER_SQLSTATE.
MAX_SQLSTATES = 64
OTHER_SQLSTATE = "other"

# The longest time that is summed as it is, in seconds (31 years).
_LONGEST = 1e9
_NEVER = 2**63 - 1
_SUMS = ("calls", "rows", "bytes_in", "bytes_out", "failures", "total_ns", "server_ns", "wait_ns")
_MINIMA = ("total_min_ns", "server_min_ns", "wait_min_ns")
_MAXIMA = ("total_max_ns", "server_max_ns", "wait_max_ns")


def _nanoseconds(seconds: float) -> int:
    """Whole nanoseconds; what is no possible duration is made one."""
    if not seconds > 0.0:
        return 0
    if seconds > _LONGEST:
        seconds = _LONGEST
    return int(seconds * 1e9 + 0.5)


class Totals:
    """Sums over some statements.

    `calls`, `rows`, `bytes_in` (from clients), `bytes_out` (to clients), `failures` (statements with an
    SQLSTATE) are numbers; `errors` counts failures by SQLSTATE. Of the total time, the server's and the wait
    for a server there are sum, least and greatest in nanoseconds: `total_ns`, `total_min_ns`,
    `total_max_ns`, `server_ns` ... (a least one of no calls is 2^63 - 1). `histogram` has the total times.
    """

    __slots__ = ("errors", "histogram", *_SUMS, *_MINIMA, *_MAXIMA)

    def __init__(self) -> None:
        self.calls = self.rows = self.bytes_in = self.bytes_out = self.failures = 0
        self.total_ns = self.server_ns = self.wait_ns = 0
        self.total_min_ns = self.server_min_ns = self.wait_min_ns = _NEVER
        self.total_max_ns = self.server_max_ns = self.wait_max_ns = 0
        self.errors: dict[str, int] = {}
        self.histogram = Histogram()

    def _add(self, record: QueryRecord, bucket: int, total_ns: int, server_ns: int, wait_ns: int) -> None:
        self.calls += 1
        self.rows += record.rows
        self.bytes_in += record.bytes_in
        self.bytes_out += record.bytes_out
        self.total_ns += total_ns
        if total_ns < self.total_min_ns:
            self.total_min_ns = total_ns
        if total_ns > self.total_max_ns:
            self.total_max_ns = total_ns
        self.server_ns += server_ns
        if server_ns < self.server_min_ns:
            self.server_min_ns = server_ns
        if server_ns > self.server_max_ns:
            self.server_max_ns = server_ns
        self.wait_ns += wait_ns
        if wait_ns < self.wait_min_ns:
            self.wait_min_ns = wait_ns
        if wait_ns > self.wait_max_ns:
            self.wait_max_ns = wait_ns
        self.histogram.add(bucket)
        if record.sqlstate:
            self.failures += 1
            self._add_errors(record.sqlstate, 1)

    def _add_errors(self, sqlstate: str, number: int) -> None:
        if sqlstate not in self.errors and len(self.errors) >= MAX_SQLSTATES:
            sqlstate = OTHER_SQLSTATE
        self.errors[sqlstate] = self.errors.get(sqlstate, 0) + number

    def merge(self, other: "Totals") -> None:
        """Add the sums of `other`."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _MINIMA:
            setattr(self, name, min(getattr(self, name), getattr(other, name)))
        for name in _MAXIMA:
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        for sqlstate, number in other.errors.items():
            self._add_errors(sqlstate, number)
        self.histogram.merge(other.histogram)

    def percentiles(self) -> dict[str, float]:
        """Total times in seconds, as `{"p50": ..., "p90": ..., "p95": ..., "p99": ..., "p99_9": ...}`.

        Each is at most 1.1 % off the exact one (nearest rank), as long as that is between 1 us and 4096 s.
        """
        values = self.histogram.quantiles([fraction for _, fraction in PERCENTILES])
        return {name: self._possible(value) for (name, _), value in zip(PERCENTILES, values, strict=True)}

    def percentile(self, fraction: float) -> float:
        """One percentile of the total time in seconds, `fraction` being 0 .. 1."""
        return self._possible(self.histogram.quantiles([fraction])[0])

    def _possible(self, seconds: float) -> float:
        return min(max(seconds, self.total_min_ns / 1e9), self.total_max_ns / 1e9)

    def export(self) -> dict[str, object]:
        """As JSON-able values, under the attributes' names."""
        exported: dict[str, object] = {name: getattr(self, name) for name in _SUMS + _MINIMA + _MAXIMA}
        return exported | {"errors": dict(self.errors), "histogram": self.histogram.export()}

    def _restore(self, exported: Mapping[str, object]) -> None:
        for name in _SUMS + _MINIMA + _MAXIMA:
            number = exported.get(name)
            if not isinstance(number, int) or not 0 <= number <= _NEVER:
                raise ValueError(f"statistics need a number of 63 bits as {name}")
            setattr(self, name, number)
        errors, histogram = exported.get("errors"), exported.get("histogram")
        if not isinstance(errors, dict) or not isinstance(histogram, dict):
            raise ValueError("statistics need errors and histogram as objects")
        for sqlstate, number in errors.items():
            self._add_errors(sqlstate, number)
        self.histogram = Histogram.from_export(histogram)


class Entry(Totals):
    """The sums of one fingerprint. `used` orders entries by last use; `owner` is None once it was evicted."""

    __slots__ = ("fingerprint", "owner", "used")

    def __init__(self, fingerprint: Fingerprint, owner: "QueryStatistics") -> None:
        super().__init__()
        self.fingerprint = fingerprint
        self.owner: QueryStatistics | None = owner
        self.used = 0

    def export(self) -> dict[str, object]:
        """As `Totals.export`, with the fingerprint's id and text."""
        shape = {"id": f"{self.fingerprint.id:016x}", "text": self.fingerprint.text}
        return shape | Totals.export(self)


class QueryStatistics:
    """Totals of at most `max_fingerprints` fingerprints, of the rest (`other`) and of all (`total`)."""

    __slots__ = ("_entries", "_uses", "max_fingerprints", "other", "total")

    def __init__(self, max_fingerprints: int = 5000) -> None:
        if max_fingerprints < 1:
            raise ValueError("max_fingerprints must be at least 1")
        self.max_fingerprints = max_fingerprints
        self.total = Totals()
        self.other = Totals()
        self._entries: dict[int, Entry] = {}
        self._uses = 0

    def observe(self, record: QueryRecord) -> None:
        """Count one finished statement."""
        entry = record.fingerprint.slot
        if not isinstance(entry, Entry) or entry.owner is not self:
            entry = self._entry(record.fingerprint)
            record.fingerprint.slot = entry
        self._uses += 1
        entry.used = self._uses
        bucket = bucket_of(record.total)
        total_ns = _nanoseconds(record.total)
        server_ns = _nanoseconds(record.server)
        wait_ns = _nanoseconds(record.wait)
        entry._add(record, bucket, total_ns, server_ns, wait_ns)
        self.total._add(record, bucket, total_ns, server_ns, wait_ns)

    def _entry(self, fingerprint: Fingerprint) -> Entry:
        entry = self._entries.get(fingerprint.id)
        if entry is None:
            if len(self._entries) >= self.max_fingerprints:
                self._evict()
            entry = Entry(fingerprint, self)
            self._entries[fingerprint.id] = entry
        return entry

    def _evict(self) -> None:
        """Give the least recently used entries, one in sixteen, to `other`."""
        number = max(len(self._entries) // 16, 1)
        for entry in nsmallest(number, self._entries.values(), key=attrgetter("used")):
            del self._entries[entry.fingerprint.id]
            entry.owner = None
            if entry.fingerprint.slot is entry:
                entry.fingerprint.slot = None
            self.other.merge(entry)

    def take(self) -> "QueryStatistics":
        """What was counted since the last time; begins anew. Merging all that was taken gives the whole."""
        taken = QueryStatistics(self.max_fingerprints)
        taken.total, self.total = self.total, taken.total
        taken.other, self.other = self.other, taken.other
        taken._entries, self._entries = self._entries, taken._entries
        taken._uses = self._uses
        for entry in taken._entries.values():
            entry.owner = taken
            if entry.fingerprint.slot is entry:
                entry.fingerprint.slot = None
        return taken

    def entries(self) -> list[Entry]:
        """The entries, in no particular order. They go on counting."""
        return list(self._entries.values())

    def percentiles(self) -> dict[str, float]:
        """Those of all statements; see `Totals.percentiles`."""
        return self.total.percentiles()

    def merge(self, other: "QueryStatistics") -> None:
        """Add what `other` counted. Its entries count as used just now, in the order of their use there."""
        for theirs in sorted(other._entries.values(), key=attrgetter("used")):
            entry = self._entry(theirs.fingerprint)
            entry.merge(theirs)
            self._uses += 1
            entry.used = self._uses
        self.other.merge(other.other)
        self.total.merge(other.total)

    def export(self) -> dict[str, object]:
        """Everything as JSON-able values, for another process."""
        entries = [entry.export() for entry in sorted(self._entries.values(), key=attrgetter("used"))]
        return {
            "max_fingerprints": self.max_fingerprints,
            "total": self.total.export(),
            "other": self.other.export(),
            "entries": entries,
        }

    @staticmethod
    def from_export(exported: Mapping[str, object]) -> "QueryStatistics":
        """What `export` gave, also after a journey as JSON; ValueError when it can't be that."""
        limit, total, other = exported.get("max_fingerprints"), exported.get("total"), exported.get("other")
        entries = exported.get("entries")
        if not isinstance(limit, int) or not isinstance(entries, list):
            raise ValueError("statistics need max_fingerprints as a number and entries as a list")
        if not isinstance(total, dict) or not isinstance(other, dict):
            raise ValueError("statistics need total and other as objects")
        statistics = QueryStatistics(limit)
        statistics.total._restore(total)
        statistics.other._restore(other)
        for item in entries:
            if not isinstance(item, dict):
                raise ValueError("statistics need their entries as objects")
            identity, text = item.get("id"), item.get("text")
            if not isinstance(identity, str) or not isinstance(text, str) or len(identity) != 16:
                raise ValueError("statistics need an entry's id and text, the id of 16 digits")
            entry = statistics._entry(Fingerprint(int(identity, 16), text))
            entry._restore(item)
            statistics._uses += 1
            entry.used = statistics._uses
        return statistics
