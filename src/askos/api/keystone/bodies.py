"""Request bodies: their shapes, their limits, and reading them.

Unknown fields are ignored, as Keystone keeps them as extras that nobody reads; this cloud stores no e-mail
address and no options of a user, and no tags of a project.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from askos.model.errors import InvalidError

_T = TypeVar("_T")

MAX_BODY_BYTES = 64 * 1024

_PRINTABLE = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"

Id = Annotated[str, Meta(max_length=64)]
Given = Annotated[str, Meta(max_length=255)]
"""A name that somebody looks for."""
ProjectName = Annotated[str, Meta(min_length=1, max_length=64, pattern=_PRINTABLE)]
Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=_PRINTABLE)]
Secret = Annotated[str, Meta(max_length=4096)]
NewSecret = Annotated[str, Meta(min_length=1, max_length=4096)]
Text = Annotated[str, Meta(max_length=4096, pattern=r"^[^\x00]*$")]


class TooLargeError(InvalidError):
    """The body exceeds MAX_BODY_BYTES (HTTP 413)."""


class DomainRef(msgspec.Struct, frozen=True):
    """A domain by id or name."""

    id: Id | None = None
    name: Given | None = None


class Ref(msgspec.Struct, frozen=True):
    """A user or project by id, or by name and domain."""

    id: Id | None = None
    name: Given | None = None
    domain: DomainRef | None = None


class PasswordUser(Ref, frozen=True, kw_only=True):
    """Who logs in with a password."""

    password: Secret


class PasswordMethod(msgspec.Struct, frozen=True):
    """auth.identity.password"""

    user: PasswordUser


class TokenMethod(msgspec.Struct, frozen=True):
    """auth.identity.token"""

    id: Given


class CredentialMethod(msgspec.Struct, frozen=True, kw_only=True):
    """auth.identity.application_credential"""

    secret: Secret
    id: Id | None = None
    name: Given | None = None
    user: Ref | None = None


class AuthIdentity(msgspec.Struct, frozen=True):
    """auth.identity"""

    methods: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=16)]
    password: PasswordMethod | None = None
    token: TokenMethod | None = None
    application_credential: CredentialMethod | None = None


class AuthScope(msgspec.Struct, frozen=True, rename={"trust": "OS-TRUST:trust"}):
    """auth.scope. All but project is about things that this cloud does not have."""

    project: Ref | None = None
    unscoped: Any = UNSET
    domain: Any = UNSET
    system: Any = UNSET
    trust: Any = UNSET


class Auth(msgspec.Struct, frozen=True):
    """What POST /v3/auth/tokens wraps."""

    identity: AuthIdentity
    scope: AuthScope | Literal["unscoped"] | None = None


class AuthBody(msgspec.Struct, frozen=True):
    """POST /v3/auth/tokens"""

    auth: Auth


class NewProject(msgspec.Struct, frozen=True):
    """What POST /v3/projects wraps."""

    name: ProjectName
    description: Text | None = None
    enabled: bool = True
    domain_id: Id | None = None
    parent_id: Id | None = None
    is_domain: bool = False


class NewProjectBody(msgspec.Struct, frozen=True):
    """POST /v3/projects"""

    project: NewProject


class ProjectChange(msgspec.Struct, frozen=True):
    """What PATCH /v3/projects/{id} wraps."""

    name: ProjectName | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    domain_id: Id | None = None
    parent_id: Id | None = None
    is_domain: bool = False


class ProjectChangeBody(msgspec.Struct, frozen=True):
    """PATCH /v3/projects/{id}"""

    project: ProjectChange


class NewUser(msgspec.Struct, frozen=True):
    """What POST /v3/users wraps."""

    name: Name
    password: NewSecret | None = None
    description: Text | None = None
    enabled: bool = True
    default_project_id: Id | None = None
    domain_id: Id | None = None


class NewUserBody(msgspec.Struct, frozen=True):
    """POST /v3/users"""

    user: NewUser


class UserChange(msgspec.Struct, frozen=True):
    """What PATCH /v3/users/{id} wraps."""

    name: Name | UnsetType = UNSET
    password: NewSecret | None = None
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    default_project_id: Id | UnsetType | None = UNSET
    domain_id: Id | None = None


class UserChangeBody(msgspec.Struct, frozen=True):
    """PATCH /v3/users/{id}"""

    user: UserChange


class PasswordChange(msgspec.Struct, frozen=True):
    """What POST /v3/users/{id}/password wraps."""

    original_password: Secret
    password: NewSecret


class PasswordChangeBody(msgspec.Struct, frozen=True):
    """POST /v3/users/{id}/password"""

    user: PasswordChange


class RoleRef(msgspec.Struct, frozen=True):
    """A role by id or name."""

    id: Id | None = None
    name: Given | None = None


class NewCredential(msgspec.Struct, frozen=True):
    """What POST /v3/users/{id}/application_credentials wraps."""

    name: Name
    secret: NewSecret | None = None
    description: Text | None = None
    roles: Annotated[list[RoleRef], Meta(max_length=64)] | None = None
    expires_at: Annotated[str, Meta(max_length=64)] | None = None
    unrestricted: bool | None = None
    access_rules: list[Any] | None = None


class NewCredentialBody(msgspec.Struct, frozen=True):
    """POST /v3/users/{id}/application_credentials"""

    application_credential: NewCredential


async def read_body(request: web.Request, shape: type[_T]) -> _T:
    """The body as that struct. InvalidError names the field that is wrong; TooLargeError."""
    data = bytearray()
    async for chunk in request.content.iter_chunked(16 * 1024):
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise TooLargeError(
                f"Cannot read the request: its body exceeds {MAX_BODY_BYTES} bytes. Send a smaller one."
            )
    try:
        return msgspec.json.decode(bytes(data), type=shape)
    except msgspec.ValidationError as error:
        raise InvalidError(_field_sentence(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"Cannot read the request: its body is not valid JSON: {error}.") from error


def _field_sentence(message: str) -> str:
    what, _, path = message.partition(" - at `")
    field = path.rstrip("`").removeprefix("$").removeprefix(".")
    missing = re.search(r"missing required field `([^`]+)`", what)
    if missing is not None:
        field = f"{field}.{missing[1]}" if field else missing[1]
        return f"Invalid input for field '{field}': it is required."
    if "matching regex" in what:
        what = "it must contain a visible character, and no control characters"
    return f"Invalid input for field '{field or 'body'}': {what}."
