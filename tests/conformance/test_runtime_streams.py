"""Exec and attach of the runtime port: see test_runtime."""

from __future__ import annotations

import asyncio

import pytest

from askos.model.errors import ConflictError, RuntimeFailedError
from askos.ports.runtime import (
    AttachSession,
    ExecRequest,
    ExecSession,
)

from .subjects import QUICK_S, UNKNOWN, Subject

pytestmark = pytest.mark.asyncio(loop_scope="module")

# -- exec -------------------------------------------------------------------------------------------------------------


async def test_exec_has_output_and_an_exit_code(subject: Subject) -> None:
    _, _, container = await subject.up("sleep", "1000", environment={"WORD": "mine"})
    assert await subject.run(container, "sh", "-c", "echo $WORD; echo err >&2; exit 7") == (7, b"mine\n", b"err\n")
    assert await subject.run(container, "true") == (0, b"", b"")
    assert await subject.run(container, "false") == (1, b"", b"")


async def test_exec_has_variables_of_its_own(subject: Subject) -> None:
    _, _, container = await subject.up("sleep", "1000", environment={"WORD": "mine"})
    request = ExecRequest(["sh", "-c", "echo $WORD $MORE"], environment=["WORD=yours", "MORE=a"])
    session = await subject.runtime.exec(container, request)
    try:
        assert [data async for _, data in session.output()] == [b"yours a\n"]
        assert await session.wait() == 0
    finally:
        await session.close()


async def test_exec_reads_its_input_to_the_end(subject: Subject) -> None:
    _, _, container = await subject.up("sleep", "1000")
    assert await subject.run(container, "cat", stdin=b"some words\n") == (0, b"some words\n", b"")
    assert await subject.run(container, "cat", stdin=b"") == (0, b"", b"")
    assert await subject.run(container, "cat") == (0, b"", b"")  # no input: an end at once


async def test_exec_sees_and_writes_the_containers_files(subject: Subject) -> None:
    _, _, container = await subject.up("sleep", "1000")
    assert (await subject.run(container, "sh", "-c", "echo here > /file"))[0] == 0
    assert await subject.run(container, "cat", "/file") == (0, b"here\n", b"")


async def test_a_terminal_has_one_stream(subject: Subject) -> None:
    _, _, container = await subject.up("sleep", "1000")
    assert await subject.run(container, "sh", "-c", "echo a; echo b >&2", tty=True) == (0, b"a\r\nb\r\n", b"")


async def test_exec_of_nothing_fails_for_good(subject: Subject) -> None:
    _, _, container = await subject.up("sleep", "1000")
    with pytest.raises(RuntimeFailedError, match="nosuch") as caught:
        await subject.runtime.exec(container, ExecRequest(["nosuch"]))
    assert not caught.value.retryable


async def test_exec_needs_a_running_container(subject: Subject) -> None:
    capsule, _, container = await subject.made("true")
    with pytest.raises(ConflictError):
        await subject.runtime.exec(container, ExecRequest(["true"]))
    await subject.runtime.start_container(container)
    await subject.ended(capsule, container)
    with pytest.raises(ConflictError):
        await subject.runtime.exec(container, ExecRequest(["true"]))


async def test_exec_needs_a_container_that_is_not_paused(subject: Subject) -> None:
    _, _, container = await subject.up("sleep", "1000")
    await subject.runtime.pause(container)
    with pytest.raises(ConflictError, match="paused"):
        await subject.runtime.exec(container, ExecRequest(["true"]))
    await subject.runtime.unpause(container)
    assert await subject.run(container, "true") == (0, b"", b"")


async def test_closing_kills_what_still_runs(subject: Subject) -> None:
    _, _, container = await subject.up("sleep", "1000")
    session: ExecSession = await subject.runtime.exec(container, ExecRequest(["sleep", "1000"], stdin=True, tty=True))
    await session.resize(100, 30)
    waiting = asyncio.create_task(session.wait())
    await asyncio.sleep(0.05)
    async with asyncio.timeout(QUICK_S):
        await session.close()
        await session.close()
    waiting.cancel()
    outcome = (await asyncio.gather(waiting, return_exceptions=True))[0]
    assert outcome == 137 or isinstance(outcome, asyncio.CancelledError)


async def test_writing_to_a_process_that_has_ended_does_not_hang(subject: Subject) -> None:
    _, _, container = await subject.up("sleep", "1000")
    session = await subject.runtime.exec(container, ExecRequest(["true"], stdin=True))
    try:
        async with asyncio.timeout(QUICK_S):
            assert await session.wait() == 0
            for _ in range(40):
                await session.write(b"x" * 65536)
            await session.close_stdin()
    finally:
        await session.close()


# -- attach -----------------------------------------------------------------------------------------------------------


class Reader:
    """Collects what an attached client gets."""

    def __init__(self, session: AttachSession) -> None:
        self.got = {"stdout": b"", "stderr": b""}
        self._task = asyncio.create_task(self._read(session))

    async def _read(self, session: AttachSession) -> None:
        async for stream, data in session.output():
            self.got[stream] += data

    async def until(self, words: bytes, stream: str = "stdout") -> None:
        async with asyncio.timeout(QUICK_S):
            while words not in self.got[stream]:
                if self._task.done():
                    self._task.result()
                    assert words in self.got[stream]
                await asyncio.sleep(0.01)

    async def end(self) -> dict[str, bytes]:
        async with asyncio.timeout(QUICK_S):
            await self._task
        return self.got


async def test_attach_reads_and_writes_to_the_end(subject: Subject) -> None:
    capsule, _, container = await subject.up("cat", interactive=True, stdin_once=True)
    session = await subject.runtime.attach(container, stdin=True, tty=False)
    try:
        await session.write(b"one\n")
        await session.write(b"two\n")
        await session.close_stdin()
        assert await Reader(session).end() == {"stdout": b"one\ntwo\n", "stderr": b""}
    finally:
        await session.close()
    assert (await subject.ended(capsule, container)).exit_code == 0
    assert subject.log(capsule) == ["stdout one", "stdout two"]


async def test_without_stdin_once_the_next_client_goes_on(subject: Subject) -> None:
    capsule, _, container = await subject.up("cat", interactive=True)
    for word in (b"one\n", b"two\n"):
        session = await subject.runtime.attach(container, stdin=True, tty=False)
        reader = Reader(session)
        await session.write(word)
        await reader.until(word)
        await session.close_stdin()
        await session.write(b"not heard\n")
        await session.close()
        assert (await reader.end())["stdout"] == word
    assert (await subject.see(capsule, container)).state == "running"


async def test_the_streams_are_told_apart(subject: Subject) -> None:
    _, _, container = await subject.up("sh", interactive=True, stdin_once=True)
    session = await subject.runtime.attach(container, stdin=True, tty=False)
    try:
        await session.write(b"echo good\necho bad >&2\n")
        await session.close_stdin()
        assert await Reader(session).end() == {"stdout": b"good\n", "stderr": b"bad\n"}
    finally:
        await session.close()


async def test_two_clients_see_the_same(subject: Subject) -> None:
    _, _, container = await subject.up("cat", interactive=True, stdin_once=True)
    passer_by = await subject.runtime.attach(container, stdin=False, tty=False)
    watcher = await subject.runtime.attach(container, stdin=False, tty=False)
    await passer_by.close()  # who does not write does not end the input either
    writer = await subject.runtime.attach(container, stdin=True, tty=False)
    try:
        readers = [Reader(watcher), Reader(writer)]
        await watcher.write(b"nobody hears this\n")
        # A client that has come may get output from a moment later on: say it until all have heard it.
        async with asyncio.timeout(QUICK_S):
            while not all(b"both\n" in reader.got["stdout"] for reader in readers):
                await writer.write(b"both\n")
                await asyncio.sleep(0.02)
        await writer.write(b"end\n")
        await writer.close_stdin()
        ends = [(await reader.end())["stdout"] for reader in readers]
        for end in ends:
            assert end.endswith(b"both\nend\n")
            assert set(end.splitlines()) == {b"both", b"end"}
    finally:
        await watcher.close()
        await writer.close()


async def test_a_terminal_has_a_size(subject: Subject) -> None:
    capsule, _, container = await subject.up("sh", interactive=True, tty=True, stdin_once=True)
    session = await subject.runtime.attach(container, stdin=True, tty=True)
    try:
        reader = Reader(session)
        await session.resize(101, 37)
        # The size travels on a way of its own: ask until it has come.
        async with asyncio.timeout(QUICK_S):
            while b"37 101\r\n" not in reader.got["stdout"]:
                await session.write(b"stty size\n")
                await asyncio.sleep(0.1)
        await session.write(b"exit 4\n")
        assert (await reader.end())["stderr"] == b""
    finally:
        await session.close()
    assert (await subject.ended(capsule, container)).exit_code == 4


async def test_the_echo_and_the_end_of_input_of_a_terminal(subject: Subject) -> None:
    capsule, _, container = await subject.up("cat", interactive=True, tty=True, stdin_once=True)
    session = await subject.runtime.attach(container, stdin=True, tty=True)
    try:
        reader = Reader(session)
        await session.write(b"word\n")
        await reader.until(b"word\r\nword\r\n")
        await session.close_stdin()
        await reader.end()
    finally:
        await session.close()
    assert (await subject.ended(capsule, container)).exit_code == 0


async def test_detaching_leaves_the_process_alone(subject: Subject) -> None:
    capsule, _, container = await subject.up("sh", interactive=True, tty=True, stdin_once=True)
    session = await subject.runtime.attach(container, stdin=True, tty=True)
    await session.write(b"echo there\n")
    await Reader(session).until(b"there")
    for _ in range(2):
        await session.close()
    assert (await subject.see(capsule, container)).state == "running"
    again = await subject.runtime.attach(container, stdin=True, tty=True)
    reader = Reader(again)
    await again.write(b"echo back\n")
    await reader.until(b"back")
    await again.close()


async def test_a_killed_process_ends_the_output_and_frees_who_writes(subject: Subject) -> None:
    _, _, container = await subject.up("sleep", "1000", interactive=True)
    session = await subject.runtime.attach(container, stdin=True, tty=False)
    try:

        async def flood() -> None:
            for _ in range(200):
                await session.write(b"x" * 65536)

        flooding = asyncio.create_task(flood())
        await asyncio.sleep(0.5)
        assert not flooding.done()  # nobody reads, so it waits
        await subject.runtime.stop_container(container, 0)
        async with asyncio.timeout(QUICK_S):
            await flooding
            assert [chunk async for chunk in session.output()] == []
            await session.close_stdin()
    finally:
        await session.close()


async def test_attach_needs_what_the_container_was_made_with(subject: Subject) -> None:
    capsule, _, container = await subject.made("sleep", "1000")
    with pytest.raises(ConflictError):
        await subject.runtime.attach(container, stdin=False, tty=False)
    await subject.runtime.start_container(container)
    for more in ({"stdin": True, "tty": False}, {"stdin": False, "tty": True}):
        with pytest.raises(ConflictError):
            await subject.runtime.attach(container, **more)
    await subject.runtime.stop_container(container, 0)
    await subject.ended(capsule, container)
    for gone in (container, UNKNOWN):
        with pytest.raises(ConflictError):
            await subject.runtime.attach(gone, stdin=False, tty=False)
