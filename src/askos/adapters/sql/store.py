"""`ports.store.Store` on SQL, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import insert, select

from askos.adapters.sql.agents import AgentStore
from askos.adapters.sql.changes import ChangeLog
from askos.adapters.sql.placing import PlacementStore
from askos.adapters.sql.schema import cloud


class SqlStore(AgentStore, PlacementStore, ChangeLog):
    """The store on a migrated database."""

    async def fact(self, key: str, make: Callable[[], str]) -> str:
        """A fact of the cloud that is made once and then stays: `make()` at the first call."""
        async with self._db.write() as connection:
            value = (await connection.execute(select(cloud.c.value).where(cloud.c.key == key))).scalar()
            if value is None:
                value = make()
                await connection.execute(insert(cloud).values(key=key, value=value))
            return str(value)
