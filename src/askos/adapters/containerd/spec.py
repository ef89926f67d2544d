"""What is asked of CRI for sandboxes and containers, and the reading of its answers.

The safety defaults are docker's: its capabilities, the runtime's seccomp profile, no new privileges, and the paths
of /proc and /sys that reveal or change the host hidden or read-only. They are spelled out here rather than left to
the runtime, whose own defaults differ between versions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from cri_api.v1 import api_pb2 as cri

from askos.ports.runtime import Container, ContainerConfig, Sandbox, SandboxConfig

INSTANCE = "askos.io/instance"
CAPSULE = "askos.io/capsule"
PROJECT = "askos.io/project"
NAME = "askos.io/name"
RUN = "askos.io/run"
ATTEMPT = "askos.io/attempt"

_SHARES_PER_CPU = 1024
_CAPABILITIES = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
]
_MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
_READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
# As docker does for a namespace of its own: low ports and ping without privileges harm nobody there.
_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
_STATES = {0: "created", 1: "running", 2: "exited"}


def sandbox_config(config: SandboxConfig, instance: str, parent: str, logs: Path) -> Any:
    """CRI's PodSandboxConfig. The capsule's uuid is the pod's name and uid: CNI gets it as K8S_POD_UID."""
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
        dns_config=cri.DNSConfig(servers=config.dns_servers, searches=config.dns_search),
        labels=labels,
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=parent,
            sysctls=_SYSCTLS,
            security_context=cri.LinuxSandboxSecurityContext(
                namespace_options=_namespaces(), seccomp=_seccomp(), readonly_rootfs=True
            ),
        ),
    )


def container_config(config: ContainerConfig, instance: str, image: str, command: list[str], args: list[str]) -> Any:
    """CRI's ContainerConfig; `command` and `args` as CRI means them (empty: the image's)."""
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
        },
        log_path=f"{config.run}-{config.attempt}.log",
        mounts=[cri.Mount(container_path="/etc/hosts", host_path=config.hosts_file)] if config.hosts_file else [],
        stdin=config.interactive,
        tty=config.tty,
        linux=cri.LinuxContainerConfig(
            resources=cri.LinuxContainerResources(
                cpu_shares=max(2, int(_SHARES_PER_CPU * config.cpu)),
                memory_limit_in_bytes=config.memory_bytes,
            ),
            security_context=cri.LinuxContainerSecurityContext(
                capabilities=cri.Capability(drop_capabilities=["ALL"], add_capabilities=_CAPABILITIES),
                namespace_options=_namespaces(),
                no_new_privs=True,
                seccomp=_seccomp(),
                masked_paths=_MASKED,
                readonly_paths=_READONLY,
            ),
        ),
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
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _namespaces() -> Any:
    return cri.NamespaceOption(network=cri.POD, pid=cri.CONTAINER, ipc=cri.POD)


def _seccomp() -> Any:
    return cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)
