"""Volumes as the Block Storage API shows and takes them.

Cinder's volumes need no name, and several may have the same; ours have one that is unique within the project. Who gives
none gets the volume's id as its name.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from askos.api.cinder.context import Ask, Context
from askos.api.service import Json, reply
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.model.volumes import Volume

MAX_SIZE_GIB = 10_000
_TYPES = (None, "", "local", "__DEFAULT__", "5f0c7d1e-2f4b-5f43-9a0e-2d7c3d0c4b11")
_UNSUPPORTED = (
    "snapshot_id", "source_volid", "source_replica", "backup_id", "imageRef", "image_id", "consistencygroup_id",
    "group_id",
)  # fmt: skip
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,255}")


class Volumes:
    """The handlers."""

    def __init__(self, context: Context) -> None:
        self._store = context.store

    # -- reading -----------------------------------------------------------------------------------------------

    async def short(self, ask: Ask) -> web.Response:
        """GET: ids and names."""
        found = await self._page(ask)
        short = [{"id": v.uuid, "name": v.name, "links": links(ask, v)} for v in found]
        return reply({"volumes": short, **self._next(ask, found)})

    async def detail(self, ask: Ask) -> web.Response:
        """GET: everything."""
        found = await self._page(ask)
        return reply({"volumes": [shown(ask, v) for v in found], **self._next(ask, found)})

    async def summary(self, ask: Ask) -> web.Response:
        """GET: how many, and how large together."""
        found = await self._page(ask)
        return reply({"volume-summary": {"total_size": sum(v.size_gib for v in found), "total_count": len(found)}})

    async def show(self, ask: Ask) -> web.Response:
        """GET one."""
        return reply({"volume": shown(ask, await self._one(ask))})

    async def metadata(self, ask: Ask) -> web.Response:
        """GET its metadata: there never is any."""
        await self._one(ask)
        return reply({"metadata": {}})

    async def limits(self, ask: Ask) -> web.Response:
        """GET what is used; nothing is limited but by the hosts' disks."""
        found = await self._store.volumes(ask.caller.project_id)
        absolute = {
            "totalVolumesUsed": len(found),
            "totalGigabytesUsed": sum(v.size_gib for v in found),
            "totalSnapshotsUsed": 0,
            "totalBackupsUsed": 0,
            "totalBackupGigabytesUsed": 0,
            "maxTotalVolumes": -1,
            "maxTotalVolumeGigabytes": -1,
            "maxTotalSnapshots": 0,
            "maxTotalBackups": 0,
            "maxTotalBackupGigabytes": 0,
        }
        return reply({"limits": {"rate": [], "absolute": absolute}})

    async def _one(self, ask: Ask) -> Volume:
        ident = ask.raw.match_info["ident"]
        volume = await self._store.volume(ident, ask.scope)
        if volume.uuid != ident:
            # Clients look names up themselves; a path holds an id.
            raise _missing(ident)
        return volume

    async def _page(self, ask: Ask) -> list[Volume]:
        query = ask.raw.query
        everywhere = query.get("all_tenants", query.get("all_projects", "0")).lower() in ("1", "true")
        scope = None if everywhere and ask.caller.is_admin else ask.caller.project_id
        if scope is None and query.get("project_id"):
            scope = query["project_id"]
        found = await self._store.volumes(scope)
        for key, read in _FILTERS.items():
            if key in query:
                found = [v for v in found if read(v) == query[key]]
        if query.get("sort", "").startswith("created_at:asc") or query.get("sort_dir") == "asc":
            found.sort(key=lambda v: v.created_us)
        else:
            found.sort(key=lambda v: v.created_us, reverse=True)
        marker = query.get("marker")
        if marker is not None:
            ids = [v.uuid for v in found]
            if marker not in ids:
                raise InvalidError(f"marker [{marker}] not found.")
            found = found[ids.index(marker) + 1 :]
        return found[: _limit(ask)]

    def _next(self, ask: Ask, found: list[Volume]) -> Json:
        if "limit" not in ask.raw.query or len(found) < _limit(ask) or not found:
            return {}
        url = ask.raw.url.update_query(marker=found[-1].uuid)
        return {"volumes_links": [{"rel": "next", "href": f"{ask.base}/volumes?{url.raw_query_string}"}]}

    # -- changing ----------------------------------------------------------------------------------------------

    async def create(self, ask: Ask) -> web.Response:
        """POST: 202."""
        ask.may_write()
        body = await ask.body("volume")
        for field in _UNSUPPORTED:
            if body.get(field):
                raise InvalidError(f"Cannot create a volume from {field}: this cloud makes empty volumes only.")
        if body.get("volume_type") not in _TYPES:
            raise InvalidError(f"Volume type {body['volume_type']} could not be found. There is one: local.")
        if body.get("availability_zone") not in (None, "", "nova"):
            raise InvalidError(f"Availability zone '{body['availability_zone']}' is invalid. There is one: nova.")
        if body.get("metadata"):
            raise InvalidError("Cannot keep metadata of volumes: leave it out.")
        size = _size(body.get("size"))
        multiattach = body.get("multiattach") or False
        if not isinstance(multiattach, bool):
            raise InvalidError(f"Invalid input for field multiattach: {multiattach!r} is not a boolean.")
        name = _name(body.get("name", body.get("display_name"))) or f"volume-{uuid.uuid4()}"
        caller = ask.caller
        made = await self._store.create(caller.project_id, caller.user_id, name, size, multiattach=multiattach)
        return reply({"volume": summary(ask, made)}, 202)

    async def update(self, ask: Ask) -> web.Response:
        """PUT: the name."""
        ask.may_write()
        volume = await self._one(ask)
        body = await ask.body("volume")
        if body.get("metadata") or body.get("description"):
            raise InvalidError("Only the name of a volume can be changed here.")
        name = _name(body.get("name", body.get("display_name")))
        if name and name != volume.name:
            volume = await self._store.rename(volume.uuid, name)
        return reply({"volume": summary(ask, volume)})

    async def delete(self, ask: Ask) -> web.Response:
        """DELETE: 202."""
        ask.may_write()
        volume = await self._one(ask)
        await self._store.delete(volume.uuid)
        return web.Response(status=202)

    async def act(self, ask: Ask) -> web.Response:
        """POST an action: only growing."""
        ask.may_write()
        volume = await self._one(ask)
        body = await ask.body("os-extend")
        size = _size(body.get("new_size"))
        if size <= volume.size_gib:
            raise InvalidError(
                f"New size for extend must be greater than current size. (current: {volume.size_gib}, "
                f"extended: {size})."
            )
        if volume.attachments:
            raise ConflictError(
                f"Cannot extend volume {volume.uuid}: it is in use. It grows when nothing uses it, at its next use."
            )
        await self._store.extend(volume.uuid, size)
        return web.Response(status=202)


_FILTERS: dict[str, Callable[[Volume], str]] = {
    "name": lambda v: v.name,
    "id": lambda v: v.uuid,
    "status": lambda v: v.status,
    "size": lambda v: str(v.size_gib),
    "multiattach": lambda v: str(v.multiattach).lower(),
}


def shown(ask: Ask, volume: Volume) -> Json:
    """Cinder's representation in lists and of one: with whose it is, and for administrators where."""
    return {
        **summary(ask, volume),
        "os-vol-tenant-attr:tenant_id": volume.project_id,
        **({"os-vol-host-attr:host": volume.host_uuid} if ask.caller.is_admin else {}),
    }


def summary(ask: Ask, volume: Volume) -> Json:
    """Cinder's answer to making and changing one. Clients that check answers refuse anything more."""
    attached = [
        {
            "id": volume.uuid,
            "attachment_id": str(uuid.uuid5(uuid.UUID(volume.uuid), user)),
            "volume_id": volume.uuid,
            "server_id": user,
            "host_name": None,
            "device": "/dev/loop",
            "attached_at": _time(volume.created_us),
        }
        for user in volume.attachments
    ]
    return {
        "id": volume.uuid,
        "status": volume.status,
        "size": volume.size_gib,
        "availability_zone": "nova",
        "created_at": _time(volume.created_us),
        "updated_at": None,
        "name": volume.name,
        "description": None,
        "volume_type": "local",
        "snapshot_id": None,
        "source_volid": None,
        "metadata": {},
        "links": links(ask, volume),
        "user_id": volume.user_id,
        "bootable": "false",
        "encrypted": False,
        "replication_status": None,
        "consistencygroup_id": None,
        "multiattach": volume.multiattach,
        "attachments": attached,
    }


def links(ask: Ask, volume: Volume) -> list[Json]:
    """The two links of a volume."""
    return [
        {"rel": "self", "href": f"{ask.base}/volumes/{volume.uuid}"},
        {"rel": "bookmark", "href": f"{ask.base}/volumes/{volume.uuid}"},
    ]


def _time(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def _size(value: Any) -> int:
    digits = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not re.fullmatch(r"[0-9]{1,9}", digits) or not 1 <= int(digits) <= MAX_SIZE_GIB:
        raise InvalidError(f"Invalid input for field size: {value!r} is not a number of GiB from 1 to {MAX_SIZE_GIB}.")
    return int(digits)


def _name(value: Any) -> str:
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        why = "a name has 1 to 255 characters, none of them control characters"
        raise InvalidError(f"Invalid input for field name: {why}.")
    return value


def _limit(ask: Ask) -> int:
    text = ask.raw.query.get("limit", "1000")
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise InvalidError(f"limit param must be an integer, not {text!r}.")
    return min(int(text), 1000)


def _missing(ident: str) -> NotFoundError:
    return NotFoundError(f"Volume {ident} could not be found.", "volume-not-found")
