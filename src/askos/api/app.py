"""The HTTP application: Zun's and the native API through one dispatcher, and whatever else is mounted beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec
from aiohttp import web

from askos import __version__
from askos.api import admin_table, container_table, openapi, schemas, table, volume_grants
from askos.api.action_log import ActionLog
from askos.api.archives import Archives
from askos.api.attachments import Attachments
from askos.api.capsules import Capsules
from askos.api.commits import Commits, Committer
from askos.api.containers import Containers
from askos.api.core import Dispatcher, Request, Route, raw_json
from askos.api.discovery import Discovery
from askos.api.engine_networks import EngineNetworks
from askos.api.hosts import Hosts
from askos.api.images import GlanceSearch, ImageNames, Images
from askos.api.inside import Inside
from askos.api.lifecycle import Lifecycle
from askos.api.lookups import FindImage, Lookups
from askos.api.native import Native
from askos.api.notices import Watch
from askos.api.pods import Pods
from askos.api.podstats import Stats
from askos.api.quotas import Quotas
from askos.api.registries import Registries
from askos.api.rights import EVERY_S, Rights
from askos.api.sessions import Sessions
from askos.api.streams import Streams
from askos.api.updates import Updates
from askos.api.volumes import Volumes
from askos.model.capsules import VolumeGrant
from askos.model.pods import Pod
from askos.plan.placement import DEFAULT_RATIOS, Ratios
from askos.ports.admin_store import AdminStore
from askos.ports.calls import HostCalls
from askos.ports.identity import Identity
from askos.ports.image_search import ImageSearch
from askos.ports.network_store import NetworkStore
from askos.ports.store import Store
from askos.ports.tickets import TicketStore
from askos.ports.volume_store import VolumeStore

__all__ = ["ROUTES", "Watch", "application"]

ROUTES: web.AppKey[list[Route]] = web.AppKey("routes", list)
"""The application's whole route table."""


def application(
    *,
    store: Store,
    admin: AdminStore,
    tickets: TicketStore,
    volumes: VolumeStore,
    networking: NetworkStore,
    calls: HostCalls,
    identity: Identity,
    clock: Callable[[], int],
    healthy: Callable[[], Awaitable[None]],
    watch: Watch,
    zones: set[str],
    limits: schemas.Limits = schemas.DEFAULT_LIMITS,
    ratios: Ratios = DEFAULT_RATIOS,
    mounted: Iterable[web.AbstractRouteDef] = (),
    public_url: str | None = None,
    find_image: FindImage | None = None,
    committer: Committer | None = None,
    image_search: ImageSearch | None = None,
    find_images: GlanceSearch | None = None,
    image_names: ImageNames | None = None,
    rights_every_s: float = EVERY_S,
) -> web.Application:
    """The whole application. `ratios`: those that placement goes by. `mounted`: routes of other services (Keystone's)
    on the same port. `public_url`: how clients reach it, None: as each request did. Without
    `find_image`, `find_images` and `committer` there is no image service, without `image_search` no other place to
    search for images; `image_names` shows what hosts have of the image service by its names. `rights_every_s`: how
    often open streams' rights are looked at again."""
    registries, images = (
        Registries(admin),
        Images(store, admin, calls, image_search, glance=find_images, names=image_names),
    )
    lookups = Lookups(store, volumes, networking, registries.find, find_image)
    containers = Containers(store, calls, clock, zones, limits, lookups=lookups)
    rights = Rights(identity, rights_every_s)
    sessions = Sessions(store, calls, clock, rights, tickets, public_url=public_url)
    native = Native(store, calls, containers, watch.wait)
    routes = table.routes(Discovery(healthy), native)
    routes += container_table.routes(
        container_table.Handlers(
            containers,
            Lifecycle(containers),
            Updates(containers, ratios),
            Inside(containers, sessions),
            Archives(containers),
            Attachments(containers),
            Commits(containers, committer),
            ActionLog(containers),
            sessions,
        )
    )
    routes += admin_table.routes(
        admin_table.Handlers(
            Quotas(admin), registries, Hosts(admin, clock, zones), EngineNetworks(admin, networking), images
        )
    )
    routes += table.volume_routes(Volumes(volumes, store))

    async def grants(pod: Pod, project_id: str) -> list[VolumeGrant]:
        return await volume_grants.grants(pod, project_id, volumes)

    pods = Pods(store, identity, clock, watch, grants=grants, ratios=ratios)
    routes += table.stream_routes(Streams(pods.find, calls, clock), Stats(pods.find, store, calls))
    routes += table.capsule_routes(pods)
    routes += table.zun_capsule_routes(Capsules(store, clock, zones, grants, limits))
    described = msgspec.json.encode(openapi.document(routes, __version__))

    async def show_document(_request: Request) -> web.Response:
        return raw_json(described)

    routes.append(Route("GET", "/openapi.json", show_document, "This document", public=True))
    dispatcher = Dispatcher(routes, identity, "/identity/v3", rights)
    app = web.Application(client_max_size=1 << 20)
    app[ROUTES] = routes

    async def give_up(_app: web.Application) -> None:
        await images.close()

    app.on_shutdown.append(give_up)
    app.add_routes(mounted)
    app.router.add_route("*", r"/{path:[\s\S]*}", dispatcher.__call__)  # a plain dot takes no newline
    return app
