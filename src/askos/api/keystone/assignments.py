"""/v3/roles and who has them."""

from __future__ import annotations

from aiohttp import web

from askos.api.keystone import wire
from askos.api.keystone.context import Context, flag, forbidden, nothing, reply
from askos.model.errors import NotFoundError
from askos.model.identity import Role, RoleAssignment, effective_roles

_NEVER = ("group.id", "scope.domain.id", "scope.system", "scope.OS-INHERIT:inherited_to")
"""Filters for what this cloud does not have: nothing fits them."""


def routes(context: Context) -> list[web.RouteDef]:
    """Routes of roles and their assignments."""
    assignments = Assignments(context)
    guarded, root = context.guarded, "/identity/v3"
    held = f"{root}/projects/{{project_id}}/users/{{user_id}}/roles"
    return [
        web.get(f"{root}/roles", guarded(assignments.roles)),
        web.get(f"{root}/roles/{{role_id}}", guarded(assignments.role)),
        web.get(f"{root}/role_assignments", guarded(assignments.every)),
        web.get(held, guarded(assignments.held)),
        web.get(f"{held}/{{role_id}}", guarded(assignments.check)),  # and HEAD
        web.put(f"{held}/{{role_id}}", guarded(assignments.give)),
        web.delete(f"{held}/{{role_id}}", guarded(assignments.take)),
    ]


class Assignments:
    """Handlers of roles and their assignments."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._directory = context.identity.directory

    async def roles(self, request: web.Request) -> web.Response:
        """All roles."""
        await self._context.token(request)
        found: list[Role] = []
        if "domain_id" not in request.query:  # roles belong to no domain
            found = await self._directory.roles(name=request.query.get("name"))
        v3 = self._context.v3(request)
        return reply(wire.listing(v3, "roles", "roles", [wire.role(v3, one) for one in found]))

    async def role(self, request: web.Request) -> web.Response:
        """One role."""
        await self._context.token(request)
        found = await self._directory.role(request.match_info["role_id"])
        return reply({"role": wire.role(self._context.v3(request), found)})

    async def every(self, request: web.Request) -> web.Response:
        """Role assignments, filtered; one's own, or all for administrators."""
        token = await self._context.token(request)
        query = request.query
        if not token.is_admin and query.get("user.id") != token.user.id:
            raise forbidden(request)
        found: list[RoleAssignment] = []
        if not any(name in query for name in _NEVER):
            found = await self._directory.assignments(
                user_id=query.get("user.id"), project_id=query.get("scope.project.id")
            )
            if flag(request, "effective"):
                found = _with_implied(found, await self._directory.roles())
            role_id = query.get("role.id")
            found = [one for one in found if role_id is None or one.role.id == role_id]
        v3, names = self._context.v3(request), bool(flag(request, "include_names"))
        items = [wire.assignment(v3, one, names=names) for one in found]
        return reply(wire.listing(v3, "role_assignments", "role_assignments", items))

    async def held(self, request: web.Request) -> web.Response:
        """The roles of a user in a project."""
        await self._context.oneself_or_admin(request)
        user_id, project_id = request.match_info["user_id"], request.match_info["project_id"]
        found = await self._directory.assignments(user_id=user_id, project_id=project_id)
        v3 = self._context.v3(request)
        path = f"projects/{project_id}/users/{user_id}/roles"
        return reply(wire.listing(v3, path, "roles", [wire.role(v3, one.role) for one in found]))

    async def check(self, request: web.Request) -> web.Response:
        """Whether a user has a role in a project: 204 or 404."""
        await self._context.oneself_or_admin(request)
        ids = _ids(request)
        if not await self._directory.assignments(user_id=ids[0], project_id=ids[1], role_id=ids[2]):
            raise NotFoundError(
                f"Could not find role assignment with role: {ids[2]}, user: {ids[0]}, project: {ids[1]}."
            )
        return nothing()

    async def give(self, request: web.Request) -> web.Response:
        """Give a user a role in a project."""
        await self._context.admin(request)
        await self._directory.assign(*_ids(request))
        return nothing()

    async def take(self, request: web.Request) -> web.Response:
        """Take it away, with the tokens that had it."""
        await self._context.admin(request)
        await self._directory.unassign(*_ids(request))
        return nothing()


def _ids(request: web.Request) -> tuple[str, str, str]:
    info = request.match_info
    return info["user_id"], info["project_id"], info["role_id"]


def _with_implied(found: list[RoleAssignment], every: list[Role]) -> list[RoleAssignment]:
    direct: dict[tuple[str, str], list[RoleAssignment]] = {}
    for one in found:
        direct.setdefault((one.user.id, one.project.id), []).append(one)
    return [
        RoleAssignment(user=group[0].user, project=group[0].project, role=role)
        for group in direct.values()
        for role in effective_roles([one.role for one in group], every)
    ]
