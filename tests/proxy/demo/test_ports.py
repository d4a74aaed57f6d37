import socket

import pytest

from proxy.demo import ports


def test_a_port_can_be_bound_and_is_given_once() -> None:
    given = [ports.free_port() for _ in range(20)]
    assert len(set(given)) == 20
    for port in given:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_a_taken_port_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", ports.free_port())) as taken:
        port = taken.getsockname()[1]
        ports._handed_out.discard(port)
        tried = iter([port, port + 1])
        monkeypatch.setattr("proxy.demo.ports.random.randrange", lambda *_: next(tried))
        ports._handed_out.discard(port + 1)
        assert ports.free_port() == port + 1


def test_none_free_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", ports.free_port())) as taken:
        port = taken.getsockname()[1]
        ports._handed_out.discard(port)
        monkeypatch.setattr("proxy.demo.ports.random.randrange", lambda *_: port)
        with pytest.raises(OSError, match="no free TCP port"):
            ports.free_port()
