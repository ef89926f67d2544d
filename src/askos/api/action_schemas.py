"""JSON schemas of the queries of a container's actions, beside those in `schemas`."""

from __future__ import annotations

from askos.api.schemas import NAME, Schema

_TEXT: Schema = {"type": "string", "pattern": "^[^\\x00]*$"}

COMMIT_QUERY: Schema = {
    "type": "object",
    "properties": {
        "repository": {**_TEXT, "minLength": 1, "maxLength": 255},
        "tag": {**_TEXT, "maxLength": 128},
    },
    "additionalProperties": False,
}
REBUILD_QUERY: Schema = {
    "type": "object",
    "properties": {
        "image": {"type": "string", "minLength": 2, "maxLength": 255},
        "image_driver": {"type": "string", "maxLength": 32},
    },
    "additionalProperties": False,
}
RENAME_QUERY: Schema = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": NAME}},
    "additionalProperties": False,
}
NAME_QUERY: Schema = {
    "type": "object",
    "properties": {"name": {**_TEXT, "minLength": 1, "maxLength": 255}},
    "additionalProperties": False,
}
NETWORK_DETACH_QUERY: Schema = {
    "type": "object",
    "properties": {
        "network": {**_TEXT, "minLength": 1, "maxLength": 255},
        "port": {**_TEXT, "minLength": 1, "maxLength": 255},
    },
    "additionalProperties": False,
}
NETWORK_ATTACH_QUERY: Schema = {
    "type": "object",
    "properties": {**NETWORK_DETACH_QUERY["properties"], "fixed_ip": {**_TEXT, "maxLength": 64}},
    "additionalProperties": False,
}
TOP_QUERY: Schema = {
    "type": "object",
    "properties": {"ps_args": {**_TEXT, "maxLength": 1024}},
    "additionalProperties": False,
}
_SIDE: Schema = {"type": ["integer", "string"], "pattern": "^[0-9]+$", "maxLength": 9, "minimum": 1}
SIZE_QUERY: Schema = {"type": "object", "properties": {"h": _SIDE, "w": _SIDE}, "additionalProperties": False}
EXECUTE_RESIZE_QUERY: Schema = {
    "type": "object",
    "properties": {
        "exec_id": {"type": "string", "minLength": 64, "maxLength": 64, "pattern": "^[a-f0-9]*$"},
        "h": _SIDE,
        "w": _SIDE,
    },
    "additionalProperties": False,
}
