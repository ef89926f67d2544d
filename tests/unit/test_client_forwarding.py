"""The client's port forwarding against the real endpoint over a host in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from askos.client import forwarding
from askos.client.errors import ClientError
from askos.client.forwarding import Pair
from askos.model.pods import Container

from .pod_streams import TOKEN, UUID, Stage, stage_at
from .test_pod_streams import echo_at_the_end, greet, served


class Session:
    """What forwarding needs of a `client.session.Session`."""

    def __init__(self, url: str, token: str = TOKEN["X-Auth-Token"]) -> None:
        self._url = url
        self._tokens = [token]
        self.http = SimpleNamespace(trust=lambda: True)
        self.renewed = 0

    def login(self) -> str:
        return self._tokens[-1]

    def renew(self, refused: str) -> bool:
        assert refused == self._tokens[-1]
        self.renewed += 1
        self._tokens.append(TOKEN["X-Auth-Token"])
        return self.renewed == 1

    def headers(self) -> dict[str, str]:
        return {"X-Auth-Token": self._tokens[-1]}

    def url(self, _api: str, path: str, query: list[tuple[str, str]]) -> str:
        return f"{self._url}/askos/v1{path}?" + "&".join(f"{k}={v}" for k, v in query)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage_at(tmp_path) as made:
        await made.run(Container("web", "busybox"))
        await made.start("web", "sleep", "1000")
        yield made


@contextlib.asynccontextmanager
async def forwarded(session: Any, *ports: int, problems: list[str] | None = None) -> AsyncIterator[list[int]]:
    """Forward free local ports to these; gives the local ones."""
    made: asyncio.Future[list[Pair]] = asyncio.get_running_loop().create_future()
    complaints: list[str] = [] if problems is None else problems
    task = asyncio.create_task(
        forwarding.serve(
            session, f"/capsules/{UUID}/portforward", [("namespace", "default")], [Pair(0, p) for p in ports],
            ready=made.set_result, complain=complaints.append,
        )
    )  # fmt: skip
    try:
        async with asyncio.timeout(10):
            yield [pair.local for pair in await made]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def talk(port: int, data: bytes) -> bytes:
    """Send, end, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_ports_reach_into_the_capsule(stage: Stage) -> None:
    problems: list[str] = []
    async with served(echo_at_the_end) as one, served(greet) as two:
        async with forwarded(Session(stage.url), one, two, problems=problems) as (local_one, local_two):
            answers = await asyncio.gather(*(talk(local_one, b"%d:" % n + b"x" * 300_000) for n in range(5)))
            assert [a[::-1][:2] for a in answers] == [b"%d:" % n for n in range(5)]
            assert {len(a) for a in answers} == {300_002}
            assert await talk(local_two, b"") == b"hello"
    assert problems == []
    await stage.over()


async def test_a_token_that_has_run_out_is_renewed(stage: Stage) -> None:
    session = Session(stage.url, "old")
    async with served(greet) as port, forwarded(session, port) as (local,):
        assert await talk(local, b"") == b"hello"
    assert session.renewed == 1


async def test_what_goes_wrong_is_told(stage: Stage) -> None:
    async with served(greet) as closed:
        pass
    problems: list[str] = []
    async with served(greet) as port, forwarded(Session(stage.url), closed, port, problems=problems) as (bad, good):
        with contextlib.suppress(ConnectionError):
            assert await talk(bad, b"") == b""
        assert await talk(good, b"") == b"hello"
    (problem,) = problems
    assert problem.startswith(f'Cannot forward to port {closed} of pod "web": 127.0.0.1:{closed}: connection refused')
    with pytest.raises(ClientError, match=r"^cannot listen on 127\.0\.0\.1:\d+: .*in use"):
        async with served(greet) as taken:
            await forwarding.serve(
                Session(stage.url), "/x", [], [Pair(taken, 80)], ready=lambda _: None, complain=problems.append  # type: ignore[arg-type]
            )  # fmt: skip
