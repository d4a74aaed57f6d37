"""Dialogues message by message, with PostgreSQL and through the proxy, in a form to read and compare."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from difflib import ndiff
from urllib.parse import urlsplit

from support.postgres import PASSWORD, SUPERUSER
from support.proxy import PgsluiceProcess
from support.wire import Encodable, WireConnection

from protocol.messages import backend
from protocol.messages.codec import CopyData, Message
from protocol.messages.frontend import Bind, Close, Describe, Execute, Sync
from protocol.types import BackendTag, Target
from proxy.demo.embedded import PostgresServer

Side = PostgresServer | PgsluiceProcess
"""Whom a client connects to."""

Open = Callable[..., Awaitable[WireConnection]]
"""Opens another client of the story's side; keywords are start-up parameters."""

Story = Callable[[Open], Awaitable[list[str]]]
"""What happens, and what the clients were told meanwhile."""


def database_of(side: Side) -> str:
    """The database of the connection string that the side was given."""
    return urlsplit(side.primary or "").path[1:] if isinstance(side, PgsluiceProcess) else "postgres"


async def login(side: Side, database: str | None = None, **parameters: str) -> WireConnection:
    database = database or database_of(side)
    return await WireConnection.login("127.0.0.1", side.port, SUPERUSER, PASSWORD, database, **parameters)


async def same(story: Story, direct: PostgresServer, proxied: PgsluiceProcess) -> list[str]:
    """Plays the story with the server and through the proxy: what is told must be the same. Returns it."""
    expected = await play(story, direct)
    told = await play(story, proxied)
    if told != expected:
        lines = ndiff(expected, told)
        raise AssertionError("told directly (-) and through the proxy (+):\n" + "\n".join(lines))
    return told


async def play(story: Story, side: Side) -> list[str]:
    """Plays the story with one side; its clients are gone afterwards."""
    clients: list[WireConnection] = []

    async def opened(**parameters: str) -> WireConnection:
        client = await login(side, **parameters)
        clients.append(client)
        return client

    try:
        return await story(opened)
    finally:
        for client in clients:
            await client.close()


@asynccontextmanager
async def busy(*occupants: WireConnection) -> AsyncIterator[None]:
    """The occupants are inside transactions: each holds a server of the pool, the first the one last used."""
    for occupant in occupants:
        await occupant.query("BEGIN")
    yield
    for occupant in occupants:
        await occupant.query("ROLLBACK")


async def pid(client: WireConnection) -> int:
    """The process that serves the client at the moment."""
    return int(await client.value("SELECT pg_backend_pid()") or 0)


# --- what is said -----------------------------------------------------------------------------------


async def ask(client: WireConnection, *messages: Encodable) -> list[str]:
    """Sends the messages and a Sync in one write: the answer up to ReadyForQuery."""
    await client.send(*messages, Sync())
    return await answer(client)


async def say(client: WireConnection, sql: str | bytes) -> list[str]:
    """A simple query and its answer."""
    return tell(await client.query(sql))


async def answer(client: WireConnection, count: int = 1) -> list[str]:
    """What comes up to the `count`-th ReadyForQuery."""
    told: list[str] = []
    for _ in range(count):
        told += tell(await client.receive_until(backend.ReadyForQuery))
    return told


def run(statement: bytes, *parameters: bytes | None, rows: int = 0) -> tuple[Bind, Execute]:
    """Bind and Execute of a prepared statement, in text."""
    return Bind(b"", statement, (), parameters, ()), Execute(b"", rows)


def describe(statement: bytes) -> Describe:
    return Describe(Target.STATEMENT, statement)


def close(statement: bytes) -> Close:
    return Close(Target.STATEMENT, statement)


# --- what is answered -------------------------------------------------------------------------------


def tell(messages: Iterable[Message]) -> list[str]:
    """One line a message: its tag and what it says, without what differs from server to server."""
    return [_line(message) for message in messages]


def _line(message: Message) -> str:
    tag = chr(BackendTag(message.TAG))
    match message:
        case backend.ErrorResponse(fields) | backend.NoticeResponse(fields):
            wording = "".join(f" {kind}={text}" for kind, text in fields.items() if kind not in "SVCMFLR")
            return f"{tag} {fields['V']} {fields['C']} {fields['M']}{wording}"
        case backend.RowDescription(fields):
            # (without the tables' object ids)
            return f"{tag} " + " ".join(
                f"{_text(each.name)}:{each.type_oid}:{each.format}" for each in fields
            )
        case backend.DataRow(values):
            return f"{tag} " + "|".join("NULL" if value is None else _text(value) for value in values)
        case backend.CommandComplete(command):
            return f"{tag} {_text(command)}"
        case backend.ReadyForQuery(status):
            return f"{tag} {chr(status)}"
        case backend.ParameterDescription(types):
            return f"{tag} {' '.join(map(str, types))}"
        case backend.ParameterStatus(name, value):
            return f"{tag} {name}={value}"
        case backend.NotificationResponse(_, channel, payload):
            return f"{tag} {_text(channel)} {_text(payload)}"
        case backend.FunctionCallResponse(value):
            return f"{tag} {'NULL' if value is None else _text(value)}"
        case CopyData(data):
            return f"{tag} {_text(data)}"
        case _:
            return tag


def _text(value: bytes | memoryview) -> str:
    return bytes(value).decode(errors="backslashreplace")
