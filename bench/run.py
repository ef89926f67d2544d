"""`make bench`: what a start, a list and the CLI cost, and how much memory lies around.

Ratios compare two things in the same run, in turns, on the same machine; medians are printed. The table says what
machine it was. BENCH_JSON names a file for the figures; BENCH_PAIRS is the number of rounds of starts, BENCH_CAPSULES
that of capsules, BENCH_ENDS that of processes whose end is watched; BENCH_ONLY names the parts to run, with commas:
starts, capsules, memory, lists, cli.
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

from bench import lists
from bench.capsules import capsules
from bench.cloud import ASKOS, BODY, Cloud, cpu_seconds, resident_mib
from bench.starts import starts

WARM = 2
"""Sandboxes that are kept ready where warm starts are measured: the default."""


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
    loads = [result["machine"]["load_average"], result["load_after"]]
    print(f"load average {loads[0]:.1f} before, {loads[1]:.1f} after")
    if loads[0] > result["machine"]["cpus"]:
        print("OTHERS USE THIS MACHINE: times are not worth much, and ratios little more. Compare CPU times.")
    if "starts" in result:
        c = result["starts"]
        print(f"\nPOST -> Running, medians of {c['rounds']} rounds; the three bare CRI calls take {c['bare_ms']} ms")
        for kind in ("warm", "cold"):
            ratio, budget = c[f"{kind}_ratio"], c[f"{kind}_budget"]
            said = "within" if ratio <= budget else "MISSES"
            low, high = c[f"{kind}_ratio_quartiles"]
            print(f"  {kind} sandbox {c[f'{kind}_ms']:>7} ms   ratio {ratio:<6} ({low} to {high} in the middle half) "
                  f"{said} the budget of {budget}")  # fmt: skip
        print(f"  CPU of askos itself for a warm start {c['askos_cpu_ms']} ms (mean)")
        print(f"  POST alone {c['post_ms']} ms; a prepared sandbox takes {c['prepared_rss_mib']} MiB (RSS)")
    if "capsules" in result:
        c = result["capsules"]
        cpu, late = c["idle_cpu_percent"], c["status_latency"]
        print(f"\n{c['capsules']} capsules of {c['containers_each']} containers: {c['posts_per_s']} POSTs/s, "
              f"{c['running_per_s']} running/s, {c['deleted_per_s']} deleted/s")  # fmt: skip
        print(f"  askos itself: {c['kib_per_capsule']} KiB more per capsule (budget {c['kib_budget']}), idle CPU "
              f"{cpu['before']} % before, {cpu['with_all']} % with all")  # fmt: skip
        print(f"  process ends -> watch shows it: p50 {late['p50_ms']} ms, p99 {late['p99_ms']} ms over {late['ends']}")
    lists.show(result)
    if "askos_ps" in result:
        p = result["askos_ps"]
        print(f"\naskos ps, whole process   median {p['median_ms']} ms, max {p['max_ms']} ms (budget {p['budget_ms']})")
    if "memory" in result:
        print("\nmemory (RSS, MiB)")
        for key, value in result["memory"].items():
            print(f"  {key}: {value}")


def main() -> None:
    parts = {"starts", "capsules", "memory", "lists", "cli"}
    only = {part for part in os.environ.get("BENCH_ONLY", "").split(",") if part} or parts
    if only - parts:
        raise SystemExit(f"bench: BENCH_ONLY knows {', '.join(sorted(parts))}, not {', '.join(sorted(only - parts))}")
    result: dict[str, Any] = {"machine": machine()}
    if "memory" in only:
        with Cloud() as cloud:
            result["memory"] = memory(cloud)
    if "starts" in only:
        with Cloud(warm_sandboxes=0) as cold, Cloud(warm_sandboxes=WARM) as warm:
            result["starts"] = starts(cold, warm, WARM)
    if "capsules" in only:
        with Cloud() as cloud:
            result["capsules"] = capsules(cloud)
    if only & {"lists", "cli"}:
        with Cloud() as cloud:
            if "lists" in only:
                result["list"] = lists.containers(cloud)
            if "cli" in only:
                result["askos_ps"] = command_line(cloud)
    if "lists" in only:
        with Cloud() as cloud:
            result["watches"] = lists.watches(cloud)
            result["capsule_list"] = lists.capsules(cloud)
    result["load_after"] = os.getloadavg()[0]
    show(result)
    if os.environ.get("BENCH_JSON"):
        Path(os.environ["BENCH_JSON"]).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
