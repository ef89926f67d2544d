"""The store's capsules: what users do and read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import actions as sql_actions
from askos.adapters.sql import events as sql_events
from askos.adapters.sql import exposing, queries, rows
from askos.adapters.sql import ports as sql_ports
from askos.adapters.sql import quotas as sql_quotas
from askos.adapters.sql import volumes as sql_volumes
from askos.adapters.sql.base import CHUNK, Base
from askos.adapters.sql.loads import loads_of
from askos.adapters.sql.schema import capsule_labels, capsules
from askos.model.actions import Action, NewAction
from askos.model.capsules import Capsule, CapsuleSpec, Placement, Report, Wish
from askos.model.errors import ConflictError
from askos.model.networks import NetWish
from askos.model.pods import Content, Event
from askos.plan.placement import Load
from askos.ports.store import Change, Kind, NewCapsule, Query


class CapsuleStore(Base):
    """Creating, changing and reading."""

    # -- writing -----------------------------------------------------------------------------------------------

    async def create_capsule(self, new: NewCapsule) -> Capsule:
        """See `ports.store.Store`."""
        now = self._clock()
        namespace = "" if new.spec.pod is None else new.spec.pod.metadata.namespace
        sealed = self._sealer.seal(new.uuid, new.content) if new.content != Content() else None
        async with self._db.write() as connection:
            if new.token:
                mine = (capsules.c.project_id == new.project_id) & (capsules.c.token == new.token)
                existing = await self._some(connection, select(capsules).where(mine))
                if existing:
                    return existing[0]
            if new.unique_name:
                await _check_name(connection, new, namespace)
            await sql_quotas.admit(connection, new.project_id, None, new.spec, self._default_limits)
            spec = await exposing.expose(connection, new.uuid, new.project_id, new.spec, now)
            new = msgspec.structs.replace(new, spec=spec)
            revision = await self._log(connection, new.kind, new.uuid, new.project_id, created=True)
            made = await connection.execute(
                insert(capsules),
                {
                    "uuid": new.uuid,
                    "project_id": new.project_id,
                    "user_id": new.user_id,
                    "name": new.name,
                    "kind": new.kind,
                    "namespace": namespace,
                    "token": new.token or None,
                    "spec": rows.text(new.spec),
                    "content": sealed,
                    "content_revision": int(sealed is not None),
                    "wish": rows.text(new.wish),
                    "epoch": 0,
                    "report": rows.text(Report()),
                    "revision": revision,
                    "created_us": now,
                    **rows.claimed(new.spec),
                    **rows.derived(new.wish, Placement(), Report()),
                },
            )
            taker = sql_ports.Taker(new.uuid, new.project_id, new.spec.security_groups)
            plugged = await taker.take(connection, new.nets or [NetWish()], [], now)
            if new.kind == "capsule":
                await _write_labels(connection, new.uuid, new.spec)
            if new.action is not None:
                await sql_actions.begin(connection, new.uuid, new.action, new.wish.generation, now)
            if new.volumes:
                await sql_volumes.attach(connection, new.project_id, new.uuid, new.volumes, now)
            if new.new_volumes:
                await sql_volumes.create_and_attach(
                    connection, new.project_id, new.user_id, new.uuid, new.new_volumes, now
                )
            with_volumes = new.volumes or new.new_volumes
            grants = await sql_volumes.grants_of(connection, [new.uuid]) if with_volumes else {}
        self._on_change(Change(revision, new.kind, new.uuid, deleted=False, project_id=new.project_id, created=True))
        return Capsule(
            uuid=new.uuid,
            project_id=new.project_id,
            user_id=new.user_id,
            name=new.name,
            kind=new.kind,
            spec=new.spec,
            wish=new.wish,
            placement=Placement(),
            report=Report(),
            created_us=now,
            revision=revision,
            id=made.inserted_primary_key[0] if made.inserted_primary_key else 0,
            ports=[port for port, _ in plugged],
            networks=[network for _, network in plugged],
            volumes=grants.get(new.uuid, []),
            content_revision=int(sealed is not None),
        )

    async def wish(self, uuid: str, change: Callable[[Capsule], Wish], action: NewAction | None = None) -> Capsule:
        """See `ports.store.Store`."""
        async with self._db.write() as connection:
            capsule = await self._one(connection, uuid)
            if capsule is None:
                raise queries.not_found("container", uuid)
            capsule, changed = await self._rewish(connection, capsule, change(capsule))
            if action is not None and not changed.deleted:
                await sql_actions.begin(connection, uuid, action, capsule.wish.generation, self._clock())
        self._on_change(changed)
        return capsule

    async def _rewish(
        self, connection: AsyncConnection, capsule: Capsule, wish: Wish, **values: Any
    ) -> tuple[Capsule, Change]:
        if wish.state == "deleted" and capsule.placement.host_uuid is None:
            capsule = msgspec.structs.replace(capsule, wish=wish)
            changed = await self._remove(connection, capsule)
            return msgspec.structs.replace(capsule, revision=changed.revision), changed
        # A new wish is a new chance for placement.
        placement = msgspec.structs.replace(capsule.placement, failure=None)
        capsule = msgspec.structs.replace(capsule, wish=wish, placement=placement)
        revision = await self._save(connection, capsule, wish=rows.text(wish), placement_failure=None, **values)
        changed = Change(
            revision,
            capsule.kind,
            capsule.uuid,
            deleted=False,
            host_uuid=placement.host_uuid,
            project_id=capsule.project_id,
        )
        return msgspec.structs.replace(capsule, revision=revision, updated_us=self._clock()), changed

    async def update_capsule(
        self,
        uuid: str,
        change: Callable[[Capsule], tuple[CapsuleSpec, Wish]],
        content: Content | None = None,
        fits: Callable[[Load], None] | None = None,
        *,
        name: str | None = None,
        action: NewAction | None = None,
    ) -> Capsule:
        """See `ports.store.Store`."""
        async with self._db.write() as connection:
            before = await self._one(connection, uuid)
            if before is None:
                raise queries.not_found("capsule", uuid)
            spec, wish = change(before)
            name = before.name if name is None else name
            if spec == before.spec and wish == before.wish and content is None and name == before.name:
                return before
            await sql_quotas.admit(connection, before.project_id, before.spec, spec, self._default_limits)
            values: dict[str, Any] = {"spec": rows.text(spec), "name": name, **rows.claimed(spec)}
            after = msgspec.structs.replace(before, spec=spec, name=name)
            if content is not None:
                values["content"] = self._sealer.seal(uuid, content) if content != Content() else None
                values["content_revision"] = before.content_revision + 1
                after = msgspec.structs.replace(after, content_revision=before.content_revision + 1)
            if fits is not None:
                await _check_room(connection, before, spec, fits)
            if before.kind == "capsule" and spec.labels != before.spec.labels:
                values["labels_before"] = rows.text(before.spec.labels)
                await connection.execute(delete(capsule_labels).where(capsule_labels.c.capsule_uuid == uuid))
                await _write_labels(connection, uuid, spec)
            after, changed = await self._rewish(connection, after, wish, **values)
            if action is not None and not changed.deleted:
                await sql_actions.begin(connection, uuid, action, after.wish.generation, self._clock())
        self._on_change(changed)
        return after

    # -- reading -----------------------------------------------------------------------------------------------

    async def content(self, uuid: str) -> Content:
        """See `ports.store.Store`."""
        query = select(capsules.c.content).where(capsules.c.uuid == uuid)
        async with self._db.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            raise queries.not_found("capsule", uuid)
        return Content() if row[0] is None else self._sealer.open(uuid, row[0])

    async def events(self, uuid: str) -> list[Event]:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            return await sql_events.of(connection, uuid)

    async def actions(self, uuid: str) -> list[Action]:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            return await sql_actions.of(connection, uuid)

    async def begin_action(self, uuid: str, action: NewAction) -> int | None:
        """See `ports.store.Store`."""
        async with self._db.write() as connection:
            there = select(capsules.c.uuid).where(capsules.c.uuid == uuid)
            if (await connection.execute(there)).first() is None:
                return None
            return await sql_actions.begin(connection, uuid, action, sql_actions.NO_WISH, self._clock())

    async def end_action(self, number: int | None, failure: str | None) -> None:
        """See `ports.store.Store`."""
        if number is not None:
            async with self._db.write() as connection:
                await sql_actions.end(connection, number, failure, self._clock())

    async def break_off_actions(self) -> None:
        """See `ports.store.Store`."""
        async with self._db.write() as connection:
            await sql_actions.break_off(connection, self._clock())

    async def capsule(self, ident: str, project_id: str | None, kind: Kind, namespace: str | None = None) -> Capsule:
        """See `ports.store.Store`."""
        scope = [capsules.c.kind == kind]
        if project_id is not None:
            scope.append(capsules.c.project_id == project_id)
        async with self._db.read() as connection:
            found = await self._some(connection, select(capsules).where(capsules.c.uuid == ident, *scope))
            if not found:
                if namespace is not None:
                    scope.append(capsules.c.namespace == namespace)
                # What stays comes first: a name may be used again as soon as its holder is being deleted.
                leaving = capsules.c.wish_state == "deleted"
                query = select(capsules).where(capsules.c.name == ident, *scope).order_by(leaving).limit(3)
                found = await self._some(connection, query)
        if not found:
            raise queries.not_found(kind, ident)
        if kind == "capsule":
            staying = [c for c in found if c.wish.state != "deleted"]
            found = staying or found
        if len(found) > 1:
            raise ConflictError(
                f"Multiple {kind}s exist with same name. Please use the {kind} uuid instead.", "conflict"
            )
        return found[0]

    async def capsules(self, query: Query) -> list[Capsule]:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            return await self._some(connection, await queries.paged(connection, query, select(capsules)))

    async def page(self, query: Query) -> list[tuple[str, int]]:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            wanted = select(capsules.c.uuid, capsules.c.revision)
            statement = await queries.paged(connection, query, wanted)
            return [(row[0], row[1]) for row in (await connection.execute(statement)).all()]

    async def capsules_by_uuid(self, uuids: list[str]) -> list[Capsule]:
        """See `ports.store.Store`."""
        found: list[Capsule] = []
        async with self._db.read() as connection:
            for start in range(0, len(uuids), CHUNK):
                chunk = uuids[start : start + CHUNK]
                found += await self._some(connection, select(capsules).where(capsules.c.uuid.in_(chunk)))
        return found


async def _check_name(connection: AsyncConnection, new: NewCapsule, namespace: str) -> None:
    query = select(capsules.c.uuid).where(
        capsules.c.project_id == new.project_id,
        capsules.c.name == new.name,
        capsules.c.namespace == namespace,
        capsules.c.kind == new.kind,
        capsules.c.wish_state != "deleted",
    )
    holder = (await connection.execute(query)).scalar()
    if holder is not None:
        where = f" in namespace {namespace}" if namespace else ""
        raise ConflictError(
            f'There is a {new.kind} "{new.name}"{where} already, with id {holder}. Delete it first, or choose another '
            "name.",
            "already-exists",
        )


async def _check_room(
    connection: AsyncConnection, before: Capsule, spec: CapsuleSpec, fits: Callable[[Load], None]
) -> None:
    """Let `fits` judge the host's load, if the capsule is to claim more of it than before."""
    host, old, new = before.placement.host_uuid, rows.claimed(before.spec), rows.claimed(spec)
    more_cpu, more_memory = new["cpu"] - old["cpu"], new["memory_mib"] - old["memory_mib"]
    if host is None or (more_cpu <= 0 and more_memory <= 0):
        return
    for load in await loads_of(connection, host):
        fits(
            msgspec.structs.replace(
                load,
                cpu_claimed=load.cpu_claimed + more_cpu,
                memory_claimed_mib=load.memory_claimed_mib + more_memory,
            )
        )


async def _write_labels(connection: AsyncConnection, uuid: str, spec: CapsuleSpec) -> None:
    if spec.labels:
        labels = [{"capsule_uuid": uuid, "key": key, "value": value} for key, value in spec.labels.items()]
        await connection.execute(insert(capsule_labels), labels)
