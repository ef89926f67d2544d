"""Manifests as files: Pods, and the ConfigMaps and Secrets that they refer to, as the API wants them."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

from askos.client.errors import ClientError

LARGEST = 4 << 20


def read(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The bodies of the creates that some files ask for; "-" is standard input.

    A file holds one or several documents (YAML or JSON), or a List. Every Pod is one capsule; ConfigMaps and Secrets
    of its namespace in any of the files go with it as content, as far as it refers to them.
    """
    documents: list[tuple[str, dict[str, Any]]] = []
    for name in names:
        documents += [(name, found) for found in _documents(name)]
    pods = [(name, found) for name, found in documents if found.get("kind", "Pod") in ("Pod", "Capsule")]
    for name, found in documents:
        kind = found.get("kind", "Pod")
        if kind not in ("Pod", "Capsule", "ConfigMap", "Secret"):
            raise ClientError(
                f"cannot use {_shown(name)}: it holds a {kind}. A capsule is made from a Pod, with ConfigMaps and "
                "Secrets beside it"
            )
    if not pods:
        raise ClientError(f"cannot use {', '.join(map(_shown, names))}: there is no Pod in it")
    return [_with_content(found, [d for _, d in documents]) for _, found in pods]


def _shown(name: str) -> str:
    return "standard input" if name == "-" else name


def _documents(name: str) -> list[dict[str, Any]]:
    import yaml

    try:
        text = sys.stdin.buffer.read(LARGEST + 1) if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise ClientError(f"cannot read {name}: {(error.strerror or str(error)).lower()}") from None
    if len(text) > LARGEST:
        raise ClientError(f"cannot use {_shown(name)}: it is larger than {LARGEST >> 20} MiB")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loaded = list(yaml.load_all(text, Loader=loader))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where is not None else ""
        why = getattr(error, "problem", None) or "it is neither YAML nor JSON"
        raise ClientError(f"cannot read {_shown(name)}{line}: {why}") from None
    found: list[dict[str, Any]] = []
    for each in loaded:
        if each is None:
            continue
        if not isinstance(each, dict):
            raise ClientError(f"cannot use {_shown(name)}: a document in it is not an object with keys")
        items = each.get("items") if str(each.get("kind", "")).endswith("List") else None
        found += [item for item in items if isinstance(item, dict)] if isinstance(items, list) else [each]
    return found


def _with_content(pod: dict[str, Any], documents: list[dict[str, Any]]) -> dict[str, Any]:
    wanted_maps, wanted_secrets = references(pod)
    maps, secrets = {}, {}
    for each in documents:
        if _namespace(each) != _namespace(pod):
            continue
        name = str((each.get("metadata") or {}).get("name", ""))
        if each.get("kind") == "ConfigMap" and name in wanted_maps:
            maps[name] = {k: each[k] for k in ("data", "binaryData", "immutable") if each.get(k) is not None}
        if each.get("kind") == "Secret" and name in wanted_secrets:
            kept = {k: each[k] for k in ("data", "type", "immutable") if each.get(k) is not None}
            plain = each.get("stringData") or {}
            if plain:
                data = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
                kept["data"] = {**kept.get("data", {}), **data}
            secrets[name] = kept
    content = {k: v for k, v in (("configMaps", maps), ("secrets", secrets)) if v}
    return {**pod, "content": content} if content else pod


def _namespace(document: dict[str, Any]) -> str:
    return str((document.get("metadata") or {}).get("namespace") or "default")


def references(pod: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Names of the config maps and secrets that a Pod refers to, wherever they stand."""
    maps: set[str] = set()
    secrets: set[str] = set()

    def look(value: Any, key: str) -> None:
        if isinstance(value, dict):
            name = value.get("name")
            if key in ("configMapKeyRef", "configMapRef", "configMap") and isinstance(name, str):
                maps.add(name)
            if key in ("secretKeyRef", "secretRef", "secret", "imagePullSecrets"):
                secrets.update(n for n in (name, value.get("secretName")) if isinstance(n, str))
            for inner, each in value.items():
                look(each, inner)
        elif isinstance(value, list):
            for each in value:
                look(each, key)

    look(pod.get("spec"), "spec")
    return maps, secrets
