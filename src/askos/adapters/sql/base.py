"""What all parts of the store share: the connection, the clock, and how capsules are read and written in a transaction.

Each write appends to the change log and, after the commit, calls `on_change` for what changed. That call is only a
hint to loops in this process; whoever must not miss anything reads the change log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import exposing, rows
from askos.adapters.sql import ports as sql_ports
from askos.adapters.sql import volumes as sql_volumes
from askos.adapters.sql.database import Database
from askos.adapters.sql.schema import (
    capsule_events,
    capsule_labels,
    capsules,
    changes,
    container_actions,
    session_tickets,
)
from askos.adapters.sql.sealing import Sealer
from askos.model.capsules import Capsule, CapsuleSpec, Report
from askos.model.errors import SetupError
from askos.model.quotas import Limits
from askos.ports.clock import now_us as system_clock
from askos.ports.store import Change

# Statements that every start makes, built once: building one costs twice what it costs to run.
_LOG = insert(changes)
_SAVE = update(capsules).where(capsules.c.uuid == bindparam("of"))
_ONE = select(capsules).where(capsules.c.uuid == bindparam("of"))

CHUNK = 500
"""Uuids in one IN (...): SQLite's limit on variables is far above; equal statements stay in SQLAlchemy's cache."""


class Base:
    """The common ground of the store's parts. Without a `sealer` no capsule can have content. `default_limits`: what a
    project may use when nothing else is said of it."""

    def __init__(
        self,
        database: Database,
        *,
        on_change: Callable[[Change], None] | None = None,
        clock: Callable[[], int] = system_clock,
        sealer: Sealer | None = None,
        default_limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._db = database
        self._on_change = on_change or (lambda _change: None)
        self._clock = clock
        self._given_sealer = sealer
        self._default_limits = default_limits

    @property
    def _sealer(self) -> Sealer:
        if self._given_sealer is None:
            raise SetupError("This store has no content key, so it cannot keep config maps and secrets.")
        return self._given_sealer

    # -- writing, inside a transaction -------------------------------------------------------------------------

    async def _log(self, connection: AsyncConnection, kind: str, uuid: str, project_id: str | None, **more: Any) -> int:
        """Append to the change log; returns the revision."""
        values = {"kind": kind, "uuid": uuid, "project_id": project_id, "at_us": self._clock()}
        result = await connection.execute(_LOG, {"deleted": False, **values, **more})
        key: Row[Any] | None = result.inserted_primary_key
        assert key is not None
        return int(key[0])

    async def _save(
        self, connection: AsyncConnection, capsule: Capsule, *, labels_before: str | None = None, **values: Any
    ) -> int:
        """Write columns of a capsule, and those that derive from it as it is given."""
        revision = await self._log(
            connection, capsule.kind, capsule.uuid, capsule.project_id, labels_before=labels_before
        )
        columns = {
            "revision": revision,
            "updated_us": self._clock(),
            **rows.derived(capsule.wish, capsule.placement, capsule.report),
            **values,
        }
        await connection.execute(_SAVE, {"of": capsule.uuid, **columns})
        return revision

    async def _remove(self, connection: AsyncConnection, capsule: Capsule, report: Report | None = None) -> Change:
        """Remove a capsule with all that hangs on it. What watchers of pods are told goes into the change log:
        the capsule as it was, with its host's last `report`."""
        last: Capsule | None = None
        if capsule.kind == "capsule":
            said = report if report is not None and report.pod is not None else capsule.report
            last = msgspec.structs.replace(capsule, report=said)
        await sql_volumes.detach(connection, capsule.uuid)
        revision = await self._log(
            connection,
            capsule.kind,
            capsule.uuid,
            capsule.project_id,
            deleted=True,
            last=None if last is None else rows.text(last),
        )
        await sql_ports.release(connection, capsule.uuid, self._clock())
        await exposing.conceal(connection, capsule.uuid, capsule.project_id, capsule.spec)
        for table in (capsule_labels, capsule_events, container_actions, session_tickets):
            await connection.execute(delete(table).where(table.c.capsule_uuid == capsule.uuid))
        await connection.execute(delete(capsules).where(capsules.c.uuid == capsule.uuid))
        return Change(
            revision,
            capsule.kind,
            capsule.uuid,
            deleted=True,
            host_uuid=capsule.placement.host_uuid,
            project_id=capsule.project_id,
            last=last and msgspec.structs.replace(last, revision=revision),
        )

    # -- reading -----------------------------------------------------------------------------------------------

    async def _one(self, connection: AsyncConnection, uuid: str) -> Capsule | None:
        found = await self._whole(connection, (await connection.execute(_ONE, {"of": uuid})).all())
        return found[0] if found else None

    async def _some(self, connection: AsyncConnection, statement: Any) -> list[Capsule]:
        return await self._whole(connection, (await connection.execute(statement)).all())

    async def _whole(self, connection: AsyncConnection, found: Sequence[Row[Any]]) -> list[Capsule]:
        """Capsules of rows of `schema.capsules`, with what other tables say of them."""
        if not found:
            return []
        claimed = await sql_ports.of_capsules(connection, [row.uuid for row in found])
        specs = {row.uuid: rows.spec_of(row.spec) for row in found}
        mounting = [uuid for uuid, spec in specs.items() if _may_mount(spec)]
        grants = await sql_volumes.grants_of(connection, mounting) if mounting else {}
        return [
            rows.capsule(row, specs[row.uuid], *claimed.get(row.uuid, ([], [])), grants.get(row.uuid, []))
            for row in found
        ]


def _may_mount(spec: CapsuleSpec) -> bool:
    """Whether a capsule can have volumes: pods say so in many ways, containers in one."""
    return spec.pod is not None or any(mount.volume for c in spec.containers for mount in c.mounts)
