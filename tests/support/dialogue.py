"""Protocol messages written as short words, so that a test reads like the conversation it is about.

What a server says is a line of its tags: ``1 2 T D C Z``. A word may go on with what matters in it::

    C:INSERT-0-5    CommandComplete (a blank is written -; SELECT 1 when nothing is said)
    E:42P01         ErrorResponse with that SQLSTATE, E:FATAL-57P01 one that ends the connection
    Z:T             ReadyForQuery inside a transaction (Z:E failed; idle when nothing is said)
    D:abc  d:abc    a row with one column, COPY data
    S:name=value  N:text  A:channel
"""

from collections.abc import Iterator

from protocol.messages import backend, frontend
from protocol.messages.codec import CopyData, CopyDone, Message
from protocol.types import Target, TransactionStatus

_PLAIN: dict[str, Message] = {
    "1": backend.ParseComplete(),
    "2": backend.BindComplete(),
    "3": backend.CloseComplete(),
    "n": backend.NoData(),
    "I": backend.EmptyQueryResponse(),
    "s": backend.PortalSuspended(),
    "c": CopyDone(),
    "t": backend.ParameterDescription(()),
    "T": backend.RowDescription((backend.FieldDescription(b"column", 0, 0, 25, -1, -1, 0),)),
    "G": backend.CopyInResponse(0, (0,)),
    "H": backend.CopyOutResponse(0, (0,)),
    "V": backend.FunctionCallResponse(b"result"),
}


def said(word: str) -> bytes:
    """One word of a server, encoded."""
    tag, _, what = word.partition(":")
    return _backend_message(tag, what).encode()


def say(line: str) -> bytes:
    """A line of a server's words, encoded."""
    return b"".join(said(word) for word in line.split())


def _backend_message(tag: str, what: str) -> Message:
    match tag:
        case "C":
            return backend.CommandComplete((what or "SELECT-1").replace("-", " ").encode())
        case "Z":
            return backend.ReadyForQuery(TransactionStatus(ord(what or "I")))
        case "D":
            return backend.DataRow((what.encode(),))
        case "d":
            return CopyData(what.encode())
        case "E":
            severity, _, sqlstate = what.rpartition("-")
            return backend.ErrorResponse.of(severity or "ERROR", sqlstate or "XX000", "it went wrong")
        case "N":
            return backend.NoticeResponse({"S": "NOTICE", "V": "NOTICE", "C": "00000", "M": what})
        case "A":
            return backend.NotificationResponse(1, what.encode(), b"")
        case "S":
            return backend.ParameterStatus(*what.split("="))
        case _:
            assert not what, f"nothing can be said with {tag}"
            return _PLAIN[tag]


def heard(stream: bytes) -> str:
    """What a server said, as a line of words: tags only, but for SQLSTATEs and ReadyForQuery's status other
    than idle.
    """
    return " ".join(_word(tag, body) for tag, body in messages(stream))


def _word(tag: int, body: bytes) -> str:
    message = backend.decode_backend(tag, body)
    match message:
        case backend.ErrorResponse():
            fatal = "FATAL-" if message.severity == "FATAL" else ""
            return f"E:{fatal}{message.sqlstate}"
        case backend.ReadyForQuery(status) if status is not TransactionStatus.IDLE:
            return f"Z:{chr(status)}"
        case _:
            return chr(tag)


def asked(stream: bytes) -> list[str]:
    """What a client sent, a short text each: ``Parse s: select 1``, ``Bind s``, ``Execute``, ``Sync``."""
    return [_request(frontend.decode_frontend(tag, body)) for tag, body in messages(stream)]


def _request(message: Message) -> str:
    match message:
        case frontend.Query(sql):
            text = sql.decode()
        case frontend.Parse(name, query):
            return (f"Parse {name.decode()}".strip() + f": {query.decode()}").strip()
        case frontend.Bind(portal, statement):
            text = statement.decode() + (f" as {portal.decode()}" if portal else "")
        case frontend.Describe(kind, name) | frontend.Close(kind, name):
            text = ("portal " if kind is Target.PORTAL else "") + name.decode()
        case frontend.Execute(portal):
            text = portal.decode()
        case CopyData(data):
            text = data.decode()
        case _:
            text = ""
    return f"{type(message).__name__} {text}".strip()


def messages(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and body of each message; the stream must end with the last one's end."""
    at = 0
    while at < len(stream):
        length = int.from_bytes(stream[at + 1 : at + 5])
        assert 4 <= length <= len(stream) - at - 1, f"no whole message at {at}: {stream[at : at + 40]!r}"
        yield stream[at], stream[at + 5 : at + 1 + length]
        at += 1 + length


# --- what clients send ------------------------------------------------------------------------------


def query(sql: str) -> bytes:
    return frontend.Query(sql.encode()).encode()


def parse(name: str, sql: str) -> bytes:
    return frontend.Parse(name.encode(), sql.encode()).encode()


def bind(name: str, portal: str = "") -> bytes:
    return frontend.Bind(portal.encode(), name.encode()).encode()


def describe(name: str) -> bytes:
    return frontend.Describe(Target.STATEMENT, name.encode()).encode()


def describe_portal(name: str = "") -> bytes:
    return frontend.Describe(Target.PORTAL, name.encode()).encode()


def execute(portal: str = "") -> bytes:
    return frontend.Execute(portal.encode()).encode()


def close(name: str) -> bytes:
    return frontend.Close(Target.STATEMENT, name.encode()).encode()


def close_portal(name: str = "") -> bytes:
    return frontend.Close(Target.PORTAL, name.encode()).encode()


def copy_data(data: bytes) -> bytes:
    return CopyData(data).encode()


def copy_fail(reason: str = "no more") -> bytes:
    return frontend.CopyFail(reason.encode()).encode()


def function_call() -> bytes:
    return frontend.FunctionCall(1).encode()


SYNC = frontend.Sync().encode()
FLUSH = frontend.Flush().encode()
TERMINATE = frontend.Terminate().encode()
COPY_DONE = CopyDone().encode()


def one_shot(sql: str) -> bytes:
    """A statement without a name, from Parse to Sync in one go."""
    return parse("", sql) + bind("") + execute() + SYNC
