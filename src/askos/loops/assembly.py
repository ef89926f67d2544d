"""From a pod to what the runtime is told: sandbox, containers, names and limits. Pure, but for types of the ports.

What is not said in a manifest is the safe choice: seccomp's default profile, no new privileges, the default set of
capabilities.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from ipaddress import ip_address
from typing import TypeVar

from askos.loops.host_env import HostEnv, facts, pod_of
from askos.loops.pod_volumes import MissingContent, host_volumes, read_only
from askos.model.capsules import Assignment
from askos.model.errors import InvalidError
from askos.model.images import normalise
from askos.model.pods import Container, Pod, VolumeMount
from askos.plan import resources
from askos.plan.environment import Environment, UnresolvedError, environment, expand, expand_all
from askos.plan.quantities import canonical
from askos.ports import runtime as rt

__all__ = [
    "ConfigError",
    "HostEnv",
    "MissingContent",
    "container_config",
    "container_limits",
    "dns_omissions",
    "host_volumes",
    "hostname",
    "hosts_text",
    "sandbox_config",
    "skipped_names",
    "spec_hash",
    "sub_paths",
]

_MAX_HOSTNAME = 63
_MAX_FULL_NAME = 64
_MAX_SERVERS = 3
_MAX_SEARCHES = 32
_MAX_SEARCH_CHARS = 2048

_T = TypeVar("_T")

SubPath = Callable[[str, str], str]
"""(volume name, expanded sub path) to the host path."""


class ConfigError(InvalidError):
    """A container cannot be made as it is described; the text is for people."""

    code = "config"
    reason = "CreateContainerConfigError"


# -- the sandbox ------------------------------------------------------------------------------------------------


def sandbox_config(a: Assignment, attempt: int, host: HostEnv) -> rt.SandboxConfig:
    """The sandbox of a pod. Raises ConfigError when its full name is too long to be the host name."""
    spec = pod_of(a).spec
    name = hostname(a)
    full = full_name(a, host)
    if spec.set_hostname_as_fqdn and full is not None:
        if len(full) > _MAX_FULL_NAME:
            raise ConfigError(
                f"setHostnameAsFQDN makes the host name {full!r}, which has {len(full)} characters: the kernel takes "
                f"{_MAX_FULL_NAME}. Shorten hostname, subdomain or namespace."
            )
        name = full
    servers, searches, options, _ = _dns(a, host)
    return rt.SandboxConfig(
        capsule_uuid=a.capsule_uuid,
        name=a.name,
        project_id=a.project_id,
        attempt=attempt,
        hostname=name,
        dns_servers=servers,
        dns_search=searches,
        dns_options=options,
        sysctls={s.name: s.value for s in spec.security_context.sysctls},
        share_pid=spec.share_process_namespace,
        handler=spec.runtime_class_name or "",
        cgroup_parent=f"/askos-{host.instance}/{a.capsule_uuid}",
    )


def hostname(a: Assignment) -> str:
    """The pod's short host name: the one it asks for, else its name as far as it fits."""
    pod = pod_of(a)
    return pod.spec.hostname or pod.metadata.name[:_MAX_HOSTNAME].rstrip("-.")


def full_name(a: Assignment, host: HostEnv) -> str | None:
    """The pod's full name in Kubernetes' form. None without a subdomain."""
    pod = pod_of(a)
    if not pod.spec.subdomain:
        return None
    return f"{hostname(a)}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{host.domain}"


def hosts_text(a: Assignment, host: HostEnv) -> str:
    """/etc/hosts of a pod: itself, its own names, and its hostAliases."""
    names = "\t".join(name for name in (full_name(a, host), hostname(a)) if name)
    lines = [
        "# Kept by Askos; changes made here are lost.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
        *(f"{ip}\t{names}" for port in a.ports for ip in (port.address, port.address6) if ip),
    ]
    aliases = pod_of(a).spec.host_aliases
    if aliases:
        lines.append("# From hostAliases.")
        lines += ["\t".join([alias.ip, *alias.hostnames]) for alias in aliases]
    return "\n".join([*lines, ""])


def dns_omissions(a: Assignment, host: HostEnv) -> list[str]:
    """What does not fit into resolv.conf and is left out: worth events."""
    return _dns(a, host)[3]


def _dns(a: Assignment, host: HostEnv) -> tuple[list[str], list[str], list[str], list[str]]:
    """Servers, search domains and options of resolv.conf; and what was left out, a sentence for each."""
    spec = pod_of(a).spec
    gateways = [network.gateway for network in a.networks]
    servers: list[str] = []
    searches: list[str] = []
    if spec.dns_policy == "Default":
        # A resolver on the host's loopback does not answer in a sandbox; the name service asks it instead.
        servers = [server for server in host.resolvers if not _is_loopback(server)] or gateways
        searches = list(host.searches)
    elif spec.dns_policy != "None":
        servers = gateways
    config = spec.dns_config
    wanted_servers = list(dict.fromkeys([*servers, *config.nameservers]))
    wanted_searches = list(dict.fromkeys([*searches, *config.searches]))
    servers, searches = wanted_servers[:_MAX_SERVERS], wanted_searches[:_MAX_SEARCHES]
    while len(" ".join(searches)) > _MAX_SEARCH_CHARS:
        searches.pop()
    omissions = []
    if servers != wanted_servers:
        omissions.append(f"Only {_MAX_SERVERS} name servers can be asked; these are: {' '.join(servers)}")
    if searches != wanted_searches:
        omissions.append(f"Not all search domains fit; these do: {' '.join(searches)}")
    options = {option.name: option.value for option in config.options}
    lines = [name if value is None else f"{name}:{value}" for name, value in options.items()]
    return servers, searches, lines, omissions


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return True


# -- containers -------------------------------------------------------------------------------------------------


def container_config(
    a: Assignment,
    container: Container,
    attempt: int,
    image_id: str,
    image_user: str,
    *,
    host: HostEnv,
    volume_paths: dict[str, str],
    sub_path: SubPath,
    hosts_file: str,
    message_file: str,
) -> rt.ContainerConfig:
    """One container of a pod. `image_user`: as the image says it. `volume_paths`: host paths by volume name.

    Raises ConfigError with a text for people.
    """
    pod = pod_of(a)
    values = _environment(a, container, host).values
    limits = container_limits(a, container, host)
    mounts = _mounts(a, container, values, volume_paths, sub_path)
    taken = {mount.container_path for mount in mounts}
    message_path = _absolute(container.termination_message_path)
    if container.termination_message_path and message_path not in taken:
        mounts.append(rt.Mount(message_file, message_path))
    return rt.ContainerConfig(
        capsule_uuid=a.capsule_uuid,
        name=container.name,
        run=1,
        attempt=attempt,
        image_ref=normalise(container.image),
        image_id=image_id,
        entrypoint=_expanded(container.command, values),
        command=_expanded(container.args, values),
        environment=values,
        workdir=container.working_dir or None,
        interactive=container.stdin,
        tty=container.tty,
        # Not used beside `limits`.
        cpu=0.0,
        memory_bytes=limits.memory_bytes,
        hosts_file=None if "/etc/hosts" in taken else hosts_file,
        log_name=f"{container.name}/{attempt}.log",
        mounts=mounts,
        limits=limits,
        security=_security(pod, container, image_user),
        share_pid=pod.spec.share_process_namespace,
        stdin_once=container.stdin and container.stdin_once,
        spec_hash=spec_hash(container),
    )


def _expanded(words: list[str], values: dict[str, str]) -> list[str] | None:
    try:
        return [expand(word, values) for word in words] or None
    except UnresolvedError as error:
        raise ConfigError(error.message) from None


def container_limits(a: Assignment, container: Container, host: HostEnv) -> rt.Limits:
    """What a container is held to from its start."""
    found = resources.limits_of(container)
    return rt.Limits(
        cpu_shares=found.cpu_shares,
        cpu_quota_us=found.cpu_quota_us,
        cpu_period_us=found.cpu_period_us,
        memory_bytes=found.memory_bytes,
        oom_score_adj=resources.oom_score(container, pod_of(a), host.memory_bytes),
    )


def spec_hash(container: Container) -> str:
    """Short, and different when a changed spec needs a new container.

    Of what may be changed while a pod runs, only the image does, and resources whose resizePolicy asks for it:
    labels, content and other resources reach a running container in place, and what else a spec has cannot change.
    """
    parts = [container.image]
    for policy in sorted(container.resize_policy, key=lambda policy: policy.resource_name):
        if policy.restart_policy == "RestartContainer":
            name, r = policy.resource_name, container.resources
            parts += [name, *(canonical(which[name]) if name in which else "-" for which in (r.requests, r.limits))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def skipped_names(a: Assignment, container: Container, host: HostEnv) -> list[str]:
    """Keys of envFrom that cannot be names of variables and were left out: worth an event. Raises ConfigError."""
    return _environment(a, container, host).skipped


def sub_paths(a: Assignment, container: Container, host: HostEnv) -> list[tuple[str, str]]:
    """What a container mounts of its volumes with subPath or subPathExpr: (volume name, expanded path), each once.
    Raises ConfigError."""
    values = _environment(a, container, host).values
    found = [(mount.name, _sub_path(container, mount, values)) for mount in container.volume_mounts]
    return list(dict.fromkeys((name, path) for name, path in found if path))


def _environment(a: Assignment, container: Container, host: HostEnv) -> Environment:
    try:
        return environment(container, a.content, facts(a, host))
    except UnresolvedError as error:
        raise ConfigError(error.message) from None


def _mounts(
    a: Assignment, container: Container, values: dict[str, str], volume_paths: dict[str, str], sub_path: SubPath
) -> list[rt.Mount]:
    only = read_only(a)
    mounts = []
    for mount in container.volume_mounts:
        path = volume_paths.get(mount.name)
        if path is None:
            what = f"{mount.mount_path!r} of the container {container.name!r}"
            raise ConfigError(f"{what} needs the volume {mount.name!r}: there is none.")
        within = _sub_path(container, mount, values)
        host_path = sub_path(mount.name, within) if within else path
        mounts.append(rt.Mount(host_path, _absolute(mount.mount_path), mount.read_only or mount.name in only))
    return mounts


def _sub_path(container: Container, mount: VolumeMount, values: dict[str, str]) -> str:
    """The path inside the volume; empty for the whole volume."""
    path = mount.sub_path
    if mount.sub_path_expr:
        try:
            path = expand_all(mount.sub_path_expr, values)
        except UnresolvedError as error:
            raise ConfigError(f"subPathExpr of {mount.mount_path!r} in {container.name!r}: {error}") from None
        if not path:
            # The whole volume would be more than was meant.
            raise ConfigError(f"subPathExpr of {mount.mount_path!r} in {container.name!r} comes out empty.")
    if path.startswith("/") or ".." in path.split("/"):
        raise ConfigError(
            f"The path {path!r} inside the volume {mount.name!r} cannot be mounted in {container.name!r}: it has to be "
            'relative and without "..".'
        )
    return path


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


# -- confinement ------------------------------------------------------------------------------------------------


def _security(pod: Pod, container: Container, image_user: str) -> rt.Security:
    own, shared = container.security_context, pod.spec.security_context
    user = _first(own.run_as_user, shared.run_as_user)
    group = _first(own.run_as_group, shared.run_as_group)
    name = image_user.partition(":")[0]
    if _first(own.run_as_non_root, shared.run_as_non_root):
        _check_not_root(container.name, user, name)
    if user is None and group is not None and (name == "" or name.isdecimal()):
        # A group alone is nothing that a runtime takes.
        user = int(name or "0")
    profile = own.seccomp_profile or shared.seccomp_profile
    groups = [*shared.supplemental_groups, *([] if shared.fs_group is None else [shared.fs_group])]
    return rt.Security(
        run_as_user=user,
        run_as_group=group,
        supplemental_groups=list(dict.fromkeys(groups)),
        add_capabilities=[_capability(name) for name in own.capabilities.add],
        drop_capabilities=[_capability(name) for name in own.capabilities.drop],
        no_new_privileges=not (own.allow_privilege_escalation or own.privileged),
        read_only_root=own.read_only_root_filesystem,
        seccomp="unconfined" if profile is not None and profile.type == "Unconfined" else "default",
        privileged=own.privileged,
    )


def _check_not_root(container: str, user: int | None, image_user: str) -> None:
    if user is not None:
        if user == 0:
            raise ConfigError(f"The container {container!r} has runAsNonRoot, and runAsUser 0, which is root.")
        return
    if image_user.isdecimal() and int(image_user) != 0:
        return
    if image_user and not image_user.isdecimal() and image_user != "root":
        raise ConfigError(
            f"The container {container!r} has runAsNonRoot, and its image the user {image_user!r}: a name does not "
            "tell whether that is root. Set runAsUser to its number."
        )
    raise ConfigError(
        f"The container {container!r} has runAsNonRoot, and its image runs as root. Set runAsUser, or take another "
        "image."
    )


def _first(own: _T | None, shared: _T | None) -> _T | None:
    return shared if own is None else own


def _capability(name: str) -> str:
    return name.upper().removeprefix("CAP_")
