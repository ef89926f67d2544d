"""/v3/users/{user_id}/application_credentials."""

from __future__ import annotations

from aiohttp import web

from askos.api.keystone import wire
from askos.api.keystone.bodies import NewCredential, NewCredentialBody, read_body
from askos.api.keystone.context import Context, forbidden, nothing, reply
from askos.model.errors import ForbiddenError, InvalidError
from askos.model.identity import ApplicationCredential, Role, Token
from askos.ports.clock import now_us


def routes(context: Context) -> list[web.RouteDef]:
    """Routes of application credentials."""
    credentials = ApplicationCredentials(context)
    guarded, root = context.guarded, "/identity/v3/users/{user_id}/application_credentials"
    return [
        web.get(root, guarded(credentials.every)),
        web.post(root, guarded(credentials.create)),
        web.get(f"{root}/{{credential_id}}", guarded(credentials.show)),
        web.delete(f"{root}/{{credential_id}}", guarded(credentials.delete)),
    ]


class ApplicationCredentials:
    """Handlers. Only its user can make an application credential; administrators can look and delete."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._credentials = context.identity.credentials

    async def every(self, request: web.Request) -> web.Response:
        """A user's application credentials."""
        await self._context.oneself_or_admin(request)
        user_id, v3 = request.match_info["user_id"], self._context.v3(request)
        found = await self._credentials.list(user_id, name=request.query.get("name"))
        items = [wire.credential(v3, one) for one in found]
        path = f"users/{user_id}/application_credentials"
        return reply(wire.listing(v3, path, "application_credentials", items))

    async def show(self, request: web.Request) -> web.Response:
        """One of them."""
        await self._context.oneself_or_admin(request)
        found = await self._credentials.get(request.match_info["user_id"], request.match_info["credential_id"])
        return reply({"application_credential": wire.credential(self._context.v3(request), found)})

    async def create(self, request: web.Request) -> web.Response:
        """Make one for the project of the sender's token. Its secret is in this answer and never again."""
        token = await self._context.token(request)
        if token.user.id != request.match_info["user_id"] or token.project is None:
            raise forbidden(request)
        _check_unrestricted(token)
        wanted = (await read_body(request, NewCredentialBody)).application_credential
        made, secret = await self._credentials.create(
            ApplicationCredential(
                id="",
                name=wanted.name,
                user_id=token.user.id,
                project_id=token.project.id,
                roles=_roles(wanted, token),
                description=wanted.description or "",
                unrestricted=bool(wanted.unrestricted),
                expires_us=_expiry(wanted),
            ),
            wanted.secret,
        )
        shown = {**wire.credential(self._context.v3(request), made), "secret": secret}
        return reply({"application_credential": shown}, 201)

    async def delete(self, request: web.Request) -> web.Response:
        """Remove one, and its tokens."""
        _check_unrestricted(await self._context.oneself_or_admin(request))
        await self._credentials.delete(request.match_info["user_id"], request.match_info["credential_id"])
        return nothing()


def _check_unrestricted(token: Token) -> None:
    if token.application_credential is not None and not token.application_credential.unrestricted:
        raise ForbiddenError(
            "You are not authorized to perform the requested action: Using method 'application_credential' "
            "is not allowed for managing additional application credentials. Log in with a password, or with an "
            "unrestricted application credential."
        )


def _roles(wanted: NewCredential, token: Token) -> list[Role]:
    """The roles asked for (all of the token, if none), each of which the token must have."""
    if not wanted.roles:
        return token.roles
    chosen: dict[str, Role] = {}
    for number, ref in enumerate(wanted.roles):
        for role in token.roles:
            if ref.id == role.id or (ref.id is None and ref.name == role.name):
                chosen[role.id] = role
                break
        else:
            raise InvalidError(
                f"Invalid input for field 'application_credential.roles[{number}]': could not find role "
                f"{ref.id or ref.name} among those of the token: "
                f"{', '.join(role.name for role in token.roles)}."
            )
    return list(chosen.values())


def _expiry(wanted: NewCredential) -> int | None:
    if wanted.access_rules:
        raise InvalidError(
            "Invalid input for field 'application_credential.access_rules': this cloud cannot limit an "
            "application credential to single requests. Leave it out, or give it the role reader only."
        )
    if wanted.expires_at is None:
        return None
    field = "application_credential.expires_at"
    expires_us = wire.parse_time(wanted.expires_at, field)
    if expires_us <= now_us():
        raise InvalidError(f"Invalid input for field '{field}': {wanted.expires_at} is in the past.")
    return expires_us
