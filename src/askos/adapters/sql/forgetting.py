"""What nobody can read any more, because the content key is lost: finding it, and giving it up."""

from __future__ import annotations

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql.database import Database
from askos.adapters.sql.registries import sealed_as
from askos.adapters.sql.schema import capsules, cloud, registries
from askos.adapters.sql.sealing import Sealer
from askos.adapters.sql.store import CONTENT_KEY
from askos.model.errors import SetupError


class Sealed(msgspec.Struct, frozen=True):
    """A record with something that the present key does not open."""

    kind: str
    """container, capsule or registry."""
    uuid: str
    project_id: str
    name: str


async def unreadable(database: Database, sealer: Sealer) -> list[Sealed]:
    """All such records, by kind and project."""
    async with database.read() as connection:
        return await _found(connection, sealer)


async def forget(database: Database, sealer: Sealer, known: list[Sealed]) -> None:
    """Remove what the key does not open, and nothing else. SetupError when it is not (any more) exactly that of
    `known`, which somebody has agreed to."""
    async with database.write() as connection:
        if await _found(connection, sealer) != known:
            raise SetupError("What cannot be read has changed meanwhile. Look at it again; nothing was forgotten.")
        for each in known:
            # The revision of the content stays: nobody rewrites the files of what runs with nothing.
            if each.kind == "registry":
                statement = update(registries).where(registries.c.uuid == each.uuid).values(password=None)
            else:
                statement = update(capsules).where(capsules.c.uuid == each.uuid).values(content=None)
            await connection.execute(statement)
        await connection.execute(delete(cloud).where(cloud.c.key == CONTENT_KEY))


async def _found(connection: AsyncConnection, sealer: Sealer) -> list[Sealed]:
    found: list[Sealed] = []
    # One row at a time: all content together may be large.
    for table, column, name in ((capsules, capsules.c.content, str), (registries, registries.c.password, sealed_as)):
        kept = (await connection.execute(select(table.c.uuid).where(column.is_not(None)))).scalars().all()
        for uuid in kept:
            row = (await connection.execute(select(table, column.label("sealed")).where(table.c.uuid == uuid))).first()
            if row is None:
                continue
            try:
                sealer.open(name(uuid), row.sealed)
            except SetupError:
                kind = row.kind if table is capsules else "registry"
                found.append(Sealed(kind, uuid, row.project_id, row.name or ""))
    return sorted(found, key=lambda each: (each.kind, each.project_id, each.name, each.uuid))
