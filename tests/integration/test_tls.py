"""TLS to the server by the URL's sslmode, TLS from clients by client.tls."""

import asyncio
import os
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from support.certificates import CertificateAuthority, write_private
from support.postgres import PASSWORD, SUPERUSER, client_program, running_server
from support.proxy import PgsluiceProcess
from support.wire import ServerError, WireConnection

from protocol.messages import backend, frontend
from protocol.messages.startup import GSSENCRequest, SSLRequest, StartupMessage
from proxy.demo.embedded import PostgresServer

USES_TLS = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@dataclass(frozen=True)
class Files:
    """Certificates as files: `root` signed the server's, `other_root` did not."""

    root: Path
    other_root: Path
    client_certificate: Path
    client_key: Path
    stranger_certificate: Path
    stranger_key: Path
    proxy_certificate: Path
    proxy_key: Path


@pytest.fixture(scope="module")
def files(authority: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory = tmp_path_factory.mktemp("certificates")
    stranger = CertificateAuthority()
    certificate, key = authority.client("certified")
    strange_certificate, strange_key = stranger.client("certified")
    proxy = authority.server("localhost", "127.0.0.1")
    contents = {
        "root": authority.certificate,
        "other_root": stranger.certificate,
        "client_certificate": certificate,
        "client_key": key,
        "stranger_certificate": strange_certificate,
        "stranger_key": strange_key,
        "proxy_certificate": proxy.certificate,
        "proxy_key": proxy.key,
    }
    return Files(**{name: write_private(directory / f"{name}.pem", pem) for name, pem in contents.items()})


@pytest.fixture(scope="module")
def server(authority: CertificateAuthority) -> Iterator[PostgresServer]:
    """A server with TLS. Its certificate is for localhost only, not for 127.0.0.1."""
    hba = (
        "hostnossl all only_tls all reject",
        "hostssl all certified all cert",
        "hostssl all only_plain all reject",
        "host all only_plain all trust",
        "hostssl all only_tls all trust",
        "host all spoken all password",
    )
    certificate = authority.server("localhost", client_certificates=True)
    with running_server(tls=certificate, hba=hba, settings={"listen_addresses": "127.0.0.1,::1"}) as server:
        server.psql("CREATE ROLE certified LOGIN; CREATE ROLE only_tls LOGIN; CREATE ROLE only_plain LOGIN")
        server.psql("CREATE ROLE spoken LOGIN PASSWORD 'spoken aloud'")
        yield server


@pytest.fixture(scope="module")
def plain_server() -> Iterator[PostgresServer]:
    with running_server(auth="trust") as server:
        yield server


def url(server: PostgresServer, host: str = "localhost", user: str = SUPERUSER, **parameters: object) -> str:
    credentials = user if user != SUPERUSER else f"{user}:{quote(PASSWORD, safe='')}"
    query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in parameters.items())
    return f"postgresql://{credentials}@{host}:{server.port}/postgres?{query}"


# --- to the server --------------------------------------------------------------------------------


async def uses_tls(primary: str, user: str = SUPERUSER) -> bool:
    """Whether the proxy's connection to the server is by TLS; ServerError when there is none."""
    with PgsluiceProcess(primary, settings={"POOL__WAIT_TIMEOUT": "0.3"}) as process:
        async with await WireConnection.login(*process.address, user, PASSWORD) as session:
            return await session.value(USES_TLS) == "t"


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"sslmode": "disable"}, False),
        ({"sslmode": "allow"}, False),
        ({"sslmode": "prefer"}, True),
        ({}, True),
        ({"sslmode": "require"}, True),
        ({"sslmode": "require", "sslrootcert": "root"}, True),
        ({"sslmode": "verify-ca", "sslrootcert": "root"}, True),
        ({"sslmode": "verify-full", "sslrootcert": "root"}, True),
        ({"sslmode": "prefer", "sslrootcert": "other_root"}, True),
    ],
    ids=lambda value: "-".join(value.values()) or "default" if isinstance(value, dict) else None,
)
async def test_sslmode(
    server: PostgresServer, files: Files, parameters: Mapping[str, str], expected: bool
) -> None:
    assert await uses_tls(url(server, **named(files, parameters))) is expected


def named(files: Files, parameters: Mapping[str, str]) -> dict[str, str]:
    """Names of files in place of their attributes' names."""
    return {name: str(getattr(files, value, value)) for name, value in parameters.items()}


async def test_verify_ca_does_not_look_at_the_name(server: PostgresServer, files: Files) -> None:
    assert await uses_tls(url(server, "127.0.0.1", sslmode="verify-ca", sslrootcert=files.root))


@pytest.mark.parametrize(
    ("host", "parameters", "reason"),
    [
        ("localhost", {"sslmode": "verify-ca", "sslrootcert": "other_root"}, "certificate"),
        ("localhost", {"sslmode": "verify-full", "sslrootcert": "other_root"}, "certificate"),
        ("localhost", {"sslmode": "require", "sslrootcert": "other_root"}, "certificate"),
        ("127.0.0.1", {"sslmode": "verify-full", "sslrootcert": "root"}, "127.0.0.1"),
        ("localhost", {"sslmode": "verify-full", "sslrootcert": "system"}, "certificate"),
    ],
    ids=["verify-ca", "verify-full", "require with a root", "other name", "system"],
)
async def test_a_server_that_cannot_prove_itself_is_not_talked_to(
    server: PostgresServer, files: Files, host: str, parameters: Mapping[str, str], reason: str
) -> None:
    primary = url(server, host, **named(files, parameters))
    with PgsluiceProcess(primary, settings={"POOL__WAIT_TIMEOUT": "0.3"}) as process:
        with pytest.raises(ServerError) as refused:
            await WireConnection.login(*process.address, SUPERUSER, PASSWORD)
        assert refused.value.sqlstate == "08001"
        for text in (refused.value.response.message, process.get("/readyz")[1].decode(), process.log):
            assert f"{host}:{server.port}" in text
            assert "TLS" in text
            assert reason in text
            assert PASSWORD not in text
        assert process.get("/readyz")[0] == 503


async def test_a_client_certificate_logs_in(server: PostgresServer, files: Files) -> None:
    primary = url(
        server,
        user="certified",
        sslmode="verify-full",
        sslrootcert=files.root,
        sslcert=files.client_certificate,
        sslkey=files.client_key,
    )
    assert await uses_tls(primary, "certified")


async def test_a_certificate_of_another_authority_is_refused(server: PostgresServer, files: Files) -> None:
    primary = url(
        server,
        user="certified",
        sslmode="require",
        sslcert=files.stranger_certificate,
        sslkey=files.stranger_key,
    )
    with pytest.raises(ServerError) as refused:
        await uses_tls(primary, "certified")
    assert refused.value.sqlstate == "08001"
    assert "TLS" in refused.value.response.message


async def test_a_missing_client_certificate_is_refused_in_the_server_s_words(server: PostgresServer) -> None:
    expected = "connection requires a valid client certificate"
    with pytest.raises(psycopg.OperationalError, match=expected):
        psycopg.connect(url(server, user="certified", sslmode="require"))
    with pytest.raises(ServerError) as refused:
        await uses_tls(url(server, user="certified", sslmode="require"), "certified")
    assert refused.value.sqlstate == "28000"
    assert refused.value.response.message == expected


@pytest.mark.parametrize(
    ("user", "sslmode", "expected"),
    [("only_tls", "allow", True), ("only_plain", "prefer", False)],
    ids=["allow", "prefer"],
)
async def test_the_other_way_is_tried_where_pg_hba_conf_refuses_the_first(
    server: PostgresServer, user: str, sslmode: str, expected: bool
) -> None:
    assert await uses_tls(url(server, user=user, sslmode=sslmode), user) is expected


@pytest.mark.parametrize(
    ("user", "sslmode"), [("only_tls", "disable"), ("only_plain", "require")], ids=["disable", "require"]
)
async def test_the_other_way_is_not_tried_where_sslmode_forbids_it(
    server: PostgresServer, user: str, sslmode: str
) -> None:
    with pytest.raises(ServerError) as refused:
        await uses_tls(url(server, user=user, sslmode=sslmode), user)
    assert refused.value.sqlstate == "28000"
    assert refused.value.response.message.startswith("pg_hba.conf rejects connection")


async def test_a_password_is_sent_in_clear_text_by_tls_only(server: PostgresServer, files: Files) -> None:
    for sslmode, expected in (("require", None), ("disable", "clear text on a connection without TLS")):
        primary = url(server, user="spoken:spoken%20aloud", sslmode=sslmode)
        with PgsluiceProcess(primary) as process:
            if expected is None:
                async with await WireConnection.login(*process.address, "spoken", "spoken aloud") as session:
                    assert await session.value("SELECT current_user") == "spoken"
            else:
                with pytest.raises(ServerError) as refused:
                    await WireConnection.login(*process.address, "spoken", "spoken aloud")
                assert refused.value.sqlstate == "28P01"
                assert expected in refused.value.response.message


@pytest.mark.parametrize("sslmode", ["disable", "allow", "prefer"])
async def test_a_server_without_tls_will_do(plain_server: PostgresServer, sslmode: str) -> None:
    assert not await uses_tls(url(plain_server, sslmode=sslmode))


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
async def test_a_server_without_tls_will_not_do(
    plain_server: PostgresServer, files: Files, sslmode: str
) -> None:
    primary = url(plain_server, sslmode=sslmode, sslrootcert=files.root)
    with pytest.raises(ServerError) as refused:
        await uses_tls(primary)
    assert refused.value.sqlstate == "08001"
    assert "server does not support SSL" in refused.value.response.message


async def test_direct_tls_to_the_server(plain_server: PostgresServer, files: Files) -> None:
    """There is no PostgreSQL 17 with TLS here; what answers direct TLS is a second proxy."""
    with proxy_with_tls(plain_server, files, "require") as behind:
        primary = (
            f"postgresql://{SUPERUSER}@localhost:{behind.port}/postgres"
            f"?sslmode=verify-full&sslnegotiation=direct&sslrootcert={files.root}"
        )
        with PgsluiceProcess(primary, settings={"POOL__WAIT_TIMEOUT": "2"}) as process:
            async with await WireConnection.login(*process.address, SUPERUSER) as session:
                assert await session.value("SELECT repeat('x', 300000)") == "x" * 300_000
    assert behind.events_named("protocol violation") == []


async def test_direct_tls_to_a_server_that_does_not_know_it(server: PostgresServer, files: Files) -> None:
    if server.programs.major >= 17:
        pytest.skip("PostgreSQL 17 and newer know it")
    with pytest.raises(ServerError) as refused:
        await uses_tls(url(server, sslmode="verify-full", sslnegotiation="direct", sslrootcert=files.root))
    assert refused.value.sqlstate == "08001"


async def test_cancel_goes_by_tls_too(server: PostgresServer, files: Files) -> None:
    with PgsluiceProcess(url(server, sslmode="verify-full", sslrootcert=files.root)) as process:
        async with await WireConnection.login(*process.address, SUPERUSER, PASSWORD) as session:
            await session.send(frontend.Query(b"SELECT pg_sleep(30)"))
            await wait_until_running(server, "SELECT pg_sleep(30)")
            await session.cancel()
            said = await session.receive_until(backend.ReadyForQuery)
            assert [each.sqlstate for each in said if isinstance(each, backend.ErrorResponse)] == ["57014"]
        assert process.events_named("cancel request failed") == []


async def wait_until_running(server: PostgresServer, sql: str) -> None:
    async with asyncio.timeout(10):
        while (
            server.psql(f"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{sql}'")
            == "0"
        ):
            await asyncio.sleep(0.02)


# --- from clients ---------------------------------------------------------------------------------


def proxy_with_tls(server: PostgresServer, files: Files, mode: str, **settings: str) -> PgsluiceProcess:
    process = PgsluiceProcess(
        f"postgresql://{SUPERUSER}@127.0.0.1:{server.port}/postgres",
        settings={
            "CLIENT__TLS": mode,
            "CLIENT__TLS_CERT": str(files.proxy_certificate),
            "CLIENT__TLS_KEY": str(files.proxy_key),
        }
        | settings,
    )
    return process.start()


@pytest.fixture(scope="module", params=["off", "allow", "require"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def process(plain_server: PostgresServer, files: Files, mode: str) -> Iterator[PgsluiceProcess]:
    with proxy_with_tls(plain_server, files, mode) as process:
        yield process


@pytest.fixture(scope="module")
def trusting_tls(files: Files) -> ssl.SSLContext:
    """A client that knows the authority and speaks PostgreSQL's protocol, and says so by ALPN."""
    context = ssl.create_default_context(cafile=str(files.root))
    context.set_alpn_protocols(["postgresql"])
    return context


SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@pytest.mark.parametrize("sslmode", SSLMODES)
def test_psql_by_sslmode(process: PgsluiceProcess, files: Files, mode: str, sslmode: str) -> None:
    result = psql(process, files, sslmode)
    if mode == "off" and sslmode in ("require", "verify-ca", "verify-full"):
        assert result.returncode == 2
        assert "server does not support SSL, but SSL was required" in result.stderr
    elif mode == "require" and sslmode == "disable":
        assert result.returncode == 2
        assert "FATAL:  connection requires TLS (client_tls = require)" in result.stderr
    else:
        assert result.returncode == 0, result.stderr
        encrypted = mode != "off" and (sslmode not in ("disable", "allow") or mode == "require")
        assert result.stdout == f"{'TLS' if encrypted else 'plain'}\n"


def psql(process: PgsluiceProcess, files: Files, sslmode: str) -> subprocess.CompletedProcess[str]:
    # The system's psql: the wheel's is built without TLS.
    program = client_program("psql", 15)
    host, port = "localhost", process.port
    conninfo = (
        f"host={host} port={port} user={SUPERUSER} dbname=postgres sslmode={sslmode} sslrootcert={files.root}"
    )
    script = "\\conninfo\nSELECT 1"
    result = subprocess.run(
        [program, "-XqAt", conninfo],
        input=script,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    if result.returncode == 0:
        assert result.stdout.endswith("1\n")
        result.stdout = "TLS\n" if "SSL connection" in result.stdout else "plain\n"
    return result


def test_drivers_by_tls(plain_server: PostgresServer, files: Files) -> None:
    with proxy_with_tls(plain_server, files, "require") as process:
        conninfo = f"host=localhost port={process.port} user={SUPERUSER} dbname=postgres"
        with psycopg.connect(f"{conninfo} sslmode=verify-full sslrootcert={files.root}") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            assert connection.pgconn.ssl_in_use
        with pytest.raises(psycopg.OperationalError, match="requires TLS"):
            psycopg.connect(f"{conninfo} sslmode=disable")
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            psycopg.connect(f"{conninfo} sslmode=verify-full sslrootcert={files.other_root}")
        process.wait_for("TLS handshake failed")


def test_scram_by_tls(server: PostgresServer, files: Files) -> None:
    """Over TLS libpq would like channel binding; where it is not offered it goes on without."""
    settings = {
        "CLIENT__TLS": "require",
        "CLIENT__TLS_CERT": str(files.proxy_certificate),
        "CLIENT__TLS_KEY": str(files.proxy_key),
    }
    with PgsluiceProcess(url(server), settings=settings) as process:
        conninfo = {"sslmode": "verify-full", "sslrootcert": str(files.root), "host": "localhost"}
        for binding in ("prefer", "disable"):
            with psycopg.connect(process.url(), **conninfo, channel_binding=binding) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="channel binding"):
            psycopg.connect(process.url(), **conninfo, channel_binding="require")


async def test_a_handshake_that_does_not_go_on_is_the_end(plain_server: PostgresServer, files: Files) -> None:
    with proxy_with_tls(plain_server, files, "allow", CLIENT__LOGIN_TIMEOUT="0.4") as process:
        process.wait_for("primary reached")
        before = descriptors(process)
        asked = await WireConnection.open(*process.address)
        await asked.send(SSLRequest())
        assert await asked.read(1) == b"S"
        direct = await WireConnection.open(*process.address)
        await direct.send(b"\x16\x03\x01\x02")
        for connection in (asked, direct):
            assert await connection.read_to_end() == b""
            connection.abort()
        # Rubbish in place of a handshake.
        rubbish = await WireConnection.open(*process.address)
        await rubbish.send(SSLRequest())
        assert await rubbish.read(1) == b"S"
        await rubbish.send(b"GET / HTTP/1.1\r\n\r\n")
        await rubbish.read_to_end()
        rubbish.abort()
        assert process.wait_for("TLS handshake failed")["peer"].startswith("127.0.0.1:")
        async with asyncio.timeout(10):
            while descriptors(process) > before:
                await asyncio.sleep(0.02)
        async with await WireConnection.login(*process.address, SUPERUSER) as session:
            assert await session.value("SELECT 1") == "1"


def descriptors(process: PgsluiceProcess) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


async def test_requests_for_encryption(
    plain_server: PostgresServer, process: PgsluiceProcess, mode: str, trusting_tls: ssl.SSLContext
) -> None:
    startup = StartupMessage(3, 0, {"user": SUPERUSER, "database": "postgres"})
    async with await WireConnection.open(*process.address) as connection:
        await connection.send(GSSENCRequest())
        assert await connection.read(1) == b"N"
        await connection.send(SSLRequest())
        assert await connection.read(1) == (b"N" if mode == "off" else b"S")
        if mode != "off":
            await connection.writer.start_tls(trusting_tls, server_hostname="localhost")
        await connection.send(startup)
        await connection.receive_until(backend.ReadyForQuery)
        assert await connection.value("SELECT 1") == "1"


@pytest.mark.parametrize("request_twice", [SSLRequest(), GSSENCRequest()], ids=["SSL", "GSS"])
async def test_the_same_request_twice_is_no_protocol(
    plain_server: PostgresServer, files: Files, request_twice: SSLRequest | GSSENCRequest
) -> None:
    with proxy_with_tls(plain_server, files, "off") as process:
        refusals = []
        for port in (plain_server.port, process.port):
            connection = await WireConnection.open("127.0.0.1", port)
            await connection.send(request_twice)
            assert await connection.read(1) == b"N"
            await connection.send(request_twice)
            refusal = await connection.expect(backend.ErrorResponse)
            refusals.append({code: refusal.fields[code] for code in "SVCM"})
            assert await connection.read_to_end() == b""
            connection.abort()
        assert refusals[0]["C"] == "0A000"
        assert refusals[1] == refusals[0]


@pytest.mark.parametrize("request_first", [SSLRequest(), GSSENCRequest()], ids=["SSL", "GSS"])
async def test_what_stands_behind_a_refused_request_is_refused(
    plain_server: PostgresServer, files: Files, request_first: SSLRequest | GSSENCRequest
) -> None:
    with proxy_with_tls(plain_server, files, "off") as process:
        said = []
        for port in (plain_server.port, process.port):
            connection = await WireConnection.open("127.0.0.1", port)
            await connection.send(request_first, StartupMessage(3, 0, {"user": SUPERUSER}))
            assert await connection.read(1) == b"N"
            refusal = await connection.expect(backend.ErrorResponse)
            said.append({code: refusal.fields[code] for code in "SVCMD"})
            connection.abort()
        assert said[0]["C"] == "08P01"
        assert said[1] == said[0]


async def test_what_stands_behind_an_accepted_request_is_refused(
    plain_server: PostgresServer, files: Files
) -> None:
    """Bytes before the handshake may have been put there by somebody in between."""
    with proxy_with_tls(plain_server, files, "allow") as process:
        connection = await WireConnection.open(*process.address)
        await connection.send(SSLRequest(), StartupMessage(3, 0, {"user": SUPERUSER}))
        refusal = await connection.expect(backend.ErrorResponse)
        assert (refusal.sqlstate, refusal.message) == ("08P01", "received unencrypted data after SSL request")
        assert await connection.read_to_end() == b""
        connection.abort()
        assert process.wait_for("protocol violation")["peer"].startswith("127.0.0.1:")


async def test_direct_tls(
    process: PgsluiceProcess, mode: str, trusting_tls: ssl.SSLContext, files: Files
) -> None:
    without_alpn = ssl.create_default_context(cafile=str(files.root))
    other_alpn = ssl.create_default_context(cafile=str(files.root))
    other_alpn.set_alpn_protocols(["http/1.1"])
    if mode == "off":
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await WireConnection.open("localhost", process.port, tls=trusting_tls, direct_tls=True)
        return
    async with await WireConnection.open(
        "localhost", process.port, tls=trusting_tls, direct_tls=True
    ) as connection:
        await connection.startup(SUPERUSER)
        assert await connection.value("SELECT 1") == "1"
    for context in (without_alpn, other_alpn):
        refused = await WireConnection.open("localhost", process.port, tls=context, direct_tls=True)
        try:
            await refused.send(StartupMessage(3, 0, {"user": SUPERUSER}))
            assert await refused.read_to_end() == b""
        except ConnectionError:
            pass
        finally:
            refused.abort()
    assert process.wait_for("protocol violation")["reason"] == "direct TLS without ALPN"


async def test_log_in_right_behind_the_handshake(
    plain_server: PostgresServer, files: Files, trusting_tls: ssl.SSLContext
) -> None:
    """Everything a client can know beforehand, sent as early as it can be."""
    with proxy_with_tls(plain_server, files, "require") as process:

        async def one(number: int) -> str | None:
            connection = await WireConnection.open(
                "localhost", process.port, tls=trusting_tls, direct_tls=number % 2 == 0
            )
            await connection.send(
                StartupMessage(3, 0, {"user": SUPERUSER, "database": "postgres"}),
                frontend.Query(f"SELECT {number}".encode()),
            )
            await connection.receive_until(backend.ReadyForQuery)
            (row,) = [
                message
                for message in await connection.receive_until(backend.ReadyForQuery)
                if isinstance(message, backend.DataRow)
            ]
            await connection.close()
            return (row.values[0] or b"").decode()

        for _ in range(3):
            assert await asyncio.gather(*map(one, range(20))) == [str(number) for number in range(20)]
            # Refused log-ins are told so by TLS as well.
            refused = await WireConnection.open("localhost", process.port, tls=trusting_tls)
            await refused.send(StartupMessage(3, 0, {}))
            assert (await refused.expect(backend.ErrorResponse)).sqlstate == "28000"
            refused.abort()


@pytest.mark.smoke
async def test_much_data_by_tls(server: PostgresServer, files: Files, trusting_tls: ssl.SSLContext) -> None:
    """Large results, a slow reader, COPY both ways; TLS on both sides."""
    settings = {
        "CLIENT__TLS": "require",
        "CLIENT__TLS_CERT": str(files.proxy_certificate),
        "CLIENT__TLS_KEY": str(files.proxy_key),
        "POOL_SIZE": "1",
    }
    primary = url(server, sslmode="verify-full", sslrootcert=files.root)
    with PgsluiceProcess(primary, settings=settings) as process:
        async with await WireConnection.login(
            "localhost", process.port, SUPERUSER, PASSWORD, tls=trusting_tls
        ) as session:
            rows = await session.rows("SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
            assert len(rows) == 20_000
            assert rows[-1] == ("20000", "x" * 1000)

            await session.query("CREATE TABLE copied (line text)")
            chunk = b"".join(b"line %d %s\n" % (i, b"y" * 500) for i in range(1000))
            await session.send(frontend.Query(b"COPY copied FROM STDIN"))
            await session.receive_until(backend.CopyInResponse)
            for _ in range(20):
                await session.send(frontend.CopyData(chunk))
            await session.send(frontend.CopyDone())
            messages = await session.receive_until(backend.ReadyForQuery)
            assert backend.CommandComplete(b"COPY 20000") in messages

            await session.send(frontend.Query(b"COPY copied TO STDOUT"))
            await asyncio.sleep(0.3)  # the reader is slow: the proxy must not take it all into memory
            said = await session.receive_until(backend.ReadyForQuery)
            data = b"".join(message.data for message in said if isinstance(message, frontend.CopyData))
            assert len(data) == 20 * len(chunk)
            await session.query("DROP TABLE copied")
            assert await session.value("SELECT length(" + "'" + "z" * 3_000_000 + "')") == "3000000"


def test_a_certificate_that_cannot_be_used_is_said_at_start(
    plain_server: PostgresServer, files: Files
) -> None:
    for certificate, key in (
        (files.proxy_certificate, files.client_key),
        (files.proxy_key, files.proxy_key),
        (Path("/nonexistent/cert.pem"), files.proxy_key),
    ):
        process = PgsluiceProcess(
            plain_server.url(),
            settings={
                "CLIENT__TLS": "allow",
                "CLIENT__TLS_CERT": str(certificate),
                "CLIENT__TLS_KEY": str(key),
            },
        )
        process.launch()
        assert process.wait() == 2
        assert len(process.lines) == 1
        assert "client" in process.lines[0].lower()
        assert str(certificate) in process.lines[0]


def test_a_root_certificate_that_cannot_be_used_is_said_at_start(
    plain_server: PostgresServer, files: Files
) -> None:
    for root in ("/nonexistent/root.pem", files.client_key):
        process = PgsluiceProcess(url(plain_server, sslmode="verify-full", sslrootcert=root))
        process.launch()
        assert process.wait() == 2
        assert len(process.lines) == 1
        assert str(root) in process.lines[0]
        assert PASSWORD not in process.lines[0]
