"""The rules of policy with their defaults, in oslo.policy's language: Zun's 82, and those of what Zun does not have."""

from __future__ import annotations

ADMIN = "role:admin"
OWNER = "is_admin:True or project_id:%(project_id)s"
NOBODY = "!"

BASE = {
    "context_is_admin": ADMIN,
    "admin_or_owner": OWNER,
    "admin_api": "rule:context_is_admin",
    "deny_everybody": NOBODY,
}
"""What others are made of. `context_is_admin` says who sees all projects."""

_OWNERS = {
    "container": (
        "create delete get_one get_all update start stop reboot pause unpause logs execute execute_resize kill rename "
        "attach resize top get_archive put_archive stats commit add_security_group remove_security_group "
        "network_detach network_attach rebuild resize_container actions"
    ),
    "capsule": "create delete get get_all",
    "image": "search",
    "quota": "get get_default",
    "registry": "create delete get_one get_all update",
    "availability_zones": "get_all",
}
_ADMINS = {
    "container": (
        "create:runtime create:requested_destination create:image_pull_policy delete_all_projects delete_force "
        "get_one_all_projects get_all_all_projects action:events get_one:host get_one:image_pull_policy "
        "get_one:privileged get_one:runtime"
    ),
    "capsule": "delete_all_projects get:host get_one_all_projects get_all_all_projects",
    "host": "get_all get",
    "image": "pull get_all get_one delete",
    "network": "attach_external_network create delete",
    "quota": "update delete",
    "quota_class": "update get",
    "registry": "get_all_all_projects",
    "zun-service": "delete disable enable force_down get_all",
}
_NOBODYS = {"container": "create:privileged"}

_OWN_OWNERS = {"capsule": "update", "volume": "create get_all get_one delete"}
_OWN_ADMINS = {
    "capsule": "create:capabilities create:privilege_escalation update_all_projects",
    "volume": "get:host get_all_all_projects",
}
_OWN_NOBODYS = {"capsule": "create:all_capabilities create:privileged create:seccomp_unconfined"}


def _rules(groups: dict[str, str], check: str) -> dict[str, str]:
    return {f"{noun}:{verb}": check for noun, verbs in groups.items() for verb in verbs.split()}


ZUN = {**BASE, **_rules(_OWNERS, OWNER), **_rules(_ADMINS, ADMIN), **_rules(_NOBODYS, NOBODY)}
OWN = {**_rules(_OWN_OWNERS, OWNER), **_rules(_OWN_ADMINS, ADMIN), **_rules(_OWN_NOBODYS, NOBODY)}
DEFAULTS = {**ZUN, **OWN}
"""Rule to check."""
