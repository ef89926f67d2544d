"""The log of actions, inside the caller's transaction."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql.schema import container_actions
from askos.model.actions import Action, ActionEvent, NewAction
from askos.model.capsules import Capsule, Report

_events_of = msgspec.json.Decoder(list[ActionEvent]).decode


NO_WISH = 1 << 62
"""The generation of actions that make no wish: no report settles them."""


async def begin(connection: AsyncConnection, capsule_uuid: str, action: NewAction, generation: int, now_us: int) -> int:
    """Note that an action has begun with the wish of this generation; returns its number."""
    row = {
        "capsule_uuid": capsule_uuid,
        "action": action.action,
        "request_id": action.request_id,
        "user_id": action.user_id,
        "project_id": action.project_id,
        "generation": generation,
        "start_us": now_us,
        "failed": False,
        "events": "[]",
    }
    made = await connection.execute(insert(container_actions), row)
    key: Row[Any] | None = made.inserted_primary_key
    assert key is not None
    return int(key[0])


async def end(connection: AsyncConnection, number: int, failure: str | None, now_us: int) -> None:
    """Note the end of an action that makes no wish, if it is still there."""
    query = select(container_actions).where(container_actions.c.id == number)
    row = (await connection.execute(query)).first()
    if row is not None and row.finish_us is None:
        event = _event(row.action, row.start_us, now_us, failure)
        await _finish(connection, number, [event], failed=failure is not None, now_us=now_us)


async def break_off(connection: AsyncConnection, now_us: int) -> None:
    """Finish actions that make no wish: whoever was to see to them has ended."""
    table = container_actions
    query = select(table).where(table.c.finish_us.is_(None), table.c.generation == NO_WISH)
    for row in (await connection.execute(query)).all():
        event = _event(row.action, row.start_us, now_us, "The server ended before it was known how it went.")
        await _finish(connection, row.id, [event], failed=True, now_us=now_us)


async def settle(connection: AsyncConnection, capsule: Capsule, report: Report, now_us: int) -> None:
    """Finish what a settled report fulfils or gives up: actions of its generation and of those before."""
    failure = (report.reason or "It failed.") if report.state == "error" else None
    mine = container_actions.c.generation <= report.generation
    for row in await _unfinished(connection, capsule.uuid, mine):
        # What another request has replaced meanwhile did not fail.
        why = failure if row.generation == report.generation else None
        events = [_event(row.action, row.start_us, now_us, why)]
        if row.action == "create" and capsule.wish.run:
            events = _created(row.start_us, report, now_us, why)
        await _finish(connection, row.id, events, failed=why is not None, now_us=now_us)


async def fail(connection: AsyncConnection, capsule_uuid: str, failure: str, now_us: int) -> None:
    """Finish everything that goes on: it came to nothing."""
    for row in await _unfinished(connection, capsule_uuid):
        event = _event(row.action, row.start_us, now_us, failure)
        await _finish(connection, row.id, [event], failed=True, now_us=now_us)


async def of(connection: AsyncConnection, capsule_uuid: str) -> list[Action]:
    """What was asked of a container, the newest first."""
    table = container_actions
    query = select(table).where(table.c.capsule_uuid == capsule_uuid).order_by(table.c.id.desc())
    return [
        Action(
            action=row.action,
            capsule_uuid=row.capsule_uuid,
            request_id=row.request_id,
            user_id=row.user_id,
            project_id=row.project_id,
            start_us=row.start_us,
            finish_us=row.finish_us,
            failed=row.failed,
            events=_events_of(row.events),
        )
        for row in (await connection.execute(query)).all()
    ]


async def _unfinished(
    connection: AsyncConnection, capsule_uuid: str, *conditions: ColumnElement[bool]
) -> list[Row[Any]]:
    table = container_actions
    mine = (table.c.capsule_uuid == capsule_uuid, table.c.finish_us.is_(None), *conditions)
    return list((await connection.execute(select(table).where(*mine).order_by(table.c.id))).all())


async def _finish(
    connection: AsyncConnection, number: int, events: list[ActionEvent], *, failed: bool, now_us: int
) -> None:
    await connection.execute(
        update(container_actions)
        .where(container_actions.c.id == number)
        .values(finish_us=now_us, failed=failed, events=_text(events))
    )


def _created(start_us: int, report: Report, now_us: int, failure: str | None) -> list[ActionEvent]:
    """A create that also starts has two steps; it is the first that failed when nothing was made."""
    container = report.containers[0] if report.containers else None
    if failure is not None and (container is None or not (container.container_id or container.image_id)):
        return [_event("create", start_us, now_us, failure)]
    between_us = container.started_us if container is not None else None
    made_us = min(max(between_us or now_us, start_us), now_us)
    return [_event("start", made_us, now_us, failure), _event("create", start_us, made_us, None)]


def _event(action: str, start_us: int, finish_us: int, failure: str | None) -> ActionEvent:
    word = f"do_container_{action}" if "_" not in action else action
    return ActionEvent(f"compute__{word}", start_us, finish_us, "Success" if failure is None else "Error", failure)


def _text(events: list[ActionEvent]) -> str:
    return msgspec.json.encode(events).decode()
