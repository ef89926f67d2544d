"""What pods claim and are held to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askos.model.pods import Container, Pod, PodMetadata, PodSpec, Resources
from askos.plan import resources
from askos.plan.resources import Claim, Limits, claim, limits_of, oom_score, pod_limits, qos_class

GI = 1 << 30


def box(name: str = "c", sidecar: bool = False, limits: dict[str, str] | None = None, **requests: str) -> Container:
    requests = {key.replace("storage", "ephemeral-storage"): text for key, text in requests.items()}
    return Container(
        name=name,
        image="i",
        resources=Resources(limits=limits or {}, requests=requests),
        restart_policy="Always" if sidecar else None,
    )


def pod(*containers: Container, init: list[Container] | None = None, overhead: dict[str, str] | None = None) -> Pod:
    return Pod(PodMetadata("p"), PodSpec(list(containers), init_containers=init or [], overhead=overhead or {}))


def test_nothing_asked_for() -> None:
    assert claim(pod(box())) == Claim(0, 0, 0)


def test_containers_add_up() -> None:
    both = pod(box(cpu="250m", memory="64Mi", storage="1Gi"), box(cpu="1", memory="1Gi"))
    assert claim(both) == Claim(1250, (64 << 20) + GI, GI)


def test_a_limit_is_the_request_too() -> None:
    assert claim(pod(box(limits={"cpu": "2", "memory": "1Gi"}, memory="512Mi"))) == Claim(2000, GI // 2, 0)


def test_init_containers_run_one_by_one() -> None:
    init = [box(cpu="3"), box(cpu="2", memory="2Gi")]
    assert claim(pod(box(cpu="1", memory="1Gi"), init=init)) == Claim(3000, 2 * GI, 0)


def test_sidecars_run_beside_what_comes_after_them() -> None:
    init = [box(cpu="3"), box(sidecar=True, cpu="1"), box(cpu="2500m")]
    # 3 alone, then 1 + 2.5, then 1 + 2.
    assert claim(pod(box(cpu="2"), init=init)).cpu_milli == 3500
    assert claim(pod(box(cpu="4"), init=init)).cpu_milli == 5000
    # An init container before the sidecar runs without it.
    assert claim(pod(box(cpu="1"), init=[box(cpu="4"), box(sidecar=True, cpu="1")])).cpu_milli == 4000


def test_overhead_comes_on_top() -> None:
    with_overhead = pod(box(cpu="1", memory="1Gi"), overhead={"cpu": "250m", "memory": "120Mi"})
    assert claim(with_overhead) == Claim(1250, GI + (120 << 20), 0)


@given(
    st.lists(st.tuples(st.integers(0, 4000), st.booleans()), max_size=6),
    st.lists(st.integers(0, 4000), min_size=1, max_size=4),
)
def test_a_claim_is_enough_at_every_moment(init: list[tuple[int, bool]], main: list[int]) -> None:
    claimed = claim(pod(*(box(cpu=f"{m}m") for m in main), init=[box(sidecar=s, cpu=f"{m}m") for m, s in init]))
    running, moments = 0, []
    for milli, sidecar in init:
        moments.append(running + milli)
        running += milli if sidecar else 0
    moments.append(running + sum(main))
    assert claimed.cpu_milli == max(moments)


@pytest.mark.parametrize(
    ("containers", "qos"),
    [
        ([box()], "BestEffort"),
        ([box(cpu="0")], "BestEffort"),
        ([box(storage="1Gi")], "BestEffort"),
        ([box(cpu="1")], "Burstable"),
        ([box(limits={"memory": "1Gi"})], "Burstable"),
        ([box(limits={"cpu": "1", "memory": "1Gi"})], "Guaranteed"),
        ([box(limits={"cpu": "1", "memory": "1Gi"}, cpu="1000m", memory="1024Mi")], "Guaranteed"),
        ([box(limits={"cpu": "1", "memory": "1Gi"}, cpu="500m")], "Burstable"),
        ([box(limits={"cpu": "1", "memory": "1Gi"}), box()], "Burstable"),
    ],
)
def test_qos(containers: list[Container], qos: str) -> None:
    assert qos_class(pod(*containers)) == qos


def test_init_containers_count_for_qos() -> None:
    assert qos_class(pod(box(limits={"cpu": "1", "memory": "1Gi"}), init=[box()])) == "Burstable"


def test_limits_of_a_container() -> None:
    assert limits_of(box()) == Limits(cpu_shares=2, cpu_quota_us=0, memory_bytes=0)
    full = box(limits={"cpu": "1500m", "memory": "64Mi"}, cpu="250m")
    assert limits_of(full) == Limits(cpu_shares=256, cpu_quota_us=150_000, memory_bytes=64 << 20)
    assert limits_of(box(limits={"cpu": "1"})).cpu_shares == 1024


def test_what_the_kernel_would_refuse_is_raised_or_cut() -> None:
    assert limits_of(box(limits={"cpu": "1m"})).cpu_quota_us == 1000
    assert limits_of(box(cpu="1m")).cpu_shares == 2
    assert limits_of(box(cpu="100000")).cpu_shares == 262_144


def test_a_pods_own_limits_need_all_containers() -> None:
    half = pod(box(limits={"cpu": "1", "memory": "1Gi"}), box(limits={"memory": "1Gi"}, cpu="500m"))
    assert pod_limits(half) == Limits(cpu_shares=1536, cpu_quota_us=0, memory_bytes=2 * GI)
    open_ended = pod(box(limits={"memory": "1Gi"}), init=[box()])
    assert pod_limits(open_ended).memory_bytes == 0
    init = pod(box(limits={"memory": "1Gi"}), init=[box(limits={"memory": "3Gi"})], overhead={"memory": "1Gi"})
    assert pod_limits(init).memory_bytes == 4 * GI


def test_oom_scores() -> None:
    whole = 16 * GI
    guaranteed = box(limits={"cpu": "1", "memory": "1Gi"})
    assert oom_score(guaranteed, pod(guaranteed), whole) == -997
    assert oom_score(box(), pod(box()), whole) == 1000
    burstable = box(memory="4Gi")
    assert oom_score(burstable, pod(burstable), whole) == 750
    # Never as safe as Guaranteed, never as exposed as BestEffort.
    assert oom_score(box(memory="16Gi"), pod(box(memory="16Gi")), whole) == 3
    assert oom_score(box(cpu="1"), pod(box(cpu="1")), whole) == 999


def test_a_sidecar_outlives_what_it_serves() -> None:
    sidecar = box(sidecar=True, memory="1Gi")
    served = pod(box(memory="4Gi"), box(memory="8Gi"), init=[sidecar])
    assert oom_score(sidecar, served, 16 * GI) == 750
    assert resources.request(sidecar, "memory") == GI
