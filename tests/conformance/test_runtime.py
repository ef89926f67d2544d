"""The contract of `ports.runtime.Runtime`, held against the fake that other tests stand on and against containerd.

Whatever the agent relies on stands here once. A difference between the two is a bug in one of them.
"""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from askos.adapters.containerd.runtime import ContainerdRuntime
from askos.model.errors import AskosError, ConflictError, InvalidError, NotFoundError, RuntimeFailedError
from askos.ports.runtime import (
    AttachSession,
    Container,
    ContainerConfig,
    ExecRequest,
    ExecSession,
    Limits,
    Mount,
    Runtime,
    Sandbox,
    SandboxConfig,
    Security,
)
from tests.integration.containerd_fixtures import close_bench, needs_containerd, open_bench
from tests.unit.fakes import BUSYBOX, FakeRuntime

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNKNOWN = "0" * 64
QUICK_S = 20.0


class Subject:
    """A runtime under test, and short ways to make things."""

    def __init__(self, runtime: Runtime, logs: Path, *, real: bool) -> None:
        self.runtime = runtime
        self.logs = logs
        self.real = real

    def sandbox(self, capsule: str | None = None, attempt: int = 0, **more: Any) -> SandboxConfig:
        return SandboxConfig(capsule or str(uuid.uuid4()), "test", "p1", attempt, "box", ["10.1.2.1"], **more)

    def container(self, capsule: str, *argv: str, run: int = 1, attempt: int = 0, **more: Any) -> ContainerConfig:
        fields: dict[str, Any] = {
            "capsule_uuid": capsule, "name": "main", "run": run, "attempt": attempt, "image_ref": BUSYBOX,
            "entrypoint": None, "command": list(argv) or None, "environment": {}, "workdir": None,
            "interactive": False, "tty": False, "cpu": 1.0, "memory_bytes": 64 << 20,
        }  # fmt: skip
        return ContainerConfig(**{**fields, **more})

    async def made(self, *argv: str, within: SandboxConfig | None = None, **more: Any) -> tuple[str, str, str]:
        """A container that has not started: (capsule, sandbox id, container id)."""
        config = within or self.sandbox()
        sandbox = await self.runtime.run_sandbox(config)
        wanted = self.container(config.capsule_uuid, *argv, **more)
        return config.capsule_uuid, sandbox, await self.runtime.create_container(sandbox, wanted, config)

    async def up(self, *argv: str, within: SandboxConfig | None = None, **more: Any) -> tuple[str, str, str]:
        """A started one."""
        capsule, sandbox, container = await self.made(*argv, within=within, **more)
        await self.runtime.start_container(container)
        return capsule, sandbox, container

    async def see(self, capsule: str, container: str) -> Container:
        _, containers = await self.runtime.observe(capsule)
        return next(c for c in containers if c.id == container)

    async def ended(self, capsule: str, container: str) -> Container:
        async with asyncio.timeout(QUICK_S):
            while (seen := await self.see(capsule, container)).state != "exited":
                await asyncio.sleep(0.02)
        return seen

    async def run(
        self, container: str, *argv: str, stdin: bytes | None = None, tty: bool = False
    ) -> tuple[int, bytes, bytes]:
        """An exec to its end: (code, stdout, stderr)."""
        async with asyncio.timeout(QUICK_S):
            session = await self.runtime.exec(container, ExecRequest(list(argv), tty=tty, stdin=stdin is not None))
            try:
                if stdin is not None:
                    await session.write(stdin)
                    await session.close_stdin()
                kept = {"stdout": b"", "stderr": b""}
                async for stream, data in session.output():
                    kept[stream] += data
                return await session.wait(), kept["stdout"], kept["stderr"]
            finally:
                await session.close()

    async def text(self, container: str, *argv: str) -> str:
        """What a command in the container says."""
        code, out, err = await self.run(container, *argv)
        assert code == 0, err
        return out.decode()

    async def said(self, capsule: str, name: str = "1-0.log") -> None:
        """Wait until the container has written a line."""
        async with asyncio.timeout(QUICK_S):
            while not (self.logs / capsule / name).exists() or not self.log(capsule, name):
                await asyncio.sleep(0.02)

    def log(self, capsule: str, name: str = "1-0.log") -> list[str]:
        """Stream and text of each line of a log."""
        lines = (self.logs / capsule / name).read_text().splitlines()
        return [f"{line.split(' ', 3)[1]} {line.split(' ', 3)[3]}" for line in lines]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["fake", "containerd", "prepared"])
async def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    if request.param == "fake":
        fake = FakeRuntime(tmp_path_factory.mktemp("logs"))
        fake.add_image()
        yield Subject(fake, fake.log_root or Path(), real=False)
        await fake.close()
        return
    needs_containerd()
    bench = await open_bench()
    try:
        yield Subject(bench.runtime, bench.logs, real=True)
    finally:
        await close_bench(bench)


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def ready(request: pytest.FixtureRequest, subject: Subject) -> None:
    """In the third round every test finds prepared sandboxes, and must not notice."""
    if "prepared" in request.node.callspec.id:
        assert isinstance(subject.runtime, ContainerdRuntime)
        await subject.runtime.prepare(2)
        async with asyncio.timeout(QUICK_S):
            while subject.runtime.warm.ready < 2:
                await asyncio.sleep(0.02)


# -- sandboxes --------------------------------------------------------------------------------------------------------


async def test_a_sandbox_from_begin_to_end(subject: Subject) -> None:
    config = subject.sandbox(attempt=3)
    before = time.time_ns() // 1000
    made = await subject.runtime.run_sandbox(config)
    sandboxes, containers = await subject.runtime.observe(config.capsule_uuid)
    assert containers == []
    assert sandboxes == [Sandbox(made, config.capsule_uuid, 3, True, sandboxes[0].created_us)]
    assert before - 1_000_000 <= sandboxes[0].created_us <= time.time_ns() // 1000
    await subject.runtime.stop_sandbox(made)
    assert [s.ready for s in (await subject.runtime.observe(config.capsule_uuid))[0]] == [False]
    await subject.runtime.remove_sandbox(made)
    assert await subject.runtime.observe(config.capsule_uuid) == ([], [])


async def test_one_attempt_is_one_sandbox(subject: Subject) -> None:
    config = subject.sandbox()
    ids = {await subject.runtime.run_sandbox(config) for _ in range(2)}
    ids |= set(await asyncio.gather(*(subject.runtime.run_sandbox(config) for _ in range(3))))
    assert len(ids) == 1
    other = await subject.runtime.run_sandbox(subject.sandbox(config.capsule_uuid, 1))
    assert other not in ids
    assert len((await subject.runtime.observe(config.capsule_uuid))[0]) == 2


async def test_stopping_a_sandbox_ends_what_runs_in_it(subject: Subject) -> None:
    capsule, sandbox, container = await subject.up("sleep", "1000")
    for _ in range(2):
        await subject.runtime.stop_sandbox(sandbox)
    ended = await subject.ended(capsule, container)
    assert ended.exit_code == 137
    for _ in range(2):
        await subject.runtime.remove_sandbox(sandbox)
    assert await subject.runtime.observe(capsule) == ([], [])


async def test_a_running_sandbox_can_be_removed_at_once(subject: Subject) -> None:
    capsule, sandbox, _ = await subject.up("sleep", "1000")
    await subject.runtime.remove_sandbox(sandbox)
    assert await subject.runtime.observe(capsule) == ([], [])


async def test_a_container_needs_a_sandbox_that_runs(subject: Subject) -> None:
    config = subject.sandbox()
    wanted = subject.container(config.capsule_uuid, "sleep", "1000")
    with pytest.raises(RuntimeFailedError):
        await subject.runtime.create_container(UNKNOWN, wanted, config)
    capsule, sandbox, container = await subject.made("sleep", "1000")
    await subject.runtime.stop_sandbox(sandbox)
    with pytest.raises(RuntimeFailedError):
        await subject.runtime.create_container(sandbox, subject.container(capsule, "sleep", "1", run=2), config)
    # What had been made before can be removed, whatever became of it.
    assert (await subject.see(capsule, container)).state in ("created", "exited")
    await subject.runtime.remove_container(container)
    assert (await subject.runtime.observe(capsule))[1] == []


# -- what is not there ------------------------------------------------------------------------------------------------


async def test_ending_what_is_gone_succeeds(subject: Subject) -> None:
    await subject.runtime.stop_sandbox(UNKNOWN)
    await subject.runtime.remove_sandbox(UNKNOWN)
    await subject.runtime.stop_container(UNKNOWN, 1)
    await subject.runtime.remove_container(UNKNOWN)
    await subject.runtime.remove_image("docker.io/library/nothing:here")
    assert await subject.runtime.observe(str(uuid.uuid4())) == ([], [])


async def test_using_what_is_gone_fails(subject: Subject) -> None:
    with pytest.raises(RuntimeFailedError):
        await subject.runtime.start_container(UNKNOWN)
    with pytest.raises(ConflictError):
        await subject.runtime.signal(UNKNOWN, signal.SIGTERM)
    with pytest.raises(ConflictError):
        await subject.runtime.exec(UNKNOWN, ExecRequest(["true"]))
    with pytest.raises(RuntimeFailedError):
        await subject.runtime.carry_layer(UNKNOWN, "1" * 64)
    _, _, container = await subject.made("sleep", "1000")
    with pytest.raises(AskosError):
        await subject.runtime.carry_layer(UNKNOWN, container)


async def test_an_image_that_is_not_there_is_named(subject: Subject) -> None:
    assert await subject.runtime.image("nothing/here:1") is None
    config = subject.sandbox()
    sandbox = await subject.runtime.run_sandbox(config)
    wanted = subject.container(config.capsule_uuid, "true", image_ref="docker.io/nothing/here:1")
    with pytest.raises(NotFoundError, match=r"docker\.io/nothing/here:1"):
        await subject.runtime.create_container(sandbox, wanted, config)


# -- containers -------------------------------------------------------------------------------------------------------


async def test_one_run_and_attempt_is_one_container(subject: Subject) -> None:
    capsule, sandbox, first = await subject.made("sleep", "1000")
    config = subject.sandbox(capsule)
    again = [
        await subject.runtime.create_container(sandbox, subject.container(capsule, "sleep", "1000"), config)
        for _ in range(2)
    ]
    assert again == [first, first]
    second = await subject.runtime.create_container(sandbox, subject.container(capsule, "true", attempt=1), config)
    third = await subject.runtime.create_container(sandbox, subject.container(capsule, "true", run=2), config)
    _, containers = await subject.runtime.observe(capsule)
    assert {(c.id, c.run, c.attempt) for c in containers} == {(first, 1, 0), (second, 1, 1), (third, 2, 0)}


async def test_the_fields_of_a_container_over_its_life(subject: Subject) -> None:
    begin = time.time_ns() // 1000
    capsule, sandbox, container = await subject.made("sh", "-c", "sleep 0.2; exit 3")
    created = await subject.see(capsule, container)
    assert (created.sandbox_id, created.capsule_uuid, created.name) == (sandbox, capsule, "main")
    assert (created.run, created.attempt, created.state) == (1, 0, "created")
    assert (created.exit_code, created.started_us, created.finished_us) == (None, None, None)
    image = await subject.runtime.image(BUSYBOX)
    assert image is not None
    assert created.image_id == image.id
    await subject.runtime.start_container(container)
    running = await subject.see(capsule, container)
    assert running.state == "running"
    assert running.started_us is not None
    assert (running.exit_code, running.finished_us) == (None, None)
    ended = await subject.ended(capsule, container)
    assert (ended.exit_code, ended.reason) == (3, "Error")
    assert ended.started_us is not None
    assert ended.finished_us is not None
    assert begin <= ended.created_us <= ended.started_us <= ended.finished_us <= time.time_ns() // 1000
    assert ended.started_us == running.started_us
    assert (await subject.see(capsule, container)).id in {c.id for c in (await subject.runtime.observe())[1]}


async def test_success_is_completed(subject: Subject) -> None:
    capsule, _, container = await subject.up("true")
    ended = await subject.ended(capsule, container)
    assert (ended.exit_code, ended.reason) == (0, "Completed")


async def test_starting_what_runs_or_has_run_does_nothing(subject: Subject) -> None:
    capsule, _, container = await subject.up("sh", "-c", "echo once; sleep 0.3")
    await subject.runtime.start_container(container)
    await subject.ended(capsule, container)
    await subject.runtime.start_container(container)
    assert (await subject.see(capsule, container)).state == "exited"
    assert subject.log(capsule) == ["stdout once"]


async def test_a_program_that_is_not_there_fails_for_good_each_time(subject: Subject) -> None:
    capsule, _, container = await subject.made("nosuch")
    for _ in range(2):
        with pytest.raises(RuntimeFailedError, match="nosuch") as caught:
            await subject.runtime.start_container(container)
        assert not caught.value.retryable
    seen = await subject.see(capsule, container)
    assert seen.state == "exited"
    assert seen.started_us is None
    await subject.runtime.remove_container(container)


async def test_stopping(subject: Subject) -> None:
    capsule, _, container = await subject.up("sh", "-c", "trap 'exit 5' TERM; echo ready; sleep 2; sleep 1000")
    async with asyncio.timeout(QUICK_S):
        while not (subject.logs / capsule / "1-0.log").exists() or not subject.log(capsule):
            await asyncio.sleep(0.02)
    await subject.runtime.stop_container(container, 30)
    assert (await subject.see(capsule, container)).exit_code == 5
    await subject.runtime.stop_container(container, 30)
    assert (await subject.see(capsule, container)).exit_code == 5


async def test_stopping_kills_after_the_grace(subject: Subject) -> None:
    capsule, _, container = await subject.up("sleep", "1000")  # which, being the first process, ignores SIGTERM
    started = time.monotonic()
    await subject.runtime.stop_container(container, 1)
    assert 0.9 < time.monotonic() - started < 10
    assert (await subject.see(capsule, container)).exit_code == 137


async def test_signals(subject: Subject) -> None:
    script = "trap 'exit 9' USR1; echo ready; sleep 0.1; sleep 0.1; sleep 0.1; sleep 0.1; sleep 0.1; sleep 0.1; sleep 1"
    capsule, _, container = await subject.up("sh", "-c", script)
    async with asyncio.timeout(QUICK_S):
        while not (subject.logs / capsule / "1-0.log").exists() or not subject.log(capsule):
            await asyncio.sleep(0.01)
    await subject.runtime.signal(container, signal.SIGUSR1)
    assert (await subject.ended(capsule, container)).exit_code == 9
    with pytest.raises(ConflictError):
        await subject.runtime.signal(container, signal.SIGUSR1)
    capsule, _, container = await subject.up("sleep", "1000")
    await subject.runtime.signal(container, signal.SIGKILL)
    assert (await subject.ended(capsule, container)).exit_code == 137


async def test_a_signal_needs_a_process(subject: Subject) -> None:
    _, _, container = await subject.made("sleep", "1000")
    with pytest.raises(ConflictError):
        await subject.runtime.signal(container, signal.SIGTERM)


async def test_removing_kills_first(subject: Subject) -> None:
    capsule, _, container = await subject.up("sleep", "1000")
    for _ in range(2):
        await subject.runtime.remove_container(container)
    assert (await subject.runtime.observe(capsule))[1] == []


async def test_environment_output_and_log(subject: Subject) -> None:
    capsule, _, container = await subject.up(
        "sh", "-c", "echo $WORD; echo bad >&2", environment={"WORD": "one"}
    )  # fmt: skip
    await subject.ended(capsule, container)
    assert sorted(subject.log(capsule)) == ["stderr bad", "stdout one"]


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (["echo", "one"], ["two"], "one two"),
        (["echo", "one"], None, "one"),
        ([], ["echo", "three"], "three"),
        (None, ["echo", "four"], "four"),
    ],
)
async def test_entrypoint_and_command(
    subject: Subject, entrypoint: list[str] | None, command: list[str] | None, expected: str
) -> None:
    capsule, _, container = await subject.up(entrypoint=entrypoint, command=command)
    await subject.ended(capsule, container)
    assert subject.log(capsule) == [f"stdout {expected}"]


async def test_without_a_command_the_image_says_what_to_run(subject: Subject) -> None:
    capsule, _, container = await subject.up()  # the image's shell, which reads the end of its input
    assert (await subject.ended(capsule, container)).exit_code == 0


async def test_open_standard_input_keeps_a_shell_alive(subject: Subject) -> None:
    capsule, _, container = await subject.up(interactive=True)
    await asyncio.sleep(0.3)
    assert (await subject.see(capsule, container)).state == "running"


# -- layers -----------------------------------------------------------------------------------------------------------


async def test_files_go_over_once_however_often_it_is_asked(subject: Subject) -> None:
    capsule, sandbox, old = await subject.up("sh", "-c", "echo one > /kept; exit 0")
    await subject.ended(capsule, old)
    config = subject.sandbox(capsule)
    second = subject.container(capsule, "sh", "-c", "cat /kept; echo two >> /kept", run=2)
    new = await subject.runtime.create_container(sandbox, second, config)
    for _ in range(3):
        await subject.runtime.carry_layer(old, new)
    await subject.runtime.start_container(new)
    await subject.ended(capsule, new)
    assert subject.log(capsule, "2-0.log") == ["stdout one"]
    with pytest.raises(ConflictError):  # it has started: its files are its own
        await subject.runtime.carry_layer(old, new)
    third = await subject.runtime.create_container(
        sandbox, subject.container(capsule, "sh", "-c", "cat /kept", run=3), config
    )
    await subject.runtime.carry_layer(new, third)
    await subject.runtime.remove_container(new)
    await subject.runtime.remove_container(old)
    await subject.runtime.start_container(third)
    await subject.ended(capsule, third)
    assert subject.log(capsule, "3-0.log") == ["stdout one", "stdout two"]


async def test_files_that_were_given_can_be_given_back(subject: Subject) -> None:
    capsule, sandbox, old = await subject.up("sh", "-c", "echo one > /kept; exit 0")
    await subject.ended(capsule, old)
    config = subject.sandbox(capsule)

    async def made(run: int) -> str:
        wanted = subject.container(capsule, "sh", "-c", "cat /kept", run=run)
        return await subject.runtime.create_container(sandbox, wanted, config)

    given = await made(2)
    for giver, taker in ((old, given), (given, old), (given, old)):  # as after a crash, which asks again
        await subject.runtime.carry_layer(giver, taker)
    await subject.runtime.start_container(given)
    assert (await subject.ended(capsule, given)).exit_code == 1  # nothing is left of the gift
    last = await made(3)
    await subject.runtime.carry_layer(old, last)
    await subject.runtime.start_container(last)
    await subject.ended(capsule, last)
    assert subject.log(capsule, "3-0.log") == ["stdout one"]


async def test_files_of_a_running_container_stay(subject: Subject) -> None:
    capsule, sandbox, old = await subject.up("sleep", "1000")
    new = await subject.runtime.create_container(
        sandbox, subject.container(capsule, "true", run=2), subject.sandbox(capsule)
    )
    with pytest.raises(ConflictError):
        await subject.runtime.carry_layer(old, new)


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


# -- pods -------------------------------------------------------------------------------------------------------------


async def test_several_containers_share_a_sandbox_and_have_logs_of_their_own(subject: Subject) -> None:
    config = subject.sandbox()
    sandbox = await subject.runtime.run_sandbox(config)
    ids = {}
    for name, script in (("one", "echo first; exit 3"), ("two", "sleep 1000")):
        wanted = subject.container(
            config.capsule_uuid, "sh", "-c", script, name=name, log_name=f"{name}/0.log", spec_hash=f"hash-{name}"
        )
        ids[name] = await subject.runtime.create_container(sandbox, wanted, config)
        await subject.runtime.start_container(ids[name])
    ended = await subject.ended(config.capsule_uuid, ids["one"])
    assert (ended.name, ended.exit_code, ended.spec_hash, ended.oom_killed) == ("one", 3, "hash-one", False)
    assert subject.log(config.capsule_uuid, "one/0.log") == ["stdout first"]
    other = await subject.see(config.capsule_uuid, ids["two"])
    assert (other.state, other.sandbox_id, other.spec_hash) == ("running", sandbox, "hash-two")


async def test_an_attempt_of_a_restarted_container_keeps_the_old_log(subject: Subject) -> None:
    config = subject.sandbox()
    sandbox = await subject.runtime.run_sandbox(config)
    for attempt in (0, 1):
        wanted = subject.container(
            config.capsule_uuid, "sh", "-c", f"echo {attempt}", attempt=attempt, log_name=f"main/{attempt}.log"
        )
        container = await subject.runtime.create_container(sandbox, wanted, config)
        await subject.runtime.start_container(container)
        await subject.ended(config.capsule_uuid, container)
    assert [subject.log(config.capsule_uuid, f"main/{n}.log") for n in (0, 1)] == [["stdout 0"], ["stdout 1"]]


async def test_mounts_are_read_and_written(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from outside\n")
    (tmp_path / "writable").mkdir()
    mounts = [
        Mount(str(tmp_path), "/data", read_only=True),
        Mount(str(tmp_path / "writable"), "/data/writable"),
        Mount(str(tmp_path / "file"), "/etc/one-file", read_only=True),
    ]
    _, _, container = await subject.up("sleep", "1000", mounts=mounts)
    assert await subject.text(container, "cat", "/data/file") == "from outside\n"
    assert await subject.text(container, "cat", "/etc/one-file") == "from outside\n"
    assert (await subject.run(container, "sh", "-c", "echo bad > /data/new"))[0] == 1
    assert (await subject.run(container, "sh", "-c", "echo bad > /etc/one-file"))[0] == 1
    assert (await subject.run(container, "sh", "-c", "echo good > /data/writable/new"))[0] == 0
    assert (tmp_path / "writable" / "new").read_text() == "good\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "writable"]
    (tmp_path / "file").write_text("changed\n")
    assert await subject.text(container, "cat", "/data/file") == "changed\n"


async def test_who_the_process_is(subject: Subject) -> None:
    for security, expected in (
        (Security(), ["0", "0"]),
        (Security(run_as_user=1000), ["1000", "0"]),
        (Security(run_as_user=1000, run_as_group=2000), ["1000", "2000"]),
        (Security(run_as_group=2000), ["0", "2000"]),
    ):
        _, sandbox, container = await subject.up("sleep", "1000", security=security)
        assert [(await subject.text(container, "id", flag)).strip() for flag in ("-u", "-g")] == expected
        await subject.runtime.remove_sandbox(sandbox)
    security = Security(run_as_user=1000, run_as_group=2000, supplemental_groups=[3000, 4000])
    _, _, container = await subject.up("sleep", "1000", security=security)
    assert sorted((await subject.text(container, "id", "-G")).split()) == ["2000", "3000", "4000"]


async def test_a_root_folder_can_be_read_only(subject: Subject, tmp_path: Path) -> None:
    more: dict[str, Any] = {"security": Security(read_only_root=True), "mounts": [Mount(str(tmp_path), "/scratch")]}
    _, _, container = await subject.up("sleep", "1000", **more)
    assert (await subject.run(container, "sh", "-c", "echo x > /file"))[0] == 1
    assert (await subject.run(container, "sh", "-c", "echo x > /scratch/file"))[0] == 0


async def test_how_a_process_is_confined(subject: Subject) -> None:
    if not subject.real:
        pytest.skip("the fake's processes are not confined")

    async def status(security: Security) -> dict[str, str]:
        _, sandbox, container = await subject.up("sleep", "1000", security=security)
        text = await subject.text(container, "cat", "/proc/1/status")
        await subject.runtime.remove_sandbox(sandbox)
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)

    default = await status(Security())
    assert (default["CapEff"], default["NoNewPrivs"], default["Seccomp"]) == ("00000000a80425fb", "1", "2")
    more = await status(Security(add_capabilities=["NET_ADMIN"], drop_capabilities=["MKNOD"]))
    assert int(more["CapEff"], 16) == (0xA80425FB | 1 << 12) & ~(1 << 27)
    assert int((await status(Security(drop_capabilities=["ALL"])))["CapEff"], 16) == 0
    one = await status(Security(drop_capabilities=["ALL"], add_capabilities=["CHOWN"]))
    assert int(one["CapEff"], 16) == 1
    every = await status(Security(add_capabilities=["ALL"], drop_capabilities=["CHOWN"]))
    assert int(every["CapEff"], 16) > 0xA80425FB
    assert int(every["CapEff"], 16) & 1 == 0
    free = await status(Security(no_new_privileges=False, seccomp="unconfined"))
    assert (free["NoNewPrivs"], free["Seccomp"]) == ("0", "0")
    user = await status(Security(run_as_user=1000))
    assert int(user["CapEff"], 16) == 0


async def test_a_privileged_container(subject: Subject) -> None:
    if not subject.real:
        pytest.skip("the fake's processes are not confined")
    security = Security(privileged=True, no_new_privileges=False)
    _, _, container = await subject.up("sleep", "1000", security=security)
    text = await subject.text(container, "cat", "/proc/1/status")
    assert "Seccomp:\t0" in text
    assert (await subject.run(container, "sh", "-c", "cat /proc/sys/kernel/hostname > /proc/sys/kernel/hostname"))[
        0
    ] == 0


async def test_kernel_settings_of_a_sandbox(subject: Subject) -> None:
    within = subject.sandbox(sysctls={"net.ipv4.tcp_syncookies": "0", "net.ipv4.ip_unprivileged_port_start": "500"})
    _, _, container = await subject.up("sleep", "1000", within=within)
    assert await subject.text(container, "cat", "/proc/sys/net/ipv4/tcp_syncookies") == "0\n"
    assert await subject.text(container, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start") == "500\n"


async def test_dns_options(subject: Subject) -> None:
    if not subject.real:
        pytest.skip("the fake has no resolver")
    within = subject.sandbox(dns_search=["a.test", "b.test"], dns_options=["ndots:5", "rotate"])
    _, _, container = await subject.up("sleep", "1000", within=within)
    lines = (await subject.text(container, "cat", "/etc/resolv.conf")).splitlines()
    assert lines == ["search a.test b.test", "nameserver 10.1.2.1", "options ndots:5 rotate"]


@pytest.mark.parametrize("shared", [False, True])
async def test_processes_are_shared_if_wanted(subject: Subject, shared: bool) -> None:
    config = subject.sandbox(share_pid=shared)
    sandbox = await subject.runtime.run_sandbox(config)
    ids = []
    for name in ("a", "b"):
        argv = ("sleep", "1234" if name == "a" else "5678")
        wanted = subject.container(config.capsule_uuid, *argv, name=name, share_pid=shared)
        ids.append(await subject.runtime.create_container(sandbox, wanted, config))
        await subject.runtime.start_container(ids[-1])
    listing = await subject.text(ids[0], "ps")
    assert "sleep 1234" in listing
    assert ("sleep 5678" in listing) is shared
    # The first process of a namespace ignores signals that it does not handle, others do not.
    await subject.runtime.stop_container(ids[1], 1)
    ended = await subject.ended(config.capsule_uuid, ids[1])
    assert ended.exit_code == (143 if shared else 137)
    assert (await subject.see(config.capsule_uuid, ids[0])).state == "running"
    assert "sleep 5678" not in await subject.text(ids[0], "ps")


async def test_killing_with_shared_processes_leaves_none_of_the_container(subject: Subject) -> None:
    if not subject.real:
        pytest.skip("the fake's containers have one process")
    config = subject.sandbox(share_pid=True)
    sandbox = await subject.runtime.run_sandbox(config)
    ids = []
    for name, script in (("a", "sleep 1000"), ("b", "sleep 2222 & sleep 3333")):
        wanted = subject.container(config.capsule_uuid, "sh", "-c", script, name=name, share_pid=True)
        ids.append(await subject.runtime.create_container(sandbox, wanted, config))
        await subject.runtime.start_container(ids[-1])
    async with asyncio.timeout(QUICK_S):
        while "sleep 2222" not in await subject.text(ids[0], "ps"):
            await asyncio.sleep(0.05)
    await subject.runtime.stop_container(ids[1], 0)
    listing = await subject.text(ids[0], "ps")
    assert "sleep 2222" not in listing
    assert "sleep 3333" not in listing


async def test_only_known_handlers_make_sandboxes(subject: Subject) -> None:
    default, *_ = subject.runtime.handlers()
    assert default == "runc"
    await subject.runtime.run_sandbox(subject.sandbox(handler=default))
    with pytest.raises(RuntimeFailedError, match="nosuch"):
        await subject.runtime.run_sandbox(subject.sandbox(handler="nosuch"))


# -- stopping with a signal of one's own ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGUSR1", "usr1", "10"])
async def test_a_stop_signal_of_its_own(subject: Subject, name: str) -> None:
    capsule, _, container = await subject.up("sh", "-c", "trap 'exit 6' USR1; echo ready; sleep 1; sleep 1000")
    await subject.said(capsule)
    for _ in range(2):
        await subject.runtime.stop_container(container, 30, name)
        assert (await subject.see(capsule, container)).exit_code == 6


async def test_a_stop_signal_that_is_not_heard_ends_in_a_kill(subject: Subject) -> None:
    capsule, _, container = await subject.up("sleep", "1000")
    await subject.runtime.stop_container(container, 1, "SIGRTMIN+3")
    assert (await subject.see(capsule, container)).exit_code == 137


async def test_a_stop_signal_that_is_none(subject: Subject) -> None:
    capsule, _, container = await subject.up("sleep", "1000")
    for name in ("SIGNONSENSE", "0", "65", "SIGRTMAX+1"):
        with pytest.raises(InvalidError):
            await subject.runtime.stop_container(container, 1, name)
    assert (await subject.see(capsule, container)).state == "running"
    await subject.runtime.stop_container(UNKNOWN, 1, "SIGTERM")


# -- limits and figures -----------------------------------------------------------------------------------------------


async def test_too_much_memory_is_told(subject: Subject) -> None:
    limits = Limits(memory_bytes=16 << 20)
    capsule, _, container = await subject.up("sh", "-c", "exec tail /dev/zero", limits=limits)
    await subject.ended(capsule, container)
    async with asyncio.timeout(QUICK_S):
        while not (ended := await subject.see(capsule, container)).oom_killed:
            await asyncio.sleep(0.05)
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")


async def test_limits_change_in_place(subject: Subject) -> None:
    limits = Limits(cpu_shares=512, cpu_quota_us=50_000, memory_bytes=64 << 20, oom_score_adj=900)
    capsule, _, container = await subject.made("sleep", "1000", limits=limits)
    await subject.runtime.update_limits(container, msgspec.structs.replace(limits, memory_bytes=48 << 20))
    await subject.runtime.start_container(container)
    if subject.real:
        assert _limits(container) == ("512", "50000", str(48 << 20))
        assert await subject.text(container, "cat", "/proc/1/oom_score_adj") == "900\n"
    await subject.runtime.update_limits(container, Limits(cpu_shares=1024, cpu_quota_us=0, memory_bytes=128 << 20))
    if subject.real:
        assert _limits(container) == ("1024", "none", str(128 << 20))
    await subject.runtime.update_limits(container, Limits(cpu_shares=1024, cpu_quota_us=20_000, memory_bytes=0))
    if subject.real:
        assert _limits(container) == ("1024", "20000", "none")
    assert (await subject.see(capsule, container)).state == "running"
    with pytest.raises(RuntimeFailedError):
        await subject.runtime.update_limits(UNKNOWN, limits)


def _limits(container: str, folder: str = "") -> tuple[str, str, str]:
    """Shares, quota and memory of a real control group: of a container, or of the folder above."""
    values: dict[str, str] = {}
    for path in Path("/sys/fs/cgroup").rglob(container):
        group = path.parent if folder else path
        values |= {p.name: p.read_text().strip() for p in group.iterdir() if p.name in _FILES}
    if "cpu.max" in values:
        pytest.skip("version 2 has weights for shares")
    quota, memory = values["cpu.cfs_quota_us"], values["memory.limit_in_bytes"]
    return values["cpu.shares"], "none" if quota == "-1" else quota, "none" if int(memory) >= 1 << 60 else memory


_FILES = {"cpu.shares", "cpu.cfs_quota_us", "memory.limit_in_bytes", "cpu.max", "memory.max", "pids.max"}


async def test_a_capsule_has_a_group_of_its_own(subject: Subject) -> None:
    capsule = str(uuid.uuid4())
    limits = Limits(cpu_shares=300, cpu_quota_us=80_000, memory_bytes=256 << 20)
    for _ in range(2):
        await subject.runtime.prepare_group(capsule, 40, limits)
    assert capsule in await subject.runtime.capsule_groups()
    within = subject.sandbox(capsule, cgroup_parent=subject.runtime.group_of(capsule))
    _, sandbox, container = await subject.up("sleep", "1000", within=within)
    if subject.real:
        assert _limits(container, "above") == ("300", "80000", str(256 << 20))
        # More processes than the capsule may have: the shell cannot fork any more.
        script = "i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done"
        code, _, err = await subject.run(container, "sh", "-c", script)
        assert code != 0
        assert b"can't fork" in err
    assert [s.pids > 0 for s in await subject.runtime.stats(capsule)] == [True]
    await subject.runtime.remove_sandbox(sandbox)
    for _ in range(2):
        await subject.runtime.discard_group(capsule)
    assert capsule not in await subject.runtime.capsule_groups()
    if subject.real:
        assert list(Path("/sys/fs/cgroup").rglob(capsule)) == []


async def test_figures_of_what_runs(subject: Subject) -> None:
    capsule, _, container = await subject.up("sleep", "1000")
    (first,) = await subject.runtime.stats(capsule)
    assert (first.container_id, first.capsule_uuid, first.name) == (container, capsule, "main")
    assert first.pids == 1
    assert 0 < first.memory_bytes <= first.memory_usage_bytes
    assert abs(first.at_us - time.time_ns() // 1000) < 60_000_000
    await subject.run(container, "sh", "-c", "echo much > /file")
    (second,) = await subject.runtime.stats(capsule)
    assert second.cpu_ns > first.cpu_ns
    assert container in {s.container_id for s in await subject.runtime.stats()}
    await subject.runtime.stop_container(container, 0)
    assert await subject.runtime.stats(capsule) == []
    assert await subject.runtime.stats(str(uuid.uuid4())) == []


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
        await writer.write(b"both\n")
        await writer.close_stdin()
        for reader in readers:
            assert (await reader.end())["stdout"] == b"both\n"
    finally:
        await watcher.close()
        await writer.close()


async def test_a_terminal_has_a_size_and_an_echo(subject: Subject) -> None:
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
        assert b"stty size\r\n" in reader.got["stdout"]
        await session.write(b"exit 4\n")
        assert (await reader.end())["stderr"] == b""
    finally:
        await session.close()
    assert (await subject.ended(capsule, container)).exit_code == 4


async def test_the_end_of_input_of_a_terminal(subject: Subject) -> None:
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


# -- images -----------------------------------------------------------------------------------------------------------


async def test_images_by_name_and_id(subject: Subject) -> None:
    found = await subject.runtime.image("busybox")
    assert found is not None
    assert BUSYBOX in found.tags
    assert found.id.startswith("sha256:")
    assert len(found.id) == 71
    assert found.size_bytes > 0
    assert (await subject.runtime.image(found.id)) == found
    listed = await subject.runtime.images()
    assert [i.id for i in listed] == [found.id]  # the sandbox image is nobody's business


async def test_what_is_no_image_is_not_loaded(subject: Subject, tmp_path: Path) -> None:
    path = tmp_path / "no-image.tar"
    path.write_bytes(b"not an archive at all")
    with pytest.raises(InvalidError):
        await subject.runtime.import_image(str(path))
    assert len(await subject.runtime.images()) == 1


# -- events -----------------------------------------------------------------------------------------------------------


async def test_events_tell_of_starts_and_ends(subject: Subject) -> None:
    seen: list[tuple[str, str]] = []

    async def listen() -> None:
        async for event in subject.runtime.events():
            seen.extend([(event.kind, event.container_id)])

    listener = asyncio.create_task(listen())
    try:
        await asyncio.sleep(0.2)
        capsule, _, container = await subject.up("sh", "-c", "sleep 0.1")
        await subject.ended(capsule, container)
        async with asyncio.timeout(5):
            while ("exit", container) not in seen:
                await asyncio.sleep(0.02)
        assert [kind for kind, owner in seen if owner == container and kind != "ended"] == ["start", "exit"]
    finally:
        listener.cancel()
