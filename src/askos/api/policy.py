"""Who may do what: Zun's three kinds of rules. Projects are walls, and the store's scope is where they stand."""

from __future__ import annotations

from askos.api.errors import ApiError
from askos.model.identity import Caller

ADMIN_RULES = frozenset(
    {
        "container:create:runtime",
        "container:create:requested_destination",
        "container:create:image_pull_policy",
        "container:delete_all_projects",
        "container:delete_force",
        "container:get_one_all_projects",
        "container:get_all_all_projects",
        "container:get_one:host",
        "container:get_one:image_pull_policy",
        "container:get_one:privileged",
        "container:get_one:runtime",
        "capsule:create:capabilities",
        "capsule:create:privilege_escalation",
        "capsule:delete_all_projects",
        "capsule:get:host",
        "capsule:get_all_all_projects",
        "capsule:get_one_all_projects",
        "capsule:update_all_projects",
        "volume:get:host",
        "volume:get_all_all_projects",
        "image:pull",
        "image:get_all",
        "image:delete",
    }
)
NOBODY_RULES = frozenset(
    {
        "container:create:privileged",
        "capsule:create:all_capabilities",
        "capsule:create:privileged",
        "capsule:create:seccomp_unconfined",
    }
)


def allows(caller: Caller, rule: str) -> bool:
    """Whether the caller passes a rule. What is in neither set is admin-or-owner: the scope decides."""
    if rule in NOBODY_RULES:
        return False
    return caller.is_admin or rule not in ADMIN_RULES


def enforce(caller: Caller, rule: str) -> None:
    """Raises a 403 when the caller does not pass."""
    if not allows(caller, rule):
        title = f"Policy doesn't allow {rule} to be performed."
        raise ApiError(403, title, code="container.policy-not-authorized")


def enforce_writer(caller: Caller) -> None:
    """Raises a 403 for a caller who may only look: one with the role reader and nothing beside it. Roles of other
    names are an operator's own, and mean what a member may, as they do in Zun."""
    if {role.lower() for role in caller.roles} == {"reader"}:
        title = "Policy doesn't allow this to be performed: the role reader may look, and change or run nothing."
        raise ApiError(403, title, code="container.policy-not-authorized")
