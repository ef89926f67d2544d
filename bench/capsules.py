"""A hundred capsules of two containers each, through the native API: how fast they come, what they cost, and how soon
a watcher sees that a process has ended.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import statistics
import threading
import time
from typing import Any

import grpc
from cri_api.v1 import api_pb2 as cri
from cri_api.v1.api_pb2_grpc import RuntimeServiceStub

from bench.cloud import Cloud, cpu_seconds, resident_mib

COUNT = int(os.environ.get("BENCH_CAPSULES", "100"))
ENDS = max(100, int(os.environ.get("BENCH_ENDS", "120")))
IDLE_S = 20
PATH = "/askos/v1/capsules"


class Watch:
    """A watch in a thread; what came, with the time of its arrival, is in `events`."""

    def __init__(self, cloud: Cloud, revision: str) -> None:
        self.events: queue.SimpleQueue[tuple[float, dict[str, Any]]] = queue.SimpleQueue()
        self._connection = http.client.HTTPConnection("127.0.0.1", cloud.port)
        query = f"{PATH}?watch=true&resourceVersion={revision}"
        self._connection.request("GET", query, headers={"X-Auth-Token": cloud.token})
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, (self._answer.status, self._answer.read(300))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while line := self._answer.readline():
            self.events.put((time.perf_counter(), json.loads(line)))

    def until(self, wanted: Any, timeout_s: float = 120) -> float:
        """When the first event arrived that `wanted` says yes to."""
        deadline = time.monotonic() + timeout_s
        while True:
            at, event = self.events.get(timeout=max(0.01, deadline - time.monotonic()))
            assert event["type"] != "ERROR", event
            if wanted(event):
                return at


class Processes:
    """The pids of containers, from containerd."""

    def __init__(self, cloud: Cloud) -> None:
        options = [("grpc.default_authority", "localhost")]
        with grpc.insecure_channel(f"unix:{cloud.socket}", options=options) as channel:
            runtime = RuntimeServiceStub(channel)
            self.pids: dict[tuple[str, str], int] = {}
            """By capsule and container name."""
            for item in runtime.ListContainers(cri.ListContainersRequest(), timeout=60).containers:
                request = cri.ContainerStatusRequest(container_id=item.id, verbose=True)
                info = json.loads(runtime.ContainerStatus(request, timeout=60).info["info"])
                self.pids[item.labels["askos.io/capsule"], item.labels["askos.io/name"]] = int(info["pid"])


def body(number: int) -> dict[str, Any]:
    def container(name: str) -> dict[str, Any]:
        return {
            "name": name,
            "image": "busybox",
            "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "100000"],
            "resources": {"limits": {"memory": "16Mi"}, "requests": {"cpu": "10m"}},
        }

    spec = {"restartPolicy": "Never", "containers": [container("one"), container("two")]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"bench-{number}"}, "spec": spec}


def capsules(cloud: Cloud) -> dict[str, Any]:
    """All of it. Fails in one line when this cloud has no native API for capsules."""
    try:
        listed = cloud.call("GET", PATH)
    except AssertionError as error:
        raise SystemExit(f"bench: this cloud has no native API for capsules at {PATH}: {error}") from None
    found: dict[str, Any] = {"capsules": COUNT, "containers_each": 2}
    pid = cloud.processes()["askos"]
    _warm_up(cloud)
    listed = cloud.call("GET", PATH)
    rss_before = resident_mib(pid)
    idle_before = _idle_percent(pid)

    watch = Watch(cloud, listed["metadata"]["resourceVersion"])
    begun = time.perf_counter()
    made = [cloud.call("POST", PATH, body(number))["id"] for number in range(COUNT)]
    posted = time.perf_counter()
    running: dict[str, float] = {}

    def all_run(event: dict[str, Any]) -> bool:
        thing = event["object"]
        if event["type"] != "BOOKMARK" and thing["status"].get("phase") == "Running":
            running.setdefault(thing["id"], time.perf_counter())
        return len(running) == COUNT

    ended = watch.until(all_run, 600)
    found["posts_per_s"] = round(COUNT / (posted - begun), 1)
    found["running_per_s"] = round(COUNT / (ended - begun), 2)
    time.sleep(5)
    found["kib_per_capsule"] = round((resident_mib(pid) - rss_before) * 1024 / COUNT, 1)
    found["kib_budget"] = 50
    found["idle_cpu_percent"] = {"before": idle_before, "with_all": _idle_percent(pid)}
    found["status_latency"] = _ends(cloud, watch, made)
    for uuid in made:
        cloud.call("DELETE", f"{PATH}/{uuid}?gracePeriodSeconds=0")
    begun = time.perf_counter()
    while cloud.call("GET", PATH)["items"]:
        assert time.perf_counter() - begun < 600, "capsules do not go away"
        time.sleep(0.2)
    found["deleted_per_s"] = round(COUNT / (time.perf_counter() - begun), 2)
    return found


def _warm_up(cloud: Cloud) -> None:
    """A few capsules that come and go: what the first ones bring with them (threads, statements, caches) is there
    then, and is not counted as what each one takes."""
    made = [cloud.call("POST", PATH, body(COUNT + number))["id"] for number in range(5)]
    begun = time.perf_counter()
    while any(item["status"].get("phase") != "Running" for item in cloud.call("GET", PATH)["items"]):
        assert time.perf_counter() - begun < 300, "the first capsules do not run"
        time.sleep(0.2)
    for uuid in made:
        cloud.call("DELETE", f"{PATH}/{uuid}?gracePeriodSeconds=0")
    while cloud.call("GET", PATH)["items"]:
        assert time.perf_counter() - begun < 600, "the first capsules do not go away"
        time.sleep(0.2)


def _ends(cloud: Cloud, watch: Watch, made: list[str]) -> dict[str, Any]:
    """Kill processes one after the other; how long until the watch shows each of them as ended."""
    pids = Processes(cloud).pids
    victims = [(uuid, name) for name in ("one", "two") for uuid in made][:ENDS]
    took: list[float] = []
    for uuid, name in victims:

        def shows_it(event: dict[str, Any], uuid: str = uuid, name: str = name) -> bool:
            thing = event["object"]
            if event["type"] == "BOOKMARK" or thing["id"] != uuid:
                return False
            states = {c["name"]: c["state"] for c in thing["status"]["containerStatuses"]}
            return "terminated" in states[name]

        begun = time.perf_counter()
        os.kill(pids[uuid, name], signal.SIGKILL)
        took.append(watch.until(shows_it) - begun)
        time.sleep(0.05)
    took.sort()
    return {
        "ends": len(took),
        "p50_ms": round(statistics.median(took) * 1000, 1),
        "p99_ms": round(took[int(len(took) * 0.99)] * 1000, 1),
        "max_ms": round(took[-1] * 1000, 1),
    }


def _idle_percent(pid: int) -> float:
    """CPU of a process that is left alone, in percent of one core."""
    before = cpu_seconds(pid)
    time.sleep(IDLE_S)
    return round((cpu_seconds(pid) - before) * 100 / IDLE_S, 2)
