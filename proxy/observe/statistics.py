"""Per-fingerprint totals of everything that was measured."""

from proxy.observe.record import QueryRecord


class QueryStatistics:
    """Totals per fingerprint, in bounded memory."""

    __slots__ = ("calls", "max_fingerprints", "total_seconds")

    def __init__(self, max_fingerprints: int = 5000) -> None:
        self.max_fingerprints = max_fingerprints
        self.calls = 0
        self.total_seconds = 0.0

    def observe(self, record: QueryRecord) -> None:
        """Count one finished statement."""
        self.calls += 1
        self.total_seconds += record.total
