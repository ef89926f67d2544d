"""Calls that an agent answers: run, exec, signals, logs and images."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from askos.loops.calls import Calls
from askos.model.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    RuntimeFailedError,
)
from askos.ports.calls import Frame

from .agent_host import SOON_S, Host, assignment, host, until
from .fakes import BUSYBOX, FakeHostCall, fake_image

__all__ = ["host"]  # fixtures


async def serving(host: Host, tmp_path: Path, *command: str, **more: Any) -> Calls:
    a = assignment("a", *command, **more)
    host.agent.snapshot([a])
    await host.settled(a)
    return Calls(host.agent, tmp_path / "uploads")


async def test_run(host: Host, tmp_path: Path) -> None:
    calls = await serving(host, tmp_path)

    async def run(*argv: str, limit: int = 100) -> Any:
        return await calls(FakeHostCall("run", {"capsule": "a", "argv": list(argv), "limit_bytes": limit}))

    assert await run("sh", "-c", "echo out; echo err >&2; exit 3") == {"output": "out\nerr\n", "exit_code": 3}
    assert await run("sh", "-c", "echo 123456789; exit 1", limit=4) == {"output": "1234", "exit_code": 1}
    assert await run("cat") == {"output": "", "exit_code": 0}
    with pytest.raises(RuntimeFailedError, match="nosuch"):
        await run("nosuch")
    with pytest.raises(NotFoundError):
        await calls(FakeHostCall("run", {"capsule": "b", "argv": ["id"], "limit_bytes": 1}))


async def test_exec(host: Host, tmp_path: Path) -> None:
    calls = await serving(host, tmp_path)
    request = {"argv": ["cat"], "stdin": True, "tty": False, "width": 80, "height": 24}
    given = [Frame(0, b"one"), Frame(control={"resize": [1, 2]}), Frame(0, b"two"), Frame(0, b"", eof=True)]
    call = FakeHostCall("exec", {"capsule": "a", "request": request}, given)
    assert await calls(call) == {"exit_code": 0}
    assert call.sent[0] == Frame(control={"started": True})
    assert call.text(1) == "onetwo"
    call = FakeHostCall("exec", {"capsule": "a", "request": {"argv": ["sh", "-c", "echo e >&2; exit 9"]}})
    assert await calls(call) == {"exit_code": 9}
    assert (call.text(1), call.text(2)) == ("", "e\n")
    call = FakeHostCall("exec", {"capsule": "a", "request": {"argv": ["nosuch"]}})
    with pytest.raises(RuntimeFailedError):
        await calls(call)
    assert call.sent == []  # so that the caller can still answer with an error


async def test_an_exec_that_is_given_up_ends_its_process(host: Host, tmp_path: Path) -> None:
    calls = await serving(host, tmp_path)
    closed: list[bool] = []
    real = host.runtime.exec

    async def note(container_id: str, request: Any) -> Any:
        session = await real(container_id, request)
        close = session.close

        async def noted() -> None:
            closed.append(True)
            await close()

        session.close = noted  # type: ignore[method-assign]
        return session

    host.runtime.exec = note  # type: ignore[method-assign]
    task = asyncio.ensure_future(calls(FakeHostCall("exec", {"capsule": "a", "request": {"argv": ["sleep", "1000"]}})))
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert closed == [True]


async def test_signals_and_what_does_not_run(host: Host, tmp_path: Path) -> None:
    calls = await serving(host, tmp_path, "sh", "-c", "trap 'exit 7' HUP; sleep 1000")
    await calls(FakeHostCall("signal", {"capsule": "a", "signal": 1}))
    await until(lambda: host.last("a").state == "exited")
    assert host.last("a").containers[0].exit_code == 7
    for method, more in (("signal", {"signal": 1}), ("run", {"argv": ["id"], "limit_bytes": 1})):
        with pytest.raises(ConflictError, match="not running"):
            await calls(FakeHostCall(method, {"capsule": "a", **more}))
    with pytest.raises(InvalidError, match='too old for "dance"'):
        await calls(FakeHostCall("dance", {}))


async def test_following_a_log_to_its_end(host: Host, tmp_path: Path) -> None:
    a = assignment("a", "sh", "-c", "echo one; sleep 0.2; echo two; echo bad >&2")
    host.agent.snapshot([a])
    calls = Calls(host.agent, tmp_path / "uploads")
    await host.settled(a, "running")
    call = FakeHostCall("logs", {"capsule": "a", "follow": True})
    following = asyncio.ensure_future(calls(call))
    await until(lambda: call.text() == "one\n")
    assert not following.done()
    await asyncio.wait_for(following, SOON_S)
    assert (call.text(1), call.text(2)) == ("one\ntwo\n", "bad\n")
    call = FakeHostCall("logs", {"capsule": "a", "tail": 1, "stderr": False, "timestamps": True})
    await calls(call)
    assert call.text() == "2024-01-01T00:00:00.000000000Z two\n"
    call = FakeHostCall("logs", {"capsule": "unknown", "follow": True})
    await asyncio.wait_for(calls(call), SOON_S)
    assert call.sent == []


async def test_images(host: Host, tmp_path: Path) -> None:
    calls = Calls(host.agent, tmp_path / "uploads")
    call = FakeHostCall("image_import", {"ref": None}, [Frame(0, b"image:x"), Frame(0, b"/y:1"), Frame(0, eof=True)])
    assert await calls(call) == ["x/y:1"]
    found = await calls(FakeHostCall("images", {}))
    assert sorted(tag for image in found for tag in image["tags"]) == [BUSYBOX, "docker.io/x/y:1"]
    host.runtime.registry["docker.io/library/new:latest"] = fake_image("new")
    call = FakeHostCall("image_pull", {"ref": "new"})
    assert (await calls(call))["tags"] == ["docker.io/library/new:latest"]
    assert call.sent == [Frame(control={"current": 1, "total": 2})]
    await calls(FakeHostCall("image_remove", {"ref": "new"}))
    with pytest.raises(NotFoundError):
        await calls(FakeHostCall("image_remove", {"ref": "new"}))
    with pytest.raises(InvalidError, match="cut off"):
        await calls(FakeHostCall("image_import", {"ref": None}, [Frame(0, b"image:half")]))
    with pytest.raises(InvalidError):
        await calls(FakeHostCall("image_import", {"ref": None}, [Frame(0, b"rubbish"), Frame(0, eof=True)]))
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_a_pull_that_nobody_waits_for_ends(host: Host, tmp_path: Path) -> None:
    host.runtime.stall["pull"] = asyncio.Event()
    task = asyncio.ensure_future(Calls(host.agent, tmp_path)(FakeHostCall("image_pull", {"ref": "new"})))
    await until(lambda: host.runtime.verbs("pull"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: host.runtime.cancelled == ["pull"])
