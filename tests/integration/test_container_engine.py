"""Zun containers on a real containerd: limits of the disk that hold, and files, cores and figures as callers get them."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from tests.unit.fakes import FakeHostCall, FakeNetwork

from askos.adapters.containerd import mounts
from askos.adapters.containerd.sweep import sweep
from askos.adapters.volumes.host import Volumes
from askos.loops import agent as loop_module
from askos.loops.agent import Agent
from askos.loops.assembly import HostEnv
from askos.loops.calls import Calls
from askos.model.capsules import (
    Assignment,
    CapsuleReport,
    CapsuleSpec,
    ContainerMount,
    ContainerSpec,
    Healthcheck,
    Report,
    VolumeGrant,
    Wish,
)
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.model.pods import Content, Secret
from askos.ports.calls import Frame
from askos.ports.clock import now_us

from .containerd_fixtures import Bench, bench

__all__ = ["bench"]  # a fixture

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

SOON_S = 90.0
_NUMBER = iter(range(1000, 10_000))


class Host:
    """An agent over the bench's containerd, which can be restarted."""

    def __init__(self, of: Bench) -> None:
        self.bench = of
        self.volumes = Volumes(of.data / "capsules", of.data / "volumes")
        self.sent: list[CapsuleReport] = []
        self.wanted: dict[str, Assignment] = {}
        self.agent: Agent
        self.calls: Calls
        self._task: asyncio.Task[None]

    async def start(self) -> None:
        env = HostEnv("127.0.0.1", "here", 2, 1 << 30, [], [], self.bench.instance)
        self.agent = Agent(
            self.bench.runtime, FakeNetwork(), self.bench.logs, self.sent.extend, now_us, volumes=self.volumes, env=env,
            cores={0, 1} if (os.cpu_count() or 1) > 1 else {0},
        )  # fmt: skip
        self.calls = Calls(self.agent, self.bench.data / "uploads", self.volumes)
        self.agent.snapshot(list(self.wanted.values()))
        self._task = asyncio.create_task(self.agent.run())

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.agent.stop_workers()

    async def again(self) -> None:
        await self.stop()
        last = {r.capsule_uuid: r.report for r in self.sent}
        self.wanted = {u: msgspec.structs.replace(a, report=last.get(u, a.report)) for u, a in self.wanted.items()}
        await self.start()

    async def again_after_reboot(self) -> None:
        """Nothing runs any more, nothing is mounted."""
        await self.volumes.unmount_all()
        last = {r.capsule_uuid: r.report for r in self.sent}
        self.wanted = {u: msgspec.structs.replace(a, report=last.get(u, a.report)) for u, a in self.wanted.items()}
        await self.start()

    async def want(self, a: Assignment) -> None:
        self.wanted[a.capsule_uuid] = a
        self.agent.changed([a])

    def last(self, a: Assignment) -> Report | None:
        mine = [r.report for r in self.sent if r.capsule_uuid == a.capsule_uuid]
        return mine[-1] if mine else None

    async def settled(self, a: Assignment, state: str) -> Report:
        await self.want(a)

        def there() -> bool:
            r = self.last(a)
            return r is not None and (r.settled, r.generation, r.state) == (True, a.wish.generation, state)

        await until(there, lambda: f"{self.last(a)}")
        found = self.last(a)
        assert found is not None
        return found

    async def gone(self, a: Assignment) -> None:
        await self.want(wished(a, "deleted"))
        await until(lambda: any(r.gone for r in self.sent if r.capsule_uuid == a.capsule_uuid))
        del self.wanted[a.capsule_uuid]
        self.agent.dropped([a.capsule_uuid])

    async def call(self, method: str, a: Assignment, given: list[Frame] | None = None, **arguments: Any) -> Any:
        self.made = FakeHostCall(method, {"capsule": a.capsule_uuid, **arguments}, given)
        return await asyncio.wait_for(self.calls(self.made), SOON_S)

    async def run(self, a: Assignment, *argv: str) -> str:
        answer = await self.call("run", a, argv=list(argv), limit_bytes=100_000)
        return f"{answer['exit_code']} {answer['output']}"

    def data(self) -> bytes:
        """What the last call sent."""
        return b"".join(f.data for f in self.made.sent if f.channel == 1)


async def until(true: Callable[[], object], what: Callable[[], str] = str) -> None:
    try:
        async with asyncio.timeout(SOON_S):
            while not true():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(what()) from None


@pytest_asyncio.fixture(loop_scope="module")
async def host(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    monkeypatch.setattr(loop_module, "RELIST_S", 1.0)
    made = Host(bench)
    await made.start()
    try:
        yield made
        for a in list(made.wanted.values()):
            await made.gone(a)
        removed = await sweep(bench.runtime, bench.containerd.root, bench.containerd.state, bench.containerd.socket)
        assert removed == []
        assert mounts.below(bench.data / "capsules") == []
        assert mounts.below(bench.containerd.root) == []
        assert not any((bench.data / "capsules").glob("*/"))
    finally:
        await made.stop()
        await made.volumes.unmount_all()


def assignment(
    *command: str, state: str = "running", volumes: list[VolumeGrant] | None = None, **more: Any
) -> Assignment:
    uuid = f"00000000-0000-4000-8000-{next(_NUMBER):012d}"
    capsule = {name: more.pop(name) for name in ("auto_heal", "restart_policy") if name in more}
    content = more.pop("content", Content())
    container = ContainerSpec("main", "busybox", command=list(command or ("sleep", "infinity")), memory_mib=64, **more)
    spec = CapsuleSpec([container], **capsule)
    wish = Wish(state, 1, 1 if state == "running" else 0, at_us=now_us(), stop_timeout_s=1)  # type: ignore[arg-type]
    return Assignment(uuid, "p", f"name-{uuid[-4:]}", 1, spec, wish, [], [], volumes=volumes or [], content=content)


def wished(a: Assignment, state: str, *, run: int | None = None, rebuilt: bool = False, **spec: Any) -> Assignment:
    wish = msgspec.structs.replace(
        a.wish, state=state, generation=a.wish.generation + 1, run=a.wish.run if run is None else run,
        rebuilt_run=a.wish.run + 1 if rebuilt else a.wish.rebuilt_run,
    )  # fmt: skip
    container = msgspec.structs.replace(a.spec.containers[0], **spec)
    return msgspec.structs.replace(a, wish=wish, spec=msgspec.structs.replace(a.spec, containers=[container]))


async def test_the_disk_limit_holds_and_stays_with_the_files(host: Host) -> None:
    a = assignment(disk_gib=1)
    await host.settled(a, "running")
    filled = await host.run(a, "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=2000")
    assert "No space left on device" in filled
    kib = int((await host.run(a, "du", "-k", "/big")).split()[1])
    assert 800 << 10 < kib < 1 << 20
    assert (await host.run(a, "rm", "/big")).startswith("0")
    assert (await host.run(a, "sh", "-c", "echo kept > /kept")).startswith("0")
    # The rest of the host is not full.
    other = assignment()
    await host.settled(other, "running")
    assert (await host.run(other, "dd", "if=/dev/zero", "of=/f", "bs=1M", "count=10")).startswith("0")
    # A stop and a start keep the files, and the limit.
    a = wished(a, "stopped")
    await host.settled(a, "exited")
    assert (await host.call("get_archive", a, path="/kept"))["size"] == 5
    a = wished(a, "running", run=2)
    await host.settled(a, "running")
    assert await host.run(a, "cat", "/kept") == "0 kept\n"
    assert "No space left" in await host.run(a, "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=2000")
    await host.again()
    await host.settled(a, "running")
    assert await host.run(a, "cat", "/kept") == "0 kept\n"
    # A rebuild begins with an empty disk.
    a = wished(a, "running", run=3, rebuilt=True)
    await host.settled(a, "running")
    assert (await host.run(a, "cat", "/kept")).startswith("1 ")
    await host.gone(a)
    assert list((host.bench.data / "volumes").glob("*.img")) == []


async def test_pausing_by_wish(host: Host) -> None:
    a = assignment()
    await host.settled(a, "running")
    a = wished(a, "paused")
    await host.settled(a, "paused")
    await host.again()
    await host.settled(a, "paused")
    a = wished(a, "running")
    await host.settled(a, "running")
    assert await host.run(a, "echo", "on") == "0 on\n"
    a = wished(a, "paused")
    await host.settled(a, "paused")
    a = wished(a, "running", run=2)
    report = await host.settled(a, "running")
    assert report.containers[0].run == 2


async def test_limits_in_place(host: Host) -> None:
    a = assignment()
    first = await host.settled(a, "running")
    a = wished(a, "running", memory_mib=128, cpu=2.0)
    told = await host.settled(a, "running")
    assert told.containers[0].container_id == first.containers[0].container_id
    stats = await host.call("container_stats", a)
    assert stats["memory_limit_bytes"] == 128 << 20
    # One that is smaller than what is in use is refused, and the container lives on with the old one.
    assert (await host.run(a, "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=50")).startswith("0")
    a = wished(a, "running", memory_mib=8)
    told = await host.settled(a, "running")
    assert "limits" in (told.reason or "")
    assert told.containers[0].container_id == first.containers[0].container_id
    assert (await host.call("container_stats", a))["memory_limit_bytes"] == 128 << 20


async def test_volumes_and_files_given_to_it(host: Host) -> None:
    uuid = "12345678-0000-4000-8000-000000000001"
    content = Content(secrets={"mounts": Secret(data={"k1": b"given\n"})})
    a = assignment(
        mounts=[ContainerMount("/data", volume="v"), ContainerMount("/etc/given.conf", content="k1")],
        volumes=[VolumeGrant(uuid, "v", 64 << 20)], content=content,
    )  # fmt: skip
    await host.settled(a, "running")
    assert await host.run(a, "cat", "/etc/given.conf") == "0 given\n"
    assert (await host.run(a, "sh", "-c", "echo x > /etc/given.conf")).startswith("1 ")
    assert (await host.run(a, "sh", "-c", "echo kept > /data/f")).startswith("0")
    a = wished(a, "running", run=2, rebuilt=True)
    await host.settled(a, "running")
    assert await host.run(a, "cat", "/data/f") == "0 kept\n"
    await host.gone(a)
    assert (host.bench.data / "volumes" / f"{uuid}.img").exists()
    await host.volumes.remove_volume(uuid)


async def test_health_and_healing(host: Host) -> None:
    # Patient: a busy machine is not sick.
    check = Healthcheck("test ! -e /sick", interval_s=1, retries=2, timeout_s=60)
    a = assignment(healthcheck=check, auto_heal=True)
    first = await host.settled(a, "running")
    await until(lambda: (r := host.last(a)) and r.containers[0].health == "healthy", lambda: f"{host.last(a)}")
    await host.run(a, "touch", "/sick")
    await until(
        lambda: (
            (r := host.last(a))
            and r.containers[0].container_id not in ("", first.containers[0].container_id)
            and r.containers[0].health == "healthy"
        ),
        lambda: f"{host.last(a)}",
    )
    assert any(r.report.containers[0].health == "unhealthy" for r in host.sent if r.report.containers)
    assert (await host.run(a, "cat", "/sick")).startswith("1 ")
    assert host.last(a).containers[0].restarts == 1  # type: ignore[union-attr]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is only one core")
async def test_dedicated_cores(host: Host) -> None:
    shared = assignment()
    await host.settled(shared, "running")
    a = assignment(cpu=1.0, cpu_policy="dedicated")
    report = await host.settled(a, "running")
    assert report.containers[0].cpus == "1"

    async def cores(of: Assignment) -> str:
        return (await host.run(of, "grep", "Cpus_allowed_list", "/proc/self/status")).split()[-1]

    assert await cores(a) == "1"
    assert await cores(shared) == "0"
    late = assignment()
    await host.settled(late, "running")
    assert await cores(late) == "0"
    second = assignment(cpu=1.0, cpu_policy="dedicated")
    refused = await host.settled(second, "error")
    assert "not enough cores" in (refused.reason or "")
    await host.again()
    third = assignment(cpu=1.0, cpu_policy="dedicated")
    await host.settled(third, "error")
    assert await cores(a) == "1"
    await host.gone(a)
    async with asyncio.timeout(SOON_S):
        while await cores(shared) not in ("0-1", "0,1"):
            await asyncio.sleep(0.05)
    assert host.agent.cores.shared == ""


async def test_top_and_figures(host: Host) -> None:
    a = assignment("sh", "-c", "sleep 4711 & while :; do :; done")
    await host.settled(a, "running")
    told = await host.call("top", a)
    async with asyncio.timeout(SOON_S):
        # The shell has to begin it first.
        while "sleep 4711" not in [row[-1] for row in told["processes"]]:
            await asyncio.sleep(0.05)
            told = await host.call("top", a)
    assert told["titles"][:3] == ["UID", "PID", "PPID"]
    commands = sorted(row[-1] for row in told["processes"])
    assert commands[0].startswith("sh -c sleep 4711")
    assert commands[-1] == "sleep 4711"
    narrow = await host.call("top", a, ps_args="-o pid,comm -A")
    assert narrow["titles"] == ["PID", "COMMAND"]
    assert {row[1] for row in narrow["processes"]} == {"sh", "sleep"}
    for wrong in ("--nonsense", "-o comm", "-o ni=PID,args", '"', "-o %p%a"):
        with pytest.raises(InvalidError):
            await host.call("top", a, ps_args=wrong)
    stats = await host.call("container_stats", a)
    assert stats["cpu_percent"] > 1
    assert 0 < stats["memory_bytes"] < stats["memory_limit_bytes"] == 64 << 20
    assert {"read_bytes", "write_bytes", "rx_bytes", "tx_bytes"} <= stats.keys()
    await host.call("resize", a, width=80, height=24)
    a = wished(a, "stopped")
    await host.settled(a, "exited")
    for method in ("top", "container_stats", "resize"):
        with pytest.raises(ConflictError):
            await host.call(method, a, width=1, height=1)


def archive(name: str, data: bytes) -> list[Frame]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size, info.uid, info.mode = len(data), 1000, 0o640
        tar.addfile(info, io.BytesIO(data))
    text = buffer.getvalue()
    return [Frame(0, text[:700]), Frame(0, text[700:]), Frame(0, eof=True)]


@pytest.mark.parametrize("ended", [False, True])
async def test_archives(host: Host, ended: bool) -> None:
    a = assignment("sh", "-c", "mkdir /d; echo in > /d/f; ln -s / /d/up; ln -s /../../../etc /d/out; sleep infinity")
    await host.settled(a, "running")
    async with asyncio.timeout(SOON_S):
        while not (await host.run(a, "ls", "-d", "/d/out")).startswith("0"):
            await asyncio.sleep(0.05)
    if ended:
        a = wished(a, "stopped")
        await host.settled(a, "exited")
    told = await host.call("get_archive", a, path="/d")
    assert (told["name"], told["mode"]) == ("d", 1 << 31 | 0o755)
    with tarfile.open(fileobj=io.BytesIO(host.data())) as tar:
        assert sorted(tar.getnames()) == ["d", "d/f", "d/out", "d/up"]
        assert tar.extractfile("d/f").read() == b"in\n"  # type: ignore[union-attr]
    await host.call("put_archive", a, archive("x/y", b"put"), path="/d/up")
    await host.call("put_archive", a, archive("z", b"etc"), path="/d/out")
    assert not Path("/x").exists()
    assert not Path("/etc/z").exists()
    with pytest.raises(NotFoundError):
        await host.call("put_archive", a, archive("x", b""), path="/missing")
    with pytest.raises(InvalidError):
        await host.call("put_archive", a, archive("../x", b""), path="/d")
    with pytest.raises(InvalidError, match="broken off"):
        await host.call("put_archive", a, archive("x", b"")[:1], path="/d")
    with pytest.raises(NotFoundError):
        await host.call("get_archive", a, path="/nothing")
    if ended:
        a = wished(a, "running", run=2, command=["sleep", "infinity"])
        await host.settled(a, "running")
    assert await host.run(a, "stat", "-c", "%u %a", "/x/y") == "0 1000 640\n"
    assert await host.run(a, "cat", "/x/y", "/etc/z") == "0 putetc"


async def test_an_image_of_a_container(host: Host, tmp_path: Path) -> None:
    a = assignment("sh", "-c", "echo kept > /kept; sleep infinity")
    await host.settled(a, "running")
    made = await host.call("commit", a, name="mine:1")
    assert made["name"] == "docker.io/library/mine:1"
    await host.settled(a, "running")
    # Nobody else's.
    stranger = msgspec.structs.replace(assignment(image_pull_policy="never"), project_id="other")
    assert await host.agent.image(stranger, made["name"]) is None
    with pytest.raises(ConflictError):
        await host.call("commit", a, name="busybox")
    before = {image.id for image in await host.bench.runtime.images()}
    await host.call("commit", a, stream=True)
    assert {image.id for image in await host.bench.runtime.images()} == before
    path = tmp_path / "image.tar"
    path.write_bytes(host.data())
    await host.bench.runtime.remove_image("mine:1")
    assert await host.bench.runtime.import_image(str(path), "loaded:1") == ["docker.io/library/loaded:1"]
    await host.bench.runtime.remove_image("loaded:1")


async def test_a_limited_disk_over_the_end_of_everything(host: Host) -> None:
    """As after a reboot: what had been mounted is mounted again before files are carried over."""
    a = assignment(disk_gib=1)
    await host.settled(a, "running")
    bench = host.bench
    assert mounts.below(bench.containerd.root) != []
    await host.stop()
    await bench.containerd.stop()
    assert mounts.below(bench.containerd.root) == []
    await bench.containerd.start()
    await bench.runtime.close()
    bench.runtime = bench.make_runtime()
    await bench.runtime.start()
    await host.again_after_reboot()
    assert (await host.settled(a, "exited")).containers[0].exit_code is not None
    a = wished(a, "running", run=2)
    await host.settled(a, "running")
    assert "No space left" in await host.run(a, "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=2000")
    # Work folders of what was killed, as the sweep finds them after every start.
    await sweep(bench.runtime, bench.containerd.root, bench.containerd.state, bench.containerd.socket)
