"""The store's hosts: their links, what belongs on them, and what their agents report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import msgspec
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import actions as sql_actions
from askos.adapters.sql import events as sql_events
from askos.adapters.sql import registries as sql_registries
from askos.adapters.sql import rows
from askos.adapters.sql.base import CHUNK
from askos.adapters.sql.capsules import CapsuleStore
from askos.adapters.sql.schema import capsules, hosts
from askos.model.capsules import Assignment, Capsule, CapsuleReport, Report, Wish
from askos.model.errors import ConflictError, NotFoundError
from askos.model.hosts import Host, HostFacts
from askos.model.pods import Content
from askos.ports.store import Change


class AgentStore(CapsuleStore):
    """What the link needs."""

    # -- assignments -------------------------------------------------------------------------------------------

    async def assignments(self, host_uuid: str) -> list[Assignment]:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            return await self._assigned(connection, capsules.c.host_uuid == host_uuid)

    async def assignments_of(self, host_uuid: str, uuids: list[str]) -> list[Assignment]:
        """See `ports.store.Store`."""
        found: list[Assignment] = []
        async with self._db.read() as connection:
            for start in range(0, len(uuids), CHUNK):
                mine = capsules.c.uuid.in_(uuids[start : start + CHUNK]) & (capsules.c.host_uuid == host_uuid)
                found += await self._assigned(connection, mine)
        return found

    async def _assigned(self, connection: AsyncConnection, condition: object) -> list[Assignment]:
        found = (await connection.execute(select(capsules).where(condition))).all()  # type: ignore[arg-type]
        sealed = {row.uuid: row.content for row in found}
        known = await sql_registries.rows_by_uuid(connection, {row.registry_uuid for row in found} - {None})
        registry = {row.uuid: known.get(row.registry_uuid) for row in found}
        assigned: list[Assignment] = []
        for c in await self._whole(connection, found):
            content = Content() if sealed[c.uuid] is None else self._sealer.open(c.uuid, sealed[c.uuid])
            row = registry[c.uuid]
            if row is not None:
                spec, content = sql_registries.with_log_in(c.spec, content, row, self._sealer)
                assigned.append(rows.assignment(msgspec.structs.replace(c, spec=spec), content))
            else:
                assigned.append(rows.assignment(c, content))
        return assigned

    async def generations(self, host_uuid: str) -> dict[str, tuple[int, int]]:
        """See `ports.store.Store`."""
        query = select(capsules.c.uuid, capsules.c.epoch, capsules.c.wish).where(capsules.c.host_uuid == host_uuid)
        async with self._db.read() as connection:
            found = (await connection.execute(query)).all()
        return {row.uuid: (row.epoch, rows.wish_of(row.wish).generation) for row in found}

    # -- reports -----------------------------------------------------------------------------------------------

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
                    changed.append(await self._remove(connection, capsule, sent.report))
                    forget.append(capsule.uuid)
                    del known[capsule.uuid]
                    continue
                await sql_events.add(connection, capsule.uuid, sent.events, self._clock())
                revision = await self._write_report(connection, capsule, sent.report)
                known[capsule.uuid] = msgspec.structs.replace(capsule, report=sent.report)
                if revision:
                    changed.append(
                        Change(revision, capsule.kind, capsule.uuid, deleted=False, project_id=capsule.project_id)
                    )
        for change in changed:
            self._on_change(change)
        await self._auto_remove([known[r.capsule_uuid] for r in reports if r.capsule_uuid in known])
        return forget

    async def _write_report(self, connection: AsyncConnection, capsule: Capsule, report: Report) -> int:
        same = msgspec.structs.replace(report, observed_us=0) == msgspec.structs.replace(capsule.report, observed_us=0)
        if same and capsule.placement.failure is None:
            return 0
        if report.settled and not (capsule.report.settled and capsule.report.generation == report.generation):
            await sql_actions.settle(connection, capsule, report, self._clock())
        # The host speaks: that it was silent is no failure any more.
        placement = msgspec.structs.replace(capsule.placement, failure=None)
        capsule = msgspec.structs.replace(capsule, report=report, placement=placement)
        return await self._save(connection, capsule, report=rows.text(report), placement_failure=None)

    async def _auto_remove(self, seen: Iterable[Capsule]) -> None:
        """Turn the user's auto_remove into the wish to delete, once the process (all of a pod's) has ended for good."""
        for capsule in seen:
            current = capsule.report.generation == capsule.wish.generation
            if capsule.spec.auto_remove and _ended(capsule.report) and current and capsule.wish.state != "deleted":

                def delete_it(now: Capsule, generation: int = capsule.wish.generation) -> Wish:
                    if now.wish.generation != generation:
                        return now.wish  # the user was quicker
                    return msgspec.structs.replace(
                        now.wish, state="deleted", task="deleting", generation=generation + 1, at_us=self._clock()
                    )

                with contextlib.suppress(NotFoundError):
                    await self.wish(capsule.uuid, delete_it)

    # -- hosts -------------------------------------------------------------------------------------------------

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
                "updated_us": now,
            }
            if row is None:
                highest = (await connection.execute(select(func.max(hosts.c.number)))).scalar() or 0
                await connection.execute(
                    insert(hosts).values(
                        uuid=facts.uuid,
                        availability_zone=availability_zone,
                        number=highest + 1,
                        created_us=now,
                        **values,
                    )
                )
            else:
                await connection.execute(update(hosts).where(hosts.c.uuid == facts.uuid).values(**values))
            revision = await self._log(connection, "host", facts.uuid, None)
        self._on_change(Change(revision, "host", facts.uuid, deleted=False, host_uuid=facts.uuid))
        return int(values["session"])

    async def host_seen(self, host_uuid: str, session: int, *, connected: bool) -> None:
        """See `ports.store.Store`."""
        async with self._db.write() as connection:
            await connection.execute(
                update(hosts)
                .where(hosts.c.uuid == host_uuid, hosts.c.session == session)
                .values(
                    connected=connected,
                    last_seen_us=self._clock(),
                    updated_us=self._clock(),
                    report_count=hosts.c.report_count + int(connected),
                )
            )

    async def hosts(self) -> list[Host]:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            return [rows.host(row) for row in (await connection.execute(select(hosts))).all()]

    async def host_names(self) -> dict[str, str]:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            found = (await connection.execute(select(hosts.c.uuid, hosts.c.hostname))).all()
        return {row.uuid: row.hostname for row in found}


def _ended(report: Report) -> bool:
    if report.pod is not None:
        return report.pod.phase in ("Succeeded", "Failed")
    return report.settled and report.state == "exited"
