"""Zun's /v1/images: what lies on which host, and what operators asked hosts to fetch.

An image's uuid is made of its host and its name, so that the same image is the same wherever it came from. What hosts
say is the truth; a record beside it tells who asked, and shows what is not there yet or could not be had.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from aiohttp import web

from askos.api import paging, policy, schemas
from askos.api.core import Request, json_response
from askos.api.errors import invalid_value
from askos.api.microversion import Version
from askos.model.errors import AskosError, ConflictError, NotFoundError, UnavailableError
from askos.model.hosts import Host, HostImage
from askos.model.identity import Caller
from askos.model.images import image_uuid_of, normalise
from askos.ports.admin_store import ServiceStore
from askos.ports.calls import HostCalls
from askos.ports.image_search import ImageSearch
from askos.ports.store import Store

_log = logging.getLogger(__name__)

_COLLECTION = paging.Collected("images", ("uuid", "image_id", "repo", "tag", "size", "project_id", "host"))
_TEXT: schemas.Schema = {"type": ["string", "null"], "maxLength": 255}
_BODY: schemas.Schema = {
    "type": "object",
    "properties": {
        "repo": {"type": "string", "minLength": 2, "maxLength": 255},
        "host": {"type": "string", "minLength": 1, "maxLength": 255},
        "image_id": _TEXT,
        "tag": _TEXT,
        "size": {"type": ["string", "integer", "null"]},
        "image_pull_policy": {
            "type": ["string", "null"],
            "enum": ["never", "always", "ifnotpresent", "Never", "Always", "IfNotPresent", None],
        },
    },
    "required": ["repo", "host"],
    "additionalProperties": False,
}
SEARCH_QUERY: schemas.Schema = {
    "type": "object",
    "properties": {"image_driver": {"type": "string", "enum": ["docker", "glance"]}, "exact_match": schemas.BOOLEAN},
    "additionalProperties": False,
}
_LIST_S = 30.0
_REMOVE_S = 60.0

GlanceSearch = Callable[[str, Caller, bool], Awaitable[Sequence[dict[str, Any]]]]
"""Records of images of the image service: by a part of the name, or (True) by exactly it."""


ImageNames = Callable[[Sequence[str], Caller], Awaitable[dict[str, tuple[str, str]]]]
"""Name and tag of images of the image service, by uuid; those that the caller may not see are left out."""


class _Listed(NamedTuple):
    record: HostImage
    shown: dict[str, Any]


class Images:
    """The handlers. `hub`: None: this cloud cannot search."""

    def __init__(
        self,
        store: Store,
        admin: ServiceStore,
        calls: HostCalls,
        hub: ImageSearch | None = None,
        *,
        glance: GlanceSearch | None = None,
        names: ImageNames | None = None,
    ) -> None:
        self._store = store
        self._admin = admin
        self._calls = calls
        self._hub = hub
        self._glance = glance
        self._names = names
        self._pulling: dict[str, asyncio.Task[None]] = {}

    def schema(self, _version: Version) -> schemas.Schema:
        """The schema of a pull's body."""
        return _BODY

    async def close(self) -> None:
        """Give up what is under way."""
        pulls = list(self._pulling.values())
        for pull in pulls:
            pull.cancel()
        await asyncio.gather(*pulls, return_exceptions=True)

    # -- reading -----------------------------------------------------------------------------------------------

    async def list(self, request: Request) -> web.Response:
        """GET a page. Hosts that do not answer now are left out, but for what they were asked for."""
        policy.enforce(request.caller, "image:get_all")
        found = await self._all(request)
        items = [paging.Item(image.record.uuid, order, image.shown) for order, image in enumerate(found)]
        return json_response(paging.page(request, _COLLECTION, items))

    async def show(self, request: Request) -> web.Response:
        """GET one, by uuid."""
        policy.enforce(request.caller, "image:get_one")
        return json_response((await self._find(request)).shown)

    async def search(self, request: Request) -> web.Response:
        """GET what other places offer: a bare list."""
        policy.enforce(request.caller, "image:search")
        name, query = request.arguments["name"], request.query
        exact = schemas.boolean(query.get("exact_match"), False)
        if query.get("image_driver") == "glance":
            return json_response([] if self._glance is None else await self._glance(name, request.caller, exact))
        if self._hub is None:
            raise UnavailableError("This cloud has no place to search for images.")
        return json_response(
            [
                {
                    "name": found.name,
                    "description": found.description,
                    "is_automated": found.is_automated,
                    "metadata": {"is_official": found.is_official, "star_count": found.star_count},
                }
                for found in await self._hub.search(name)
                if not exact or found.name == name
            ]
        )

    # -- pulling and removing ----------------------------------------------------------------------------------

    async def pull(self, request: Request) -> web.Response:
        """POST: the host begins to fetch; the record gets its image_id and size when it is there."""
        policy.enforce(request.caller, "image:pull")
        body = request.body
        host = await self._host(body["host"])
        repo, tag = body["repo"], body.get("tag")
        ref = normalise(f"{repo}:{tag}" if tag and normalise(repo) == normalise(f"{repo}:latest") else repo)
        if not host.connected:
            raise UnavailableError(f"Host {host.facts.hostname} is not connected now. Try again later.")
        image = HostImage(_uuid(host.facts.uuid, ref), host.facts.uuid, request.caller.project_id, ref)
        if image.uuid in self._pulling:
            raise ConflictError(f"Host {host.facts.hostname} is fetching {ref} already.", "image-already-exists")
        await self._admin.note_image(image)
        task = asyncio.create_task(self._pull(image))
        self._pulling[image.uuid] = task
        task.add_done_callback(lambda _task: self._pulling.pop(image.uuid, None))
        location = f"{request.host_url}/v1/images/{image.uuid}"
        return json_response(_shown(request, image, host, None), 202, {"Location": location})

    async def _pull(self, image: HostImage) -> None:
        try:
            stream = await self._calls.open(image.host_uuid, "image_pull", {"ref": image.ref})
            try:
                async for _frame in stream.frames():
                    pass
            finally:
                await stream.close()
        except AskosError as error:
            _log.warning("host %s could not fetch %s: %s", image.host_uuid, image.ref, error)

    async def delete(self, request: Request) -> web.Response:
        """DELETE the image from its host, or what is left of a pull that failed."""
        policy.enforce(request.caller, "image:delete")
        found = await self._find(request)
        record = found.record
        pull = self._pulling.get(record.uuid)
        if pull is not None:
            pull.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pull
        if found.shown["image_id"] is not None or pull is not None:
            with contextlib.suppress(NotFoundError):
                await self._calls.call(record.host_uuid, "image_remove", {"ref": record.ref}, _REMOVE_S)
        await self._admin.forget_image(record.uuid)
        return json_response(None)

    # -- what there is -----------------------------------------------------------------------------------------

    async def _host(self, ident: str) -> Host:
        for host in await self._store.hosts():
            if ident in (host.facts.uuid, host.facts.hostname):
                return host
        raise invalid_value(f"The host {ident} does not exist.")

    async def _find(self, request: Request) -> _Listed:
        ident = request.arguments["ident"]
        for image in await self._all(request):
            if image.record.uuid == ident:
                return image
        raise NotFoundError(f"Image {ident} could not be found.", "image-not-found")

    async def _all(self, request: Request) -> Sequence[_Listed]:
        """What was asked for in its order, then what else is on hosts, by name."""
        hosts = {host.facts.uuid: host for host in await self._store.hosts()}
        asked = await self._admin.host_images()
        there = await asyncio.gather(*(self._on(host) for host in hosts.values() if host.connected))
        present = {_uuid(host, ref): (host, ref, image) for found in there for host, ref, image in found}
        found: builtins.list[tuple[HostImage, dict[str, Any] | None]] = []
        for record in asked:
            _, _, image = present.pop(record.uuid, ("", "", None))
            found.append((record, image))
        for uid, (host, ref, image) in sorted(present.items(), key=lambda item: (item[1][1], item[1][0])):
            found.append((HostImage(uid, host, "", ref), image))
        stored = {stored_as for record, _ in found if (stored_as := image_uuid_of(record.ref))}
        names = {} if self._names is None else await self._names(sorted(stored), request.caller)
        listed = []
        for record, image in found:
            if record.host_uuid not in hosts:
                continue  # removed since
            shown = _shown(request, record, hosts[record.host_uuid], image)
            named = names.get(image_uuid_of(record.ref) or "")
            if named is not None:
                shown["repo"], shown["tag"] = named
            listed.append(_Listed(record, shown))
        return listed

    async def _on(self, host: Host) -> Sequence[tuple[str, str, dict[str, Any]]]:
        """Host, name and image for each name on a host."""
        try:
            found = await self._calls.call(host.facts.uuid, "images", {}, _LIST_S)
        except UnavailableError as error:
            _log.warning("host %s does not tell its images: %s", host.facts.hostname, error)
            return []
        return [(host.facts.uuid, ref, image) for image in found for ref in image["tags"]]


def _uuid(host_uuid: str, ref: str) -> str:
    return str(uuid.uuid5(uuid.UUID(host_uuid), ref))


def _shown(request: Request, record: HostImage, host: Host, image: dict[str, Any] | None) -> dict[str, Any]:
    name, at, digest = record.ref.partition("@")
    repo, tag = (name, digest) if at else _split(name)
    return {
        "uuid": record.uuid,
        "links": paging.links(request, "images", record.uuid),
        "image_id": None if image is None else image["id"],
        "repo": repo,
        "tag": tag,
        "size": None if image is None else str(image["size_bytes"]),
        "project_id": record.project_id or None,
        "host": host.facts.hostname,
    }


def _split(name: str) -> tuple[str, str]:
    """Repository and tag; a colon before the last slash belongs to the registry's port."""
    folder, slash, last = name.rpartition("/")
    base, _, tag = last.partition(":")
    return f"{folder}{slash}{base}", tag
