"""Logging in through the proxy looks like logging in to the server: the same messages, the same refusals."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.postgres import PASSWORD, SUPERUSER, programs, running_server
from support.proxy import PgsluiceProcess
from support.wire import ServerError, WireConnection

from protocol.auth.scram import ScramClient
from protocol.messages import backend, frontend
from protocol.messages.codec import Message
from protocol.messages.startup import StartupMessage
from proxy.demo.embedded import PostgresServer

Address = tuple[str, int]

SECRET = 'p$ss "wörd"; it\'s 100%'
MD5_SECRET = "md5 secret"

ROLES = f"""
SET client_min_messages = error;
CREATE ROLE verified LOGIN PASSWORD '{SECRET.replace("'", "''")}';
CREATE ROLE plain LOGIN PASSWORD '{SECRET.replace("'", "''")}';
CREATE ROLE barred NOLOGIN PASSWORD '{SECRET.replace("'", "''")}';
CREATE ROLE expired LOGIN PASSWORD '{SECRET.replace("'", "''")}' VALID UNTIL '2001-01-01';
CREATE ROLE outcast LOGIN PASSWORD '{SECRET.replace("'", "''")}';
CREATE ROLE trusty LOGIN;
CREATE ROLE settled LOGIN;
ALTER ROLE settled SET DateStyle = 'SQL, DMY';
ALTER ROLE settled SET application_name = 'of the role';
SET password_encryption = md5;
CREATE ROLE hashed LOGIN PASSWORD '{MD5_SECRET}';
"""

HBA = (
    "host all hashed 127.0.0.1/32 md5",
    "host all outcast 127.0.0.1/32 reject",
    "host all trusty 127.0.0.1/32 trust",
    "host all settled 127.0.0.1/32 trust",
    "host all ghost 127.0.0.1/32 trust",
    "host postgres verified 127.0.0.1/32 scram-sha-256",
)


@pytest.fixture(scope="module")
def server(postgres_version: int) -> Iterator[PostgresServer]:
    programs(postgres_version)
    with running_server(postgres_version, hba=HBA) as server:
        server.psql(ROLES)
        for statement in (
            "CREATE DATABASE closed ALLOW_CONNECTIONS false",
            "CREATE DATABASE private",
            "REVOKE CONNECT ON DATABASE private FROM PUBLIC",
        ):
            server.psql(statement)
        yield server


@pytest.fixture(scope="module")
def with_passwords(
    server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PgsluiceProcess]:
    """A proxy whose clients need a password: the URL's user, and those of an auth file."""
    file = tmp_path_factory.mktemp("auth") / "users.txt"
    write_auth_file(file, server)
    with PgsluiceProcess(server.url(), settings={"AUTH__FILE": str(file)}) as process:
        yield process


@pytest.fixture(scope="module")
def trusting(server: PostgresServer) -> Iterator[PgsluiceProcess]:
    """A proxy whose URL has no password, so that clients need none."""
    with PgsluiceProcess(server.url(user="trusty")) as process:
        yield process


def write_auth_file(file: Path, server: PostgresServer) -> None:
    """SCRAM verifiers and md5 hashes as the server has them, and a plain password."""
    users = {"plain": SECRET}
    for name in ("verified", "barred", "expired", "outcast", "hashed"):
        users[name] = server.psql(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{name}'")
    lines = [
        "# users of pgsluice",
        *(f'"{user}" "{secret.replace(chr(34), chr(34) * 2)}"' for user, secret in users.items()),
    ]
    file.write_text("\n".join(lines) + "\n")


class Witness(WireConnection):
    """Keeps everything the other side says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.said: list[Message] = []

    async def receive(self) -> Message:
        message = await super().receive()
        self.said.append(message)
        return message


def direct(server: PostgresServer) -> Address:
    return "127.0.0.1", server.port


async def log_in(
    address: Address, user: str, password: str | None, database: str, **parameters: str
) -> list[Message]:
    """Everything said to a client that logs in, up to ReadyForQuery or the refusal."""
    connection = await Witness.open(*address)
    try:
        await connection.startup(user, password, database, **parameters)
        await connection.close()
    except ServerError:
        assert await connection.read_to_end() == b"", "a refusal is the last that is said"
    finally:
        connection.abort()
    return connection.said


def comparable(messages: list[Message]) -> list[Any]:
    """What must not differ: all but random numbers, process ids and places in PostgreSQL's source."""
    return [_comparable(message) for message in messages]


def _comparable(message: Message) -> Any:
    match message:
        case backend.BackendKeyData(_, secret):
            return "BackendKeyData", len(secret)
        case backend.AuthenticationMD5Password(salt):
            return "AuthenticationMD5Password", len(salt)
        case backend.AuthenticationSASLContinue() | backend.AuthenticationSASLFinal():
            return type(message).__name__
        case backend.ErrorResponse(fields):
            return {code: text for code, text in fields.items() if code in "SVCMDH"}
        case _:
            return message


# --- getting in -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "password"),
    [(SUPERUSER, PASSWORD), ("verified", SECRET), ("plain", SECRET), ("hashed", MD5_SECRET)],
    ids=["url", "verifier", "plain", "md5"],
)
async def test_a_client_is_told_what_the_server_would_tell_it(
    server: PostgresServer, with_passwords: PgsluiceProcess, user: str, password: str
) -> None:
    expected = comparable(await log_in(direct(server), user, password, "postgres"))
    assert comparable(await log_in(with_passwords.address, user, password, "postgres")) == expected
    # The second time there is a server connection already.
    assert comparable(await log_in(with_passwords.address, user, password, "postgres")) == expected


async def test_a_role_s_own_settings_show_at_log_in(
    server: PostgresServer, trusting: PgsluiceProcess
) -> None:
    expected = comparable(await log_in(direct(server), "settled", None, "postgres"))
    assert backend.ParameterStatus("DateStyle", "SQL, DMY") in expected
    assert comparable(await log_in(trusting.address, "settled", None, "postgres")) == expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"application_name": "wörker 7"},
        {"client_encoding": "latin1", "DateStyle": "German, DMY", "TimeZone": "Asia/Tokyo"},
        {"options": "-c geqo=off -c work_mem=5MB --statement_timeout=7s"},
        {"options": r"-c search_path=pg_catalog,\ public", "extra_float_digits": "3"},
        {"application_name": "", "options": "", "IntervalStyle": "iso_8601"},
        {"replication": "off"},
    ],
    ids=["application_name", "reported", "options", "escaped options", "empty", "replication off"],
)
async def test_start_up_parameters_reach_the_server(
    server: PostgresServer, trusting: PgsluiceProcess, parameters: dict[str, str]
) -> None:
    question = (
        "SELECT name, setting, source, reset_val FROM pg_settings WHERE name = ANY ("
        "'{application_name,client_encoding,DateStyle,TimeZone,IntervalStyle,geqo,work_mem,"
        "statement_timeout,search_path,extra_float_digits}') ORDER BY name"
    )
    expected = comparable(await log_in(direct(server), "trusty", None, "postgres", **parameters))
    assert comparable(await log_in(trusting.address, "trusty", None, "postgres", **parameters)) == expected
    async with (
        await WireConnection.login(*direct(server), "trusty", **parameters) as there,
        await WireConnection.login(*trusting.address, "trusty", **parameters) as here,
    ):
        assert await here.rows(question) == await there.rows(question)


async def test_sessions_with_other_parameters_do_not_share_servers(trusting: PgsluiceProcess) -> None:
    zones = ("Asia/Tokyo", "Europe/Berlin", "America/Lima")
    sessions = [
        await WireConnection.login(*trusting.address, "trusty", TimeZone=zone)
        for zone in zones
        for _ in range(2)
    ]
    for _ in range(3):
        told = await asyncio.gather(*(session.value("SHOW TimeZone") for session in sessions))
        assert told == [zone for zone in zones for _ in range(2)]
    for session in sessions:
        await session.close()


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_pool_modes_do_not_show_at_log_in(server: PostgresServer, mode: str) -> None:
    expected = comparable(await log_in(direct(server), "trusty", None, "postgres"))
    with PgsluiceProcess(
        server.url(user="trusty"), settings={"POOL_MODE": mode, "POOL_SIZE": "1"}
    ) as process:
        for _ in range(2):
            assert comparable(await log_in(process.address, "trusty", None, "postgres")) == expected


# --- being refused --------------------------------------------------------------------------------

REFUSED_WITH_PASSWORDS = {
    "wrong password": ("verified", "wrong", "postgres", "28P01"),
    "wrong password, plain": ("plain", "wrong", "postgres", "28P01"),
    "wrong password, md5": ("hashed", "wrong", "postgres", "28P01"),
    "wrong password and no such database": ("verified", "wrong", "nowhere", "28P01"),
    "unknown user": ("nobody", SECRET, "postgres", "28P01"),
    "unknown user with a quote": ('no"body\\', SECRET, "postgres", "28P01"),
    "no such database": ("verified", SECRET, "nowhere", "3D000"),
    "no such database, md5": ("hashed", MD5_SECRET, "Nö \"where\"", "3D000"),
    "database without connections": ("plain", SECRET, "closed", "55000"),
    "database without the privilege": ("plain", SECRET, "private", "42501"),
    "role that may not log in": ("barred", SECRET, "postgres", "28000"),
}  # fmt: skip

REFUSED_WITHOUT = {
    "no such role": ("ghost", "postgres", {}, "28000"),
    "no such database": ("trusty", "nowhere", {}, "3D000"),
    "no such setting": ("trusty", "postgres", {"no_such_setting": "1"}, "42704"),
    "wrong value": ("trusty", "postgres", {"DateStyle": "lunar"}, "22023"),
    "wrong encoding": ("trusty", "postgres", {"client_encoding": "klingon"}, "22023"),
    "wrong option": ("trusty", "postgres", {"options": "-c nonsense"}, "42601"),
    "option for superusers": ("trusty", "postgres", {"options": "-c log_min_messages=debug1"}, "42501"),
    "refused by pg_hba.conf": ("outcast", "postgres", {}, "28000"),
}


@pytest.mark.parametrize("case", REFUSED_WITH_PASSWORDS)
async def test_refusals_are_the_server_s_own(
    server: PostgresServer, with_passwords: PgsluiceProcess, case: str
) -> None:
    user, password, database, sqlstate = REFUSED_WITH_PASSWORDS[case]
    expected = comparable(await log_in(direct(server), user, password, database))
    assert expected[-1]["C"] == sqlstate
    assert comparable(await log_in(with_passwords.address, user, password, database)) == expected
    assert comparable(await log_in(with_passwords.address, user, password, database)) == expected


@pytest.mark.parametrize("case", REFUSED_WITHOUT)
async def test_refusals_without_a_password_are_the_server_s_own(
    server: PostgresServer, trusting: PgsluiceProcess, case: str
) -> None:
    user, database, parameters, sqlstate = REFUSED_WITHOUT[case]
    expected = comparable(await log_in(direct(server), user, None, database, **parameters))
    assert expected[-1]["C"] == sqlstate
    assert comparable(await log_in(trusting.address, user, None, database, **parameters)) == expected


async def test_a_password_that_has_expired_is_refused_in_the_server_s_words(
    server: PostgresServer, with_passwords: PgsluiceProcess
) -> None:
    expected = comparable(await log_in(direct(server), "expired", SECRET, "postgres"))
    assert comparable(await log_in(with_passwords.address, "expired", SECRET, "postgres"))[-1] == expected[-1]


async def test_a_user_refused_by_pg_hba_conf_is_told_so_after_the_password(
    server: PostgresServer, with_passwords: PgsluiceProcess
) -> None:
    expected = comparable(await log_in(direct(server), "outcast", SECRET, "postgres"))
    assert comparable(await log_in(with_passwords.address, "outcast", SECRET, "postgres"))[-1] == expected[-1]


async def test_a_database_made_after_a_refusal_is_there_at_once(
    server: PostgresServer, with_passwords: PgsluiceProcess
) -> None:
    async def attempt() -> Message:
        return (await log_in(with_passwords.address, "verified", SECRET, "made_later"))[-1]

    for _ in range(2):
        refusal = await attempt()
        assert isinstance(refusal, backend.ErrorResponse)
        assert refusal.sqlstate == "3D000"
        server.psql("CREATE DATABASE made_later")
        assert isinstance(await attempt(), backend.ReadyForQuery)
        server.psql("DROP DATABASE made_later WITH (FORCE)")


async def test_a_role_made_after_a_refusal_is_there_at_once(
    server: PostgresServer, trusting: PgsluiceProcess
) -> None:
    refusal = (await log_in(trusting.address, "ghost", None, "postgres"))[-1]
    assert isinstance(refusal, backend.ErrorResponse)
    server.psql("CREATE ROLE ghost LOGIN")
    try:
        assert isinstance(
            (await log_in(trusting.address, "ghost", None, "postgres"))[-1], backend.ReadyForQuery
        )
    finally:
        server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ghost'")
        server.psql("DROP ROLE ghost")


async def test_a_right_password_after_many_wrong_ones_gets_in_and_the_log_stays_short(
    server: PostgresServer, tmp_path: Path
) -> None:
    file = tmp_path / "users.txt"
    write_auth_file(file, server)
    with PgsluiceProcess(server.url(), settings={"AUTH__FILE": str(file)}) as process:
        for _ in range(5):
            refusal = (await log_in(process.address, "verified", "wrong", "postgres"))[-1]
            assert isinstance(refusal, backend.ErrorResponse)
        assert isinstance(
            (await log_in(process.address, "verified", SECRET, "postgres"))[-1], backend.ReadyForQuery
        )
        assert metric(process, "pgsluice_login_failures_total") == 5
        await log_in(process.address, "verified", SECRET, "nowhere")
        process.wait_for("log-in failed", count=2)
        entries = process.events_named("log-in failed")
        assert [(each["user"], each["database"], each["sqlstate"], each["reason"]) for each in entries] == [
            ("verified", "postgres", "28P01", 'password authentication failed for user "verified"'),
            ("verified", "nowhere", "3D000", 'database "nowhere" does not exist'),
        ]
        assert metric(process, "pgsluice_login_failures_total") == 6
        assert "wrong" not in process.log


def metric(process: PgsluiceProcess, name: str) -> float:
    status, body = process.get("/metrics")
    assert status == 200
    for line in body.decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise AssertionError(f"no {name} in\n{body.decode()}")


# --- versions and options of the protocol ---------------------------------------------------------

STARTUPS = {
    "3.0": StartupMessage(3, 0, {"user": "trusty", "database": "postgres"}),
    "3.1": StartupMessage(3, 1, {"user": "trusty", "database": "postgres"}),
    "3.2": StartupMessage(3, 2, {"user": "trusty", "database": "postgres"}),
    "3.9999": StartupMessage(3, 9999, {"user": "trusty", "database": "postgres"}),
    "no database": StartupMessage(3, 0, {"user": "trusty"}),
    "empty database": StartupMessage(3, 0, {"user": "trusty", "database": ""}),
    "unknown options": StartupMessage(
        3, 0, {"user": "trusty", "_pq_.first": "on", "database": "postgres", "_pq_.second": ""}
    ),
    "3.2 and an unknown option": StartupMessage(
        3, 2, {"user": "trusty", "database": "postgres", "_pq_.command_tag_format": "fancy"}
    ),
    "no user": StartupMessage(3, 0, {"database": "postgres"}),
    "empty user": StartupMessage(3, 0, {"user": "", "database": "postgres"}),
    "no user, newer version": StartupMessage(3, 9, {"database": "postgres"}),
    "nothing": StartupMessage(3, 0, {}),
    "4.0": StartupMessage(4, 0, {"user": "trusty", "database": "postgres"}),
    "no version": StartupMessage(0, 0, {}),
}


@pytest.mark.parametrize("case", STARTUPS)
async def test_versions_are_negotiated_as_by_the_server(
    server: PostgresServer, trusting: PgsluiceProcess, case: str
) -> None:
    expected = await said_to(direct(server), STARTUPS[case])
    assert expected, "the server says something in every case"
    assert await said_to(trusting.address, STARTUPS[case]) == expected


async def said_to(address: Address, startup: StartupMessage) -> list[Any]:
    connection = await WireConnection.open(*address)
    try:
        await connection.send(startup)
        said: list[Message] = []
        while not said or not isinstance(said[-1], backend.ReadyForQuery | backend.ErrorResponse):
            said.append(await connection.receive())
        if isinstance(said[-1], backend.ErrorResponse):
            assert await connection.read_to_end() == b""
        return comparable(said)
    finally:
        connection.abort()


@pytest.mark.parametrize("major", [1, 2])
async def test_older_protocols_are_refused_in_their_own_form(
    server: PostgresServer, trusting: PgsluiceProcess, major: int
) -> None:
    refusals = []
    for address in (direct(server), trusting.address):
        connection = await WireConnection.open(*address)
        await connection.send(StartupMessage(major, 0, {}))
        refusals.append(await connection.read_to_end())
        connection.abort()
    newest = "3.2" if server.programs.major >= 18 else "3.0"
    words = f"unsupported frontend protocol {major}.0: server supports 3.0 to {newest}"
    assert refusals == [f"EFATAL:  {words}\n\0".encode()] * 2


async def test_the_pid_told_is_that_of_a_server_process(
    server: PostgresServer, trusting: PgsluiceProcess
) -> None:
    async with await WireConnection.login(*trusting.address, "trusty") as session:
        assert session.key is not None
        assert str(session.key.pid) == await session.value("SELECT pg_backend_pid()")


# --- other ways to send the same ------------------------------------------------------------------


async def test_statements_right_behind_the_start_up_are_answered(trusting: PgsluiceProcess) -> None:
    connection = await WireConnection.open(*trusting.address)
    startup = StartupMessage(3, 0, {"user": "trusty", "database": "postgres", "geqo_seed": "0.123"})
    await connection.send(startup, frontend.Query(b"SELECT 1"), frontend.Query(b"SHOW geqo_seed"))
    await connection.receive_until(backend.ReadyForQuery)
    assert [
        message.values for message in await connection.receive_until(backend.ReadyForQuery) if is_row(message)
    ] == [(b"1",)]
    assert [
        message.values for message in await connection.receive_until(backend.ReadyForQuery) if is_row(message)
    ] == [(b"0.123",)]
    await connection.close()


async def test_statements_right_behind_the_password_are_answered(with_passwords: PgsluiceProcess) -> None:
    connection = await WireConnection.open(*with_passwords.address)
    await connection.send(
        StartupMessage(3, 0, {"user": "verified", "database": "postgres", "geqo_seed": "0.321"})
    )
    await connection.expect(backend.AuthenticationSASL)
    scram = ScramClient(SECRET)
    await connection.send(frontend.SASLInitialResponse("SCRAM-SHA-256", scram.first()))
    final = scram.step((await connection.expect(backend.AuthenticationSASLContinue)).data)
    assert final is not None
    big = b"SELECT length('" + b"x" * 200_000 + b"')"
    await connection.send(
        frontend.SASLResponse(final), frontend.Query(big), frontend.Query(b"SHOW geqo_seed")
    )
    scram.step((await connection.expect(backend.AuthenticationSASLFinal)).data)
    await connection.receive_until(backend.ReadyForQuery)
    assert [
        message.values for message in await connection.receive_until(backend.ReadyForQuery) if is_row(message)
    ] == [(b"200000",)]
    assert [
        message.values for message in await connection.receive_until(backend.ReadyForQuery) if is_row(message)
    ] == [(b"0.321",)]
    await connection.close()


def is_row(message: Message) -> bool:
    return isinstance(message, backend.DataRow)


async def test_a_log_in_in_single_bytes(with_passwords: PgsluiceProcess) -> None:
    connection = await WireConnection.open(*with_passwords.address)
    await connection.send_in_pieces(
        StartupMessage(3, 0, {"user": "verified", "database": "postgres"}).encode()
    )
    await connection.expect(backend.AuthenticationSASL)
    scram = ScramClient(SECRET)
    await connection.send_in_pieces(frontend.SASLInitialResponse("SCRAM-SHA-256", scram.first()).encode())
    final = scram.step((await connection.expect(backend.AuthenticationSASLContinue)).data)
    assert final is not None
    await connection.send_in_pieces(frontend.SASLResponse(final).encode())
    await connection.receive_until(backend.ReadyForQuery)
    assert await connection.value("SELECT 7") == "7"
    await connection.close()


async def test_a_sasl_initial_response_without_data(
    server: PostgresServer, with_passwords: PgsluiceProcess
) -> None:
    for address in (direct(server), with_passwords.address):
        connection = await WireConnection.open(*address)
        await connection.send(StartupMessage(3, 0, {"user": "verified", "database": "postgres"}))
        await connection.expect(backend.AuthenticationSASL)
        await connection.send(frontend.SASLInitialResponse("SCRAM-SHA-256", None))
        assert await connection.expect(
            backend.AuthenticationSASLContinue
        ) == backend.AuthenticationSASLContinue(b"")
        scram = ScramClient(SECRET)
        await connection.send(frontend.SASLResponse(scram.first()))
        final = scram.step((await connection.expect(backend.AuthenticationSASLContinue)).data)
        assert final is not None
        await connection.send(frontend.SASLResponse(final))
        await connection.receive_until(backend.ReadyForQuery)
        await connection.close()


WRONG_ANSWERS = {
    "query in place of the password": ("verified", frontend.Query(b"SELECT 1")),
    "unknown mechanism": ("verified", frontend.SASLInitialResponse("PLAIN", b"x")),
    "channel binding that was not offered": (
        "verified",
        frontend.SASLInitialResponse("SCRAM-SHA-256-PLUS", b"x"),
    ),
    "malformed SCRAM": ("verified", frontend.SASLInitialResponse("SCRAM-SHA-256", b"nonsense")),
    "empty SCRAM": ("verified", frontend.SASLInitialResponse("SCRAM-SHA-256", b"")),
    "required SCRAM extension": (
        "verified",
        frontend.SASLInitialResponse("SCRAM-SHA-256", b"n,,m=1,n=,r=abc"),
    ),
    "authorization identity": ("verified", frontend.SASLInitialResponse("SCRAM-SHA-256", b"n,a=x,n=,r=abc")),
    "empty password": ("hashed", frontend.PasswordMessage(b"")),
    "password in clear text": ("hashed", frontend.PasswordMessage(MD5_SECRET.encode())),
}


@pytest.mark.parametrize("case", WRONG_ANSWERS)
async def test_wrong_answers_are_refused_in_the_server_s_words(
    server: PostgresServer, with_passwords: PgsluiceProcess, case: str
) -> None:
    user, answer = WRONG_ANSWERS[case]
    refusals = []
    for address in (direct(server), with_passwords.address):
        connection = await WireConnection.open(*address)
        await connection.send(StartupMessage(3, 0, {"user": user, "database": "postgres"}))
        await connection.receive()
        await connection.send(answer)
        refusals.append(comparable([await connection.expect(backend.ErrorResponse)]))
        assert await connection.read_to_end() == b""
        connection.abort()
    assert refusals[1] == refusals[0]


# --- who has to prove what ------------------------------------------------------------------------


@pytest.mark.smoke
async def test_keys_from_a_client_s_proof_log_in_at_the_server(
    server: PostgresServer, tmp_path: Path
) -> None:
    """The proxy has only the verifier, and the server wants SCRAM: the client's proof gives the key."""
    file = tmp_path / "users.txt"
    write_auth_file(file, server)
    assert SECRET not in "".join(line for line in file.read_text().splitlines() if "verified" in line)
    url = f"postgresql://verified@127.0.0.1:{server.port}/postgres"
    with PgsluiceProcess(url, settings={"AUTH__FILE": str(file), "POOL_SIZE": "3"}) as process:
        async with await WireConnection.login(*process.address, "verified", SECRET) as session:
            assert await session.value("SELECT current_user") == "verified"
        sessions = [await WireConnection.login(*process.address, "verified", SECRET) for _ in range(3)]
        for session in sessions:
            await session.query("BEGIN")
        assert {await session.value("SELECT current_user") for session in sessions} == {"verified"}
        for session in sessions:
            await session.close()


async def test_a_changed_verifier_is_refused_by_the_server(server: PostgresServer, tmp_path: Path) -> None:
    """The password is the same, but the server has salted it anew: the key does not fit any more."""
    file = tmp_path / "users.txt"
    server.psql(
        "SET client_min_messages = error; DROP ROLE IF EXISTS moved; CREATE ROLE moved LOGIN PASSWORD 'same'"
    )
    verifier = server.psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'moved'")
    file.write_text(f'"moved" "{verifier}"\n')
    with PgsluiceProcess(server.url(), settings={"AUTH__FILE": str(file)}) as process:
        assert isinstance(
            (await log_in(process.address, "moved", "same", "postgres"))[-1], backend.ReadyForQuery
        )
        server.psql("ALTER ROLE moved PASSWORD 'same'")
        server.psql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'moved'")
        refusal = (await log_in(process.address, "moved", "same", "postgres"))[-1]
        assert isinstance(refusal, backend.ErrorResponse)
        assert (refusal.sqlstate, refusal.message) == (
            "28P01",
            'password authentication failed for user "moved"',
        )


async def test_who_trusts_clients_may_still_have_the_server_s_password(server: PostgresServer) -> None:
    with PgsluiceProcess(server.url(), settings={"AUTH": "trust"}) as process:
        async with await WireConnection.login(*process.address, SUPERUSER) as session:
            assert await session.value("SELECT current_user") == SUPERUSER
        # Of others the proxy knows no password to log in with.
        refusal = (await log_in(process.address, "verified", None, "postgres"))[-1]
        assert isinstance(refusal, backend.ErrorResponse)
        assert refusal.sqlstate == "28P01"


def test_drivers_log_in(with_passwords: PgsluiceProcess) -> None:
    for user, password in ((SUPERUSER, PASSWORD), ("verified", SECRET), ("hashed", MD5_SECRET)):
        url = with_passwords.url(user=user, password=password)
        with psycopg.connect(url, application_name="driver") as connection:
            assert connection.execute("SELECT current_user").fetchone() == (user,)
            assert connection.info.parameter_status("application_name") == "driver"
        with pytest.raises(
            psycopg.OperationalError, match=f'password authentication failed for user "{user}"'
        ):
            psycopg.connect(with_passwords.url(user=user, password=password + "x"))
    with pytest.raises(psycopg.OperationalError, match='database "missing" does not exist'):
        psycopg.connect(with_passwords.url("missing"))


async def test_a_client_that_does_not_go_on_is_put_out(server: PostgresServer) -> None:
    with PgsluiceProcess(server.url(), settings={"CLIENT__LOGIN_TIMEOUT": "0.4"}) as process:
        silent, halfway, quick = [await WireConnection.open(*process.address) for _ in range(3)]
        await halfway.send(StartupMessage(3, 0, {"user": SUPERUSER, "database": "postgres"}))
        await halfway.expect(backend.AuthenticationSASL)
        await quick.startup(SUPERUSER, PASSWORD)
        for connection in (silent, halfway):
            refusal = await connection.expect(backend.ErrorResponse)
            assert (refusal.severity, refusal.sqlstate) == ("FATAL", "08P01")
            assert await connection.read_to_end() == b""
        await asyncio.sleep(0.5)
        assert await quick.value("SELECT 1") == "1"
        await quick.close()


async def test_by_unix_socket(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / ".s.PGSQL.6432"
    with PgsluiceProcess(server.url(user="trusty"), listen=(f"unix:{path}", "127.0.0.1:0")) as process:
        expected = comparable(await log_in(direct(server), "trusty", None, "postgres"))
        assert comparable(await log_in((str(path), 0), "trusty", None, "postgres")) == expected
        with psycopg.connect(
            host=str(path.parent), port=6432, user="trusty", dbname="postgres"
        ) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert process.running
    assert not path.exists()


async def test_a_server_reached_by_unix_socket(server: PostgresServer) -> None:
    with PgsluiceProcess(server.socket_url()) as process:
        async with await WireConnection.login(*process.address, SUPERUSER) as session:
            assert await session.value("SELECT inet_server_addr() IS NULL") == "t"


def test_without_a_password_only_this_machine_is_listened_to(server: PostgresServer) -> None:
    process = PgsluiceProcess(server.url(user="trusty"), listen=("0.0.0.0:0",))
    process.launch()
    assert process.wait() == 2
    assert len(process.lines) == 1
    assert "0.0.0.0:0" in process.lines[0]
    assert 'auth = "trust"' in process.lines[0]
    with PgsluiceProcess(
        server.url(user="trusty"), listen=("0.0.0.0:0",), settings={"AUTH": "trust"}
    ) as trusted:
        assert trusted.ready["listen"][0].startswith("0.0.0.0:")
