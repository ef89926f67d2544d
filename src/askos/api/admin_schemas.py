"""What the OpenAPI document says of the answers to operators, and when their routes refuse."""

from __future__ import annotations

from typing import Any

from askos.api.routedocs import Docs
from askos.api.schemas import Schema
from askos.model.quotas import RESOURCES

_STRING: Schema = {"type": "string"}
_OPTIONAL: Schema = {"type": ["string", "null"]}
_WHOLE: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_FLAG: Schema = {"type": "boolean"}
_UUID: Schema = {"type": "string", "format": "uuid"}
_LINKS: Schema = {"type": "array", "items": {"type": "object"}}


def _object(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> Schema:
    required = sorted(properties.keys() - set(optional))
    return {"type": "object", "properties": properties, "required": required}


def _page(name: str, item: str) -> Schema:
    reference = {"$ref": f"#/components/schemas/{item}"}
    return _object({name: {"type": "array", "items": reference}, "next": _OPTIONAL})


_LIMIT: Schema = {"type": "integer", "minimum": -1, "description": "-1: no limit"}
_REGISTRY = {
    "uuid": _UUID, "links": _LINKS, "name": _OPTIONAL, "domain": _STRING, "username": _OPTIONAL,
    "password": {"type": "string", "description": "Always three asterisks"}, "project_id": _STRING, "user_id": _STRING,
}  # fmt: skip
_HOST = {
    "uuid": _UUID, "links": _LINKS, "hostname": _STRING, "mem_total": _WHOLE, "mem_used": _WHOLE, "cpus": _WHOLE,
    "cpu_used": _NUMBER, "disk_total": _WHOLE, "disk_used": _WHOLE, "disk_quota_supported": _FLAG,
    "total_containers": _WHOLE, "architecture": _STRING, "os_type": _STRING, "os": _STRING, "kernel_version": _STRING,
    "labels": {"type": "object"}, "runtimes": {"type": "array", "items": _STRING}, "enable_cpu_pinning": _FLAG,
}  # fmt: skip
_SERVICE = {
    "id": _WHOLE, "host": _STRING, "binary": _STRING, "state": {"enum": ["up", "down"]}, "disabled": _FLAG,
    "disabled_reason": _OPTIONAL, "forced_down": _FLAG, "last_seen_up": _STRING, "report_count": _WHOLE,
    "availability_zone": _STRING, "created_at": _STRING, "updated_at": _STRING,
}  # fmt: skip
_SWITCHED = {"host": _STRING, "binary": _STRING, "disabled": _FLAG, "disabled_reason": _OPTIONAL}
_DOWN = {"host": _STRING, "binary": _STRING, "forced_down": _FLAG}
_IMAGE = {
    "uuid": _UUID, "links": _LINKS, "image_id": _OPTIONAL, "repo": _STRING, "tag": _STRING, "size": _OPTIONAL,
    "project_id": _OPTIONAL, "host": _STRING,
}  # fmt: skip
_NETWORK = dict.fromkeys(("uuid", "name", "project_id", "user_id", "network_id", "neutron_net_id"), _STRING)

COMPONENTS: dict[str, Schema] = {
    "QuotaLimits": _object(dict.fromkeys(RESOURCES, _LIMIT)),
    "Quotas": _object(
        {name: {"oneOf": [_LIMIT, _object({"limit": _LIMIT, "in_use": {"type": "number"}})]} for name in RESOURCES}
    ),
    "RegistryRecord": _object(_REGISTRY, ("links",)),
    "Registry": _object({"registry": {"$ref": "#/components/schemas/RegistryRecord"}}),
    "Registries": _page("registries", "RegistryRecord"),
    "Host": _object(_HOST),
    "Hosts": _page("hosts", "Host"),
    "AvailabilityZone": _object({"availability_zone": _STRING}),
    "AvailabilityZones": _page("availability_zones", "AvailabilityZone"),
    "Services": _object({"services": {"type": "array", "items": _object(_SERVICE)}}),
    "ServiceSwitched": _object({"service": _object(_SWITCHED)}),
    "ServiceForcedDown": _object({"service": _object(_DOWN)}),
    "EngineNetwork": _object(_NETWORK),
    "HostImage": _object(_IMAGE),
    "HostImages": _page("images", "HostImage"),
    "FoundImages": {"type": "array", "items": {"type": "object"}},
}
"""Schemas by name."""

_NO_REGISTRY = "There is no such registry in what the caller may see"
_NO_SERVICE = "There is no such service"
_PAGE: dict[str, Schema] = {
    "limit": {"type": "string", "pattern": "^[0-9]+$", "description": "At most so many items, up to 1000"},
    "marker": {"type": "string", "description": "The last uuid of the page before"},
    "sort_key": {"type": "string", "description": "What to order by"},
    "sort_dir": {"enum": ["asc", "desc"], "description": "In which direction", "default": "asc"},
}
_EVERYWHERE: Schema = {"type": "string", "description": "Those of all projects; needs the right to see them"}

DOCS: dict[tuple[str, str], Docs] = {
    ("GET", "/v1/quotas/{project}"): Docs(
        "The limits that count for a project. With the parameter `usages` each is an object with `limit` and `in_use`.",
        query={"usages": {"type": "string", "description": "Whatever it says: also what is in use"}},
    ),
    ("PUT", "/v1/quotas/{project}"): Docs("Any of the limits; the others stay."),
    ("GET", "/v1/registries"): Docs(
        "A page of the project's registries.",
        {404: "The marker is not known"},
        query={
            **_PAGE,
            "all_projects": _EVERYWHERE,
            **dict.fromkeys(("name", "domain", "username", "project_id", "user_id"), _STRING),
        },
    ),
    ("POST", "/v1/registries"): Docs(
        "Where images come from whose names have no domain, and with which log-in. The password is encrypted in the "
        "database and never shown.",
        {415: "Not JSON"},
    ),
    ("GET", "/v1/registries/{ident}"): Docs(
        "By uuid or name.", {404: _NO_REGISTRY, 409: "Several registries have this name"}
    ),
    ("PATCH", "/v1/registries/{ident}"): Docs(
        "Any of the values. Containers learn of it with their next pull.",
        {404: _NO_REGISTRY, 409: "Several registries have this name", 415: "Not JSON"},
    ),
    ("DELETE", "/v1/registries/{ident}"): Docs(
        "", {404: _NO_REGISTRY, 409: "A container uses it, or several registries have this name"}
    ),
    ("GET", "/v1/hosts"): Docs(
        "A page of hosts, by name.", {404: "The marker is not known", 406: "Below 1.4"}, query=_PAGE
    ),
    ("GET", "/v1/hosts/{ident}"): Docs("By uuid or name.", {404: "There is no such host", 406: "Below 1.4"}),
    ("GET", "/v1/availability_zones"): Docs("", {404: "The marker is not known"}, query=_PAGE),
    ("DELETE", "/v1/services"): Docs(
        "Removes a host that is gone. Of one that is connected everything is forgotten that was said of it.",
        {404: _NO_SERVICE, 409: "The host is gone, and there are containers or capsules of it"},
    ),
    ("PUT", "/v1/services/enable"): Docs("", {404: _NO_SERVICE}),
    ("PUT", "/v1/services/disable"): Docs("Nothing more is placed there; what is there stays.", {404: _NO_SERVICE}),
    ("PUT", "/v1/services/force_down"): Docs("As if it had stopped to report.", {404: _NO_SERVICE}),
    ("POST", "/v1/networks"): Docs("", {404: "There is no such network", 409: "It is known already", 415: "Not JSON"}),
    ("DELETE", "/v1/networks/{ident}"): Docs(
        "By the network service's uuid.", {404: "It is not known", 406: "Below 1.27"}
    ),
    ("GET", "/v1/images"): Docs("Of all hosts that answer.", {404: "The marker is not known"}, query=_PAGE),
    ("POST", "/v1/images"): Docs(
        "The answer has no image_id; it is there when the host has the image.",
        {409: "The host is fetching it already", 415: "Not JSON", 503: "The host is not connected"},
    ),
    ("GET", "/v1/images/{ident}"): Docs("By uuid.", {404: "There is no such image"}),
    ("DELETE", "/v1/images/{ident}"): Docs("", {404: "There is no such image", 503: "The host is not connected"}),
    ("GET", "/v1/images/{name}/search"): Docs(
        "With the driver docker what a registry offers by this name, with glance what the image service has.",
        {503: "The place to search does not answer"},
    ),
}
