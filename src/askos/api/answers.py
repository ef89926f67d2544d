"""Schemas of what is answered, by the names that routes give them."""

from __future__ import annotations

from typing import Any

_NULLABLE_STRING = {"type": ["string", "null"]}

_CONTAINER_PROPERTIES: dict[str, Any] = {
    "uuid": {"type": "string", "format": "uuid"},
    "name": {"type": "string"},
    "project_id": {"type": "string"},
    "user_id": {"type": "string"},
    "image": {"type": "string"},
    "command": {"type": ["array", "null"], "items": {"type": "string"}},
    "entrypoint": {"type": ["array", "null"], "items": {"type": "string"}},
    "cpu": {"type": "number", "description": "CPU shares; 1.0 is 1024"},
    "cpu_policy": {"type": "string"},
    "memory": {"type": "string", "description": "MiB"},
    "disk": {"type": "integer", "description": "GiB"},
    "status": {
        "type": "string",
        "enum": [
            "Creating",
            "Created",
            "Running",
            "Stopped",
            "Paused",
            "Restarting",
            "Rebuilding",
            "Error",
            "Unknown",
            "Deleting",
        ],
    },
    "status_reason": _NULLABLE_STRING,
    "status_detail": _NULLABLE_STRING,
    "task_state": _NULLABLE_STRING,
    "environment": {"type": "object", "additionalProperties": {"type": "string"}},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "workdir": _NULLABLE_STRING,
    "hostname": _NULLABLE_STRING,
    "ports": {"type": "array", "items": {"type": "integer"}},
    "addresses": {"type": "object"},
    "restart_policy": {"type": "object"},
    "interactive": {"type": "boolean"},
    "tty": {"type": "boolean"},
    "auto_remove": {"type": "boolean"},
    "auto_heal": {"type": "boolean"},
    "image_driver": {"type": "string"},
    "security_groups": {"type": "array", "items": {"type": "string"}},
    "healthcheck": {"type": "object"},
    "registry_id": _NULLABLE_STRING,
    "created_at": _NULLABLE_STRING,
    "updated_at": _NULLABLE_STRING,
}
_ADMIN_PROPERTIES: dict[str, Any] = {
    "links": {"type": "array", "items": {"type": "object"}},
    "host": _NULLABLE_STRING,
    "image_pull_policy": _NULLABLE_STRING,
    "privileged": {"type": "boolean"},
    "runtime": _NULLABLE_STRING,
}

_CAPSULE_PROPERTIES: dict[str, Any] = {
    "uuid": {"type": "string", "format": "uuid"},
    "links": {"type": "array", "items": {"type": "object"}},
    "project_id": {"type": "string"},
    "user_id": {"type": "string"},
    "status": {"type": "string", "enum": ["Creating", "Running", "Stopped", "Restarting", "Error", "Deleting"]},
    "status_reason": _NULLABLE_STRING,
    "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    "cpu": {"type": "number", "description": "CPUs that the containers ask for"},
    "memory": {"type": "string", "description": "MiB that the containers ask for"},
    "addresses": {"type": "object"},
    "restart_policy": {
        "type": ["object", "string"],
        "description": "From 1.32 on an object with Name and MaximumRetryCount, before that the name alone",
    },
    "created_at": _NULLABLE_STRING,
    "updated_at": _NULLABLE_STRING,
    "containers": {"type": "array", "items": {"type": "object"}},
    "init_containers": {"type": "array", "items": {"type": "object"}},
}
_CAPSULE_BY_VERSION: dict[str, Any] = {
    "name": {"type": "string", "description": "From 1.32 on"},
    "labels": {"type": "object", "description": "From 1.32 on"},
    "meta_name": {"type": "string", "description": "Up to 1.31"},
    "meta_labels": {"type": "object", "description": "Up to 1.31"},
    "volumes_info": {"type": "object", "description": "Up to 1.31"},
    "containers_uuids": {"type": "array", "description": "Up to 1.31"},
    "init_containers_uuids": {"type": "array", "description": "Up to 1.31"},
    "capsule_version": {"type": "string", "description": "Up to 1.31"},
    "host": {"type": ["string", "null"], "description": "For administrators"},
}

_ACTION: dict[str, Any] = {
    "type": "object",
    "properties": {
        "action": {"type": "string"},
        "container_uuid": {"type": "string"},
        "request_id": {"type": "string"},
        "user_id": {"type": "string"},
        "project_id": {"type": "string"},
        "start_time": {"type": "string"},
        "finish_time": _NULLABLE_STRING,
        "message": {"enum": [None, "Error"]},
    },
    "required": ["action", "container_uuid", "request_id", "start_time", "finish_time", "message"],
}
_ACTION_EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "event": {"type": "string"},
        "start_time": {"type": "string"},
        "finish_time": _NULLABLE_STRING,
        "result": {"enum": ["Success", "Error", None]},
        "traceback": {**_NULLABLE_STRING, "description": "Why it failed, for administrators"},
    },
    "required": ["event", "start_time", "finish_time", "result", "traceback"],
}

SCHEMAS: dict[str, Any] = {
    "ZunCapsule": {
        "type": "object",
        "properties": {**_CAPSULE_PROPERTIES, **_CAPSULE_BY_VERSION},
        "required": sorted(_CAPSULE_PROPERTIES),
    },
    "ZunCapsules": {
        "type": "object",
        "properties": {
            "capsules": {"type": "array", "items": {"$ref": "#/components/schemas/ZunCapsule"}},
            "next": _NULLABLE_STRING,
        },
        "required": ["capsules", "next"],
    },
    "Container": {
        "type": "object",
        "properties": {**_CONTAINER_PROPERTIES, **_ADMIN_PROPERTIES},
        "required": sorted(_CONTAINER_PROPERTIES),
    },
    "Containers": {
        "type": "object",
        "properties": {
            "containers": {"type": "array", "items": {"$ref": "#/components/schemas/Container"}},
            "next": _NULLABLE_STRING,
        },
        "required": ["containers", "next"],
    },
    "Executed": {
        "type": "object",
        "properties": {
            "output": _NULLABLE_STRING,
            "exit_code": {"type": ["integer", "null"]},
            "exec_id": _NULLABLE_STRING,
            "proxy_url": _NULLABLE_STRING,
        },
        "required": ["output", "exit_code", "exec_id", "proxy_url"],
    },
    "ContainerNetworks": {
        "type": "object",
        "properties": {
            "networks": {
                "type": "array",
                "items": {
                    "type": "object",
                    "description": "From 1.18 on one entry per port with fixed_ips, before that one per address",
                    "required": ["net_id", "port_id"],
                },
            },
        },
        "required": ["networks"],
    },
    "Processes": {
        "type": "object",
        "properties": {
            "Titles": {"type": "array", "items": {"type": "string"}},
            "Processes": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
        },
        "required": ["Titles", "Processes"],
    },
    "ContainerStats": {
        "type": "object",
        "properties": {
            "CONTAINER": {"type": "string"},
            "CPU %": {"type": "number"},
            "MEM USAGE(MiB)": {"type": "number"},
            "MEM LIMIT(MiB)": {"type": "number"},
            "MEM %": {"type": "number"},
            "BLOCK I/O(B)": {"type": "string", "description": "Read and written, such as 4096/0"},
            "NET I/O(B)": {"type": "string", "description": "Received and sent"},
        },
        "required": [
            "CONTAINER",
            "CPU %",
            "MEM USAGE(MiB)",
            "MEM LIMIT(MiB)",
            "MEM %",
            "BLOCK I/O(B)",
            "NET I/O(B)",
        ],
    },
    "Archive": {
        "type": "object",
        "properties": {
            "data": {"type": "string", "description": "A tar archive, from 1.25 on in base64"},
            "stat": {"type": "object", "required": ["name", "size", "mode", "mtime", "linkTarget"]},
        },
        "required": ["data", "stat"],
    },
    "Committed": {
        "type": "object",
        "properties": {"uuid": {"type": "string", "format": "uuid", "description": "Of the image"}},
        "required": ["uuid"],
    },
    "ContainerActions": {
        "type": "object",
        "properties": {"containerActions": {"type": "array", "items": _ACTION}},
        "required": ["containerActions"],
    },
    "ContainerAction": {
        **_ACTION,
        "properties": {**_ACTION["properties"], "events": {"type": "array", "items": _ACTION_EVENT}},
    },
    "Waited": {
        "type": "object",
        "properties": {
            "status": {"type": "string"},
            "status_reason": _NULLABLE_STRING,
            "exit_code": {"type": ["integer", "null"]},
        },
        "required": ["status", "status_reason", "exit_code"],
    },
    "Images": {"type": "object", "properties": {"images": {"type": "array", "items": {"type": "object"}}}},
    "Volume": {
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "name": {"type": "string"},
            "size_gib": {"type": "integer"},
            "status": {"type": "string", "enum": ["available", "in-use", "deleting", "error"]},
            "status_reason": _NULLABLE_STRING,
            "multiattach": {"type": "boolean"},
            "host": _NULLABLE_STRING,
            "attachments": {"type": "array", "items": {"type": "string"}, "description": "Ids of capsules"},
            "project_id": {"type": "string"},
            "created_at": {"type": "string", "format": "date-time"},
        },
        "required": [
            "id",
            "name",
            "size_gib",
            "status",
            "status_reason",
            "multiattach",
            "host",
            "attachments",
            "project_id",
            "created_at",
        ],
    },
    "Volumes": {
        "type": "object",
        "properties": {"volumes": {"type": "array", "items": {"$ref": "#/components/schemas/Volume"}}},
        "required": ["volumes"],
    },
    "References": {"type": "object", "properties": {"refs": {"type": "array", "items": {"type": "string"}}}},
    "Versions": {"type": "object", "required": ["versions"]},
    "Version": {"type": "object", "required": ["id", "links"]},
    "Health": {"type": "object", "required": ["reasons"]},
    "Text": {"type": "string"},
    "Null": {"type": "null"},
    "Errors": {
        "type": "object",
        "properties": {
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "request_id": {"type": "string"},
                        "code": {"type": "string"},
                        "status": {"type": "integer"},
                        "title": {"type": "string"},
                        "detail": {"type": "string"},
                        "links": {"type": "array"},
                    },
                    "required": ["code", "status", "title", "detail"],
                },
            },
            "error": {"type": "object", "description": "Keystone's form, of a 401"},
        },
    },
}
