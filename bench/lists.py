"""What lists cost: requests per second of one connection and of many, and how soon watches are told of a change."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from bench.capsules import PATH, Watch
from bench.cloud import BODY, Cloud, cpu_seconds

COUNTS = (1, 100, 1000)
WATCHES = (1, 50, 200)
CHANGES = 50
IDLE_S = 10


def _load(cloud: Cloud, path: str, count: int) -> list[dict[str, Any]]:
    rows = []
    for connections in (1, 16):
        command = [sys.executable, "-m", "bench.load", str(cloud.port), path, str(connections), "4"]
        done = subprocess.run(command, input=cloud.token.encode(), stdout=subprocess.PIPE, check=True, timeout=120)
        rows.append({"path": path, "items": count, "connections": connections, **json.loads(done.stdout)})
    return rows


def containers(cloud: Cloud) -> list[dict[str, Any]]:
    """GET list with 1, 100 and 1,000 containers in the store (Created ones: the list does not care)."""
    rows = []
    have = 0
    for count in COUNTS:
        while have < count:
            cloud.call("POST", "/v1/containers", BODY)
            have += 1
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            listed = cloud.call("GET", "/v1/containers")["containers"]
            if all(c["task_state"] is None for c in listed):
                break
            time.sleep(0.5)
        rows += _load(cloud, "/v1/containers", count)
    return rows


def body(number: int) -> dict[str, Any]:
    """A pod that finds room nowhere: it is only listed."""
    container = {"name": "one", "image": "busybox", "resources": {"requests": {"memory": "100Ti", "cpu": "10m"}}}
    metadata = {"name": f"listed-{number}", "labels": {"tenth": str(number % 10)}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


def capsules(cloud: Cloud) -> list[dict[str, Any]]:
    """The same of capsules, in the native API's form, a tenth of them by label, and in Zun's form."""
    rows = []
    have = 0
    for count in COUNTS:
        while have < count:
            cloud.call("POST", PATH, body(have))
            have += 1
        _settled(cloud)
        for path in (PATH, f"{PATH}?labelSelector=tenth%3D0", "/v1/capsules"):
            rows += _load(cloud, path, count)
    return rows


def _settled(cloud: Cloud) -> None:
    """Placement has gone through all of them."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        items = cloud.call("GET", PATH)["items"]
        if all("Unschedulable" in [c.get("reason") for c in item["status"]["conditions"]] for item in items):
            return
        time.sleep(0.5)
    raise AssertionError("placement does not come to an end")


def watches(cloud: Cloud) -> list[dict[str, Any]]:
    """Idle CPU with many watches, and from a change's answer being asked for to the last watch's line."""
    made = cloud.call("POST", PATH, body(10**6))["id"]
    pid = cloud.processes()["askos"]
    open_now: list[Watch] = []
    rows = []
    for count in WATCHES:
        revision = cloud.call("GET", PATH)["metadata"]["resourceVersion"]
        open_now += [Watch(cloud, revision) for _ in range(count - len(open_now))]
        time.sleep(1)
        before = cpu_seconds(pid)
        time.sleep(IDLE_S)
        idle = (cpu_seconds(pid) - before) * 100 / IDLE_S
        first, last = [], []
        for number in range(CHANGES):
            mark = f"{count}-{number}"

            def shows_it(event: dict[str, Any], mark: str = mark) -> bool:
                return bool(event["object"]["metadata"].get("labels", {}).get("mark") == mark)

            begun = time.perf_counter()
            cloud.call("PATCH", f"{PATH}/{made}", {"metadata": {"labels": {"mark": mark}}})
            arrived = sorted(watch.until(shows_it) - begun for watch in open_now)
            first.append(arrived[0])
            last.append(arrived[-1])
        last.sort()
        rows.append(
            {
                "watches": count,
                "idle_cpu_percent": round(idle, 2),
                "first_p50_ms": round(statistics.median(first) * 1000, 1),
                "last_p50_ms": round(statistics.median(last) * 1000, 1),
                "last_p99_ms": round(last[int(len(last) * 0.99)] * 1000, 1),
                "load_average": round(os.getloadavg()[0], 1),
            }
        )
    return rows


def show(result: dict[str, Any]) -> None:
    """Print what there is."""
    rows = [*result.get("list", []), *result.get("capsule_list", [])]
    if rows:
        print(f"\n{'GET':<45}   items  connections  requests/s  p50 ms  p99 ms")
        for r in rows:
            print(f"{r['path']:<45}{r['items']:>8}{r['connections']:>13}{r['requests_per_s']:>12}"
                  f"{r['p50_ms']:>8}{r['p99_ms']:>8}")  # fmt: skip
    if "watches" in result:
        print("\nwatches   idle CPU %   PATCH -> first line p50 ms   last p50   last p99")
        for r in result["watches"]:
            print(f"{r['watches']:>7}{r['idle_cpu_percent']:>13}{r['first_p50_ms']:>29}"
                  f"{r['last_p50_ms']:>11}{r['last_p99_ms']:>11}")  # fmt: skip
