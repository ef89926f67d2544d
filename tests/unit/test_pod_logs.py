"""Logs of pods: which instance is meant, tails read from the end, following, limits, and all of it over HTTP."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askos.loops import pod_logs
from askos.loops.calls import Calls
from askos.loops.logs import Selection
from askos.loops.pod_logs import Instance, InstanceLog, instance, since_start, tail_start
from askos.model.errors import InvalidError
from askos.model.pods import Container, PodContainerReport
from askos.ports import runtime as rt

from .pod_streams import TOKEN, UUID, Stage, stage_at

T = "2024-05-01T10:00:{:02d}.000000000Z"


def record(text: str, stream: str = "stdout", tag: str = "F", second: int = 0) -> bytes:
    return f"{T.format(second)} {stream} {tag} {text}\n".encode()


# -- which instance ---------------------------------------------------------------------------------------------------


def made(attempt: int, state: Any = "exited") -> rt.Container:
    return rt.Container(f"id{attempt}", "box", UUID, "web", 1, attempt, state, 0)


def choose(
    folder: Path, *containers: rt.Container, state: Any = "running", reason: str = "", previous: bool = False
) -> Instance:
    report = PodContainerReport("web", state, reason)
    return instance("p", "web", list(containers), report, folder, previous=previous)


def test_the_present_instance(tmp_path: Path) -> None:
    running = Instance(2, "id2", running=True)
    assert choose(tmp_path, made(0), made(2, "running"), made(1)) == running
    # The next one is being made, or waits for its turn: the last one that ran is what there is to read.
    assert choose(tmp_path, made(0), made(1, "created"), state="waiting") == Instance(0, "id0", running=False)
    assert choose(tmp_path, made(1), state="terminated") == Instance(1, "id1", running=False)


def test_the_previous_instance(tmp_path: Path) -> None:
    assert choose(tmp_path, made(0), made(1, "running"), previous=True).attempt == 0
    assert choose(tmp_path, made(0), made(1), state="terminated", previous=True).attempt == 0
    # In CrashLoopBackOff the last end is the previous one.
    assert choose(tmp_path, made(0), made(1), state="waiting", previous=True).attempt == 1
    # Its container may be removed: the log stays.
    for attempt in (0, 3, 11):
        (tmp_path / f"{attempt}.log").touch()
    (tmp_path / "12.log.gz").touch()
    assert choose(tmp_path, made(12, "running"), previous=True) == Instance(11, None, running=False)


@pytest.mark.parametrize("state", ["running", "terminated", "waiting"])
def test_no_previous_instance(tmp_path: Path, state: str) -> None:
    containers = [] if state == "waiting" else [made(0, "running" if state == "running" else "exited")]
    with pytest.raises(InvalidError, match=r'^previous terminated container "web" in pod "p" not found$'):
        choose(tmp_path, *containers, state=state, previous=True)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("", "ContainerCreating"),
        ("PodInitializing", "PodInitializing"),
        ("ErrImagePull", "image can't be pulled"),
        ("ImagePullBackOff", "trying and failing to pull image"),
    ],
)
def test_what_has_not_begun(tmp_path: Path, reason: str, text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        choose(tmp_path / "none", made(0, "created"), state="waiting", reason=reason)
    assert caught.value.message == f'container "web" in pod "p" is waiting to start: {text}'
    with pytest.raises(InvalidError, match="ContainerCreating"):
        instance("p", "web", [], None, tmp_path, previous=False)


# -- reading ----------------------------------------------------------------------------------------------------------


class Sink:
    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []

    async def __call__(self, channel: int, data: bytes) -> None:
        self.pieces.append((channel, data))

    def text(self) -> bytes:
        return b"".join(data for _, data in self.pieces)


async def read(path: Path, **selection: Any) -> bytes:
    sink = Sink()
    await InstanceLog(path).history(Selection(**selection), sink)
    return sink.text()


async def test_all_and_tails(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    assert await read(path) == b""
    assert await read(path, tail=3) == b""
    path.write_bytes(b"".join(record(str(n), second=n) for n in range(10)) + b"2024 still being wri")
    assert await read(path) == b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"
    assert await read(path, tail=0) == b""
    assert await read(path, tail=3) == b"7\n8\n9\n"
    assert await read(path, tail=99) == await read(path)
    at_8 = 1714557608_000000
    assert await read(path, since_us=at_8) == b"8\n9\n"
    assert await read(path, since_us=at_8, tail=1) == b"9\n"
    assert await read(path, since_us=at_8, tail=5) == b"8\n9\n"
    assert await read(path, tail=1, timestamps=True) == f"{T.format(9)} 9\n".encode()


async def test_a_tail_of_one_stream_counts_its_own_lines(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(record("a", "stderr") + record("b") + record("c", "stderr") + record("d") + record("e"))
    assert await read(path, tail=2, stdout=False) == b"a\nc\n"
    assert await read(path, tail=1, stderr=False) == b"e\n"


async def test_long_lines_of_both_streams_in_a_tail(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(
        record("old")
        + record("err-1 ", "stderr", "P")
        + record("out-1 ", tag="P")
        + record("out-2")
        + record("err-2", "stderr")
    )
    assert await read(path, tail=1) == b"err-1 err-2\n"
    assert await read(path, tail=1, stderr=False) == b"out-1 out-2\n"
    assert sorted(await read(path, tail=2)) == sorted(b"out-1 out-2\nerr-1 err-2\n")


async def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(record("x")[:-2] + b"\xff\x00\xfe\r\n" + record("") + b"garbage\n")
    assert await read(path) == b"\xff\x00\xfe\r\n\n"
    assert await read(path, tail=1) == b"\n"


RECORDS = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from("FFFP"), st.integers(0, 300)), max_size=40
)


@settings(max_examples=200, deadline=None)
@given(RECORDS, st.integers(0, 8), st.sampled_from([40, 64 * 1024]))
def test_a_tail_is_the_last_lines_of_the_whole(records: list[tuple[str, str, int]], wanted: int, block: int) -> None:
    """Against the simple way: put all lines together, in the order of their ends, and take the last ones."""
    data = b"".join(
        record(f"{number}:" + "x" * size, stream, tag) for number, (stream, tag, size) in enumerate(records)
    )
    begun: dict[str, list[int]] = {}
    lines: list[list[int]] = []
    for number, (stream, tag, _) in enumerate(records):
        begun.setdefault(stream, []).append(number)
        if tag == "F":
            lines.append(begun.pop(stream))
    # A line that goes on is as new as its last record.
    lines = sorted([*lines, *begun.values()], key=lambda line: line[-1])
    expected = sorted(number for line in lines[len(lines) - wanted if wanted < len(lines) else 0 :] for number in line)

    before, pod_logs._BLOCK = pod_logs._BLOCK, block
    try:
        start, skip = tail_start(io.BytesIO(data), Selection(tail=wanted))
    finally:
        pod_logs._BLOCK = before
    offset, found = 0, []
    for number, line in enumerate(data.splitlines(keepends=True)):
        if offset >= start and offset not in skip:
            found.append(number)
        offset += len(line)
    assert found == (expected if wanted else [])


async def test_a_tail_of_a_large_log_reads_only_its_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    with path.open("wb") as file:
        for _ in range(20):
            file.write(record("x" * 100) * 10_000)
        file.write(record("last"))

    class Counting(io.FileIO):
        got = 0

        def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
            data = super().read(size if size is not None else -1) or b""
            Counting.got += len(data)
            return data

    with Counting(path) as file:
        start, _ = tail_start(file, Selection(tail=10))  # type: ignore[arg-type]
    assert start == path.stat().st_size - len(record("last")) - 9 * len(record("x" * 100))
    assert Counting.got <= 2 * 64 * 1024


# -- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage_at(tmp_path) as made:
        await made.run(Container("web", "busybox"))
        yield made


async def get(stage: Stage, query: str = "") -> bytes:
    async with stage.client.get(f"{stage.url}/askos/v1/capsules/{UUID}/logs?{query}", headers=TOKEN) as got:
        assert got.status == 200, await got.text()
        assert got.content_type == "text/plain"
        return await got.read()


async def test_a_log_and_the_one_before(stage: Stage) -> None:
    await stage.ended(await stage.start("web", "sh", "-c", "echo first; exit 1"))
    assert await get(stage) == b"first\n"
    await stage.start("web", "sh", "-c", "echo second; echo bad >&2; sleep 1000", attempt=1)
    async with asyncio.timeout(30):
        while await get(stage) != b"second\nbad\n":
            await asyncio.sleep(0.01)
    assert await get(stage, "previous=true") == b"first\n"
    assert await get(stage, "stream=Stderr") == b"bad\n"
    assert await get(stage, "stream=Stdout") == b"second\n"
    assert await get(stage, "tailLines=1") == b"bad\n"
    assert await get(stage, "tailLines=0") == b""
    assert await get(stage, "limitBytes=8") == b"second\nb"
    assert (await get(stage, "timestamps=true&limitBytes=21")).startswith(b"20")
    assert await get(stage, "sinceTime=2100-01-01T00:00:00Z") == b""
    assert await get(stage, "sinceTime=2001-01-01T00:00:00.123456789%2B01:00&container=web") == b"second\nbad\n"
    await stage.over()


async def test_following_ends_with_the_instance_and_not_with_the_next(stage: Stage) -> None:
    first = await stage.start("web", "sh", "-c", "echo one; sleep 0.3; echo two")
    following = asyncio.create_task(get(stage, "follow=true"))
    await stage.ended(first)
    await stage.start("web", "sh", "-c", "echo another; sleep 1000", attempt=1)
    async with asyncio.timeout(30):
        assert await following == b"one\ntwo\n"
    assert await get(stage, "follow=true&previous=true") == b"one\ntwo\n"
    await stage.over()


async def test_following_with_a_limit(stage: Stage) -> None:
    await stage.start("web", "sh", "-c", "echo one; sleep 0.2; echo two; sleep 1000")
    async with asyncio.timeout(30):
        assert await get(stage, "follow=true&limitBytes=6") == b"one\ntw"


async def test_following_what_is_removed_ends(stage: Stage) -> None:
    container_id = await stage.start("web", "sleep", "1000")
    following = asyncio.create_task(get(stage, "follow=true"))
    await asyncio.sleep(0.1)
    await stage.runtime.remove_container(container_id)
    await stage.look()
    async with asyncio.timeout(30):
        assert await following == b""


async def test_who_leaves_a_silent_log_ends_the_reading(stage: Stage) -> None:
    await stage.start("web", "sleep", "1000")
    url = f"{stage.url}/askos/v1/capsules/{UUID}/logs?follow=true"
    async with stage.client.get(url, headers=TOKEN) as got:
        assert got.status == 200
        assert not stage.lines[0].task.done()
        got.close()
    async with asyncio.timeout(30):
        await stage.over()


async def test_what_has_no_log_yet_is_a_400(stage: Stage) -> None:
    waiting = 'container "web" in pod "web" is waiting to start: ContainerCreating'
    assert await stage.refused("logs", upgrade=False) == (400, waiting)
    stage.placed = False
    assert await stage.refused("logs", upgrade=False) == (400, waiting)
    stage.placed = True
    stage.calls = Calls(SimpleNamespace(**{**vars(stage.agent), "workers": {}}), stage.logs)  # type: ignore[arg-type]
    assert await stage.refused("logs", upgrade=False) == (400, waiting)
    assert await stage.refused("exec?command=id") == (409, 'Container "web" of pod "web" is not running.')
    stage.calls = Calls(stage.agent, stage.logs)
    await stage.start("web", "sleep", "1000")
    assert await stage.refused("logs?previous=1", upgrade=False) == (
        400, 'previous terminated container "web" in pod "web" not found'
    )  # fmt: skip
    assert await stage.refused("logs?container=x", upgrade=False) == (400, "container x is not valid for pod web")


@pytest.mark.parametrize(
    "query",
    [
        "tailLines=-1", "tailLines=x", "sinceSeconds=0", "sinceTime=yesterday", "sinceTime=2024-01-01",
        "sinceTime=2024-01-01T00:00:00", "sinceSeconds=1&sinceTime=2024-01-01T00:00:00Z", "limitBytes=0",
        "follow=perhaps", "stream=stdout", "tailLines=99999999999999999999",
    ],
)  # fmt: skip
async def test_queries_that_are_refused(stage: Stage, query: str) -> None:
    await stage.start("web", "sleep", "1000")
    assert (await stage.refused(f"logs?{query}", upgrade=False))[0] == 400


SECOND = 1_000_000
BEGIN_US = 1_790_000_000 * SECOND


def stamped(second: int, text: str = "x" * 300) -> bytes:
    when = datetime.fromtimestamp(BEGIN_US // SECOND + second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{when} stdout F {text}\n".encode()


@pytest.mark.parametrize("hole", [0, 1 << 20])
@pytest.mark.parametrize("second", [-5, 0, 1, 2, 500, 1234, 2999, 3000, 3001, 4000, 99_999])
async def test_since_is_found_without_reading_what_is_older(tmp_path: Path, second: int, hole: int) -> None:
    """Also behind the hole that a long log has at its begin."""
    path = tmp_path / "0.log"
    lines = [stamped(n) for n in range(3000)]
    with path.open("wb") as made:
        made.seek(hole)
        # The first one is cut by the hole, the last one is still being written.
        made.write((b"cut\n" if hole else b"") + b"".join(lines) + b"2026-10-01T")
    before = hole and hole + len(b"cut\n")
    since_us = BEGIN_US + second * SECOND
    with path.open("rb") as file:
        at = since_start(file, since_us)
        file.seek(at)
        follows = file.readline()
    first = max(0, min(second, 3000))
    assert before <= at <= before + sum(map(len, lines[:first]))
    assert follows in (*lines, b"2026-10-01T")
    if second > 1000:
        assert at > before + sum(map(len, lines[: first - 500])), "most is not read at all"
    got = bytearray()

    async def take(_channel: int, data: bytes) -> None:
        got.extend(data)

    await InstanceLog(path).history(Selection(since_us=since_us), take)
    assert len(got) == 301 * (3000 - first)


async def test_more_lines_than_there_can_be_are_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"".join(stamped(n) for n in range(100)))
    got = bytearray()

    async def take(_channel: int, data: bytes) -> None:
        got.extend(data)

    monkeypatch.setattr("askos.loops.pod_logs._search_tail", lambda *_: pytest.fail("looked for"))
    await InstanceLog(path).history(Selection(tail=10**15), take)
    assert len(got) == 301 * 100
