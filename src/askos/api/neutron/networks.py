"""/networks and /subnets."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address
from typing import Any, Literal

from askos.api.neutron.context import Ask, Json, time_of
from askos.api.neutron.fields import Fields, wrong
from askos.api.neutron.resource import Resource
from askos.model.errors import AskosError, NotFoundError
from askos.model.networks import Subnet, TenantNetwork
from askos.plan import pools
from askos.ports.network_store import NewSubnet

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
    subnet = network.subnet
    view: Json = {
        "id": network.uuid,
        "name": network.name,
        "tenant_id": network.project_id,
        "admin_state_up": True,
        "mtu": 1500,
        "status": "ACTIVE",
        "subnets": [] if subnet is None else [subnet.uuid],
        "shared": network.shared,
        "availability_zone_hints": [],
        "availability_zones": ["nova"] if subnet is not None else [],
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


class Subnets(Resource):
    """Subnets, of which a network has one."""

    single, plural, path = "subnet", "subnets", "subnets"
    missing = ("Subnet {} could not be found.", "subnet-not-found")
    filters = frozenset({
        "name", "tenant_id", "project_id", "network_id", "ip_version", "cidr", "gateway_ip", "enable_dhcp",
        "subnetpool_id", "ipv6_ra_mode", "ipv6_address_mode", "segment_id", "service_types",
    })  # fmt: skip

    async def views(self, ask: Ask, ids: list[str] | None) -> list[Json]:
        """See `Resource`."""
        wanted = None if ids is None else set(ids)
        networks = await self.store.networks(ask.who, ask.values("network_id") or None)
        return [
            subnet_view(network.subnet)
            for network in networks
            if network.subnet is not None and (wanted is None or network.subnet.uuid in wanted)
        ]

    async def make(self, ask: Ask, body: Json) -> Json:
        """See `Resource`."""
        named_owner = "tenant_id" in body or "project_id" in body
        project_id = ask.owner(body)
        fields = Fields(body)
        network_uuid = fields.required("network_id")
        found = await self.store.networks(ask.who, [network_uuid])
        if not found:
            raise NotFoundError(f"Network {network_uuid} could not be found.", "network-not-found")
        ask.check_owner(found[0].project_id, "create_subnet")
        if (fields.number("ip_version", 0, 9) or 4) != 4:
            raise wrong("ip_version", "networks here have IPv4 addresses only.")
        gateway = _gateway(fields)
        new = NewSubnet(
            network_uuid=network_uuid,
            name=fields.text("name") or "",
            description=fields.text("description", 10_000) or "",
            cidr=_cidr(fields),
            pool_uuid=fields.ident("subnetpool_id"),
            prefix=fields.number("prefixlen", 0, 32),
            gateway=gateway,
            dhcp=fields.flag("enable_dhcp") is not False,
            ranges=_ranges(fields) or [],
            project_id=project_id if named_owner else "",
        )
        if new.pool_uuid is not None and all(
            pool.uuid != new.pool_uuid for pool in await self.store.subnet_pools(ask.scope)
        ):
            raise NotFoundError(f"Subnet pool {new.pool_uuid} could not be found.", "subnet-pool-not-found")
        self._constant(fields)
        return subnet_view(await self.store.create_subnet(new))

    @staticmethod
    def _constant(fields: Fields) -> None:
        fields.only(
            dns_nameservers=[], host_routes=[], service_types=[], segment_id=None, ipv6_ra_mode=None, tags=[],
            ipv6_address_mode=None, use_default_subnetpool=False, dns_publish_fixed_ip=False,
        )  # fmt: skip
        fields.done()

    async def change(self, ask: Ask, view: Json, body: Json) -> Json:
        """See `Resource`."""
        del ask
        fields = Fields(body)
        name, description, dhcp = fields.text("name"), fields.text("description", 10_000), fields.flag("enable_dhcp")
        gateway, ranges = _gateway(fields), _ranges(fields)
        self._constant(fields)
        after = await self.store.update_subnet(
            view["id"], name=name, description=description, dhcp=dhcp, gateway=gateway, ranges=ranges
        )
        return subnet_view(after)

    async def remove(self, ask: Ask, view: Json) -> None:
        """See `Resource`."""
        del ask
        await self.store.delete_subnet(view["id"])


def _gateway(fields: Fields) -> str | Literal[False] | None:
    """None: not given. False: given as null, there is none."""
    if not fields.has("gateway_ip"):
        return None
    value = fields.taken("gateway_ip")
    if value is None:
        return False
    try:
        return str(IPv4Address(value))
    except ValueError:
        raise wrong("gateway_ip", f"'{value}' is not a valid IP address.") from None


def _cidr(fields: Fields) -> str | None:
    value = fields.ident("cidr")
    if value is None:
        return None
    if ":" in value:
        raise wrong("cidr", "networks here have IPv4 addresses only.")
    try:
        return str(pools.network(value))
    except AskosError:
        raise wrong("cidr", f"'{value}' is not a valid IP subnet.") from None


def _ranges(fields: Fields) -> list[tuple[str, str]] | None:
    given = fields.objects("allocation_pools", ("start", "end"))
    if given is None:
        return None
    for one in given:
        if len(one) != 2:
            raise wrong("allocation_pools", f"'{one}' needs start and end.")
    return [(one["start"], one["end"]) for one in given]


def subnet_view(subnet: Subnet) -> Json:
    """A subnet as Neutron shows it."""
    return {
        "id": subnet.uuid,
        "name": subnet.name,
        "tenant_id": subnet.project_id,
        "network_id": subnet.network_uuid,
        "ip_version": 4,
        "subnetpool_id": subnet.pool_uuid,
        "enable_dhcp": subnet.dhcp,
        "ipv6_ra_mode": None,
        "ipv6_address_mode": None,
        "gateway_ip": None if subnet.gateway_disabled else subnet.gateway,
        "cidr": subnet.cidr,
        "allocation_pools": [{"start": first, "end": last} for first, last in subnet.ranges or _all(subnet)],
        "host_routes": [],
        "dns_nameservers": [],
        "description": subnet.description,
        "service_types": [],
        "segment_id": None,
        "tags": [],
        "created_at": time_of(subnet.created_us),
        "updated_at": time_of(subnet.updated_us),
        "revision_number": subnet.changed,
        "project_id": subnet.project_id,
    }


def _all(subnet: Subnet) -> list[tuple[str, str]]:
    """Every address but the network's, its broadcast's and the gateway's."""
    net = pools.network(subnet.cidr)
    first, last, door = int(net.network_address) + 1, int(net.broadcast_address) - 1, int(IPv4Address(subnet.gateway))
    pieces: list[Any] = [(first, door - 1), (door + 1, last)]
    return [(str(IPv4Address(a)), str(IPv4Address(b))) for a, b in pieces if a <= b]
