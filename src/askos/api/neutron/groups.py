"""/security-groups and /security-group-rules."""

from __future__ import annotations

from typing import Literal, cast

from askos.api.neutron.context import Ask, bad, time_of
from askos.api.neutron.fields import Fields, wrong
from askos.api.neutron.resource import Resource
from askos.api.service import Json
from askos.model.networks import SecurityGroup, SecurityRule


class Groups(Resource):
    """Security groups. Who looks for a project's finds its default one, too."""

    single, plural, path = "security_group", "security_groups", "security-groups"
    missing = ("Security group {} does not exist.", "security-group-not-found")
    filters = frozenset({"name", "tenant_id", "project_id", "shared", "stateful"})

    async def views(self, ask: Ask, ids: list[str] | None) -> list[Json]:
        """See `Resource`."""
        if ids is None:
            await self.store.default_group(ask.caller.project_id)
        return [group_view(group) for group in await self.store.groups(ask.scope, ids)]

    async def make(self, ask: Ask, body: Json) -> Json:
        """See `Resource`."""
        project_id = ask.owner(body)
        fields = Fields(body)
        name, description = fields.text("name") or "", fields.text("description") or ""
        fields.only(stateful=True, tags=[])
        fields.done()
        return group_view(await self.store.create_group(project_id, name, description))

    async def change(self, ask: Ask, view: Json, body: Json) -> Json:
        """See `Resource`."""
        del ask
        fields = Fields(body)
        name, description = fields.text("name"), fields.text("description")
        fields.only(stateful=True, tags=[])
        fields.done()
        return group_view(await self.store.update_group(view["id"], name=name, description=description))

    async def remove(self, ask: Ask, view: Json) -> None:
        """See `Resource`."""
        await self.store.delete_group(view["id"], ask.who)


def group_view(group: SecurityGroup) -> Json:
    """A security group as Neutron shows it."""
    return {
        "id": group.uuid,
        "name": group.name,
        "stateful": True,
        "tenant_id": group.project_id,
        "description": group.description,
        "shared": False,
        "security_group_rules": [rule_view(rule, group) for rule in group.rules],
        "tags": [],
        "created_at": time_of(group.created_us),
        "updated_at": time_of(group.updated_us),
        "revision_number": group.changed,
        "project_id": group.project_id,
    }


class Rules(Resource):
    """Rules of security groups. They are made and deleted, never changed."""

    single, plural, path = "security_group_rule", "security_group_rules", "security-group-rules"
    missing = ("Security group rule {} does not exist.", "security-group-rule-not-found")
    filters = frozenset({
        "tenant_id", "project_id", "security_group_id", "direction", "ethertype", "protocol", "port_range_min",
        "port_range_max", "remote_ip_prefix", "remote_group_id", "remote_address_group_id", "belongs_to_default_sg",
    })  # fmt: skip

    async def views(self, ask: Ask, ids: list[str] | None) -> list[Json]:
        """See `Resource`."""
        wanted = None if ids is None else set(ids)
        return [
            rule_view(rule, group)
            for rule, group in await self.store.rules(ask.scope)
            if wanted is None or rule.uuid in wanted
        ]

    async def make(self, ask: Ask, body: Json) -> Json:
        """See `Resource`."""
        ask.owner(body)
        fields = Fields(body)
        protocol = fields.taken("protocol") if fields.has("protocol") else None
        if isinstance(protocol, bool) or not isinstance(protocol, str | int | None):
            raise wrong("protocol", f"'{protocol}' is no protocol.")
        rule = SecurityRule(
            uuid="",
            group_uuid=fields.required("security_group_id"),
            direction=_word(fields, "direction", ("ingress", "egress"), None),
            protocol=None if protocol is None else str(protocol),
            port_min=fields.number("port_range_min", 0, 65535),
            port_max=fields.number("port_range_max", 0, 65535),
            remote_cidr=fields.ident("remote_ip_prefix"),
            remote_group=fields.ident("remote_group_id"),
            ethertype=cast('Literal["IPv4", "IPv6"]', _word(fields, "ethertype", ("IPv4", "IPv6"), "IPv4")),
            description=fields.text("description") or "",
        )
        fields.only(remote_address_group_id=None, tags=[])
        fields.done()
        return rule_view(*await self.store.create_rule(rule, ask.who))

    async def change(self, ask: Ask, view: Json, body: Json) -> Json:
        """Neutron changes no more than the description; here a rule stays as it is."""
        raise bad("A security group rule cannot be changed: delete it, and make another.")

    async def remove(self, ask: Ask, view: Json) -> None:
        """See `Resource`."""
        await self.store.delete_rule(view["id"], ask.who)


def _word(fields: Fields, name: str, words: tuple[str, str], default: str | None) -> Literal["ingress", "egress"]:
    value = fields.text(name)
    if not value and default is None:
        raise bad(f"Failed to parse request. Required attribute '{name}' not specified.")
    found = {word.lower(): word for word in words}.get((value or default or "").lower())
    if found is None:
        raise wrong(name, f"'{value}' is not in {list(words)}.")
    return cast('Literal["ingress", "egress"]', found)


def rule_view(rule: SecurityRule, group: SecurityGroup) -> Json:
    """A rule as Neutron shows it."""
    return {
        "id": rule.uuid,
        "project_id": group.project_id,
        "tenant_id": group.project_id,
        "security_group_id": rule.group_uuid,
        "ethertype": rule.ethertype,
        "direction": rule.direction,
        "protocol": rule.protocol,
        "port_range_min": rule.port_min,
        "port_range_max": rule.port_max,
        "remote_ip_prefix": rule.remote_cidr,
        "remote_address_group_id": None,
        "normalized_cidr": rule.remote_cidr,
        "remote_group_id": rule.remote_group,
        "belongs_to_default_sg": group.is_default,
        "description": rule.description,
        "tags": [],
        "created_at": time_of(rule.created_us),
        "updated_at": time_of(rule.created_us),
        "revision_number": 0,
    }
