"""What can befall a machine: its programs are killed, or it is switched off."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.acceptance.cloud_fixtures import Cloud

from askos.adapters.containerd import teardown


def containerd_pid(cloud: Cloud) -> int:
    record = json.loads((cloud.data / "run/containerd/process.json").read_text())
    return int(record["process"]["pid"])


def kill(cloud: Cloud, victim: str) -> None:
    """`kill -9` of "askos", "containerd" or "both" at once; returns when they have gone."""
    pids = []
    if victim in ("askos", "both"):
        pids.append(cloud.pid())
    if victim in ("containerd", "both"):
        pids.append(containerd_pid(cloud))
    _kill(pids)


def reboot(cloud: Cloud) -> None:
    """As if the machine had lost power: no process, mount, interface, rule, control group nor anything in /run is
    left of the cloud; what is on disk stays."""
    # First those that would restart others.
    kill(cloud, "both")
    socket = cloud.data / "run/containerd/c.sock"
    sockets = [teardown.shim_socket(socket, shim_id) for shim_id in teardown.shims(socket)]
    deadline = time.monotonic() + 20
    while (left := _processes(cloud)) and time.monotonic() < deadline:
        # Also those that have ended already, until init has taken note of them.
        _kill(left)
        time.sleep(0.02)
    for _ in range(5):
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            point = line.split()[4]
            if point.startswith(str(cloud.data)):
                _quietly("umount", "-l", point)
    for link in json.loads(_quietly("ip", "-j", "link")):
        if link["ifname"].startswith(f"ak{cloud.instance[:4]}"):
            _quietly("ip", "link", "del", link["ifname"])
    _quietly("nft", "delete", "table", "inet", f"askos_{cloud.instance}")
    for root in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        _remove_group(root / f"askos-{cloud.instance}")
    for path in (*sockets, Path(f"/run/askos/{cloud.instance}.json")):
        path.unlink(missing_ok=True)
    shutil.rmtree(cloud.data / "run")


def _processes(cloud: Cloud) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            mine = str(cloud.data) in (entry / "cmdline").read_text(errors="replace")
            if mine or f"askos-{cloud.instance}" in (entry / "cgroup").read_text():
                found.append(int(entry.name))
    return found


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while any(_alive(pid) for pid in pids):
        time.sleep(0.005)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _remove_group(group: Path) -> None:
    for path, _, _ in os.walk(group, topdown=False):
        for _ in range(100):
            try:
                os.rmdir(path)
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)


def _quietly(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout
