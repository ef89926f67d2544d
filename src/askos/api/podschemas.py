"""JSON schemas of the native capsule API: queries, bodies and answers."""

from __future__ import annotations

from typing import Any

from askos.api import manifests
from askos.api.microversion import Version
from askos.api.schemas import BOOLEAN, Schema

_TEXT: Schema = {"type": "string", "pattern": "^[^\\x00]*$"}


def _whole(text: str, digits: int = 8) -> Schema:
    """A number as the query has it; empty is as if it were not there."""
    return {"type": "string", "pattern": rf"^[0-9]{{0,{digits}}}$(?!\n)", "description": text}


def _flag(text: str, default: bool = False) -> Schema:
    return {**BOOLEAN, "description": text, "default": default}


def _words(text: str) -> Schema:
    return {**_TEXT, "description": text}


def _query(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


_WHERE: dict[str, Schema] = {
    "namespace": _words("Only in this namespace. For one capsule: where its name is looked for; empty is anywhere"),
    "all_projects": _flag("In all projects; only for administrators"),
}
_PRETTY: dict[str, Schema] = {"pretty": _words("Accepted from Kubernetes' clients, without effect")}
_CONTAINER = _words(
    "The container. It may be left out when there is one only, or when the annotation "
    "kubectl.kubernetes.io/default-container says which"
)
_CHANNELS: dict[str, Schema] = {
    "container": _CONTAINER,
    "stdin": _flag("Open channel 0"),
    "stdout": _flag("Open channel 1", default=True),
    "stderr": _flag("Open channel 2; never with a terminal", default=True),
    "tty": _flag("With a terminal"),
}

NO_QUERY = _query({})
ONE_QUERY = _query(_WHERE)
DELETE_QUERY = _query(
    {
        **_WHERE,
        "gracePeriodSeconds": {
            **_whole("Seconds until what still runs is killed; without it the pod's own grace"),
            "pattern": r"^[0-9]{1,8}$(?!\n)",
        },
    }
)
LIST_QUERY = _query(
    {
        **_WHERE,
        "labelSelector": _words("Kubernetes' label selector: equality and set based terms, all of which must hold"),
        "limit": _whole("At most so many items, up to 1000", 9),
        "continue": _words("What the page before has as metadata.continue"),
        "watch": _flag("Tell changes as lines of JSON, without end"),
        "resourceVersion": _whole("With watch: tell what changed after this. 0 or nothing: all that is there", 18),
        "timeoutSeconds": _whole("With watch: end after so long; without it after 5 to 10 minutes"),
        "allowWatchBookmarks": _flag("With watch: tell now and then how far it is"),
    }
)
EXEC_QUERY = _query(
    {
        **_WHERE,
        **_PRETTY,
        **_CHANNELS,
        "command": {
            "type": "array",
            "items": _TEXT,
            "minItems": 1,
            "description": "The command, a word each",
        },
        "width": _whole("Columns of the terminal at first; 80 if not given", 5),
        "height": _whole("Rows of the terminal at first; 24 if not given", 5),
    }
)
ATTACH_QUERY = _query({**_WHERE, **_PRETTY, **_CHANNELS})
_PORTS: Schema = {
    "type": "array",
    "items": {"type": "string", "pattern": r"^ *[0-9]{1,5} *(, *[0-9]{1,5} *)*$(?!\n)"},
}
PORTFORWARD_QUERY = _query(
    {
        **_WHERE,
        **_PRETTY,
        "port": {
            **_PORTS,
            "description": "Ports from 1 to 65535, perhaps several with commas between; at most 64",
        },
        "ports": {**_PORTS, "description": "The same, as Kubernetes' API server calls it"},
    }
)
LOGS_QUERY = _query(
    {
        **_WHERE,
        **_PRETTY,
        "container": _CONTAINER,
        "follow": _flag("Go on until the container has ended"),
        "previous": _flag("The instance before the present one"),
        "timestamps": _flag("An RFC 3339 time before each line"),
        "tailLines": _whole("Only so many lines from the end", 17),
        "sinceSeconds": _whole("Only what is no older; at least 1", 17),
        "sinceTime": _words("Only what is no older than this RFC 3339 time. Not together with sinceSeconds"),
        "limitBytes": _whole("End after so many bytes; at least 1", 17),
        "stream": {"enum": ["All", "Stdout", "Stderr", ""], "description": "Which stream", "default": "All"},
        "streams": _flag("Frame each piece with its stream, see the description"),
        "insecureSkipTLSVerifyBackend": _words("Accepted from Kubernetes' clients, without effect"),
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
    "WatchEvent": {
        **_object(
            {
                "type": {"enum": ["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]},
                "object": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/Capsule"},
                        {"$ref": "#/components/schemas/Bookmark"},
                        {"$ref": "#/components/schemas/WatchError"},
                    ]
                },
            }
        ),
        "description": "One line of a watch",
    },
    "Bookmark": _object(
        {
            "apiVersion": {"const": "askos/v1"},
            "kind": {"const": "Capsule"},
            "metadata": _object({"resourceVersion": _STRING}),
        }
    ),
    "WatchError": _object(
        {
            "kind": {"const": "Status"},
            "status": {"const": "Failure"},
            "code": _INTEGER,
            "reason": {"enum": ["Expired", "InternalError"]},
            "message": _STRING,
        }
    ),
    "StreamStatus": {
        **_object(
            {
                "metadata": {"type": "object"},
                "status": {"enum": ["Success", "Failure"]},
                "reason": _STRING,
                "message": _STRING,
                "code": _INTEGER,
                "details": _object({"causes": _list(_object({"reason": _STRING, "message": _STRING}))}),
            },
            ["metadata", "status"],
        ),
        "description": "The last message on channel 3 of exec and attach",
    },
    "TerminalSize": {
        **_object({"Width": _INTEGER, "Height": _INTEGER}),
        "description": "A message on channel 4 of exec and attach",
    },
    "Stats": _object(
        {
            "items": _list(
                _object(
                    {
                        "id": {"type": "string", "format": "uuid"},
                        "name": _STRING,
                        "namespace": _STRING,
                        "containers": _list(
                            _object(
                                {
                                    "name": _STRING,
                                    "time": {**_TIME, "description": "When it was measured"},
                                    "cpuUsageNanoSeconds": _INTEGER,
                                    "cpuUsageNanoCores": {**_INTEGER, "description": "Not at the first look"},
                                    "memoryUsageBytes": _INTEGER,
                                    "memoryWorkingSetBytes": _INTEGER,
                                    "memoryRssBytes": _INTEGER,
                                    "rootfsUsedBytes": _INTEGER,
                                    "pids": _INTEGER,
                                    "startTime": _TIME,
                                },
                                ["name"],
                            )
                        ),
                    }
                )
            )
        }
    ),
    "Bytes": {"type": "string", "format": "binary"},
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
