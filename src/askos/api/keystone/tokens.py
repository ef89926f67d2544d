"""/v3/auth: logging in and out, and what a token opens."""

from __future__ import annotations

from aiohttp import web
from msgspec import UNSET

from askos.api.keystone import wire
from askos.api.keystone.bodies import Auth, AuthBody, AuthScope, Ref, read_body
from askos.api.keystone.context import Context, flag, forbidden, nothing, reply
from askos.model.errors import InvalidError, NotFoundError, UnauthorizedError
from askos.model.identity import CredentialLogin, Login, Named, PasswordLogin, Scope, Token, TokenLogin


def routes(context: Context) -> list[web.RouteDef]:
    """Routes below /identity/v3/auth."""
    tokens = Tokens(context)
    guarded, root = context.guarded, "/identity/v3/auth"
    return [
        web.post(f"{root}/tokens", guarded(tokens.issue)),
        web.get(f"{root}/tokens", guarded(tokens.show)),  # and HEAD
        web.delete(f"{root}/tokens", guarded(tokens.revoke)),
        web.get(f"{root}/projects", guarded(tokens.projects)),
        web.get(f"{root}/domains", guarded(tokens.domains)),
        web.get(f"{root}/catalog", guarded(tokens.catalog)),
    ]


class Tokens:
    """Handlers of /v3/auth."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def issue(self, request: web.Request) -> web.Response:
        """Log in."""
        auth = (await read_body(request, AuthBody)).auth
        issued = await self._context.identity.authenticate(_login(auth), _scope(auth), request.remote or "")
        return self._token(request, issued.token, issued.secret, 201)

    async def show(self, request: web.Request) -> web.Response:
        """Validate a token: one's own, or any as an administrator."""
        secret, token = await self._subject(request)
        return self._token(request, token, secret, 200)

    async def revoke(self, request: web.Request) -> web.Response:
        """End a token."""
        secret, _ = await self._subject(request)
        await self._context.identity.revoke(secret)
        return nothing()

    async def projects(self, request: web.Request) -> web.Response:
        """The projects that the sender can get a token for."""
        token = await self._context.token(request)
        found = await self._context.identity.directory.projects_of(token.user.id, enabled=True)
        v3 = self._context.v3(request)
        return reply(wire.listing(v3, "auth/projects", "projects", [wire.project(v3, one) for one in found]))

    async def domains(self, request: web.Request) -> web.Response:
        """The domains that the sender can get a token for: none, for roles are given in projects only."""
        await self._context.token(request)
        return reply(wire.listing(self._context.v3(request), "auth/domains", "domains", []))

    async def catalog(self, request: web.Request) -> web.Response:
        """The catalog of the sender's project."""
        token = await self._context.token(request)
        if token.project is None:
            raise forbidden(request)
        catalog = self._context.catalog(request, token.project.id)
        return reply({"catalog": catalog, "links": {"self": f"{self._context.v3(request)}/auth/catalog"}})

    async def _subject(self, request: web.Request) -> tuple[str, Token]:
        sender = await self._context.token(request)
        secret = request.headers.get("X-Subject-Token")
        if secret is None:
            raise InvalidError("Cannot tell which token is meant: the header X-Subject-Token is missing.")
        try:
            token = await self._context.identity.inspect(secret)
        except UnauthorizedError as error:
            raise NotFoundError(
                "Could not find token: there never was such a one, or it expired or was revoked."
            ) from error
        if not sender.is_admin and sender.user.id != token.user.id:
            raise forbidden(request)
        return secret, token

    def _token(self, request: web.Request, token: Token, secret: str, status: int) -> web.Response:
        catalog = None
        if token.project is not None and not flag(request, "nocatalog"):
            catalog = self._context.catalog(request, token.project.id)
        return reply(wire.token(token, catalog), status, {"X-Subject-Token": secret})


def _login(auth: Auth) -> Login:
    identity = auth.identity
    methods = list(dict.fromkeys(identity.methods))
    if len(methods) != 1 or methods[0] not in {"password", "token", "application_credential"}:
        raise InvalidError(
            "Invalid input for field 'auth.identity.methods': give exactly one of password, token and "
            f"application_credential, not {', '.join(methods)}."
        )
    if identity.password is not None and methods == ["password"]:
        user = identity.password.user
        return PasswordLogin(user=_named(user, "auth.identity.password.user"), password=user.password)
    if identity.token is not None and methods == ["token"]:
        return TokenLogin(token=identity.token.id)
    given = identity.application_credential
    if given is not None and methods == ["application_credential"]:
        field = "auth.identity.application_credential"
        if given.id is not None:
            return CredentialLogin(secret=given.secret, id=given.id)
        if given.name is None or given.user is None:
            raise InvalidError(f"Invalid input for field '{field}': give its id, or its name and user.")
        return CredentialLogin(secret=given.secret, name=given.name, user=_named(given.user, f"{field}.user"))
    raise InvalidError(f"Invalid input for field 'auth.identity.{methods[0]}': it is required.")


def _scope(auth: Auth) -> Scope:
    scope = auth.scope
    if scope is None or scope == "unscoped":
        return scope
    assert isinstance(scope, AuthScope)
    if any(part is not None and part is not UNSET for part in (scope.domain, scope.system, scope.trust)):
        return "unsupported"
    if scope.project is not None:
        return _named(scope.project, "auth.scope.project")
    if scope.unscoped is not UNSET:
        return "unscoped"
    raise InvalidError("Invalid input for field 'auth.scope': it must contain a project.")


def _named(ref: Ref, field: str) -> Named:
    if ref.id is not None:
        return Named(id=ref.id)
    domain = ref.domain
    if ref.name is None:
        raise InvalidError(f"Invalid input for field '{field}': give its id, or its name and domain.")
    if domain is None or (domain.id is None and domain.name is None):
        raise InvalidError(f"Invalid input for field '{field}.domain': it needs an id or a name.")
    return Named(name=ref.name, domain_id=domain.id, domain_name=domain.name)
