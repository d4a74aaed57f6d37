import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from support.certificates import CertificateAuthority, write_private
from support.links import MUCH, End, Recorder
from support.sockets import Turns

from proxy.net.link import Link


class SecureEnd(End):
    """A link that has gone over to TLS as the server, and a client at the other end."""

    def __init__(self, turns: Turns, context: ssl.SSLContext, trust: ssl.SSLContext) -> None:
        super().__init__(turns, turns.tcp_pair())
        self.client = Recorder()
        self.client_link = Link(turns.poller, turns.loop, self.client)
        self.client_link.attach(self.far, "server")
        loop = turns.loop
        secured = [
            loop.create_task(self.link.start_tls(context, server_side=True, timeout=30)),
            loop.create_task(
                self.client_link.start_tls(trust, server_side=False, hostname="localhost", timeout=30)
            ),
        ]
        turns.until(lambda: all(task.done() for task in secured))
        for task in secured:
            task.result()


@pytest.fixture
def contexts(authority: CertificateAuthority, tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    certificate = authority.server("localhost")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain = write_private(tmp_path / "chain.pem", certificate.certificate)
    server.load_cert_chain(chain, write_private(tmp_path / "key.pem", certificate.key))
    return server, ssl.create_default_context(cadata=authority.certificate.decode())


@pytest.fixture
def secure(turns: Turns, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> SecureEnd:
    return SecureEnd(turns, *contexts)


def test_over_tls_both_sides_are_heard(secure: SecureEnd) -> None:
    assert secure.link.tls is not None
    assert len(secure.turns.poller) == 0
    secure.link.write(b"hello")
    secure.client_link.write(MUCH)
    secure.turns.until(lambda: secure.client.data and len(secure.handler.data) == len(MUCH))
    assert (secure.client.data, secure.handler.data) == (b"hello", MUCH)


def test_over_tls_a_paused_link_does_not_read(secure: SecureEnd) -> None:
    secure.link.pause()
    secure.client_link.write(b"later")
    secure.turns.settle()
    assert secure.handler.data == b""
    secure.link.resume()
    secure.turns.until(lambda: secure.handler.data == b"later")


def test_over_tls_a_peer_that_does_not_read_chokes_the_link(secure: SecureEnd) -> None:
    secure.client_link.pause()
    for _ in range(8):
        secure.link.write(MUCH)
    secure.turns.until(lambda: secure.link.choking)
    assert secure.calls == ["choked"]
    secure.client_link.resume()
    secure.turns.until(lambda: not secure.link.choking)
    assert secure.calls == ["choked", "cleared"]
    secure.turns.until(lambda: len(secure.client.data) == 8 * len(MUCH))


def test_over_tls_what_is_written_is_sent_before_the_close(secure: SecureEnd) -> None:
    secure.link.write(MUCH)
    secure.link.close()
    secure.link.write(b"too late")
    secure.turns.until(lambda: "lost" in secure.client.calls and "lost" in secure.calls)
    assert secure.client.data == MUCH


@pytest.mark.parametrize("how", [Link.abort, Link.close], ids=["abort", "close"])
def test_over_tls_a_lost_connection_is_told_once(secure: SecureEnd, how: Callable[[Link], None]) -> None:
    how(secure.client_link)
    secure.turns.until(lambda: "lost" in secure.calls and "lost" in secure.client.calls)
    secure.link.close()
    secure.link.abort()
    secure.turns.settle()
    assert (secure.calls.count("lost"), secure.client.calls.count("lost")) == (1, 1)
    assert secure.link.closed


def test_a_failed_handshake_loses_the_connection(
    turns: Turns, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    end = End(turns, turns.tcp_pair())
    task = turns.loop.create_task(end.link.start_tls(contexts[0], server_side=True, timeout=30))
    turns.settle()
    end.far.send(b"this is no TLS")
    turns.until(task.done)
    assert isinstance(task.exception(), ssl.SSLError | OSError)
    turns.until(lambda: end.calls)
    assert (end.calls, end.link.closed) == (["lost"], True)
    turns.errors.clear()


def test_tls_on_a_lost_connection_is_refused(
    turns: Turns, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    end = End(turns)
    end.link.abort()
    with pytest.raises(ConnectionResetError):
        end.turns.loop.run_until_complete(end.link.start_tls(contexts[0], server_side=True, timeout=30))
