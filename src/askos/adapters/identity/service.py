"""The embedded identity service: the part of Keystone that clients use, on the cloud's own database."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.identity import password_file as files
from askos.adapters.identity import store, token_store
from askos.adapters.identity.cache import Entry, TokenCache, digest_of
from askos.adapters.identity.credentials import EmbeddedCredentials
from askos.adapters.identity.directory import EmbeddedDirectory
from askos.adapters.identity.login import LogIn, unauthorized
from askos.adapters.identity.passwords import Passwords
from askos.adapters.identity.throttle import Throttle
from askos.adapters.sql.database import Database
from askos.model.identity import ROLE_NAMES, Caller, IssuedToken, Login, Project, Role, Scope, Token, User
from askos.ports.clock import now_us

ADMIN = "admin"
"""The name of the first user, of the first project, and of the role that user has in it."""


REMEMBERED_US = 12 * 3600 * 1_000_000
"""How long a token is known beyond its end, so that what began with it may go on (`allow_expired`)."""


class EmbeddedIdentity:
    """See `ports.identity.IdentityService`. Several processes may share one database.

    `token_lifetime_s` is that of a token by password or application credential. `passwords` and `throttle`
    are arguments for tests and for operators with stronger machines.
    """

    def __init__(
        self,
        database: Database,
        token_lifetime_s: int = 3600,
        clock: Callable[[], int] = now_us,
        *,
        passwords: Passwords | None = None,
        throttle: Throttle | None = None,
        cache: TokenCache | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._passwords = passwords if passwords is not None else Passwords()
        self._cache = cache if cache is not None else TokenCache()
        throttle = throttle if throttle is not None else Throttle(clock)
        self._log_in = LogIn(database, self._passwords, throttle, clock, int(token_lifetime_s * 1e6))
        self._directory = EmbeddedDirectory(database, self._passwords, self._log_in, self._cache, clock)
        self._credentials = EmbeddedCredentials(database, self._passwords, self._cache, clock)

    @property
    def directory(self) -> EmbeddedDirectory:
        """Users, projects and roles."""
        return self._directory

    @property
    def credentials(self) -> EmbeddedCredentials:
        """Application credentials."""
        return self._credentials

    async def validate(self, token: str, *, allow_expired: bool = False) -> Caller:
        """The caller of a project-scoped, unexpired, unrevoked token. Raises UnauthorizedError otherwise.
        `allow_expired`: also of one that expired no more than `REMEMBERED_US` ago."""
        caller = (await self._entry(token, allow_expired=allow_expired)).caller
        if caller is None:
            raise unauthorized()
        return caller

    async def inspect(self, token: str) -> Token:
        """Any unexpired, unrevoked token. UnauthorizedError otherwise."""
        return (await self._entry(token)).token

    async def _entry(self, secret: str, *, allow_expired: bool = False) -> Entry:
        digest = digest_of(secret)
        if digest is None:
            raise unauthorized()
        entry = self._cache.get(digest, self._clock())
        if entry is None:
            epoch = self._cache.epoch
            async with self._database.read() as connection:
                now = self._clock()
                good_at = now - REMEMBERED_US if allow_expired else now
                token = await token_store.load_token(connection, digest, now, good_at)
            if token is None:
                raise unauthorized()
            # One that has expired is remembered for no time at all.
            entry = self._cache.add(digest, token, now, epoch)
        return entry

    async def authenticate(self, login: Login, scope: Scope, source: str) -> IssuedToken:
        """Issue a token. UnauthorizedError for whatever is wrong; UnavailableError when too many wait."""
        return await self._log_in.authenticate(login, scope, source)

    async def revoke(self, token: str) -> None:
        """End a token; one that is not valid any more is left alone."""
        digest = digest_of(token)
        if digest is None:
            return
        async with self._database.write() as connection:
            await token_store.remove_token(connection, digest)
        self._cache.forget(digest=digest)

    async def purge(self, *, batch: int = 500) -> int:
        """Delete tokens that expired more than `REMEMBERED_US` ago, in transactions of `batch`, so that log-ins get in
        between; how many."""
        total = 0
        while True:
            async with self._database.write() as connection:
                count = await token_store.remove_expired(connection, self._clock() - REMEMBERED_US, batch)
            total += count
            if count < batch:
                return total

    async def bootstrap(self, password_file: Path) -> bool:
        """Make the roles and, while there is no user, project and user `admin`; whether it made those.

        The password comes from the file, which is made (mode 0600, random) if it does not exist. Once there
        are users, the file is neither read nor needed: who renames or removes `admin` does not get it back.
        SetupError when the file cannot be used.
        """
        async with self._database.write() as connection:
            await _ensure_roles(connection)
            if await store.any_user(connection):
                return False
        password, made = await asyncio.to_thread(files.read_or_create, password_file)
        hashed = await self._passwords.hash(password)
        try:
            async with self._database.write() as connection:
                if await store.any_user(connection):  # another server was faster
                    created = False
                else:
                    await _ensure_admin(connection, hashed, self._clock())
                    created = True
        except IntegrityError:
            created = False
        if made and not created and not await self._opens_admin(password):
            # A server elsewhere was faster, with a file of its own. Ours opens nothing and would only mislead.
            await asyncio.to_thread(password_file.unlink, missing_ok=True)
        return created

    async def _opens_admin(self, password: str) -> bool:
        async with self._database.read() as connection:
            found = await store.user_with_hash(connection, name=ADMIN)
        return found is not None and await self._passwords.check(found[1], password)

    async def reset_password(self, password_file: Path) -> None:
        """Give the user `admin` a new random password, in the file, and whatever else it needs to work.

        For an operator at the machine who lost the password, the user or the role. Ends all tokens of
        `admin`.
        """
        password = await asyncio.to_thread(files.replace, password_file)
        hashed = await self._passwords.hash(password)
        async with self._database.write() as connection:
            await _ensure_roles(connection)
            user_id = await _ensure_admin(connection, hashed, self._clock())
            await token_store.remove_tokens(connection, user_id=user_id)
        self._cache.forget(user_id=user_id)

    def close(self) -> None:
        """End the threads that hash."""
        self._passwords.close()


async def _ensure_roles(connection: AsyncConnection) -> None:
    present = {role.name for role in await store.find_roles(connection)}
    for name in ROLE_NAMES:
        if name not in present:
            await store.add_role(connection, Role(id=uuid.uuid4().hex, name=name))


async def _ensure_admin(connection: AsyncConnection, hashed: str, now: int) -> str:
    """The id of an enabled user `admin` with this password and the role admin in a project `admin`."""
    projects = await store.find_projects(connection, name=ADMIN)
    if projects:
        project = msgspec.structs.replace(projects[0], enabled=True)
        await store.set_project(connection, project)
    else:
        project = Project(id=uuid.uuid4().hex, name=ADMIN, description="The operator's own project")
        await store.add_project(connection, project, now)
    users = await store.find_users(connection, name=ADMIN)
    if users:
        user = msgspec.structs.replace(users[0], enabled=True)
        await store.set_user(connection, user)
        await store.set_password_hash(connection, user.id, hashed)
    else:
        user = User(id=uuid.uuid4().hex, name=ADMIN, default_project_id=project.id)
        await store.add_user(connection, user, hashed, now)
    role = (await store.find_roles(connection, name=ADMIN))[0]
    if not await store.find_assignments(connection, user_id=user.id, project_id=project.id, role_id=role.id):
        await store.add_assignment(connection, user.id, project.id, role.id)
    return user.id
