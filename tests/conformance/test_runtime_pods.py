"""What pods need of the runtime port: users, namespaces, signals, limits and figures: see test_runtime."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from askos.model.errors import InvalidError, RuntimeFailedError
from askos.ports.runtime import (
    Limits,
    Mount,
    Security,
)

from .subjects import QUICK_S, UNKNOWN, Subject

pytestmark = pytest.mark.asyncio(loop_scope="module")

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
        _, sandbox, container = await subject.awake("echo ready; exec sleep 1000", security=security)
        text = await subject.text(container, "cat", "/proc/1/status")
        await subject.runtime.remove_sandbox(sandbox)
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)

    default, more, none, one, every, free, user = await asyncio.gather(
        status(Security()),
        status(Security(add_capabilities=["NET_ADMIN"], drop_capabilities=["MKNOD"])),
        status(Security(drop_capabilities=["ALL"])),
        status(Security(drop_capabilities=["ALL"], add_capabilities=["CHOWN"])),
        status(Security(add_capabilities=["ALL"], drop_capabilities=["CHOWN"])),
        status(Security(no_new_privileges=False, seccomp="unconfined")),
        status(Security(run_as_user=1000)),
    )
    assert (default["CapEff"], default["NoNewPrivs"], default["Seccomp"]) == ("00000000a80425fb", "1", "2")
    assert int(more["CapEff"], 16) == (0xA80425FB | 1 << 12) & ~(1 << 27)
    assert int(none["CapEff"], 16) == 0
    assert int(one["CapEff"], 16) == 1
    assert int(every["CapEff"], 16) > 0xA80425FB
    assert int(every["CapEff"], 16) & 1 == 0
    assert (free["NoNewPrivs"], free["Seccomp"]) == ("0", "0")
    assert int(user["CapEff"], 16) == 0


async def test_a_privileged_container(subject: Subject) -> None:
    if not subject.real:
        pytest.skip("the fake's processes are not confined")
    security = Security(privileged=True, no_new_privileges=False)
    _, _, container = await subject.awake("echo ready; exec sleep 1000", security=security)
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
        script = f"echo ready; exec sleep {'1234' if name == 'a' else '5678'}"
        more = {"name": name, "log_name": f"{name}.log", "share_pid": shared}
        wanted = subject.container(config.capsule_uuid, "sh", "-c", script, **more)
        ids.append(await subject.runtime.create_container(sandbox, wanted, config))
        await subject.runtime.start_container(ids[-1])
        await subject.said(config.capsule_uuid, f"{name}.log")
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
    capsule, _, container = await subject.awake("trap 'exit 6' USR1; echo ready; sleep 1000 & wait")
    for _ in range(2):
        await subject.runtime.stop_container(container, 30, name)
        assert (await subject.see(capsule, container)).exit_code == 6


async def test_a_stop_signal_that_is_not_heard_ends_in_a_kill(subject: Subject) -> None:
    capsule, _, container = await subject.awake("echo ready; exec sleep 1000")
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
    for path in _groups(container):
        group = path.parent if folder else path
        values |= {p.name: p.read_text().strip() for p in group.iterdir() if p.name in _FILES}
    if "cpu.max" in values:
        pytest.skip("version 2 has weights for shares")
    quota, memory = values["cpu.cfs_quota_us"], values["memory.limit_in_bytes"]
    return values["cpu.shares"], "none" if quota == "-1" else quota, "none" if int(memory) >= 1 << 60 else memory


def _groups(name: str) -> list[Path]:
    """The control groups of a name. `os.walk` does not mind that those of other tests vanish as it looks."""
    return [Path(at, name) for at, names, _ in os.walk("/sys/fs/cgroup") if name in names]


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
        script = "i=0; while [ $i -lt 100 ]; do sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done"
        code, _, err = await subject.run(container, "sh", "-c", script)
        assert code != 0
        assert b"can't fork" in err
    assert [s.pids > 0 for s in await subject.runtime.stats(capsule)] == [True]
    await subject.runtime.remove_sandbox(sandbox)
    for _ in range(2):
        await subject.runtime.discard_group(capsule)
    assert capsule not in await subject.runtime.capsule_groups()
    if subject.real:
        assert _groups(capsule) == []


async def test_figures_of_what_runs(subject: Subject) -> None:
    capsule, _, container = await subject.awake("echo ready; exec sleep 1000")
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
