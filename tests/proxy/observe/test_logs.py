import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from proxy.config.schema import LogFormat, LogLevel, LogSettings
from proxy.config.url import parse_url
from proxy.observe.logs import RepeatedEvents, configure


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A stream whose reader has left."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging is the process's own: leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def settings(level: LogLevel = LogLevel.INFO, form: LogFormat = LogFormat.AUTO) -> LogSettings:
    return LogSettings(level=level, format=form)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_one_object_a_line_with_time_level_and_event_first() -> None:
    stream = io.StringIO()
    configure(settings(), stream).info("ready", listen="127.0.0.1:6432", pools=2)
    (line,) = lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["event"] == "ready"
    assert line["level"] == "info"
    assert line["listen"] == "127.0.0.1:6432"
    assert line["pools"] == 2
    assert str(line["timestamp"]).endswith("Z")


def test_on_a_terminal_it_is_text_in_colour() -> None:
    stream = Terminal()
    configure(settings(), stream).info("ready", listen="127.0.0.1:6432")
    text = stream.getvalue()
    assert "ready" in text
    assert "\x1b[" in text
    assert not text.startswith("{")


@pytest.mark.parametrize(("form", "stream"), [(LogFormat.JSON, Terminal()), (LogFormat.TEXT, io.StringIO())])
def test_the_format_can_be_given(form: LogFormat, stream: io.StringIO) -> None:
    configure(settings(form=form), stream).info("ready")
    assert stream.getvalue().startswith("{") == (form is LogFormat.JSON)
    assert "\x1b[" not in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "events"),
    [
        (LogLevel.DEBUG, ["a", "b", "c", "d"]),
        (LogLevel.INFO, ["b", "c", "d"]),
        (LogLevel.WARNING, ["c", "d"]),
        (LogLevel.ERROR, ["d"]),
    ],
)
def test_what_is_less_severe_is_left_out(level: LogLevel, events: list[str]) -> None:
    stream = io.StringIO()
    log = configure(settings(level), stream)
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert [line["event"] for line in lines(stream)] == events


def test_what_libraries_log_has_the_same_form() -> None:
    stream = io.StringIO()
    configure(settings(), stream)
    logging.getLogger("asyncio").error("task %s failed", "x")
    logging.getLogger("asyncio").info("chatter")
    (line,) = lines(stream)
    assert line["event"] == "task x failed"
    assert line["level"] == "error"


@pytest.mark.parametrize("form", [LogFormat.JSON, LogFormat.TEXT])
def test_a_traceback_has_no_local_variables_and_values_no_passwords(form: LogFormat) -> None:
    stream = io.StringIO()
    log = configure(settings(form=form), stream)

    # In pieces, so that the source line in the traceback is not the one that shows it.
    password = "".join(("hunt", "er2"))

    def fail(password: str) -> None:
        raise RuntimeError("broken")

    try:
        fail(password)
    except RuntimeError:
        log.exception("failed", primary=parse_url("postgresql://app:hunter2@db/x"))
        logging.getLogger("asyncio").exception("failed too")
    text = stream.getvalue()
    assert text.count("RuntimeError: broken") == 2
    assert "hunter2" not in text
    assert "app" in text


def test_configuring_again_replaces_what_was() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(settings(), first)
    configure(settings(), second).info("ready")
    logging.getLogger("asyncio").error("failed")
    assert first.getvalue() == ""
    assert len(lines(second)) == 2


def test_nobody_reading_the_logs_is_no_reason_to_fail(capsys: pytest.CaptureFixture[str]) -> None:
    log = configure(settings(), Gone())
    log.info("ready")
    logging.getLogger("asyncio").error("failed")
    closed = io.StringIO()
    log = configure(settings(), closed)
    closed.close()
    log.info("ready")
    assert capsys.readouterr() == ("", "")


def test_standard_error_is_the_default() -> None:
    program = (
        "from proxy.config.schema import LogSettings; from proxy.observe.logs import configure;"
        "configure(LogSettings()).info('ready')"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == ""
    assert json.loads(result.stderr)["event"] == "ready"


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TestRepeatedEvents:
    @pytest.fixture
    def stream(self) -> io.StringIO:
        return io.StringIO()

    @pytest.fixture
    def time(self) -> Time:
        return Time()

    @pytest.fixture
    def repeated(self, stream: io.StringIO, time: Time) -> RepeatedEvents:
        return RepeatedEvents(configure(settings(), stream), interval=60.0, capacity=2, clock=time)

    def test_the_first_is_logged_and_the_next_are_counted(
        self, repeated: RepeatedEvents, stream: io.StringIO, time: Time
    ) -> None:
        for second in range(5):
            time.now += 1
            repeated.warning("protocol violation", key="10.0.0.1", peer=f"10.0.0.1:{second}")
        (line,) = lines(stream)
        assert line["peer"] == "10.0.0.1:0"
        assert line["level"] == "warning"
        assert "suppressed" not in line

    def test_after_the_interval_it_is_logged_with_the_count(
        self, repeated: RepeatedEvents, stream: io.StringIO, time: Time
    ) -> None:
        for _ in range(5):
            repeated.warning("refused", key="a")
        time.now += 60
        repeated.warning("refused", key="a")
        repeated.warning("refused", key="a")
        time.now += 60
        repeated.warning("refused", key="a")
        time.now += 60
        repeated.warning("refused", key="a")
        assert [line.get("suppressed") for line in lines(stream)] == [None, 4, 1, None]

    def test_others_are_events_of_their_own(self, repeated: RepeatedEvents, stream: io.StringIO) -> None:
        repeated.warning("refused", key="a")
        repeated.warning("refused", key="b")
        repeated.warning("violation", key="b")
        assert len(lines(stream)) == 3

    def test_what_was_only_counted_is_said_at_the_end(
        self, repeated: RepeatedEvents, stream: io.StringIO
    ) -> None:
        for number in range(3):
            repeated.warning("refused", key="a", peer=number)
        repeated.warning("refused", key="b")
        repeated.flush()
        repeated.flush()
        assert len(lines(stream)) == 3
        assert lines(stream)[-1]["suppressed"] == 2
        assert lines(stream)[-1]["peer"] == 2

    def test_memory_is_bounded_and_the_longest_unseen_goes_with_its_count(
        self, repeated: RepeatedEvents, stream: io.StringIO
    ) -> None:
        for key in ("a", "b", "b", "a", "a", "c"):
            repeated.warning("refused", key=key, peer=key)
        assert [(line["peer"], line.get("suppressed")) for line in lines(stream)] == [
            ("a", None),
            ("b", None),
            ("b", 1),
            ("c", None),
        ]
        repeated.warning("refused", key="a", peer="a")
        assert len(lines(stream)) == 4


@pytest.mark.parametrize("worker", [None, 3])
def test_each_line_of_a_worker_names_it(worker: int | None) -> None:
    stream = io.StringIO()
    configure(settings(), stream, worker).info("ours")
    logging.getLogger("library").warning("theirs")
    assert [line["event"] for line in lines(stream)] == ["ours", "theirs"]
    assert [line.get("worker") for line in lines(stream)] == [worker] * 2
