"""The native API's capsules: /askos/v1/capsules."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from askos.api import (
    manifests,
    podbodies,
    podchanges,
    podpaging,
    podpatch,
    podview,
    podwatch,
    policy,
    runtimes,
    schemas,
    selectors,
)
from askos.api.core import Request, json_response, raw_json
from askos.api.errors import ApiError
from askos.api.hostnames import HostNames
from askos.api.notices import Watch
from askos.api.podfeed import Feed
from askos.api.podmoves import Moves
from askos.api.podwatch import Scope, Stream
from askos.api.rendered import Piece, Rendered
from askos.model.capsules import Capsule, CapsuleSpec, VolumeGrant, Wish
from askos.model.errors import ConflictError
from askos.model.identity import Caller
from askos.model.pods import Content, Pod
from askos.plan.placement import Load, Ratios, room
from askos.ports.identity import Identity
from askos.ports.store import NewCapsule, Query, Store

PATH = "/askos/v1/capsules"
MAX_LIMIT = 1000

Grants = Callable[[Pod, str], Awaitable[list[VolumeGrant]]]
"""The volumes that a pod of a project names. Raises an ApiError for those that are not there."""


class Pods:
    """The handlers."""

    def __init__(
        self,
        store: Store,
        identity: Identity,
        clock: Callable[[], int],
        notices: Watch,
        *,
        grants: Grants,
        ratios: Ratios,
    ) -> None:
        self._store = store
        self._identity = identity
        self._clock = clock
        self._notices = notices
        self._moves = Moves(store, notices, podwatch.POLL_S)
        self._feed = Feed(store, notices, lambda: podwatch.POLL_S)
        self._grants = grants
        self._ratios = ratios
        self._rendered = Rendered()
        self._host_names = HostNames(store)

    # -- finding and showing -----------------------------------------------------------------------------------

    async def find(self, request: Request, action: str = "get_one") -> Capsule:
        """The capsule of the path, by id or name (with ?namespace=), within what the caller may see.

        Administrators find others' capsules by id, and with ?all_projects=true by name.
        """
        caller, ident = request.caller, request.arguments["ident"]
        policy.enforce(caller, "capsule:get" if action == "get_one" else f"capsule:{action}")
        everywhere = schemas.boolean(request.query.get("all_projects"), False)
        if everywhere:
            for rule in ("get_one", action):
                policy.enforce(caller, f"capsule:{rule}_all_projects")
        scope = None if caller.is_admin and (everywhere or _is_uuid(ident)) else caller.project_id
        return await self._store.capsule(ident, scope, "capsule", request.query.get("namespace"))

    def _piece(self, capsule: Capsule, *, admin: bool) -> Piece:
        """One capsule rendered, from what is known or anew."""
        known = self._rendered.get(capsule.uuid, capsule.revision, admin)
        if known is None:
            known = podview.capsule_piece(capsule, admin=admin)
            self._rendered.put(capsule, known, admin)
        return known

    async def _json(self, caller: Caller, capsule: Capsule, revision: int = 0) -> bytes:
        """One capsule as the caller may see it, with another resourceVersion if one is given."""
        admin = policy.allows(caller, "capsule:get:host")
        host_name = await self._host_names.one(capsule.placement.host_uuid) if admin else None
        return self._piece(capsule, admin=admin).filled(host_name=host_name, revision=revision)

    async def _answer(
        self, request: Request, capsule: Capsule, status: int = 200, warnings: list[str] | None = None
    ) -> web.Response:
        response = raw_json(await self._json(request.caller, capsule), status)
        for warning in warnings or []:
            text = warning.replace("\\", "\\\\").replace('"', '\\"')
            response.headers.add("Warning", f'299 - "{text}"')
        return response

    async def show(self, request: Request) -> web.Response:
        """GET one."""
        return await self._answer(request, await self.find(request))

    async def events(self, request: Request) -> web.Response:
        """GET what was told about it, oldest first."""
        capsule = await self.find(request)
        found = await self._store.events(capsule.uuid)
        return json_response({"items": [podview.event_json(event) for event in found]})

    # -- lists and watches -------------------------------------------------------------------------------------

    def _scope(self, request: Request) -> Scope:
        query, caller = request.query, request.caller
        policy.enforce(caller, "capsule:get_all")
        everywhere = schemas.boolean(query.get("all_projects"), False)
        if everywhere:
            policy.enforce(caller, "capsule:get_all_all_projects")
        return Scope(
            None if everywhere else caller.project_id,
            query.get("namespace") or None,
            selectors.parse(query.get(selectors.PARAMETER, "")),
        )

    async def list_or_watch(self, request: Request) -> web.StreamResponse:
        """GET a page; with watch=true what changes, as NDJSON lines."""
        if schemas.boolean(request.query.get("watch"), False):
            return await self._watch(request)
        scope = self._scope(request)
        limit = min(int(request.query.get("limit") or 0) or MAX_LIMIT, MAX_LIMIT)
        revision, after = podpaging.read(request.query.get("continue", ""))
        wanted = Query(
            kind="capsule",
            project_id=scope.project_id,
            namespace=scope.namespace,
            selector=scope.selector,
            limit=limit + 1,
            after=after,
        )
        if revision:
            page = await self._store.page(wanted)
        else:
            revision, page = await self._store.page_now(wanted)
        items, last = await self._items(request.caller, page[:limit])
        metadata: dict[str, Any] = {"resourceVersion": str(revision)}
        if len(page) > limit:
            metadata["continue"] = podpaging.token_of(revision, last or after)
        head = {"apiVersion": "askos/v1", "kind": "CapsuleList", "metadata": metadata}
        return raw_json(b"".join((msgspec.json.encode(head)[:-1], b',"items":[', b",".join(items), b"]}")))

    async def _items(self, caller: Caller, page: list[tuple[str, int]]) -> tuple[list[bytes], int]:
        """The capsules of a page as JSON, and the last one's number. What vanished meanwhile is left out."""
        admin = policy.allows(caller, "capsule:get:host")
        pieces = await self._rendered.page(page, admin, self._store, lambda c: podview.capsule_piece(c, admin=admin))
        names = await self._host_names.of({p.host_uuid for p in pieces}) if admin else {}
        items = [p.filled(host_name=names.get(p.host_uuid)) for p in pieces]
        return items, pieces[-1].number if pieces else 0

    async def _watch(self, request: Request) -> web.StreamResponse:
        query = request.query
        given = query.get("timeoutSeconds")
        caller = request.caller

        async def render(capsule: Capsule, revision: int) -> bytes:
            return await self._json(caller, capsule, revision)

        stream = Stream(
            request,
            store=self._store,
            identity=self._identity,
            notices=self._notices,
            moves=self._moves,
            feed=self._feed,
            scope=self._scope(request),
            revision=int(query.get("resourceVersion") or 0),
            timeout_s=float(given) if given else None,
            bookmarks=schemas.boolean(query.get("allowWatchBookmarks"), False),
            render=render,
        )
        return await stream.run()

    # -- creating ----------------------------------------------------------------------------------------------

    async def create(self, request: Request) -> web.Response:
        """POST: accepted is committed. The same metadata.uid again answers with what it made, and makes nothing."""
        caller = request.caller
        policy.enforce(caller, "capsule:create")
        body = await podbodies.read(request)
        manifest = manifests.read(body, caller=caller, runtimes=await self._runtimes_for(body))
        podbodies.check_size(manifest.content)
        pod = podchanges.defaulted(manifest.pod)
        new = NewCapsule(
            uuid=str(uuid.uuid4()),
            kind="capsule",
            project_id=caller.project_id,
            user_id=caller.user_id,
            name=pod.metadata.name,
            spec=CapsuleSpec(labels=pod.metadata.labels, pod=pod),
            wish=Wish("running", run=1, stop_timeout_s=pod.spec.termination_grace_period_seconds, at_us=self._clock()),
            token=pod.metadata.uid,
            content=manifest.content,
            volumes=await self._grants(pod, caller.project_id),
            unique_name=True,
        )
        capsule = await self._store.create_capsule(new)
        status = 201
        if capsule.uuid != new.uuid:
            podbodies.check_same(capsule, pod, generated=manifest.generated)
            status = 200
        response = await self._answer(request, capsule, status, manifest.warnings)
        response.headers["Location"] = f"{request.host_url}{PATH}/{capsule.uuid}"
        return response

    async def _runtimes_for(self, body: dict[str, Any], capsule: Capsule | None = None) -> set[str]:
        """The runtime classes that a body may name: those that there are, and the one that the capsule has already.
        Most name none, and then nobody is asked."""
        spec = body.get("spec")
        if not isinstance(spec, dict) or spec.get("runtimeClassName") is None:
            return set() if capsule is None else _own_runtime(capsule)
        return await runtimes.offered(self._store) | (set() if capsule is None else _own_runtime(capsule))

    # -- changing ----------------------------------------------------------------------------------------------

    async def replace(self, request: Request) -> web.Response:
        """PUT the whole pod; without content the present one stays."""
        capsule = await self.find(request, "update")
        body = await podbodies.read(request)
        expected = podbodies.take_expected(body)
        manifest = manifests.read(body, caller=request.caller, runtimes=await self._runtimes_for(body, capsule))
        content = await self._new_content(capsule, manifest.content) if body.get("content") else None

        def change(now: Capsule) -> tuple[CapsuleSpec, Wish]:
            podbodies.check_changeable(now, expected)
            return self._changed(now, manifest.pod, content)

        capsule = await self._store.update_capsule(capsule.uuid, change, content, self._fits)
        return await self._answer(request, capsule, warnings=manifest.warnings)

    async def patch(self, request: Request) -> web.Response:
        """PATCH: a strategic merge of metadata and spec; config maps and secrets are merged by name and key."""
        capsule = await self.find(request, "update")
        strategic = podbodies.is_strategic(request)
        body = await podbodies.read(request)
        expected = podbodies.take_expected(body)
        allowed = await self._runtimes_for(body, capsule)
        warnings: list[str] = []
        given = body.pop("content", None)
        content: Content | None = None

        def change(now: Capsule) -> tuple[CapsuleSpec, Wish]:
            podbodies.check_changeable(now, expected)
            if given is not None and now.content_revision != capsule.content_revision:
                raise ConflictError(
                    f"The content of capsule {now.name} was changed by somebody else just now. Try again."
                )
            present = podview.capsule_json(now)
            del present["status"]
            patched = podpatch.merged(present, body, strategic=strategic)
            manifest = manifests.read(patched, caller=request.caller, runtimes=allowed)
            warnings[:] = manifest.warnings
            return self._changed(now, manifest.pod, content)

        if given is not None:
            present = msgspec.to_builtins(await self._store.content(capsule.uuid))
            merged = podpatch.merged(present, given, strategic=False)
            content = await self._new_content(capsule, manifests.read_content(merged))
        capsule = await self._store.update_capsule(capsule.uuid, change, content, self._fits)
        return await self._answer(request, capsule, warnings=warnings)

    async def replace_content(self, request: Request) -> web.Response:
        """PUT all config maps and secrets anew."""
        capsule = await self.find(request, "update")
        content = await self._new_content(capsule, manifests.read_content(await podbodies.read(request)))

        def change(now: Capsule) -> tuple[CapsuleSpec, Wish]:
            podbodies.check_changeable(now, None)
            return self._changed(now, podview.pod_of(now), content)

        capsule = await self._store.update_capsule(capsule.uuid, change, content, self._fits)
        return await self._answer(request, capsule)

    async def _new_content(self, capsule: Capsule, content: Content) -> Content | None:
        """The content if it is another one, checked against what is immutable."""
        podbodies.check_size(content)
        present = await self._store.content(capsule.uuid)
        if content == present:
            return None
        fixed = [
            f"{word} {name}"
            for word, old, new in (
                ("configMap", present.config_maps, content.config_maps),
                ("secret", present.secrets, content.secrets),
            )
            for name, bag in old.items()
            if bag.immutable and name in new and new[name] != bag
        ]
        if fixed:
            title = f"Cannot change the content of capsule {capsule.name}: immutable are {', '.join(sorted(fixed))}."
            raise ApiError(400, title, code="container.immutable")
        return content

    def _changed(self, now: Capsule, pod: Pod, content: Content | None) -> tuple[CapsuleSpec, Wish]:
        """Spec and wish that follow when a client wants the pod to be so."""
        new = podchanges.changed(now, podview.pod_of(now), pod)
        spec = msgspec.structs.replace(now.spec, pod=new, labels=new.metadata.labels)
        if spec == now.spec and content is None:
            return now.spec, now.wish
        wish = msgspec.structs.replace(
            now.wish,
            generation=now.wish.generation + 1,
            task="creating" if now.report.pod is None else "starting",
            stop_timeout_s=new.spec.termination_grace_period_seconds,
            at_us=self._clock(),
        )
        return spec, wish

    def _fits(self, load: Load) -> None:
        cpu_left, memory_left = room(load, self._ratios)
        if cpu_left < 0 or memory_left < 0:
            lacking = "memory" if memory_left < 0 else "CPUs"
            raise ConflictError(
                f"Cannot give the capsule more: its host has not enough {lacking} left. Ask for less, or create it "
                "anew elsewhere."
            )

    # -- deleting ----------------------------------------------------------------------------------------------

    async def delete(self, request: Request) -> web.Response:
        """DELETE: gone when its host has removed everything. A later one can only shorten the grace."""
        capsule = await self.find(request, "delete")
        given = request.query.get("gracePeriodSeconds")

        def change(now: Capsule) -> Wish:
            wish, at_us = now.wish, self._clock()
            grace = podview.pod_of(now).spec.termination_grace_period_seconds if given is None else int(given)
            if wish.state == "deleted":
                ends_us = wish.at_us + wish.stop_timeout_s * 1_000_000
                if given is None or at_us + grace * 1_000_000 >= ends_us:
                    return wish
            return msgspec.structs.replace(
                wish,
                state="deleted",
                task="deleting",
                generation=wish.generation + 1,
                stop_timeout_s=grace,
                at_us=at_us,
            )

        return await self._answer(request, await self._store.wish(capsule.uuid, change), 202)


def _own_runtime(capsule: Capsule) -> set[str]:
    own = podview.pod_of(capsule).spec.runtime_class_name
    return set() if own is None else {own}


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
