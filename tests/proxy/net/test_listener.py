"""Listening addresses, and listeners that share them."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from support.ports import free_port

from proxy.config.address import TcpAddress, UnixAddress
from proxy.errors import ConfigError
from proxy.net.listener import Listener, ListeningSockets
from proxy.net.poller import Poller


class Arrivals:
    """What stands in for links: keeps the sockets it is given."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.peers: list[str] = []

    def attach(self, sock: socket.socket, peer: str) -> None:
        self.sockets.append(sock)
        self.peers.append(peer)


class Process:
    """One listener with its own poller, as a process has it."""

    def __init__(self, sockets: ListeningSockets, others_first: Callable[[], bool] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.poller = Poller(loop)
        self.arrivals = Arrivals()
        log = structlog.get_logger()
        self.listener = Listener(loop, self.poller, lambda: self.arrivals, log)  # type: ignore[arg-type, return-value]
        self.listener.others_first = others_first
        self.listener.start(sockets.sockets)

    def close(self) -> None:
        self.listener.close()
        self.poller.close()
        for sock in self.arrivals.sockets:
            sock.close()


@contextlib.contextmanager
def closing(*things: Process | ListeningSockets) -> Iterator[None]:
    try:
        yield
    finally:
        for thing in things:
            thing.close()


async def tcp() -> ListeningSockets:
    sockets = ListeningSockets()
    await sockets.bind([TcpAddress("127.0.0.1", free_port())])
    return sockets


async def connect(sockets: ListeningSockets) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, sockets.sockets[0].getsockname())
    return client


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_every_address_has_its_clients() -> None:
    sockets = await tcp()
    process = Process(sockets)
    with closing(process, sockets):
        clients = [await connect(sockets) for _ in range(100)]
        await until(lambda: len(process.arrivals.sockets) == 100)
        assert sorted(process.arrivals.peers) == sorted(
            "{}:{}".format(*client.getsockname()) for client in clients
        )
        assert not any(sock.getblocking() for sock in process.arrivals.sockets)
        for client in clients:
            client.close()


async def test_port_0_is_told_as_it_turned_out() -> None:
    sockets = ListeningSockets()
    await sockets.bind([TcpAddress("127.0.0.1", 0)])
    with closing(sockets):
        port = sockets.sockets[0].getsockname()[1]
        assert port > 0
        assert sockets.addresses == [f"127.0.0.1:{port}"]


async def test_a_taken_port_is_a_setting_that_is_wrong_and_nothing_stays_bound(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    taken = await tcp()
    with closing(taken):
        sockets = ListeningSockets()
        host, port = taken.sockets[0].getsockname()
        with pytest.raises(ConfigError, match=f"listen is '{host}:{port}'; allowed: an address that is free"):
            await sockets.bind([UnixAddress(str(path)), TcpAddress(host, port)])
        assert sockets.sockets == []
        assert not path.exists()


async def test_a_unix_socket_is_open_to_all_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    sockets = ListeningSockets()
    await sockets.bind([UnixAddress(str(path))])
    with closing(sockets):
        assert path.stat().st_mode & 0o777 == 0o777
        assert sockets.addresses == [f"unix:{path}"]
    assert not path.exists()


async def test_a_stale_unix_socket_is_replaced_but_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    sockets = ListeningSockets()
    await sockets.bind([UnixAddress(str(path))])
    with closing(sockets):
        with pytest.raises(ConfigError, match="in use"):
            await ListeningSockets().bind([UnixAddress(str(path))])
        os.unlink(path)
        path.write_text("precious")
        with pytest.raises(ConfigError, match="no socket"):
            await ListeningSockets().bind([UnixAddress(str(path))])
    assert path.read_text() == "precious"


async def test_who_lets_others_go_first_gets_nothing_as_long_as_they_are_there() -> None:
    sockets = await tcp()
    polite, other = Process(sockets, lambda: True), Process(sockets)
    with closing(polite, other, sockets):
        for number in range(1, 21):
            client = await connect(sockets)
            await until(lambda expected=number: len(other.arrivals.sockets) == expected)  # type: ignore[misc]
            client.close()
        assert polite.arrivals.sockets == []


async def test_what_the_others_leave_is_taken_all_the_same() -> None:
    sockets = await tcp()
    polite = Process(sockets, lambda: True)
    with closing(polite, sockets):
        clients = [await connect(sockets) for _ in range(5)]
        await until(lambda: len(polite.arrivals.sockets) == 5)
        for client in clients:
            client.close()


async def test_listeners_that_heed_each_other_share_evenly() -> None:
    sockets = await tcp()
    processes: list[Process] = []

    def has_more(number: int) -> bool:
        loads = [len(process.arrivals.sockets) for process in processes]
        return loads[number] > min(loads)

    processes += [Process(sockets, lambda: has_more(0)), Process(sockets, lambda: has_more(1))]
    with closing(*processes, sockets):
        clients = [await connect(sockets) for _ in range(40)]
        await until(lambda: sum(len(process.arrivals.sockets) for process in processes) == 40)
        assert [len(process.arrivals.sockets) for process in processes] == [20, 20]
        for client in clients:
            client.close()


async def test_a_listener_closed_while_it_waits_for_others_takes_nothing() -> None:
    sockets = await tcp()
    polite = Process(sockets, lambda: True)
    with closing(polite, sockets):
        client = await connect(sockets)
        await asyncio.sleep(0)
        polite.listener.close()
        await asyncio.sleep(0.02)
        assert polite.arrivals.sockets == []
        client.close()
