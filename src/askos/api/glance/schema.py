"""The JSON schemas that the Image API describes itself with."""

from __future__ import annotations

from askos.api.service import Json
from askos.model.stored_images import CONTAINER_FORMATS, DISK_FORMATS

_TEXT: Json = {"type": "string"}
_TIME: Json = {"type": "string", "readOnly": True}
_PATH: Json = {"type": "string", "readOnly": True}
_DIGEST: Json = {"type": ["null", "string"], "readOnly": True}

IMAGE: Json = {
    "name": "image",
    "properties": {
        "id": {"type": "string", "pattern": "^([0-9a-f]){8}-([0-9a-f]){4}-([0-9a-f]){4}-([0-9a-f]){4}-([0-9a-f]){12}$"},
        "name": {"type": ["null", "string"], "maxLength": 255},
        "status": {"type": "string", "readOnly": True, "enum": ["queued", "saving", "active", "killed"]},
        "visibility": {"type": "string", "enum": ["community", "public", "private"]},
        "owner": {"type": ["null", "string"], "maxLength": 255},
        "container_format": {"type": ["null", "string"], "enum": [None, *CONTAINER_FORMATS]},
        "disk_format": {"type": ["null", "string"], "enum": [None, *DISK_FORMATS]},
        "min_disk": {"type": "integer", "description": "GiB"},
        "min_ram": {"type": "integer", "description": "MiB"},
        "protected": {"type": "boolean"},
        "os_hidden": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 255}},
        "size": {"type": ["null", "integer"], "readOnly": True},
        "virtual_size": {"type": ["null", "integer"], "readOnly": True},
        "checksum": {**_DIGEST, "maxLength": 32},
        "os_hash_algo": {**_DIGEST, "maxLength": 64},
        "os_hash_value": {**_DIGEST, "maxLength": 128},
        "created_at": _TIME,
        "updated_at": _TIME,
        "self": _PATH,
        "file": _PATH,
        "schema": _PATH,
    },
    "additionalProperties": _TEXT,
    "links": [
        {"rel": "self", "href": "{self}"},
        {"rel": "enclosure", "href": "{file}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}

_MEMBER: Json = {
    "name": "member",
    "properties": {"member_id": _TEXT, "image_id": _TEXT, "created_at": _TEXT, "updated_at": _TEXT, "status": _TEXT},
}


def _several(name: str, one: Json) -> Json:
    properties = {name: {"type": "array", "items": one}, "first": _TEXT, "next": _TEXT, "schema": _TEXT}
    links = [{"rel": word, "href": f"{{{word}}}"} for word in ("first", "next")]
    return {"name": name, "properties": properties, "links": [*links, {"rel": "describedby", "href": "{schema}"}]}


SCHEMAS: dict[str, Json] = {
    "image": IMAGE,
    "images": _several("images", IMAGE),
    "member": _MEMBER,
    "members": _several("members", _MEMBER),
}
