"""Who calls: users, projects, roles and tokens, in Keystone's words."""

from __future__ import annotations

import msgspec


class Project(msgspec.Struct, frozen=True):
    """A tenant."""

    id: str
    name: str
    description: str = ""
    enabled: bool = True
    domain_id: str = "default"


class User(msgspec.Struct, frozen=True):
    """A person or program that can log in. The password's hash never leaves the adapter."""

    id: str
    name: str
    enabled: bool = True
    domain_id: str = "default"
    default_project_id: str | None = None
    description: str = ""


class Role(msgspec.Struct, frozen=True):
    """A named set of rights: admin, member, reader."""

    id: str
    name: str


class Token(msgspec.Struct, frozen=True):
    """A validated token. `project` is None for an unscoped one."""

    user: User
    project: Project | None
    roles: list[Role]
    methods: list[str]
    issued_us: int
    expires_us: int
    audit_id: str
    application_credential_id: str | None = None


class Caller(msgspec.Struct, frozen=True):
    """What policy needs to know of a request's sender."""

    user_id: str
    project_id: str
    is_admin: bool
    roles: list[str] = []
