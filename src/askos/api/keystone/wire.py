"""Our nouns in Keystone's words. Everything here is plain values in, JSON-ready dictionaries out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from askos.model.errors import InvalidError
from askos.model.identity import (
    DOMAIN_ID,
    DOMAIN_NAME,
    ApplicationCredential,
    Project,
    Role,
    RoleAssignment,
    Token,
    User,
)

Json = dict[str, Any]

_DOMAIN = {"id": DOMAIN_ID, "name": DOMAIN_NAME}


def time_of(us: int) -> str:
    """Microseconds since the epoch as 2026-01-31T12:00:00.000000Z."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{us % 1_000_000:06d}Z"


def parse_time(text: str, field: str) -> int:
    """ISO 8601 (UTC if it does not say) to microseconds since the epoch. InvalidError names the field."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidError(
            f"Invalid input for field '{field}': {text!r} is not a time such as 2030-01-31T12:00:00."
        ) from error
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _link(v3: str, path: str) -> Json:
    return {"self": f"{v3}/{path}"}


def listing(v3: str, path: str, key: str, items: list[Json]) -> Json:
    """A list with its links; there is only one page."""
    return {key: items, "links": {"next": None, "previous": None, **_link(v3, path)}}


def domain(v3: str) -> Json:
    """The one domain."""
    return {
        **_DOMAIN,
        "description": "The only domain",
        "enabled": True,
        "options": {},
        "tags": [],
        "links": _link(v3, f"domains/{DOMAIN_ID}"),
    }


def project(v3: str, value: Project) -> Json:
    """A project; all hang directly below the domain."""
    return {
        "id": value.id,
        "name": value.name,
        "description": value.description,
        "enabled": value.enabled,
        "domain_id": value.domain_id,
        "parent_id": value.domain_id,
        "is_domain": False,
        "options": {},
        "tags": [],
        "links": _link(v3, f"projects/{value.id}"),
    }


def user(v3: str, value: User) -> Json:
    """A user. Like Keystone, without default_project_id where there is none."""
    shown: Json = {
        "id": value.id,
        "name": value.name,
        "description": value.description,
        "enabled": value.enabled,
        "domain_id": value.domain_id,
        "password_expires_at": None,
        "options": {},
        "links": _link(v3, f"users/{value.id}"),
    }
    if value.default_project_id is not None:
        shown["default_project_id"] = value.default_project_id
    return shown


def role(v3: str, value: Role) -> Json:
    """A role."""
    return {
        "id": value.id,
        "name": value.name,
        "domain_id": None,
        "description": None,
        "options": {},
        "links": _link(v3, f"roles/{value.id}"),
    }


def _reference(value: Role | User | Project, *, names: bool) -> Json:
    if not names:
        return {"id": value.id}
    named: Json = {"id": value.id, "name": value.name}
    return named if isinstance(value, Role) else {**named, "domain": _DOMAIN}


def assignment(v3: str, value: RoleAssignment, *, names: bool) -> Json:
    """A role assignment, with names beside the ids if asked for."""
    path = f"projects/{value.project.id}/users/{value.user.id}/roles/{value.role.id}"
    shown_role, shown_user, shown_project = (
        _reference(part, names=names) for part in (value.role, value.user, value.project)
    )
    return {
        "role": shown_role,
        "user": shown_user,
        "scope": {"project": shown_project},
        "links": {"assignment": f"{v3}/{path}"},
    }


def credential(v3: str, value: ApplicationCredential) -> Json:
    """An application credential, without its secret."""
    return {
        "id": value.id,
        "name": value.name,
        "description": value.description,
        "user_id": value.user_id,
        "project_id": value.project_id,
        "system": None,
        "roles": [{"id": part.id, "name": part.name, "domain_id": None} for part in value.roles],
        "unrestricted": value.unrestricted,
        "expires_at": None if value.expires_us is None else time_of(value.expires_us).removesuffix("Z"),
        "links": _link(v3, f"users/{value.user_id}/application_credentials/{value.id}"),
    }


def token(value: Token, catalog: list[Json] | None) -> Json:
    """What the holder of a token may know of it. An unscoped one has neither project, roles nor catalog."""
    shown: Json = {
        "methods": value.methods,
        "user": {
            "domain": _DOMAIN,
            "id": value.user.id,
            "name": value.user.name,
            "password_expires_at": None,
        },
        "audit_ids": [value.audit_id],
        "issued_at": time_of(value.issued_us),
        "expires_at": time_of(value.expires_us),
    }
    if value.project is not None:
        shown["project"] = {"domain": _DOMAIN, "id": value.project.id, "name": value.project.name}
        shown["is_domain"] = False
        shown["roles"] = [{"id": part.id, "name": part.name} for part in value.roles]
        if catalog is not None:
            shown["catalog"] = catalog
    if value.application_credential is not None:
        shown["application_credential"] = {
            "id": value.application_credential.id,
            "name": value.application_credential.name,
            "restricted": not value.application_credential.unrestricted,
        }
    return {"token": shown}
