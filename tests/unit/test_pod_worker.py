"""The worker of a pod on a host in memory: actions side by side, what is remembered, what is told."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from askos.loops import pods
from askos.loops.agent import Agent
from askos.loops.assembly import HostEnv
from askos.loops.pods import PodWorker
from askos.model.capsules import Assignment, CapsuleReport, CapsuleSpec, Network, Port, Report, Wish
from askos.model.errors import RuntimeFailedError
from askos.model.images import normalise
from askos.model.pods import Content, Pod, PodContainerReport, PodReport
from askos.plan.pods import steps
from askos.ports.clock import now_us

from .fake_runtime import fake_image
from .fake_volumes import FakeVolumes
from .fakes import FakeNetwork, FakeRuntime

NET = Network(str(uuid.uuid4()), "p", "default", "10.64.0.0/22", "10.64.0.1", str(uuid.uuid4()))
LIVES = ["sleep", "1000"]


def container(name: str = "main", command: list[str] = LIVES, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": command, **fields}


def assignment(*containers: dict[str, Any], content: Content | None = None, **spec: Any) -> Assignment:
    made = {"containers": list(containers or [container()]), "terminationGracePeriodSeconds": 1, **spec}
    pod = msgspec.convert({"metadata": {"name": "web"}, "spec": made}, Pod)
    ident = str(uuid.uuid4())
    return Assignment(
        capsule_uuid=ident,
        project_id="p",
        name="web",
        epoch=1,
        spec=CapsuleSpec(pod=pod),
        wish=Wish("running", at_us=now_us()),
        ports=[Port(str(uuid.uuid4()), NET.uuid, ident, "10.64.0.2", "02:00:00:00:00:02")],
        networks=[NET],
        kind="capsule",
        content=content or Content(),
        created_us=now_us(),
    )


class Host:
    """An agent on fakes, and everything that it has told."""

    def __init__(self, root: Path, runtime: FakeRuntime) -> None:
        self.runtime = runtime
        self.volumes = FakeVolumes(root / "capsules")
        self.told: list[CapsuleReport] = []
        network = FakeNetwork()
        env = HostEnv("192.0.2.7", "here", 2, 1 << 30, ["192.0.2.53"], ["example"], "abcdef")
        self.agent = Agent(runtime, network, root / "logs", self.told.extend, now_us, volumes=self.volumes, env=env)  # type: ignore[arg-type]

    def report(self, uuid_: str) -> Report:
        return next((r.report for r in reversed(self.told) if r.capsule_uuid == uuid_), Report())

    def pod(self, uuid_: str) -> PodReport:
        return self.report(uuid_).pod or PodReport()

    def main(self, uuid_: str) -> PodContainerReport:
        pod = self.pod(uuid_)
        return pod.containers[0] if pod.containers else PodContainerReport("main")

    def events(self) -> list[str]:
        return [event.reason for report in self.told for event in report.events]


@asynccontextmanager
async def host(root: Path, runtime: FakeRuntime | None = None) -> AsyncIterator[Host]:
    if runtime is None:
        runtime = FakeRuntime(root / "logs")
        runtime.add_image()
    made = Host(root, runtime)
    loops = asyncio.create_task(made.agent.run())
    try:
        yield made
    finally:
        loops.cancel()
        await asyncio.gather(loops, return_exceptions=True)
        await made.agent.stop_workers()


async def until(check: Callable[[], Any], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not check():
            await asyncio.sleep(0.005)


async def test_a_pod_runs_and_is_deleted_without_a_trace(tmp_path: Path) -> None:
    async with host(tmp_path) as h:
        a = assignment(container("one"), container("two"))
        h.agent.snapshot([a])
        await until(lambda: h.pod(a.capsule_uuid).phase == "Running")
        await until(lambda: all(c.ready for c in h.pod(a.capsule_uuid).containers))
        assert {"Created", "Started", "Pulled"} <= set(h.events())
        gone = msgspec.structs.replace(a.wish, state="deleted", generation=2, stop_timeout_s=1, at_us=now_us())
        h.agent.changed([msgspec.structs.replace(a, wish=gone)])
        await until(lambda: h.told[-1].gone)
        final = h.told[-1].report.pod
        assert final is not None
        assert [c.state for c in final.containers] == ["terminated", "terminated"]
        assert not h.runtime.sandboxes
        assert not h.runtime.containers
        assert not h.runtime.groups
        assert h.volumes.torn == [a.capsule_uuid]


async def test_a_slow_pull_holds_up_nothing_but_its_container(tmp_path: Path) -> None:
    async with host(tmp_path) as h:
        h.runtime.stall["pull"] = asyncio.Event()
        a = assignment(container("one"), container("two", image="slow:1"))
        h.agent.snapshot([a])
        await until(lambda: h.main(a.capsule_uuid).state == "running")
        # A delete does not wait for it either.
        gone = msgspec.structs.replace(a.wish, state="deleted", generation=2, stop_timeout_s=0, at_us=now_us())
        h.agent.changed([msgspec.structs.replace(a, wish=gone)])
        await until(lambda: h.told[-1].gone)
        assert h.runtime.cancelled == ["pull"]


@pytest.mark.parametrize(("grace_s", "least"), [(0, 2), (1, 2), (30, 29)])
async def test_a_program_always_gets_its_signal_and_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace_s: int, least: int
) -> None:
    async with host(tmp_path) as h:
        given: list[int] = []
        stop = h.runtime.stop_container

        async def noted(container_id: str, timeout_s: int, stop_signal: str | None = None) -> None:
            given.append(timeout_s)
            await stop(container_id, timeout_s, stop_signal)

        monkeypatch.setattr(h.runtime, "stop_container", noted)
        a = assignment(shareProcessNamespace=True)  # so that the signal ends what does not handle it
        h.agent.snapshot([a])
        await until(lambda: h.main(a.capsule_uuid).state == "running")
        gone = msgspec.structs.replace(a.wish, state="deleted", generation=2, stop_timeout_s=grace_s, at_us=now_us())
        h.agent.changed([msgspec.structs.replace(a, wish=gone)])
        await until(lambda: h.told[-1].gone)
        assert given and all(least <= timeout_s <= max(grace_s, 2) for timeout_s in given)
        pod = h.told[-1].report.pod
        assert pod is not None and pod.containers[0].ended is not None
        assert pod.containers[0].ended.exit_code == 143


async def test_volumes_that_cannot_be_made_are_tried_again_and_told(tmp_path: Path) -> None:
    async with host(tmp_path) as h:
        h.volumes.fail = [RuntimeFailedError("The disk is on fire.")]
        a = assignment()
        h.agent.snapshot([a])
        await until(lambda: h.main(a.capsule_uuid).state == "running")
        await until(lambda: "FailedMount" in h.events())


async def test_a_restarted_agent_adopts(tmp_path: Path) -> None:
    a = assignment(container("one"), container("two"))
    async with host(tmp_path) as h:
        h.agent.snapshot([a])
        await until(lambda: h.pod(a.capsule_uuid).phase == "Running")
        await until(lambda: all(c.ready for c in h.pod(a.capsule_uuid).containers))
        before, runtime = h.pod(a.capsule_uuid), h.runtime
    again = msgspec.structs.replace(a, report=h.report(a.capsule_uuid))
    runtime.calls.clear()
    async with host(tmp_path, runtime) as second:
        second.agent.snapshot([again])
        await until(lambda: second.told)
        await asyncio.sleep(0.05)
        after = second.pod(a.capsule_uuid)
        assert [c.container_id for c in after.containers] == [c.container_id for c in before.containers]
        assert after.conditions == before.conditions
        assert not runtime.verbs("create_container", "start_container", "stop_container", "run_sandbox")


async def test_what_is_cancelled_before_it_begins_holds_up_nothing(tmp_path: Path) -> None:
    async with host(tmp_path) as h:
        h.runtime.stall["pull"] = asyncio.Event()
        a = assignment(container(image="slow:1"))
        h.agent.snapshot([a])
        worker = h.agent.workers[a.capsule_uuid]
        assert isinstance(worker, PodWorker)
        # A new wish in the very turn of the loop in which the work was ordered.
        worker._begin(a, steps.PullImage("main", normalise("slow:1"), 0))
        wish = msgspec.structs.replace(a.wish, generation=2)
        h.agent.changed([msgspec.structs.replace(a, wish=wish)])
        h.runtime.registry[normalise("slow:1")] = fake_image("slow:1")
        h.runtime.stall["pull"].set()
        await until(lambda: h.main(a.capsule_uuid).state == "running")


async def test_what_hangs_is_given_up_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "LIMIT_S", 0.05)
    async with host(tmp_path) as h:
        h.runtime.stall["run_sandbox"] = asyncio.Event()
        a = assignment()
        h.agent.snapshot([a])
        await until(lambda: "FailedCreatePodSandBox" in h.events())
        del h.runtime.stall["run_sandbox"]
        await until(lambda: h.main(a.capsule_uuid).state == "running")


async def test_a_look_that_hangs_is_given_up_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "LOOK_S", 0.05)
    async with host(tmp_path) as h:
        h.runtime.stall["observe"] = asyncio.Event()
        a = assignment()
        h.agent.snapshot([a])
        await until(lambda: "observe" in h.runtime.cancelled)
        del h.runtime.stall["observe"]
        await until(lambda: h.main(a.capsule_uuid).state == "running")


async def test_an_agent_that_comes_back_on_an_empty_host_makes_everything_anew(tmp_path: Path) -> None:
    a = assignment(container("one"), container("two"))

    def runs() -> bool:
        found = h.pod(a.capsule_uuid).containers
        return len(found) == 2 and all(c.ready for c in found)

    async with host(tmp_path) as h:
        h.agent.snapshot([a])
        await until(runs)
        for number in range(1, 4):
            again = msgspec.structs.replace(a, report=h.report(a.capsule_uuid))
            await h.agent.stop_workers()
            for sandbox_id in list(h.runtime.sandboxes):
                await h.runtime.stop_sandbox(sandbox_id)
            h.told.clear()
            h.agent.snapshot([again])
            await until(runs)
            assert {(c.restarts, c.crashes) for c in h.pod(a.capsule_uuid).containers} == {(number, 0)}


async def test_secrets_that_come_later_let_it_start(tmp_path: Path) -> None:
    source = {"secretKeyRef": {"name": "s", "key": "k"}}
    async with host(tmp_path) as h:
        a = assignment(container(env=[{"name": "X", "valueFrom": source}]))
        h.agent.snapshot([a])
        await until(lambda: h.main(a.capsule_uuid).reason == "CreateContainerConfigError")
        assert '"s"' in h.main(a.capsule_uuid).message or "s" in h.main(a.capsule_uuid).message
        content = msgspec.convert({"secrets": {"s": {"data": {"k": "aXQ="}}}}, Content)
        wish = msgspec.structs.replace(a.wish, generation=2)
        h.agent.changed([msgspec.structs.replace(a, wish=wish, content=content, content_revision=1)])
        await until(lambda: h.main(a.capsule_uuid).state == "running")
        (made,) = h.runtime.containers.values()
        assert made.config.environment["X"] == "it"


async def test_too_much_disk_fails_it(tmp_path: Path) -> None:
    async with host(tmp_path) as h:
        h.volumes.sizes = {"v": 2 << 20}
        a = assignment(volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}])
        h.agent.snapshot([a])
        await until(lambda: h.pod(a.capsule_uuid).phase == "Failed")
        assert h.pod(a.capsule_uuid).reason == "Evicted"
        assert h.report(a.capsule_uuid).state == "error"
