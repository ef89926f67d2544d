"""/v3/users."""

from __future__ import annotations

import msgspec
from aiohttp import web
from msgspec import UNSET

from askos.api.keystone import wire
from askos.api.keystone.bodies import (
    NewUser,
    NewUserBody,
    PasswordChangeBody,
    UserChange,
    UserChangeBody,
    read_body,
)
from askos.api.keystone.context import Context, flag, forbidden, nothing, only_default, reply
from askos.model.errors import InvalidError
from askos.model.identity import DOMAIN_ID, User


def routes(context: Context) -> list[web.RouteDef]:
    """Routes of users."""
    users = Users(context)
    guarded, root = context.guarded, "/identity/v3/users"
    return [
        web.get(root, guarded(users.every)),
        web.post(root, guarded(users.create)),
        web.get(f"{root}/{{user_id}}", guarded(users.show)),
        web.patch(f"{root}/{{user_id}}", guarded(users.change)),
        web.delete(f"{root}/{{user_id}}", guarded(users.delete)),
        web.post(f"{root}/{{user_id}}/password", guarded(users.change_password)),
    ]


class Users:
    """Handlers of users."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._directory = context.identity.directory

    async def every(self, request: web.Request) -> web.Response:
        """All users, for administrators."""
        await self._context.admin(request)
        found: list[User] = []
        if only_default(request, "domain_id"):
            found = await self._directory.users(name=request.query.get("name"), enabled=flag(request, "enabled"))
        v3 = self._context.v3(request)
        return reply(wire.listing(v3, "users", "users", [wire.user(v3, one) for one in found]))

    async def show(self, request: web.Request) -> web.Response:
        """A user, for that user and administrators."""
        await self._context.oneself_or_admin(request)
        return self._one(request, await self._directory.user(request.match_info["user_id"]))

    async def create(self, request: web.Request) -> web.Response:
        """Add a user."""
        await self._context.admin(request)
        wanted = (await read_body(request, NewUserBody)).user
        _check_domain(wanted)
        user = User(
            id="",
            name=wanted.name,
            enabled=wanted.enabled,
            default_project_id=wanted.default_project_id,
            description=wanted.description or "",
        )
        return self._one(request, await self._directory.create_user(user, wanted.password), 201)

    async def change(self, request: web.Request) -> web.Response:
        """Change a user's facts or password."""
        await self._context.admin(request)
        wanted = (await read_body(request, UserChangeBody)).user
        _check_domain(wanted)

        def changed(user: User) -> User:
            default = wanted.default_project_id
            return msgspec.structs.replace(
                user,
                name=user.name if wanted.name is UNSET else wanted.name,
                description=user.description if wanted.description is UNSET else wanted.description or "",
                enabled=user.enabled if wanted.enabled is UNSET else wanted.enabled,
                default_project_id=user.default_project_id if default is UNSET else default,
            )

        user_id = request.match_info["user_id"]
        return self._one(request, await self._directory.update_user(user_id, changed, wanted.password))

    async def delete(self, request: web.Request) -> web.Response:
        """Remove a user."""
        await self._context.admin(request)
        await self._directory.delete_user(request.match_info["user_id"])
        return nothing()

    async def change_password(self, request: web.Request) -> web.Response:
        """Change one's own password, knowing the old one."""
        token = await self._context.token(request)
        if token.user.id != request.match_info["user_id"]:
            raise forbidden(request)
        wanted = (await read_body(request, PasswordChangeBody)).user
        await self._directory.change_password(
            token.user.id, wanted.original_password, wanted.password, request.remote or ""
        )
        return nothing()

    def _one(self, request: web.Request, user: User, status: int = 200) -> web.Response:
        return reply({"user": wire.user(self._context.v3(request), user)}, status)


def _check_domain(wanted: NewUser | UserChange) -> None:
    if wanted.domain_id is not None and wanted.domain_id != DOMAIN_ID:
        raise InvalidError(
            f"Invalid input for field 'user.domain_id': {wanted.domain_id!r}. "
            f"This cloud has one domain only, {DOMAIN_ID!r}."
        )
