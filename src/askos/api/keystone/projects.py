"""/v3/projects and the one domain."""

from __future__ import annotations

import msgspec
from aiohttp import web
from msgspec import UNSET

from askos.api.keystone import wire
from askos.api.keystone.bodies import NewProject, NewProjectBody, ProjectChange, ProjectChangeBody, read_body
from askos.api.keystone.context import Context, flag, forbidden, nothing, only_default, reply
from askos.model.errors import InvalidError, NotFoundError
from askos.model.identity import DOMAIN_ID, DOMAIN_NAME, Project


def routes(context: Context) -> list[web.RouteDef]:
    """Routes of projects and domains."""
    projects = Projects(context)
    guarded, root = context.guarded, "/identity/v3"
    return [
        web.get(f"{root}/projects", guarded(projects.every)),
        web.post(f"{root}/projects", guarded(projects.create)),
        web.get(f"{root}/projects/{{project_id}}", guarded(projects.show)),
        web.patch(f"{root}/projects/{{project_id}}", guarded(projects.change)),
        web.delete(f"{root}/projects/{{project_id}}", guarded(projects.delete)),
        web.get(f"{root}/users/{{user_id}}/projects", guarded(projects.of_user)),
        web.get(f"{root}/domains", guarded(projects.domains)),
        web.get(f"{root}/domains/{{domain_id}}", guarded(projects.domain)),
    ]


class Projects:
    """Handlers of projects and domains."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._directory = context.identity.directory

    async def every(self, request: web.Request) -> web.Response:
        """All projects, for administrators."""
        await self._context.admin(request)
        found: list[Project] = []
        if only_default(request, "domain_id", "parent_id") and not flag(request, "is_domain"):
            found = await self._directory.projects(name=request.query.get("name"), enabled=flag(request, "enabled"))
        return self._listing(request, "projects", found)

    async def of_user(self, request: web.Request) -> web.Response:
        """The projects of a user, for that user and administrators."""
        await self._context.oneself_or_admin(request)
        user = await self._directory.user(request.match_info["user_id"])
        found: list[Project] = []
        if only_default(request, "domain_id", "parent_id"):
            found = await self._directory.projects_of(user.id, enabled=flag(request, "enabled"))
        name = request.query.get("name")
        found = [project for project in found if name is None or project.name == name]
        return self._listing(request, f"users/{user.id}/projects", found)

    async def show(self, request: web.Request) -> web.Response:
        """A project, for those with a role in it and administrators."""
        token = await self._context.token(request)
        project_id = request.match_info["project_id"]
        if token.is_admin:
            project = await self._directory.project(project_id)
        else:
            own = await self._directory.projects_of(token.user.id)
            if project_id not in {one.id for one in own}:
                raise forbidden(request)
            project = next(one for one in own if one.id == project_id)
        return self._one(request, project)

    async def create(self, request: web.Request) -> web.Response:
        """Add a project."""
        await self._context.admin(request)
        wanted = (await read_body(request, NewProjectBody)).project
        _check_place(wanted)
        project = await self._directory.create_project(
            Project(id="", name=wanted.name, description=wanted.description or "", enabled=wanted.enabled)
        )
        return self._one(request, project, 201)

    async def change(self, request: web.Request) -> web.Response:
        """Rename, describe, enable or disable a project."""
        await self._context.admin(request)
        wanted = (await read_body(request, ProjectChangeBody)).project
        _check_place(wanted)

        def changed(project: Project) -> Project:
            return msgspec.structs.replace(
                project,
                name=project.name if wanted.name is UNSET else wanted.name,
                description=project.description if wanted.description is UNSET else wanted.description or "",
                enabled=project.enabled if wanted.enabled is UNSET else wanted.enabled,
            )

        return self._one(request, await self._directory.update_project(request.match_info["project_id"], changed))

    async def delete(self, request: web.Request) -> web.Response:
        """Remove an empty project."""
        await self._context.admin(request)
        await self._directory.delete_project(request.match_info["project_id"])
        return nothing()

    async def domains(self, request: web.Request) -> web.Response:
        """The one domain, in a list."""
        await self._context.token(request)
        v3 = self._context.v3(request)
        fits = request.query.get("name", DOMAIN_NAME) == DOMAIN_NAME and flag(request, "enabled") is not False
        return reply(wire.listing(v3, "domains", "domains", [wire.domain(v3)] if fits else []))

    async def domain(self, request: web.Request) -> web.Response:
        """The one domain."""
        await self._context.token(request)
        if request.match_info["domain_id"] != DOMAIN_ID:
            raise NotFoundError(f"Could not find domain: {request.match_info['domain_id']}.")
        return reply({"domain": wire.domain(self._context.v3(request))})

    def _one(self, request: web.Request, project: Project, status: int = 200) -> web.Response:
        return reply({"project": wire.project(self._context.v3(request), project)}, status)

    def _listing(self, request: web.Request, path: str, found: list[Project]) -> web.Response:
        v3 = self._context.v3(request)
        return reply(wire.listing(v3, path, "projects", [wire.project(v3, one) for one in found]))


def _check_place(wanted: NewProject | ProjectChange) -> None:
    for field, value in (("domain_id", wanted.domain_id), ("parent_id", wanted.parent_id)):
        if value is not None and value != DOMAIN_ID:
            raise InvalidError(
                f"Invalid input for field 'project.{field}': {value!r}. All projects of this cloud are "
                f"directly below its only domain, {DOMAIN_ID!r}; leave the field out."
            )
    if wanted.is_domain:
        raise InvalidError("Invalid input for field 'project.is_domain': this cloud has one domain only.")
