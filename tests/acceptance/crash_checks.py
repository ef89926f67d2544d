"""What is on the machine for one cloud: asked of containerd, the kernel and the database, never of Askos itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc as cri_grpc
from tests.acceptance.crash_fixtures import Api, Cloud
from tests.acceptance.crash_workload import Slot

_CAPSULE = "askos.io/capsule"
_PREPARED = "askos.io/prepared"
_ID = re.compile(r"\b[0-9a-f]{64}\b")


class Running(NamedTuple):
    """One running container; all of it changes when it is restarted."""

    container: str
    started_at: int
    pid: int


class Runtime:
    """containerd as it is now."""

    def __init__(self, cloud: Cloud) -> None:
        options = [("grpc.default_authority", "localhost")]
        with grpc.insecure_channel(f"unix:{cloud.socket}", options=options) as channel:
            stub = cri_grpc.RuntimeServiceStub(channel)
            found = list(stub.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=20).items)
            self.owners = {item.id: _owner(cloud, item) for item in found}
            """Whose the sandboxes are: those of nobody are ready to be taken, and are not here."""
            self.sandboxes = [item for item in found if self.owners[item.id] is not None]
            self.prepared = {item.id for item in found if item not in self.sandboxes}
            for sandbox_id in list(self.prepared):
                asked = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
                answer = _unless_gone(stub.PodSandboxStatus, asked)
                if answer is None:
                    continue
                spaces = json.loads(answer.info["info"])["runtimeSpec"]["linux"]["namespaces"]
                self.prepared |= {Path(space["path"]).name for space in spaces if space.get("path")}
            self.containers = list(stub.ListContainers(cri.ListContainersRequest(), timeout=20).containers)
            self.running: dict[str, list[Running]] = {}
            for container in self.containers:
                if container.state == cri.CONTAINER_RUNNING:
                    request = cri.ContainerStatusRequest(container_id=container.id, verbose=True)
                    answer = _unless_gone(stub.ContainerStatus, request)
                    if answer is None:
                        continue
                    pid = int(json.loads(answer.info["info"])["pid"])
                    found = Running(container.id, answer.status.started_at, pid)
                    self.running.setdefault(container.labels[_CAPSULE], []).append(found)


def _unless_gone(ask: Any, request: Any) -> Any:
    """containerd's answer; None when what was listed a moment ago is not there any more."""
    try:
        return ask(request, timeout=20)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:
            return None
        raise


def _owner(cloud: Cloud, item: Any) -> str | None:
    """The capsule of a sandbox, from its label, or from the record of who has taken it."""
    if _PREPARED not in item.labels:
        return str(item.labels[_CAPSULE])
    try:
        record = (cloud.data / "adopted" / f"{item.id}.json").read_bytes()
    except FileNotFoundError:
        return None
    return str(json.loads(record)["capsule_uuid"])


def doubled(cloud: Cloud, api: Api, slots: list[Slot]) -> list[str]:
    """Sandboxes and containers that do not fit what the API shows."""
    runtime = Runtime(cloud)
    shown = {item["uuid"]: item for item in api.list().values()}
    wrong = []
    ready: dict[str, int] = {}
    for sandbox in runtime.sandboxes:
        uuid = runtime.owners[sandbox.id]
        if uuid not in shown:
            wrong.append(f"sandbox {sandbox.id} of {uuid}, which does not exist")
        if sandbox.state == cri.SANDBOX_READY:
            ready[uuid] = ready.get(uuid, 0) + 1
    wrong += [
        f"container {c.id} of {c.labels[_CAPSULE]}, which does not exist"
        for c in runtime.containers
        if c.labels[_CAPSULE] not in shown
    ]
    flapping = {slot.name for slot in slots if slot.kind == "flapping"}
    for uuid, item in shown.items():
        want = int(item["status"] == "Running")
        have = (ready.get(uuid, 0), len(runtime.running.get(uuid, [])))
        fits = max(have) <= 1 if item["name"] in flapping else have == (want, want)
        if not fits:
            wrong.append(f"{item['name']} ({uuid}) is {item['status']} with {have[0]} sandboxes, {have[1]} containers")
    return wrong


def started(cloud: Cloud, uuid: str) -> tuple[list[str], int]:
    """What a container wrote at its starts, in order, and how many of them were done again under the same number."""
    lines: list[str] = []
    again = 0
    folder = cloud.data / "log" / "capsules" / uuid
    for path in sorted(folder.glob("*.log"), key=lambda path: [int(n) for n in path.stem.split("-")]):
        mine = [line.split()[-1] for line in path.read_text().splitlines()]
        again += max(0, len(mine) - 1)
        lines += mine
    assert len(set(lines)) == len(lines), f"{uuid} wrote the same start twice: {lines}"
    return lines, again


def histories(cloud: Cloud, api: Api, slots: list[Slot]) -> None:
    """No start that nobody asked for, none done twice, and files kept over all of them.

    A start that is under way when somebody is killed may be broken off after the process has lived for a moment;
    it is then done again. That may happen once for each kill that a container was busy in, and to no others.
    """
    shown = api.list()
    for slot in slots:
        item = shown.get(slot.name)
        if item is None:
            continue
        starts, again = started(cloud, item["uuid"])
        story = f"killed {slot.kills} times; {slot.history}"
        assert again <= slot.kills, f"{slot.name}: {again} starts were done twice; {story}"
        if slot.kind in ("long", "always", "unless", "short"):
            assert len(starts) <= slot.runs + slot.kills, (
                f"{slot.name} started {len(starts)} times for {slot.runs}; {story}"
            )
        if item["status"] == "Running" and slot.kind != "flapping":
            kept = api.files(slot.name, "/starts")
            lost = set(starts) - set(kept)
            assert len(lost) <= slot.kills, f"{slot.name} lost its files: {kept}, but its log has {starts}; {story}"
            assert len(kept) <= slot.runs + slot.kills, (
                f"{slot.name} started {len(kept)} times for {slot.runs}; {story}"
            )


def leftovers(cloud: Cloud) -> list[str]:
    """What is left of containers when all have been deleted; the cloud runs, and keeps some sandboxes ready."""
    prepared = Runtime(cloud).prepared
    own = {cloud.pid(), cloud.containerd_pid()}
    found = [f"row {row}" for row in _rows(cloud)]
    found += [f"log folder {path}" for path in (cloud.data / "log" / "capsules").iterdir()]
    found += _processes(cloud, own) + _network(cloud) + _records(cloud) + _folders(cloud, persistent=True)
    found += [f"mount {point}" for point in _mounts(cloud.data)]
    found += [f"record {path.name}" for path in (cloud.data / "adopted").glob("*")]
    return [thing for thing in found if not any(word in thing for word in prepared)]


def on_machine(cloud: Cloud) -> list[str]:
    """What is left of the whole cloud after `askos down`, but for its data."""
    found = _processes(cloud, set()) + _network(cloud) + _folders(cloud, persistent=False)
    found += [f"mount {point}" for point in _mounts(cloud.data)]
    if f"askos_{cloud.instance}" in _run("nft", "list", "tables"):
        found.append("the nft table")
    places = [cloud.data / "run", Path(f"/run/askos/{cloud.instance}.json")]
    # Not with glob, which gives up when a folder goes while it is looked into.
    for folder, names, _files in os.walk("/sys/fs/cgroup"):
        places += [Path(folder, name) for name in names if "askos" in name and cloud.instance in name]
    return found + [str(path) for path in places if path.exists()]


def _rows(cloud: Cloud) -> list[Any]:
    with sqlite3.connect(f"file:{cloud.data}/askos.db?mode=ro", uri=True, timeout=20) as database:
        rows = database.execute("SELECT name, status, task_state FROM capsules").fetchall()
        rows += database.execute("SELECT address, capsule_uuid FROM ports").fetchall()
    database.close()
    return rows


def _processes(cloud: Cloud, own: set[int]) -> list[str]:
    """Processes that name the data folder, or live in the cloud's control groups."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in own | {os.getpid()}:
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            groups = (entry / "cgroup").read_text()
        except OSError:
            continue
        if str(cloud.data) in command or f"askos-{cloud.instance}" in groups:
            found.append(f"process {entry.name}: {command} {groups}")
    return found


def _network(cloud: Cloud) -> list[str]:
    links = json.loads(_run("ip", "-j", "link", "show"))
    mine = (f"ak{cloud.instance[:4]}", f"askos:{cloud.instance}:")
    found = [
        f"interface {link['ifname']}"
        for link in links
        if link["ifname"].startswith(mine[0]) or link.get("ifalias", "").startswith(mine[1])
    ]
    table = f"askos_{cloud.instance}"
    if table in _run("nft", "list", "tables"):
        rules = _run("nft", "list", "table", "inet", table)
        found += [f"nft {line.strip()}" for line in re.findall("elements.*", rules)]
    found += [f"namespace of network {p.name}" for p in (cloud.data / "run" / "network").glob("namespaces-*/*")]
    namespaces = cloud.data / "run/containerd/io.containerd.grpc.v1.cri/netns"
    found += [f"network namespace {path.name}" for path in namespaces.glob("*")]
    found += [f"journal of sandbox {path.name}" for path in (cloud.data / "run" / "network").glob("*.json")]
    return found


def _folders(cloud: Cloud, *, persistent: bool) -> list[str]:
    """Records outside containerd's own database: bundles, runc's, CRI's, the shims' sockets, the CNI library's."""
    state, root = cloud.data / "run" / "containerd", cloud.data / "containerd"
    bases = (state, root) if persistent else (state,)
    kinds = ("io.containerd.runtime.v2.task/k8s.io", "io.containerd.grpc.v1.cri/sandboxes")
    kinds += ("io.containerd.grpc.v1.cri/containers", "runc/k8s.io")
    found = [str(path) for base in bases for kind in kinds for path in (base / kind).glob("*")]
    seen = set(_ID.findall((cloud.data / "log" / "containerd.log").read_text(errors="replace")))
    for identity in seen:
        name = hashlib.sha256(f"{cloud.socket}/k8s.io/{identity}".encode()).hexdigest()
        path = Path("/run/containerd/s") / name
        if path.exists():
            found.append(f"socket of shim {identity}")
    records = Path("/var/lib/cni/results").glob("*")
    return found + [f"CNI record {path.name}" for path in records if any(identity in path.name for identity in seen)]


def _records(cloud: Cloud) -> list[str]:
    """Containers, tasks and writable layers that containerd still knows."""

    def ask(*what: str) -> list[str]:
        return _run("ctr", "-a", str(cloud.socket), "-n", "k8s.io", *what).splitlines()

    found = [f"container {line}" for line in ask("containers", "ls", "-q")]
    found += [f"task {line}" for line in ask("tasks", "ls", "-q")]
    for line in ask("snapshots", "ls"):
        if line.split()[-1] == "Active":
            found.append(f"snapshot {line.split()[0]}")
    runtime = Runtime(cloud)
    return found + [f"CRI {item.id}" for item in (*runtime.sandboxes, *runtime.containers)]


def _mounts(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [point for point in (line.split()[4] for line in lines) if point.startswith(str(folder))]


def _run(*arguments: str) -> str:
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout
