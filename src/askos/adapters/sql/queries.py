"""List requests as SQL: filters, label selectors, sorting and paging."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, exists, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import rows
from askos.adapters.sql.schema import capsule_labels, capsules
from askos.model.errors import InvalidError, NotFoundError
from askos.ports.store import Kind, Query, Requirement

_NOUNS: dict[Kind, str] = {"container": "Container", "capsule": "Capsule"}


def not_found(kind: Kind, ident: str) -> NotFoundError:
    """The error for a capsule that does not exist, or not for this caller."""
    return NotFoundError(f"{_NOUNS[kind]} {ident} could not be found.", f"{kind}-not-found")


async def paged(connection: AsyncConnection, query: Query, statement: Any) -> Any:
    """A select from `schema.capsules`, narrowed to one page. NotFoundError for an unknown marker."""
    conditions: list[Any] = [capsules.c.kind == query.kind]
    if query.project_id is not None:
        conditions.append(capsules.c.project_id == query.project_id)
    if query.namespace is not None:
        conditions.append(capsules.c.namespace == query.namespace)
    conditions += [_filter(key, value) for key, value in query.filters.items()]
    conditions += [_labelled(term) for term in query.selector]
    if query.after is not None:
        conditions.append(capsules.c.id > query.after)
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
            raise not_found(query.kind, query.marker)
        conditions.append(_after(column, at[0], at[1], descending=descending))
    statement = statement.where(*conditions)
    order = [column.desc() if descending else column.asc()]
    if column_name != "id":
        order.append(capsules.c.id.desc() if descending else capsules.c.id.asc())
    return statement.order_by(*order).limit(query.limit)


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


def _labelled(term: Requirement) -> Any:
    mine = [capsule_labels.c.capsule_uuid == capsules.c.uuid, capsule_labels.c.key == term.key]
    if term.operator in ("in", "notin"):
        mine.append(capsule_labels.c.value.in_(term.values))
    found = exists().where(*mine)
    return found if term.operator in ("in", "exists") else ~found


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
