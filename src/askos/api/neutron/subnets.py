"""/subnets."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal

from askos.api.neutron.context import Ask, time_of
from askos.api.neutron.fields import Fields, wrong
from askos.api.neutron.resource import Resource
from askos.api.service import Json
from askos.model.errors import AskosError, NotFoundError
from askos.model.networks import Subnet, SubnetPool
from askos.plan import pools
from askos.ports.network_store import NewSubnet

MODES = ("slaac", "dhcpv6-stateful", "dhcpv6-stateless")
"""Of IPv6. They are shown as they were given: containers get their addresses set, whatever the mode."""


class Subnets(Resource):
    """Subnets, of which a network has at most one of each IP version."""

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
            subnet_view(subnet)
            for network in networks
            for subnet in network.subnets
            if wanted is None or subnet.uuid in wanted
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
        cidr, pool = _cidr(fields), await self._pool(ask, fields)
        usual = pools.version_of(cidr or (pool.prefixes[0] if pool is not None else ""))
        version = fields.number("ip_version", 0, 9)
        if version not in (None, 4, 6):
            raise wrong("ip_version", f"'{version}' is not in [4, 6].")
        new = NewSubnet(
            network_uuid=network_uuid,
            name=fields.text("name") or "",
            description=fields.text("description", 10_000) or "",
            cidr=cidr,
            pool_uuid=None if pool is None else pool.uuid,
            prefix=fields.number("prefixlen", 0, 128),
            gateway=_gateway(fields),
            dhcp=fields.flag("enable_dhcp") is not False,
            ranges=_ranges(fields) or [],
            project_id=project_id if named_owner else "",
            ip_version=version or usual,
            address_mode=_mode(fields, "ipv6_address_mode"),
            ra_mode=_mode(fields, "ipv6_ra_mode"),
        )
        self._constant(fields)
        return subnet_view(await self.store.create_subnet(new))

    async def _pool(self, ask: Ask, fields: Fields) -> SubnetPool | None:
        uuid = fields.ident("subnetpool_id")
        if uuid is None:
            return None
        for pool in await self.store.subnet_pools(ask.scope):
            if pool.uuid == uuid:
                return pool
        raise NotFoundError(f"Subnet pool {uuid} could not be found.", "subnet-pool-not-found")

    @staticmethod
    def _constant(fields: Fields) -> None:
        fields.only(
            dns_nameservers=[], host_routes=[], service_types=[], segment_id=None, tags=[],
            use_default_subnetpool=False, dns_publish_fixed_ip=False,
        )  # fmt: skip
        fields.done()

    async def change(self, ask: Ask, view: Json, body: Json) -> Json:
        """See `Resource`."""
        del ask
        fields = Fields(body)
        name, description, dhcp = fields.text("name"), fields.text("description", 10_000), fields.flag("enable_dhcp")
        gateway, ranges = _gateway(fields), _ranges(fields)
        fields.only(ipv6_address_mode=view["ipv6_address_mode"], ipv6_ra_mode=view["ipv6_ra_mode"])
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
    address = pools.parsed(value) if isinstance(value, str) else None
    if address is None:
        raise wrong("gateway_ip", f"'{value}' is not a valid IP address.")
    return str(address)


def _cidr(fields: Fields) -> str | None:
    value = fields.ident("cidr")
    if value is None:
        return None
    try:
        return str(pools.net_of(value))
    except AskosError:
        raise wrong("cidr", f"'{value}' is not a valid IP subnet.") from None


def _mode(fields: Fields, name: str) -> str | None:
    value = fields.ident(name)
    if value is not None and value not in MODES:
        raise wrong(name, f"'{value}' is not in {list(MODES)}.")
    return value


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
        "ip_version": subnet.ip_version,
        "subnetpool_id": subnet.pool_uuid,
        "enable_dhcp": subnet.dhcp,
        "ipv6_ra_mode": subnet.ra_mode,
        "ipv6_address_mode": subnet.address_mode,
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
    net = pools.net_of(subnet.cidr)
    (first, last), door = pools.bounds(net), int(ip_address(subnet.gateway))
    form = type(net.network_address)
    return [(str(form(a)), str(form(b))) for a, b in ((first, door - 1), (door + 1, last)) if a <= b]
