"""The identity ports: who sends a request, and, for a service of our own, who exists.

The engine needs only `Identity`. The other Protocols are what the Keystone API of an identity service of our
own stands on; with a real Keystone nothing implements them.

Errors are those of `askos.model.errors`: UnauthorizedError always carries the same message, so that it does
not tell what was wrong; NotFoundError and ConflictError name the thing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from askos.model.identity import (
    ApplicationCredential,
    Caller,
    IssuedToken,
    Login,
    Project,
    Role,
    RoleAssignment,
    Scope,
    Token,
    User,
)


class Identity(Protocol):
    """Validates tokens. The embedded service and real Keystone both stand behind this one verb."""

    async def validate(self, token: str, *, allow_expired: bool = False) -> Caller:
        """The caller of a project-scoped, unexpired, unrevoked token. Raises UnauthorizedError otherwise.

        `allow_expired`: one that has expired counts too, for as long as the service remembers it. Keystone's word and
        meaning: for what began while the token was good and takes longer.
        """


class Directory(Protocol):
    """Users, projects and their roles. What takes rights away ends the tokens that had them."""

    async def users(self, *, name: str | None = None, enabled: bool | None = None) -> list[User]:
        """Users by name, filtered."""

    async def user(self, user_id: str) -> User:
        """One user. NotFoundError."""

    async def create_user(self, user: User, password: str | None) -> User:
        """Add a user; the id is chosen here when it is "". ConflictError when the name is taken."""

    async def update_user(self, user_id: str, change: Callable[[User], User], password: str | None = None) -> User:
        """Change a user's facts (not the id), and the password if one is given. NotFoundError, ConflictError.

        `change` sees the user as it is in the transaction that writes, so concurrent changes of different
        facts do not undo each other.
        """

    async def delete_user(self, user_id: str) -> None:
        """Remove a user with assignments, application credentials and tokens. NotFoundError."""

    async def change_password(self, user_id: str, original: str, password: str, source: str) -> None:
        """Replace a password by someone who knows it. UnauthorizedError, and slowed like a log-in."""

    async def projects(self, *, name: str | None = None, enabled: bool | None = None) -> list[Project]:
        """Projects by name, filtered."""

    async def projects_of(self, user_id: str, *, enabled: bool | None = None) -> list[Project]:
        """The projects in which a user has a role."""

    async def project(self, project_id: str) -> Project:
        """One project. NotFoundError."""

    async def create_project(self, project: Project) -> Project:
        """Add a project; the id is chosen here when it is "". ConflictError when the name is taken."""

    async def update_project(self, project_id: str, change: Callable[[Project], Project]) -> Project:
        """Change a project's facts (not the id). NotFoundError, ConflictError."""

    async def delete_project(self, project_id: str) -> None:
        """Remove an empty project. NotFoundError; ConflictError while it owns capsules or networks."""

    async def roles(self, *, name: str | None = None) -> list[Role]:
        """All roles."""

    async def role(self, role_id: str) -> Role:
        """One role. NotFoundError."""

    async def assignments(
        self, *, user_id: str | None = None, project_id: str | None = None, role_id: str | None = None
    ) -> list[RoleAssignment]:
        """Role assignments, without the implied ones."""

    async def assign(self, user_id: str, project_id: str, role_id: str) -> None:
        """Give a role; giving it twice is fine. NotFoundError."""

    async def unassign(self, user_id: str, project_id: str, role_id: str) -> None:
        """Take a role away. NotFoundError when the user does not have it, or something does not exist."""


class Credentials(Protocol):
    """Application credentials of users."""

    async def list(self, user_id: str, *, name: str | None = None) -> list[ApplicationCredential]:
        """A user's application credentials by name."""

    async def get(self, user_id: str, credential_id: str) -> ApplicationCredential:
        """One of a user's application credentials. NotFoundError."""

    async def create(self, wanted: ApplicationCredential, secret: str | None) -> tuple[ApplicationCredential, str]:
        """Add one (its id is chosen here) and give its secret, which is made up when None and kept nowhere.

        ConflictError when the user has one of that name; ForbiddenError when the user lacks one of the
        roles, or has too many credentials.
        """

    async def delete(self, user_id: str, credential_id: str) -> None:
        """Remove one and its tokens. NotFoundError."""


class IdentityService(Identity, Protocol):
    """An identity service of our own: issues tokens and keeps the directory."""

    @property
    def directory(self) -> Directory:
        """Users, projects and roles."""

    @property
    def credentials(self) -> Credentials:
        """Application credentials."""

    async def authenticate(self, login: Login, scope: Scope, source: str) -> IssuedToken:
        """Issue a token. `source` is the sender's address, for slowing down guessing.

        UnauthorizedError for whatever is wrong; UnavailableError when too many log-ins wait.
        """

    async def inspect(self, token: str) -> Token:
        """Any unexpired, unrevoked token. UnauthorizedError otherwise."""

    async def revoke(self, token: str) -> None:
        """End a token; one that is not valid any more is left alone."""
