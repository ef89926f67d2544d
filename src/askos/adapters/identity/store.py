"""SQL of users, projects, roles and their assignments. Each function works within the caller's transaction.

With `lock`, nobody else changes the rows that were found until the caller's transaction ends.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, delete, exists, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import schema
from askos.model.identity import Project, Role, RoleAssignment, User

_projects = schema.projects
_users = schema.users
_roles = schema.roles
_assignments = schema.role_assignments

# Prefixed, so that rows of a join have no two columns of one name.
PROJECT_COLUMNS = [_projects.c[name].label(f"p_{name}") for name in ("id", "name", "description", "enabled")]
USER_COLUMNS = [
    _users.c[name].label(f"u_{name}") for name in ("id", "name", "description", "enabled", "default_project_id")
]
_ROLE_COLUMNS = [_roles.c.id.label("r_id"), _roles.c.name.label("r_name")]


def project_of(row: Row[Any]) -> Project:
    """A project from a row with the project columns."""
    return Project(id=row.p_id, name=row.p_name, description=row.p_description, enabled=row.p_enabled)


def user_of(row: Row[Any]) -> User:
    """A user from a row with the user columns."""
    return User(
        id=row.u_id,
        name=row.u_name,
        description=row.u_description,
        enabled=row.u_enabled,
        default_project_id=row.u_default_project_id,
    )


def _where(query: Select[Any], column_values: dict[Any, Any]) -> Select[Any]:
    for column, value in column_values.items():
        if value is not None:
            query = query.where(column == value)
    return query


async def find_projects(
    connection: AsyncConnection,
    *,
    project_id: str | None = None,
    name: str | None = None,
    enabled: bool | None = None,
    user_id: str | None = None,
    lock: bool = False,
) -> list[Project]:
    """Projects by name; with `user_id`, only those in which that user has a role."""
    query = select(*PROJECT_COLUMNS).order_by(_projects.c.name)
    query = _where(query, {_projects.c.id: project_id, _projects.c.name: name, _projects.c.enabled: enabled})
    if user_id is not None:
        query = query.where(
            exists().where(_assignments.c.project_id == _projects.c.id, _assignments.c.user_id == user_id)
        )
    return [project_of(row) for row in await connection.execute(query.with_for_update() if lock else query)]


async def add_project(connection: AsyncConnection, project: Project, now_us: int) -> None:
    """Insert a project. IntegrityError when its name is taken."""
    await connection.execute(
        insert(_projects).values(
            id=project.id,
            name=project.name,
            description=project.description,
            enabled=project.enabled,
            created_us=now_us,
        )
    )


async def set_project(connection: AsyncConnection, project: Project) -> bool:
    """Replace a project's facts; False when there is none. IntegrityError when the name is taken."""
    result = await connection.execute(
        update(_projects)
        .where(_projects.c.id == project.id)
        .values(name=project.name, description=project.description, enabled=project.enabled)
    )
    return result.rowcount > 0


async def project_owns(connection: AsyncConnection, project_id: str) -> dict[str, list[str]]:
    """Names of some capsules and networks of a project, by kind; empty when nothing is left."""
    owned = {}
    for kind, table in (("capsules", schema.capsules), ("networks", schema.networks)):
        rows = await connection.execute(select(table.c.name).where(table.c.project_id == project_id).limit(4))
        if names := list(rows.scalars()):
            owned[kind] = names
    return owned


async def remove_project(connection: AsyncConnection, project_id: str) -> bool:
    """Delete a project; assignments, application credentials and tokens go with it."""
    await connection.execute(
        update(_users).where(_users.c.default_project_id == project_id).values(default_project_id=None)
    )
    # Its default security group was made unasked, and goes unasked.
    groups = schema.security_groups
    worn = select(schema.port_groups.c.group_uuid)
    await connection.execute(delete(groups).where(groups.c.default_of == project_id, groups.c.uuid.not_in(worn)))
    return (await connection.execute(delete(_projects).where(_projects.c.id == project_id))).rowcount > 0


async def find_users(
    connection: AsyncConnection,
    *,
    user_id: str | None = None,
    name: str | None = None,
    enabled: bool | None = None,
    lock: bool = False,
) -> list[User]:
    """Users by name."""
    query = select(*USER_COLUMNS).order_by(_users.c.name)
    query = _where(query, {_users.c.id: user_id, _users.c.name: name, _users.c.enabled: enabled})
    return [user_of(row) for row in await connection.execute(query.with_for_update() if lock else query)]


async def user_with_hash(
    connection: AsyncConnection, *, user_id: str | None = None, name: str | None = None, lock: bool = False
) -> tuple[User, str | None] | None:
    """A user and the hash of the password."""
    query = _where(select(*USER_COLUMNS, _users.c.password_hash), {_users.c.id: user_id, _users.c.name: name})
    row = (await connection.execute(query.with_for_update() if lock else query)).first()
    return None if row is None else (user_of(row), row.password_hash)


async def any_user(connection: AsyncConnection) -> bool:
    """Whether there is a user at all."""
    return (await connection.execute(select(_users.c.id).limit(1))).first() is not None


async def add_user(connection: AsyncConnection, user: User, password_hash: str | None, now_us: int) -> None:
    """Insert a user. IntegrityError when the name is taken."""
    await connection.execute(
        insert(_users).values(
            id=user.id,
            name=user.name,
            password_hash=password_hash,
            enabled=user.enabled,
            description=user.description,
            default_project_id=user.default_project_id,
            created_us=now_us,
        )
    )


async def set_user(connection: AsyncConnection, user: User) -> bool:
    """Replace a user's facts; False when there is none. IntegrityError when the name is taken."""
    result = await connection.execute(
        update(_users)
        .where(_users.c.id == user.id)
        .values(
            name=user.name,
            enabled=user.enabled,
            description=user.description,
            default_project_id=user.default_project_id,
        )
    )
    return result.rowcount > 0


async def set_password_hash(
    connection: AsyncConnection, user_id: str, new: str, *, instead_of: str | None = None
) -> bool:
    """Store a hash; with `instead_of`, only while that one is still there. False when nothing was changed."""
    query = update(_users).where(_users.c.id == user_id)
    if instead_of is not None:
        query = query.where(_users.c.password_hash == instead_of)
    return (await connection.execute(query.values(password_hash=new))).rowcount > 0


async def remove_user(connection: AsyncConnection, user_id: str) -> bool:
    """Delete a user; assignments, application credentials and tokens go with it."""
    return (await connection.execute(delete(_users).where(_users.c.id == user_id))).rowcount > 0


async def find_roles(connection: AsyncConnection, *, role_id: str | None = None, name: str | None = None) -> list[Role]:
    """Roles by name."""
    query = _where(select(*_ROLE_COLUMNS).order_by(_roles.c.name), {_roles.c.id: role_id, _roles.c.name: name})
    return [Role(id=row.r_id, name=row.r_name) for row in await connection.execute(query)]


async def add_role(connection: AsyncConnection, role: Role) -> None:
    """Insert a role. IntegrityError when the name is taken."""
    await connection.execute(insert(_roles).values(id=role.id, name=role.name))


async def find_assignments(
    connection: AsyncConnection,
    *,
    user_id: str | None = None,
    project_id: str | None = None,
    role_id: str | None = None,
) -> list[RoleAssignment]:
    """Role assignments by project, user and role."""
    query = (
        select(*USER_COLUMNS, *PROJECT_COLUMNS, *_ROLE_COLUMNS)
        .select_from(_assignments.join(_users).join(_projects).join(_roles))
        .order_by(_projects.c.name, _users.c.name, _roles.c.name)
    )
    query = _where(
        query,
        {
            _assignments.c.user_id: user_id,
            _assignments.c.project_id: project_id,
            _assignments.c.role_id: role_id,
        },
    )
    return [
        RoleAssignment(user=user_of(row), project=project_of(row), role=Role(id=row.r_id, name=row.r_name))
        for row in await connection.execute(query)
    ]


async def add_assignment(connection: AsyncConnection, user_id: str, project_id: str, role_id: str) -> None:
    """Insert an assignment. IntegrityError when it exists, or one of the three does not."""
    await connection.execute(insert(_assignments).values(user_id=user_id, project_id=project_id, role_id=role_id))


async def remove_assignment(connection: AsyncConnection, user_id: str, project_id: str, role_id: str) -> bool:
    """Delete an assignment; False when there is none."""
    result = await connection.execute(
        delete(_assignments).where(
            _assignments.c.user_id == user_id,
            _assignments.c.project_id == project_id,
            _assignments.c.role_id == role_id,
        )
    )
    return result.rowcount > 0
