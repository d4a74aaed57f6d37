"""Several clients through one small pool, beside each of them alone with a server: they are told the same.

The servers are models (`support.model`) that show which statement was really run. What clients send is cut
anywhere, and who has his turn is drawn, so that everything meets everything.
"""

import random
from collections import deque
from dataclasses import dataclass

from hypothesis import given, note, settings
from hypothesis import strategies as st
from support.dialogue import (
    COPY_DONE,
    FLUSH,
    SYNC,
    TERMINATE,
    asked,
    bind,
    close,
    close_portal,
    copy_data,
    copy_fail,
    describe,
    describe_portal,
    execute,
    function_call,
    heard,
    one_shot,
    parse,
    query,
)
from support.model import ModelServer
from support.relay import Backend, Client, HeldLink, Stage

from protocol.messages.backend import ErrorResponse

NAMES = st.sampled_from(["", "", "a", "b"])
PORTALS = st.sampled_from(["", "", "", "p"])
STATEMENTS = [
    "select 1",
    "select 1",
    "select 2",
    "select 3",
    "bad",
    "fail",
    "begin",
    "commit",
    "rollback",
    "",
]
TEXTS = st.sampled_from(STATEMENTS)
SIMPLE = st.one_of(
    TEXTS,
    TEXTS,
    st.sampled_from(["begin; select 4", "select 5; fail; select 6", "DISCARD ALL", "DEALLOCATE ALL"]),
)

EXTENDED = st.one_of(
    st.builds(parse, NAMES, TEXTS),
    st.builds(bind, NAMES, PORTALS),
    st.builds(describe, NAMES),
    st.builds(describe_portal, PORTALS),
    st.builds(execute, PORTALS),
    st.builds(close, NAMES),
    st.builds(close_portal, PORTALS),
    st.just(FLUSH),
)
UNITS = st.one_of(
    st.builds(query, SIMPLE),
    st.builds(lambda name, sql: parse(name, sql) + bind(name) + execute(), NAMES, TEXTS),
    st.builds(lambda name: bind(name) + execute(), NAMES),
    EXTENDED,
    st.just(SYNC),
    st.just(SYNC),
    st.just(SYNC + one_shot("DEALLOCATE ALL")),
    st.just(function_call()),
)


@st.composite
def copies(draw: st.DrawFn) -> bytes:
    """A statement that copies in; a server that does not get that far skips all of it."""
    data = b"".join(draw(st.lists(st.sampled_from([copy_data(b"x" * 30), copy_data(b"bad")]), max_size=3)))
    data += draw(st.sampled_from([COPY_DONE, COPY_DONE, copy_fail()]))
    if draw(st.booleans()):
        return query(draw(st.sampled_from(["copy", "copy; select 7"]))) + data
    early = draw(st.sampled_from([b"", SYNC]))
    if draw(st.booleans()):
        return SYNC + parse("c", "copy") + bind("c") + execute() + early + data + close("c") + SYNC
    copy = parse("", "copy") + bind("") + execute() + early + data + SYNC
    return copy + parse("", "select 8") + SYNC  # (else it could be executed again, without its data)


SCRIPTS = st.lists(st.one_of(UNITS, UNITS, UNITS, copies()), max_size=10).map(
    lambda parts: b"".join(parts) + SYNC + TERMINATE
)


@dataclass
class Talker:
    """A client with what it still has to send, and what it was told."""

    client: Client
    unsent: deque[bytes]
    breaks_off: bool
    told: bytes = b""
    lost_server: bool = False

    def goes_on(self) -> None:
        if not self.client.gone and not self.client.link.paused:
            if self.unsent:
                self.client.sends(self.unsent.popleft())
            elif self.breaks_off:
                self.client.breaks_off()
        self.told += self.client.link.take()

    @property
    def done(self) -> bool:
        return self.client.gone or not (self.unsent or self.breaks_off)


class Theatre:
    """Lets clients and servers have their turns in an order that is drawn from `seed`."""

    def __init__(self, stage: Stage, scripts: list[bytes], seed: int) -> None:
        self.stage = stage
        self.random = random.Random(seed)
        self.chokes = self.random.choice([0.0, 0.0, 0.1])
        self.losses = self.random.choice([0.0, 0.0, 0.05])
        self.models: dict[int, ModelServer] = {}
        self.unread: dict[int, bytes] = {}
        self.talkers = [self._talker(number, script) for number, script in enumerate(scripts)]

    def _talker(self, number: int, script: bytes) -> Talker:
        breaks_off = number > 0 and self.random.random() < 0.3
        if breaks_off:
            script = script[: self.random.randint(0, len(script))]
        chunks = deque(_cut(script, self.random))
        return Talker(self.stage.client(), chunks, breaks_off)

    def play(self) -> None:
        quiet = 0
        while quiet < 50:
            before = self._progress()
            talkers = [talker for talker in self.talkers if not talker.done]
            backends = [backend for backend in self.stage.backends if not backend.link.closed]
            if quiet == 40:
                self._all_go_on(backends)
            else:
                self._one_goes_on(self.random.choice([*talkers, *backends, None]))
            quiet = 0 if self._progress() != before else quiet + 1
        for talker in self.talkers:
            talker.told += talker.client.link.take()

    def _one_goes_on(self, who: Talker | Backend | None) -> None:
        what = self.random.random()
        if who is None:
            return
        if what < self.chokes:
            self._choke(who.client.link if isinstance(who, Talker) else who.link)
        elif isinstance(who, Talker):
            who.goes_on()
        elif what > 1 - self.losses:
            self._lose(who)
        else:
            self._serves(who)

    def _all_go_on(self, backends: list[Backend]) -> None:
        """Nobody has done anything for a while: now nobody is kept from it."""
        for link in [talker.client.link for talker in self.talkers] + [backend.link for backend in backends]:
            if link.choking:
                self._choke(link)
        for talker in self.talkers:
            talker.goes_on()
        for backend in backends:
            self._serves(backend, everything=True)

    def _choke(self, link: HeldLink) -> None:
        """A connection's other end stops reading, or reads again."""
        if link.choking:
            link.resume_writing()
        elif not link.closed:
            link.pause_writing()

    def _lose(self, backend: Backend) -> None:
        self.losses = 0.0
        for talker in self.talkers:
            talker.lost_server |= talker.client.session.server is backend.connection
        backend.hangs_up()

    def _progress(self) -> tuple[int, ...]:
        return (
            *(
                len(talker.unsent) + len(talker.told) + len(talker.client.link.written)
                for talker in self.talkers
            ),
            *(talker.client.gone for talker in self.talkers),
            *(len(unread) for unread in self.unread.values()),
            *(len(backend.link.written) for backend in self.stage.backends),
        )

    def _serves(self, backend: Backend, *, everything: bool = False) -> None:
        """The server reads what it was sent and answers, or some more of its answer arrives."""
        if backend.link.closed:
            return
        model = self.models.setdefault(backend.pid, ModelServer())
        unread = self.unread.get(backend.pid, b"") + model.answer(backend.link.take())
        size = len(unread) if everything else self.random.randint(0, len(unread))
        if backend.link.paused:
            size = 0
        self.unread[backend.pid] = unread[size:]
        if size:
            backend.sends(unread[:size])
        self._check(backend, model)

    def _check(self, backend: Backend, model: ModelServer) -> None:
        """A server that nobody holds could be anybody's."""
        if backend.link.closed or backend.link.written or self.unread[backend.pid]:
            return
        connection = backend.connection
        if connection.owner is None and connection.pipeline.idle:
            assert model.clean, "the pool has a server that is not clean"


def _cut(script: bytes, source: random.Random) -> list[bytes]:
    """The script in pieces: whole, large or small."""
    size = source.choice([len(script) or 1, 200, 40, 10])
    chunks = []
    while script:
        length = source.randint(1, size)
        chunks.append(script[:length])
        script = script[length:]
    return chunks


LOST = ErrorResponse.of("FATAL", "08006", "server closed the connection unexpectedly").encode()


@settings(max_examples=150)
@given(
    st.lists(SCRIPTS, min_size=1, max_size=4),
    st.integers(1, 2),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_clients_are_told_what_a_server_of_their_own_would_tell(
    scripts: list[bytes], size: int, prepared: int, session_mode: bool, seed: int
) -> None:
    stage = Stage(
        max(size, len(scripts)) if session_mode else size, prepared=prepared, session_mode=session_mode
    )
    theatre = Theatre(stage, scripts, seed)
    theatre.play()
    for talker, script in zip(theatre.talkers, scripts, strict=True):
        alone = ModelServer().answer(script)
        note(f"client: {asked(script)}")
        if talker.breaks_off or talker.lost_server:
            assert alone.startswith(talker.told.removesuffix(LOST))
            assert talker.client.gone
        else:
            assert heard(talker.told) == heard(alone)
            assert talker.told == alone
            assert talker.client.gone
    assert not stage.loop.errors
    assert not stage.violations
