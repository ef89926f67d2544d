"""Crashes of containerd and of ourselves: what lives on, what is adopted, and what may be left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from google.protobuf import any_pb2

from askos.adapters.containerd import cgroups, mounts, processes, teardown
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.sweep import sweep
from askos.model.errors import (
    AskosError,
    SetupError,
    UnavailableError,
)
from askos.ports.runtime import ExecRequest, Limits

from .containerd_fixtures import Bench, back_after, fresh, private, run_in

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
__all__ = ["fresh"]  # fixtures


async def test_containerd_is_restarted_and_containers_live_on(fresh: Bench) -> None:
    capsule, _, container = await fresh.up("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
    before = await fresh.one(capsule)
    session = await fresh.runtime.exec(container, ExecRequest(["sh", "-c", "read x; exit 6"], stdin=True))

    async def listen() -> None:
        async for _ in fresh.runtime.events():
            pass

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.3)
    for number in (1, 2):
        pid = fresh.containerd.pid
        os.kill(pid or 0, signal.SIGKILL)
        await back_after(fresh, number)
        assert fresh.containerd.pid != pid
    with pytest.raises(UnavailableError):
        await listening
    after = await fresh.one(capsule)
    assert (after.id, after.state, after.started_us) == (before.id, "running", before.started_us)
    # An exec session survives it, too.
    await session.write(b"go\n")
    assert await asyncio.wait_for(session.wait(), 60) == 6
    await session.close()
    await _goes_on(fresh, capsule)


async def _goes_on(fresh: Bench, capsule: str) -> None:
    """Wait until a container that writes all the time has written more."""
    lines = len(fresh.log(capsule).splitlines())
    async with asyncio.timeout(60):
        while len(fresh.log(capsule).splitlines()) <= lines:
            await asyncio.sleep(0.05)


async def test_a_paused_container_outlives_containerd(fresh: Bench) -> None:
    """CRI cannot take a paused one over: it goes on for a moment, and whoever wants it paused pauses it again."""
    capsule, _, container = await fresh.up("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
    before = await fresh.one(capsule)
    for number in (1, 2):
        await fresh.runtime.pause(container)
        os.kill(fresh.containerd.pid or 0, signal.SIGKILL)
        await back_after(fresh, number)
        after = await fresh.one(capsule)
        assert (after.id, after.state, after.started_us) == (before.id, "running", before.started_us)
    # CRI knows it as well as before: its limits can be changed, and its end is seen.
    await fresh.runtime.update_limits(container, Limits(cpu_shares=512, memory_bytes=48 << 20))
    changed = await fresh.one(capsule)
    assert (changed.cpu_shares, changed.memory_bytes) == (512, 48 << 20)
    await _goes_on(fresh, capsule)
    await fresh.runtime.signal(container, signal.SIGKILL)
    assert (await fresh.ended(capsule)).exit_code == 137
    assert not list(fresh.containerd.state.glob("r.sock*"))


async def test_a_paused_container_outlives_the_containerd_of_others(fresh: Bench) -> None:
    """Nobody lets it go on before CRI looks: to CRI it is lost, but it lives, can go on, and ends like any other."""
    capsule, _, container = await fresh.up("sleep", "1000")
    await fresh.runtime.pause(container)
    await fresh.containerd.detach()
    os.kill(fresh.containerd.pid or 0, signal.SIGKILL)
    config = str(fresh.containerd.state / "config.toml")
    await asyncio.create_subprocess_exec("containerd", "--config", config, stderr=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(AskosError):
                if (found := await fresh.one(capsule)).state:
                    break
            await asyncio.sleep(0.1)
    assert found.state == "paused"
    await fresh.runtime.unpause(container)
    assert (await fresh.one(capsule)).state == "running"
    await fresh.runtime.stop_container(container, 0)
    assert (await fresh.ended(capsule)).id == container
    fresh.containerd = private(fresh.data, fresh.instance)
    await fresh.containerd.start()


async def test_a_new_program_adopts_what_runs(fresh: Bench) -> None:
    capsule, _, _ = await fresh.up("sleep", "1000")
    before, pid = await fresh.one(capsule), fresh.containerd.pid
    with pytest.raises(SetupError, match="Another askos"):
        await private(fresh.data, fresh.instance).start()
    await fresh.containerd.detach()
    adopted = private(fresh.data, fresh.instance)
    await adopted.start()
    assert adopted.pid == pid
    await adopted.detach()
    # The record was never written: found all the same, but replaced, as nobody knows with what it was started.
    (fresh.containerd.state / "process.json").unlink()
    fresh.containerd = private(fresh.data, fresh.instance)
    await fresh.containerd.start()
    assert fresh.containerd.pid != pid
    assert not processes.command_line(pid or 0)
    assert (await fresh.one(capsule)).id == before.id
    assert (await fresh.one(capsule)).state == "running"


async def test_containerd_outlives_our_own_kill(fresh: Bench) -> None:
    await fresh.containerd.detach()
    os.kill(fresh.containerd.pid or 0, signal.SIGTERM)
    script = f"""
        import asyncio, os, sys
        from pathlib import Path
        from askos.adapters.containerd.supervise import PrivateContainerd
        async def main():
            c = PrivateContainerd(Path({str(fresh.data)!r}), {fresh.instance!r},
                cni_bin_dir=Path({str(fresh.data / "cni-bin")!r}), cni_conf_dir=Path({str(fresh.data / "cni-conf")!r}))
            await c.start()
            print(c.pid, flush=True)
            os.kill(os.getpid(), 9)
        asyncio.run(main())
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(script), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == -9
    fresh.containerd = private(fresh.data, fresh.instance)
    await fresh.containerd.start()
    assert fresh.containerd.pid == int(out)


async def test_setup_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="install the package containerd"):
        await private(tmp_path, "ab", binary="no-such-containerd").start()
    with pytest.raises(SetupError, match="shorter"):
        await private(tmp_path / ("x" * 100), "ab").start()


async def test_stop_leaves_no_process_and_no_mount(fresh: Bench) -> None:
    capsule, _, container = await fresh.up("sleep", "1000")
    assert teardown.shims(fresh.containerd.socket)
    assert mounts.below(fresh.data)
    task = api.GetTaskRequest(container_id=container)
    answer = await fresh.runtime.client.call("tasks.v1.Tasks/Get", task, 5)
    await fresh.containerd.stop()
    assert teardown.shims(fresh.containerd.socket) == {}
    assert mounts.below(fresh.data) == []
    assert cgroups.roots(fresh.instance) == []
    assert processes.identify(answer.process.pid) is None
    assert processes.with_arguments("--config", str(fresh.containerd.state / "config.toml")) == []
    # What was running is known as ended after the next start.
    await fresh.containerd.start()
    await back_after(fresh, 0)
    assert (await fresh.one(capsule)).state == "exited"


async def test_nothing_is_left_after_many_crashes(fresh: Bench) -> None:
    """containerd is killed at random points of making and removing; then everything known is removed and swept."""
    removed: list[str] = []
    kept, _, survivor = await fresh.up("sleep", "1000")
    chance = random.Random()
    for number in range(1, 11):
        makers = [asyncio.create_task(fresh.up("sleep", "1000")) for _ in range(2)]
        await asyncio.sleep(chance.uniform(0.0, 0.35))
        os.kill(fresh.containerd.pid or 0, signal.SIGKILL)
        await asyncio.gather(*makers, return_exceptions=True)
        await back_after(fresh, number)
        removed += await sweep(fresh.runtime, fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket)
        for sandbox in (await fresh.runtime.observe())[0]:
            if sandbox.capsule_uuid != kept and chance.random() < 0.5:
                await fresh.runtime.remove_sandbox(sandbox.id)
    print(f"swept: {sorted({line.rsplit(' ', 1)[0] for line in removed})}, {len(removed)} in all")
    assert (await fresh.one(kept)).state == "running"
    assert (await run_in(fresh, survivor, "true"))[0] == 0
    await fresh.clear()
    await sweep(fresh.runtime, fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket)
    assert await sweep(fresh.runtime, fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket) == []
    assert await fresh.runtime.cri_lists() == ([], [])
    listed = await fresh.runtime.client.call("containers.v1.Containers/List", api.ListContainersRequest(), 5)
    assert list(listed.containers) == []
    assert teardown.shims(fresh.containerd.socket) == {}
    assert mounts.below(fresh.data) == []
    assert cgroups.groups(fresh.instance) == {}
    state = fresh.containerd.state
    assert list((state / "io.containerd.grpc.v1.cri" / "netns").iterdir()) == []
    assert list((state / "io.containerd.runtime.v2.task" / "k8s.io").iterdir()) == []
    # Room is made for the leases of unfinished work by now: the same capsules could be made again.
    capsule, _, _ = await fresh.up("true")
    assert (await fresh.ended(capsule)).exit_code == 0


async def test_sweep_ends_exec_sessions_of_the_dead_and_leaves_the_living(fresh: Bench) -> None:
    _, _, container = await fresh.up("sleep", "1000")
    mine = await fresh.runtime.exec(container, ExecRequest(["sleep", "501"]))
    dead = await fresh.runtime.exec(container, ExecRequest(["sleep", "502"]))
    fresh.runtime.live_execs.discard(f"{container}.{dead._id}")
    removed = await sweep(fresh.runtime, fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket)
    assert removed == [f"exec session {dead._id} of container {container}"]
    listing = (await run_in(fresh, container, "ps"))[1]
    assert b"sleep 501" in listing
    assert b"sleep 502" not in listing
    await mine.close()
    await dead.close()


@pytest.mark.parametrize("given_up", [False, True])
async def test_sweep_ends_a_start_of_the_dead_that_nobody_reads_from(fresh: Bench, given_up: bool) -> None:
    """Killed between starting a process and reading from it: the shim waits for a reader, and all others for the
    shim; when it gives up, the process lives on."""
    _, _, container = await fresh.up("sleep", "1000")
    folder = fresh.runtime.exec_root / f"{container}.stuck"
    folder.mkdir(parents=True)
    for name in ("stdout", "stderr"):
        os.mkfifo(folder / name, 0o600)
    client, fields = fresh.runtime.client, {"container_id": container, "exec_id": "stuck"}
    known = await client.call("containers.v1.Containers/Get", api.GetContainerRequest(id=container), 10)
    process = {**json.loads(known.container.spec.value)["process"], "args": ["sleep", "503"]}
    kind = "types.containerd.io/opencontainers/runtime-spec/1/Process"
    pipes = {name: str(folder / name) for name in ("stdout", "stderr")}
    spec = any_pb2.Any(type_url=kind, value=json.dumps(process).encode())
    await client.call("tasks.v1.Tasks/Exec", api.ExecProcessRequest(**fields, **pipes, spec=spec), 10)
    starting = asyncio.create_task(
        client.call("tasks.v1.Tasks/Start", api.StartRequest(**fields), 2 if given_up else 45)
    )
    while not (left := _inside(container, "sleep 503")):
        await asyncio.sleep(0.02)
    if given_up:
        await asyncio.gather(starting, return_exceptions=True)
    # A hang would last for the 30 s that the shim waits.
    async with asyncio.timeout(20):
        removed = await sweep(fresh.runtime, fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket)
        assert removed == [f"exec session stuck of container {container}"]
        while any(Path(f"/proc/{pid}").exists() for pid in left):
            await asyncio.sleep(0.02)
        # The shim serves others again.
        assert (await run_in(fresh, container, "echo", "hi"))[1] == b"hi\n"
    assert not folder.exists()
    await asyncio.gather(starting, return_exceptions=True)


def _inside(container: str, command: str) -> list[int]:
    """The processes with a command line in a container, seen from the host."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and container in (entry / "cgroup").read_text():
                words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                if b" ".join(words).decode() == command:
                    found.append(int(entry.name))
    return found


async def test_sweep_removes_planted_leftovers(fresh: Bench) -> None:
    capsule, _, _ = await fresh.up("sleep", "1000")
    spaces = fresh.containerd.state / "io.containerd.grpc.v1.cri" / "netns"
    planted = spaces / "cni-planted"
    planted.touch()
    subprocess.run(["unshare", f"--net={planted}", "true"], check=True)
    group = cgroups.roots(fresh.instance)[0] / ("e" * 64)
    group.mkdir()
    sleeper = await asyncio.create_subprocess_exec("sleep", "1000")
    (group / "cgroup.procs").write_text(str(sleeper.pid))
    removed = await sweep(fresh.runtime, fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket)
    assert sorted(removed) == [f"control group {'e' * 64}", "network namespace cni-planted"]
    assert not planted.exists()
    assert await asyncio.wait_for(sleeper.wait(), 60) == -9
    assert (await fresh.one(capsule)).state == "running"


async def test_a_sandbox_whose_cni_record_was_not_finished_can_go(fresh: Bench) -> None:
    _, sandbox, _ = await fresh.up("sleep", "1000")
    (record,) = Path("/var/lib/cni/results").glob(f"askos-{fresh.instance}-*")
    assert sandbox in record.name
    record.write_bytes(b"")  # as the kill of a containerd that was just about to write it leaves it
    os.kill(fresh.containerd.pid or 0, signal.SIGKILL)
    await back_after(fresh, 1)
    await fresh.runtime.stop_sandbox(sandbox)
    await fresh.runtime.remove_sandbox(sandbox)
    assert not record.exists()


async def test_sweep_removes_layers_that_were_being_unpacked_when_somebody_was_killed(fresh: Bench) -> None:
    """Not while something is pulled: nobody can tell whose they are then."""
    name = f"extract-12345-abcd sha256:{'e' * 64}"
    command = ["ctr", "-a", str(fresh.containerd.socket), "-n", "k8s.io", "snapshots", "--snapshotter"]
    command += [fresh.containerd.snapshotter, "prepare", name]
    await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    asked = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    registry = await asyncio.start_server(swallow, "127.0.0.1", 0)
    pulling = asyncio.create_task(fresh.runtime.pull(f"127.0.0.1:{registry.sockets[0].getsockname()[1]}/some/app:1"))
    await asyncio.wait_for(asked.wait(), 60)
    places = fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket
    assert await sweep(fresh.runtime, *places) == []
    pulling.cancel()
    await asyncio.gather(pulling, return_exceptions=True)
    registry.close()
    assert await sweep(fresh.runtime, *places) == [f"snapshot {name}"]
    assert await sweep(fresh.runtime, *places) == []


async def test_sweep_removes_what_a_broken_commit_looked_through(fresh: Bench) -> None:
    await fresh.up("true")  # the image is unpacked
    places = fresh.containerd.root, fresh.containerd.state, fresh.containerd.socket
    ctr = ["ctr", "-a", str(fresh.containerd.socket), "-n", "k8s.io", "snapshots"]
    ctr += ["--snapshotter", fresh.containerd.snapshotter]
    lines = subprocess.run([*ctr, "ls"], check=True, capture_output=True, text=True).stdout.splitlines()
    parent = next(line.split()[0] for line in lines if line.split()[-1] == "Committed")
    command = [*ctr, "view", "askos-commit-abc", parent]
    await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    with fresh.runtime.commits:
        assert await sweep(fresh.runtime, *places) == []
    assert await sweep(fresh.runtime, *places) == ["snapshot askos-commit-abc"]


async def test_limits_that_were_written_down_and_not_given_are_seen(fresh: Bench) -> None:
    """containerd was killed between the two."""
    capsule, _, container = await fresh.up("sleep", "1000")
    await fresh.runtime.update_limits(container, Limits(cpu_shares=512, memory_bytes=48 << 20))
    assert ((one := await fresh.one(capsule)).cpu_shares, one.memory_bytes) == (512, 48 << 20)
    for group in cgroups.groups(fresh.instance)[container]:
        for name, value in (("memory.limit_in_bytes", 40 << 20), ("memory.max", 40 << 20), ("cpu.shares", 256)):
            if (group / name).exists():
                (group / name).write_text(str(value))
        if (group / "cpu.weight").exists():
            (group / "cpu.weight").write_text("10")
    await fresh.runtime.close()
    fresh.runtime = fresh.make_runtime()
    one = await fresh.one(capsule)
    assert one.memory_bytes == 40 << 20
    assert 0 < one.cpu_shares < 300
    await fresh.runtime.update_limits(container, Limits(cpu_shares=512, memory_bytes=48 << 20))
    assert ((one := await fresh.one(capsule)).cpu_shares, one.memory_bytes) == (512, 48 << 20)
