"""Every route of the Zun and native APIs: path, verb, handler and limits on adjacent lines. Those of Zun's containers
are in `container_table`.

To add an endpoint: a handler in its noun's module, a line here, a rule in `policy.py`, schemas in `schemas.py` and
`openapi.py`, and a test.
"""

from __future__ import annotations

from askos.api import capsules, podschemas, schemas
from askos.api.core import Route
from askos.api.discovery import Discovery
from askos.api.native import Native
from askos.api.pods import PATH as CAPSULES
from askos.api.pods import Pods
from askos.api.podstats import Stats
from askos.api.streams import Streams
from askos.api.volumes import Volumes


def routes(discovery: Discovery, native: Native) -> list[Route]:
    """The table."""
    n = "/askos/v1"
    return [
        Route("GET", "/", discovery.root, "Versions of the API", answer="Versions", public=True),
        Route("GET", "/v1", discovery.v1, "What v1 offers", answer="Version", public=True),
        Route("GET", "/healthcheck", discovery.health, "Whether the service works", answer="Health", public=True),
        # -- native
        Route("GET", f"{n}/containers/{{ident}}/exec", native.exec, "Run a command over a WebSocket", 101,
              native=True),
        Route("GET", f"{n}/containers/{{ident}}/attach", native.attach, "Attach to a container over a WebSocket", 101,
              native=True),
        Route("GET", f"{n}/containers/{{ident}}/logs", native.logs, "Stream the log", native=True),
        Route("GET", f"{n}/containers/{{ident}}/wait", native.wait, "Wait until it has ended", answer="Waited",
              native=True),
        Route("GET", f"{n}/images", native.images, "Images on the host", answer="Images", native=True),
        Route("POST", f"{n}/images/pull", native.image_pull, "Pull an image", native=True),
        Route("POST", f"{n}/images/import", native.image_import, "Import an archive", answer="References",
              native=True),
        Route("DELETE", f"{n}/images", native.image_remove, "Remove an image", 204, native=True),
    ]  # fmt: skip


def zun_capsule_routes(zun: capsules.Capsules) -> list[Route]:
    """Zun's part of the table for capsules."""
    path = capsules.PATH
    one = f"{path}/{{ident}}"
    return [
        Route("GET", path, zun.list, "List capsules", answer="ZunCapsules"),
        Route("POST", path, zun.create, "Create a capsule from a template", 202, "ZunCapsule",
              body=capsules.create_schema),
        Route("GET", one, zun.show, "Show a capsule", answer="ZunCapsule"),
        Route("DELETE", one, zun.delete, "Delete a capsule", 204),
    ]  # fmt: skip


def capsule_routes(pods: Pods) -> list[Route]:
    """The native API's part of the table for capsules."""
    one = f"{CAPSULES}/{{ident}}"
    return [
        Route("GET", CAPSULES, pods.list_or_watch, "List capsules, or watch them", answer="CapsuleList", native=True,
              query=podschemas.LIST_QUERY),
        Route("POST", CAPSULES, pods.create, "Create a capsule", 201, "Capsule", native=True,
              query=podschemas.NO_QUERY, body=podschemas.pod_body),
        Route("GET", one, pods.show, "Show a capsule", answer="Capsule", native=True, query=podschemas.ONE_QUERY),
        Route("PUT", one, pods.replace, "Replace what can be changed of a capsule", answer="Capsule", native=True,
              query=podschemas.ONE_QUERY, body=podschemas.pod_body),
        Route("PATCH", one, pods.patch, "Change a capsule by a strategic merge patch", answer="Capsule", native=True,
              query=podschemas.ONE_QUERY, body=podschemas.patch_body),
        Route("DELETE", one, pods.delete, "Delete a capsule", 202, "Capsule", native=True,
              query=podschemas.DELETE_QUERY),
        Route("PUT", f"{one}/content", pods.replace_content, "Replace config maps and secrets", answer="Capsule",
              native=True, query=podschemas.ONE_QUERY, body=podschemas.content_body),
        Route("GET", f"{one}/events", pods.events, "What was told about a capsule", answer="Events", native=True,
              query=podschemas.ONE_QUERY),
    ]  # fmt: skip


def volume_routes(volumes: Volumes) -> list[Route]:
    """The volume service's part of the table."""
    path = "/askos/v1/volumes"
    one = f"{path}/{{ident}}"
    return [
        Route("GET", path, volumes.list, "List volumes", answer="Volumes", native=True,
              query=schemas.ALL_PROJECTS_QUERY),
        Route("POST", path, volumes.create, "Create a volume", 201, "Volume", native=True,
              body=volumes.create_schema),
        Route("GET", one, volumes.show, "Show a volume", answer="Volume", native=True, query=podschemas.NO_QUERY),
        Route("DELETE", one, volumes.delete, "Delete a volume", 202, "Volume", native=True,
              query=podschemas.NO_QUERY),
    ]  # fmt: skip


def stream_routes(streams: Streams, stats: Stats) -> list[Route]:
    """Streams and usage of capsules. Before the routes of the noun: "stats" is no capsule's name."""
    path = "/askos/v1/capsules"
    one = f"{path}/{{ident}}"
    return [
        Route("GET", f"{path}/stats", stats.all, "What capsules use now", answer="Stats", native=True,
              query=podschemas.ONE_QUERY),
        Route("GET", f"{one}/stats", stats.show, "What a capsule uses now", answer="Stats", native=True,
              query=podschemas.ONE_QUERY),
        Route("GET", f"{one}/exec", streams.exec, "Run a command over a WebSocket", 101, native=True,
              query=podschemas.EXEC_QUERY),
        Route("GET", f"{one}/attach", streams.attach, "Attach to a container over a WebSocket", 101, native=True,
              query=podschemas.ATTACH_QUERY),
        Route("GET", f"{one}/portforward", streams.portforward, "Forward ports over a WebSocket", 101, native=True,
              query=podschemas.PORTFORWARD_QUERY),
        Route("GET", f"{one}/logs", streams.logs, "Stream a container's log", native=True,
              query=podschemas.LOGS_QUERY),
    ]  # fmt: skip
