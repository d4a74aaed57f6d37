"""The control protocol between supervisor and workers, over a real socket pair."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.workers.control import MAX_MESSAGE, MAX_PENDING, Body, Channel, ControlError, encode


async def echo(kind: str, body: Body) -> Body:
    if kind == "fail":
        raise ValueError("no such luck")
    if kind == "sleep":
        await asyncio.sleep(3600)
    return {"kind": kind} | body if kind != "twice" else {"one": body, "other": body}


@contextlib.asynccontextmanager
async def channel(answer: Any = echo) -> AsyncIterator[tuple[Channel, asyncio.Task[None], Any, Any]]:
    """One served end, and the other end's reader and writer for a test to misbehave."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    end = await Channel.over(ours, answer)
    serving = asyncio.create_task(end.serve())
    try:
        yield end, serving, reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ControlError):
            await asyncio.wait_for(serving, 10)


@contextlib.asynccontextmanager
async def two_channels(left: Any = echo, right: Any = echo) -> AsyncIterator[tuple[Channel, Channel]]:
    one, other = socket.socketpair()
    channels = await Channel.over(one, left), await Channel.over(other, right)
    serving = [asyncio.create_task(each.serve()) for each in channels]
    try:
        yield channels
    finally:
        channels[0].close()
        channels[1].close()
        await asyncio.wait_for(asyncio.gather(*serving), 10)


async def test_both_sides_ask_and_answer() -> None:
    async with two_channels() as (left, right):
        assert await left.request("this", {"n": 1}) == {"kind": "this", "n": 1}
        assert await right.request("that") == {"kind": "that"}


async def test_replies_find_their_requests_in_any_order() -> None:
    gates: dict[str, asyncio.Event] = {name: asyncio.Event() for name in "abc"}

    async def when_told(kind: str, body: Body) -> Body:
        await gates[kind].wait()
        return {"was": kind}

    async with two_channels(right=when_told) as (left, _):
        asked = {name: asyncio.create_task(left.request(name)) for name in "abc"}
        for name in "cab":
            gates[name].set()
            assert await asked[name] == {"was": name}


async def test_names_that_are_no_text_survive() -> None:
    async with two_channels() as (left, _):
        name = b"caf\xe9".decode("utf-8", "surrogateescape")
        assert (await left.request("name", {"name": name}))["name"] == name


async def test_what_the_other_side_raises_is_told() -> None:
    async with two_channels() as (left, _):
        with pytest.raises(ControlError, match="ValueError: no such luck"):
            await left.request("fail")
        assert await left.request("next") == {"kind": "next"}


async def test_a_request_takes_no_longer_than_its_time() -> None:
    async with two_channels() as (left, _):
        with pytest.raises(TimeoutError):
            await left.request("sleep", timeout=0.01)
        assert await left.request("next") == {"kind": "next"}


async def test_more_requests_than_may_be_pending_wait_their_turn() -> None:
    under_way = most = 0

    async def count(kind: str, body: Body) -> Body:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return body

    async with two_channels(right=count) as (left, _):
        replies = await asyncio.gather(*(left.request("n", {"n": n}) for n in range(3 * MAX_PENDING)))
        assert [reply["n"] for reply in replies] == list(range(3 * MAX_PENDING))
    assert 1 < most <= MAX_PENDING


async def test_requests_fail_when_the_other_side_goes() -> None:
    async with channel() as (end, serving, reader, writer):
        asked = asyncio.create_task(end.request("never"))
        await reader.readexactly(4)
        writer.close()
        with pytest.raises(ControlError, match="gone"):
            await asked
        await serving
        with pytest.raises(ControlError, match="gone"):
            await end.request("later")


async def test_a_message_cut_off_by_the_end_is_the_end() -> None:
    async with channel() as (_, serving, _, writer):
        writer.write(encode({"request": "a", "id": 1, "body": {}})[:-1])
        writer.close()
        await serving


@pytest.mark.parametrize(
    "data",
    [
        (MAX_MESSAGE + 1).to_bytes(4, "big"),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\1{",
        b"\0\0\0\2\xff\xff",
        b"\0\0\0\2[]",
        b"\0\0\0\2{}",
        encode({"request": "a", "id": "1", "body": {}}),
        encode({"reply": 1}),
    ],
)
async def test_what_is_no_message_ends_the_channel(data: bytes) -> None:
    async with channel() as (end, serving, reader, writer):
        writer.write(data)
        with pytest.raises(ControlError):
            await serving
        with pytest.raises(ControlError):
            await end.request("later")
        assert await reader.read() == b""


async def test_a_reply_nobody_waits_for_is_ignored() -> None:
    async with channel() as (end, _, reader, writer):
        writer.write(encode({"reply": 99, "body": {}}))
        asked = asyncio.create_task(end.request("still"))
        await reader.readexactly(4)
        writer.write(encode({"reply": 1, "body": {"here": True}}))
        assert await asked == {"here": True}


async def test_what_is_too_long_is_not_sent() -> None:
    async with two_channels() as (left, _):
        with pytest.raises(ControlError, match="more than"):
            await left.request("long", {"text": "x" * MAX_MESSAGE})
        with pytest.raises(ControlError, match="more than"):
            await left.request("twice", {"text": "x" * (MAX_MESSAGE // 2)})
        assert await left.request("next") == {"kind": "next"}
