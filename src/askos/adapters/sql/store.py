"""`ports.store.Store` on SQL.

Each write appends to the change log and, after the commit, calls `on_change` for what changed. That call is only a
hint to loops in this process; whoever must not miss anything reads the change log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, and_, delete, func, insert, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import networks as sql_networks
from askos.adapters.sql import rows
from askos.adapters.sql.database import Database
from askos.adapters.sql.schema import capsules, changes, cloud, hosts, networks, ports
from askos.model.capsules import Assignment, Capsule, CapsuleReport, Network, Placement, Port, Report, Wish
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.model.hosts import Host, HostFacts
from askos.plan.placement import Load
from askos.ports.clock import now_us as system_clock
from askos.ports.store import Change, Kind, NewCapsule, Query


class SqlStore:
    """The store on a migrated database."""

    def __init__(
        self,
        database: Database,
        *,
        on_change: Callable[[Change], None] | None = None,
        clock: Callable[[], int] = system_clock,
    ) -> None:
        self._db = database
        self._on_change = on_change or (lambda _change: None)
        self._clock = clock
        self._networks: dict[str, Network] = {}

    # -- facts of the cloud ------------------------------------------------------------------------------------

    async def fact(self, key: str, make: Callable[[], str]) -> str:
        """A fact of the cloud that is made once and then stays: `make()` at the first call."""
        async with self._db.write() as connection:
            value = (await connection.execute(select(cloud.c.value).where(cloud.c.key == key))).scalar()
            if value is None:
                value = make()
                await connection.execute(insert(cloud).values(key=key, value=value))
            return str(value)

    # -- capsules: what users do -------------------------------------------------------------------------------

    async def create_capsule(self, new: NewCapsule) -> Capsule:
        """See `ports.store.Store`."""
        now = self._clock()
        placement, report = Placement(), Report()
        async with self._db.write() as connection:
            network = await sql_networks.project_network(connection, new.project_id, now)
            revision = await self._log(connection, new.kind, new.uuid, new.project_id, deleted=False)
            result = await connection.execute(
                insert(capsules).values(
                    uuid=new.uuid,
                    project_id=new.project_id,
                    user_id=new.user_id,
                    name=new.name,
                    kind=new.kind,
                    spec=rows.text(new.spec),
                    wish=rows.text(new.wish),
                    epoch=0,
                    cpu=round(sum(c.cpu for c in new.spec.containers) * 1000),
                    memory_mib=sum(c.memory_mib for c in new.spec.containers),
                    report=rows.text(report),
                    image=new.spec.containers[0].image,
                    auto_remove=new.spec.auto_remove,
                    revision=revision,
                    created_us=now,
                    **rows.derived(new.wish, placement, report),
                )
            )
            port = await sql_networks.claim_port(connection, network, new.uuid, now)
        self._networks[network.uuid] = network
        self._on_change(Change(revision, new.kind, new.uuid, deleted=False))
        return Capsule(
            uuid=new.uuid,
            project_id=new.project_id,
            user_id=new.user_id,
            name=new.name,
            kind=new.kind,
            spec=new.spec,
            wish=new.wish,
            placement=placement,
            report=report,
            created_us=now,
            revision=revision,
            id=result.inserted_primary_key[0] if result.inserted_primary_key else 0,
            ports=[port],
            networks=[network],
        )

    async def wish(self, uuid: str, change: Callable[[Capsule], Wish]) -> Capsule:
        """See `ports.store.Store`."""
        async with self._db.write() as connection:
            capsule = await self._one(connection, capsules.c.uuid == uuid)
            if capsule is None:
                raise NotFoundError(f"Container {uuid} could not be found.", "container-not-found")
            wish = change(capsule)
            if wish.state == "deleted" and capsule.placement.host_uuid is None:
                revision = await self._remove(connection, capsule)
                changed = Change(revision, capsule.kind, uuid, deleted=True)
            else:
                # A new wish is a new chance for placement.
                placement = msgspec.structs.replace(capsule.placement, failure=None)
                capsule = msgspec.structs.replace(capsule, wish=wish, placement=placement)
                revision = await self._save(connection, capsule, wish=rows.text(wish), placement_failure=None)
                changed = Change(revision, capsule.kind, uuid, deleted=False, host_uuid=placement.host_uuid)
        self._on_change(changed)
        return capsule

    # -- capsules: reading -------------------------------------------------------------------------------------

    async def capsule(self, ident: str, project_id: str | None, kind: Kind) -> Capsule:
        """See `ports.store.Store`."""
        scope = [capsules.c.kind == kind]
        if project_id is not None:
            scope.append(capsules.c.project_id == project_id)
        async with self._db.read() as connection:
            found = await self._some(connection, select(capsules).where(capsules.c.uuid == ident, *scope))
            if not found:
                query = select(capsules).where(capsules.c.name == ident, *scope).limit(2)
                found = await self._some(connection, query)
        if not found:
            raise NotFoundError(f"Container {ident} could not be found.", "container-not-found")
        if len(found) > 1:
            raise ConflictError(
                "Multiple containers exist with same name. Please use the container uuid instead.", "conflict"
            )
        return found[0]

    async def capsules(self, query: Query) -> list[Capsule]:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            statement = await self._paged(connection, query, select(capsules))
            return await self._some(connection, statement)

    async def page(self, query: Query) -> list[tuple[str, int]]:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            statement = await self._paged(connection, query, select(capsules.c.uuid, capsules.c.revision))
            return [(row[0], row[1]) for row in (await connection.execute(statement)).all()]

    async def capsules_by_uuid(self, uuids: list[str]) -> list[Capsule]:
        """See `ports.store.Store`."""
        found: list[Capsule] = []
        async with self._db.read() as connection:
            # SQLite's limit on variables is far above this; a page of 500 keeps statements cacheable.
            for start in range(0, len(uuids), 500):
                chunk = uuids[start : start + 500]
                found += await self._some(connection, select(capsules).where(capsules.c.uuid.in_(chunk)))
        return found

    async def _paged(self, connection: AsyncConnection, query: Query, statement: Any) -> Any:
        conditions: list[Any] = [capsules.c.kind == query.kind]
        if query.project_id is not None:
            conditions.append(capsules.c.project_id == query.project_id)
        for key, value in query.filters.items():
            conditions.append(_filter(key, value))
        column_name = rows.SORT_KEYS.get(query.sort_key)
        if column_name is None:
            raise InvalidError(
                f'The sort_key value "{query.sort_key}" is an invalid field for sorting', "invalid-parameter-value"
            )
        column = capsules.c[column_name]
        descending = query.sort_dir == "desc"
        if query.marker is not None:
            scope = [capsules.c.uuid == query.marker, capsules.c.kind == query.kind]
            if query.project_id is not None:
                scope.append(capsules.c.project_id == query.project_id)
            at = (await connection.execute(select(capsules.c.id, column).where(*scope))).first()
            if at is None:
                raise NotFoundError(f"Container {query.marker} could not be found.", "container-not-found")
            conditions.append(_after(column, at[0], at[1], descending=descending))
        statement = statement.where(*conditions)
        order = [column.desc() if descending else column.asc()]
        if column_name != "id":
            order.append(capsules.c.id.desc() if descending else capsules.c.id.asc())
        return statement.order_by(*order).limit(query.limit)

    # -- placement ---------------------------------------------------------------------------------------------

    async def unplaced(self) -> list[str]:
        """See `ports.store.Store`."""
        query = (
            select(capsules.c.uuid)
            .where(
                capsules.c.host_uuid.is_(None),
                capsules.c.placement_failure.is_(None),
                capsules.c.wish_state != "deleted",
            )
            .order_by(capsules.c.id)
        )
        async with self._db.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def place(self, uuid: str, choose: Callable[[Capsule, list[Load]], str | None], failure: str) -> bool:
        """See `ports.store.Store`."""
        async with self._db.write() as connection:
            capsule = await self._one(connection, capsules.c.uuid == uuid)
            if capsule is None or capsule.placement.host_uuid is not None or capsule.wish.state == "deleted":
                return False
            host_uuid = choose(capsule, await self._loads(connection))
            placement = Placement(
                host_uuid,
                capsule.placement.epoch + (host_uuid is not None),
                failure if host_uuid is None else None,
            )
            capsule = msgspec.structs.replace(capsule, placement=placement)
            revision = await self._save(
                connection,
                capsule,
                host_uuid=host_uuid,
                epoch=placement.epoch,
                placement_failure=placement.failure,
            )
        self._on_change(Change(revision, capsule.kind, uuid, deleted=False, host_uuid=host_uuid))
        return True

    async def _loads(self, connection: AsyncConnection) -> list[Load]:
        claims = (
            select(
                capsules.c.host_uuid,
                func.sum(capsules.c.cpu).label("cpu"),
                func.sum(capsules.c.memory_mib).label("memory"),
            )
            .where(capsules.c.host_uuid.is_not(None))
            .group_by(capsules.c.host_uuid)
            .subquery()
        )
        query = select(hosts, claims.c.cpu, claims.c.memory).outerjoin(claims, claims.c.host_uuid == hosts.c.uuid)
        return [
            Load(rows.host(row), int(row.cpu or 0), int(row.memory or 0))
            for row in (await connection.execute(query)).all()
        ]

    # -- agents ------------------------------------------------------------------------------------------------

    async def assignments(self, host_uuid: str) -> list[Assignment]:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            found = await self._some(connection, select(capsules).where(capsules.c.host_uuid == host_uuid))
        return [rows.assignment(c) for c in found]

    async def assignments_of(self, host_uuid: str, uuids: list[str]) -> list[Assignment]:
        """See `ports.store.Store`."""
        found = await self.capsules_by_uuid(uuids)
        return [rows.assignment(c) for c in found if c.placement.host_uuid == host_uuid]

    async def apply_reports(self, host_uuid: str, reports: list[CapsuleReport]) -> list[str]:
        """See `ports.store.Store`."""
        forget: list[str] = []
        changed: list[Change] = []
        async with self._db.write() as connection:
            query = select(capsules).where(capsules.c.uuid.in_([r.capsule_uuid for r in reports]))
            known = {c.uuid: c for c in await self._some(connection, query)}
            for sent in reports:
                capsule = known.get(sent.capsule_uuid)
                if capsule is None or capsule.placement.host_uuid != host_uuid:
                    forget.append(sent.capsule_uuid)
                    continue
                if capsule.placement.epoch != sent.epoch:
                    continue
                if sent.gone and capsule.wish.state == "deleted":
                    revision = await self._remove(connection, capsule)
                    changed.append(Change(revision, capsule.kind, capsule.uuid, deleted=True, host_uuid=host_uuid))
                    forget.append(capsule.uuid)
                    continue
                revision = await self._write_report(connection, capsule, sent.report)
                known[capsule.uuid] = msgspec.structs.replace(capsule, report=sent.report)
                if revision:
                    changed.append(Change(revision, capsule.kind, capsule.uuid, deleted=False, host_uuid=None))
        for change in changed:
            self._on_change(change)
        await self._auto_remove([known[r.capsule_uuid] for r in reports if r.capsule_uuid in known])
        return forget

    async def _write_report(self, connection: AsyncConnection, capsule: Capsule, report: Report) -> int:
        same = msgspec.structs.replace(report, observed_us=0) == msgspec.structs.replace(capsule.report, observed_us=0)
        if same and capsule.placement.failure is None:
            return 0
        # The host speaks: that it was silent is no failure any more.
        placement = msgspec.structs.replace(capsule.placement, failure=None)
        capsule = msgspec.structs.replace(capsule, report=report, placement=placement)
        return await self._save(connection, capsule, report=rows.text(report), placement_failure=None)

    async def _auto_remove(self, seen: Iterable[Capsule]) -> None:
        """Turn the user's auto_remove into the wish to delete, once the process has ended for good."""
        for capsule in seen:
            ended = capsule.report.settled and capsule.report.state == "exited"
            current = capsule.report.generation == capsule.wish.generation
            if capsule.spec.auto_remove and ended and current and capsule.wish.state != "deleted":

                def delete_it(now: Capsule, generation: int = capsule.wish.generation) -> Wish:
                    if now.wish.generation != generation:
                        return now.wish  # the user was quicker
                    return msgspec.structs.replace(
                        now.wish, state="deleted", task="deleting", generation=generation + 1, at_us=self._clock()
                    )

                with contextlib.suppress(NotFoundError):
                    await self.wish(capsule.uuid, delete_it)

    async def drop_orphans(self, silent_us: int) -> list[str]:
        """See `ports.store.Store`."""
        dead = _silent_hosts(self._clock() - silent_us)
        dropped: list[Change] = []
        async with self._db.write() as connection:
            query = select(capsules).where(capsules.c.wish_state == "deleted", capsules.c.host_uuid.in_(dead))
            for capsule in await self._some(connection, query):
                revision = await self._remove(connection, capsule)
                dropped.append(Change(revision, capsule.kind, capsule.uuid, deleted=True))
        for change in dropped:
            self._on_change(change)
        return [change.uuid for change in dropped]

    async def fail_waiting(self, silent_us: int, failure: str) -> list[str]:
        """See `ports.store.Store`."""
        dead = _silent_hosts(self._clock() - silent_us)
        changed: list[Change] = []
        async with self._db.write() as connection:
            query = select(capsules).where(
                capsules.c.host_uuid.in_(dead),
                capsules.c.task_state.is_not(None),
                capsules.c.wish_state != "deleted",
                capsules.c.placement_failure.is_(None),
            )
            for found in await self._some(connection, query):
                placement = msgspec.structs.replace(found.placement, failure=failure)
                capsule = msgspec.structs.replace(found, placement=placement)
                revision = await self._save(connection, capsule, placement_failure=failure)
                changed.append(Change(revision, capsule.kind, capsule.uuid, deleted=False))
        for change in changed:
            self._on_change(change)
        return [change.uuid for change in changed]

    async def register_host(self, facts: HostFacts, availability_zone: str) -> int:
        """See `ports.store.Store`."""
        now = self._clock()
        async with self._db.write() as connection:
            clash = select(hosts.c.uuid).where(hosts.c.hostname == facts.hostname, hosts.c.uuid != facts.uuid)
            if (await connection.execute(clash)).first() is not None:
                raise ConflictError(f'Another host is registered under the name "{facts.hostname}".')
            row = (await connection.execute(select(hosts.c.session).where(hosts.c.uuid == facts.uuid))).first()
            values = {
                "hostname": facts.hostname,
                "facts": rows.text(facts),
                "session": (row[0] if row else 0) + 1,
                "connected": True,
                "last_seen_us": now,
            }
            if row is None:
                await connection.execute(
                    insert(hosts).values(uuid=facts.uuid, availability_zone=availability_zone, **values)
                )
            else:
                await connection.execute(update(hosts).where(hosts.c.uuid == facts.uuid).values(**values))
            revision = await self._log(connection, "host", facts.uuid, None, deleted=False)
        self._on_change(Change(revision, "host", facts.uuid, deleted=False, host_uuid=facts.uuid))
        return int(values["session"])

    async def host_seen(self, host_uuid: str, session: int, *, connected: bool) -> None:
        """See `ports.store.Store`."""
        async with self._db.write() as connection:
            await connection.execute(
                update(hosts)
                .where(hosts.c.uuid == host_uuid, hosts.c.session == session)
                .values(connected=connected, last_seen_us=self._clock())
            )

    async def hosts(self) -> list[Host]:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            return [rows.host(row) for row in (await connection.execute(select(hosts))).all()]

    # -- the change log ----------------------------------------------------------------------------------------

    async def changes(self, after: int, limit: int = 1000) -> list[Change]:
        """See `ports.store.Store`."""
        query = select(changes).where(changes.c.revision > after).order_by(changes.c.revision).limit(limit)
        async with self._db.read() as connection:
            return [Change(r.revision, r.kind, r.uuid, r.deleted) for r in (await connection.execute(query)).all()]

    async def revision(self) -> int:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            return (await connection.execute(select(func.max(changes.c.revision)))).scalar() or 0

    async def prune_changes(self, keep: int) -> None:
        """Forget all but the newest `keep` changes."""
        newest = await self.revision()
        async with self._db.write() as connection:
            await connection.execute(delete(changes).where(changes.c.revision <= newest - keep))

    # -- helpers, inside a transaction -------------------------------------------------------------------------

    async def _log(
        self, connection: AsyncConnection, kind: str, uuid: str, project_id: str | None, *, deleted: bool
    ) -> int:
        values = {
            "kind": kind,
            "uuid": uuid,
            "project_id": project_id,
            "deleted": deleted,
            "at_us": self._clock(),
        }
        result = await connection.execute(insert(changes).values(**values))
        key: Row[Any] | None = result.inserted_primary_key
        assert key is not None
        return int(key[0])

    async def _save(self, connection: AsyncConnection, capsule: Capsule, **values: Any) -> int:
        revision = await self._log(connection, capsule.kind, capsule.uuid, capsule.project_id, deleted=False)
        await connection.execute(
            update(capsules)
            .where(capsules.c.uuid == capsule.uuid)
            .values(
                revision=revision,
                updated_us=self._clock(),
                **rows.derived(capsule.wish, capsule.placement, capsule.report),
                **values,
            )
        )
        return revision

    async def _remove(self, connection: AsyncConnection, capsule: Capsule) -> int:
        revision = await self._log(connection, capsule.kind, capsule.uuid, capsule.project_id, deleted=True)
        await connection.execute(delete(ports).where(ports.c.capsule_uuid == capsule.uuid))
        await connection.execute(delete(capsules).where(capsules.c.uuid == capsule.uuid))
        return revision

    async def _one(self, connection: AsyncConnection, condition: Any) -> Capsule | None:
        found = await self._some(connection, select(capsules).where(condition))
        return found[0] if found else None

    async def _some(self, connection: AsyncConnection, statement: Any) -> list[Capsule]:
        found = (await connection.execute(statement)).all()
        if not found:
            return []
        claimed = await self._ports(connection, [row.uuid for row in found])
        return [rows.capsule(row, claimed.get(row.uuid, []), self._networks) for row in found]

    async def _ports(self, connection: AsyncConnection, uuids: Sequence[str]) -> dict[str, list[Port]]:
        claimed: dict[str, list[Port]] = {}
        for start in range(0, len(uuids), 500):
            query = select(ports).where(ports.c.capsule_uuid.in_(uuids[start : start + 500]))
            for row in (await connection.execute(query)).all():
                claimed.setdefault(row.capsule_uuid, []).append(rows.port(row))
                if row.network_uuid not in self._networks:
                    # Networks never change, so that each is read once.
                    wanted = select(networks).where(networks.c.uuid == row.network_uuid)
                    found = (await connection.execute(wanted)).one()
                    self._networks[row.network_uuid] = rows.network(found)
        return claimed


def _silent_hosts(before_us: int) -> Any:
    """Hosts last seen before that time. `connected` may be left over from a server that was killed."""
    return select(hosts.c.uuid).where(hosts.c.last_seen_us < before_us)


def _filter(key: str, value: str | bool) -> Any:
    if key == "host":
        return capsules.c.host_uuid == value
    if key == "memory":
        digits = str(value)
        return capsules.c.memory_mib == (
            int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else -1
        )
    if key == "status":
        return func.lower(capsules.c.status) == str(value).lower()
    return rows.COLUMNS[key] == value


def _after(column: Any, marker_id: int, marker_value: Any, *, descending: bool) -> Any:
    beyond_id = capsules.c.id < marker_id if descending else capsules.c.id > marker_id
    if column is capsules.c.id:
        return beyond_id
    if marker_value is None:
        # NULLs sort first on SQLite and MariaDB, last on PostgreSQL in ascending order: keep to ids within them.
        within = and_(column.is_(None), beyond_id)
        return within if descending else or_(within, column.is_not(None))
    marker = literal(marker_value, column.type)
    after = or_(column < marker if descending else column > marker, and_(column == marker, beyond_id))
    return or_(after, column.is_(None)) if descending else after
