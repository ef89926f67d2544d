"""Application credentials of the embedded identity service."""

from __future__ import annotations

import builtins
import secrets
import uuid
from collections.abc import Callable

import msgspec
from sqlalchemy.exc import IntegrityError

from askos.adapters.identity import token_store
from askos.adapters.identity.cache import TokenCache
from askos.adapters.identity.directory import not_found
from askos.adapters.identity.passwords import Passwords
from askos.adapters.sql.database import Database
from askos.model.errors import ConflictError, ForbiddenError
from askos.model.identity import ApplicationCredential

MAX_PER_USER = 200


class EmbeddedCredentials:
    """See `ports.identity.Credentials`."""

    def __init__(self, database: Database, passwords: Passwords, cache: TokenCache, clock: Callable[[], int]) -> None:
        self._database = database
        self._passwords = passwords
        self._cache = cache
        self._clock = clock

    async def list(self, user_id: str, *, name: str | None = None) -> list[ApplicationCredential]:
        """A user's application credentials by name."""
        async with self._database.read() as connection:
            found = await token_store.find_credentials(connection, user_id=user_id, name=name)
        return [credential for credential, _ in found]

    async def get(self, user_id: str, credential_id: str) -> ApplicationCredential:
        """One of a user's application credentials. NotFoundError."""
        async with self._database.read() as connection:
            found = await token_store.find_credentials(connection, user_id=user_id, credential_id=credential_id)
        if not found:
            raise not_found("application credential", credential_id)
        return found[0][0]

    async def create(self, wanted: ApplicationCredential, secret: str | None) -> tuple[ApplicationCredential, str]:
        """Add one, and give its secret."""
        secret = secret if secret is not None else secrets.token_urlsafe(64)
        hashed = await self._passwords.hash(secret)
        credential = msgspec.structs.replace(wanted, id=uuid.uuid4().hex)
        try:
            async with self._database.write() as connection:
                held = await token_store.roles_in(connection, wanted.user_id, wanted.project_id)
                missing = _names(wanted, {role.id for role in held})
                if missing or not wanted.roles:
                    raise ForbiddenError(
                        f"Cannot create application credential {wanted.name}: the user does not have the "
                        f"roles {', '.join(missing) or '(none given)'} in project {wanted.project_id}. "
                        "Ask for roles that the user has."
                    )
                if len(await token_store.find_credentials(connection, user_id=wanted.user_id)) >= MAX_PER_USER:
                    raise ForbiddenError(
                        f"Cannot create application credential {wanted.name}: the user has {MAX_PER_USER} already, "
                        "and that is the limit. Delete some that are not needed any more."
                    )
                await token_store.add_credential(connection, credential, hashed, self._clock())
        except IntegrityError as error:
            raise ConflictError(
                "Conflict occurred attempting to store application_credential - Duplicate entry found with "
                f"name {wanted.name} for user {wanted.user_id}. Choose another name."
            ) from error
        return credential, secret

    async def delete(self, user_id: str, credential_id: str) -> None:
        """Remove one and its tokens. NotFoundError."""
        async with self._database.write() as connection:
            if not await token_store.remove_credentials(connection, user_id=user_id, credential_id=credential_id):
                raise not_found("application credential", credential_id)
        self._cache.forget(user_id=user_id)


def _names(wanted: ApplicationCredential, held: set[str]) -> builtins.list[str]:
    return [role.name for role in wanted.roles if role.id not in held]
