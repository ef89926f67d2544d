"""Logging in: prove who you are, then get a token for a project.

The proof takes long (a hash is slow on purpose) and happens outside of any transaction. So the transaction
that writes the token looks again whether the proof still holds: a password that was changed meanwhile opens
nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.identity import store, token_store
from askos.adapters.identity.cache import TOKEN_PREFIX, digest_of
from askos.adapters.identity.passwords import Passwords
from askos.adapters.identity.throttle import Throttle
from askos.adapters.sql.database import Database
from askos.model.errors import UnauthorizedError
from askos.model.identity import (
    ApplicationCredential,
    CredentialLogin,
    IssuedToken,
    Login,
    Named,
    PasswordLogin,
    Project,
    Role,
    Scope,
    Token,
    TokenCredential,
    User,
    effective_roles,
)

_MAX_TOKENS = 10_000
"""About how many live tokens a user can have; older ones make room, so that nobody fills the database."""

_TRIM_EVERY = 50


class Proof(msgspec.Struct, frozen=True):
    """Who somebody proved to be, and what must still be so when the token is written."""

    user_id: str
    method: str
    password_hash: str | None = None
    credential: ApplicationCredential | None = None
    token_digest: str | None = None


def unauthorized() -> UnauthorizedError:
    """The one answer to whatever is wrong with credentials or a token. It must not tell what."""
    return UnauthorizedError("The request you have made requires authentication.")


def throttle_key(kind: str, known_id: str | None, given: str) -> str:
    """What failures are counted under: the id if there is such a thing, else a hash of what was given."""
    return f"{kind}:{known_id}" if known_id else f"{kind}?{hashlib.sha256(given.encode(errors='replace')).hexdigest()}"


class LogIn:
    """Proves and issues. `lifetime_us` is that of a token by password or application credential."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        throttle: Throttle,
        clock: Callable[[], int],
        lifetime_us: int,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._throttle = throttle
        self._clock = clock
        self._lifetime_us = lifetime_us
        self._issued = 0

    async def authenticate(self, login: Login, scope: Scope, source: str) -> IssuedToken:
        """See `ports.identity.IdentityService.authenticate`."""
        if isinstance(login, PasswordLogin):
            proof = await self.by_password(login.user, login.password, source)
        elif isinstance(login, CredentialLogin):
            proof = await self._by_credential(login, source)
        else:
            digest = digest_of(login.token)
            if digest is None:
                raise unauthorized()
            # Looked up without the write lock first, or anybody could hold up all writers with made-up tokens.
            async with self._database.read() as connection:
                if await token_store.load_token(connection, digest, self._clock()) is None:
                    raise unauthorized()
            proof = Proof(user_id="", method="token", token_digest=digest)
        try:
            async with self._database.write() as connection:
                return await self._issue(connection, proof, scope)
        except IntegrityError as error:  # the user or project went away under our hands
            raise unauthorized() from error

    async def by_password(self, named: Named, password: str, source: str) -> Proof:
        """Check a password. UnauthorizedError after the same time whether or not there is such a user."""
        found = None
        if named.id is not None or (named.name is not None and named.in_default_domain):
            async with self._database.read() as connection:
                found = await store.user_with_hash(
                    connection, user_id=named.id, name=named.name if named.id is None else None
                )
        user, stored = found if found is not None else (None, None)
        key = throttle_key("user", user.id if user else None, named.id or named.name or "")
        async with self._throttle.attempt(key, source) as ended:
            fits = await self._passwords.check(stored, password) and user is not None and user.enabled
            ended(fits)
        if not fits or user is None or stored is None:
            raise unauthorized()
        if self._passwords.outdated(stored):
            stored = await self._upgrade(user.id, stored, password)
        return Proof(user_id=user.id, method="password", password_hash=stored)

    async def _upgrade(self, user_id: str, stored: str, password: str) -> str:
        better = await self._passwords.hash(password)
        async with self._database.write() as connection:
            changed = await store.set_password_hash(connection, user_id, better, instead_of=stored)
        return better if changed else stored

    async def _by_credential(self, login: CredentialLogin, source: str) -> Proof:
        found = None
        async with self._database.read() as connection:
            if login.id is not None:
                matches = await token_store.find_credentials(connection, credential_id=login.id)
                found = matches[0] if matches else None
            elif login.name is not None and login.user is not None:
                named = login.user
                owner = None
                if named.id is not None or (named.name is not None and named.in_default_domain):
                    owner = await store.user_with_hash(
                        connection, user_id=named.id, name=named.name if named.id is None else None
                    )
                if owner is not None:
                    matches = await token_store.find_credentials(connection, user_id=owner[0].id, name=login.name)
                    found = matches[0] if matches else None
        given = login.id or f"{login.name}\0{login.user and (login.user.id or login.user.name)}"
        key = throttle_key("credential", found[0].id if found else None, given)
        async with self._throttle.attempt(key, source) as ended:
            fits = await self._passwords.check(found[1] if found else None, login.secret)
            ended(fits)
        if not fits or found is None:
            raise unauthorized()
        if self._passwords.outdated(found[1]):
            better = await self._passwords.hash(login.secret)
            async with self._database.write() as connection:
                await token_store.set_secret_hash(connection, found[0].id, better, instead_of=found[1])
        return Proof(user_id=found[0].user_id, method="application_credential", credential=found[0])

    async def _issue(self, connection: AsyncConnection, proof: Proof, scope: Scope) -> IssuedToken:
        now_us = self._clock()
        expires_us = now_us + self._lifetime_us
        methods = [proof.method]
        credential: TokenCredential | None = None
        old: Token | None = None
        allowed: list[Role] | None = None
        user_id = proof.user_id
        if proof.token_digest is not None:
            old = await token_store.load_token(connection, proof.token_digest, now_us)
            if old is None:
                raise unauthorized()
            user_id, expires_us, credential = old.user.id, old.expires_us, old.application_credential
            methods += [method for method in old.methods if method not in methods]
        found = await store.user_with_hash(connection, user_id=user_id, lock=True)
        if found is None or not found[0].enabled:
            raise unauthorized()
        user, stored = found
        if proof.password_hash is not None and stored != proof.password_hash:
            raise unauthorized()
        if proof.credential is not None:
            again = await token_store.find_credentials(connection, credential_id=proof.credential.id)
            if not again or (again[0][0].expires_us or now_us + 1) <= now_us or scope is not None:
                raise unauthorized()
            chosen = again[0][0]
            allowed = chosen.roles
            scope = Named(id=chosen.project_id)
            credential = TokenCredential(id=chosen.id, name=chosen.name, unrestricted=chosen.unrestricted)
            if chosen.expires_us is not None:
                expires_us = min(expires_us, chosen.expires_us)
        elif old is not None and credential is not None:
            # An application credential is good for one project; its tokens must not become more than it is.
            assert old.project is not None
            allowed = old.roles
            same = isinstance(scope, Named) and await self._project(connection, scope) == old.project
            if scope is not None and not same:
                raise unauthorized()
            scope = Named(id=old.project.id)
        project, roles = await self._scoped(connection, user, scope)
        if allowed is not None:
            ids = {role.id for role in allowed}
            roles = effective_roles([role for role in roles if role.id in ids], roles)
            if not roles:
                raise unauthorized()
        token = Token(
            user=user,
            project=project,
            roles=roles,
            methods=methods,
            issued_us=now_us,
            expires_us=expires_us,
            audit_id=secrets.token_urlsafe(16),
            application_credential=credential,
        )
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        digest = digest_of(secret)
        assert digest is not None
        await token_store.add_token(connection, digest, token)
        self._issued += 1
        if self._issued % _TRIM_EVERY == 0:
            await token_store.remove_oldest(connection, user.id, keep=_MAX_TOKENS, limit=2 * _TRIM_EVERY)
        return IssuedToken(secret=secret, token=token)

    async def _project(self, connection: AsyncConnection, named: Named) -> Project | None:
        if named.id is None and not (named.name is not None and named.in_default_domain):
            return None
        found = await store.find_projects(
            connection, project_id=named.id, name=named.name if named.id is None else None
        )
        return found[0] if found else None

    async def _scoped(self, connection: AsyncConnection, user: User, scope: Scope) -> tuple[Project | None, list[Role]]:
        if scope == "unscoped":
            return None, []
        if isinstance(scope, Named):
            wanted = scope
        elif scope is None and user.default_project_id is not None:
            wanted = Named(id=user.default_project_id)
        elif scope is None:
            return None, []
        else:
            raise unauthorized()
        project = await self._project(connection, wanted)
        if project is not None and project.enabled:
            roles = await token_store.roles_in(connection, user.id, project.id)
            if roles:
                return project, roles
        if scope is None:
            return None, []
        raise unauthorized()
