"""The environment of a pod's containers: variables and where their values come from, and $(NAME) in texts.

What a reference means is Kubernetes': see each function. Nothing is read here but the pod, its content and `Facts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from askos.model.errors import InvalidError
from askos.model.pods import Container, Content, EnvFrom, EnvSource, FieldRef, KeyRef, Pod, ResourceFieldRef
from askos.plan import resources
from askos.plan.quantities import parse

_NAME = re.compile(r"[ -<>-~]+", re.ASCII)
_REFERENCE = re.compile(r"\$(?:\$|\((?P<name>[^)]*)\))")
_BY_KEY = re.compile(r"metadata\.(?P<which>labels|annotations)\['(?P<key>.*)'\]", re.DOTALL)
LONGEST = 128 << 10
"""Characters that references in one text may become. Linux takes no argument or variable longer than this."""
MOST = 6 << 20
"""Characters of all variables of a container. Linux takes no more for all arguments and variables together."""
_ESCAPES = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
_ESCAPES |= {"\\": "\\\\", '"': '\\"'}


class Facts(msgspec.Struct, frozen=True):
    """What a pod's references are answered from, beside its content. `cpu_milli`, `memory_bytes` and
    `storage_bytes` are the host's: what a container without a limit may use."""

    pod: Pod
    uid: str
    node_name: str
    host_ips: list[str]
    pod_ips: list[str]
    cpu_milli: int
    memory_bytes: int
    storage_bytes: int = 0


class Environment(msgspec.Struct, frozen=True):
    """A container's variables, in the order they were defined. `skipped`: keys that cannot be names."""

    values: dict[str, str]
    skipped: list[str] = []


class UnresolvedError(InvalidError):
    """A reference that cannot be answered: what it names is not there, or has no value that fits."""

    code = "unresolved"


def environment(container: Container, content: Content, facts: Facts) -> Environment:
    """All variables: those of `envFrom` in its order, then `env` in its order; what comes later wins.

    Literal values are expanded with what was defined before them. Raises UnresolvedError.
    """
    values: dict[str, str] = {}
    skipped: list[str] = []
    for source in container.env_from:
        for key, value in _all_of(source, content).items():
            name = source.prefix + key
            if _NAME.fullmatch(name) is None:
                skipped.append(name)
            else:
                values[name] = value
    left = MOST - sum(len(name) + len(value) for name, value in values.items())
    for variable in container.env:
        found: str | None
        if variable.value_from is None:
            found = expand(variable.value, values)
        else:
            found = _from(variable.name, variable.value_from, container, content, facts)
        if found is not None:
            values[variable.name] = found
            left -= len(variable.name) + len(found)
        if left < 0:
            raise UnresolvedError(
                f"The variables of the container {container.name!r} have more than {MOST} characters: no program can "
                "be given so much. Put what is large into a file of a volume."
            )
    return Environment(values, sorted(skipped))


def expand(text: str, values: Mapping[str, str]) -> str:
    """`text` with $(NAME) replaced. Names that are not known stay as they are; $$ is one $.

    UnresolvedError when it becomes longer than a program can be given: variables that each name the one before twice
    would fill the memory of a host.
    """
    left = LONGEST

    def replaced(found: re.Match[str]) -> str:
        nonlocal left
        name = found["name"]
        value = "$" if name is None else values.get(name, found[0])
        left -= len(value)
        if left < 0:
            raise UnresolvedError(
                f"{text[:60]!r} becomes longer than {LONGEST} characters when its variables are put in: no program can "
                "be given so much."
            )
        return value

    return _REFERENCE.sub(replaced, text)


def expand_all(text: str, values: Mapping[str, str]) -> str:
    """As `expand`, for texts that make no sense with a part missing. UnresolvedError for a name not known."""
    for found in _REFERENCE.finditer(text):
        name = found["name"]
        if name is not None and name not in values:
            raise UnresolvedError(f"{text!r} refers to the variable {name!r}, which this container does not have.")
    return expand(text, values)


def field(ref: FieldRef, facts: Facts) -> str:
    """A field of the pod. metadata.labels and .annotations as a whole are lines of key="value", for files.
    UnresolvedError for a field that cannot be referred to."""
    metadata, spec = facts.pod.metadata, facts.pod.spec
    match ref.field_path:
        case "metadata.name":
            return metadata.name
        case "metadata.namespace":
            return metadata.namespace
        case "metadata.uid":
            return facts.uid
        case "metadata.labels":
            return _lines(metadata.labels)
        case "metadata.annotations":
            return _lines(metadata.annotations)
        case "spec.nodeName":
            return facts.node_name
        case "spec.serviceAccountName":
            # As Kubernetes' admission fills it in.
            return spec.service_account_name or spec.service_account or "default"
        case "status.hostIP":
            return facts.host_ips[0] if facts.host_ips else ""
        case "status.hostIPs":
            return ",".join(facts.host_ips)
        case "status.podIP":
            return facts.pod_ips[0] if facts.pod_ips else ""
        case "status.podIPs":
            return ",".join(facts.pod_ips)
    found = _BY_KEY.fullmatch(ref.field_path)
    if found is None:
        raise UnresolvedError(f"The field {ref.field_path!r} cannot be referred to.")
    return (metadata.labels if found["which"] == "labels" else metadata.annotations).get(found["key"], "")


def resource_field(ref: ResourceFieldRef, facts: Facts, container: Container | None = None) -> str:
    """A resource of a container (of `container` when the reference names none), divided and rounded up. A limit that
    is not set is all that the host has. UnresolvedError when there is no such container or resource."""
    if ref.container_name:
        spec = facts.pod.spec
        container = next((c for c in (*spec.containers, *spec.init_containers) if c.name == ref.container_name), None)
    if container is None:
        raise UnresolvedError(f"{ref.resource!r} of the container {ref.container_name!r}: the pod has no such one.")
    kind, _, resource = ref.resource.partition(".")
    whole = {
        resources.CPU: facts.cpu_milli,
        resources.MEMORY: facts.memory_bytes,
        resources.STORAGE: facts.storage_bytes,
    }
    if kind not in ("limits", "requests") or resource not in whole:
        raise UnresolvedError(f"The resource {ref.resource!r} cannot be referred to.")
    if kind == "limits":
        value = resources.limit(container, resource) or whole[resource]
    else:
        value = resources.request(container, resource)
    divisor = parse(ref.divisor) or 1
    if divisor < 0:
        raise UnresolvedError(f"The divisor {ref.divisor!r} of {ref.resource!r} is negative.")
    unit = divisor * 1000 if resource == resources.CPU else divisor
    return str(-(-value // unit))


def _all_of(source: EnvFrom, content: Content) -> dict[str, str]:
    if source.config_map_ref is not None:
        ref = source.config_map_ref
        config_map = content.config_maps.get(ref.name)
        if config_map is None and not ref.optional:
            raise _absent("config map", ref.name)
        return (
            {} if config_map is None else {k: _value("config map", ref.name, k, v) for k, v in config_map.data.items()}
        )
    if source.secret_ref is not None:
        ref = source.secret_ref
        secret = content.secrets.get(ref.name)
        if secret is None and not ref.optional:
            raise _absent("secret", ref.name)
        return {} if secret is None else {k: _text(ref.name, k, v) for k, v in secret.data.items()}
    return {}


def _from(name: str, source: EnvSource, container: Container, content: Content, facts: Facts) -> str | None:
    """One variable's value; None when it is optional and not there."""
    if source.config_map_key_ref is not None:
        ref = source.config_map_key_ref
        config_map = content.config_maps.get(ref.name)
        value = None if config_map is None else config_map.data.get(ref.key)
        if value is None and not ref.optional:
            raise _absent("config map", ref.name, name, None if config_map is None else ref)
        return None if value is None else _value("config map", ref.name, ref.key, value)
    if source.secret_key_ref is not None:
        ref = source.secret_key_ref
        secret = content.secrets.get(ref.name)
        data = None if secret is None else secret.data.get(ref.key)
        if data is None and not ref.optional:
            raise _absent("secret", ref.name, name, None if secret is None else ref)
        return None if data is None else _text(ref.name, ref.key, data)
    if source.field_ref is not None:
        return _value("field", source.field_ref.field_path, name, field(source.field_ref, facts))
    if source.resource_field_ref is not None:
        return resource_field(source.resource_field_ref, facts, container)
    raise UnresolvedError(f"The variable {name!r} has a valueFrom that names no source.")


def _absent(kind: str, name: str, variable: str = "", key: KeyRef | None = None) -> UnresolvedError:
    what = f"{kind} {name!r} is not there" if key is None else f"{kind} {name!r} has no key {key.key!r}"
    whose = f", which the variable {variable!r} needs" if variable else ", whose keys are to be variables"
    return UnresolvedError(f"The {what}{whose}. Give it with the capsule's content.")


def _text(name: str, key: str, data: bytes) -> str:
    try:
        return _value("secret", name, key, data.decode())
    except UnicodeDecodeError:
        raise UnresolvedError(
            f"Key {key!r} of secret {name!r} is not text (UTF-8), so no variable can hold it: mount it as a file."
        ) from None


def _value(kind: str, name: str, key: str, value: str) -> str:
    if "\0" in value:
        raise UnresolvedError(f"{key!r} of the {kind} {name!r} has a zero byte, which no variable can hold.")
    return value


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f'{key}="{_escaped(values[key])}"' for key in sorted(values))


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(c) or (c if c.isprintable() else _coded(ord(c))) for c in text)


def _coded(point: int) -> str:
    if point < 0x80:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
