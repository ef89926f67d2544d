"""How a container is confined, in CRI's words.

The safety defaults are docker's: its capabilities, the runtime's seccomp profile, no new privileges, and the paths
of /proc and /sys that reveal or change the host hidden or read-only. They are spelled out here rather than left to
the runtime, whose own defaults differ between versions.
"""

from __future__ import annotations

from typing import Any

from cri_api.v1 import api_pb2 as cri

from askos.ports.runtime import Security

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


def container_context(security: Security, share_pid: bool, image_user: str) -> Any:
    """CRI's LinuxContainerSecurityContext. `image_user`: the user that the image asks for."""
    return cri.LinuxContainerSecurityContext(
        capabilities=capabilities(security.add_capabilities, security.drop_capabilities),
        privileged=security.privileged,
        namespace_options=namespaces(share_pid),
        supplemental_groups=security.supplemental_groups,
        readonly_rootfs=security.read_only_root,
        no_new_privs=security.no_new_privileges,
        seccomp=seccomp(security.seccomp),
        masked_paths=_MASKED,
        readonly_paths=_READONLY,
        **user(security, image_user),
    )


def capabilities(add: list[str], drop: list[str]) -> Any:
    """CRI's Capability for a change of the default set, with Kubernetes' meaning of "ALL".

    Dropping "ALL" leaves what is added by name; adding "ALL" takes what is dropped by name away.
    """
    added, dropped = ([name.upper().removeprefix("CAP_") for name in names] for names in (add, drop))
    if "ALL" in added and "ALL" not in dropped:
        return cri.Capability(add_capabilities=["ALL"], drop_capabilities=dropped)
    kept = [] if "ALL" in dropped else _CAPABILITIES
    wanted = {name for name in (*kept, *added) if name != "ALL" and name not in dropped}
    # The runtime's own default set is not ours: begin with nothing.
    return cri.Capability(drop_capabilities=["ALL"], add_capabilities=sorted(wanted))


def user(security: Security, image_user: str) -> dict[str, Any]:
    """CRI's fields for who the first process is.

    The image's user is said to CRI as well: left to itself, containerd gives the image's user the additional groups
    of root, and refuses a group without a user.
    """
    group = security.run_as_group
    if security.run_as_user is not None:
        name = str(security.run_as_user)
    else:
        name, _, of_image = image_user.partition(":")
        if group is None and of_image.isdigit():
            group = int(of_image)
        elif group is None and of_image:
            return {"run_as_username": image_user}
        if not name:
            if group is None:
                return {}
            name = "0"
    fields: dict[str, Any] = {} if group is None else {"run_as_group": cri.Int64Value(value=group)}
    if name.isdigit():
        return {"run_as_user": cri.Int64Value(value=int(name)), **fields}
    return {"run_as_username": name, **fields}


def namespaces(share_pid: bool) -> Any:
    """CRI's NamespaceOption: network and IPC are the pod's, processes are unless shared the container's own."""
    return cri.NamespaceOption(network=cri.POD, pid=cri.POD if share_pid else cri.CONTAINER, ipc=cri.POD)


def seccomp(profile: str = "default") -> Any:
    """CRI's SecurityProfile for "default" or "unconfined"."""
    kinds = {"default": cri.SecurityProfile.RuntimeDefault, "unconfined": cri.SecurityProfile.Unconfined}
    return cri.SecurityProfile(profile_type=kinds[profile])
