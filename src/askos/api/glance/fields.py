"""The fields of an image: what clients may send, and what they see."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from askos.api.service import Json
from askos.model.errors import ConflictError, ForbiddenError, InvalidError
from askos.model.identity import Caller
from askos.model.stored_images import CONTAINER_FORMATS, DISK_FORMATS, StoredImage

READ_ONLY = (
    "status", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "created_at", "updated_at", "file",
    "self", "schema", "direct_url", "stores",
)  # fmt: skip
_RESERVED = ("locations", "deleted", "deleted_at", "is_public", "owner")
MOST_TAGS = 128
MOST_PROPERTIES = 128
_LONGEST = 255
_LONGEST_VALUE = 4096
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST or _CONTROL.search(value):
        raise InvalidError(f"Invalid value for {field}: it must be a text of at most {_LONGEST} characters.")
    return value


def _name(value: Any) -> str | None:
    return None if value is None else _text("name", value)


def _boolean(field: str) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise InvalidError(f"Invalid value for {field}: {str(value)[:100]!r} is not a boolean.")
        return value

    return check


def _number(field: str) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise InvalidError(f"Invalid value for {field}: {str(value)[:100]!r} is not a whole number from 0.")
        return value

    return check


def _one_of(field: str, allowed: tuple[str, ...]) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        if value is not None and value not in allowed:
            words = ", ".join(allowed)
            raise InvalidError(f"Invalid value for {field}: {str(value)[:100]!r} is not one of {words}.")
        return None if value is None else str(value)

    return check


def _visibility(value: Any) -> str:
    if value == "shared":
        raise InvalidError("Invalid value for visibility: images have no members here. Use private or community.")
    found = _one_of("visibility", ("public", "community", "private"))(value)
    if found is None:
        raise InvalidError("Invalid value for visibility: it is public, community or private.")
    return found


def _tags(value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > MOST_TAGS:
        raise InvalidError(f"Invalid value for tags: it must be a list of at most {MOST_TAGS} texts.")
    return list(dict.fromkeys(tag(one) for one in value))


def tag(value: Any) -> str:
    """One tag. InvalidError."""
    if value == "":
        raise InvalidError("Invalid value for tags: a tag has at least one character.")
    return _text("tags", value)


_FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "name": ("name", _name),
    "visibility": ("visibility", _visibility),
    "container_format": ("container_format", _one_of("container_format", CONTAINER_FORMATS)),
    "disk_format": ("disk_format", _one_of("disk_format", DISK_FORMATS)),
    "min_disk": ("min_disk_gib", _number("min_disk")),
    "min_ram": ("min_ram_mib", _number("min_ram")),
    "protected": ("protected", _boolean("protected")),
    "os_hidden": ("hidden", _boolean("os_hidden")),
    "tags": ("tags", _tags),
}
REMOVABLE: dict[str, Any] = {"name": None, "tags": [], "container_format": None, "disk_format": None}
"""Fields that can be taken away, and what is left of them."""


def is_known(field: str) -> bool:
    """Whether Glance gives it a meaning: it is no property of the user's."""
    return field in _FIELDS or field in READ_ONLY or field in _RESERVED or field == "id"


def new(body: Json, caller: Caller) -> StoredImage:
    """The record that the body of a create asks for. InvalidError; ForbiddenError."""
    ident = body.pop("id", None)
    if ident is None:
        ident = str(uuid.uuid4())
    try:
        if str(uuid.UUID(ident)) != ident:
            raise ValueError
    except (ValueError, AttributeError, TypeError):
        raise InvalidError("Invalid image id format: it is no UUID.") from None
    owner = body.pop("owner", None) or caller.project_id
    if owner != caller.project_id and not caller.is_admin:
        raise ForbiddenError("You are not permitted to create images owned by somebody else.")
    image = StoredImage(ident, _text("owner", owner), caller.user_id)
    for field, value in body.items():
        image = with_field(image, field, value, caller)
    return image


def with_field(image: StoredImage, field: str, value: Any, caller: Caller) -> StoredImage:
    """The record with another value of one field. InvalidError; ForbiddenError; ConflictError."""
    if field in READ_ONLY:
        raise ForbiddenError(f"Attribute '{field}' is read-only.")
    if field in _RESERVED or field == "id":
        raise ForbiddenError(f"Attribute '{field}' is reserved.")
    if field not in _FIELDS:
        return _with_property(image, field, value)
    attribute, check = _FIELDS[field]
    checked = check(value)
    if field == "visibility" and checked == "public" and image.visibility != "public" and not caller.is_admin:
        raise ForbiddenError("You are not authorized to make an image public: only administrators are.")
    if field in ("container_format", "disk_format") and image.status != "queued":
        if checked == getattr(image, attribute):
            return image
        raise ForbiddenError(f"Attribute {field} can be only replaced for a queued image.")
    return msgspec.structs.replace(image, **{attribute: checked})


def without(image: StoredImage, field: str, caller: Caller) -> StoredImage:
    """The record without one field. ForbiddenError; ConflictError when it has no such."""
    if field in REMOVABLE:
        return with_field(image, field, REMOVABLE[field], caller)
    if is_known(field):
        raise ForbiddenError(f"Property {field} may not be removed.")
    if field not in image.properties:
        raise ConflictError(f"Property {field} does not exist.")
    return msgspec.structs.replace(image, properties={k: v for k, v in image.properties.items() if k != field})


def _with_property(image: StoredImage, field: str, value: Any) -> StoredImage:
    if not field or len(field) > _LONGEST or _CONTROL.search(field):
        raise InvalidError(f"Invalid name of a property: it has 1 to {_LONGEST} characters.")
    if not isinstance(value, str) or len(value) > _LONGEST_VALUE:
        raise InvalidError(f"Invalid value for {field}: it must be a text of at most {_LONGEST_VALUE} characters.")
    properties = {**image.properties, field: value}
    if len(properties) > MOST_PROPERTIES:
        raise InvalidError(f"An image has at most {MOST_PROPERTIES} properties.")
    return msgspec.structs.replace(image, properties=properties)


def shown(image: StoredImage) -> Json:
    """Glance's representation. Paths are as Glance writes them, from the endpoint in the catalog."""
    failure = {} if image.failure is None else {"failure": image.failure}
    return {
        **image.properties,
        **failure,
        "id": image.uuid,
        "name": image.name,
        "status": image.status,
        "visibility": image.visibility,
        "owner": image.project_id,
        "container_format": image.container_format,
        "disk_format": image.disk_format,
        "size": image.size_bytes,
        "virtual_size": None,
        "checksum": image.md5,
        "os_hash_algo": "sha512" if image.sha512 else None,
        "os_hash_value": image.sha512,
        "os_hidden": image.hidden,
        "protected": image.protected,
        "min_disk": image.min_disk_gib,
        "min_ram": image.min_ram_mib,
        "tags": image.tags,
        "created_at": _time(image.created_us),
        "updated_at": _time(image.updated_us),
        "self": f"/v2/images/{image.uuid}",
        "file": f"/v2/images/{image.uuid}/file",
        "schema": "/v2/schemas/image",
    }


def _time(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
