"""From the body of a native create to a pod and its content: a Kubernetes v1 Pod, read as strictly as Kubernetes does.

Everything that is wrong, not supported or not allowed is said in one answer; see `fields.py` for what is which.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from askos.api import fields, podrules, syntax
from askos.api.containerrules import check_containers
from askos.api.shape import Problems, clip, join, shape
from askos.model import pods
from askos.model.identity import Caller

_TOP = ("apiVersion", "kind", "metadata", "spec", "content")
_SHOWN = ("id", "host", "status")
_ENDING = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' letters for generated names: no vowels, so that no words come out, and nothing that looks alike."""
_LONGEST_BASE = 58
_LOGIN_KEYS = {
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/dockercfg": ".dockercfg",
}
_SECURITY_ANNOTATIONS = (
    "container.apparmor.security.beta.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/",
)


class Manifest(msgspec.Struct, frozen=True):
    """What a body says. `warnings`: what was accepted without effect, a line of ASCII each."""

    pod: pods.Pod
    content: pods.Content
    warnings: list[str]
    generated: bool = False
    """The name was made from metadata.generateName, so that the same body gives another one each time."""


def read(body: Any, *, caller: Caller, runtimes: set[str]) -> Manifest:
    """The manifest of a create or replace. `runtimes`: those that hosts have.

    Raises ApiError 400 that names every field which is wrong or not supported (403 when only policy is against it).
    """
    problems = Problems()
    more: list[str] = []
    if not isinstance(body, dict):
        problems.add("", "the body must be a JSON object with metadata and spec")
        body = {}
    ours = body.get("kind") == "Capsule" and body.get("apiVersion") in ("askos/v1", None)
    _check_top(body, ours, problems, more)
    metadata, generated = _metadata(body.get("metadata"), ours, problems, more)
    pod = {
        "metadata": shape(pods.PodMetadata, metadata, "metadata", problems),
        "spec": shape(pods.PodSpec, _given(body, "spec", problems), "spec", problems),
    }
    content_json = _content_shape(body.get("content"), "content", problems)
    problems.shaped()
    made = msgspec.convert(pod, pods.Pod)
    content = _content(content_json, "content", problems)
    _check(made, problems, caller, runtimes)
    problems.raise_any()
    for annotation in made.metadata.annotations:
        if annotation.startswith(_SECURITY_ANNOTATIONS):
            prefix = annotation.partition("/")[0]
            more.append(f"metadata.annotations of {prefix} have no effect: every container has the default profiles")
    warnings = list(dict.fromkeys(more + problems.warnings()))
    return Manifest(made, content, warnings, generated)


def read_content(body: Any) -> pods.Content:
    """The content alone: {"configMaps": {...}, "secrets": {...}}. Raises ApiError 400 that names every problem."""
    problems = Problems("content")
    if not isinstance(body, dict):
        problems.add("", "the body must be a JSON object with configMaps and secrets")
    found = _content_shape(body, "", problems)
    problems.shaped()
    content = _content(found, "", problems)
    problems.raise_any()
    return content


def _check(pod: pods.Pod, problems: Problems, caller: Caller, runtimes: set[str]) -> None:
    podrules.check_metadata(pod.metadata, problems)
    podrules.check_spec(pod.spec, problems, runtimes)
    podrules.check_security(pod.spec.security_context, "spec.securityContext", problems, caller)
    podrules.check_dns(pod.spec, problems)
    names = podrules.check_volumes(pod.spec, problems)
    check_containers(pod.spec, names, problems, caller)


def _given(body: dict[str, Any], name: str, problems: Problems) -> Any:
    if body.get(name) is None:
        problems.add(name, "it is required")
        return {}
    return body[name]


def _check_top(body: dict[str, Any], ours: bool, problems: Problems, more: list[str]) -> None:
    if not ours:
        if body.get("apiVersion") not in (None, "v1"):
            problems.add("apiVersion", f"{clip(body['apiVersion'])} is not supported; it must be v1")
        if body.get("kind") not in (None, "Pod"):
            problems.add("kind", f"{clip(body['kind'])} is not supported; it must be Pod")
    for name, value in body.items():
        if name in _TOP or (ours and name in _SHOWN):
            continue
        if name == "status":
            if value:
                more.append("status has no effect: set by the server")
        else:
            problems.unknown("", str(name), [*_TOP, "status"])


def _metadata(given: Any, ours: bool, problems: Problems, more: list[str]) -> tuple[Any, bool]:
    """The metadata with a name, without what our own answers add."""
    if not isinstance(given, dict):
        if given is None:
            problems.add("metadata", "it is required")
            return {}, False
        return given, False
    metadata = {k: v for k, v in given.items() if k != "generateName"}
    if ours:
        for name in fields.WITHOUT_EFFECT[pods.PodMetadata]:
            metadata.pop(name, None)
    base = given.get("generateName")
    if base in (None, ""):
        return metadata, False
    if not isinstance(base, str):
        problems.add("metadata.generateName", "it must be a string")
        return metadata, False
    if metadata.get("name"):
        more.append("metadata.generateName has no effect: metadata.name is given")
        return metadata, False
    name = base[:_LONGEST_BASE] + "".join(secrets.choice(_ENDING) for _ in range(5))
    if syntax.subdomain(name):
        problems.add("metadata.generateName", f"{clip(base)} cannot begin a name (a-z, 0-9, - and . between them)")
        problems.silence("metadata.name")
        name = ""
    metadata["name"] = name
    return metadata, True


# -- content ----------------------------------------------------------------------------------------------------


def _content_shape(given: Any, path: str, problems: Problems) -> dict[str, Any]:
    """The content as JSON that becomes a `Content`; stringData stays apart under "stringData"."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        problems.add(path, "it must be an object with configMaps and secrets")
        return {}
    plain: dict[str, dict[str, str]] = {}
    stripped = dict(given)
    bags = given.get("secrets")
    if isinstance(bags, dict):
        stripped["secrets"] = {
            name: {k: v for k, v in bag.items() if k != "stringData"} if isinstance(bag, dict) else bag
            for name, bag in bags.items()
        }
        for name, bag in bags.items():
            if isinstance(bag, dict) and bag.get("stringData") is not None:
                where = f"{join(path, 'secrets')}[{clip(name)}].stringData"
                # Shaped as a config map's data: the same type, and the same messages.
                texts = shape(pods.ConfigMap, {"data": bag["stringData"]}, where, _Moved(problems, where))
                plain[name] = texts.get("data", {})
    return {**shape(pods.Content, stripped, path, problems), "stringData": plain}


class _Moved(Problems):
    """Passes problems on with "<where>.data" shortened to "<where>"."""

    def __init__(self, problems: Problems, where: str) -> None:
        super().__init__()
        self._to = problems
        self._where = where

    def add(self, path: str, why: str) -> None:
        """As of the base."""
        self._to.add(self._where + path.removeprefix(f"{self._where}.data"), why)


def _content(found: dict[str, Any], path: str, problems: Problems) -> pods.Content:
    plain: dict[str, dict[str, str]] = found.pop("stringData", {})
    content = msgspec.convert(found, pods.Content)
    for name, config in content.config_maps.items():
        at = f"{join(path, 'configMaps')}[{clip(name)}]"
        _told(problems, at, syntax.subdomain(name))
        for word, keys in (("data", set(config.data)), ("binaryData", set(config.binary_data))):
            for key in sorted(keys):
                _told(problems, f"{at}.{word}[{clip(key)}]", syntax.config_key(key))
        for key in sorted(set(config.data) & set(config.binary_data)):
            problems.add(f"{at}.binaryData[{clip(key)}]", "the same key is in data")
    bags = {}
    for name, secret in content.secrets.items():
        at = f"{join(path, 'secrets')}[{clip(name)}]"
        # As in Kubernetes, stringData goes before data.
        texts = {key: text.encode() for key, text in plain.get(name, {}).items()}
        secret = msgspec.structs.replace(secret, data={**secret.data, **texts})  # noqa: PLW2901 - the same one, whole
        _told(problems, at, syntax.subdomain(name))
        for key in secret.data:
            word = "stringData" if key in texts else "data"
            _told(problems, f"{at}.{word}[{clip(key)}]", syntax.config_key(key))
        needed = _LOGIN_KEYS.get(secret.type)
        if needed is not None:
            if needed not in secret.data:
                problems.add(f"{at}.data", f"a secret of type {secret.type} needs the key {needed}")
            elif not _is_json_object(secret.data[needed]):
                problems.add(f"{at}.data[{clip(needed)}]", "it must be a JSON object")
        bags[name] = secret
    return msgspec.structs.replace(content, secrets=bags)


def _told(problems: Problems, path: str, why: str) -> None:
    if why:
        problems.add(path, why)


def _is_json_object(data: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(data), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


# -- for the OpenAPI document -----------------------------------------------------------------------------------

_PREFIX = "Kube"


def _described() -> tuple[dict[str, Any], dict[str, Any]]:
    (metadata, spec, content), parts = msgspec.json.schema_components(
        (pods.PodMetadata, pods.PodSpec, pods.Content), ref_template="#/components/schemas/" + _PREFIX + "{name}"
    )
    body = {
        "type": "object",
        "description": "A Kubernetes v1 Pod, and the config maps and secrets that it refers to",
        "properties": {
            "apiVersion": {"const": "v1"},
            "kind": {"const": "Pod"},
            "metadata": metadata,
            "spec": spec,
            "content": content,
        },
        "required": ["metadata", "spec"],
    }
    # The prefix keeps a pod's Container apart from Zun's.
    components = {_PREFIX + name: _with_choices(part) for name, part in parts.items()}
    named = components[_PREFIX + "PodMetadata"]
    named["properties"]["generateName"] = {"type": "string", "description": "Instead of name: its beginning"}
    named["required"] = []
    components[_PREFIX + "Secret"]["properties"]["stringData"] = {
        "type": "object",
        "additionalProperties": {"type": "string"},
    }
    for struct, name in fields.QUANTITIES:
        known = components.get(_PREFIX + struct.__name__, {}).get("properties", {}).get(name)
        if known is not None:
            _allow_numbers(known)
    return body, components


def _with_choices(part: dict[str, Any]) -> dict[str, Any]:
    """Without "title", which is the class's name and says nothing."""
    return {key: value for key, value in part.items() if key != "title"}


def _allow_numbers(known: dict[str, Any]) -> None:
    inner = known.get("additionalProperties", known)
    if inner.get("type") == "string":
        inner["type"] = ["string", "number"]
    for choice in inner.get("anyOf", ()):
        if choice.get("type") == "string":
            choice["type"] = ["string", "number"]


def schema() -> dict[str, Any]:
    """The JSON schema of a create's body; it refers to `components()`."""
    return _described()[0]


def components() -> dict[str, Any]:
    """The schemas of a pod's parts, for #/components/schemas of the OpenAPI document."""
    return _described()[1]
