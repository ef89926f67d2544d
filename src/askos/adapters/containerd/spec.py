"""What is asked of CRI for sandboxes and containers, and the reading of its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd import disk, security
from askos.ports.runtime import Container, ContainerConfig, Limits, Sandbox, SandboxConfig

INSTANCE = "askos.io/instance"
CAPSULE = "askos.io/capsule"
PROJECT = "askos.io/project"
NAME = "askos.io/name"
RUN = "askos.io/run"
ATTEMPT = "askos.io/attempt"
SPEC_HASH = "askos.io/spec-hash"

_SHARES_PER_CPU = 1024
_LEAST_SHARES = 2
_HOSTS = "/etc/hosts"
_OUT_OF_MEMORY = "OOMKilled"
# As docker does for a namespace of its own: low ports and ping without privileges harm nobody there.
_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
_STATES = {0: "created", 1: "running", 2: "exited"}


def sandbox_config(config: SandboxConfig, instance: str, parent: str, logs: Path, *, privileged: bool = False) -> Any:
    """CRI's PodSandboxConfig. The capsule's uuid is the pod's name and uid: CNI gets it as K8S_POD_UID.

    `parent`: the control group above, unless the configuration has its own. `privileged`: for the request that makes
    a privileged container, which CRI refuses in a sandbox that is not said to be so.
    """
    labels = {
        **config.labels,
        INSTANCE: instance,
        CAPSULE: config.capsule_uuid,
        PROJECT: config.project_id,
        NAME: config.name,
        ATTEMPT: str(config.attempt),
    }
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(
            name=config.capsule_uuid, uid=config.capsule_uuid, namespace="askos", attempt=config.attempt
        ),
        hostname=config.hostname,
        log_directory=str(logs / config.capsule_uuid),
        dns_config=cri.DNSConfig(servers=config.dns_servers, searches=config.dns_search, options=config.dns_options),
        labels=labels,
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=config.cgroup_parent or parent,
            sysctls={**_SYSCTLS, **config.sysctls},
            security_context=cri.LinuxSandboxSecurityContext(
                namespace_options=security.namespaces(config.share_pid),
                seccomp=security.seccomp(),
                readonly_rootfs=True,
                privileged=privileged,
            ),
        ),
    )


def container_config(
    config: ContainerConfig,
    instance: str,
    image: str,
    *,
    command: list[str],
    args: list[str],
    image_user: str,
    ends_groups: bool = False,
) -> Any:
    """CRI's ContainerConfig; `command` and `args` as CRI means them (empty: the image's).

    `ends_groups`: the host can end all processes of a container when it needs too much memory. As with the kubelet,
    that is done in pods; otherwise the one process ends that needs the most.
    """
    resources = _resources(limits_of(config))
    resources.cpuset_cpus = config.cpus
    if ends_groups and config.limits is not None:
        resources.unified["memory.oom.group"] = "1"
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=container_name(config), attempt=config.attempt),
        image=cri.ImageSpec(image=image),
        command=command,
        args=args,
        working_dir=config.workdir or "",
        envs=[cri.KeyValue(key=key, value=value) for key, value in config.environment.items()],
        labels={
            INSTANCE: instance,
            CAPSULE: config.capsule_uuid,
            NAME: config.name,
            RUN: str(config.run),
            ATTEMPT: str(config.attempt),
            **({SPEC_HASH: config.spec_hash} if config.spec_hash else {}),
            **({disk.LABEL: config.layer_folder} if config.layer_folder else {}),
        },
        log_path=log_name(config),
        mounts=_mounts(config),
        stdin=config.interactive,
        stdin_once=config.stdin_once,
        tty=config.tty,
        linux=cri.LinuxContainerConfig(
            resources=resources,
            security_context=security.container_context(config.security, config.share_pid, image_user),
        ),
    )


def log_name(config: ContainerConfig) -> str:
    """The log's path below the log folder of the capsule."""
    return config.log_name or f"{config.run}-{config.attempt}.log"


def changed_resources(limits: Limits) -> Any:
    """CRI's LinuxContainerResources for a change in place: there, what is not said stays as it was."""
    return cri.LinuxContainerResources(
        cpu_shares=max(_LEAST_SHARES, limits.cpu_shares),
        cpu_period=limits.cpu_period_us,
        cpu_quota=limits.cpu_quota_us or -1,
        memory_limit_in_bytes=limits.memory_bytes or -1,
    )


def container_name(config: ContainerConfig) -> str:
    """The name that CRI keeps unique within a sandbox, together with the attempt."""
    return f"{config.name}-{config.run}"


def read_sandbox(item: Any) -> Sandbox:
    """A sandbox from CRI's list."""
    return Sandbox(
        id=item.id,
        capsule_uuid=item.labels.get(CAPSULE, ""),
        attempt=item.metadata.attempt,
        ready=item.state == cri.SANDBOX_READY,
        created_us=item.created_at // 1000,
    )


def read_container(item: Any, status: Any | None) -> Container:
    """A container from CRI's list, and from its status, which alone knows times and exit codes."""
    state = _STATES.get(item.state if status is None else status.state, "unknown")
    container = Container(
        id=item.id,
        sandbox_id=item.pod_sandbox_id,
        capsule_uuid=item.labels.get(CAPSULE, ""),
        name=item.labels.get(NAME, ""),
        run=_number(item.labels.get(RUN)),
        attempt=_number(item.labels.get(ATTEMPT)),
        state=state,  # type: ignore[arg-type]  # one of the four
        created_us=item.created_at // 1000,
        image_id=item.image_ref,
        spec_hash=item.labels.get(SPEC_HASH, ""),
    )
    if status is None:
        return container
    started_us = status.started_at // 1000 or None
    if state != "exited":
        return msgspec.structs.replace(container, started_us=started_us)
    finished_us = status.finished_at // 1000 or None
    if started_us is not None and finished_us is not None:
        # containerd notes the start when runc has answered: a very short life has ended by then.
        started_us = min(started_us, finished_us)
    return msgspec.structs.replace(
        container,
        exit_code=status.exit_code,
        reason=status.reason or None,
        message=status.message or None,
        started_us=started_us,
        finished_us=finished_us,
        oom_killed=status.reason == _OUT_OF_MEMORY,
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def limits_of(config: ContainerConfig) -> Limits:
    """What a container is made with."""
    if config.limits is not None:
        return config.limits
    shares = max(_LEAST_SHARES, int(_SHARES_PER_CPU * config.cpu))
    return Limits(cpu_shares=shares, memory_bytes=config.memory_bytes)


def _resources(limits: Limits) -> Any:
    return cri.LinuxContainerResources(
        cpu_shares=max(_LEAST_SHARES, limits.cpu_shares),
        cpu_period=limits.cpu_period_us if limits.cpu_quota_us else 0,
        cpu_quota=limits.cpu_quota_us,
        memory_limit_in_bytes=limits.memory_bytes,
        # Where it may not be lowered, containerd takes the lowest that it may (see config.restrict_oom_score).
        oom_score_adj=limits.oom_score_adj or 0,
    )


def _mounts(config: ContainerConfig) -> list[Any]:
    mounts = [
        cri.Mount(
            container_path=mount.container_path,
            host_path=mount.host_path,
            readonly=mount.read_only,
            propagation=cri.PROPAGATION_PRIVATE,
        )
        for mount in config.mounts
    ]
    if config.hosts_file and all(mount.container_path != _HOSTS for mount in config.mounts):
        mounts.append(cri.Mount(container_path=_HOSTS, host_path=config.hosts_file))
    return mounts
