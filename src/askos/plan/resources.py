"""What a pod claims from its host, and what its containers are held to. Kubernetes' rules.

Requests are what placement counts and what CPU shares come from; limits are what the kernel enforces. A limit
without a request is the request too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from askos.model.pods import Container, Pod
from askos.plan.quantities import to_bytes, to_milli

CPU = "cpu"
MEMORY = "memory"
STORAGE = "ephemeral-storage"

QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]

_PERIOD_US = 100_000
_LEAST_QUOTA_US = 1000
_SHARES_PER_CPU = 1024
_LEAST_SHARES = 2
_MOST_SHARES = 262_144
_GUARANTEED_SCORE = -997
_BEST_EFFORT_SCORE = 1000


class Claim(msgspec.Struct, frozen=True):
    """What a pod takes of its host, as placement counts it."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    storage_bytes: int = 0


class Limits(msgspec.Struct, frozen=True):
    """What the kernel is told; the same fields as `ports.runtime.Limits`. 0 is no limit."""

    cpu_shares: int = _LEAST_SHARES
    cpu_quota_us: int = 0
    cpu_period_us: int = _PERIOD_US
    memory_bytes: int = 0
    oom_score_adj: int | None = None


def request(container: Container, resource: str) -> int:
    """A container's request (its limit if it has none, else 0): thousandths of a CPU, or bytes."""
    r = container.resources
    text = r.requests.get(resource, r.limits.get(resource))
    return 0 if text is None else amount(resource, text)


def limit(container: Container, resource: str) -> int:
    """A container's limit: thousandths of a CPU, or bytes. 0 when it has none."""
    text = container.resources.limits.get(resource)
    return 0 if text is None else amount(resource, text)


def amount(resource: str, text: str) -> int:
    """A quantity of one resource: thousandths of a CPU, or bytes. Raises InvalidError naming the text."""
    return to_milli(text) if resource == CPU else to_bytes(text)


def claim(pod: Pod) -> Claim:
    """The most that a pod asks for at any time of its life: init containers run one by one, beside the sidecars
    that were started before them; the others and all sidecars run together. The pod's overhead comes on top."""
    return Claim(
        cpu_milli=_together(pod, CPU, request) + _overhead(pod, CPU),
        memory_bytes=_together(pod, MEMORY, request) + _overhead(pod, MEMORY),
        storage_bytes=_together(pod, STORAGE, request) + _overhead(pod, STORAGE),
    )


class Use(msgspec.Struct, frozen=True):
    """What a pod counts for in the quota of its project."""

    containers: int
    cpu_milli: int
    memory_bytes: int
    storage_bytes: int


def use(pod: Pod) -> Use:
    """The most that a pod may take at any time of its life, its init containers thought of as in `claim`. Of each
    container its limits count; where it has none, what it requests; where it says nothing, nothing. A container that
    stays, a sidecar too, is one; init containers end before the others begin."""
    return Use(
        containers=_together(pod, "containers", lambda _c, _r: 1),
        cpu_milli=_together(pod, CPU, _most) + _overhead(pod, CPU),
        memory_bytes=_together(pod, MEMORY, _most) + _overhead(pod, MEMORY),
        storage_bytes=_together(pod, STORAGE, _most) + _overhead(pod, STORAGE),
    )


def _most(container: Container, resource: str) -> int:
    return limit(container, resource) or request(container, resource)


def qos_class(pod: Pod) -> QosClass:
    """How well a pod is kept when memory is short. All containers count, init containers too."""
    guaranteed, anything = True, False
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        for resource in (CPU, MEMORY):
            asked, most = request(container, resource), limit(container, resource)
            anything = anything or asked > 0 or most > 0
            guaranteed = guaranteed and most > 0 and asked == most
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def limits_of(container: Container) -> Limits:
    """What one container is held to, without an OOM score: that is set once, at its making (`oom_score`)."""
    return Limits(
        cpu_shares=_shares(request(container, CPU)),
        cpu_quota_us=_quota(limit(container, CPU)),
        memory_bytes=limit(container, MEMORY),
    )


def oom_score(container: Container, pod: Pod, host_memory_bytes: int) -> int:
    """How soon the kernel ends this container when the host is out of memory: oom_score_adj, -1000 to 1000.
    `host_memory_bytes`: all of the host's, which what Burstable pods ask for is weighed against."""
    qos = qos_class(pod)
    if qos == "Guaranteed":
        return _GUARANTEED_SCORE
    if qos == "BestEffort":
        return _BEST_EFFORT_SCORE
    memory = request(container, MEMORY)
    if container.restart_policy == "Always":
        # A sidecar is never the first to go: the containers that it serves would be of no use without it.
        memory = max(memory, min((request(c, MEMORY) for c in pod.spec.containers), default=0))
    score = 1000 - 1000 * memory // max(host_memory_bytes, 1)
    # Between the two other classes, whatever was asked for.
    return min(max(score, 1000 + _GUARANTEED_SCORE), _BEST_EFFORT_SCORE - 1)


def pod_limits(pod: Pod) -> Limits:
    """What a pod's own control group is held to. CPU and memory are limited there only when every container has
    such a limit: one without may take what is left of the host."""
    milli, memory = _whole_limit(pod, CPU), _whole_limit(pod, MEMORY)
    return Limits(cpu_shares=_shares(claim(pod).cpu_milli), cpu_quota_us=_quota(milli), memory_bytes=memory)


def _whole_limit(pod: Pod, resource: str) -> int:
    if any(limit(c, resource) == 0 for c in (*pod.spec.init_containers, *pod.spec.containers)):
        return 0
    return _together(pod, resource, limit) + _overhead(pod, resource)


def _together(pod: Pod, resource: str, of: Callable[[Container, str], int]) -> int:
    sidecars = most = 0
    for container in pod.spec.init_containers:
        most = max(most, sidecars + of(container, resource))
        if container.restart_policy == "Always":
            sidecars += of(container, resource)
    return max(most, sidecars + sum(of(c, resource) for c in pod.spec.containers))


def _overhead(pod: Pod, resource: str) -> int:
    text = pod.spec.overhead.get(resource)
    return 0 if text is None else amount(resource, text)


def _shares(milli: int) -> int:
    return min(_MOST_SHARES, max(_LEAST_SHARES, milli * _SHARES_PER_CPU // 1000))


def _quota(milli: int) -> int:
    # A quota under a millisecond is refused by the kernel.
    return max(_LEAST_QUOTA_US, milli * _PERIOD_US // 1000) if milli else 0
