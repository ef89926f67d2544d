"""`make bench`: what a start, a list and the CLI cost, and how much memory lies around.

Ratios compare two things in the same run, alternating, on the same containerd; medians are printed. The table says
what machine it was. BENCH_JSON names a file for the figures; BENCH_PAIRS the number of pairs.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.bare import Bare, security
from bench.cloud import ASKOS, Cloud, cpu_seconds, resident_mib

PAIRS = max(20, int(os.environ.get("BENCH_PAIRS", "24")))
BODY = {"image": "busybox", "command": ["sleep", "100000"]}


def cold_starts(cloud: Cloud) -> dict[str, Any]:
    """POST -> Running against the three bare CRI calls, alternating."""
    image = cloud.call("GET", "/askos/v1/images")["images"][0]["id"]
    bare = Bare(cloud.data / "run" / "containerd" / "c.sock", image)
    instance = (cloud.data / "instance").read_text().strip()
    logs = cloud.data / "bench-logs"
    ours: list[float] = []
    theirs: list[float] = []
    posts: list[float] = []
    for number in range(PAIRS + 2):
        begun = time.perf_counter()
        made = cloud.call("POST", "/v1/containers?run=true", BODY)["uuid"]
        posts.append(time.perf_counter() - begun)
        cloud.wait_until_running(made)
        ours.append(time.perf_counter() - begun)
        cloud.delete(made)
        pod = cloud.call("POST", "/v1/containers", BODY)["uuid"]
        cloud.wait(pod, "Created")
        theirs.append(bare.start(pod, f"/askos-{instance}", logs, security()))
        bare.remove()
        cloud.delete(pod)
        if number == 1:  # the first two warm everything up
            ours.clear(), theirs.clear(), posts.clear()
    bare.close()
    return {
        "pairs": len(ours),
        "askos_ms": round(statistics.median(ours) * 1000, 1),
        "bare_cri_ms": round(statistics.median(theirs) * 1000, 1),
        "ratio": round(statistics.median(ours) / statistics.median(theirs), 3),
        "ratio_of_pairs_median": round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3),
        "post_ms": round(statistics.median(posts) * 1000, 1),
        "budget_ratio": 1.15,
    }


def lists(cloud: Cloud) -> list[dict[str, Any]]:
    """GET list with 1, 100 and 1,000 containers in the store (Created ones: the list does not care)."""
    rows = []
    have = 0
    for count in (1, 100, 1000):
        while have < count:
            cloud.call("POST", "/v1/containers", BODY)
            have += 1
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            listed = cloud.call("GET", "/v1/containers")["containers"]
            if all(c["task_state"] is None for c in listed):
                break
            time.sleep(0.5)
        for connections in (1, 16):
            done = subprocess.run(
                [sys.executable, "-m", "bench.load", str(cloud.port), "/v1/containers", str(connections), "4"],
                input=cloud.token.encode(), stdout=subprocess.PIPE, check=True, timeout=120,
            )  # fmt: skip
            rows.append({"containers": count, "connections": connections, **json.loads(done.stdout)})
    return rows


def command_line(cloud: Cloud, runs: int = 15) -> dict[str, float]:
    """`askos ps` as a whole process."""
    times = []
    askos = Path(sys.executable).with_name("askos")
    command = [str(askos)] if askos.exists() else ASKOS
    for _ in range(runs):
        begun = time.perf_counter()
        subprocess.run([*command, "ps"], env=cloud.env, check=True, stdout=subprocess.DEVNULL, timeout=60)
        times.append(time.perf_counter() - begun)
    return {"median_ms": round(statistics.median(times) * 1000), "max_ms": round(max(times) * 1000), "budget_ms": 200}


def memory(cloud: Cloud, containers: int = 50) -> dict[str, Any]:
    """Resident memory of each process, idle and with containers; the idle CPU of askos."""
    found: dict[str, Any] = {"idle_mib": {}, f"with_{containers}_mib": {}}
    for name, pid in cloud.processes().items():
        found["idle_mib"][name] = round(resident_mib(pid), 1)
    pid = cloud.processes()["askos"]
    before = cpu_seconds(pid)
    time.sleep(10)
    found["idle_cpu_percent"] = round((cpu_seconds(pid) - before) * 10, 2)
    begun = time.perf_counter()
    made = [cloud.call("POST", "/v1/containers?run=true", BODY)["uuid"] for _ in range(containers)]
    for uuid in made:
        cloud.wait(uuid, "Running", every_s=0.05)
    found["starts_per_s"] = round(containers / (time.perf_counter() - begun), 1)
    time.sleep(3)
    for name, pid in cloud.processes().items():
        found[f"with_{containers}_mib"][name] = round(resident_mib(pid), 1)
    before = cpu_seconds(cloud.processes()["askos"])
    time.sleep(10)
    found[f"cpu_percent_with_{containers}"] = round((cpu_seconds(cloud.processes()["askos"]) - before) * 10, 2)
    return found


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    containerd = subprocess.run(["containerd", "--version"], stdout=subprocess.PIPE, check=True, timeout=20)
    return {
        "cpus": os.cpu_count(),
        "cpu": model,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "containerd": containerd.stdout.decode().split()[2],
        "load_average": os.getloadavg()[0],
    }


def show(result: dict[str, Any]) -> None:
    print("machine:", ", ".join(f"{k} {v}" for k, v in result["machine"].items()))
    c = result["cold_start"]
    print(f"\nPOST -> Running   askos {c['askos_ms']} ms, bare CRI {c['bare_cri_ms']} ms, ratio {c['ratio']} "
          f"(budget {c['budget_ratio']}), POST alone {c['post_ms']} ms, {c['pairs']} pairs")  # fmt: skip
    print("\nGET /v1/containers   containers  connections  requests/s  p50 ms  p99 ms")
    for r in result["list"]:
        print(f"{r['containers']:>31}{r['connections']:>13}{r['requests_per_s']:>12}{r['p50_ms']:>8}{r['p99_ms']:>8}")
    p = result["askos_ps"]
    print(f"\naskos ps, whole process   median {p['median_ms']} ms, max {p['max_ms']} ms (budget {p['budget_ms']})")
    print("\nmemory (RSS, MiB)")
    for key, value in result["memory"].items():
        print(f"  {key}: {value}")


def main() -> None:
    result: dict[str, Any] = {"machine": machine()}
    with Cloud() as cloud:
        result["memory"] = memory(cloud)
    with Cloud() as cloud:
        result["cold_start"] = cold_starts(cloud)
        result["list"] = lists(cloud)
        result["askos_ps"] = command_line(cloud)
    show(result)
    if os.environ.get("BENCH_JSON"):
        Path(os.environ["BENCH_JSON"]).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
