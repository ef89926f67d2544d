"""Manifests as files: Pods, and the ConfigMaps and Secrets that they refer to, as the API wants them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from askos.client.errors import ClientError

LARGEST = 4 << 20
SUFFIXES = (".yaml", ".yml", ".json")
DEFAULT_NAMESPACE = "default"
PODS = ("Pod", "Capsule")
CONTENT = {"ConfigMap": ("data", "binaryData", "immutable"), "Secret": ("data", "stringData", "type", "immutable")}

Document = dict[str, Any]


class Manifests(NamedTuple):
    """Bodies of creates, in their order, and what is to be said about documents that none of them uses."""

    bodies: list[Document]
    warnings: list[str]


def read(names: tuple[str, ...], namespace: str | None = None) -> Manifests:
    """The bodies of the creates that some files ask for; "-" is standard input, a folder stands for the manifests
    in it.

    A file holds one or several documents (YAML or JSON), or Lists of them. Every Pod is one capsule; ConfigMaps and
    Secrets of its namespace in any of the files go with it as content, as far as it refers to them. `namespace` is
    for documents that name none. ClientError for files that cannot be read, hold something else, or hold no Pod.
    """
    found: list[tuple[str, Document]] = []
    for name in names:
        for file in _files(name):
            found += [(file, document) for document in _documents(file)]
    _check_kinds(found)
    documents = [_placed(document, namespace) for _, document in found]
    pods = [document for document in documents if _kind(document) in PODS]
    if not pods:
        raise ClientError(f"cannot use {', '.join(map(_shown, names))}: there is no Pod in it")
    content = _content(documents)
    used: set[tuple[str, str, str]] = set()
    bodies = [_with_content(pod, content, used) for pod in pods]
    warnings = [
        f"{kind} {name} is left out: no Pod of namespace {space} refers to it"
        for kind, space, name in content
        if (kind, space, name) not in used
    ]
    return Manifests(bodies, warnings)


# -- files -------------------------------------------------------------------------------------------------------


def _shown(name: str) -> str:
    return "standard input" if name == "-" else name


def _files(name: str) -> list[str]:
    path = Path(name)
    if name == "-" or not path.is_dir():
        return [name]
    try:
        found = sorted(str(each) for each in path.iterdir() if each.suffix in SUFFIXES and each.is_file())
    except OSError as error:
        raise ClientError(f"cannot read {name}: {(error.strerror or str(error)).lower()}") from None
    if not found:
        raise ClientError(f"cannot use {name}: no file in it ends in {', '.join(SUFFIXES)}")
    return found


def _documents(name: str) -> list[Document]:
    import yaml

    try:
        if name == "-":
            text = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with Path(name).open("rb") as file:
                text = file.read(LARGEST + 1)
    except OSError as error:
        raise ClientError(f"cannot read {name}: {(error.strerror or str(error)).lower()}") from None
    if len(text) > LARGEST:
        raise ClientError(f"cannot use {_shown(name)}: it is larger than {LARGEST >> 20} MiB")
    try:
        loaded = list(yaml.load_all(text, Loader=_loader()))
        # What YAML can say and JSON cannot: binary data, what contains itself, numbers that are none.
        size = 0
        for piece in json.JSONEncoder(allow_nan=False).iterencode(loaded):
            size += len(piece)
            if size > 4 * LARGEST:
                raise ValueError("its aliases make it endless")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where is not None else ""
        why = getattr(error, "problem", None) or "it is neither YAML nor JSON"
        raise ClientError(f"cannot read {_shown(name)}{line}: {why}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ClientError(f"cannot use {_shown(name)}: it has no form in JSON ({str(error).lower()})") from None
    found: list[Document] = []
    for each in loaded:
        found += _flat(name, each)
    return found


def _flat(name: str, document: Any) -> Iterator[Document]:
    """A document, or those of a List; none for an empty one."""
    if document is None:
        return
    if not isinstance(document, dict):
        raise ClientError(f"cannot use {_shown(name)}: a document in it is not an object with keys")
    items = document.get("items")
    if _kind(document).endswith("List") and isinstance(items, list):
        for item in items:
            yield from _flat(name, item)
    else:
        yield document


@lru_cache
def _loader() -> Any:
    """A safe YAML loader that leaves times, such as 2026-11-21 and 12:30, the text that they are: manifests know
    none."""
    import re

    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader: Any = type("ManifestLoader", (base,), {})
    dropped = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
    numbers = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    loader.yaml_implicit_resolvers = {
        first: [
            (tag, re.compile(f"(?!.*:)(?:{pattern.pattern})", re.VERBOSE) if tag in numbers else pattern)
            for tag, pattern in found
            if tag not in dropped
        ]
        for first, found in base.yaml_implicit_resolvers.items()
    }
    return loader


# -- documents -----------------------------------------------------------------------------------------------------


def _kind(document: Document) -> str:
    return str(document.get("kind") or "Pod")


def _metadata(document: Document) -> dict[str, Any]:
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def namespace_of(document: Document) -> str:
    """The namespace that a document names, or the default one."""
    return str(_metadata(document).get("namespace") or DEFAULT_NAMESPACE)


def label(document: Document) -> str:
    """What a body is called in messages."""
    metadata = _metadata(document)
    return str(metadata.get("name") or metadata.get("generateName") or "without a name")


def _check_kinds(found: list[tuple[str, Document]]) -> None:
    others = sorted({(file, _kind(document)) for file, document in found if _kind(document) not in (*PODS, *CONTENT)})
    if others:
        told = ", ".join(f"{_shown(file)} holds a {kind}" for file, kind in others)
        raise ClientError(
            f"cannot use what is no Pod: {told}. A capsule is a Pod, with ConfigMaps and Secrets beside it"
        )


def _placed(document: Document, namespace: str | None) -> Document:
    if not namespace or not isinstance(document.get("metadata", {}), dict) or _metadata(document).get("namespace"):
        return document
    return {**document, "metadata": {**_metadata(document), "namespace": namespace}}


def _content(documents: list[Document]) -> dict[tuple[str, str, str], Document]:
    """ConfigMaps and Secrets by (kind, namespace, name)."""
    found: dict[tuple[str, str, str], Document] = {}
    for document in documents:
        kind = _kind(document)
        if kind not in CONTENT:
            continue
        key = (kind, namespace_of(document), str(_metadata(document).get("name") or ""))
        if not key[2]:
            raise ClientError(f"cannot use a {kind}: it has no name")
        if key in found:
            raise ClientError(f"cannot use two of one name: there are several {kind}s {key[2]} in namespace {key[1]}")
        found[key] = {k: document[k] for k in CONTENT[kind] if document.get(k) is not None}
    return found


def _with_content(pod: Document, content: dict[tuple[str, str, str], Document], used: set[Any]) -> Document:
    given = pod.get("content")
    bags: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
    for kind, word, names in zip(CONTENT, ("configMaps", "secrets"), references(pod), strict=True):
        for name in sorted(names):
            key = (kind, namespace_of(pod), name)
            if key in content:
                used.add(key)
                present = bags.get(word)
                bags[word] = {**(present if isinstance(present, dict) else {}), name: content[key]}
    return {**pod, "content": bags} if bags else pod


def references(pod: Document) -> tuple[set[str], set[str]]:
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
