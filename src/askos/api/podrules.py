"""What must hold in a pod beyond its types: metadata, volumes and the fields that concern all containers.

The rules are those of Kubernetes' validation; where a capsule is stricter, the comment says why. Everything that is
wrong is told to `Problems`; nothing is raised.
"""

from __future__ import annotations

import posixpath
import re

from askos.api import fields, syntax
from askos.api.shape import Problems, clip
from askos.model import pods
from askos.model.identity import Caller

_LONGEST = 2**31 - 1
_ANNOTATIONS = 256 << 10
_ID = 2**31 - 1
_UID = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.:]{0,62}[A-Za-z0-9])?", re.ASCII)
_DIRECT = re.compile(r"metadata\.(?:labels|annotations)\['(?P<key>.*)'\]", re.DOTALL)
ENV_FIELDS = frozenset(
    {
        *("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName"),
        *("status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"),
    }
)
FILE_FIELDS = frozenset(
    {"metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations"}
)
MOST_CONTAINERS = 250
"""In one capsule, init containers included. More would not be a pod any more."""
RESOURCES = ("cpu", "memory", "ephemeral-storage")


def check_metadata(metadata: pods.PodMetadata, problems: Problems) -> None:
    """Names, labels and annotations."""
    _told(problems, "metadata.name", syntax.subdomain(metadata.name) if metadata.name else "it is required")
    _told(problems, "metadata.namespace", syntax.dns_label(metadata.namespace))
    if metadata.uid and not _UID.fullmatch(metadata.uid):
        problems.add("metadata.uid", "it must be at most 64 letters, digits and - _ . : between them, such as a UUID")
    for key, value in metadata.labels.items():
        path = f"metadata.labels[{clip(key)}]"
        _told(problems, path, syntax.qualified(key) or syntax.label_value(value))
    for key in metadata.annotations:
        # As in Kubernetes, the case of an annotation's name does not matter here.
        _told(problems, f"metadata.annotations[{clip(key)}]", syntax.qualified(key.lower()))
    size = sum(len(k.encode()) + len(v.encode()) for k, v in metadata.annotations.items())
    if size > _ANNOTATIONS:
        problems.add("metadata.annotations", f"{size} bytes are too many: at most {_ANNOTATIONS} in all")


def _told(problems: Problems, path: str, why: str) -> None:
    if why:
        problems.add(path, why)


def check_spec(spec: pods.PodSpec, problems: Problems, runtimes: set[str]) -> None:
    """The fields of the spec that stand alone."""
    _told(problems, "spec.terminationGracePeriodSeconds",
          syntax.between(spec.termination_grace_period_seconds, 0, _LONGEST))  # fmt: skip
    if spec.active_deadline_seconds is not None:
        _told(problems, "spec.activeDeadlineSeconds", syntax.between(spec.active_deadline_seconds, 1, _LONGEST))
    if spec.hostname:
        _told(problems, "spec.hostname", syntax.dns_label(spec.hostname))
    if spec.subdomain:
        _told(problems, "spec.subdomain", syntax.dns_label(spec.subdomain))
    if spec.runtime_class_name is not None and spec.runtime_class_name not in runtimes:
        there = ", ".join(sorted(runtimes)) or "none"
        problems.add("spec.runtimeClassName", f"no host has {clip(spec.runtime_class_name)}; the runtimes are: {there}")
    if spec.scheduler_name not in ("", "default-scheduler"):
        problems.add("spec.schedulerName", "there is one scheduler: default-scheduler; leave it out")
    if spec.node_name:
        _told(problems, "spec.nodeName", syntax.subdomain(spec.node_name))
    for word, name in (("serviceAccountName", spec.service_account_name), ("serviceAccount", spec.service_account)):
        if name:
            _told(problems, f"spec.{word}", syntax.subdomain(name))
    for i, secret in enumerate(spec.image_pull_secrets):
        why = syntax.subdomain(secret.name) if secret.name else "it is required"
        _told(problems, f"spec.imagePullSecrets[{i}].name", why)
    for i, alias in enumerate(spec.host_aliases):
        _told(problems, f"spec.hostAliases[{i}].ip", syntax.address(alias.ip))
        for j, name in enumerate(alias.hostnames):
            _told(problems, f"spec.hostAliases[{i}].hostnames[{j}]", syntax.subdomain(name))
    for resource, text in spec.overhead.items():
        path = f"spec.overhead[{clip(resource)}]"
        _told(problems, path, unknown_resource(resource) or syntax.quantity(text)[1])


def unknown_resource(name: str) -> str:
    """Why a resource cannot be given; "" when it can."""
    if name in RESOURCES:
        return ""
    if name.startswith("hugepages-"):
        return "huge pages are not supported"
    if "/" in name:
        return "there are no such devices; cpu, memory and ephemeral-storage are what there is"
    return "it is not a resource of a container; there are cpu, memory and ephemeral-storage"


def check_security(
    context: pods.PodSecurityContext | pods.SecurityContext, path: str, problems: Problems, caller: Caller
) -> None:
    """What pods and containers have in common, and the pod's own part."""
    for word, number in (("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)):
        if number is not None:
            _told(problems, f"{path}.{word}", syntax.between(number, 0, _ID))
    if context.seccomp_profile is not None and context.seccomp_profile.type == "Unconfined":
        problems.forbid(caller, f"{path}.seccompProfile.type", "capsule:create:seccomp_unconfined",
                        "Unconfined lets a container make any system call")  # fmt: skip
    if isinstance(context, pods.SecurityContext):
        return
    for i, group in enumerate(context.supplemental_groups):
        _told(problems, f"{path}.supplementalGroups[{i}]", syntax.between(group, 0, _ID))
    if context.fs_group is not None:
        _told(problems, f"{path}.fsGroup", syntax.between(context.fs_group, 0, _ID))
    seen: set[str] = set()
    for i, sysctl in enumerate(context.sysctls):
        name = sysctl.name.replace("/", ".")
        if name not in fields.SYSCTLS:
            safe = ", ".join(sorted(fields.SYSCTLS))
            problems.add(f"{path}.sysctls[{i}].name", f"{clip(sysctl.name)} is not one of the safe ones: {safe}")
        elif name in seen:
            problems.add(f"{path}.sysctls[{i}].name", f"{name} is set twice")
        _told(problems, f"{path}.sysctls[{i}].value", syntax.one_line(sysctl.value))
        seen.add(name)


def check_dns(spec: pods.PodSpec, problems: Problems) -> None:
    """The resolver's settings."""
    config, path = spec.dns_config, "spec.dnsConfig"
    if spec.dns_policy == "None" and not config.nameservers:
        problems.add(f"{path}.nameservers", "dnsPolicy None needs at least one")
    if len(config.nameservers) > 3:
        problems.add(f"{path}.nameservers", "a resolver asks at most 3")
    for i, server in enumerate(config.nameservers):
        _told(problems, f"{path}.nameservers[{i}]", syntax.address(server))
    if len(config.searches) > 32 or sum(len(s) + 1 for s in config.searches) > 2049:
        problems.add(f"{path}.searches", "at most 32, and 2048 characters in all")
    for i, search in enumerate(config.searches):
        if search != ".":
            # Kubernetes takes underscores here, as in the names of services.
            _told(problems, f"{path}.searches[{i}]", syntax.subdomain(search.removesuffix(".").replace("_", "a")))
    for i, option in enumerate(config.options):
        if not option.name or re.search(r"\s", option.name + (option.value or "")):
            problems.add(f"{path}.options[{i}]", "name and value must be words, and the name not empty")


def too_many(containers: int) -> str:
    """Why a pod cannot have so many containers; "" when it can."""
    return f"{containers} containers are too many: at most {MOST_CONTAINERS}" if containers > MOST_CONTAINERS else ""


def mount_path(path: str) -> tuple[str, str]:
    """Where a volume is mounted, written in one way, and why it cannot be there ("" when it can)."""
    place = posixpath.normpath(path)
    if why := syntax.absolute(path):
        return place, why
    if place in ("/", "//"):
        # Kubernetes accepts it, and then no container can be made.
        return place, "a volume cannot take the place of the whole image"
    return place, f"{clip(path)} must not hold ':'" if ":" in path else ""


# -- volumes ----------------------------------------------------------------------------------------------------

_SOURCES = ("emptyDir", "configMap", "secret", "downwardAPI", "projected", "cinder", "persistentVolumeClaim")


def check_volumes(spec: pods.PodSpec, problems: Problems) -> set[str]:
    """All volumes; returns their names."""
    names: set[str] = set()
    containers = {c.name for c in (*spec.init_containers, *spec.containers)}
    for i, volume in enumerate(spec.volumes):
        path = f"spec.volumes[{i}]"
        _told(problems, f"{path}.name", syntax.dns_label(volume.name) if volume.name else "it is required")
        if volume.name in names:
            problems.add(f"{path}.name", f"there are several volumes {clip(volume.name)}")
        names.add(volume.name)
        parts = (volume.empty_dir, volume.config_map, volume.secret, volume.downward_api, volume.projected,
                 volume.cinder, volume.persistent_volume_claim)  # fmt: skip
        given = [word for word, part in zip(_SOURCES, parts, strict=True) if part is not None]
        if len(given) > 1:
            problems.add(path, f"a volume has one source; this one has {' and '.join(given)}")
        _check_source(volume, path, containers, problems)
    return names


def _check_source(volume: pods.Volume, path: str, containers: set[str], problems: Problems) -> None:
    if volume.empty_dir is not None and volume.empty_dir.size_limit is not None:
        _told(problems, f"{path}.emptyDir.sizeLimit", syntax.quantity(volume.empty_dir.size_limit)[1])
    if volume.config_map is not None:
        part = volume.config_map
        _check_object(part.name, part.items, f"{path}.configMap", "name", problems)
        _check_mode(part.default_mode, f"{path}.configMap.defaultMode", problems)
    if volume.secret is not None:
        _check_object(volume.secret.secret_name, volume.secret.items, f"{path}.secret", "secretName", problems)
        _check_mode(volume.secret.default_mode, f"{path}.secret.defaultMode", problems)
    if volume.downward_api is not None:
        _check_downward(volume.downward_api.items, f"{path}.downwardAPI", containers, problems)
        _check_mode(volume.downward_api.default_mode, f"{path}.downwardAPI.defaultMode", problems)
    if volume.projected is not None:
        _check_projected(volume.projected, f"{path}.projected", containers, problems)
    if volume.cinder is not None:
        if not volume.cinder.volume_id:
            problems.add(f"{path}.cinder.volumeID", "it is required")
        if volume.cinder.fs_type != "ext4":
            problems.add(f"{path}.cinder.fsType", "volumes of this cloud are ext4; leave it out")
    if volume.persistent_volume_claim is not None and not volume.persistent_volume_claim.claim_name:
        problems.add(f"{path}.persistentVolumeClaim.claimName", "it is required")


def _check_mode(mode: int | None, path: str, problems: Problems) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        problems.add(path, f"{mode} must be 0 to 511 (0777; JSON has no octal numbers)")


def _check_object(name: str, items: list[pods.KeyToPath], path: str, word: str, problems: Problems) -> None:
    _told(problems, f"{path}.{word}", syntax.subdomain(name) if name else "it is required")
    for i, item in enumerate(items):
        _told(problems, f"{path}.items[{i}].key", syntax.config_key(item.key))
        _told(problems, f"{path}.items[{i}].path", syntax.file_path(item.path))
        _check_mode(item.mode, f"{path}.items[{i}].mode", problems)


def _check_downward(items: list[pods.DownwardFile], path: str, containers: set[str], problems: Problems) -> None:
    seen: set[str] = set()
    for i, item in enumerate(items):
        at = f"{path}.items[{i}]"
        _told(problems, f"{at}.path", syntax.file_path(item.path))
        if item.path in seen:
            problems.add(f"{at}.path", f"{clip(item.path)} is written twice")
        seen.add(item.path)
        _check_mode(item.mode, f"{at}.mode", problems)
        if (item.field_ref is None) == (item.resource_field_ref is None):
            problems.add_choice(at, "exactly one of fieldRef and resourceFieldRef is needed")
        if item.field_ref is not None:
            check_field(item.field_ref, f"{at}.fieldRef", FILE_FIELDS, problems)
        if item.resource_field_ref is not None:
            if not item.resource_field_ref.container_name:
                problems.add(f"{at}.resourceFieldRef.containerName", "it is required in a volume")
            check_resource_field(item.resource_field_ref, f"{at}.resourceFieldRef", containers, problems)


def _check_projected(volume: pods.ProjectedVolume, path: str, containers: set[str], problems: Problems) -> None:
    _check_mode(volume.default_mode, f"{path}.defaultMode", problems)
    if not volume.sources:
        problems.add(f"{path}.sources", "at least one is needed")
    seen: set[str] = set()
    for i, source in enumerate(volume.sources):
        at = f"{path}.sources[{i}]"
        parts = (source.config_map, source.secret, source.downward_api)
        if sum(part is not None for part in parts) != 1:
            problems.add_choice(at, "exactly one of configMap, secret and downwardAPI is needed")
        targets: list[str] = []
        if source.config_map is not None:
            _check_object(source.config_map.name, source.config_map.items, f"{at}.configMap", "name", problems)
            targets += [item.path for item in source.config_map.items]
        if source.secret is not None:
            _check_object(source.secret.name, source.secret.items, f"{at}.secret", "name", problems)
            targets += [item.path for item in source.secret.items]
        if source.downward_api is not None:
            _check_downward(source.downward_api.items, f"{at}.downwardAPI", containers, problems)
            targets += [item.path for item in source.downward_api.items]
        for target in targets:
            if target in seen:
                problems.add(at, f"{clip(target)} is written by several sources")
        seen.update(targets)


def check_field(ref: pods.FieldRef, path: str, allowed: frozenset[str], problems: Problems) -> None:
    """A reference to a field of the pod."""
    if ref.api_version != "v1":
        problems.add(f"{path}.apiVersion", "it must be v1")
    direct = _DIRECT.fullmatch(ref.field_path)
    if direct is not None:
        _told(problems, f"{path}.fieldPath", syntax.qualified(direct["key"].lower()))
    elif ref.field_path not in allowed:
        several = ", ".join([*sorted(allowed), "metadata.labels['key']", "metadata.annotations['key']"])
        problems.add(f"{path}.fieldPath", f"{clip(ref.field_path)} cannot be referred to here; there are {several}")


def check_resource_field(ref: pods.ResourceFieldRef, path: str, containers: set[str], problems: Problems) -> None:
    """A reference to a resource of a container."""
    kind, _, resource = ref.resource.partition(".")
    if kind not in ("limits", "requests") or resource not in RESOURCES:
        why = f"{clip(ref.resource)} must be limits or requests, a dot, and cpu, memory or ephemeral-storage"
        problems.add(f"{path}.resource", why)
    if ref.container_name and ref.container_name not in containers:
        problems.add(f"{path}.containerName", f"there is no container {clip(ref.container_name)}")
    _told(problems, f"{path}.divisor", syntax.quantity(ref.divisor)[1])
