"""What supervisor and workers say to each other: requests and replies over a socket pair, both ways.

A message is its length in four bytes, big-endian, and a JSON object:

    {"request": kind, "id": n, "body": {...}}
    {"reply": n, "body": {...}}         the answer to request n
    {"reply": n, "error": "..."}        there is none
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

Body = dict[str, Any]
Answer = Callable[[str, Body], Awaitable[Body]]

MAX_MESSAGE = 1 << 20
"""Bytes of JSON in a message at most; whoever sends or announces more is broken."""

MAX_PENDING = 256
"""Requests of one side that wait for their reply at the same time; the next one waits to be sent."""


class ControlError(Exception):
    """The other process does not answer: it is gone, has failed, or says what nobody understands."""


def encode(message: Body) -> bytes:
    """One message as it is sent.  Raises `ControlError` when it is too long."""
    text = json.dumps(message, separators=(",", ":")).encode()
    if len(text) > MAX_MESSAGE:
        raise ControlError(f"a message of {len(text)} bytes, more than {MAX_MESSAGE}")
    return len(text).to_bytes(4, "big") + text


async def read_message(reader: asyncio.StreamReader) -> Body | None:
    """The next message, None at the end.  Raises `ControlError` for what is no message."""
    try:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if length > MAX_MESSAGE:
            raise ControlError(f"a message of {length} bytes announced, more than {MAX_MESSAGE}")
        text = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, OSError):
        return None
    try:
        message = json.loads(text)
    except ValueError:
        raise ControlError("a message that is no JSON") from None
    if not isinstance(message, dict):
        raise ControlError("a message that is no object")
    return message


class Channel:
    """One end of the socket pair.  `answer` is given the kind and body of each request and returns the
    reply's body; what it raises becomes the other side's `ControlError`.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Body]] = {}
        self._slots = asyncio.Semaphore(MAX_PENDING)
        self._answering: set[asyncio.Task[None]] = set()
        self._closed = False

    @classmethod
    async def over(cls, sock: socket.socket, answer: Answer) -> Channel:
        """A channel over a connected Unix socket, which belongs to it from now on."""
        sock.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return cls(reader, writer, answer)

    async def serve(self) -> None:
        """Reads until the other side is gone or the channel is closed.  Raises `ControlError` for what can't
        be understood; requests under way fail in any case.
        """
        try:
            while (message := await read_message(self._reader)) is not None:
                self._take(message)
        finally:
            self.close()

    async def request(self, kind: str, body: Body | None = None, timeout: float | None = None) -> Body:
        """The reply's body.  Raises `ControlError`, and `TimeoutError` after `timeout` seconds."""
        async with asyncio.timeout(timeout), self._slots:
            if self._closed:
                raise ControlError("the other process is gone")
            number = next(self._numbers)
            future: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
            self._pending[number] = future
            try:
                self._writer.write(encode({"request": kind, "id": number, "body": body or {}}))
                return await future
            finally:
                del self._pending[number]

    def close(self) -> None:
        """Ends the connection."""
        self._closed = True
        self._writer.close()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ControlError("the other process is gone"))
        for task in self._answering:
            task.cancel()

    def _take(self, message: Body) -> None:
        match message:
            case {"request": str(kind), "id": int(number), "body": dict(body)}:
                task = asyncio.get_running_loop().create_task(self._reply(number, kind, body))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            case {"reply": int(number), "body": dict(body)}:
                self._settle(number, body, None)
            case {"reply": int(number), "error": str(error)}:
                self._settle(number, {}, ControlError(error))
            case _:
                raise ControlError("a message that is neither request nor reply")

    def _settle(self, number: int, body: Body, error: ControlError | None) -> None:
        future = self._pending.get(number)
        if future is None or future.done():
            return  # whoever asked has given up
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(body)

    async def _reply(self, number: int, kind: str, body: Body) -> None:
        try:
            data = encode({"reply": number, "body": await self._answer(kind, body)})
        except Exception as error:
            data = encode({"reply": number, "error": f"{type(error).__name__}: {error}"[:1000]})
        if not self._closed:
            self._writer.write(data)
            with contextlib.suppress(OSError):
                await self._writer.drain()
