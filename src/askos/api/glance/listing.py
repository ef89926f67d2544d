"""Lists of images: filters, order and pages, as Glance reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from multidict import MultiMapping

from askos.api.glance.context import Ask
from askos.api.glance.fields import shown
from askos.api.service import Json
from askos.model.errors import InvalidError
from askos.model.stored_images import StoredImage

DEFAULT_LIMIT = 25
MAX_LIMIT = 1000
_SORTABLE: dict[str, Callable[[StoredImage], Any]] = {
    "name": lambda i: i.name or "",
    "status": lambda i: i.status,
    "container_format": lambda i: i.container_format or "",
    "disk_format": lambda i: i.disk_format or "",
    "size": lambda i: i.size_bytes or 0,
    "id": lambda i: i.uuid,
    "created_at": lambda i: i.created_us,
    "updated_at": lambda i: i.updated_us,
}
_PAGING = ("limit", "marker", "sort", "sort_key", "sort_dir")
_WORDS = ("id", "name", "status", "container_format", "disk_format")
"""Fields that can be asked for with in:<several>."""
_COMPARE = {"eq": eq, "neq": ne, "gt": gt, "gte": ge, "lt": lt, "lte": le}
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,]+)')


def page(ask: Ask, images: list[StoredImage]) -> Json:
    """The answer to a list: what fits, in order, from the marker on."""
    query = ask.raw.query
    found = _ordered([image for image in images if _fits(image, ask)], query)
    limit = _limit(query)
    marker = query.get("marker")
    if marker is not None:
        ids = [image.uuid for image in found]
        if marker not in ids:
            raise InvalidError(f"Invalid marker: there is no image {marker[:100]} in this list.")
        found = found[ids.index(marker) + 1 :]
    url = ask.raw.url.without_query_params("marker")
    path = "/v2/images"
    answer: Json = {
        "images": [shown(image) for image in found[:limit]],
        "schema": "/v2/schemas/images",
        "first": f"{path}?{url.raw_query_string}" if url.raw_query_string else path,
    }
    if len(found) > limit > 0:
        answer["next"] = f"{path}?{url.update_query(marker=found[limit - 1].uuid).raw_query_string}"
    return answer


def _fits(image: StoredImage, ask: Ask) -> bool:
    query = ask.raw.query
    visibility = query.get("visibility")
    if visibility not in (None, "all", "public", "community", "private", "shared"):
        raise InvalidError(f"Invalid visibility value: {visibility[:100]}")
    if visibility is None:
        # What others share with everybody who knows of it is in no list but one of such.
        if image.visibility == "community" and not ask.caller.is_admin and image.project_id != ask.caller.project_id:
            return False
    elif visibility not in ("all", image.visibility):
        return False
    if image.hidden != _flag("os_hidden", query.get("os_hidden", "false")):
        return False
    view = shown(image)
    return all(_matches(image, view, key, value) for key, value in query.items())


def _matches(image: StoredImage, view: Json, key: str, value: str) -> bool:
    if key in _PAGING or key in ("visibility", "os_hidden", "member_status"):
        return True
    if key == "tag":
        return value in image.tags
    if key in ("size_min", "size_max"):
        if not re.fullmatch(r"[0-9]{1,18}", value):
            raise InvalidError(f"Invalid value for {key}: {value[:100]!r} is not a number of bytes.")
        size = image.size_bytes or 0
        return size >= int(value) if key == "size_min" else size <= int(value)
    if key == "protected":
        return image.protected == _flag(key, value)
    if key in ("created_at", "updated_at"):
        return _compares(image.created_us if key == "created_at" else image.updated_us, key, value)
    if key in _WORDS and value.startswith("in:"):
        wanted = [quoted or plain for quoted, plain in _QUOTED.findall(value[3:])]
        return view[key] in wanted
    return key in view and str(view[key]) == value


def _compares(at_us: int, key: str, value: str) -> bool:
    word, colon, rest = value.partition(":")
    compare = _COMPARE.get(word) if colon else None
    text = rest if compare is not None else value
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidError(
            f"Invalid value for {key}: {text[:100]!r} is not a time such as 2026-01-31T12:00:00Z."
        ) from None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    seen = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at_us // 1_000_000)
    return bool((compare or eq)(seen, at))


def _flag(key: str, value: str) -> bool:
    if value.lower() not in _BOOLEANS:
        raise InvalidError(f"Invalid value for {key}: {value[:100]!r} is not a boolean.")
    return _BOOLEANS[value.lower()]


def _ordered(images: list[StoredImage], query: MultiMapping[str]) -> list[StoredImage]:
    if "sort" in query and ("sort_key" in query or "sort_dir" in query):
        raise InvalidError("Old and new sorting syntax cannot be combined")
    if "sort" in query:
        parts = [part.strip().partition(":") for part in query["sort"].split(",")]
        order = [(key, direction or "desc") for key, _, direction in parts]
    else:
        keys, directions = query.getall("sort_key", ["created_at"]), query.getall("sort_dir", ["desc"])
        if len(directions) not in (1, len(keys)):
            raise InvalidError("Number of sort dirs does not match the number of sort keys")
        order = list(zip(keys, directions if len(directions) == len(keys) else directions * len(keys), strict=True))
    if all(key != "id" for key, _ in order):
        order.append(("id", "desc"))
    for key, direction in reversed(order):
        if key not in _SORTABLE:
            raise InvalidError(f"Invalid sort key: {key[:100]}. It must be one of {', '.join(_SORTABLE)}.")
        if direction not in ("asc", "desc"):
            raise InvalidError(f"Invalid sort direction: {direction[:100]}")
        images = sorted(images, key=_SORTABLE[key], reverse=direction == "desc")
    return images


def _limit(query: MultiMapping[str]) -> int:
    text = query.get("limit", str(DEFAULT_LIMIT))
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise InvalidError("limit param must be an integer, and not negative")
    return min(int(text), MAX_LIMIT)
