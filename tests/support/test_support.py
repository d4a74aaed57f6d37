"""The tests' own ground: servers as asked for, and a wire client that PostgreSQL itself understands."""

import asyncio
import ssl
from pathlib import Path

import pytest
from support.certificates import CertificateAuthority, write_private
from support.ports import free_port
from support.postgres import PASSWORD, SUPERUSER, kill_backend, new_server, running_server
from support.wire import ServerError, WireConnection, tags_of

from protocol.messages.frontend import Bind, Describe, Execute, Parse, Sync
from proxy.demo.embedded import PostgresServer
from proxy.demo.programs import EmbeddedServerError


async def test_a_server_of_every_version_answers(postgres: PostgresServer, postgres_version: int) -> None:
    async with await WireConnection.login("127.0.0.1", postgres.port, SUPERUSER, PASSWORD) as client:
        assert (await client.value("SHOW server_version") or "").split(".")[0] == str(postgres_version)
        assert client.parameters["client_encoding"] == "UTF8"
        await client.send(
            Parse(b"", b"SELECT $1::int + 1", ()),
            Bind(b"", b"", (), (b"41",), ()),
            Describe(ord("P"), b""),
            Execute(b"", 0),
            Sync(),
        )
        answer = [await client.receive() for _ in range(6)]
        assert tags_of(answer) == "12TDCZ"


@pytest.mark.parametrize("auth", ["trust", "password", "md5", "scram-sha-256"])
async def test_every_way_to_authenticate(auth: str) -> None:
    with running_server(15, auth=auth) as server:
        async with await WireConnection.login("127.0.0.1", server.port, SUPERUSER, PASSWORD) as client:
            assert await client.value("SELECT 1") == "1"
        if auth != "trust":
            with pytest.raises(ServerError) as refused:
                await WireConnection.login("127.0.0.1", server.port, SUPERUSER, "wrong")
            assert refused.value.sqlstate == "28P01"


async def test_tls_and_client_certificates(authority: CertificateAuthority, tmp_path: Path) -> None:
    certificate, key = authority.client(SUPERUSER)
    own = write_private(tmp_path / "client.crt", certificate)
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    hba = ["hostssl all all 127.0.0.1/32 cert", "hostnossl all all all reject"]
    with running_server(tls=authority.server(client_certificates=True), hba=hba) as server:
        with pytest.raises(ServerError):
            await WireConnection.login("127.0.0.1", server.port, SUPERUSER, tls=context)
        context.load_cert_chain(own, write_private(tmp_path / "client.key", key))
        async with await WireConnection.login("127.0.0.1", server.port, SUPERUSER, tls=context) as client:
            assert await client.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "t"


async def test_a_cancelled_query_ends() -> None:
    with running_server() as server:
        client = await WireConnection.login("127.0.0.1", server.port, SUPERUSER, PASSWORD, minor=2)
        asking = asyncio.create_task(client.rows("SELECT pg_sleep(60)"))
        while server.psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") != "1":
            await asyncio.sleep(0.02)
        await client.cancel()
        with pytest.raises(ServerError) as cancelled:
            await asking
        assert cancelled.value.sqlstate == "57014"
        await client.close()


async def test_a_killed_backend_takes_the_others_along() -> None:
    with running_server() as server:
        first = await WireConnection.login("127.0.0.1", server.port, SUPERUSER, PASSWORD)
        second = await WireConnection.login("127.0.0.1", server.port, SUPERUSER, PASSWORD)
        kill_backend(server, int(await first.value("SELECT pg_backend_pid()") or 0))
        assert await first.read_to_end() == b""
        assert b"57P02" in await second.read_to_end()
        server.wait_restarted()
        assert server.psql("SELECT 1") == "1"


async def test_a_server_can_stop_and_come_back_on_its_port() -> None:
    with new_server() as server:
        server.start()
        port = server.port
        server.stop()
        assert not server.running
        with pytest.raises(EmbeddedServerError):
            server.psql("SELECT 1")
        server.start()
        assert server.port == port
        assert server.psql("SELECT 1") == "1"
        directory = server.directory
    assert not directory.exists()


def test_ports_are_outside_the_range_for_outgoing_connections() -> None:
    ports = {free_port() for _ in range(50)}
    assert len(ports) == 50
    assert all(port < 32768 or port > 60999 for port in ports)
