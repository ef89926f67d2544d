"""`ports.store.Store` on SQL, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete, func, insert, select

from askos.adapters.sql.agents import AgentStore
from askos.adapters.sql.attaching import AttachStore
from askos.adapters.sql.changes import ChangeLog
from askos.adapters.sql.placing import PlacementStore
from askos.adapters.sql.quotas import QuotaStore
from askos.adapters.sql.registries import RegistryStore
from askos.adapters.sql.schema import capsules, cloud, registries
from askos.adapters.sql.services import ServiceStore
from askos.adapters.sql.tickets import SqlTickets

CONTENT_KEY = "content_key"
"""The fact that tells which key content is sealed with, by its fingerprint."""


class SqlStore(AgentStore, AttachStore, PlacementStore, ChangeLog, QuotaStore, RegistryStore, ServiceStore, SqlTickets):
    """The store on a migrated database."""

    async def fact(self, key: str, make: Callable[[], str]) -> str:
        """A fact of the cloud that is made once and then stays: `make()` at the first call."""
        async with self._db.write() as connection:
            value = (await connection.execute(select(cloud.c.value).where(cloud.c.key == key))).scalar()
            if value is None:
                value = make()
                await connection.execute(insert(cloud).values(key=key, value=value))
            return str(value)

    async def unreadable(self, fingerprint: str) -> int:
        """How many capsules and registries have content that was sealed with another key than this one. With none the
        key is noted as the one in use, so that another one is found out at the next start."""
        async with self._db.write() as connection:
            noted = (await connection.execute(select(cloud.c.value).where(cloud.c.key == CONTENT_KEY))).scalar()
            if noted == fingerprint:
                return 0
            count = 0
            if noted is not None:
                for column in (capsules.c.content, registries.c.password):
                    sealed = select(func.count()).select_from(column.table).where(column.is_not(None))
                    count += int((await connection.execute(sealed)).scalar_one())
            if count == 0:
                await connection.execute(delete(cloud).where(cloud.c.key == CONTENT_KEY))
                await connection.execute(insert(cloud).values(key=CONTENT_KEY, value=fingerprint))
            return count
