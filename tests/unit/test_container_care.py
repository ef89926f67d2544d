"""Health checks, dedicated cores and the reading of ps, on a host in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from askos.loops import processes
from askos.loops.cores import Cores, listed, parse
from askos.loops.health import HealthChecks
from askos.model.capsules import Healthcheck
from askos.model.errors import ConflictError, InvalidError, RuntimeFailedError
from askos.plan.reconcile import Health
from askos.ports.clock import now_us
from askos.ports.runtime import ContainerConfig, SandboxConfig

from .fakes import BUSYBOX, FakeRuntime

CHECK = Healthcheck("check it", interval_s=1, retries=3, timeout_s=5)
LONG_AGO = now_us() - 3600 * 1_000_000


class Checks:
    """Health checks with a clock that flies; `answers` are exit codes or errors, the last one again and again."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []
        self.changes: list[str] = []
        self.now_us = now_us()
        self.checks = HealthChecks(self._run, self._clock, self.changes.append)

    def _clock(self) -> int:
        self.now_us += 400_000
        return self.now_us

    async def _run(self, container_id: str, argv: list[str], timeout_s: float) -> tuple[int, bytes]:
        self.asked.append(argv)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer, f"said {len(self.asked)}\n".encode()

    def want(self, last: Health = Health(), *, container: str = "c1", paused: bool = False) -> Health:  # noqa: B008
        return self.checks.want("u", container, CHECK, LONG_AGO, last, paused=paused)

    async def until(self, state: str) -> Health:
        async with asyncio.timeout(10):
            while (health := self.want()).state != state:
                await asyncio.sleep(0.01)
        return health


async def test_health_begins_with_starting_and_one_success_is_enough() -> None:
    c = Checks(1, 1, 0)
    assert c.want().state == "starting"
    assert await c.until("healthy") == Health("healthy", "said 3")
    assert c.asked[0] == ["/bin/sh", "-c", "check it"]
    assert c.changes == ["u"]
    c.checks.drop("u")


async def test_so_many_failures_in_a_row_make_it_unhealthy() -> None:
    c = Checks(0, 1, 1, 0, 1, 1, 1)
    await c.until("healthy")
    assert await c.until("unhealthy") == Health("unhealthy", "said 7")
    c.answers = [0]
    assert (await c.until("healthy")).state == "healthy"
    c.checks.drop("u")


async def test_a_check_that_cannot_be_run_is_a_failure_but_an_ending_container_is_none() -> None:
    c = Checks(ConflictError("not running"), ConflictError("not running"), RuntimeFailedError("no such file"))
    assert await c.until("unhealthy") == Health("unhealthy", "no such file")
    assert len(c.asked) == 5
    c.checks.drop("u")


async def test_what_was_reported_goes_on() -> None:
    c = Checks(1)
    assert c.want(Health("healthy", "before")) == Health("healthy", "before")
    assert (await c.until("unhealthy")).state == "unhealthy"
    assert len(c.asked) == 3
    assert c.want(container="c2").state == "starting"
    c.checks.drop("u")


async def test_what_is_paused_is_not_checked() -> None:
    c = Checks(0)
    await c.until("healthy")
    c.want(paused=True)
    await asyncio.sleep(0.05)
    asked = len(c.asked)
    await asyncio.sleep(0.7)
    assert len(c.asked) == asked
    assert c.want().state == "healthy"
    async with asyncio.timeout(10):
        while len(c.asked) == asked:
            await asyncio.sleep(0.01)
    c.checks.drop("u")


async def test_no_check_is_under_way_when_it_is_paused() -> None:
    c = Checks(0)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def lasts(container_id: str, argv: list[str], timeout_s: float) -> tuple[int, bytes]:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return 1, b""

    c.checks = HealthChecks(lasts, c._clock, c.changes.append)
    await c.checks.hold("u")
    c.want()
    await c.checks.hold("u")
    begun.clear()
    assert c.want().state == "starting"
    async with asyncio.timeout(10):
        await begun.wait()
        await c.checks.hold("u")
    assert ended.is_set()
    assert (c.want(paused=True).state, c.changes) == ("starting", [])
    c.checks.drop("u")


# -- cores --------------------------------------------------------------------------------------------------------


class Host:
    """A runtime with containers, some of which have cores of their own."""

    def __init__(self, tmp_path: Path, count: int) -> None:
        self.runtime = FakeRuntime(tmp_path)
        self.runtime.add_image()
        self.cores = Cores(self.runtime, lambda uuid: uuid.startswith("own"), set(range(count)))

    async def make(self, uuid: str, cpu: float = 1.0, **more: Any) -> str:
        sandbox = SandboxConfig(uuid, uuid, "p", 0, "h", [])
        made = await self.runtime.run_sandbox(sandbox)
        config = ContainerConfig(
            uuid, "main", 1, 0, BUSYBOX, None, ["sleep", "infinity"], {}, None, False, False, cpu, 0
        )
        return await self.runtime.create_container(made, ContainerConfig(**{**_fields(config), **more}), sandbox)

    async def own(self, uuid: str, cpu: float) -> str:
        async with self.cores.take(cpu) as cpus:
            return await self.make(uuid, cpus=cpus)

    def cpus(self, container: str) -> str:
        return self.runtime.containers[container].seen.cpus


def _fields(config: ContainerConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__struct_fields__}


async def test_cores_are_given_once_and_others_leave_them(tmp_path: Path) -> None:
    host = Host(tmp_path, 4)
    shared = await host.make("shared")
    one = await host.own("own-1", 2.0)
    assert (host.cpus(one), host.cpus(shared), host.cores.shared) == ("2,3", "0,1", "0,1")
    two = await host.own("own-2", 0.5)
    assert (host.cpus(two), host.cpus(shared)) == ("1", "0")
    with pytest.raises(RuntimeFailedError, match="0 of 4 can still be given") as refused:
        await host.own("own-3", 1.0)
    assert not refused.value.retryable
    await host.runtime.remove_container(one)
    await host.cores.confine()
    assert host.cpus(shared) == "0,2,3"
    await host.runtime.remove_container(two)
    await host.cores.confine()
    assert (host.cpus(shared), host.cores.shared) == ("0,1,2,3", "")
    await host.runtime.close()


async def test_without_dedicated_cores_nobody_is_touched(tmp_path: Path) -> None:
    host = Host(tmp_path, 4)
    shared = await host.make("shared")
    await host.cores.confine()
    assert host.cpus(shared) == ""
    assert host.runtime.verbs("set_cpus") == []


async def test_one_who_cannot_be_moved_does_not_keep_the_others(tmp_path: Path) -> None:
    host = Host(tmp_path, 2)
    first, second = await host.make("shared-1"), await host.make("shared-2")
    host.runtime.fail["set_cpus"] = [RuntimeFailedError("not in this sandbox")]
    await host.own("own-1", 1.0)
    assert sorted([host.cpus(first), host.cpus(second)]) == ["", "0"]
    await host.cores.confine()
    assert [host.cpus(first), host.cpus(second)] == ["0", "0"]


def test_lists_of_cores() -> None:
    assert parse("0-2,5") == {0, 1, 2, 5}
    assert parse("") == set()
    assert listed({5, 0, 2}) == "0,2,5"


# -- ps -----------------------------------------------------------------------------------------------------------

PS = """UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 07:00 ?        00:00:01 init
root          42       1  0 07:01 ?        00:00:00 sh -c  two  blanks
nobody       421      42  0 07:01 ?        00:00:00 sleep 42
"""


def test_only_the_containers_lines_are_shown() -> None:
    told = processes.read(PS, {42}, "-ef")
    assert told["titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert told["processes"] == [["root", "42", "1", "0", "07:01", "?", "00:00:00", "sh -c  two  blanks"]]


def test_without_pids_nothing_can_be_told_apart() -> None:
    with pytest.raises(InvalidError, match="PID"):
        processes.read("COMMAND\ninit\n", {1}, "-o comm")


@pytest.mark.parametrize(
    "wrong", ["--no-such-option", "-o rss=PID,args", "-o '%r%a'", "-o comm=PID", "'", "--format=ni=PID"]
)
async def test_arguments_that_are_refused(wrong: str) -> None:
    with pytest.raises(InvalidError):
        await processes.listing(wrong, {1})


async def test_arguments_that_are_taken() -> None:
    import os

    told = await processes.listing("aux --sort=-pid", {os.getpid()})
    assert told["titles"][:2] == ["USER", "PID"]
    assert [row[1] for row in told["processes"]] == [str(os.getpid())]


def test_what_the_kernel_counts() -> None:
    assert processes._v1("8:0 Read 10\n8:0 Write 5\n8:16 Read 1\nTotal 16\n") == (11, 5)
    assert processes._v2("8:0 rbytes=10 wbytes=5 rios=1\n8:16 rbytes=1 wbytes=2\n") == (11, 7)
    assert processes.network_bytes(2**30) == (0, 0)
    assert processes.disk_bytes(2**30) == (0, 0)
