"""An event loop whose time and turns the test decides, for code that schedules calls and starts tasks."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Handle:
    """A scheduled call."""

    def __init__(self, call: Callable[[], None], when: float) -> None:
        self.call = call
        self.when = when
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Gate:
    """Something a coroutine awaits until the test lets it go on."""

    def __init__(self, loop: "TurnLoop") -> None:
        self._loop = loop
        self._task: Task | None = None
        self._result: Any = None
        self._error: BaseException | None = None
        self.passed = False

    def __await__(self) -> Generator["Gate", None, Any]:
        if not self.passed:
            yield self
        if self._error is not None:
            raise self._error
        return self._result

    def open(self, result: Any = None) -> None:
        self._pass(result, None)

    def fail(self, error: BaseException) -> None:
        self._pass(None, error)

    def _pass(self, result: Any, error: BaseException | None) -> None:
        assert not self.passed, "nobody waits at this gate any more"
        self.passed, self._result, self._error = True, result, error
        if self._task is not None:
            self._loop.call_soon(self._task.step)


class Task:
    """A coroutine that awaits gates only."""

    def __init__(self, loop: "TurnLoop", coroutine: Coroutine[Gate, None, Any]) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._callbacks: list[Callable[[Task], object]] = []
        self._cancelling = False
        self.error: BaseException | None = None
        self.ended = False

    def step(self) -> None:
        if self.ended:
            return
        try:
            if self._cancelling:
                self._coroutine.throw(asyncio.CancelledError())
            else:
                gate = self._coroutine.send(None)
                gate._task = self
        except StopIteration:
            self._end(None)
        except asyncio.CancelledError as error:
            self._end(error)
        except Exception as error:
            self._loop.errors.append(error)
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self.ended, self.error = True, error
        for callback in self._callbacks:
            callback(self)

    def cancel(self) -> None:
        self._cancelling = True
        self._loop.call_soon(self.step)

    def add_done_callback(self, callback: Callable[["Task"], object]) -> None:
        self._callbacks.append(callback)

    def done(self) -> bool:
        return self.ended


class TurnLoop:
    """`run` makes turns until nothing is due; `advance` lets time go by. `errors` are exceptions of tasks."""

    def __init__(self) -> None:
        self.now = 0.0
        self.errors: list[BaseException] = []
        self._soon: deque[Handle] = deque()
        self._later: list[tuple[float, int, Handle]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> Handle:
        handle = Handle(lambda: callback(*arguments) and None, self.now)
        self._soon.append(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: object) -> Handle:
        handle = Handle(lambda: callback(*arguments) and None, self.now + delay)
        self._later.append((handle.when, next(self._order), handle))
        return handle

    def create_task(self, coroutine: Coroutine[Gate, None, Any]) -> Task:
        task = Task(self, coroutine)
        self.call_soon(task.step)
        return task

    @property
    def timers(self) -> list[float]:
        """When the calls that are still to come are due, earliest first."""
        return sorted(when for when, _, handle in self._later if not handle.cancelled)

    def run(self) -> None:
        while self._soon:
            handle = self._soon.popleft()
            if not handle.cancelled:
                handle.call()

    def advance(self, seconds: float) -> None:
        """Lets that much time go by; what falls due meanwhile is called in its order, at its time."""
        end = self.now + seconds
        self.run()
        while self._later:
            self._later.sort(key=lambda entry: entry[:2])
            when, _, handle = self._later[0]
            if when > end:
                break
            del self._later[0]
            self.now = max(self.now, when)
            if not handle.cancelled:
                handle.call()
            self.run()
        self.now = end
