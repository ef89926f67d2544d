"""What a host adds to the pods that run on it: its addresses, its size, its resolvers."""

from __future__ import annotations

import msgspec

from askos.model.capsules import Assignment
from askos.model.pods import Pod
from askos.plan.environment import Facts
from askos.plan.names import DOMAIN


class HostEnv(msgspec.Struct, frozen=True):
    """A host as its pods see it. `resolvers` and `searches`: of its resolv.conf. `instance`: the cloud's short hex
    id. `disk_bytes`: of the file system of the data folder."""

    host_ip: str
    host_name: str
    cpus: int
    memory_bytes: int
    resolvers: list[str]
    searches: list[str]
    instance: str
    disk_bytes: int = 0
    domain: str = DOMAIN
    """What full names of pods end with."""


def pod_of(a: Assignment) -> Pod:
    """The pod of an assignment of kind "capsule"."""
    assert a.spec.pod is not None, "a capsule of kind capsule has a pod"
    return a.spec.pod


def facts(a: Assignment, host: HostEnv) -> Facts:
    """What the references of a pod are answered from."""
    pod = pod_of(a)
    return Facts(
        pod=pod,
        uid=pod.metadata.uid or a.capsule_uuid,
        # Pods that come from a cluster are bound to a node of that cluster.
        node_name=pod.spec.node_name or host.host_name,
        host_ips=[host.host_ip] if host.host_ip else [],
        pod_ips=[ip for port in a.ports[:1] for ip in (port.address, port.address6) if ip],
        cpu_milli=host.cpus * 1000,
        memory_bytes=host.memory_bytes,
        storage_bytes=host.disk_bytes,
    )
