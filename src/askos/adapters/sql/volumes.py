"""Volumes of the volume service: what a capsule's transaction does with them, and `ports.volume_store.VolumeStore`."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql.database import Database
from askos.adapters.sql.schema import hosts, volume_attachments, volumes
from askos.model.capsules import VolumeGrant
from askos.model.errors import ConflictError, NotFoundError
from askos.model.volumes import GIB, Volume
from askos.ports.clock import now_us as system_clock

_BATCH = 500
"""Values in one IN (...): databases have limits."""

# -- with a capsule, inside its transaction ---------------------------------------------------------------------------


async def attach(
    connection: AsyncConnection, project_id: str, capsule_uuid: str, grants: Sequence[VolumeGrant], now_us: int
) -> None:
    """Attach existing volumes of the project to a capsule whose row is there already.

    ConflictError when one is not there for this project, is being deleted, is in use by another capsule and not
    multi-attach, or when they are on different hosts.
    """
    on_hosts: set[str] = set()
    for grant in grants:
        # Locked, so that two creates at once do not both find it free. SQLite has one writer anyway.
        query = select(volumes).where(volumes.c.uuid == grant.uuid, volumes.c.project_id == project_id)
        row = (await connection.execute(query.with_for_update())).first()
        if row is None:
            raise ConflictError(f"Cannot attach volume {grant.uuid}: there is no such volume in this project.")
        if row.deleted:
            raise ConflictError(f'Cannot attach volume "{row.name}" ({row.uuid}): it is being deleted.')
        if not row.multiattach:
            others = select(volume_attachments.c.capsule_uuid).where(
                volume_attachments.c.volume_uuid == row.uuid, volume_attachments.c.capsule_uuid != capsule_uuid
            )
            user = (await connection.execute(others.limit(1))).scalar()
            if user is not None:
                raise ConflictError(
                    f'Cannot attach volume "{row.name}" ({row.uuid}): capsule {user} uses it, and it is not '
                    "multi-attach. Delete that capsule first."
                )
        if row.host_uuid is not None:
            on_hosts.add(row.host_uuid)
        if len(on_hosts) > 1:
            raise ConflictError(
                f'Cannot attach volume "{row.name}" ({row.uuid}): it is on another host than the other volumes of '
                "this capsule, and a capsule has one host."
            )
        await _write_attachment(connection, capsule_uuid, grant, now_us)


async def create_and_attach(  # noqa: PLR0917 - as its callers have them
    connection: AsyncConnection,
    project_id: str,
    user_id: str,
    capsule_uuid: str,
    new_volumes: Sequence[VolumeGrant],
    now_us: int,
) -> None:
    """Make volumes for a capsule whose row is there already, and attach them. Each is named after the capsule and
    the pod's volume; sizes are rounded up to whole GiB. The grants' uuids become the volumes'."""
    for grant in new_volumes:
        name = f"{capsule_uuid}-{grant.name}"
        size_gib = max(1, -(-grant.size_bytes // GIB))
        volume = Volume(grant.uuid, project_id, user_id, name, size_gib, created_us=now_us)
        await _write_volume(connection, volume)
        await _write_attachment(connection, capsule_uuid, grant, now_us)


async def grants_of(connection: AsyncConnection, capsule_uuids: Iterable[str]) -> dict[str, list[VolumeGrant]]:
    """What capsules may use, by capsule, in the order of names. Capsules without volumes are left out."""
    wanted = list(capsule_uuids)
    found: dict[str, list[VolumeGrant]] = {}
    for start in range(0, len(wanted), _BATCH):
        query = (
            select(volume_attachments, volumes.c.size_gib)
            .join(volumes, volumes.c.uuid == volume_attachments.c.volume_uuid)
            .where(volume_attachments.c.capsule_uuid.in_(wanted[start : start + _BATCH]))
            .order_by(volume_attachments.c.name)
        )
        for row in (await connection.execute(query)).all():
            grant = VolumeGrant(row.volume_uuid, row.name, row.size_gib * GIB, row.read_only, row.auto_remove)
            found.setdefault(row.capsule_uuid, []).append(grant)
    return found


async def detach(connection: AsyncConnection, capsule_uuid: str) -> None:
    """Before a capsule's row is removed: its volumes become free. Those with auto_remove that no other capsule uses
    are to be deleted from now on; of these, the ones that no host has are gone at once."""
    mine = select(volume_attachments).where(volume_attachments.c.capsule_uuid == capsule_uuid)
    rows = (await connection.execute(mine)).all()
    if not rows:
        return
    await connection.execute(delete(volume_attachments).where(volume_attachments.c.capsule_uuid == capsule_uuid))
    for volume_uuid in sorted({row.volume_uuid for row in rows if row.auto_remove}):
        if not await _users(connection, volume_uuid):
            await _wish_deleted(connection, volume_uuid)


async def hosts_of(connection: AsyncConnection, capsule_uuid: str) -> set[str]:
    """The hosts that have volumes of a capsule: it can only be placed there. More than one: nowhere."""
    query = (
        select(volumes.c.host_uuid)
        .join(volume_attachments, volume_attachments.c.volume_uuid == volumes.c.uuid)
        .where(volume_attachments.c.capsule_uuid == capsule_uuid, volumes.c.host_uuid.is_not(None))
    )
    return set((await connection.execute(query)).scalars())


async def hosts_of_many(connection: AsyncConnection, capsule_uuids: Any) -> dict[str, frozenset[str]]:
    """The same of the capsules of a select of uuids, by capsule; those without are left out."""
    query = (
        select(volume_attachments.c.capsule_uuid, volumes.c.host_uuid)
        .join(volumes, volume_attachments.c.volume_uuid == volumes.c.uuid)
        .where(volume_attachments.c.capsule_uuid.in_(capsule_uuids), volumes.c.host_uuid.is_not(None))
    )
    found: dict[str, frozenset[str]] = {}
    for row in (await connection.execute(query)).all():
        found[row.capsule_uuid] = found.get(row.capsule_uuid, frozenset()) | {row.host_uuid}
    return found


async def bind(connection: AsyncConnection, capsule_uuid: str, host_uuid: str) -> None:
    """When a capsule is placed: its volumes belong to this host from now on. ConflictError when one is on another."""
    others = await hosts_of(connection, capsule_uuid) - {host_uuid}
    if others:
        raise ConflictError(f"Cannot place capsule {capsule_uuid} here: a volume of it is on host {others.pop()}.")
    used = select(volume_attachments.c.volume_uuid).where(volume_attachments.c.capsule_uuid == capsule_uuid)
    await connection.execute(
        update(volumes).where(volumes.c.uuid.in_(used), volumes.c.host_uuid.is_(None)).values(host_uuid=host_uuid)
    )


async def _write_volume(connection: AsyncConnection, volume: Volume) -> None:
    await connection.execute(
        insert(volumes).values(
            uuid=volume.uuid,
            project_id=volume.project_id,
            user_id=volume.user_id,
            name=volume.name,
            live_name=volume.name,
            size_gib=volume.size_gib,
            multiattach=volume.multiattach,
            deleted=False,
            hidden=False,
            created_us=volume.created_us,
        )
    )


async def _write_attachment(connection: AsyncConnection, capsule_uuid: str, grant: VolumeGrant, now_us: int) -> None:
    await connection.execute(
        insert(volume_attachments).values(
            capsule_uuid=capsule_uuid,
            name=grant.name,
            volume_uuid=grant.uuid,
            read_only=grant.read_only,
            auto_remove=grant.auto_remove,
            created_us=now_us,
        )
    )


async def _users(connection: AsyncConnection, volume_uuid: str) -> list[str]:
    query = select(volume_attachments.c.capsule_uuid).where(volume_attachments.c.volume_uuid == volume_uuid)
    return sorted(set((await connection.execute(query)).scalars()))


async def _wish_deleted(connection: AsyncConnection, volume_uuid: str) -> None:
    """A volume without a host has no file either: its row goes at once."""
    await connection.execute(delete(volumes).where(volumes.c.uuid == volume_uuid, volumes.c.host_uuid.is_(None)))
    await connection.execute(update(volumes).where(volumes.c.uuid == volume_uuid).values(deleted=True, live_name=None))


# -- by themselves -----------------------------------------------------------------------------------------------------


class SqlVolumes:
    """`ports.volume_store.VolumeStore` on a migrated database."""

    def __init__(
        self,
        database: Database,
        *,
        on_delete: Callable[[], None] | None = None,
        clock: Callable[[], int] = system_clock,
    ) -> None:
        self._db = database
        self._on_delete = on_delete or (lambda: None)
        self._clock = clock

    async def create(self, project_id: str, user_id: str, name: str, size_gib: int, *, multiattach: bool) -> Volume:
        """See `ports.volume_store.VolumeStore`."""
        volume = Volume(str(uuids.uuid4()), project_id, user_id, name, size_gib, multiattach, created_us=self._clock())
        try:
            async with self._db.write() as connection:
                await _write_volume(connection, volume)
        except IntegrityError as error:
            raise ConflictError(
                f'Cannot create volume "{name}": this project has one of that name. Choose another name.'
            ) from error
        return volume

    async def volumes(self, project_id: str | None) -> list[Volume]:
        """See `ports.volume_store.VolumeStore`."""
        query = select(volumes).where(volumes.c.hidden.is_(False))
        if project_id is not None:
            query = query.where(volumes.c.project_id == project_id)
        async with self._db.read() as connection:
            return await self._some(connection, query.order_by(volumes.c.created_us, volumes.c.uuid))

    async def volume(self, ident: str, project_id: str | None) -> Volume:
        """See `ports.volume_store.VolumeStore`."""
        scope: list[ColumnElement[bool]] = [volumes.c.hidden.is_(False)]
        if project_id is not None:
            scope.append(volumes.c.project_id == project_id)
        async with self._db.read() as connection:
            found = await self._some(connection, select(volumes).where(volumes.c.uuid == ident, *scope))
            if not found:
                # One that lives goes before those of its name that are being deleted.
                found = await self._some(connection, select(volumes).where(volumes.c.live_name == ident, *scope))
            if not found:
                found = await self._some(connection, select(volumes).where(volumes.c.name == ident, *scope))
        if not found:
            raise NotFoundError(f"Volume {ident} could not be found.", "volume-not-found")
        if len(found) > 1:
            raise ConflictError(f"Several volumes have the name {ident}. Use the id instead.")
        return found[0]

    async def rename(self, uuid: str, name: str) -> Volume:
        """See `ports.volume_store.VolumeStore`."""
        try:
            return await self._change(uuid, name=name, live_name=name)
        except IntegrityError as error:
            raise ConflictError(
                f'Cannot rename the volume to "{name}": this project has one of that name. Choose another name.'
            ) from error

    async def extend(self, uuid: str, size_gib: int) -> Volume:
        """See `ports.volume_store.VolumeStore`."""

        def check(volume: Volume) -> None:
            if volume.attachments or size_gib <= volume.size_gib:
                why = "it is in use" if volume.attachments else f"it has {volume.size_gib} GiB already"
                raise ConflictError(f'Cannot extend volume "{volume.name}" ({uuid}) to {size_gib} GiB: {why}.')

        return await self._change(uuid, check, size_gib=size_gib)

    async def _change(self, uuid: str, check: Callable[[Volume], None] | None = None, **values: Any) -> Volume:
        mine = select(volumes).where(volumes.c.uuid == uuid)
        async with self._db.write() as connection:
            found = await self._some(connection, mine.with_for_update())
            if not found:
                raise NotFoundError(f"Volume {uuid} could not be found.", "volume-not-found")
            if found[0].deleted:
                raise ConflictError(f'Cannot change volume "{found[0].name}" ({uuid}): it is being deleted.')
            if check is not None:
                check(found[0])
            await connection.execute(update(volumes).where(volumes.c.uuid == uuid).values(**values))
            return (await self._some(connection, mine))[0]

    async def delete(self, uuid: str) -> Volume:
        """See `ports.volume_store.VolumeStore`."""
        async with self._db.write() as connection:
            found = await self._some(connection, select(volumes).where(volumes.c.uuid == uuid).with_for_update())
            if not found:
                raise NotFoundError(f"Volume {uuid} could not be found.", "volume-not-found")
            (volume,) = found
            if volume.attachments:
                users = ", ".join(volume.attachments[:5]) + (", ..." if len(volume.attachments) > 5 else "")
                raise ConflictError(
                    f'Cannot delete volume "{volume.name}" ({uuid}): it is in use by {users}. '
                    "Delete the capsules that use it first."
                )
            await _wish_deleted(connection, uuid)
        self._on_delete()
        return msgspec.structs.replace(volume, deleted=True)

    async def to_remove(self) -> list[Volume]:
        """See `ports.volume_store.VolumeStore`."""
        query = select(volumes).where(volumes.c.deleted.is_(True), volumes.c.host_uuid.is_not(None))
        async with self._db.read() as connection:
            return await self._some(connection, query.order_by(volumes.c.created_us, volumes.c.uuid))

    async def removed(self, uuid: str, host_uuid: str) -> None:
        """See `ports.volume_store.VolumeStore`."""
        async with self._db.write() as connection:
            mine = (volumes.c.uuid == uuid, volumes.c.host_uuid == host_uuid, volumes.c.deleted.is_(True))
            await connection.execute(delete(volumes).where(*mine))

    async def failed(self, uuid: str, failure: str) -> None:
        """See `ports.volume_store.VolumeStore`."""
        async with self._db.write() as connection:
            # Only what is news: this is tried again and again.
            changed = or_(volumes.c.failure.is_(None), volumes.c.failure != failure)
            await connection.execute(
                update(volumes)
                .where(volumes.c.uuid == uuid, volumes.c.deleted.is_(True), changed)
                .values(failure=failure)
            )

    async def drop_silent(self, silent_us: int) -> list[str]:
        """See `ports.volume_store.VolumeStore`."""
        waiting = (volumes.c.deleted.is_(True), volumes.c.host_uuid.is_not(None))
        known = select(hosts.c.uuid)
        silent = select(hosts.c.uuid).where(hosts.c.last_seen_us < self._clock() - silent_us)
        gone = select(volumes.c.uuid).where(*waiting, volumes.c.host_uuid.not_in(known))
        lost = select(volumes.c.uuid).where(*waiting, volumes.c.hidden.is_(False), volumes.c.host_uuid.in_(silent))
        async with self._db.read() as connection:
            # Nearly always there is nothing to do: then nothing is written either.
            if not (await connection.execute(select(func.count()).select_from(gone.union(lost).subquery()))).scalar():
                return []
        async with self._db.write() as connection:
            forgotten = list((await connection.execute(gone)).scalars())
            for uuid in forgotten:
                await connection.execute(delete(volumes).where(volumes.c.uuid == uuid))
            hidden = list((await connection.execute(lost)).scalars())
            for uuid in hidden:
                await connection.execute(update(volumes).where(volumes.c.uuid == uuid).values(hidden=True))
        return forgotten + hidden

    async def _some(self, connection: AsyncConnection, statement: Any) -> list[Volume]:
        rows: Sequence[Row[Any]] = (await connection.execute(statement)).all()
        users: dict[str, set[str]] = {}
        uuids_ = [row.uuid for row in rows]
        for start in range(0, len(uuids_), _BATCH):
            query = select(volume_attachments.c.volume_uuid, volume_attachments.c.capsule_uuid).where(
                volume_attachments.c.volume_uuid.in_(uuids_[start : start + _BATCH])
            )
            for volume_uuid, capsule_uuid in (await connection.execute(query)).all():
                users.setdefault(volume_uuid, set()).add(capsule_uuid)
        return [
            Volume(
                uuid=row.uuid,
                project_id=row.project_id,
                user_id=row.user_id,
                name=row.name,
                size_gib=row.size_gib,
                multiattach=row.multiattach,
                host_uuid=row.host_uuid,
                deleted=row.deleted,
                failure=row.failure,
                created_us=row.created_us,
                attachments=sorted(users.get(row.uuid, ())),
            )
            for row in rows
        ]
