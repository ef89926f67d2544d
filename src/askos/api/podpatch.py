"""Patches of a pod as JSON: Kubernetes' strategic merge (lists of named things are merged) and RFC 7386."""

from __future__ import annotations

from typing import Any

from askos.api.errors import ApiError

STRATEGIC = "application/strategic-merge-patch+json"
PLAIN = "application/merge-patch+json"

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
}
"""Lists that are merged by the key of their items. All others are replaced."""

_DIRECTIVE = "$patch"
_DELETED: Any = object()


def merged(present: Any, patch: Any, *, strategic: bool) -> Any:
    """What a patch makes of what is there. Raises an ApiError 400 for what a patch cannot say."""
    if not isinstance(patch, dict):
        raise _wrong("it must be a JSON object")
    return _object(present, patch, strategic, "")


def _object(present: Any, patch: dict[str, Any], strategic: bool, path: str) -> dict[str, Any]:
    result: dict[str, Any] = dict(present) if isinstance(present, dict) else {}
    if strategic and _DIRECTIVE in patch:
        patch = dict(patch)
        directive = patch.pop(_DIRECTIVE)
        if directive == "replace":
            return patch
        if directive != "merge":
            raise _wrong(f"{path or 'the patch'} cannot have $patch: {directive}")
    for key, value in patch.items():
        here = f"{path}.{key}".lstrip(".")
        if strategic and key.startswith("$"):
            if key.startswith("$setElementOrder/"):
                continue  # the order of what is there stays
            raise _wrong(f"{here} is not supported")
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _object(result.get(key), value, strategic, here)
        elif strategic and isinstance(value, list) and key in _KEYS:
            result[key] = _list(result.get(key), value, _KEYS[key], here)
        else:
            result[key] = value
    return result


def _list(present: Any, patch: list[Any], key: str, path: str) -> list[Any]:
    items: list[Any] = list(present) if isinstance(present, list) else []
    # Found by a table, not by looking: lists may be long, and both are.
    places: dict[str | int, int] = {}
    for at, item in enumerate(items):
        named = item.get(key) if isinstance(item, dict) else None
        if isinstance(named, str | int):
            places.setdefault(named, at)
    for change in patch:
        if not isinstance(change, dict):
            raise _wrong(f"the items of {path} must be objects")
        directive = change.get(_DIRECTIVE)
        if directive == "replace":
            rest = [item for item in patch if not (isinstance(item, dict) and _DIRECTIVE in item)]
            return rest
        if key not in change:
            raise _wrong(f"an item of {path} has no {key} to find it by")
        name = change[key]
        if not isinstance(name, str | int):
            raise _wrong(f"an item of {path} has a {key} that is neither a string nor a whole number")
        place = places.get(name)
        if directive == "delete":
            if place is not None:
                items[place] = _DELETED
                del places[name]
        elif place is None:
            places[name] = len(items)
            items.append(_object({}, change, True, f"{path}[{name}]"))
        else:
            items[place] = _object(items[place], change, True, f"{path}[{name}]")
    return [item for item in items if item is not _DELETED]


def _wrong(why: str) -> ApiError:
    return ApiError(400, f"Cannot apply the patch: {why}.", code="container.invalid-patch")
