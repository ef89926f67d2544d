"""The configuration of a private containerd, decided by what this machine can do.

Everything is probed and nothing assumed: whether the data folder's file system carries overlay mounts,
whether oom scores may be lowered, whether AppArmor and SELinux are there.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path

import msgspec

from askos.adapters.containerd import gvisor

PAUSE_IMAGE = "askos.local/pause:1"
_CAP_SYS_RESOURCE = 24
_CRI = 'plugins."io.containerd.grpc.v1.cri"'
# What a private containerd for pods never uses; names that a version does not know are ignored by it.
_DISABLED = [
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
]


class Settings(msgspec.Struct, frozen=True):
    """What a configuration is made from; all paths are absolute."""

    root: Path
    state: Path
    socket: Path
    certs: Path
    cni_bin_dir: Path
    cni_conf_dir: Path
    snapshotter: str
    restrict_oom_score: bool
    disable_apparmor: bool
    enable_selinux: bool
    runsc: Path | None = None
    """The program to be called for gVisor; None: there is no gVisor here."""


def render(settings: Settings) -> str:
    """The text of config.toml, format version 2 (read by containerd 1.6, 1.7 and 2.x)."""
    s = settings
    lines = [
        "# Written by askos at each start; changes made here are lost.",
        "version = 2",
        f"root = {_quoted(s.root)}",
        f"state = {_quoted(s.state)}",
        f"disabled_plugins = {json.dumps(_DISABLED)}",
        "[debug]",
        'level = "warn"',
        "[grpc]",
        f"address = {_quoted(s.socket)}",
        f"[{_CRI}]",
        "disable_tcp_service = true",
        # Attached clients may be silent for as long as they like.
        'stream_idle_timeout = "0s"',
        f"sandbox_image = {_quoted(PAUSE_IMAGE)}",
        "netns_mounts_under_state_dir = true",
        "tolerate_missing_hugetlb_controller = true",
        "disable_hugetlb_controller = true",
        f"restrict_oom_score_adj = {_flag(s.restrict_oom_score)}",
        f"disable_apparmor = {_flag(s.disable_apparmor)}",
        f"enable_selinux = {_flag(s.enable_selinux)}",
        f"[{_CRI}.cni]",
        f"bin_dir = {_quoted(s.cni_bin_dir)}",
        f"conf_dir = {_quoted(s.cni_conf_dir)}",
        f"[{_CRI}.containerd]",
        f"snapshotter = {_quoted(s.snapshotter)}",
        'default_runtime_name = "runc"',
        f"[{_CRI}.containerd.runtimes.runc]",
        'runtime_type = "io.containerd.runc.v2"',
        f"[{_CRI}.containerd.runtimes.runc.options]",
        # A folder of our own, so that runc's leftovers can be told from other users' containers.
        f"Root = {_quoted(s.state / 'runc')}",
        *(_gvisor(s.runsc, s.state) if s.runsc is not None else ()),
        f"[{_CRI}.registry]",
        f"config_path = {_quoted(s.certs)}",
        # From 2.0 on it is on, at a socket that all containerds of a machine would share.
        '[plugins."io.containerd.nri.v1.nri"]',
        "disable = true",
        "",
    ]
    return "\n".join(lines)


def _gvisor(program: Path, state: Path) -> list[str]:
    name = f"{_CRI}.containerd.runtimes.{gvisor.HANDLER}"
    return [
        f"[{name}]",
        'runtime_type = "io.containerd.runc.v2"',
        f"[{name}.options]",
        f"BinaryName = {_quoted(program)}",
        f"Root = {_quoted(state / gvisor.HANDLER)}",
    ]


def may_lower_oom_score() -> bool:
    """Whether this process, and so containerd, has CAP_SYS_RESOURCE."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False


def has_apparmor() -> bool:
    """Whether the kernel enforces AppArmor and its parser, which containerd needs, is installed."""
    try:
        enabled = Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False
    return enabled and shutil.which("apparmor_parser") is not None


def has_selinux() -> bool:
    """Whether SELinux is there and enforced."""
    try:
        return Path("/sys/fs/selinux/enforce").read_text().strip() == "1"
    except OSError:
        return False


async def carries_overlay(folder: Path) -> bool:
    """Whether overlay mounts work on the folder's file system: makes one, writes through it, removes it."""
    probe = Path(tempfile.mkdtemp(prefix="overlay-probe-", dir=folder))
    merged = probe / "merged"
    for name in ("lower", "upper", "work", "merged"):
        (probe / name).mkdir()
    (probe / "lower" / "seen").write_text("lower")
    options = f"lowerdir={probe / 'lower'},upperdir={probe / 'upper'},workdir={probe / 'work'}"
    try:
        if await _run("mount", "-t", "overlay", "askos-probe", "-o", options, str(merged)) != 0:
            return False
        try:
            (merged / "seen").write_text("upper")
            (merged / "seen").rename(merged / "renamed")
            return (probe / "upper" / "renamed").read_text() == "upper"
        except OSError:
            return False
        finally:
            await _run("umount", str(merged))
    finally:
        shutil.rmtree(probe, ignore_errors=True)


async def _run(*command: str) -> int:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await asyncio.wait_for(process.wait(), 30)


def _quoted(value: object) -> str:
    # A JSON string is a TOML basic string for everything that a path can sensibly hold.
    return json.dumps(str(value))


def _flag(value: bool) -> str:
    return "true" if value else "false"
