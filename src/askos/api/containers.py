"""Zun's /v1/containers."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import web

from askos.api import create, policy, representation, schemas, state
from askos.api.core import Request, json_response, raw_json
from askos.api.errors import ApiError, invalid_query, invalid_value
from askos.api.hostnames import HostNames
from askos.api.microversion import Version
from askos.api.rendered import Rendered
from askos.model.capsules import Capsule, Task, Wish, WishState
from askos.model.errors import ConflictError, RuntimeFailedError, UnavailableError
from askos.plan import zun_status
from askos.ports.calls import HostCalls
from askos.ports.store import NewCapsule, Query, Store

MAX_LIMIT = 1000
EXECUTE_TIMEOUT_S = 5.0
EXECUTE_OUTPUT_BYTES = 4 << 20
FILTERS = frozenset({"name", "image", "project_id", "user_id", "memory", "host", "task_state", "status", "auto_remove"})
_PAGING = frozenset({"limit", "marker", "sort_key", "sort_dir", "all_projects"})


class Containers:
    """The handlers. `zones` names the availability zones that a create may ask for."""

    def __init__(
        self,
        store: Store,
        calls: HostCalls,
        clock: Callable[[], int],
        zones: set[str],
        limits: schemas.Limits = schemas.DEFAULT_LIMITS,
    ) -> None:
        self._limits = limits
        self._store = store
        self._calls = calls
        self._clock = clock
        self._zones = zones
        self._rendered = Rendered(32 << 20)
        self._host_names = HostNames(store)

    # -- reading -----------------------------------------------------------------------------------------------

    async def find(self, request: Request) -> Capsule:
        """The container of the path, within what the caller may see."""
        caller = request.caller
        if schemas.boolean(request.query.get("all_projects"), False):
            policy.enforce(caller, "container:get_one_all_projects")
        scope = None if caller.is_admin else caller.project_id
        return await self._store.capsule(request.arguments["ident"], scope, "container")

    async def shown(self, request: Request, capsule: Capsule, *, links: bool = True) -> dict[str, Any]:
        """One container as the caller may see it."""
        host_name = await self._host_names.one(capsule.placement.host_uuid)
        shown = representation.container(capsule, self._clock(), admin=request.caller.is_admin, host_name=host_name)
        if links:
            shown["links"] = representation.links(request.host_url, capsule.uuid)
        return shown

    async def show(self, request: Request) -> web.Response:
        """GET one."""
        return json_response(await self.shown(request, await self.find(request)))

    async def list(self, request: Request) -> web.Response:
        """GET a page."""
        admin = request.caller.is_admin
        query = await self._list_query(request)
        page = await self._store.page(query)
        pieces = await self._rendered.page(
            page, admin, self._store, lambda capsule: representation.container_piece(capsule, admin=admin)
        )
        names = await self._host_names.of({p.host_uuid for p in pieces}) if admin else {}
        now_us = self._clock()
        items = b",".join([p.filled(now_us, host_name=names.get(p.host_uuid)) for p in pieces])
        following = None
        if len(page) == query.limit:
            kept = {k: v for k, v in request.query.items() if k not in ("marker", "sort_key", "sort_dir", "limit")}
            parameters = {
                "sort_key": query.sort_key,
                "sort_dir": query.sort_dir,
                "limit": query.limit,
                "marker": page[-1][0],
                **kept,
            }
            following = f"{request.host_url}/v1/containers?{urlencode(parameters, quote_via=quote)}"
        return raw_json(b'{"containers":[' + items + b'],"next":' + msgspec.json.encode(following) + b"}")

    async def _list_query(self, request: Request) -> Query:
        given = request.query
        unknown = sorted(set(given) - FILTERS - _PAGING)
        if unknown:
            raise invalid_value(f"Unknown parameters: {', '.join(unknown)}")
        caller = request.caller
        everywhere = schemas.boolean(_boolean_word("all_projects", given.get("all_projects")), False)
        if everywhere:
            policy.enforce(caller, "container:get_all_all_projects")
        filters: dict[str, str | bool] = {}
        for key in FILTERS & set(given):
            if key == "host":
                policy.enforce(caller, "container:get_one:host")
                filters[key] = await self._host_names.uuid(given[key]) or given[key]
            elif key == "auto_remove":
                filters[key] = schemas.boolean(_boolean_word(key, given[key]), False)
            else:
                filters[key] = given[key]
        sort_dir = given.get("sort_dir", "asc")
        if sort_dir not in ("asc", "desc"):
            raise invalid_value(f"Invalid sort direction: {sort_dir}. Acceptable values are 'asc' or 'desc'")
        return Query(
            project_id=None if everywhere else caller.project_id,
            filters=filters,
            sort_key=given.get("sort_key", "id"),
            sort_dir=sort_dir,
            limit=_limit(given.get("limit")),
            marker=given.get("marker"),
        )

    # -- create and delete -------------------------------------------------------------------------------------

    def create_schema(self, version: Version) -> schemas.Schema:
        """The schema of a create's body at a version."""
        return schemas.create(version, self._limits)

    async def create(self, request: Request) -> web.Response:
        """POST: accepted is committed."""
        name, spec = create.spec_of(request.body, request.version, request.caller, self._zones, self._limits)
        run = schemas.boolean(request.query.get("run"), False)
        now = self._clock()
        wish = Wish("running" if run else "created", run=1 if run else 0, at_us=now)
        new = NewCapsule(
            uuid=str(uuid.uuid4()),
            kind="container",
            project_id=request.caller.project_id,
            user_id=request.caller.user_id,
            name=name,
            spec=spec,
            wish=wish,
        )
        capsule = await self._store.create_capsule(new)
        shown = await self.shown(request, capsule)
        shown["created_at"] = representation.time_text(capsule.created_us, fraction=True)
        location = f"{request.host_url}/v1/containers/{capsule.uuid}"
        return json_response(shown, 202, {"Location": location})

    async def delete(self, request: Request) -> web.Response:
        """DELETE, plain or with stop or force."""
        query = request.query
        force = schemas.boolean(query.get("force"), False)
        stop = schemas.boolean(query.get("stop"), False)
        for word, asked, since in (("force", force, (1, 7)), ("stop", stop, (1, 12))):
            if asked and request.version < since:
                raise ApiError(
                    400,
                    f"Invalid param {word} because current request version is {request.version}. {word} is only "
                    f"supported from version {since[0]}.{since[1]}",
                    code="container.invalid-param-in-version",
                )
        if force and not stop:
            policy.enforce(request.caller, "container:delete_force")
        if schemas.boolean(query.get("all_projects"), False):
            policy.enforce(request.caller, "container:delete_all_projects")
        capsule = await self.find(request)

        def change(now: Capsule) -> Wish:
            if not (force or stop):
                state.check("delete", now)
            if now.wish.state == "deleted" and not force:
                return now.wish
            return state.next_wish(now, "deleted", "deleting", self._clock(), timeout_s=10 if stop else 0)

        await self._store.wish(capsule.uuid, change)
        return web.Response(status=204)

    # -- wishes ------------------------------------------------------------------------------------------------

    async def _wish(
        self,
        request: Request,
        action: str,
        wanted: WishState,
        task: Task,
        *,
        run: bool,
        timeout_s: int | None = None,
    ) -> web.Response:
        capsule = await self.find(request)

        def change(now: Capsule) -> Wish:
            state.check(action, now)
            return state.next_wish(now, wanted, task, self._clock(), timeout_s=timeout_s, run=run)

        await self._store.wish(capsule.uuid, change)
        return raw_json(b"null", 202)

    async def start(self, request: Request) -> web.Response:
        """POST start."""
        return await self._wish(request, "start", "running", "starting", run=True)

    async def stop(self, request: Request) -> web.Response:
        """POST stop: SIGTERM, then SIGKILL after `timeout` seconds."""
        return await self._wish(request, "stop", "stopped", "stopping", run=False, timeout_s=_timeout(request))

    async def reboot(self, request: Request) -> web.Response:
        """POST reboot: stop if it runs, then start."""
        return await self._wish(request, "reboot", "running", "rebooting", run=True, timeout_s=_timeout(request))

    async def kill(self, request: Request) -> web.Response:
        """POST kill. KILL ends the container for good, as docker does; other signals are only delivered."""
        number = _signal(request.query.get("signal"))
        if number == signal.SIGKILL:
            return await self._wish(request, "kill", "stopped", "killing", run=False, timeout_s=0)
        capsule = await self.find(request)
        state.check("kill", capsule)
        await self.call(capsule, "signal", {"signal": number}, 10.0)
        return raw_json(b"null", 202)

    # -- calls -------------------------------------------------------------------------------------------------

    async def call(self, capsule: Capsule, method: str, arguments: dict[str, Any], timeout_s: float) -> Any:
        """Ask the container's host."""
        if capsule.placement.host_uuid is None:
            raise ApiError(400, "Cannot operate an uncreated container.", code="container.invalid")
        arguments = {"capsule": capsule.uuid, **arguments}
        return await self._calls.call(capsule.placement.host_uuid, method, arguments, timeout_s)

    async def logs(self, request: Request) -> web.Response:
        """GET logs: one JSON string."""
        capsule = await self.find(request)
        state.check("logs", capsule)
        if capsule.placement.host_uuid is None:
            return json_response("")
        query = request.query
        arguments = {
            "capsule": capsule.uuid,
            "stdout": schemas.boolean(query.get("stdout"), True),
            "stderr": schemas.boolean(query.get("stderr"), True),
            "timestamps": schemas.boolean(query.get("timestamps"), False),
            "tail": tail_lines(query.get("tail")),
            "since_us": since_us(query.get("since")),
        }
        stream = await self._calls.open(capsule.placement.host_uuid, "logs", arguments)
        kept = bytearray()
        try:
            async for frame in stream.frames():
                kept += frame.data
                if len(kept) > 64 << 20:
                    raise ApiError(
                        400,
                        "The log is larger than 64 MiB. Ask for a part of it with tail or since, or follow it with "
                        "`askos logs`.",
                        code="container.invalid",
                    )
        finally:
            await stream.close()
        return json_response(kept.decode(errors="replace"))

    async def execute(self, request: Request) -> web.Response:
        """POST execute with run=true: waits for the command and answers its output."""
        query = request.query
        if not schemas.boolean(query.get("run"), True):
            raise invalid_query(
                "run",
                query["run"],
                "only run=true is supported by this release of Askos; use `askos exec -it` for a terminal",
            )
        if not query.get("command"):
            raise invalid_query("command", query.get("command", ""), "a command is required")
        argv = create.split("command", query["command"])
        if not argv:
            raise invalid_query("command", query["command"], "a command is required")
        capsule = await self.find(request)
        state.check("execute", capsule)
        tty = schemas.boolean(query.get("interactive"), False)
        arguments = {"argv": argv, "tty": tty, "limit_bytes": EXECUTE_OUTPUT_BYTES}
        try:
            done = await self.call(capsule, "run", arguments, EXECUTE_TIMEOUT_S)
        except RuntimeFailedError as error:
            # The program could not be started; Zun says so with the engine's message and 126.
            done = {"output": error.message, "exit_code": 126}
        except UnavailableError as error:
            if "did not answer within" not in error.message:
                raise
            raise ConflictError(f"Timeout on executing command: {query['command']}") from error
        return json_response(
            {"output": done["output"], "exit_code": done["exit_code"], "exec_id": None, "proxy_url": None}
        )


def _boolean_word(name: str, value: str | None) -> str | None:
    if value is not None and value not in schemas.TRUE and value not in schemas.FALSE:
        raise invalid_value(f"Invalid value for {name}: '{value}' is not a boolean word")
    return value


def _limit(value: str | None) -> int:
    if value is None:
        return MAX_LIMIT
    if not value.isascii() or not value.isdigit() or int(value[:10]) == 0:
        raise invalid_value("Limit must be positive integer")
    return min(int(value[:10]), MAX_LIMIT)


def _timeout(request: Request) -> int | None:
    value = request.query.get("timeout")
    return None if value is None or value == "" else int(value)


def _signal(value: object) -> int:
    """A signal by name (with or without SIG, any case) or number. Default KILL."""
    if value is None or value == "None":
        return signal.SIGKILL
    text = str(value)
    if text.isascii() and text.isdigit():
        if 1 <= int(text) <= 64:
            return int(text)
    else:
        name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
        if name in signal.Signals.__members__:
            return signal.Signals[name].value
    raise invalid_query("signal", value, "it is neither the name nor the number of a signal")


def tail_lines(value: object) -> int | None:
    """Zun's tail: a number of lines; "all", negative or garbage means everything."""
    text = str(value) if value is not None else "all"
    return int(text[:9]) if text.isascii() and text.isdigit() else None


def since_us(value: object) -> int | None:
    """Zun's since: seconds since the epoch, or "YYYY-MM-DD HH:MM:SS,mmm" in UTC. Microseconds."""
    from datetime import UTC, datetime

    if value is None or value == "":
        return None
    text = str(value)
    if text.isascii() and text.isdigit():
        return int(text) * 1_000_000
    try:
        found = datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f").replace(tzinfo=UTC)
    except ValueError as error:
        raise invalid_query("since", value, "it is not a time") from error
    return int(found.timestamp() * 1_000_000)


def settled(capsule: Capsule) -> bool:
    """Whether the container does not change any more by itself: not running, nothing under way."""
    view = zun_status.view(capsule.wish, capsule.placement, capsule.report)
    return view.task_state is None and view.status in ("Created", "Stopped", "Error")
