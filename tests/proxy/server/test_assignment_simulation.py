"""The pool simulated: clients that come, wait, hold a server and go, servers that open, fail and are lost.

The clock is discrete: the next event is the earliest. After each step everything that must always hold is
checked, and at the end how long the clients had to wait, and whether some had to wait longer than others.
"""

import heapq
import itertools
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from proxy.server.assignment import Assignment, Close, Decision, Flavour, Grant


@dataclass(eq=False)
class Server:
    number: int
    flavour: Flavour
    user: "Client | None" = None
    closed: bool = False


@dataclass(eq=False)
class Client:
    """Thinks, wants a server, holds it, and so on (means in seconds); `patience` is the longest wait."""

    name: int
    key: str
    think: float
    hold: float
    patience: float
    flavour: Flavour | None = None
    server: Server | None = None
    waiting_since: float | None = None
    round: int = 0
    waits: list[float] = field(default_factory=list)
    gave_up: int = 0


@dataclass(frozen=True)
class Setting:
    """What a simulation is about. Rates are per second; `failing` is the share of connections that fail."""

    size: int = 5
    clients: int = 15
    keys: str = "a"
    think: float = 0.01
    hold: float = 0.01
    patience: float = 30.0
    opening: float = 0.005
    failing: float = 0.0
    losses: float = 0.0
    resizes: float = 0.0
    seconds: float = 6.0


class Simulation:
    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting = setting
        self.random = random.Random(seed)
        self.pool = Assignment(setting.size)
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.servers: list[Server] = []
        self.on_their_way: list[Flavour] = []
        self.opened = 0
        self.peak = 0
        self.over = False
        self.clients = [
            Client(
                number,
                setting.keys[number % len(setting.keys)],
                setting.think,
                setting.hold,
                setting.patience,
            )
            for number in range(setting.clients)
        ]

    def run(self) -> None:
        for client in self.clients:
            self._later(self._about(client.think), self._wanter(client))
        for rate, happens in ((self.setting.losses, self._lose), (self.setting.resizes, self._resize)):
            if rate:
                self._again(rate, happens)
        while self.events and self.events[0][0] < self.setting.seconds:
            self._step()
        # From now on nobody comes, nothing fails: those who wait must all be served or give up.
        self.over = True
        while self.events:
            self._step()
        assert not self.pool.waiters, "somebody is left waiting"
        assert all(client.server is None for client in self.clients)

    def _step(self) -> None:
        self.now, _, happens = heapq.heappop(self.events)
        happens()
        self._check()

    def _later(self, delay: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + delay, next(self.order), happens))

    def _again(self, rate: float, happens: Callable[[], None]) -> None:
        def once() -> None:
            if not self.over:
                happens()
                self._again(rate, happens)

        self._later(self.random.expovariate(rate), once)

    def _about(self, mean: float) -> float:
        return self.random.expovariate(1 / mean)

    # --- clients --------------------------------------------------------------------------------

    def _wanter(self, client: Client) -> Callable[[], None]:
        return lambda: self._wants(client)

    def _wants(self, client: Client) -> None:
        if self.over:
            return
        client.round += 1
        client.flavour = self.pool.flavour(client.key)
        client.flavour.sessions += 1
        client.waiting_since = self.now
        server = self.pool.take(client.flavour)
        if server is not None:
            self._give(client, server)
            return
        number = client.round
        self._later(client.patience, lambda: self._gives_up(client, number))
        self._apply(self.pool.wait(client, client.flavour))

    def _gives_up(self, client: Client, number: int) -> None:
        if client.round == number and client.waiting_since is not None:
            assert self.pool.leave(client), "who waits is in the line"
            client.gave_up += 1
            self._apply(self.pool.plan())
            self._goes(client)

    def _give(self, client: Client, server: Server) -> None:
        assert client.waiting_since is not None, f"client {client.name} did not wait"
        assert server.user is None, f"server {server.number} is given to two"
        assert not server.closed, f"server {server.number} is given away after it was closed"
        assert server.flavour is client.flavour, "a server of another flavour"
        client.waits.append(self.now - client.waiting_since)
        client.waiting_since = None
        client.server, server.user = server, client
        self.peak = max(self.peak, sum(server.user is not None for server in self.servers))
        self._later(self._about(client.hold), lambda: self._returns(client, server))

    def _returns(self, client: Client, server: Server) -> None:
        if client.server is not server:
            return  # it was lost meanwhile
        client.server = server.user = None
        waiter = self.pool.next_waiter(server.flavour) if self.random.random() < 0.5 else None
        if waiter is not None:
            self._give(waiter, server)
        else:
            self._apply(self.pool.give_back(server, server.flavour))
        self._goes(client)

    def _goes(self, client: Client) -> None:
        client.waiting_since = None
        if client.flavour is not None:
            client.flavour.sessions -= 1
            self.pool.forget_flavour(client.flavour)
            client.flavour = None
        self._later(self._about(client.think), self._wanter(client))

    # --- servers --------------------------------------------------------------------------------

    def _apply(self, decisions: list[Decision] | None) -> None:
        for decision in decisions or []:
            if isinstance(decision, Grant):
                self._check_turn(decision.waiter)
                self._give(decision.waiter, decision.server)
            elif isinstance(decision, Close):
                assert decision.server.user is None, "a server in use is closed"
                self._close(decision.server)
            else:
                flavour = decision.flavour
                self.on_their_way.append(flavour)
                fails = self.random.random() < self.setting.failing and not self.over
                self._later(self._about(self.setting.opening), self._opener(flavour, fails))

    def _opener(self, flavour: Flavour, fails: bool) -> Callable[[], None]:
        return lambda: self._fail(flavour) if fails else self._open(flavour)

    def _open(self, flavour: Flavour) -> None:
        self.on_their_way.remove(flavour)
        self.opened += 1
        server = Server(self.opened, flavour)
        self.servers.append(server)
        self.pool.patient = False
        self._apply(self.pool.opened(server, flavour))

    def _fail(self, flavour: Flavour) -> None:
        self.on_their_way.remove(flavour)
        self.pool.open_failed(flavour)
        if not self.pool.patient:
            self.pool.patient = True
            self._later(self._about(0.05), self._try_again)

    def _try_again(self) -> None:
        self.pool.patient = False
        self._apply(self.pool.plan())

    def _close(self, server: Server) -> None:
        server.closed = True
        self.servers.remove(server)

    def _lose(self) -> None:
        if self.servers:
            server = self.random.choice(self.servers)
            self._close(server)
            client, server.user = server.user, None
            self._apply(self.pool.gone(server, server.flavour))
            if client is not None:
                client.server = None
                self._goes(client)

    def _resize(self) -> None:
        self._apply(self.pool.resize(self.random.randint(1, 2 * self.setting.size)))

    # --- what must always hold ------------------------------------------------------------------

    def _check_turn(self, client: Client) -> None:
        """Those before him in the line wait for something of their own: a connection on its way."""
        coming: dict[Flavour, int] = {flavour: flavour.opening for flavour in self.on_their_way}
        for waiter, flavour in self.pool.waiters:
            if waiter.waiting_since < client.waiting_since:
                assert flavour is not client.flavour, f"{client.name} overtakes {waiter.name}"
                coming[flavour] = coming.get(flavour, 0) - 1
                assert coming[flavour] >= 0 or self.pool.patient, f"{client.name} overtakes {waiter.name}"

    def _check(self) -> None:
        pool = self.pool
        idle = [server for server in self.servers if server.user is None]
        assert (pool.total, pool.opening) == (
            len(self.servers) + len(self.on_their_way),
            len(self.on_their_way),
        )
        assert pool.idle == len(idle)
        assert pool.total <= pool.size or not idle, "an idle server above the size is kept"
        if not self.setting.resizes:
            assert pool.total <= pool.size
        flavours = {server.flavour for server in self.servers} | set(self.on_their_way)
        flavours |= {client.flavour for client in self.clients if client.flavour is not None}
        for flavour in flavours:
            assert pool.flavour(flavour.key) is flavour, "a flavour that is needed was forgotten"
            assert set(flavour.idle) == {server for server in idle if server.flavour is flavour}
            assert flavour.opening == self.on_their_way.count(flavour)
        self._check_line(idle)

    def _check_line(self, idle: list[Server]) -> None:
        """Nobody waits in vain, nobody is forgotten, all in the order of their coming."""
        pool = self.pool
        line = [waiter for waiter, _ in pool.waiters]
        assert [client.waiting_since for client in line] == sorted(client.waiting_since for client in line)
        assert set(line) == {client for client in self.clients if client.waiting_since is not None}
        coming = {flavour: flavour.opening for flavour in self.on_their_way}
        for client in line:
            flavour = client.flavour
            assert all(server.flavour is not flavour for server in idle), "waits beside an idle server"
            coming[flavour] = coming.get(flavour, 0) - 1
            if coming[flavour] < 0 and not pool.patient:
                assert pool.total >= pool.size, "waits although there is room for a server"
                assert not idle, "waits although an idle server could give way"

    # --- how good it was ------------------------------------------------------------------------

    def mean_waits(self) -> list[float]:
        return [statistics.fmean(client.waits) for client in self.clients]

    def fairness(self) -> float:
        """Jain's index of the clients' mean waits: 1 when all are equal, 1/n when one alone has to wait."""
        waits = self.mean_waits()
        squares = sum(wait * wait for wait in waits)
        return sum(waits) ** 2 / (len(waits) * squares) if squares else 1.0


SETTINGS = {
    "roomy": Setting(clients=4),
    "crowded": Setting(size=3, clients=30),
    "one server": Setting(size=1, clients=8),
    "flavours": Setting(clients=20, keys="abcd"),
    "more flavours than servers": Setting(size=2, clients=12, keys="abcdef"),
    "impatient": Setting(size=2, clients=25, patience=0.03, keys="ab"),
    "failing": Setting(clients=15, keys="ab", failing=0.4, losses=2.0),
    "losing": Setting(clients=15, keys="aab", losses=20.0, patience=0.5),
    "resizing": Setting(clients=20, keys="ab", resizes=5.0),
    "everything": Setting(
        clients=25, keys="aaabc", failing=0.2, losses=5.0, resizes=2.0, patience=0.2, hold=0.02
    ),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_what_must_hold_holds_at_every_step(setting: Setting, seed: int) -> None:
    simulation = Simulation(setting, seed)
    simulation.run()
    served = [len(client.waits) for client in simulation.clients]
    assert min(served) > 10, "somebody was hardly ever served"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["crowded", "one server"])
def test_all_wait_alike(name: str, seed: int) -> None:
    simulation = Simulation(SETTINGS[name], seed)
    simulation.run()
    assert simulation.fairness() > 0.98
    waits = [wait for client in simulation.clients for wait in client.waits]
    # First in, first out: even the longest wait is not far from the usual one.
    assert max(waits) < 4 * statistics.fmean(waits)


def test_a_rare_flavour_waits_no_longer_than_a_common_one() -> None:
    simulation = Simulation(Setting(size=3, clients=21, keys="aaaaaab", opening=0.002), seed=1)
    simulation.run()
    rare = [statistics.fmean(client.waits) for client in simulation.clients if client.key == "b"]
    common = [statistics.fmean(client.waits) for client in simulation.clients if client.key == "a"]
    assert statistics.fmean(rare) < 1.5 * statistics.fmean(common) + 0.002


def test_as_many_connections_as_are_needed_at_once() -> None:
    """Little is asked of a large pool: a few connections serve it, and none is opened in vain."""
    simulation = Simulation(Setting(size=50, clients=10, think=0.1, opening=0.0001), seed=1)
    simulation.run()
    assert simulation.opened <= simulation.peak + 2
    assert statistics.fmean(simulation.mean_waits()) < 0.001


def test_a_full_pool_works_at_capacity() -> None:
    """Servers are never idle while somebody waits: what is served comes near to what can be."""
    simulation = Simulation(Setting(size=4, clients=40, think=0.001), seed=1)
    simulation.run()
    served = sum(len(client.waits) for client in simulation.clients)
    possible = 4 * simulation.setting.seconds / simulation.setting.hold
    assert served > 0.95 * possible
