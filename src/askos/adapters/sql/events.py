"""Events of capsules, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import rows
from askos.adapters.sql.schema import capsule_events
from askos.model.pods import Event

KEEP = 200
"""Different events kept of one capsule."""


async def of(connection: AsyncConnection, capsule_uuid: str) -> list[Event]:
    """What was told about a capsule, oldest first."""
    table = capsule_events
    query = select(table).where(table.c.capsule_uuid == capsule_uuid).order_by(table.c.last_us, table.c.id)
    return [rows.event(row) for row in (await connection.execute(query)).all()]


async def add(connection: AsyncConnection, capsule_uuid: str, told: Sequence[Event], now_us: int) -> None:
    """Count what was told before, write what is new, forget what is oldest."""
    if not told:
        return
    table = capsule_events
    query = select(table).where(table.c.capsule_uuid == capsule_uuid).order_by(table.c.last_us, table.c.id)
    known = {
        (row.type, row.reason, row.message, row.container): (row.id, row.times, row.last_us)
        for row in (await connection.execute(query)).all()
    }
    for event in told:
        key = (event.type, event.reason[:255], event.message, event.container)
        at_us = event.at_us or now_us
        if key in known:
            number, count, last_us = known[key]
            count, last_us = count + event.count, max(last_us, at_us)
            await connection.execute(update(table).where(table.c.id == number).values(times=count, last_us=last_us))
        else:
            count, last_us = event.count, at_us
            result = await connection.execute(
                insert(table).values(
                    capsule_uuid=capsule_uuid,
                    type=event.type,
                    reason=event.reason[:255],
                    message=event.message,
                    container=event.container,
                    times=count,
                    first_us=event.first_us or at_us,
                    last_us=last_us,
                )
            )
            number = result.inserted_primary_key[0] if result.inserted_primary_key else 0
        known[key] = (number, count, last_us)
    if len(known) > KEEP:
        oldest = sorted(known.values(), key=lambda entry: (entry[2], entry[0]))[: len(known) - KEEP]
        await connection.execute(delete(table).where(table.c.id.in_([entry[0] for entry in oldest])))
