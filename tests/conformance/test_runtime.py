"""The contract of `ports.runtime.Runtime`, held against the fake that other tests stand on and against containerd.

Whatever the agent relies on stands here and in the modules beside it once. A difference between the two is a bug in
one of them.
"""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from pathlib import Path

import pytest

from askos.model.errors import AskosError, ConflictError, InvalidError, NotFoundError, RuntimeFailedError
from askos.ports.runtime import (
    ExecRequest,
    RuntimeEvent,
    Sandbox,
)
from tests.unit.fakes import BUSYBOX

from .subjects import QUICK_S, UNKNOWN, Subject

pytestmark = pytest.mark.asyncio(loop_scope="module")

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
    # A shell that lives until it is told to end.
    capsule, sandbox, container = await subject.made("sh", interactive=True, stdin_once=True)
    created = await subject.see(capsule, container)
    assert (created.sandbox_id, created.capsule_uuid, created.name) == (sandbox, capsule, "main")
    assert (created.run, created.attempt, created.state) == (1, 0, "created")
    assert (created.exit_code, created.started_us, created.finished_us) == (None, None, None)
    image = await subject.runtime.image(BUSYBOX)
    assert image is not None
    assert created.image_id == image.id
    started_us = await subject.runtime.start_container(container)
    running = await subject.see(capsule, container)
    assert running.state == "running"
    assert running.started_us is not None
    assert started_us == running.started_us
    assert (running.exit_code, running.finished_us) == (None, None)
    session = await subject.runtime.attach(container, stdin=True, tty=False)
    await session.write(b"exit 3\n")
    ended = await subject.ended(capsule, container)
    assert (ended.exit_code, ended.reason) == (3, "Error")
    assert ended.started_us is not None
    assert ended.finished_us is not None
    await session.close()
    assert begin <= ended.created_us <= ended.started_us <= ended.finished_us <= time.time_ns() // 1000
    assert ended.started_us == running.started_us
    assert (await subject.see(capsule, container)).id in {c.id for c in (await subject.runtime.observe())[1]}


async def test_success_is_completed(subject: Subject) -> None:
    capsule, _, container = await subject.up("true")
    ended = await subject.ended(capsule, container)
    assert (ended.exit_code, ended.reason) == (0, "Completed")


async def test_starting_what_runs_or_has_run_does_nothing(subject: Subject) -> None:
    capsule, _, container = await subject.up("sh", "-c", "echo once; sleep 0.3")
    assert await subject.runtime.start_container(container) is None
    await subject.ended(capsule, container)
    assert await subject.runtime.start_container(container) is None
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
    capsule, _, container = await subject.awake("trap 'exit 5' TERM; echo ready; sleep 1000 & wait")
    await subject.runtime.stop_container(container, 30)
    assert (await subject.see(capsule, container)).exit_code == 5
    await subject.runtime.stop_container(container, 30)
    assert (await subject.see(capsule, container)).exit_code == 5


async def test_stopping_kills_after_the_grace(subject: Subject) -> None:
    # What does not handle SIGTERM ignores it as the first process.
    capsule, _, container = await subject.awake("echo ready; exec sleep 1000")
    started = time.monotonic()
    async with asyncio.timeout(QUICK_S):
        await subject.runtime.stop_container(container, 1)
    assert time.monotonic() - started > 0.9
    assert (await subject.see(capsule, container)).exit_code == 137


async def test_signals(subject: Subject) -> None:
    capsule, _, container = await subject.awake("trap 'exit 9' USR1; echo ready; sleep 1000 & wait")
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
    async with subject.listening() as seen:
        capsule, _, container = await subject.up("sh", "-c", "sleep 0.1")
        await subject.ended(capsule, container)
        async with asyncio.timeout(QUICK_S):
            while RuntimeEvent("exit", container) not in seen:
                await asyncio.sleep(0.02)
        kinds = [event.kind for event in seen if event.container_id == container and event.kind != "ended"]
        assert kinds == ["start", "exit"]
