"""JSON schemas of the native capsule API: queries, bodies and answers."""

from __future__ import annotations

from typing import Any

from askos.api import manifests
from askos.api.microversion import Version
from askos.api.schemas import BOOLEAN, Schema

_TEXT: Schema = {"type": "string", "pattern": "^[^\\x00]*$"}
_SECONDS: Schema = {"type": "string", "pattern": r"^[0-9]{1,8}$(?!\n)"}
_NUMBER: Schema = {"type": "string", "pattern": r"^[0-9]{1,18}$(?!\n)"}
_ONE: dict[str, Schema] = {"namespace": _TEXT, "all_projects": BOOLEAN}


def _query(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


NO_QUERY = _query({})
ONE_QUERY = _query(_ONE)
DELETE_QUERY = _query({**_ONE, "gracePeriodSeconds": _SECONDS})
LIST_QUERY = _query(
    {
        **_ONE,
        "labelSelector": _TEXT,
        "limit": {"type": "string", "pattern": r"^[0-9]{1,9}$(?!\n)"},
        "continue": _TEXT,
        "watch": BOOLEAN,
        "resourceVersion": _NUMBER,
        "timeoutSeconds": _SECONDS,
        "allowWatchBookmarks": BOOLEAN,
    }
)


def pod_body(_version: Version) -> Schema:
    """A pod with its content."""
    return manifests.schema()


def patch_body(_version: Version) -> Schema:
    """Any part of a pod."""
    return {"type": "object", "description": "A part of a capsule; null removes, lists of named things are merged"}


def content_body(_version: Version) -> Schema:
    """Config maps and secrets."""
    schema: Schema = manifests.schema()["properties"]["content"]
    return schema


def _object(properties: dict[str, Any], required: list[str] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties) if required is None else required,
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_STRING: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_FLAG: Schema = {"type": "boolean"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_TIME_OR_NULL: Schema = {"type": ["string", "null"], "format": "date-time"}
_STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_IPS = _list(_object({"ip": _STRING}))

_ENDED = _object(
    {
        "exitCode": _INTEGER,
        "signal": _INTEGER,
        "reason": _STRING,
        "message": _STRING,
        "startedAt": _TIME_OR_NULL,
        "finishedAt": _TIME_OR_NULL,
        "containerID": _STRING,
    },
    ["exitCode", "reason"],
)
_STATE = _object(
    {
        "waiting": _object({"reason": _STRING, "message": _STRING}, ["reason"]),
        "running": _object({"startedAt": _TIME_OR_NULL}),
        "terminated": _ENDED,
    },
    [],
)
_CONTAINER_STATUS = _object(
    {
        "name": _STRING,
        "state": {**_STATE, "minProperties": 1, "maxProperties": 1},
        "lastState": _STATE,
        "ready": _FLAG,
        "started": _FLAG,
        "restartCount": _INTEGER,
        "image": _STRING,
        "imageID": _STRING,
        "containerID": _STRING,
        "resources": {"type": "object"},
    },
    ["name", "state", "lastState", "ready", "started", "restartCount", "image", "imageID"],
)
_CONDITION = _object(
    {
        "type": _STRING,
        "status": {"enum": ["True", "False"]},
        "reason": _STRING,
        "message": _STRING,
        "observedGeneration": _INTEGER,
        "lastProbeTime": {"type": "null"},
        "lastTransitionTime": _TIME_OR_NULL,
    },
    ["type", "status", "lastTransitionTime"],
)
_STATUS = _object(
    {
        "phase": {"enum": ["Pending", "Running", "Succeeded", "Failed"]},
        "reason": _STRING,
        "message": _STRING,
        "conditions": _list(_CONDITION),
        "hostIP": _STRING,
        "hostIPs": _IPS,
        "podIP": _STRING,
        "podIPs": _IPS,
        "startTime": _TIME,
        "qosClass": {"enum": ["Guaranteed", "Burstable", "BestEffort"]},
        "observedGeneration": _INTEGER,
        "initContainerStatuses": _list(_CONTAINER_STATUS),
        "containerStatuses": _list(_CONTAINER_STATUS),
    },
    ["phase", "conditions", "qosClass", "observedGeneration", "containerStatuses"],
)
_METADATA = _object(
    {
        "name": _STRING,
        "namespace": _STRING,
        "uid": _STRING,
        "labels": _STRINGS,
        "annotations": _STRINGS,
        "generation": _INTEGER,
        "creationTimestamp": _TIME,
        "resourceVersion": {"type": "string", "pattern": "^[0-9]+$"},
        "deletionTimestamp": _TIME,
        "deletionGracePeriodSeconds": _INTEGER,
    },
    ["name", "namespace", "uid", "labels", "annotations", "generation", "creationTimestamp", "resourceVersion"],
)

COMPONENTS: dict[str, Schema] = {
    "Capsule": _object(
        {
            "apiVersion": {"const": "askos/v1"},
            "kind": {"const": "Capsule"},
            "id": {"type": "string", "format": "uuid"},
            "metadata": _METADATA,
            "spec": {"$ref": "#/components/schemas/KubePodSpec"},
            "status": _STATUS,
            "host": {"type": ["string", "null"], "description": "For administrators"},
        },
        ["apiVersion", "kind", "id", "metadata", "spec", "status"],
    ),
    "CapsuleList": _object(
        {
            "apiVersion": {"const": "askos/v1"},
            "kind": {"const": "CapsuleList"},
            "metadata": _object({"resourceVersion": _STRING, "continue": _STRING}, ["resourceVersion"]),
            "items": _list({"$ref": "#/components/schemas/Capsule"}),
        }
    ),
    "Events": _object(
        {
            "items": _list(
                _object(
                    {
                        "type": {"enum": ["Normal", "Warning"]},
                        "reason": _STRING,
                        "message": _STRING,
                        "count": _INTEGER,
                        "firstTimestamp": _TIME,
                        "lastTimestamp": _TIME,
                        "container": _STRING,
                    }
                )
            )
        }
    ),
}
"""What answers look like. A pod's parts are described by `manifests.components()`."""
