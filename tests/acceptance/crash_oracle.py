"""What the kernel, containerd, the database and the disk say after a crash test: asked of them, never of Askos."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
from cri_api.v1 import api_pb2 as cri
from tests.acceptance.crash_boxes import Box
from tests.acceptance.crash_checks import Runtime
from tests.acceptance.crash_fixtures import Api, Cloud
from tests.acceptance.crash_world import NEUTRON, PORT, World

_LIVE = ("Running", "Paused")
_NOT_COUNTED = ("alembic_version", "changes", "hosts", "sqlite_sequence", "tokens")
_FOLDERS = ("capsules", "volumes", "images", "adopted", "log/capsules", "run/uploads")


def wrong_outside(world: World, boxes: list[Box], shown: dict[str, dict[str, Any]]) -> list[str]:
    """What does not fit what the API shows: containers by uuid."""
    try:
        runtime = Runtime(world.cloud)
    except grpc.RpcError as error:
        return [f"containerd does not answer: {error}"]
    there = [box for box in boxes if box.uuid in shown]
    bad = _doubled(world, runtime, shown)
    live = [box for box in there if shown[box.uuid]["status"] in _LIVE]
    pids = {box.uuid: runtime.running[box.uuid][0].pid for box in live if box.uuid in runtime.running}
    bad += [line for box in live if box.uuid in pids for line in _wrong_limits(box, shown[box.uuid], pids[box.uuid])]
    bad += _wrong_addresses(live, shown, pids)
    running = [box for box in live if shown[box.uuid]["status"] == "Running"]
    return bad + _wrong_walls(world, running, shown, runtime) + _wrong_doors(world, running, shown)


def _doubled(world: World, runtime: Runtime, shown: dict[str, dict[str, Any]]) -> list[str]:
    items = world.cloud.client.at("GET", "/askos/v1/capsules").json()["items"]
    known = {*shown, *(item["id"] for item in items)}
    bad = [f"sandbox {s.id} is of {o}, which is not there" for s in runtime.sandboxes
           if (o := runtime.owners[s.id]) not in known]  # fmt: skip
    bad += [f"container {c.id} is of {o}, which is not there" for c in runtime.containers
            if (o := c.labels["askos.io/capsule"]) not in known]  # fmt: skip
    ready = Counter(runtime.owners[s.id] for s in runtime.sandboxes if s.state == cri.SANDBOX_READY)
    for uuid, item in shown.items():
        want = int(item["status"] in _LIVE)
        have = (ready[uuid], len(runtime.running.get(uuid, [])))
        if have != (want, want):
            bad.append(f"{item['name']} ({uuid}) is {item['status']} with {have[0]} sandboxes, {have[1]} containers")
    return bad


def _wrong_limits(box: Box, item: dict[str, Any], pid: int) -> list[str]:
    groups = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    shares = max(2, int(1024 * item["cpu"]))
    if "memory" in groups:
        memory = Path(f"/sys/fs/cgroup/memory{groups['memory']}/memory.limit_in_bytes").read_text()
        cpu = next(path for names, path in groups.items() if "cpu" in names.split(","))
        has = Path(f"/sys/fs/cgroup/cpu{cpu}/cpu.shares").read_text()
        frozen = Path(f"/sys/fs/cgroup/freezer{groups['freezer']}/freezer.state").read_text().strip() == "FROZEN"
    else:
        folder = Path(f"/sys/fs/cgroup{groups['']}")
        memory, has = (folder / "memory.max").read_text(), (folder / "cpu.weight").read_text()
        shares = 1 + (shares - 2) * 9999 // 262142
        frozen = "frozen 1" in (folder / "cgroup.events").read_text()
    bad = []
    if int(memory) != int(item["memory"]) << 20:
        bad.append(f"may use {memory.strip()} bytes, not {item['memory']} MiB: {box}")
    if int(has) != shares:
        bad.append(f"has {has.strip()} shares, not {shares}: {box}")
    if frozen != (item["status"] == "Paused"):
        bad.append(f"is {item['status']}, and frozen is {frozen}: {box}")
    return bad


def _wrong_addresses(live: list[Box], shown: dict[str, dict[str, Any]], pids: dict[str, int]) -> list[str]:
    bad = []
    for box in live:
        wanted = sorted(a["addr"] for found in shown[box.uuid]["addresses"].values() for a in found)
        if box.uuid in pids:
            text = run("nsenter", "-t", str(pids[box.uuid]), "-n", "ip", "-j", "addr", "show", "up", "scope", "global")
            # Networks with the same range may have given the same address.
            has = sorted(a["local"] for link in json.loads(text) for a in link.get("addr_info", ()))
            if has != wanted:
                bad.append(f"has the addresses {has}, not {wanted}: {box}")
    return bad


def _wrong_walls(world: World, running: list[Box], shown: dict[str, dict[str, Any]], runtime: Runtime) -> list[str]:
    """Knock at every container from one that is no member of its groups."""
    pid = str(runtime.running[world.witness][0].pid)
    calls = {
        box: shown[box.uuid]["addresses"][world.default][0]["addr"]
        for box in running
        if shown[box.uuid]["addresses"].get(world.default)
    }
    heard = _knock(calls.values(), "nsenter", "-t", pid, "-n")
    bad = []
    for box, address in calls.items():
        wanted = box.hostname if world.open in shown[box.uuid]["security_groups"] else ""
        if heard[address] != wanted:
            bad.append(f"says {heard[address]!r} at {address}, not {wanted!r}: {box}")
    return bad


def _wrong_doors(world: World, running: list[Box], shown: dict[str, dict[str, Any]]) -> list[str]:
    """Knock at every floating address from the host."""
    api = world.cloud.client
    found = api.at("GET", f"{NEUTRON}/floatingips").json()["floatingips"]
    owners = {p["id"]: p["device_id"] for p in api.at("GET", f"{NEUTRON}/ports").json()["ports"]}
    boxes = {box.uuid: box for box in running if world.open in shown[box.uuid]["security_groups"]}
    heard = _knock([one["floating_ip_address"] for one in found])
    bad = []
    for one in found:
        box = boxes.get(owners.get(one["port_id"], ""))
        wanted, said = box.hostname if box else "", heard[one["floating_ip_address"]]
        if said != wanted:
            bad.append(f"{one['floating_ip_address']} leads to {said!r}, not {wanted!r}: {one['port_id']} of {box}")
    return bad


def _knock(addresses: Iterable[str], *inside: str) -> dict[str, str]:
    """What is said on the port of every container at some addresses; empty: nothing."""
    calls = {
        address: subprocess.Popen(
            [*inside, "timeout", "5", "busybox", "nc", "-w", "1", address, str(PORT)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for address in addresses
    }  # fmt: skip
    return {address: call.communicate(timeout=20)[0].strip() for address, call in calls.items()}


# -- what is left ------------------------------------------------------------------------------------------------------


def marked(cloud: Cloud) -> list[str]:
    """Everything that bears the cloud's name, in the host's namespaces and in all others: interfaces, tables of packet
    rules, named namespaces, mounts, loop devices."""
    marks = (f"ak{cloud.instance[:4]}", cloud.instance, str(cloud.data))
    found = [f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines()
             if any(mark in line for mark in marks)]  # fmt: skip
    found += [f"namespace {line}" for line in run("ip", "netns").splitlines() if any(m in line for m in marks)]
    found += [f"loop device {line}" for line in run("losetup", "-a").splitlines() if any(m in line for m in marks)]
    for where, path in _network_namespaces().items():
        for what in (("ip", "-o", "-d", "link"), ("nft", "list", "tables")):
            text = run("nsenter", f"--net={path}", *what, check=False)
            found += [f"{what[0]} in {where}: {line.split(' mtu ')[0].split('@')[0].split(': ')[-1]}"
                      for line in text.splitlines() if any(mark in line for mark in marks)]  # fmt: skip
    return sorted(set(found))


def _network_namespaces() -> dict[str, str]:
    """A path to each, by a word for it; the host's own is "host"."""
    own = os.stat("/proc/self/ns/net").st_ino
    found: dict[int, str] = {own: "/proc/self/ns/net"}
    paths = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - nsfs " in line]
    paths += [f"/proc/{entry}/ns/net" for entry in os.listdir("/proc") if entry.isdigit()]
    for path in paths:
        try:
            found.setdefault(os.stat(path).st_ino, path)
        except OSError:
            continue
    return {"host" if ino == own else path: path for ino, path in found.items()}


def counted(cloud: Cloud) -> dict[str, int]:
    """How many rows each table has, without what a project has for good."""
    with sqlite3.connect(f"file:{cloud.data}/askos.db?mode=ro", uri=True, timeout=20) as database:
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {
            name: int(database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0])
            for name in names
            if name not in _NOT_COUNTED
        }
        standing = "SELECT uuid FROM security_groups WHERE default_of IS NOT NULL"
        for table, column in (("security_groups", "uuid"), ("security_rules", "group_uuid")):
            query = f"SELECT count(*) FROM {table} WHERE {column} NOT IN ({standing})"
            found[table] = int(database.execute(query).fetchone()[0])
        own = "SELECT count(*) FROM networks WHERE NOT external"
        found["networks"] = int(database.execute(own).fetchone()[0])
        own = "SELECT count(*) FROM subnets WHERE network_uuid NOT IN (SELECT uuid FROM networks WHERE external)"
        found["subnets"] = int(database.execute(own).fetchone()[0])
    database.close()
    return found


def left_behind(cloud: Cloud, rows_before: dict[str, int], marks_before: list[str], images: set[str]) -> list[str]:
    """What is more than it was before anything was made."""
    left = [
        f"{n} rows in {name}, not {rows_before[name]}" for name, n in counted(cloud).items() if n > rows_before[name]
    ]
    left += [thing for thing in marked(cloud) if thing not in marks_before]
    for folder in _FOLDERS:
        path = cloud.data / folder
        left += [f"file {entry}" for entry in path.glob("*")]
    snapshots = run("ctr", "-a", str(cloud.socket), "-n", "k8s.io", "snapshots", "ls").splitlines()[1:]
    left += [f"snapshot {line}" for line in snapshots if line.split()[-1] != "Committed"]
    left += [f"image {name} in containerd" for name in images_of(cloud) - images]
    return left


def images_of(cloud: Cloud) -> set[str]:
    """The names of containerd's images."""
    return set(run("ctr", "-a", str(cloud.socket), "-n", "k8s.io", "images", "ls", "-q").splitlines())


def usage(api: Api, project: str) -> list[str]:
    """What a project is said to use."""
    shown = api.at("GET", f"/v1/quotas/{project}?usages=true").json()
    return [f"{used['in_use']} of {name} are said to be in use" for name, used in shown.items() if used["in_use"]]


def run(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 or not check, f"{arguments}: {done.stderr}"
    return done.stdout
