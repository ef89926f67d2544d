"""From Zun's capsule template to a pod: the same capsule as one made through the native API.

What Zun ignores is honoured where it can be (names, readOnly, restartPolicy in its old place); what cannot be
honoured is accepted as by Zun, with a warning.
"""

from __future__ import annotations

import re
import uuid
from typing import Any, Literal

import msgspec

from askos.api import create, podrules, schemas, syntax, template_fields, textual, weight
from askos.api.shape import Problems, clip, is_clean, shape
from askos.model import pods
from askos.model.capsules import VolumeGrant
from askos.model.errors import InvalidError
from askos.model.images import normalise
from askos.model.volumes import GIB

_NAME = re.compile(schemas.NAME)
_LONGEST_NAME = 255
_GRACE_S = 10
"""As long as a Zun container has when it is stopped; a template cannot say another."""
_LARGEST_GIB = 16_384
_PULL: dict[str, Literal["Never", "Always", "IfNotPresent"]] = {
    "never": "Never",
    "always": "Always",
    "ifnotpresent": "IfNotPresent",
}
_NO_PORT = "has no effect: no port of the host is opened; reach containerPort at the capsule's own address"


class Order(msgspec.Struct, frozen=True):
    """What a template asks for."""

    pod: pods.Pod
    volumes: list[VolumeGrant]
    """Existing ones, by their uuids; `size_bytes` is not known here."""
    new_volumes: list[VolumeGrant]
    labels: dict[str, str]
    """Those that a label selector can name; the pod has all."""
    warnings: list[str]


def read(template: object, zones: set[str], limits: schemas.Limits) -> Order:
    """What a template (an object, or a string of JSON or YAML) asks for.

    Raises ApiError 400 that names every field which is wrong.
    """
    problems = Problems("template")
    warnings: list[str] = []
    if isinstance(template, str):
        try:
            template = textual.read(template)
        except textual.UnreadableError as error:
            problems.add("template", f"it cannot be read: {error}")
            problems.raise_any()
    weight.check(template)
    if not isinstance(template, dict):
        problems.add("template", "it must be an object, or a string of JSON or YAML that describes one")
        problems.raise_any()
    assert isinstance(template, dict)
    shaped = shape(template_fields.Template, _without_ignored(template, warnings), "", problems)
    problems.shaped()
    order = _Reader(msgspec.convert(shaped, template_fields.Template), problems, warnings, limits).order(zones)
    problems.raise_any()
    return order


def _without_ignored(template: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Without what Zun accepts and ignores: further keys of metadata, spec and volumes."""

    def known(struct: type, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            return value
        names = {f.encode_name for f in msgspec.structs.fields(struct)}
        ignored = [name for name in value if name not in names]
        # Only words come into a header.
        warnings.extend(f"{path}.{n} has no effect: Zun's templates have no such field" for n in ignored if n.isalnum()
                        and n.isascii() and len(n) <= 64 and len(warnings) < 20)  # fmt: skip
        return {name: inner for name, inner in value.items() if name in names}

    stripped = dict(template)
    for name, struct in (("metadata", template_fields.Metadata), ("spec", template_fields.Spec)):
        if name in stripped:
            stripped[name] = known(struct, stripped[name], name)
    spec = stripped.get("spec")
    if isinstance(spec, dict) and isinstance(spec.get("volumes"), list):
        # Of another source than cinder it is no volume that could be had: that is refused, not ignored.
        spec["volumes"] = [
            known(template_fields.Volume, v, f"spec.volumes[{i}]") if isinstance(v, dict) and "cinder" in v else v
            for i, v in enumerate(spec["volumes"])
        ]
    return stripped


class _Reader:
    """Turns one template into an order."""

    def __init__(
        self, template: template_fields.Template, problems: Problems, warnings: list[str], limits: schemas.Limits
    ) -> None:
        self._t = template
        self._problems = problems
        self._warnings = warnings
        self._limits = limits
        self._names: set[str] = set()
        self._mounted: set[str] = set()

    def _tell(self, path: str, why: str) -> None:
        if why:
            self._problems.add(path, why)

    def order(self, zones: set[str]) -> Order:
        """The order, whole only if nothing was wrong."""
        spec = self._t.spec
        if self._t.availability_zone and self._t.availability_zone not in zones:
            there = ", ".join(sorted(zones)) or "none"
            self._tell("availabilityZone", f"{clip(self._t.availability_zone)} is not there; the zones are: {there}")
        name = self._t.metadata.name or create.random_name("capsule")
        self._tell("metadata.name", _bad_name(self._t.metadata.name))
        labels = self._texts(self._t.metadata.labels, "metadata.labels")
        if not spec.containers:
            self._tell("spec.containers", "at least one is needed")
        if why := podrules.too_many(len(spec.init_containers) + len(spec.containers)):
            self._tell("spec.containers", why)
            # There are fewer names to give than that.
            self._problems.raise_any()
        # Before names are made up for those that have none.
        for i, container in enumerate(spec.init_containers):
            self._note_name(container, f"spec.initContainers[{i}]")
        for i, container in enumerate(spec.containers):
            self._note_name(container, f"spec.containers[{i}]")
        volumes, existing, new = self._volumes()
        declared = {v.name for v in volumes}
        init = [self._container(c, f"spec.initContainers[{i}]", name, declared)
                for i, c in enumerate(spec.init_containers)]  # fmt: skip
        containers = [self._container(c, f"spec.containers[{i}]", name, declared)
                      for i, c in enumerate(spec.containers)]  # fmt: skip
        for i, volume in enumerate(volumes):
            if volume.name not in self._mounted:
                self._tell(f"spec.volumes[{i}].name", f"no container mounts the volume {clip(volume.name)}")
        pod = pods.Pod(
            pods.PodMetadata(
                name, labels=labels, annotations=self._texts(self._t.metadata.annotations, "metadata.annotations")
            ),
            pods.PodSpec(
                containers=containers,
                init_containers=init,
                volumes=volumes,
                restart_policy=spec.restart_policy or self._t.restart_policy or "Always",
                termination_grace_period_seconds=_GRACE_S,
                hostname=_hostname(name),
            ),
        )
        selectable = {k: v for k, v in labels.items() if not syntax.qualified(k) and not syntax.label_value(v)}
        return Order(pod, existing, new, selectable, self._warnings)

    def _texts(self, given: dict[str, Any], path: str) -> dict[str, str]:
        """Zun's labels may have any values; they become strings."""
        found = {key: value if isinstance(value, str) else clip(value, 4096) for key, value in given.items()}
        for key, value in found.items():
            if not is_clean(value):
                self._tell(f"{path}[{clip(key)}]", "it holds a character that no text may hold")
        return found

    def _note_name(self, container: template_fields.Container, path: str) -> None:
        if container.name:
            self._tell(f"{path}.name", _bad_name(container.name))
            if container.name in self._names:
                self._tell(f"{path}.name", f"there are several containers {clip(container.name)}")
            self._names.add(container.name)

    def _new_name(self, capsule: str) -> str:
        """Zun's way to name a capsule's container."""
        while True:
            found = f"capsule-{capsule[:200]}-{create.greek()}"
            if found not in self._names:
                self._names.add(found)
                return found

    # -- containers --------------------------------------------------------------------------------------------

    def _container(
        self, given: template_fields.Container, path: str, capsule: str, declared: set[str]
    ) -> pods.Container:
        if given.image:
            try:
                normalise(given.image)
            except InvalidError as error:
                self._tell(f"{path}.image", error.message)
        else:
            self._tell(f"{path}.image", "it is required")
        policy = _PULL.get(given.image_pull_policy.lower() or "ifnotpresent")
        if policy is None:
            self._tell(
                f"{path}.imagePullPolicy", f"{clip(given.image_pull_policy)} must be never, always or ifnotpresent"
            )
        if given.work_dir:
            self._tell(f"{path}.workDir", syntax.absolute(given.work_dir))
        for key in given.env:
            self._tell(f"{path}.env[{clip(key)}]", syntax.variable(key))
        return pods.Container(
            name=given.name or self._new_name(capsule),
            image=given.image,
            # Zun hands both to the image's entrypoint, in this order.
            args=[_literal(word) for word in (*given.command, *given.args)],
            working_dir=given.work_dir,
            env=[pods.EnvVar(key, _literal(value)) for key, value in given.env.items()],
            ports=self._ports(given.ports, path),
            resources=self._resources(given.resources.requests, f"{path}.resources.requests"),
            volume_mounts=self._mounts(given.volume_mounts, path, declared),
            image_pull_policy=policy,
            stdin=self._flag(given.stdin, f"{path}.stdin"),
            tty=self._flag(given.tty, f"{path}.tty"),
        )

    def _flag(self, value: object, path: str) -> bool:
        if value is None or isinstance(value, bool):
            return bool(value)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        self._tell(path, f"{clip(value)} must be true or false")
        return False

    def _ports(self, given: list[template_fields.Port], path: str) -> list[pods.ContainerPort]:
        ports = []
        for i, port in enumerate(given):
            at = f"{path}.ports[{i}]"
            self._tell(f"{at}.containerPort", syntax.between(port.container_port, 1, 65535))
            if port.host_port:
                self._tell(f"{at}.hostPort", syntax.between(port.host_port, 1, 65535))
                if not any(w.endswith(_NO_PORT) for w in self._warnings):
                    self._warnings.append(f"{at}.hostPort {_NO_PORT}")
            ports.append(pods.ContainerPort(port.container_port, port.name, port.protocol, port.host_port or 0))
        return ports

    def _resources(self, given: template_fields.Requests, path: str) -> pods.Resources:
        """As for Zun's containers: cpu is a share of what there is, memory a hard limit."""
        requests, limits = {}, {}
        if given.cpu is not None:
            cpu = self._number(given.cpu, f"{path}.cpu", self._limits.min_cpu, self._limits.max_cpu)
            requests["cpu"] = f"{round(cpu * 1000)}m"
        if given.memory is not None:
            least, most = self._limits.min_memory_mib, self._limits.max_memory_mib
            memory = self._number(given.memory, f"{path}.memory", least, most)
            if memory != int(memory):
                self._tell(f"{path}.memory", f"{clip(given.memory)} must be a whole number of MiB")
            requests["memory"] = limits["memory"] = f"{int(memory)}Mi"
        return pods.Resources(limits, requests)

    def _number(self, value: object, path: str, least: float, most: float) -> float:
        found: float | None = None
        if isinstance(value, int | float) and not isinstance(value, bool):
            found = float(value) if -1e9 < value < 1e9 else most + 1
        elif isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", value, re.ASCII):
            found = float(value)
        if found is None:
            self._tell(path, f"{clip(value)} is not a number")
            return least
        if not least <= found <= most:
            self._tell(path, f"{clip(value)} must be {least} to {most}")
            return least
        return found

    def _mounts(self, given: list[template_fields.Mount], path: str, declared: set[str]) -> list[pods.VolumeMount]:
        mounts = []
        seen: set[str] = set()
        for i, mount in enumerate(given):
            at = f"{path}.volumeMounts[{i}]"
            if not mount.name:
                self._tell(f"{at}.name", "it is required")
            elif mount.name not in declared:
                there = ", ".join(sorted(declared)) or "none"
                self._tell(f"{at}.name", f"there is no volume {clip(mount.name)}; there are: {there[:200]}")
            self._mounted.add(mount.name)
            place, why = podrules.mount_path(mount.mount_path)
            self._tell(f"{at}.mountPath", why)
            if place in seen:
                self._tell(f"{at}.mountPath", f"several volumes are to be mounted at {clip(place)}")
            seen.add(place)
            read_only = self._flag(mount.read_only, f"{at}.readOnly")
            mounts.append(pods.VolumeMount(mount.name, mount.mount_path, read_only=read_only))
        return mounts

    # -- volumes -----------------------------------------------------------------------------------------------

    def _volumes(self) -> tuple[list[pods.Volume], list[VolumeGrant], list[VolumeGrant]]:
        volumes: list[pods.Volume] = []
        existing: list[VolumeGrant] = []
        new: list[VolumeGrant] = []
        for i, given in enumerate(self._t.spec.volumes):
            path = f"spec.volumes[{i}]"
            self._tell(f"{path}.name", _bad_name(given.name) if given.name else "it is required")
            if any(v.name == given.name for v in volumes):
                self._tell(f"{path}.name", f"there are several volumes {clip(given.name)}")
            cinder, at = given.cinder, f"{path}.cinder"
            auto_remove = self._flag(cinder.auto_remove, f"{at}.autoRemove")
            if bool(cinder.volume_id) == (cinder.size is not None):
                self._problems.add_choice(at, "exactly one of volumeID and size is needed")
                continue
            if cinder.volume_id:
                if not _is_uuid(cinder.volume_id):
                    self._tell(f"{at}.volumeID", f"{clip(cinder.volume_id)} is not the id of a volume")
                if any(grant.uuid == cinder.volume_id for grant in existing):
                    self._tell(f"{at}.volumeID", "another volume of the capsule is the same one")
                grant = VolumeGrant(cinder.volume_id, given.name, 0, auto_remove=auto_remove)
                existing.append(grant)
            else:
                size = self._number(cinder.size, f"{at}.size", 1, _LARGEST_GIB)
                if size != int(size):
                    self._tell(f"{at}.size", f"{clip(cinder.size)} must be a whole number of GiB")
                grant = VolumeGrant(str(uuid.uuid4()), given.name, int(size) * GIB, auto_remove=auto_remove)
                new.append(grant)
            volumes.append(pods.Volume(given.name, cinder=pods.CinderVolume(grant.uuid)))
        return volumes, existing, new


def _bad_name(name: str) -> str:
    if name and (len(name) > _LONGEST_NAME or not _NAME.search(name)):
        return f"{clip(name)} must be at most {_LONGEST_NAME} letters, digits and _ . - (a letter or digit first)"
    return ""


def _is_uuid(text: str) -> bool:
    try:
        return len(text) == 36 and bool(uuid.UUID(text))
    except ValueError:
        return False


def _literal(text: str) -> str:
    """Zun has no $(NAME): it stays as it is."""
    return text.replace("$", "$$")


def _hostname(name: str) -> str:
    """A host name for a capsule whose own name cannot be one; "" when it can."""
    if not syntax.dns_label(name):
        return ""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-") or "capsule"
