"""One worker as the supervisor has it: a process, and the channel to it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from typing import BinaryIO

from proxy.config.schema import Settings
from proxy.workers.control import Body, Channel, ControlError
from proxy.workers.spawn import start_worker

KILL_AFTER = 5.0
"""Seconds that a worker may go on after it has closed its channel."""


class Member:
    """Worker `number` (from 0), whichever process it is at the moment.

    `answer` is asked what the worker asks for.  `listening`: it accepts clients.  `heard` is the time of its
    last report, `unreachable` why it was not ready then.
    """

    def __init__(self, number: int, answer: Callable[[Member, str, Body], Awaitable[Body]]) -> None:
        self.number = number
        self.listening = False
        self.heard = 0.0
        self.unreachable: str | None = None
        self.next_report: asyncio.Task[None] | None = None
        self.reporting = asyncio.Lock()
        self._answer = answer
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the present process, or the last one."""
        return self._process.pid if self._process is not None else None

    async def start(self, settings: Settings, board: BinaryIO, listening: Sequence[socket.socket]) -> None:
        """Starts a process.  Raises `OSError`."""
        self._ended.clear()
        self._channel = None
        self._process, control = start_worker(self.number, settings, board, listening)
        try:
            self._channel = await Channel.over(control, lambda kind, body: self._answer(self, kind, body))
        except BaseException:
            control.close()
            raise

    async def exited(self) -> str:
        """Waits for the process's end: why it ended."""
        channel, process = self._channel, self._process
        assert channel is not None
        assert process is not None
        complaint = ""
        try:
            await channel.serve()
        except ControlError as error:
            complaint = f" (it sent {error})"
        self.listening = False
        await self._wait(KILL_AFTER)
        return _reason(process.returncode) + complaint

    def look(self) -> None:
        """To be called when some child process has ended."""
        if self._process is not None and self._process.poll() is not None:
            self._ended.set()

    async def request(self, kind: str, body: Body | None = None) -> Body:
        """Asks the worker.  Raises `ControlError`."""
        if self._channel is None:
            raise ControlError("the worker has not been started")
        return await self._channel.request(kind, body)

    async def stop(self, timeout: float) -> None:
        """Has the process end its sessions and itself; kills it after `timeout` seconds."""
        if self._process is None:
            return
        if self._channel is not None:
            # It is told by the end of the channel, as if the supervisor were gone: no other way is as sure.
            self._channel.close()
        await self._wait(timeout)

    async def _wait(self, timeout: float) -> None:
        self.look()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        if not self._ended.is_set():
            assert self._process is not None
            self._process.kill()
            await self._ended.wait()


def _reason(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
