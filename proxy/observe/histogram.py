# cython: annotation_typing=False
"""Latencies in base-2 exponential buckets, 32 to each doubling, with memory for the range that occurs only.

Bucket `i` holds the times t with 2^((i-1)/32) < t / 2^-20 s <= 2^(i/32). Bucket 0 takes everything up to
2^-20 s (0.95 us), bucket 1024 everything above 4096 s. So a time read back from its bucket is at most 1.1 %
off, and bounds that are powers of two (in seconds) are exact. These are the buckets of a Prometheus native
histogram of schema 5, whose index for bucket `i` is `i` - 640, and of an OpenTelemetry exponential histogram
of scale 5, where it is `i` - 641.
"""

from collections.abc import Sequence
from math import ceil, exp2, log2

BUCKETS_PER_OCTAVE = 32
OCTAVES = 32
LAST_BUCKET = BUCKETS_PER_OCTAVE * OCTAVES
SMALLEST_SECONDS = 2.0**-20

# Room made beyond a bucket that lies outside what there is, so that a spread grows in few steps.
_MARGIN = 8


def _representative(bucket: int) -> float:
    if bucket == 0:
        return SMALLEST_SECONDS
    upper = exp2(bucket / BUCKETS_PER_OCTAVE) * SMALLEST_SECONDS
    lower = exp2((bucket - 1) / BUCKETS_PER_OCTAVE) * SMALLEST_SECONDS
    return 2.0 * lower * upper / (lower + upper)


_seconds = [_representative(bucket) for bucket in range(LAST_BUCKET + 1)]


def bucket_of(seconds: float) -> int:
    """The bucket a time belongs to, 0 .. 1024; not a number counts as 0."""
    units = seconds * 1048576.0
    if not units > 1.0:
        return 0
    if units >= 4294967296.0:
        return 1024
    return ceil(log2(units) * 32.0)


def seconds_of(bucket: int) -> float:
    """The time in seconds that stands for a bucket, 0 .. 1024: equally far from both bounds."""
    return _seconds[bucket]


class Histogram:
    """How many times fell into each bucket; `counts[k]` belongs to bucket `offset + k`."""

    __slots__ = ("count", "counts", "offset")

    def __init__(self) -> None:
        self.count = 0
        self.offset = 0
        self.counts: list[int] = []

    def add(self, bucket: int) -> None:
        """Count one time in `bucket`, which is 0 .. 1024."""
        k = bucket - self.offset
        if k < 0 or k >= len(self.counts):
            self._make_room(bucket, bucket)
            k = bucket - self.offset
        self.counts[k] += 1
        self.count += 1

    def _make_room(self, first: int, last: int) -> None:
        if not self.counts:
            self.offset = first
        if first < self.offset:
            first = max(first - _MARGIN, 0)
            self.counts[:0] = [0] * (self.offset - first)
            self.offset = first
        if last >= self.offset + len(self.counts):
            last = min(last + _MARGIN, LAST_BUCKET)
            self.counts.extend([0] * (last + 1 - self.offset - len(self.counts)))

    def merge(self, other: "Histogram") -> None:
        """Add what `other` counted."""
        if not other.count:
            return
        self._make_room(other.offset, other.offset + len(other.counts) - 1)
        k = other.offset - self.offset
        for count in other.counts:
            self.counts[k] += count
            k += 1
        self.count += other.count

    def octaves(self) -> list[int]:
        """Counts by doublings: item `k`, 0 .. 32, counts times above 2^(k-21) and up to 2^(k-20) seconds."""
        result = [0] * (OCTAVES + 1)
        bucket = self.offset
        for count in self.counts:
            result[(bucket + BUCKETS_PER_OCTAVE - 1) // BUCKETS_PER_OCTAVE] += count
            bucket += 1
        return result

    def quantiles(self, fractions: Sequence[float]) -> list[float]:
        """Times in seconds at the nearest ranks of ascending `fractions`, 0 .. 1; 0 without any counted."""
        result: list[float] = []
        k = -1
        reached = 0
        for fraction in fractions:
            # The subtrahend keeps 0.999 * 1000 from becoming rank 1000 by the rounding of binary fractions.
            rank = min(max(ceil(fraction * self.count - 1e-9), 1), self.count)
            while reached < rank:
                k += 1
                reached += self.counts[k]
            result.append(seconds_of(self.offset + k) if self.count else 0.0)
        return result

    def export(self) -> dict[str, object]:
        """As JSON-able values: `{"offset": bucket, "counts": [n, ...]}`."""
        return {"offset": self.offset, "counts": list(self.counts)}

    @staticmethod
    def from_export(exported: dict[str, object]) -> "Histogram":
        """What `export` gave; ValueError when it can't be that."""
        offset, counts = exported.get("offset"), exported.get("counts")
        if not isinstance(offset, int) or not isinstance(counts, list):
            raise ValueError("a histogram needs a number as offset and a list as counts")
        if not all(isinstance(n, int) for n in counts):
            raise ValueError("a histogram's counts are numbers")
        if offset < 0 or offset + len(counts) > LAST_BUCKET + 1 or any(n < 0 for n in counts):
            raise ValueError(f"a histogram's buckets are 0 .. {LAST_BUCKET}, and none counts less than 0")
        histogram = Histogram()
        histogram.offset = offset
        histogram.counts = list(counts)
        histogram.count = sum(counts)
        return histogram
