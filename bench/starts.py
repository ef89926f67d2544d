"""POST -> Running with and without prepared sandboxes, against the three bare CRI calls, in turns."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import grpc
from cri_api.v1 import api_pb2 as cri
from cri_api.v1.api_pb2_grpc import RuntimeServiceStub

from bench.bare import Bare, security
from bench.cloud import BODY, Cloud, cpu_seconds, resident_mib

ROUNDS = max(20, int(os.environ.get("BENCH_PAIRS", "24")))
PREPARED = "askos.io/prepared"
SETTLE_S = 0.3


class Pool:
    """What is prepared in a cloud, seen from outside: sandboxes with the label whose name nobody has taken."""

    def __init__(self, cloud: Cloud) -> None:
        self._adopted = cloud.data / "adopted"
        options = [("grpc.default_authority", "localhost")]
        self._channel = grpc.insecure_channel(f"unix:{cloud.socket}", options=options)
        self._runtime = RuntimeServiceStub(self._channel)

    def ready(self) -> list[str]:
        """Ids of the prepared sandboxes that are ready and nobody's."""
        items = self._runtime.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=20).items
        return [
            item.id
            for item in items
            if PREPARED in item.labels
            and item.state == cri.SANDBOX_READY
            and not (self._adopted / f"{item.id}.json").exists()
        ]

    def wait(self, count: int) -> None:
        """Until so many are ready, and the machine has come to rest."""
        deadline = time.monotonic() + 30
        while len(self.ready()) < count:
            assert time.monotonic() < deadline, f"{len(self.ready())} prepared sandboxes instead of {count}"
            time.sleep(0.05)
        time.sleep(SETTLE_S)

    def resident_mib(self) -> float:
        """Of one of them: its shim and its pause process."""
        sandbox = self.ready()[0]
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=True)
        pause = json.loads(self._runtime.PodSandboxStatus(request, timeout=20).info["info"])["pid"]
        shim = next(
            int(folder.name)
            for folder in Path("/proc").glob("[0-9]*")
            if f"-id\0{sandbox}\0" in (folder / "cmdline").read_text(errors="replace")
        )
        return resident_mib(pause) + resident_mib(shim)

    def close(self) -> None:
        self._channel.close()


def starts(cold: Cloud, warm: Cloud, count: int) -> dict[str, Any]:
    """Medians of three kinds of start, one of each in every round; `count` sandboxes are kept ready in `warm`."""
    pool = Pool(warm)
    bare = Bare(cold.socket, cold.image_id())
    # One that stays: its network stands already, as for every container of a project but the first.
    stays = [cloud.call("POST", "/v1/containers?run=true", BODY)["uuid"] for cloud in (cold, warm)]
    for cloud, uuid in zip((cold, warm), stays, strict=True):
        cloud.wait_until_running(uuid)
    times: dict[str, list[float]] = {"warm": [], "cold": [], "bare": [], "post": []}
    cpu: list[float] = []
    askos = warm.processes()["askos"]
    taken = 0
    for number in range(ROUNDS + 2):
        if number == 2:  # the first two warm everything up
            for kept in times.values():
                kept.clear()
            cpu.clear()
            taken = 0
        pool.wait(count)
        before = set(pool.ready())
        used = cpu_seconds(askos)
        times["warm"].append(_start(warm, times["post"]))
        cpu.append(cpu_seconds(askos) - used)
        taken += len(before - set(pool.ready()))
        warm.delete_all(but=stays)
        pool.wait(count)
        times["cold"].append(_start(cold, []))
        cold.delete_all(but=stays)
        time.sleep(SETTLE_S)
        times["bare"].append(_bare(cold, bare))
        cold.delete_all(but=stays)
    pool.wait(count)
    prepared_mib = pool.resident_mib()
    bare.close()
    pool.close()
    assert taken == ROUNDS, f"only {taken} of {ROUNDS} warm starts took a prepared sandbox"
    medians = {name: statistics.median(kept) * 1000 for name, kept in times.items()}
    return {
        "rounds": ROUNDS,
        **{f"{name}_ms": round(value, 1) for name, value in medians.items()},
        **_ratios("warm", times),
        **_ratios("cold", times),
        "askos_cpu_ms": round(statistics.mean(cpu) * 1000, 1),
        "prepared_rss_mib": round(prepared_mib, 1),
        "warm_budget": 0.6,
        "cold_budget": 1.15,
    }


def _ratios(kind: str, times: dict[str, list[float]]) -> dict[str, Any]:
    """Of each round on its own, since the machine may be slower in one than in the next: median and quartiles."""
    found = [mine / bare for mine, bare in zip(times[kind], times["bare"], strict=True)]
    low, middle, high = statistics.quantiles(found, n=4)
    return {f"{kind}_ratio": round(middle, 3), f"{kind}_ratio_quartiles": [round(low, 3), round(high, 3)]}


def _start(cloud: Cloud, posts: list[float]) -> float:
    begun = time.perf_counter()
    made = cloud.call("POST", "/v1/containers?run=true", BODY)["uuid"]
    posts.append(time.perf_counter() - begun)
    cloud.wait_until_running(made)
    return time.perf_counter() - begun


def _bare(cloud: Cloud, bare: Bare) -> float:
    pod = cloud.call("POST", "/v1/containers", BODY)["uuid"]
    cloud.wait(pod, "Created")
    time.sleep(SETTLE_S)
    took = bare.start(pod, f"/askos-{cloud.instance}", cloud.data / "bench-logs", security())
    bare.remove()
    return took
