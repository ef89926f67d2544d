"""Calls over the link that stream, stall and break off."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from askos.model import errors
from askos.ports.calls import Frame, HostCall, deliver

from .cloud import HOST
from .link_pair import SOON_S, Pair, pair, until

__all__ = ["pair"]  # fixtures

# -- streams ----------------------------------------------------------------------------------------------------------


async def echo(call: HostCall) -> int:
    """Send back what comes, until the end; result: how many bytes."""
    size = 0
    async for frame in call.frames():
        if frame.control is not None:
            await call.send(Frame(control={"heard": frame.control}))
            continue
        size += len(frame.data)
        await call.send(Frame(1, frame.data, frame.eof))
        if frame.eof:
            return size
    return -1


async def test_streams_in_both_directions(pair: Pair) -> None:
    pair.handler = echo
    await pair.connect()
    stream = await pair.server.open(HOST, "echo", {})
    big = bytes(range(256)) * 4096  # more than one message takes
    await stream.send(Frame(0, b"one"))
    await stream.send(Frame(control={"resize": [80, 24]}))
    await stream.send(Frame(0, big))
    await stream.send(Frame(0, b"", eof=True))
    got = [frame async for frame in stream.frames()]
    assert got[0] == Frame(1, b"one")
    assert got[1] == Frame(control={"heard": {"resize": [80, 24]}})
    assert b"".join(f.data for f in got[2:]) == big
    assert [f.eof for f in got] == [False] * (len(got) - 1) + [True]
    assert stream.result == 3 + len(big)
    await stream.send(Frame(0, b"too late"))  # dropped
    await stream.close()


async def test_a_large_last_frame_ends_with_its_last_piece(pair: Pair) -> None:
    big = bytes(range(256)) * 4096

    async def swap(call: HostCall) -> list[Any]:
        got = [frame async for frame in call.frames()]  # until the caller half-closes
        await call.send(Frame(2, big, eof=True))
        return [b"".join(f.data for f in got) == big, [f.eof for f in got]]

    async def until_eof(call: HostCall) -> Any:
        class Cut:
            method, arguments, send = call.method, call.arguments, call.send

            async def frames(self) -> AsyncIterator[Frame]:
                async for frame in call.frames():
                    yield frame
                    if frame.eof:
                        return

        return await swap(Cut())

    pair.handler = until_eof
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    await stream.send(Frame(0, big, eof=True))
    back = [f async for f in stream.frames()]
    assert b"".join(f.data for f in back) == big
    assert len(back) == 4
    for eofs in ([f.eof for f in back], stream.result[1]):
        assert eofs == [False] * 3 + [True]
    assert stream.result[0] is True


async def test_many_streams_at_once_do_not_mix(pair: Pair) -> None:
    pair.handler = echo
    await pair.connect()

    async def one(i: int) -> bytes:
        stream = await pair.server.open(HOST, "echo", {})
        for _ in range(5):
            await stream.send(Frame(0, f"<{i}>".encode()))
        await stream.send(Frame(0, b"", eof=True))
        return b"".join([f.data async for f in stream.frames()])

    for i, found in enumerate(await asyncio.gather(*(one(i) for i in range(20)))):
        assert found == f"<{i}>".encode() * 5


FIFTY_MB = 50 << 20
PIECE = 1 << 20
AHEAD = 16 << 20
"""How far a sender may be ahead of a reader that has stopped: what gRPC and the sockets hold."""


async def test_a_caller_that_does_not_read_holds_up_the_host(pair: Pair) -> None:
    sent = 0
    digest = hashlib.sha256()

    async def pour(call: HostCall) -> str:
        nonlocal sent
        for i in range(FIFTY_MB // PIECE):
            data = bytes([i]) * PIECE
            await call.send(Frame(1, data))
            digest.update(data)
            sent += len(data)
        return digest.hexdigest()

    pair.handler = pour
    await pair.connect()
    stream = await pair.server.open(HOST, "pour", {})
    frames = stream.frames()
    first = await anext(frames)
    await asyncio.sleep(0.3)
    stopped_at = sent
    assert 0 < stopped_at < AHEAD
    await asyncio.sleep(0.1)
    assert sent == stopped_at
    received = hashlib.sha256(first.data)
    size = len(first.data)
    async for frame in frames:
        received.update(frame.data)
        size += len(frame.data)
    assert size == FIFTY_MB
    assert stream.result == received.hexdigest()


async def test_a_host_that_does_not_read_holds_up_the_caller(pair: Pair) -> None:
    go = asyncio.Event()

    async def drink(call: HostCall) -> list[Any]:
        await go.wait()
        size, digest = 0, hashlib.sha256()
        async for frame in call.frames():
            size += len(frame.data)
            digest.update(frame.data)
            if frame.eof:
                break
        return [size, digest.hexdigest()]

    pair.handler = drink
    await pair.connect()
    stream = await pair.server.open(HOST, "drink", {})
    sent = 0
    digest = hashlib.sha256()

    async def pour() -> None:
        nonlocal sent
        for i in range(FIFTY_MB // PIECE):
            data = bytes([i]) * PIECE
            await stream.send(Frame(0, data))
            digest.update(data)
            sent += len(data)
        await stream.send(Frame(0, b"", eof=True))

    pouring = asyncio.create_task(pour())
    await asyncio.sleep(0.3)
    stopped_at = sent
    assert stopped_at < AHEAD
    await asyncio.sleep(0.1)
    assert sent == stopped_at
    go.set()
    assert [f async for f in stream.frames()] == []
    await pouring
    assert stream.result == [FIFTY_MB, digest.hexdigest()]


# -- breaking off -----------------------------------------------------------------------------------------------------


class Endless:
    """A handler that sends for ever, and notes how it ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def __call__(self, call: HostCall) -> Any:
        try:
            await call.send(Frame(1, b"begun"))
            await asyncio.sleep(60)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise


async def test_when_the_caller_leaves_the_host_stops(pair: Pair) -> None:
    endless = pair.handler = Endless()
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    assert await anext(stream.frames()) == Frame(1, b"begun")
    await stream.close()
    await until(lambda: endless.ended == ["CancelledError"])
    calling = asyncio.create_task(pair.call(timeout_s=30))
    await asyncio.sleep(0.1)
    calling.cancel()
    await until(lambda: endless.ended == ["CancelledError"] * 2)
    assert pair.server._calls == {}


async def test_when_the_agent_dies_the_caller_hears_it(pair: Pair) -> None:
    endless = pair.handler = Endless()
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    frames = stream.frames()
    assert await anext(frames) == Frame(1, b"begun")
    calling = asyncio.create_task(pair.call(timeout_s=30))
    await asyncio.sleep(0.1)
    pair.agents[0].cancel()
    with pytest.raises(errors.UnavailableError, match="went away"):
        await asyncio.wait_for(anext(frames), SOON_S)
    with pytest.raises(errors.UnavailableError, match="went away"):
        await asyncio.wait_for(calling, SOON_S)
    await stream.send(Frame(0, b"nobody hears this"))
    await stream.close()
    await until(lambda: len(endless.ended) == 2)


async def test_when_the_server_dies_the_host_stops(pair: Pair) -> None:
    endless = pair.handler = Endless()
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    assert await anext(stream.frames()) == Frame(1, b"begun")
    await pair.server.stop()
    await until(lambda: len(endless.ended) == 1)
    await pair.restart_server()
    await until(lambda: len(pair.orders.told) == 2)

    async def answer(_call: HostCall) -> str:
        return "again"

    pair.handler = answer
    assert await pair.call() == "again"


async def test_a_host_that_ends_the_call_while_the_caller_sends(pair: Pair) -> None:
    async def enough(call: HostCall) -> str:
        async for _frame in call.frames():
            return "enough"
        return "nothing"

    pair.handler = enough
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    sending = asyncio.create_task(_send_many(stream))
    with contextlib.suppress(StopAsyncIteration):
        async for _frame in stream.frames():
            pass
    assert stream.result == "enough"
    await stream.close()
    await asyncio.wait_for(sending, SOON_S)


async def _send_many(stream: Any) -> None:
    for _ in range(100):
        await stream.send(Frame(0, b"x" * PIECE))


async def test_a_host_that_ends_the_call_is_heard_by_a_caller_who_sends_first(pair: Pair) -> None:
    """More than all buffers between them hold."""

    async def refuse(_call: HostCall) -> None:
        raise errors.UnavailableError("no space left")

    pair.handler = refuse
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    await asyncio.wait_for(_send_many(stream), SOON_S)
    with pytest.raises(errors.UnavailableError, match="no space left"):
        await anext(stream.frames())
    await stream.close()


class Pieces:
    """An endless body; `taken` is how much of it was sent."""

    def __init__(self) -> None:
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.taken += 1
            yield b"x" * PIECE


async def test_what_is_delivered_stops_when_the_call_is_over(pair: Pair) -> None:
    async def three(call: HostCall) -> str:
        heard = 0
        async for _frame in call.frames():
            heard += 1
            if heard == 3:
                break
        return "three"

    pair.handler = three
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    await asyncio.wait_for(deliver(stream, stream.frames(), Pieces()), SOON_S)
    assert stream.result == "three"
    await stream.close()


async def test_what_is_delivered_ends_with_the_agent(pair: Pair) -> None:
    async def sleep(_call: HostCall) -> None:
        await asyncio.sleep(600)

    pair.handler = sleep
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    pieces = Pieces()
    delivering = asyncio.create_task(deliver(stream, stream.frames(), pieces))
    taken = -1
    while taken != pieces.taken or not taken:  # until nothing more goes in
        taken = pieces.taken
        await asyncio.sleep(0.2)
    pair.agents[0].cancel()
    with pytest.raises(errors.UnavailableError, match="went away"):
        await asyncio.wait_for(delivering, SOON_S)
    await stream.close()


async def test_a_body_that_breaks_off_is_no_end_for_the_host(pair: Pair) -> None:
    seen: list[Frame] = []
    ended: list[bool] = []

    async def listen(call: HostCall) -> None:
        try:
            async for frame in call.frames():
                seen.append(frame)
        finally:
            ended.append(True)

    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        await until(lambda: seen)
        raise ConnectionResetError

    pair.handler = listen
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(deliver(stream, stream.frames(), broken()), SOON_S)
    await stream.close()
    await until(lambda: ended)
    assert seen == [Frame(0, b"some")]


async def test_when_the_caller_half_closes_the_host_reads_the_end(pair: Pair) -> None:
    seen: list[Frame] = []

    async def listen(call: HostCall) -> str:
        async for frame in call.frames():
            seen.append(frame)
            if frame.eof:
                break
        return "read to the end"

    pair.handler = listen
    await pair.connect()
    stream = await pair.server.open(HOST, "m", {})
    await stream.send(Frame(0, b"last", eof=True))
    assert [f async for f in stream.frames()] == []
    assert stream.result == "read to the end"
    assert seen == [Frame(0, b"last", eof=True)]
