"""All routes of the block storage service, for the main application to add."""

from __future__ import annotations

from aiohttp import web

from askos.api.cinder.context import BASE, MIN_VERSION, VERSION, Ask, Context, Handler
from askos.api.cinder.volumes import Volumes
from askos.api.service import Json, reply
from askos.model.errors import NotFoundError
from askos.ports.identity import Identity
from askos.ports.volume_store import VolumeStore

TYPE_ID = "5f0c7d1e-2f4b-5f43-9a0e-2d7c3d0c4b11"
TYPE = {
    "id": TYPE_ID,
    "name": "local",
    "description": "A file of a fixed size on the host of the first capsule that uses it.",
    "is_public": True,
    "os-volume-type-access:is_public": True,
    "extra_specs": {},
    "qos_specs_id": None,
}


def routes(store: VolumeStore, identity: Identity, public_url: str | None = None) -> list[web.RouteDef]:
    """Everything under /volume. `public_url` is where clients reach the cloud (without path); None takes the scheme and
    Host of each request."""
    context = Context(store, identity, public_url)
    found = _versions(context)
    volumes = Volumes(context)
    for method, path, handler in (
        ("GET", "/volumes", volumes.short),
        ("GET", "/volumes/detail", volumes.detail),
        ("GET", "/volumes/summary", volumes.summary),
        ("POST", "/volumes", volumes.create),
        ("GET", "/volumes/{ident}", volumes.show),
        ("PUT", "/volumes/{ident}", volumes.update),
        ("DELETE", "/volumes/{ident}", volumes.delete),
        ("POST", "/volumes/{ident}/action", volumes.act),
        ("GET", "/volumes/{ident}/metadata", volumes.metadata),
        ("GET", "/types", _types),
        ("GET", "/types/default", _type),
        ("GET", "/types/{type_id}", _type),
        ("GET", "/limits", volumes.limits),
        ("GET", "/extensions", _extensions),
        ("GET", "/os-availability-zone", _zones),
        ("GET", "/snapshots", _none("snapshots")),
        ("GET", "/snapshots/detail", _none("snapshots")),
        ("GET", "/backups", _none("backups")),
        ("GET", "/backups/detail", _none("backups")),
        ("GET", "/attachments", _none("attachments")),
        ("GET", "/messages", _none("messages")),
    ):
        found += context.both(method, path, handler)

    found.append(context.missing())
    return found


def _versions(context: Context) -> list[web.RouteDef]:
    """What clients read first, without a token."""

    def v3(request: web.Request) -> Json:
        return {
            "id": "v3.0",
            "status": "CURRENT",
            "version": VERSION,
            "min_version": MIN_VERSION,
            "updated": "2019-05-08T00:00:00Z",
            "links": [{"rel": "self", "href": f"{context.url(request)}{BASE}/"}],
            "media-types": [
                {"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"},
            ],
        }

    async def every(request: web.Request) -> web.Response:
        return reply({"versions": [v3(request)]}, 300)

    async def one(request: web.Request) -> web.Response:
        return reply({"versions": [v3(request)]})

    return [
        *(web.get(path, every) for path in ("/volume", "/volume/")),
        *(web.get(path, one) for path in (BASE, f"{BASE}/")),
    ]


async def _types(_ask: Ask) -> web.Response:
    return reply({"volume_types": [TYPE]})


async def _type(ask: Ask) -> web.Response:
    wanted = ask.raw.match_info.get("type_id", TYPE_ID)
    if wanted not in (TYPE_ID, TYPE["name"]):
        raise NotFoundError(f"Volume type {wanted} could not be found.")
    return reply({"volume_type": TYPE})


async def _extensions(_ask: Ask) -> web.Response:
    return reply({"extensions": []})


async def _zones(_ask: Ask) -> web.Response:
    return reply({"availabilityZoneInfo": [{"zoneName": "nova", "zoneState": {"available": True}}]})


def _none(what: str) -> Handler:
    async def nothing(_ask: Ask) -> web.Response:
        return reply({what: []})

    return nothing
