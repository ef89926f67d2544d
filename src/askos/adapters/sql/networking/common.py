"""What all parts of the network service's store share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Table, or_, true
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import networks as sql_networks
from askos.adapters.sql.database import Database
from askos.adapters.sql.schema import networks
from askos.model.networks import TenantNetwork
from askos.ports.clock import now_us as system_clock
from askos.ports.network_store import Who
from askos.ports.store import Change

CHUNK = 500
EXTERNAL_CIDR = "172.24.4.0/24"


class Common:
    """The database, the clock, and whom to tell. `on_change` is called after each commit that hosts may have to know
    of, `on_capsule` for each capsule whose networks are others than its host was told. `external_cidr` is the range of
    floating addresses."""

    def __init__(
        self,
        database: Database,
        *,
        on_change: Callable[[], None] | None = None,
        on_capsule: Callable[[Change], None] | None = None,
        clock: Callable[[], int] = system_clock,
        external_cidr: str = EXTERNAL_CIDR,
    ) -> None:
        self._db = database
        self._on_change = on_change or (lambda: None)
        self._on_capsule = on_capsule or (lambda _change: None)
        self._clock = clock
        self._external_cidr = external_cidr


def owned(table: Table, project_id: str | None, uuids: list[str] | None = None) -> list[ColumnElement[bool]]:
    """Conditions on a table with uuid and project_id; None does not matter."""
    found: list[ColumnElement[bool]] = []
    if project_id is not None:
        found.append(table.c.project_id == project_id)
    if uuids is not None:
        found.append(table.c.uuid.in_(uuids))
    return found


def visible(who: Who) -> ColumnElement[bool]:
    """The networks that a caller may see."""
    if who.is_admin:
        return true()
    return or_(networks.c.project_id == who.project_id, networks.c.shared, networks.c.external)


async def seen_network(connection: AsyncConnection, uuid: str, who: Who) -> TenantNetwork:
    """A network, locked. NotFoundError when it is not there for this caller."""
    row = await sql_networks.find(connection, uuid)
    if not (who.is_admin or row.project_id == who.project_id or row.shared or row.external):
        raise sql_networks.missing(uuid)
    return row


def stamped(table: Table, now_us: int, **values: Any) -> dict[str, Any]:
    """The columns of a change: what is not None, and that there was one."""
    given = {name: value for name, value in values.items() if value is not None}
    return {**given, "updated_us": now_us, "changed": table.c.changed + 1}


async def names_of(connection: AsyncConnection, query: Any, limit: int = 3) -> str:
    """Some of what a query of one column finds, for a message; empty when it finds nothing."""
    found = list((await connection.execute(query.limit(limit + 1))).scalars())
    return ", ".join(map(str, found[:limit])) + (", ..." if len(found) > limit else "")
