"""JSON schemas of bodies and queries, and the checks that use them.

Messages follow Zun's: "Invalid input for field '<f>'.Value: '<v>'. <why>".
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from askos.api.errors import ApiError, invalid_field, invalid_query
from askos.api.microversion import Version

Schema = dict[str, Any]

TRUE = ("True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes")
FALSE = ("False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no")
BOOLEAN: Schema = {"enum": [True, *TRUE, False, *FALSE], "type": ["boolean", "string"]}
_WORD: Schema = {"type": ["boolean", "string"], "enum": [True, "True", "true", False, "False", "false"]}
_TEXT: Schema = {"type": "string", "pattern": "^[^\\x00]*$"}
_WHOLE: Schema = {"type": ["integer", "string", "null"], "pattern": "^[0-9]+$", "maxLength": 9}
_STRINGS: Schema = {"type": ["array", "null"], "items": _TEXT, "maxItems": 4096}
NAME = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$(?!\n)"
"""Zun's pattern, but a single character will do, and (Python's `$`) no line end behind it."""


class Limits(NamedTuple):
    """What one container may ask for: CPU shares (1.0 is 1,024), MiB, and GiB of its own layer; and how many MiB of an
    archive go through memory."""

    min_cpu: float = 0.1
    max_cpu: float = 16.0
    min_memory_mib: int = 4
    max_memory_mib: int = 8192
    max_disk_gib: int = 160
    archive_mib: int = 64


DEFAULT_LIMITS = Limits()

_COMMON: dict[str, Schema] = {
    "image": {"type": "string", "minLength": 2, "maxLength": 255},
    "name": {"type": ["string", "null"], "minLength": 1, "maxLength": 255, "pattern": NAME},
    "cpu": {
        "type": ["number", "string", "null"],
        "pattern": r"^[0-9]*(\.([0-9]+))?$",
        "minLength": 1,
        "maxLength": 16,
    },
    "cpu_policy": {"type": "string", "enum": ["dedicated", "shared"]},
    "memory": {
        "type": ["string", "integer", "null"],
        "pattern": "^[0-9]+$",
        "maxLength": 9,
    },
    "disk": {
        "type": ["string", "integer", "null"],
        "minimum": 1,
        "maximum": 160,
        "pattern": "^[0-9]+$",
        "maxLength": 9,
    },
    "workdir": {"type": ["string", "null"], "maxLength": 4096, "pattern": "^[^\\x00]*$"},
    "environment": {
        "type": ["object", "null"],
        "additionalProperties": _TEXT,
        "propertyNames": {"pattern": "^[^=\\x00]+$"},
    },
    "labels": {"type": ["object", "null"]},
    "image_pull_policy": {
        "type": ["string", "null"],
        "enum": ["never", "always", "ifnotpresent", "Never", "Always", "IfNotPresent", None],
    },
    "image_driver": {"type": ["string", "null"], "enum": ["glance", "docker", None, "None"]},
    "restart_policy": {
        "type": ["object", "null"],
        "properties": {
            "Name": {"type": "string", "enum": ["no", "always", "on-failure", "unless-stopped"]},
            "MaximumRetryCount": {
                "type": ["integer", "string", "null"],
                "minimum": 0,
                "maximum": 2**31 - 1,
                "pattern": "^[0-9]+$",
                "maxLength": 9,
            },
        },
        "additionalProperties": False,
        "required": ["Name"],
    },
    "interactive": _WORD,
    "tty": _WORD,
    "security_groups": {
        "type": ["array", "null"],
        "items": {"type": "string", "minLength": 1, "maxLength": 255},
    },
    "nets": {
        "type": ["array", "null"],
        "items": {
            "type": "object",
            "properties": {
                "network": {"type": "string", "minLength": 1, "maxLength": 255},
                "port": {"type": "string", "minLength": 1, "maxLength": 255},
                "v4-fixed-ip": {"type": "string", "maxLength": 64},
                "v6-fixed-ip": {"type": "string", "maxLength": 64},
            },
            "additionalProperties": False,
            "oneOf": [{"required": ["network"]}, {"required": ["port"]}],
        },
    },
    "hints": {"type": ["object", "null"]},
    "availability_zone": {"type": ["string", "null"], "minLength": 1, "maxLength": 255},
    "auto_remove": {"type": ["boolean", "string", "null"], "enum": [*_WORD["enum"], None]},
    "runtime": {"type": ["string", "null"]},
    "hostname": {"type": ["string", "null"], "minLength": 1, "maxLength": 63, "pattern": r"^[a-zA-Z0-9-._]*$(?!\n)"},
    "mounts": {
        "type": ["array", "null"],
        "maxItems": 100,
        "items": {
            "type": "object",
            "properties": {
                "source": {"type": ["string", "null"], "maxLength": 1 << 20},
                "destination": {**_TEXT, "minLength": 1, "maxLength": 4096},
                "size": {"type": ["string", "integer", "null"], "pattern": "^[0-9]+$", "maxLength": 9},
                "type": {"type": ["string", "null"], "enum": ["volume", "bind", None]},
            },
            "additionalProperties": False,
            "required": ["destination"],
            "anyOf": [{"required": ["source"]}, {"required": ["size"]}],
        },
    },
    "privileged": _WORD,
    "healthcheck": {
        "type": ["object", "null"],
        "properties": {
            "cmd": {**_TEXT, "type": ["string", "null"], "maxLength": 4096},
            "interval": _WHOLE,
            "retries": _WHOLE,
            "timeout": _WHOLE,
        },
        "additionalProperties": False,
    },
    "exposed_ports": {
        "type": ["object", "null"],
        "maxProperties": 100,
        "additionalProperties": {"type": ["object", "null"]},
    },
    "auto_heal": _WORD,
    "registry": {"type": ["string", "null"], "minLength": 2, "maxLength": 255},
}

CREATE_SINCE: dict[str, Version] = {
    "auto_remove": Version(1, 3),
    "runtime": Version(1, 5),
    "hostname": Version(1, 9),
    "mounts": Version(1, 11),
    "privileged": Version(1, 21),
    "healthcheck": Version(1, 22),
    "exposed_ports": Version(1, 24),
    "registry": Version(1, 31),
}
"""Fields that answer 400 invalid-param-in-version below their version."""


@cache
def create(version: Version, limits: Limits) -> Schema:
    """The body of a create; three fields depend on the version, two on the operator's limits."""
    properties: dict[str, Schema] = dict(_COMMON)
    properties["cpu"] = {**_COMMON["cpu"], "minimum": limits.min_cpu, "maximum": limits.max_cpu}
    properties["memory"] = {
        **_COMMON["memory"],
        "minimum": limits.min_memory_mib,
        "maximum": limits.max_memory_mib,
    }
    if version >= (1, 20):
        properties["command"] = _STRINGS
    else:
        properties["command"] = {**_TEXT, "type": ["string", "null"], "maxLength": 65536}
    if version >= (1, 39):
        properties["host"] = {"type": ["string", "null"], "minLength": 1, "maxLength": 255}
    if version >= (1, 40):
        properties["entrypoint"] = _STRINGS
    return {
        "type": "object",
        "properties": properties,
        "required": ["image"],
        "additionalProperties": False,
    }


@cache
def update(limits: Limits) -> Schema:
    """The body of a PATCH and of resize_container."""
    full = create(Version(1, 40), limits)["properties"]
    return {
        "type": "object",
        "properties": {name: full[name] for name in ("name", "cpu", "memory", "auto_heal")},
        "additionalProperties": False,
    }


CREATE_QUERY: Schema = {"type": "object", "properties": {"run": BOOLEAN}, "additionalProperties": False}
TIMEOUT_QUERY: Schema = {
    "type": "object",
    "properties": {
        "timeout": {
            "type": ["string", "integer"],
            "pattern": "^[0-9]*$",
            "maxLength": 9,
            "minimum": 0,
            "maximum": 999_999_999,
        }
    },
    "additionalProperties": False,
}
PATH_QUERY: Schema = {
    "type": "object",
    "properties": {"path": {**_TEXT, "minLength": 1, "maxLength": 4096}},
    "required": ["path"],
    "additionalProperties": False,
}
KILL_QUERY: Schema = {
    "type": "object",
    "properties": {"signal": {"type": ["string", "integer"], "maxLength": 32}},
    "additionalProperties": False,
}
EMPTY_QUERY: Schema = {"type": "object", "properties": {}, "additionalProperties": False}
DELETE_QUERY: Schema = {
    "type": "object",
    "properties": {"force": BOOLEAN, "stop": BOOLEAN, "all_projects": BOOLEAN},
    "additionalProperties": False,
}
ALL_PROJECTS_QUERY: Schema = {
    "type": "object",
    "properties": {"all_projects": BOOLEAN},
    "additionalProperties": False,
}
LOGS_QUERY: Schema = {
    "type": "object",
    "properties": {
        "stdout": BOOLEAN,
        "stderr": BOOLEAN,
        "timestamps": BOOLEAN,
        "tail": {"type": ["string", "integer"]},
        "since": {
            "type": ["string", "integer"],
            "pattern": r"^[0-9]*$|^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2},[0-9]{1,3}$",
            "maxLength": 32,
        },
    },
    "additionalProperties": False,
}
EXECUTE_QUERY: Schema = {
    "type": "object",
    "properties": {
        "command": {
            **_TEXT,
            "type": ["string", "array"],
            "items": _TEXT,
            "minLength": 1,
            "maxLength": 65536,
            "minItems": 1,
            "maxItems": 4096,
            "description": "One shell-quoted text; in a body also a list of words.",
        },
        "run": _WORD,
        "interactive": _WORD,
    },
    "additionalProperties": False,
}

_validators: dict[int, Draft202012Validator] = {}


def _first_error(schema: Schema, value: object) -> ValidationError | None:
    validator = _validators.get(id(schema))
    if validator is None:
        validator = _validators[id(schema)] = Draft202012Validator(schema)
    found: ValidationError | None = next(validator.iter_errors(value), None)
    return found


_WORDS = {
    NAME: "letters, digits and _ . - are allowed, beginning with a letter or digit",
    r"^[a-zA-Z0-9-._]*$(?!\n)": "letters, digits and - . _ are allowed",
    "^[^\\x00]*$": "all but the character NUL is allowed",
    "^[^=\\x00]+$": "all but = and the character NUL is allowed, and it is not empty",
    "^[0-9]+$": "a whole number is allowed, in digits alone",
    "^[0-9]*$": "a whole number is allowed, in digits alone",
    r"^[0-9]*(\.([0-9]+))?$": "a number is allowed, such as 2 or 0.5",
}
"""What patterns allow, for those who read no regular expressions."""


def _reason(error: ValidationError) -> str:
    if error.validator == "pattern" and error.validator_value in _WORDS:
        shown = repr(error.instance)
        shown = shown if len(shown) < 200 else shown[:200] + "..."
        return f"{shown} does not match what is allowed: {_WORDS[error.validator_value]}"
    return error.message if len(error.message) < 400 else error.message[:400] + "..."


def check_body(schema: Schema, body: object) -> None:
    """Raises a 400 that names the field."""
    error = _first_error(schema, body)
    if error is None:
        return
    if error.absolute_path:
        raise invalid_field(str(error.absolute_path[-1]), error.instance, _reason(error))
    raise ApiError(400, _reason(error), code="container.schema-validation-error")


def check_query(schema: Schema, query: dict[str, Any]) -> None:
    """Raises a 400 that names the parameter."""
    error = _first_error(schema, query)
    if error is None:
        return
    if error.absolute_path:
        raise invalid_query(str(error.absolute_path[0]), error.instance, _reason(error))
    raise ApiError(400, _reason(error), code="container.schema-validation-error")


def boolean(value: object, default: bool) -> bool:
    """A boolean word that has passed its schema."""
    if value is None:
        return default
    return value is True or value in TRUE


def number(field: str, value: object, minimum: float, maximum: float) -> float:
    """A number that may come as a string; JSON schema bounds do not look into strings."""
    try:
        found = float(str(value))
    except ValueError:
        raise invalid_field(field, value, f"{value!r} is not a number") from None
    if not minimum <= found <= maximum:
        why = "less than the minimum of" if found < minimum else "greater than the maximum of"
        raise invalid_field(field, value, f"{value} is {why} {minimum if found < minimum else maximum}")
    return found
