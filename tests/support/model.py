"""A model of a PostgreSQL session at the protocol's level: what it answers to any bytes a client may send.

It knows just enough SQL to tell statements apart: ``begin``, ``commit``, ``rollback``, ``copy``, ``bad`` (a
syntax error), ``fail`` (an error while it runs), DEALLOCATE and DISCARD ALL; anything else returns its own
text as a row, so that it shows which statement was really run. A simple query may hold several statements,
parted by ``;``.
"""

from support.dialogue import messages, said

from protocol.messages import frontend
from protocol.messages.backend import DataRow
from protocol.messages.codec import Message
from protocol.types import FrontendTag, Target


class _Failed(Exception):
    """An ErrorResponse with this SQLSTATE."""


class ModelServer:
    """`answer` takes what a client sends, in whatever pieces; `closed` after Terminate or a fatal error."""

    def __init__(self) -> None:
        self.closed = False
        self.statements: dict[bytes, bytes] = {}
        self._portals: dict[bytes, bytes] = {}
        self._status = "I"
        self._skipping = False
        self._copy: list[bytes] | None = None
        self._copy_simple = False
        self._input = b""
        self._output = b""

    @property
    def clean(self) -> bool:
        """Whether somebody else could go on here: no message begun, nothing to skip, no transaction."""
        return not self._input and not self._skipping and self._copy is None and self._status == "I"

    def answer(self, data: bytes) -> bytes:
        self._input += data
        while not self.closed and len(self._input) >= 5:
            end = 1 + int.from_bytes(self._input[1:5])
            if len(self._input) < end:
                break
            ((tag, body),) = messages(self._input[:end])
            self._input = self._input[end:]
            self._read(tag, body)
        output, self._output = self._output, b""
        return output

    def _say(self, *words: str) -> None:
        self._output += b"".join(map(said, words))

    def _read(self, tag: int, body: bytes) -> None:
        if self._copy is not None:
            self._read_in_copy(tag, body)
            return
        if tag == FrontendTag.TERMINATE:
            self.closed = True
        elif tag == FrontendTag.SYNC:
            self._skipping = False
            self._ready()
        elif self._skipping or tag in (FrontendTag.COPY_DATA, FrontendTag.COPY_DONE, FrontendTag.COPY_FAIL):
            return
        else:
            try:
                self._carry_out(frontend.decode_frontend(tag, body))
            except _Failed as failed:
                self._fail(str(failed), simple=tag in (FrontendTag.QUERY, FrontendTag.FUNCTION_CALL))

    def _fail(self, sqlstate: str, *, simple: bool) -> None:
        self._say(f"E:{sqlstate}")
        self._portals.clear()
        self._status = "I" if self._status == "I" else "E"
        if simple:
            self._ready()
        else:
            self._skipping = True

    def _ready(self) -> None:
        if self._status == "I":
            self._portals.clear()
        self._say(f"Z:{self._status}")

    # --- messages -----------------------------------------------------------------------------------

    def _carry_out(self, message: Message) -> None:
        match message:
            case frontend.Query(sql):
                self.statements.pop(b"", None)
                self._portals.pop(b"", None)
                if b"bad" in sql:
                    raise _Failed("42601")
                self._run_all([part.strip() for part in sql.split(b";") if part.strip()] or [b""])
            case frontend.Parse(name, sql):
                self._parse(name, sql)
            case frontend.Bind(portal, name):
                self._bind(portal, name)
            case frontend.Describe(Target.STATEMENT, name):
                sql = self._known(self.statements, name, "26000")
                self._say("t", "T" if _has_rows(sql) else "n")
            case frontend.Describe(_, name):
                self._say("T" if _has_rows(self._known(self._portals, name, "34000")) else "n")
            case frontend.Execute(portal):
                sql = self._known(self._portals, portal, "34000")
                if sql == b"copy":
                    del self._portals[portal]  # it can't be run twice
                self._run(sql, simple=False)
            case frontend.Close(kind, name):
                (self.statements if kind is Target.STATEMENT else self._portals).pop(name, None)
                self._say("3")
            case frontend.FunctionCall():
                self._check(b"function call")
                self._say("V")
                self._ready()

    def _known(self, where: dict[bytes, bytes], name: bytes, sqlstate: str) -> bytes:
        if name not in where:
            raise _Failed(sqlstate)
        return where[name]

    def _check(self, sql: bytes) -> None:
        """In a failed transaction nothing goes but its end."""
        if self._status == "E" and sql not in (b"commit", b"rollback", b""):
            raise _Failed("25P02")

    def _parse(self, name: bytes, sql: bytes) -> None:
        if not name:
            self.statements.pop(b"", None)
        if b"bad" in sql:
            raise _Failed("42601")
        self._check(sql)
        if name and name in self.statements:
            raise _Failed("42P05")
        self.statements[name] = sql
        self._say("1")

    def _bind(self, portal: bytes, name: bytes) -> None:
        sql = self._known(self.statements, name, "26000")
        self._check(sql)
        if portal and portal in self._portals:
            raise _Failed("42P03")
        self._portals[portal] = sql
        self._say("2")

    # --- statements ---------------------------------------------------------------------------------

    def _run_all(self, statements: list[bytes]) -> None:
        """The statements of a simple query, and its end; the rest waits when one of them copies."""
        while statements:
            sql = statements.pop(0)
            self._run(sql, simple=True)
            if self._copy is not None:
                self._copy = statements
                return
        self._ready()

    def _run(self, sql: bytes, *, simple: bool) -> None:
        self._check(sql)
        command, _, what = sql.partition(b" ")
        match command:
            case b"":
                self._say("I")
            case b"begin":
                self._status = "T"
                self._say("C:BEGIN")
            case b"commit" | b"rollback":
                self._say("C:ROLLBACK" if self._status == "E" or command == b"rollback" else "C:COMMIT")
                self._status = "I"
                self._portals.clear()
            case b"fail":
                raise _Failed("22012")
            case b"copy":
                self._copy, self._copy_simple = [], simple
                self._say("G")
            case b"DEALLOCATE" if what == b"ALL":
                self._drop_all()
                self._say("C:DEALLOCATE-ALL")
            case b"DEALLOCATE":
                self._known(self.statements, what, "26000")
                del self.statements[what]
                self._say("C:DEALLOCATE")
            case b"DISCARD":
                if self._status != "I":
                    raise _Failed("25001")
                self._drop_all()
                self._say("C:DISCARD-ALL")
            case _:
                if simple:
                    self._say("T")
                self._output += DataRow((sql,)).encode()
                self._say("C")

    def _drop_all(self) -> None:
        """Named statements only: the unnamed one stays."""
        self.statements = {name: sql for name, sql in self.statements.items() if not name}

    def _read_in_copy(self, tag: int, body: bytes) -> None:
        assert self._copy is not None
        match tag:
            case FrontendTag.COPY_DATA if b"bad" in body:
                self._end_copy("22P04")
            case FrontendTag.COPY_FAIL:
                self._end_copy("57014")
            case FrontendTag.COPY_DONE:
                rest, self._copy = self._copy, None
                self._say("C:COPY-1")
                if self._copy_simple:
                    try:
                        self._run_all(rest)
                    except _Failed as failed:
                        self._fail(str(failed), simple=True)
            case FrontendTag.COPY_DATA | FrontendTag.SYNC | FrontendTag.FLUSH:
                pass
            case _:
                # The server has not read the message's body and can't find its way any more.
                self._say("E:FATAL-08P01")
                self.closed = True

    def _end_copy(self, sqlstate: str) -> None:
        self._copy = None
        self._fail(sqlstate, simple=self._copy_simple)


def _has_rows(sql: bytes) -> bool:
    return sql.partition(b" ")[0] not in (
        b"",
        b"begin",
        b"commit",
        b"rollback",
        b"copy",
        b"DEALLOCATE",
        b"DISCARD",
    )
