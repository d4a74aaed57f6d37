"""The pipeline beside a server that follows PostgreSQL's rules: they agree on every message.

The model knows nothing of the pipeline: it reads requests one by one as `PostgresMain` does and says what
that would say. Requests, answers and the reading of both are interleaved at random, so that each side runs
ahead of the other in every way. What a request comes to (rows, an error, COPY) is decided when it is made.
"""

from collections import deque
from dataclasses import dataclass, field

from hypothesis import event, given, settings
from hypothesis import strategies as st

from protocol.pipeline import FAKE, FORWARD, IDLE, SKIP, Reply, ReplyPipeline


@dataclass
class Request:
    """`outcome` of a Query or Execute: words of ok, error, copy, copy-error (in the middle), suspended."""

    kind: str
    outcome: tuple[str, ...] = ("ok",)
    action: int = FORWARD
    number: int = 0
    status: int = IDLE


@dataclass
class Message:
    """What the server said: a tag and the request that it answers."""

    tag: str
    request: Request
    status: int = 0


@dataclass
class Server:
    """`asked` it has not read yet, `said` nobody has read yet; `open`: no Sync has ended what was done."""

    asked: deque[Request] = field(default_factory=deque)
    said: deque[Message] = field(default_factory=deque)
    skipping: bool = False
    open: bool = False
    copying: tuple[Request, list[str]] | None = None
    status: int = IDLE

    def read(self) -> None:
        """Reads one request and answers it."""
        request = self.asked.popleft()
        if self.copying is not None:
            self._read_in_copy(request)
        elif request.kind == "S":
            self.skipping = False
            if request.outcome == ("error",):
                self._say("E", request)
            self._ready(request)
        elif self.skipping or request.kind in "cdH":
            pass
        elif request.kind == "Q":
            self._statements(request, list(request.outcome))
        elif request.kind == "F":
            self._say("E" if request.outcome == ("error",) else "V", request)
            self._ready(request)
        else:
            self.open = True
            self._extended(request)

    def _read_in_copy(self, request: Request) -> None:
        """CopyGetData: Sync and Flush go by; what else may come is data and their end."""
        assert self.copying is not None
        copy, rest = self.copying
        assert request.kind in "cdHS", f"the client sends {request.kind} in the middle of COPY data"
        if request.kind == "d" and request.outcome == ("error",):
            self.copying = None
            self._failed(copy)
        elif request.kind == "c":
            self.copying = None
            if request.outcome == ("error",):
                self._failed(copy)
            else:
                self._say("C", copy)
                if copy.kind == "Q":
                    self._statements(copy, rest)

    def _statements(self, query: Request, outcome: list[str]) -> None:
        while outcome:
            what = outcome.pop(0)
            if what == "copy":
                self._say("G", query)
                self.copying = (query, outcome)
                return
            if what == "error":
                self._failed(query)
                return
            for tag in {"ok": "TC", "out": "HcC", "empty": "I"}[what]:
                self._say(tag, query)
        self._ready(query)

    def _extended(self, request: Request) -> None:
        (what,) = request.outcome
        if what == "error":
            self._failed(request)
        elif what == "copy":
            self._say("G", request)
            self.copying = (request, [])
        else:
            answers = {"P": "1", "B": "2", "C": "3", "D": "tT"}
            for tag in {"out": "HcC", "suspended": "s", "empty": "I"}.get(what) or answers.get(
                request.kind, "C"
            ):
                self._say(tag, request)

    def _failed(self, request: Request) -> None:
        self._say("E", request)
        if request.kind == "Q":
            self._ready(request)
        else:
            self.skipping = True

    def _ready(self, request: Request) -> None:
        self.open = False
        self.status = request.status
        self._say("Z", request, request.status)

    def _say(self, tag: str, request: Request, status: int = 0) -> None:
        self.said.append(Message(tag, request, status))

    @property
    def idle(self) -> bool:
        # (Flush, and COPY data where there is no COPY, mean nothing to it.)
        unread = [request for request in self.asked if request.kind not in "cdH"]
        return not (unread or self.said or self.skipping or self.open or self.copying)


class Proxy:
    """Relays between a client and the model, and keeps the accounts: a request is settled in one way."""

    def __init__(self) -> None:
        self.pipeline = ReplyPipeline()
        self.server = Server()
        self.sent: list[Request] = []
        self.settled: list[int] = []
        self.not_due: set[int] = set()

    def send(self, request: Request) -> None:
        request.number = len(self.sent)
        self.sent.append(request)
        if request.kind not in "dH":
            reply = Reply(ord(request.kind), request.action, "the client")
            reply.piece = request.number
            if not self.pipeline.add(reply):
                self.not_due.add(request.number)
        if request.action != FAKE:
            self.server.asked.append(request)
        self.fakes()
        self.check()

    def receive(self) -> None:
        message = self.server.said.popleft()
        pipeline = self.pipeline
        head = pipeline.head()
        assert head is not None, f"{message} when nothing is due"
        assert head.piece == message.request.number, f"{message} is taken for an answer to {head.piece}"
        verdict = pipeline.answer(ord(message.tag), message.status)
        slipped_in = message.request.action == SKIP and message.tag != "E"
        assert verdict == (SKIP if slipped_in else FORWARD)
        if pipeline.done is not None:
            self.settled.append(pipeline.done.piece)
        if pipeline.failed is not None:
            assert pipeline.dropped is not None
            self.settled += [pipeline.failed.piece, *(reply.piece for reply in pipeline.dropped)]
        if message.tag == "Z":
            assert pipeline.status == message.status
        self.fakes()
        self.check()

    def fakes(self) -> None:
        while (fake := self.pipeline.next_fake()) is not None:
            self.settled.append(fake.piece)

    def check(self) -> None:
        assert self.settled == sorted(set(self.settled)), "settled out of order, or twice"
        assert not self.not_due & set(self.settled)
        if self.pipeline.idle:
            assert self.server.idle, "the server is given away although it is not idle"

    def finish(self) -> None:
        while self.server.asked or self.server.said:
            if self.server.asked:
                self.server.read()
            else:
                self.receive()


EXTENDED = st.one_of(
    st.builds(
        Request,
        st.sampled_from("PBDC"),
        st.sampled_from([("ok",)] * 5 + [("error",)]),
        st.sampled_from([FORWARD, FORWARD, SKIP]),
    ),
    st.builds(Request, st.just("C"), action=st.just(FAKE)),
    st.builds(
        Request, st.just("E"), st.sampled_from([("ok",), ("suspended",), ("empty",), ("out",), ("error",)])
    ),
    st.builds(Request, st.just("H")),
).map(lambda request: [request])
STATUS = st.sampled_from([ord(status) for status in "ITE"])
SYNC = st.builds(Request, st.just("S"), st.sampled_from([("ok",)] * 5 + [("error",)]), status=STATUS)
OUTCOMES = st.lists(st.sampled_from(["ok", "ok", "empty", "out", "error"]), max_size=3).map(
    lambda words: tuple(words) or ("empty",)
)
SIMPLE = st.one_of(
    st.builds(Request, st.just("Q"), OUTCOMES, status=STATUS),
    st.builds(Request, st.just("F"), st.sampled_from([("ok",), ("error",)]), status=STATUS),
).map(lambda request: [request])


@st.composite
def copies(draw: st.DrawFn) -> list[Request]:
    """A statement that copies in, its data and their end; behind an Execute there may be a Sync too early."""
    data = draw(st.lists(st.sampled_from([("ok",), ("ok",), ("error",)]), max_size=3))
    end = Request("c", draw(st.sampled_from([("ok",), ("ok",), ("error",)])))
    copy = [*(Request("d", outcome) for outcome in data), end]
    if draw(st.booleans()):
        return [Request("Q", draw(st.sampled_from([("copy",), ("ok", "copy"), ("copy", "ok")]))), *copy]
    early = [Request("S")] if draw(st.booleans()) else []
    return [Request("E", ("copy",)), *early, *copy]


STEPS = st.lists(
    st.one_of(EXTENDED, EXTENDED, EXTENDED, SYNC.map(lambda sync: [sync]), SIMPLE, copies()), max_size=14
)
MOVES = st.lists(st.integers(0, 2), max_size=120)


@settings(max_examples=400)
@given(STEPS, MOVES)
def test_whatever_is_asked_is_accounted_for(steps: list[list[Request]], moves: list[int]) -> None:
    proxy = Proxy()
    waiting = deque(request for step in steps for request in step)
    moves = list(moves)
    while waiting:
        move = moves.pop() if moves else 0
        if move == 1 and proxy.server.asked:
            proxy.server.read()
        elif move == 2 and proxy.server.said:
            proxy.receive()
        else:
            request = waiting.popleft()
            proxy.send(request)
            if request.kind == "E" and waiting and waiting[0].kind == "S":
                proxy.send(waiting.popleft())  # a client that sends Sync too early does so in one go
    proxy.finish()
    proxy.send(Request("S"))
    proxy.finish()
    pipeline = proxy.pipeline
    assert (len(pipeline), pipeline.idle, pipeline.skipping, pipeline.status) == (0, True, False, IDLE)
    assert proxy.server.idle
    # Only what ends COPY data, or a Sync among them, is settled without a word.
    silent = set(range(len(proxy.sent))) - set(proxy.settled) - proxy.not_due
    assert {proxy.sent[number].kind for number in silent} <= set("cdHS")
    event(f"{len(proxy.sent) // 10 * 10} requests or more")
