"""The figures of all workers together, such that no counter goes back when a worker ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from proxy.observe.metrics import ClientFigures, PoolFigures

Name = tuple[str, str]
"""User and database of a pool."""

_POOL_GAUGES = ("active", "idle", "opening", "waiting")
_POOL_COUNTERS = tuple(field.name for field in fields(PoolFigures) if field.name.endswith("_total"))
_CLIENT_FIGURES = tuple(field.name for field in fields(ClientFigures))
_CLIENT_COUNTERS = tuple(name for name in _CLIENT_FIGURES if name.endswith("_total"))

NOBODY = ClientFigures(0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Report:
    """What one worker says of itself: its pools, its clients, and why it is not ready (None: it is)."""

    pools: tuple[PoolFigures, ...]
    clients: ClientFigures
    unreachable: str | None

    def export(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "pools": [asdict(pool) for pool in self.pools],
            "clients": asdict(self.clients),
            "unreachable": self.unreachable,
        }

    @classmethod
    def from_export(cls, exported: Mapping[str, Any]) -> Report:
        """What `export` gave; ValueError when it can't be that."""
        try:
            return cls(
                tuple(PoolFigures(**pool) for pool in exported["pools"]),
                ClientFigures(**exported["clients"]),
                exported["unreachable"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no worker's report: {error}") from None


class Sums:
    """A `FiguresSource` for the metrics: every worker's last report added up.

    `size` is what a pool may have in all workers together.  What a worker counted stays when it ends.  What a
    worker counted for a pool that it gave up stays as long as another one has that pool; a pool that all have
    given up is forgotten, as by a single process.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._reports: dict[int, Report] = {}
        self._past_clients = NOBODY
        self._past_pools: dict[Name, PoolFigures] = {}
        self._bereft: set[Name] = set()

    def reported(self, worker: int, report: Report) -> None:
        """A worker's new report takes the place of its last one."""
        last = self._reports.get(worker)
        self._reports[worker] = report
        if last is not None:
            now = {(pool.user, pool.database): pool for pool in report.pools}
            for pool in last.pools:
                successor = now.get((pool.user, pool.database))
                if successor is None or _began_anew(pool, successor):
                    self._keep(pool)
        self._forget()

    def ended(self, worker: int) -> None:
        """A worker is gone: what it counted is kept, what it had is not."""
        last = self._reports.pop(worker, None)
        if last is None:
            return
        for pool in last.pools:
            self._keep(pool)
            self._bereft.add((pool.user, pool.database))
        self._past_clients = _with_sums(self._past_clients, last.clients, _CLIENT_COUNTERS)

    def pools(self) -> list[PoolFigures]:
        pools = dict(self._past_pools)
        for report in self._reports.values():
            for pool in report.pools:
                name = (pool.user, pool.database)
                pools[name] = _with_sums(
                    pools.get(name) or self._empty(pool), pool, _POOL_GAUGES + _POOL_COUNTERS
                )
        return list(pools.values())

    def clients(self) -> ClientFigures:
        clients = self._past_clients
        for report in self._reports.values():
            clients = _with_sums(clients, report.clients, _CLIENT_FIGURES)
        return clients

    def _empty(self, pool: PoolFigures) -> PoolFigures:
        nothing: dict[str, Any] = dict.fromkeys(_POOL_GAUGES + _POOL_COUNTERS, 0)
        return replace(pool, size=self._size, **nothing)

    def _keep(self, pool: PoolFigures) -> None:
        name = (pool.user, pool.database)
        past = self._past_pools.get(name) or self._empty(pool)
        self._past_pools[name] = _with_sums(past, pool, _POOL_COUNTERS)

    def _forget(self) -> None:
        """Drops the past of pools that all workers have given up."""
        present = {(pool.user, pool.database) for report in self._reports.values() for pool in report.pools}
        for name in self._past_pools.keys() - present - self._bereft:
            del self._past_pools[name]


def _began_anew(before: PoolFigures, after: PoolFigures) -> bool:
    return any(getattr(after, name) < getattr(before, name) for name in _POOL_COUNTERS)


def _with_sums(one: Any, other: Any, names: tuple[str, ...]) -> Any:
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in names})


def share(total: int, worker: int, workers: int) -> int:
    """Of `total` things worker `worker` (from 0) has so many; the first ones have one more if need be."""
    return total // workers + (1 if worker < total % workers else 0)
