"""SQL of tokens and application credentials. Every function works within the caller's transaction.

A token is found by its SHA-256. What it is worth is read anew each time: a token of a disabled user or
project, or of an application credential that is gone, is worth nothing, whatever its row says.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.identity.store import PROJECT_COLUMNS, USER_COLUMNS, project_of, user_of
from askos.adapters.sql import schema
from askos.model.identity import ApplicationCredential, Role, Token, TokenCredential, effective_roles

_tokens = schema.tokens
_credentials = schema.application_credentials
_assignments = schema.role_assignments
_users = schema.users
_projects = schema.projects
_roles = schema.roles


async def roles_in(connection: AsyncConnection, user_id: str, project_id: str) -> list[Role]:
    """The effective roles of a user in a project."""
    rows = (
        await connection.execute(
            select(_roles.c.id, _roles.c.name, _assignments.c.user_id.label("holder")).select_from(
                _roles.outerjoin(
                    _assignments,
                    and_(
                        _assignments.c.role_id == _roles.c.id,
                        _assignments.c.user_id == user_id,
                        _assignments.c.project_id == project_id,
                    ),
                )
            )
        )
    ).all()
    every = [Role(id=row.id, name=row.name) for row in rows]
    return effective_roles([Role(id=row.id, name=row.name) for row in rows if row.holder is not None], every)


async def add_token(connection: AsyncConnection, digest: str, token: Token) -> None:
    """Insert a token. IntegrityError when its user or project is gone."""
    credential = token.application_credential
    await connection.execute(
        insert(_tokens).values(
            hash=digest,
            user_id=token.user.id,
            project_id=None if token.project is None else token.project.id,
            application_credential_id=None if credential is None else credential.id,
            methods=msgspec.json.encode(token.methods).decode(),
            audit_id=token.audit_id,
            issued_us=token.issued_us,
            expires_us=token.expires_us,
        )
    )


async def load_token(
    connection: AsyncConnection, digest: str, now_us: int, good_at_us: int | None = None
) -> Token | None:
    """The token of that hash as it is worth now, or None. `good_at_us`: the time at which it must not have expired yet;
    None: now."""
    good_at_us = now_us if good_at_us is None else good_at_us
    row = (
        await connection.execute(
            select(
                _tokens,
                *USER_COLUMNS,
                *PROJECT_COLUMNS,
                _credentials.c.id.label("c_id"),
                _credentials.c.name.label("c_name"),
                _credentials.c.roles.label("c_roles"),
                _credentials.c.unrestricted.label("c_unrestricted"),
                _credentials.c.expires_us.label("c_expires_us"),
            )
            .select_from(
                _tokens.join(_users)
                .outerjoin(_projects, _projects.c.id == _tokens.c.project_id)
                .outerjoin(_credentials, _credentials.c.id == _tokens.c.application_credential_id)
            )
            .where(_tokens.c.hash == digest)
        )
    ).first()
    if row is None or row.expires_us <= good_at_us or not row.u_enabled:
        return None
    roles: list[Role] = []
    if row.project_id is not None:
        roles = await roles_in(connection, row.user_id, row.project_id) if row.p_enabled else []
    credential = None
    if row.application_credential_id is not None:
        if row.c_id is None or (row.c_expires_us is not None and row.c_expires_us <= good_at_us):
            return None
        allowed = set(msgspec.json.decode(row.c_roles, type=list[str]))
        roles = effective_roles([role for role in roles if role.id in allowed], roles)
        credential = TokenCredential(id=row.c_id, name=row.c_name, unrestricted=row.c_unrestricted)
    if row.project_id is not None and not roles:
        return None
    return Token(
        user=user_of(row),
        project=None if row.project_id is None else project_of(row),
        roles=roles,
        methods=msgspec.json.decode(row.methods, type=list[str]),
        issued_us=row.issued_us,
        expires_us=row.expires_us,
        audit_id=row.audit_id,
        application_credential=credential,
    )


async def remove_token(connection: AsyncConnection, digest: str) -> None:
    """Delete a token, if it is there."""
    await connection.execute(delete(_tokens).where(_tokens.c.hash == digest))


async def remove_tokens(
    connection: AsyncConnection, *, user_id: str | None = None, project_id: str | None = None
) -> None:
    """Delete all tokens of a user, of a project, or of a user in a project."""
    query = delete(_tokens)
    if user_id is not None:
        query = query.where(_tokens.c.user_id == user_id)
    if project_id is not None:
        query = query.where(_tokens.c.project_id == project_id)
    assert user_id is not None or project_id is not None
    await connection.execute(query)


async def remove_oldest(connection: AsyncConnection, user_id: str, *, keep: int, limit: int) -> None:
    """Delete up to `limit` of a user's tokens, beyond the `keep` newest."""
    query = select(_tokens.c.hash).where(_tokens.c.user_id == user_id).order_by(_tokens.c.issued_us.desc())
    hashes = list((await connection.execute(query.offset(keep).limit(limit))).scalars())
    if hashes:
        await connection.execute(delete(_tokens).where(_tokens.c.hash.in_(hashes)))


async def remove_expired(connection: AsyncConnection, now_us: int, limit: int) -> int:
    """Delete up to `limit` expired tokens; how many it were."""
    old = (
        await connection.execute(select(_tokens.c.hash).where(_tokens.c.expires_us <= now_us).limit(limit))
    ).scalars()
    hashes = list(old)
    if hashes:
        await connection.execute(delete(_tokens).where(_tokens.c.hash.in_(hashes)))
    return len(hashes)


def _credential_of(row: Row[Any], roles: dict[str, Role]) -> ApplicationCredential:
    ids = msgspec.json.decode(row.roles, type=list[str])
    return ApplicationCredential(
        id=row.id,
        name=row.name,
        user_id=row.user_id,
        project_id=row.project_id,
        roles=[roles[role_id] for role_id in ids if role_id in roles],
        description=row.description,
        unrestricted=row.unrestricted,
        expires_us=row.expires_us,
    )


async def find_credentials(
    connection: AsyncConnection,
    *,
    credential_id: str | None = None,
    user_id: str | None = None,
    name: str | None = None,
) -> list[tuple[ApplicationCredential, str]]:
    """Application credentials by name, each with the hash of its secret."""
    query = select(_credentials).order_by(_credentials.c.name)
    wanted = (
        (_credentials.c.id, credential_id),
        (_credentials.c.user_id, user_id),
        (_credentials.c.name, name),
    )
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value)
    rows = (await connection.execute(query)).all()
    if not rows:
        return []
    roles = {row.id: Role(id=row.id, name=row.name) for row in await connection.execute(select(_roles))}
    return [(_credential_of(row, roles), row.secret_hash) for row in rows]


async def add_credential(
    connection: AsyncConnection, credential: ApplicationCredential, secret_hash: str, now_us: int
) -> None:
    """Insert an application credential. IntegrityError when the user has one of that name."""
    await connection.execute(
        insert(_credentials).values(
            id=credential.id,
            name=credential.name,
            description=credential.description,
            user_id=credential.user_id,
            project_id=credential.project_id,
            secret_hash=secret_hash,
            roles=msgspec.json.encode([role.id for role in credential.roles]).decode(),
            unrestricted=credential.unrestricted,
            expires_us=credential.expires_us,
            created_us=now_us,
        )
    )


async def set_secret_hash(connection: AsyncConnection, credential_id: str, new: str, instead_of: str) -> None:
    """Store another hash of the same secret, while the old one is still there."""
    await connection.execute(
        update(_credentials)
        .where(_credentials.c.id == credential_id, _credentials.c.secret_hash == instead_of)
        .values(secret_hash=new)
    )


async def remove_credentials(
    connection: AsyncConnection,
    *,
    user_id: str,
    credential_id: str | None = None,
    project_id: str | None = None,
) -> bool:
    """Delete one application credential of a user, or all in a project, with their tokens. False: none."""
    query = select(_credentials.c.id).where(_credentials.c.user_id == user_id)
    if credential_id is not None:
        query = query.where(_credentials.c.id == credential_id)
    if project_id is not None:
        query = query.where(_credentials.c.project_id == project_id)
    ids = list((await connection.execute(query)).scalars())
    if not ids:
        return False
    await connection.execute(delete(_tokens).where(_tokens.c.application_credential_id.in_(ids)))
    await connection.execute(delete(_credentials).where(_credentials.c.id.in_(ids)))
    return True
