"""/networks."""

from __future__ import annotations

import logging

from askos.api.neutron.context import Ask, time_of
from askos.api.neutron.fields import Fields, wrong
from askos.api.neutron.resource import Resource
from askos.api.service import Json
from askos.model.errors import AskosError
from askos.model.networks import TenantNetwork

_log = logging.getLogger(__name__)


class Networks(Resource):
    """Networks. The external one is made when somebody looks for it."""

    single, plural, path = "network", "networks", "networks"
    missing = ("Network {} could not be found.", "network-not-found")
    filters = frozenset({
        "name", "tenant_id", "project_id", "status", "admin_state_up", "shared", "router:external", "mtu", "is_default",
        "port_security_enabled", "provider:network_type", "provider:physical_network", "provider:segmentation_id",
    })  # fmt: skip

    async def views(self, ask: Ask, ids: list[str] | None) -> list[Json]:
        """See `Resource`."""
        if ids is None:
            try:
                await self.store.ensure_external()
            except AskosError as error:
                _log.warning("there is no external network: %s", error)
        return [network_view(network, ask) for network in await self.store.networks(ask.who, ids)]

    async def make(self, ask: Ask, body: Json) -> Json:
        """See `Resource`."""
        project_id = ask.owner(body)
        fields = Fields(body)
        name, description = fields.text("name") or "", fields.text("description", 10_000) or ""
        shared = _shared(ask, fields, "create_network")
        if fields.flag("router:external"):
            ask.check_admin("create_network:router:external")
            raise wrong("router:external", "this cloud has one external network, made by itself.")
        self._constant(fields)
        made = await self.store.create_network(project_id, name, description=description, shared=bool(shared))
        return network_view(made, ask)

    @staticmethod
    def _constant(fields: Fields) -> None:
        fields.only(
            admin_state_up=True, port_security_enabled=True, is_default=False, mtu=1500, availability_zone_hints=[],
            vlan_transparent=False, qos_policy_id=None, dns_domain="", tags=[], provider__network_type="local",
            provider__physical_network=None, provider__segmentation_id=None,
        )  # fmt: skip
        fields.done()

    async def change(self, ask: Ask, view: Json, body: Json) -> Json:
        """See `Resource`."""
        fields = Fields(body)
        name, description = fields.text("name"), fields.text("description", 10_000)
        shared = _shared(ask, fields, "update_network")
        fields.only(router__external=view["router:external"])
        self._constant(fields)
        if shared and view["router:external"]:
            raise wrong("shared", "containers cannot be plugged into the external network.")
        return network_view(
            await self.store.update_network(view["id"], name=name, description=description, shared=shared), ask
        )

    async def remove(self, ask: Ask, view: Json) -> None:
        """See `Resource`."""
        del ask
        await self.store.delete_network(view["id"])


def _shared(ask: Ask, fields: Fields, what: str) -> bool | None:
    shared = fields.flag("shared")
    if shared:
        ask.check_admin(f"{what}:shared")
    return shared


def network_view(network: TenantNetwork, ask: Ask) -> Json:
    """A network as Neutron shows it."""
    subnets = [subnet.uuid for subnet in network.subnets]
    view: Json = {
        "id": network.uuid,
        "name": network.name,
        "tenant_id": network.project_id,
        "admin_state_up": True,
        "mtu": 1500,
        "status": "ACTIVE",
        "subnets": subnets,
        "shared": network.shared,
        "availability_zone_hints": [],
        "availability_zones": ["nova"] if subnets else [],
        "ipv4_address_scope": None,
        "ipv6_address_scope": None,
        "router:external": network.external,
        "description": network.description,
        "port_security_enabled": True,
        "l2_adjacency": True,
        "is_default": False,
        "tags": [],
        "created_at": time_of(network.created_us),
        "updated_at": time_of(network.updated_us),
        "revision_number": network.changed,
        "project_id": network.project_id,
    }
    if ask.caller.is_admin:
        view |= {
            "provider:network_type": "local",
            "provider:physical_network": None,
            "provider:segmentation_id": None,
        }
    return view
