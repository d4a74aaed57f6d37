"""Structured logs on standard error: one JSON object a line, or readable text on a terminal.

Events are short names in lower case with their facts as keys: ``log.info("ready", listen="127.0.0.1:6432")``.
"""

import contextlib
import logging
import sys
from collections import OrderedDict
from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass
from typing import Any, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from proxy.clock import Clock, monotonic
from proxy.config.schema import LogFormat, LogLevel, LogSettings

Logger = FilteringBoundLogger

_LEVELS = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}


def configure(settings: LogSettings, stream: TextIO | None = None, worker: int | None = None) -> Logger:
    """Set up the logs of this process and return the logger to pass on.

    stream: standard error unless given. worker: the number that each line carries, where there are several.
    What libraries log through ``logging`` comes out in the same form.
    """
    stream = cast(TextIO, _Stream(sys.stderr if stream is None else stream))
    text = settings.format is LogFormat.TEXT or (settings.format is LogFormat.AUTO and stream.isatty())
    level = _LEVELS[settings.level]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, _time(text), _origin(worker)],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(text, stream),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries are worth hearing when they warn; their debug output would bury ours.
    root.setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _time(text),
            _origin(worker),
            *_rendering(text, stream),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    return cast(Logger, structlog.get_logger())


class _Stream:
    """Writes and never raises: when whoever reads the logs has gone, queries go on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()


def _time(text: bool) -> Processor:
    return structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text)


def _origin(worker: int | None) -> Processor:
    def add(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if worker is not None:
            event["worker"] = worker
        return event

    return add


def _rendering(text: bool, stream: TextIO) -> list[Processor]:
    if text:
        # The plain formatter on purpose: the others print local variables, and passwords are among them.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
    return [
        structlog.processors.format_exc_info,
        _event_first,
        structlog.processors.JSONRenderer(default=str),
    ]


def _event_first(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}


@dataclass(slots=True)
class _Occurrence:
    event: str
    fields: dict[str, object]
    logged_at: float
    suppressed: int = 0


class RepeatedEvents:
    """Logs an event once and counts its repetitions: a client that tries forever shall not fill the logs.

    The first of each (event, key) is logged at once. Those that follow within ``interval`` seconds are only
    counted; the next after that is logged with ``suppressed`` = how many were not. At most ``capacity``
    different ones are remembered; the longest unseen is forgotten first, its count logged.
    """

    def __init__(
        self, log: Logger, *, interval: float = 60.0, capacity: int = 1000, clock: Clock = monotonic
    ) -> None:
        self._log = log
        self._interval = interval
        self._capacity = capacity
        self._clock = clock
        self._seen: OrderedDict[tuple[str, Hashable], _Occurrence] = OrderedDict()

    def warning(self, event: str, *, key: Hashable, **fields: object) -> None:
        """key: what makes two events the same, e.g. the peer's host."""
        now = self._clock()
        occurrence = self._seen.get((event, key))
        if occurrence is None:
            self._remember((event, key), _Occurrence(event, fields, now))
            self._log.warning(event, **fields)
            return
        self._seen.move_to_end((event, key))
        occurrence.fields = fields
        if now - occurrence.logged_at < self._interval:
            occurrence.suppressed += 1
            return
        suppressed = {"suppressed": occurrence.suppressed} if occurrence.suppressed else {}
        occurrence.logged_at, occurrence.suppressed = now, 0
        self._log.warning(event, **fields, **suppressed)

    def flush(self) -> None:
        """Log what is still only counted, e.g. when the proxy stops."""
        for occurrence in self._seen.values():
            self._summarise(occurrence)
        self._seen.clear()

    def _remember(self, identity: tuple[str, Hashable], occurrence: _Occurrence) -> None:
        self._seen[identity] = occurrence
        if len(self._seen) > self._capacity:
            self._summarise(self._seen.popitem(last=False)[1])

    def _summarise(self, occurrence: _Occurrence) -> None:
        if occurrence.suppressed:
            self._log.warning(occurrence.event, **occurrence.fields, suppressed=occurrence.suppressed)
