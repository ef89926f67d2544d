"""Who calls: users, projects, roles and tokens, in Keystone's words.

There is one domain, `default`. Roles imply others: admin implies member, member implies reader.
"""

from __future__ import annotations

from typing import Literal

import msgspec

DOMAIN_ID = "default"
DOMAIN_NAME = "Default"

ROLE_NAMES = ("admin", "member", "reader")
"""All roles, the mightiest first; each one implies those behind it."""


class Project(msgspec.Struct, frozen=True):
    """A tenant."""

    id: str
    name: str
    description: str = ""
    enabled: bool = True
    domain_id: str = DOMAIN_ID


class User(msgspec.Struct, frozen=True):
    """A person or program that can log in. The password's hash never leaves the adapter."""

    id: str
    name: str
    enabled: bool = True
    domain_id: str = DOMAIN_ID
    default_project_id: str | None = None
    description: str = ""


class Role(msgspec.Struct, frozen=True):
    """A named set of rights: admin, member, reader."""

    id: str
    name: str


def effective_roles(direct: list[Role], every: list[Role]) -> list[Role]:
    """The `direct` roles and those that they imply (taken from `every`), the mightiest first."""
    held = {role.name for role in direct}
    known = {role.name: role for role in every}
    ranks = [rank for rank, name in enumerate(ROLE_NAMES) if name in held]
    implied = [known[name] for name in ROLE_NAMES[min(ranks) :] if name in known] if ranks else []
    return implied + [role for role in direct if role.name not in ROLE_NAMES]


class RoleAssignment(msgspec.Struct, frozen=True):
    """A role that somebody gave to a user in a project."""

    user: User
    project: Project
    role: Role


class ApplicationCredential(msgspec.Struct, frozen=True):
    """A secret with which a program acts as its user in one project, with some of the user's roles.

    `unrestricted` ones may be used to manage further application credentials.
    """

    id: str
    name: str
    user_id: str
    project_id: str
    roles: list[Role]
    description: str = ""
    unrestricted: bool = False
    expires_us: int | None = None


class TokenCredential(msgspec.Struct, frozen=True):
    """What a token says of the application credential that it was made with."""

    id: str
    name: str
    unrestricted: bool


class Token(msgspec.Struct, frozen=True):
    """A validated token. `project` is None for an unscoped one; `roles` contains the implied ones."""

    user: User
    project: Project | None
    roles: list[Role]
    methods: list[str]
    issued_us: int
    expires_us: int
    audit_id: str
    application_credential: TokenCredential | None = None

    @property
    def is_admin(self) -> bool:
        """Whether the holder administers the whole cloud, as the admin role in any project does."""
        return any(role.name == "admin" for role in self.roles)


class IssuedToken(msgspec.Struct, frozen=True):
    """A new token: `secret` is what the client sends as X-Auth-Token, and is kept nowhere."""

    secret: str
    token: Token


class Named(msgspec.Struct, frozen=True):
    """How a client points at a user or project: by id, or by name within a domain."""

    id: str | None = None
    name: str | None = None
    domain_id: str | None = None
    domain_name: str | None = None

    @property
    def in_default_domain(self) -> bool:
        """Whether the domain that was named is the only one there is."""
        if self.domain_id is not None:
            return self.domain_id == DOMAIN_ID
        return self.domain_name == DOMAIN_NAME


class PasswordLogin(msgspec.Struct, frozen=True):
    """Log in as a user with a password."""

    user: Named
    password: str


class CredentialLogin(msgspec.Struct, frozen=True):
    """Log in with an application credential, by its id or by its name and user."""

    secret: str
    id: str | None = None
    name: str | None = None
    user: Named | None = None


class TokenLogin(msgspec.Struct, frozen=True):
    """Turn a token into another one, of another scope. The new one expires together with the old one."""

    token: str


Login = PasswordLogin | CredentialLogin | TokenLogin

Scope = Named | Literal["unscoped", "unsupported"] | None
"""A project, "unscoped", or "unsupported": something that no user of this cloud has rights on (a domain, the
system). None: nothing was said, so the user's default project is taken if there is one that can be used."""


class Caller(msgspec.Struct, frozen=True):
    """What policy needs to know of a request's sender."""

    user_id: str
    project_id: str
    is_admin: bool
    roles: list[str] = []
