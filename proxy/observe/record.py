"""What is known of one statement: its shape (`Fingerprint`) and its measurements (`QueryRecord`)."""


class Fingerprint:
    """The shape of a statement: its text without literals, and an id that is the same in every process.

    `id` is an unsigned 64-bit number, `text` the normalised statement (bounded, for people to read).
    `slot` belongs to `QueryStatistics`, which keeps its entry there so that recording needs no dictionary.
    """

    __slots__ = ("id", "slot", "text")

    def __init__(self, id: int, text: str) -> None:  # noqa: A002
        self.id = id
        self.text = text
        self.slot: object | None = None

    def __repr__(self) -> str:
        return f"Fingerprint({self.id:016x}, {self.text!r})"


class QueryRecord:
    """The measurements of one statement.

    Times are in seconds. `started` is `clock.now()` at the first byte of the statement; `wait` is
    the part of `total` spent waiting for a server connection, `server` the part the server needed.
    `bytes_in` came from the client, `bytes_out` went to it. `sqlstate` is empty for success.
    `in_transaction` tells whether the statement was sent inside a transaction block. The relay fills in what
    is not known at the start.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "database",
        "fingerprint",
        "in_transaction",
        "rows",
        "server",
        "server_pid",
        "sqlstate",
        "started",
        "total",
        "user",
        "wait",
    )

    def __init__(
        self,
        fingerprint: Fingerprint,
        user: str,
        database: str,
        started: float,
        bytes_in: int,
        in_transaction: bool,
    ) -> None:
        self.fingerprint = fingerprint
        self.user = user
        self.database = database
        self.started = started
        self.wait = 0.0
        self.server = 0.0
        self.total = 0.0
        self.rows = 0
        self.bytes_in = bytes_in
        self.bytes_out = 0
        self.sqlstate = ""
        self.server_pid = 0
        self.in_transaction = in_transaction

    def __repr__(self) -> str:
        return (
            f"QueryRecord({self.fingerprint.text!r}, user={self.user!r}, database={self.database!r}, "
            f"wait={self.wait:.6f}, server={self.server:.6f}, total={self.total:.6f}, rows={self.rows}, "
            f"bytes_in={self.bytes_in}, bytes_out={self.bytes_out}, sqlstate={self.sqlstate!r}, "
            f"server_pid={self.server_pid}, in_transaction={self.in_transaction})"
        )
