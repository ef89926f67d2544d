"""The streams of capsules over the real link: gRPC's back-pressure, half-closes and hang-ups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from askos.model.pods import Container
from askos.ports.calls import HostCall

from .cloud import HOST
from .link_pair import Pair
from .pod_streams import TOKEN, UUID, Stage, stage_at
from .test_pod_streams import echo_at_the_end, output, read, served, status


class Linked:
    """A stage whose calls travel over a link; `active` is what goes on on the host."""

    def __init__(self, stage: Stage, pair: Pair) -> None:
        self.stage = stage
        self.active: set[str] = set()
        pair.handler = self._handle

        async def open_(_host: str, method: str, arguments: dict[str, Any]) -> Any:
            return await pair.server.open(HOST, method, arguments)

        stage.open = open_  # type: ignore[method-assign]

    async def _handle(self, call: HostCall) -> Any:
        self.active.add(call.method)
        try:
            return await self.stage.calls(call)
        finally:
            self.active.discard(call.method)

    async def over(self, within_s: float = 5) -> None:
        async with asyncio.timeout(within_s):
            while self.active:
                await asyncio.sleep(0.005)


@pytest.fixture
async def linked(tmp_path: Path) -> AsyncIterator[Linked]:
    pair = Pair(tmp_path)
    await pair.server.start(pair.address)
    try:
        async with stage_at(tmp_path) as stage:
            await pair.connect()
            await stage.run(Container("web", "busybox", stdin=True))
            await stage.start("web", "cat")
            yield Linked(stage, pair)
    finally:
        await pair.end()


async def test_exec_and_attach(linked: Linked) -> None:
    data = b"0123456789abcdef" * 65536  # 1 MiB
    async with linked.stage.socket("exec?command=cat&stdin=true") as socket:

        async def feed() -> None:
            for _ in range(4):
                await socket.send_bytes(b"\x00" + data)
            await socket.send_bytes(b"\xff\x00")

        feeding = asyncio.create_task(feed())
        got = await read(socket)
        await feeding
    assert output(got, 1) == data * 4
    assert status(got)["status"] == "Success"
    async with linked.stage.socket("attach?stdin=true") as socket:
        await socket.receive_bytes()
        await socket.send_bytes(b"\x00hi")
        assert await socket.receive_bytes() == b"\x01hi"
        assert linked.active == {"attach"}
    await linked.over()


async def test_what_fails_before_the_upgrade_is_an_http_error(linked: Linked) -> None:
    assert (await linked.stage.refused("exec?command=nosuch"))[0] == 409
    assert (await linked.stage.refused("logs?previous=true", upgrade=False))[0] == 400


async def test_port_forwarding(linked: Linked) -> None:
    data = bytes(range(256)) * 8192  # 2 MiB
    async with served(echo_at_the_end) as port:
        async with linked.stage.socket(f"portforward?port={port}") as socket:
            for start in range(0, len(data), 1 << 18):
                await socket.send_bytes(b"\x00" + data[start : start + (1 << 18)])
            await socket.send_bytes(b"\xff\x00")
            got = await read(socket)
    assert output(got[2:], 0) == data[::-1]
    async with linked.stage.socket(f"portforward?port={port}") as socket:
        assert b"connection refused" in output((await read(socket))[2:], 1)
    await linked.over()


async def test_who_leaves_ends_everything_on_the_host(linked: Linked) -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    stage = linked.stage
    async with served(hold) as port:
        for path in ("exec?command=sleep&command=1000", f"portforward?port={port}"):
            async with stage.socket(path) as socket:
                await socket.receive_bytes()
                async with asyncio.timeout(5):
                    while not linked.active:
                        await asyncio.sleep(0.005)
            await linked.over()
    url = f"{stage.url}/askos/v1/capsules/{UUID}/logs?follow=true"
    async with stage.client.get(url, headers=TOKEN) as got:
        assert linked.active == {"pod_logs"}
        got.close()
    await linked.over(1)
