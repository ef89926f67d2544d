"""Users, projects and roles of the embedded identity service.

Whatever takes rights away deletes the tokens in the same transaction and drops them from the cache behind it.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.identity import store, token_store
from askos.adapters.identity.cache import TokenCache
from askos.adapters.identity.login import LogIn
from askos.adapters.identity.passwords import Passwords
from askos.adapters.sql.database import Database
from askos.model.errors import ConflictError, NotFoundError
from askos.model.identity import DOMAIN_ID, Named, Project, Role, RoleAssignment, User


def not_found(kind: str, key: str) -> NotFoundError:
    """Keystone's sentence for something that is not there."""
    return NotFoundError(f"Could not find {kind}: {key}.")


class EmbeddedDirectory:
    """See `ports.identity.Directory`."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        log_in: LogIn,
        cache: TokenCache,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._log_in = log_in
        self._cache = cache
        self._clock = clock

    async def users(self, *, name: str | None = None, enabled: bool | None = None) -> list[User]:
        """Users by name, filtered."""
        async with self._database.read() as connection:
            return await store.find_users(connection, name=name, enabled=enabled)

    async def user(self, user_id: str) -> User:
        """One user. NotFoundError."""
        async with self._database.read() as connection:
            return await _one_user(connection, user_id)

    async def create_user(self, user: User, password: str | None) -> User:
        """Add a user, who cannot log in with a password when that is None. ConflictError: name taken."""
        user = msgspec.structs.replace(user, id=user.id or uuid.uuid4().hex)
        hashed = None if password is None else await self._passwords.hash(password)
        async with self._unique("user", user.name) as connection:
            await _check_default_project(connection, user)
            await store.add_user(connection, user, hashed, self._clock())
        return user

    async def update_user(self, user_id: str, change: Callable[[User], User], password: str | None = None) -> User:
        """Change a user's facts. Disabling and a new password end the user's tokens."""
        hashed = None if password is None else await self._passwords.hash(password)
        async with self._unique("user", None) as connection:
            before = await _one_user(connection, user_id, lock=True)
            user = change(before)
            if user.default_project_id != before.default_project_id:
                await _check_default_project(connection, user)
            await store.set_user(connection, user)
            if hashed is not None:
                await store.set_password_hash(connection, user.id, hashed)
            if hashed is not None or not user.enabled:
                await token_store.remove_tokens(connection, user_id=user.id)
        self._cache.forget(user_id=user.id)
        return user

    async def delete_user(self, user_id: str) -> None:
        """Remove a user with everything that is the user's own. NotFoundError."""
        async with self._database.write() as connection:
            if not await store.remove_user(connection, user_id):
                raise not_found("user", user_id)
        self._cache.forget(user_id=user_id)

    async def change_password(self, user_id: str, original: str, password: str, source: str) -> None:
        """Replace a password by someone who knows it; ends all tokens of the user."""
        proof = await self._log_in.by_password(Named(id=user_id), original, source)
        hashed = await self._passwords.hash(password)
        async with self._database.write() as connection:
            if not await store.set_password_hash(connection, user_id, hashed, instead_of=proof.password_hash):
                raise ConflictError(
                    f"Cannot change the password of user {user_id}: somebody else changed it meanwhile. "
                    "Log in again and repeat the change."
                )
            await token_store.remove_tokens(connection, user_id=user_id)
        self._cache.forget(user_id=user_id)

    async def projects(self, *, name: str | None = None, enabled: bool | None = None) -> list[Project]:
        """Projects by name, filtered."""
        async with self._database.read() as connection:
            return await store.find_projects(connection, name=name, enabled=enabled)

    async def projects_of(self, user_id: str, *, enabled: bool | None = None) -> list[Project]:
        """The projects in which a user has a role."""
        async with self._database.read() as connection:
            return await store.find_projects(connection, user_id=user_id, enabled=enabled)

    async def project(self, project_id: str) -> Project:
        """One project. NotFoundError."""
        async with self._database.read() as connection:
            return await _one_project(connection, project_id)

    async def create_project(self, project: Project) -> Project:
        """Add a project. ConflictError when the name is taken."""
        project = msgspec.structs.replace(project, id=project.id or uuid.uuid4().hex)
        async with self._unique("project", project.name) as connection:
            await store.add_project(connection, project, self._clock())
        return project

    async def update_project(self, project_id: str, change: Callable[[Project], Project]) -> Project:
        """Change a project's facts. Disabling ends the tokens for it."""
        async with self._unique("project", None) as connection:
            project = change(await _one_project(connection, project_id, lock=True))
            await store.set_project(connection, project)
            if not project.enabled:
                await token_store.remove_tokens(connection, project_id=project.id)
        self._cache.forget(project_id=project.id)
        return project

    async def delete_project(self, project_id: str) -> None:
        """Remove a project. ConflictError while it owns capsules or networks."""
        async with self._database.write() as connection:
            project = await _one_project(connection, project_id)
            owned = await store.project_owns(connection, project_id)
            if owned:
                listed = " and ".join(
                    f"{kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
                    for kind, names in owned.items()
                )
                raise ConflictError(
                    f"Cannot delete project {project.name} ({project_id}): it still owns {listed}. Delete those first."
                )
            await store.remove_project(connection, project_id)
        self._cache.forget(project_id=project_id)

    async def roles(self, *, name: str | None = None) -> list[Role]:
        """All roles."""
        async with self._database.read() as connection:
            return await store.find_roles(connection, name=name)

    async def role(self, role_id: str) -> Role:
        """One role. NotFoundError."""
        async with self._database.read() as connection:
            return await _one_role(connection, role_id)

    async def assignments(
        self, *, user_id: str | None = None, project_id: str | None = None, role_id: str | None = None
    ) -> list[RoleAssignment]:
        """Role assignments, without the implied ones."""
        async with self._database.read() as connection:
            return await store.find_assignments(connection, user_id=user_id, project_id=project_id, role_id=role_id)

    async def assign(self, user_id: str, project_id: str, role_id: str) -> None:
        """Give a role; giving it twice is fine. NotFoundError."""
        async with self._database.write() as connection:
            await _all_three(connection, user_id, project_id, role_id)
            if not await store.find_assignments(connection, user_id=user_id, project_id=project_id, role_id=role_id):
                await store.add_assignment(connection, user_id, project_id, role_id)
        self._cache.forget(user_id=user_id)

    async def unassign(self, user_id: str, project_id: str, role_id: str) -> None:
        """Take a role away; ends the user's tokens and application credentials for the project."""
        async with self._database.write() as connection:
            await _all_three(connection, user_id, project_id, role_id)
            if not await store.remove_assignment(connection, user_id, project_id, role_id):
                raise not_found("role assignment with role", f"{role_id}, user: {user_id}, project: {project_id}")
            await token_store.remove_credentials(connection, user_id=user_id, project_id=project_id)
            await token_store.remove_tokens(connection, user_id=user_id, project_id=project_id)
        self._cache.forget(user_id=user_id)

    @asynccontextmanager
    async def _unique(self, kind: str, name: str | None) -> AsyncIterator[AsyncConnection]:
        """A write transaction in which the only thing that can collide is a name (ids are random)."""
        try:
            async with self._database.write() as connection:
                yield connection
        except IntegrityError as error:
            known = f"name {name}" if name is not None else "that name"
            raise ConflictError(
                f"Conflict occurred attempting to store {kind} - Duplicate entry found with {known} "
                f"at domain ID {DOMAIN_ID}. Choose another name."
            ) from error


async def _one_user(connection: AsyncConnection, user_id: str, *, lock: bool = False) -> User:
    for user in await store.find_users(connection, user_id=user_id, lock=lock):
        return user
    raise not_found("user", user_id)


async def _one_project(connection: AsyncConnection, project_id: str, *, lock: bool = False) -> Project:
    for project in await store.find_projects(connection, project_id=project_id, lock=lock):
        return project
    raise not_found("project", project_id)


async def _one_role(connection: AsyncConnection, role_id: str) -> Role:
    for role in await store.find_roles(connection, role_id=role_id):
        return role
    raise not_found("role", role_id)


async def _all_three(connection: AsyncConnection, user_id: str, project_id: str, role_id: str) -> None:
    await _one_user(connection, user_id)
    await _one_project(connection, project_id)
    await _one_role(connection, role_id)


async def _check_default_project(connection: AsyncConnection, user: User) -> None:
    if user.default_project_id is not None:
        await _one_project(connection, user.default_project_id)
