"""How the containerd adapter says users, capabilities, signals and control groups, and what it makes of streams."""

from __future__ import annotations

import asyncio
import struct
import uuid
from pathlib import Path

import pytest

from askos.adapters.containerd import cgroups, security, signals, spec
from askos.adapters.containerd.streaming import Connection, StreamingError
from askos.model.errors import InvalidError
from askos.ports.runtime import ContainerConfig, Limits, Mount, SandboxConfig, Security

CAPSULE = str(uuid.uuid4())


def _container(**more: object) -> ContainerConfig:
    fields: dict[str, object] = {
        "capsule_uuid": CAPSULE, "name": "main", "run": 1, "attempt": 0, "image_ref": "x", "entrypoint": None,
        "command": None, "environment": {}, "workdir": None, "interactive": False, "tty": False, "cpu": 0.5,
        "memory_bytes": 1 << 20,
    }  # fmt: skip
    return ContainerConfig(**{**fields, **more})  # type: ignore[arg-type]


def _asked(**more: object) -> spec.Any:
    return spec.container_config(_container(**more), "abc", "sha256:1", command=[], args=[], image_user="")


# Users and capabilities


@pytest.mark.parametrize(
    ("wanted", "image", "expected"),
    [
        (Security(), "", (None, None, "")),
        (Security(), "1000", (1000, None, "")),
        (Security(), "1000:50", (1000, 50, "")),
        (Security(), "app", (None, None, "app")),
        (Security(), "app:staff", (None, None, "app:staff")),
        (Security(run_as_group=7), "app:staff", (None, 7, "app")),
        (Security(run_as_group=7), "", (0, 7, "")),
        (Security(run_as_user=0), "app", (0, None, "")),
        (Security(run_as_user=3, run_as_group=0), "app:staff", (3, 0, "")),
    ],
)
def test_who_runs(wanted: Security, image: str, expected: tuple[int | None, int | None, str]) -> None:
    context = security.container_context(wanted, False, image)
    user = context.run_as_user.value if context.HasField("run_as_user") else None
    group = context.run_as_group.value if context.HasField("run_as_group") else None
    assert (user, group, context.run_as_username) == expected


def test_capabilities_change_the_default_set() -> None:
    default = security.capabilities([], [])
    assert list(default.drop_capabilities) == ["ALL"]
    assert "MKNOD" in default.add_capabilities
    changed = security.capabilities(["net_admin", "CAP_SYS_TIME"], ["MKNOD"])
    assert {*changed.add_capabilities} == {*default.add_capabilities, "NET_ADMIN", "SYS_TIME"} - {"MKNOD"}
    nothing = security.capabilities([], ["ALL"])
    assert (list(nothing.add_capabilities), list(nothing.drop_capabilities)) == ([], ["ALL"])
    one = security.capabilities(["CHOWN"], ["ALL"])
    assert list(one.add_capabilities) == ["CHOWN"]
    every = security.capabilities(["ALL"], ["CHOWN"])
    assert (list(every.add_capabilities), list(every.drop_capabilities)) == (["ALL"], ["CHOWN"])
    both = security.capabilities(["ALL", "KILL"], ["ALL"])
    assert list(both.add_capabilities) == ["KILL"]


# What CRI is asked for


def test_the_defaults_are_those_of_a_single_container() -> None:
    asked = _asked()
    assert asked.log_path == "1-0.log"
    assert spec.SPEC_HASH not in asked.labels
    resources = asked.linux.resources
    assert (resources.cpu_shares, resources.cpu_quota, resources.memory_limit_in_bytes) == (512, 0, 1 << 20)
    context = asked.linux.security_context
    assert (context.no_new_privs, context.readonly_rootfs, context.privileged) == (True, False, False)
    assert (context.namespace_options.pid, asked.stdin_once) == (1, False)


def test_limits_go_before_cpu_and_memory() -> None:
    resources = _asked(limits=Limits(0, 20_000, 50_000, 5 << 20, -500)).linux.resources
    assert (resources.cpu_shares, resources.cpu_quota, resources.cpu_period) == (2, 20_000, 50_000)
    assert (resources.memory_limit_in_bytes, resources.oom_score_adj) == (5 << 20, -500)
    changed = spec.changed_resources(Limits())
    assert (changed.cpu_quota, changed.memory_limit_in_bytes) == (-1, -1)


def test_all_of_a_pods_container_ends_when_it_needs_too_much_memory() -> None:
    def asked(**more: object) -> dict[str, str]:
        config = spec.container_config(
            _container(**more), "abc", "sha256:1", command=[], args=[], image_user="", ends_groups=True
        )
        return dict(config.linux.resources.unified)

    assert asked(limits=Limits(0, 0, 0, 5 << 20)) == {"memory.oom.group": "1"}
    assert asked() == {}
    assert dict(_asked(limits=Limits(0, 0, 0, 5 << 20)).linux.resources.unified) == {}


def test_a_mount_of_the_hosts_file_goes_before_ours() -> None:
    assert [m.host_path for m in _asked(hosts_file="/ours").mounts] == ["/ours"]
    mounts = [Mount("/theirs", "/etc/hosts", read_only=True)]
    found = _asked(hosts_file="/ours", mounts=mounts).mounts
    assert [(m.host_path, m.readonly, m.propagation) for m in found] == [("/theirs", True, 0)]


def test_a_privileged_container_is_made_in_a_sandbox_said_to_be_so(tmp_path: Path) -> None:
    config = SandboxConfig(CAPSULE, "n", "p", 0, "h", [], sysctls={"net.ipv4.ping_group_range": "1 2"}, share_pid=True)
    plain = spec.sandbox_config(config, "abc", "/parent", tmp_path)
    assert not plain.linux.security_context.privileged
    assert plain.linux.security_context.namespace_options.pid == 0
    assert plain.linux.cgroup_parent == "/parent"
    assert dict(plain.linux.sysctls) == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "1 2",
    }
    assert spec.sandbox_config(config, "abc", "/p", tmp_path, privileged=True).linux.security_context.privileged


# Signals


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGTERM", 15), ("term", 15), (" 9 ", 9), ("SIGRTMIN", 34), ("RTMIN+3", 37), ("SIGRTMAX-14", 50), ("64", 64)],
)
def test_signals_by_name_and_number(name: str, number: int) -> None:
    assert signals.number(name) == number


@pytest.mark.parametrize("name", ["", "SIG", "SIGFOO", "0", "65", "-1", "SIGRTMIN+31", "SIGRTMIN-1", "٣", "1.5"])
def test_what_is_no_signal(name: str) -> None:
    with pytest.raises(InvalidError, match="not a signal"):
        signals.number(name)


# Control groups


def test_version_two_is_enabled_from_the_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = frozenset({"cpu", "memory", "pids", "io"})
    monkeypatch.setattr(cgroups, "hierarchies", lambda: [cgroups.Hierarchy(tmp_path, True, everything)])
    group = tmp_path / "askos-abc" / CAPSULE
    group.mkdir(parents=True)
    (tmp_path / "cgroup.subtree_control").write_text("memory io\n")
    (tmp_path / "askos-abc" / "cgroup.subtree_control").write_text("cpu memory pids\n")
    cgroups.prepare("abc", CAPSULE, pids_max=99, cpu_shares=1024, cpu_quota_us=25_000, memory_bytes=0)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +pids"
    assert (tmp_path / "askos-abc" / "cgroup.subtree_control").read_text() == "cpu memory pids\n"
    written = {p.name: p.read_text() for p in group.iterdir()}
    assert written == {"pids.max": "99", "cpu.weight": "39", "cpu.max": "25000 100000", "memory.max": "max"}
    assert cgroups.capsules("abc") == {CAPSULE}


def test_version_one_has_a_folder_in_each_hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("pids", "cpu", "memory")
    found = [cgroups.Hierarchy(tmp_path / n, False, frozenset({"rw", n})) for n in names]
    found.append(cgroups.Hierarchy(tmp_path / "unified", True, frozenset()))
    monkeypatch.setattr(cgroups, "hierarchies", lambda: found)
    cgroups.prepare("abc", CAPSULE, pids_max=0, cpu_shares=10, cpu_quota_us=0, memory_bytes=4096)
    values = {p.name: p.read_text() for n in names for p in (tmp_path / n / "askos-abc" / CAPSULE).iterdir()}
    assert values == {
        "pids.max": "max", "cpu.shares": "10", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "-1",
        "memory.limit_in_bytes": "4096",
    }  # fmt: skip
    assert not (tmp_path / "unified").exists()


def test_groups_are_found_in_both_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "hierarchies", lambda: [cgroups.Hierarchy(tmp_path, False, frozenset({"pids"}))])
    root = tmp_path / "askos-abc"
    for name, count in (("a" * 64, 3), (f"{CAPSULE}/{'b' * 64}", 4)):
        (root / name).mkdir(parents=True)
        (root / name / "pids.current").write_text(f"{count}\n")
    assert cgroups.groups("abc") == {"a" * 64: [root / ("a" * 64)], "b" * 64: [root / CAPSULE / ("b" * 64)]}
    assert cgroups.process_counts("abc") == {"a" * 64: 3, "b" * 64: 4}
    assert cgroups.groups("other") == {}


@pytest.mark.parametrize(("shares", "weight"), [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (10**6, 10_000)])
def test_weights(shares: int, weight: int) -> None:
    assert cgroups.weight(shares) == weight


# Streams


class Server:
    """Answers one connection with prepared bytes, and keeps what came."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = answers
        self.got = b""
        self.ended = asyncio.Event()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/attach/abc"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.wait_for(self.ended.wait(), 5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.got = await reader.readuntil(b"\r\n\r\n")
            for answer in self._answers:
                writer.write(answer)
            await writer.drain()
            while data := await reader.read(1000):
                self.got += data
        except OSError:
            pass
        finally:
            writer.close()
            self.ended.set()


UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"


def _control(kind: int, payload: bytes) -> bytes:
    return struct.pack(">II", 0x8003_0000 | kind, len(payload)) + payload


def _data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", stream, flags << 24 | len(payload)) + payload


def _reply(stream: int) -> bytes:
    return _control(2, struct.pack(">I", stream) + b"compressed")


async def test_frames_are_told_apart() -> None:
    answers = UPGRADED + _reply(1) + _control(4, b"settings") + _reply(3)
    data = _data(3, b"one") + _control(6, b"ping") + _data(99, b"nobody's") + _data(1, b"{}", 1) + _data(3, b"two")
    server = Server(answers, data, _control(7, b"goodbye"))
    async with server as url:
        connection = await Connection.open(url, ["error", "stdout"])
        pieces = []
        while (piece := await connection.receive()) is not None:
            pieces.append(piece)
        assert pieces == [("stdout", b"one"), ("error", b"{}"), ("stdout", b"two")]
        assert await connection.receive() is None
        await connection.send("error", b"x" * 40_000)
        connection.close()
    assert _control(6, b"ping") in server.got
    assert b"Upgrade: SPDY/3.1" in server.got


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "does not speak"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "does not speak"),
        (b"x" * 200_000, "does not speak"),
        (UPGRADED + _control(3, b"12345678"), "does not speak"),
    ],
)
async def test_what_is_no_streaming_server(answer: bytes, words: str) -> None:
    async with Server(answer) as url:
        with pytest.raises(StreamingError, match=words):
            await Connection.open(url, ["error", "stdout"])


async def test_a_streaming_server_that_is_not_there() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(StreamingError, match=f"127.0.0.1:{port} cannot be reached"):
        await Connection.open(f"http://127.0.0.1:{port}/attach/x", ["error"])
    with pytest.raises(StreamingError, match="https, which is not supported"):
        await Connection.open("https://127.0.0.1:1/attach/x", ["error"])
