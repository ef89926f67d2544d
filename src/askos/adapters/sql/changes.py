"""The store's change log."""

from __future__ import annotations

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import queries, rows
from askos.adapters.sql.base import CHUNK, Base
from askos.adapters.sql.schema import capsules, changes, cloud
from askos.model.capsules import Capsule
from askos.model.errors import InvalidError
from askos.ports.store import Change, Kind, Moved, Query

_PRUNED = "pruned_revision"
"""The fact that holds the newest revision that is forgotten."""


class ChangeLog(Base):
    """Reading and pruning."""

    async def changes(
        self, after: int, limit: int = 1000, *, kind: Kind | None = None, project_id: str | None = None
    ) -> list[Change]:
        """See `ports.store.Store`."""
        query = select(changes).where(changes.c.revision > after).order_by(changes.c.revision).limit(limit)
        if kind is not None:
            query = query.where(changes.c.kind == kind)
        if project_id is not None:
            query = query.where(changes.c.project_id == project_id)
        async with self._db.read() as connection:
            found = (await connection.execute(query)).all()
            # Asked afterwards: rows that were pruned before the query are seen to be missing.
            if after < await _pruned(connection):
                raise _gone(after)
        return [rows.change(row) for row in found]

    async def moved(self, after: int, project_id: str | None, limit: int = 500) -> tuple[int, list[Moved]]:
        """See `ports.store.Store`."""
        async with self._db.snapshot() as connection:
            newest = (await connection.execute(select(func.max(changes.c.revision)))).scalar()
            pruned = await _pruned(connection)
            newest = pruned if newest is None else int(newest)
            if not pruned <= after <= newest:
                raise _gone(after)
            query = select(changes.c.revision, changes.c.uuid).where(
                changes.c.revision > after, changes.c.kind == "capsule"
            )
            if project_id is not None:
                query = query.where(changes.c.project_id == project_id)
            found = (await connection.execute(query.order_by(changes.c.revision).limit(limit))).all()
            if len(found) == limit:
                newest = found[-1].revision
            first: dict[str, int] = {}
            for row in found:
                first.setdefault(row.uuid, row.revision)
            return newest, await self._moved(connection, after, first)

    async def _moved(self, connection: AsyncConnection, after: int, first: dict[str, int]) -> list[Moved]:
        """What became of pods, by the revision of their first change."""
        told: dict[str, list[Change]] = {}
        living: dict[str, Capsule] = {}
        uuids = list(first)
        for start in range(0, len(uuids), CHUNK):
            chunk = uuids[start : start + CHUNK]
            # How they came, went and were labelled: also beyond the limit, as they are shown as they are now.
            query = (
                select(changes)
                .where(
                    changes.c.revision > after,
                    changes.c.uuid.in_(chunk),
                    or_(changes.c.created, changes.c.deleted, changes.c.labels_before.is_not(None)),
                )
                .order_by(changes.c.revision)
            )
            for row in (await connection.execute(query)).all():
                told.setdefault(row.uuid, []).append(rows.change(row))
            for capsule in await self._some(connection, select(capsules).where(capsules.c.uuid.in_(chunk))):
                living[capsule.uuid] = capsule
        return [
            moved
            for uuid, revision in first.items()
            if (moved := _summed_up(told.get(uuid, []), living.get(uuid), revision)) is not None
        ]

    async def moved_projects(self, after: int) -> list[str]:
        """See `ports.store.Store`."""
        query = select(changes.c.project_id).where(changes.c.revision > after, changes.c.kind == "capsule").distinct()
        async with self._db.read() as connection:
            return [str(project_id) for project_id in (await connection.execute(query)).scalars()]

    async def revision(self) -> int:
        """See `ports.store.Store`."""
        async with self._db.read() as connection:
            newest = (await connection.execute(select(func.max(changes.c.revision)))).scalar()
            return int(newest) if newest is not None else await _pruned(connection)

    async def page_now(self, query: Query) -> tuple[int, list[tuple[str, int]]]:
        """See `ports.store.Store`."""
        pairs = select(capsules.c.uuid, capsules.c.revision)
        newest = select(func.max(changes.c.revision)).scalar_subquery()
        async with self._db.read() as connection:
            # One statement sees one state: on SQLite each would see its own.
            statement = await queries.paged(connection, query, pairs.add_columns(newest))
            found = (await connection.execute(statement)).all()
            if found and found[0][2] is not None:
                return int(found[0][2]), [(row[0], row[1]) for row in found]
        # Nothing to see, or a log that is pruned to its end: look again, after the revision.
        revision = await self.revision()
        async with self._db.read() as connection:
            statement = await queries.paged(connection, query, pairs)
            return revision, [(row[0], row[1]) for row in (await connection.execute(statement)).all()]

    async def prune_changes(self, keep: int) -> None:
        """Forget all but the newest `keep` changes."""
        upto = await self.revision() - keep
        async with self._db.write() as connection:
            if upto <= await _pruned(connection):
                return
            await connection.execute(delete(changes).where(changes.c.revision <= upto))
            fact = update(cloud).where(cloud.c.key == _PRUNED).values(value=str(upto))
            if (await connection.execute(fact)).rowcount == 0:
                await connection.execute(insert(cloud).values(key=_PRUNED, value=str(upto)))


def _summed_up(told: list[Change], living: Capsule | None, first: int) -> Moved | None:
    last = next((change.last for change in told if change.deleted), None)
    capsule = living or last
    if capsule is None:
        return None  # removed by a version that wrote no tombstones
    return Moved(
        capsule,
        first,
        deleted=living is None,
        created=any(change.created for change in told),
        labels_before=next((c.labels_before for c in told if c.labels_before is not None), None),
    )


def _gone(after: int) -> InvalidError:
    return InvalidError(
        f"The changes after revision {after} are not known (any more). List anew, and go on from there.",
        "revision-gone",
    )


async def _pruned(connection: AsyncConnection) -> int:
    value = (await connection.execute(select(cloud.c.value).where(cloud.c.key == _PRUNED))).scalar()
    return int(value) if value is not None else 0
