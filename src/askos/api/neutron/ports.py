"""/ports."""

from __future__ import annotations

from askos.api.neutron.context import Ask, time_of
from askos.api.neutron.fields import Fields, wrong
from askos.api.neutron.resource import Resource
from askos.api.service import Json
from askos.model.networks import ROUTER_OWNER, TenantPort
from askos.plan import pools
from askos.ports.network_store import FixedIp, NewPort, PortQuery


class Ports(Resource):
    """Ports: those of users, of containers and of routers."""

    single, plural, path = "port", "ports", "ports"
    missing = ("Port {} could not be found.", "port-not-found")
    filters = frozenset({
        "name", "tenant_id", "project_id", "network_id", "mac_address", "device_id", "device_owner", "status",
        "admin_state_up", "fixed_ips", "security_groups", "binding:host_id", "binding:vif_type", "binding:vnic_type",
        "port_security_enabled", "ip_allocation",
    })  # fmt: skip

    async def views(self, ask: Ask, ids: list[str] | None) -> list[Json]:
        """See `Resource`."""
        named = {value for name in ("project_id", "tenant_id") for value in ask.values(name)}
        scope = ask.scope if ask.scope is not None or len(named) != 1 else named.pop()
        query = PortQuery(scope, ids or [], ask.values("network_id"), ask.values("device_id"))
        return [port_view(port, ask) for port in await self.store.ports(query)]

    async def make(self, ask: Ask, body: Json) -> Json:
        """See `Resource`."""
        project_id = ask.owner(body)
        fields = Fields(body)
        network_uuid = fields.required("network_id")
        new = NewPort(
            network_uuid=network_uuid,
            project_id=project_id,
            fixed=_fixed(fields),
            name=fields.text("name") or "",
            description=fields.text("description", 10_000) or "",
            groups=fields.idents("security_groups"),
            secured=fields.flag("port_security_enabled") is not False,
            device_id=fields.text("device_id") or "",
            device_owner=_device_owner(fields) or "",
        )
        self._constant(fields)
        return port_view(await self.store.create_port(new, ask.who), ask)

    @staticmethod
    def _constant(fields: Fields) -> None:
        fields.only(
            admin_state_up=True, allowed_address_pairs=[], extra_dhcp_opts=[], binding__vnic_type="normal",
            binding__host_id="", binding__profile={}, dns_name="", dns_domain="", qos_policy_id=None, tags=[],
            propagate_uplink_status=False, numa_affinity_policy=None, hints={},
        )  # fmt: skip
        if fields.has("mac_address"):
            fields.taken("mac_address")
            raise wrong("mac_address", "it follows from the address here, and cannot be chosen.")
        fields.done()

    async def change(self, ask: Ask, view: Json, body: Json) -> Json:
        """See `Resource`."""
        fields = Fields(body)
        name, description = fields.text("name"), fields.text("description", 10_000)
        groups, secured = fields.idents("security_groups"), fields.flag("port_security_enabled")
        device_id, device_owner = fields.text("device_id"), _device_owner(fields)
        fixed = _fixed(fields)
        if fields.has("binding:host_id") and fields.taken("binding:host_id") not in (view.get("binding:host_id"), ""):
            raise wrong("binding:host_id", "placement chooses the host, with the container.")
        self._constant(fields)
        after = await self.store.update_port(
            view["id"],
            ask.who,
            name=name,
            description=description,
            groups=groups,
            secured=secured,
            device_id=device_id,
            device_owner=device_owner,
            fixed=fixed,
        )
        return port_view(after, ask)

    async def remove(self, ask: Ask, view: Json) -> None:
        """See `Resource`."""
        del ask
        await self.store.delete_port(view["id"])


def _fixed(fields: Fields) -> list[FixedIp] | None:
    """The addresses wished; None: one of each subnet, or as they are."""
    given = fields.objects("fixed_ips", ("subnet_id", "ip_address"))
    if given is None:
        return None
    if not given:
        raise wrong("fixed_ips", "a port needs an address here; leave the field out for one of each subnet.")
    for one in given:
        if not one:
            raise wrong("fixed_ips", "each of them needs subnet_id or ip_address.")
        if "ip_address" in one and pools.parsed(one["ip_address"]) is None:
            raise wrong("fixed_ips", f"'{one['ip_address']}' is not a valid IP address.")
    return [FixedIp(one.get("subnet_id", ""), one.get("ip_address", "")) for one in given]


def fixed_ips(port: TenantPort) -> list[Json]:
    """Its addresses, IPv4 first."""
    both = ((port.subnet_uuid, port.address), (port.subnet6_uuid, port.address6))
    return [{"subnet_id": subnet, "ip_address": address} for subnet, address in both if address]


def _device_owner(fields: Fields) -> str | None:
    owner = fields.text("device_owner")
    if owner is not None and owner.startswith("network:"):
        raise wrong("device_owner", f"'{owner}' is the network service's own.")
    return owner


def port_view(port: TenantPort, ask: Ask) -> Json:
    """A port as Neutron shows it."""
    active = bool(port.host) or port.device_owner == ROUTER_OWNER
    view: Json = {
        "id": port.uuid,
        "name": port.name,
        "network_id": port.network_uuid,
        "tenant_id": port.project_id,
        "mac_address": port.mac,
        "admin_state_up": True,
        "status": "ACTIVE" if active else "DOWN",
        "device_id": port.device_id,
        "device_owner": port.device_owner,
        "fixed_ips": fixed_ips(port),
        "allowed_address_pairs": [],
        "extra_dhcp_opts": [],
        "security_groups": port.groups,
        "description": port.description,
        "binding:vnic_type": "normal",
        "port_security_enabled": port.secured,
        "ip_allocation": "immediate",
        "tags": [],
        "created_at": time_of(port.created_us),
        "updated_at": time_of(port.updated_us),
        "revision_number": port.changed,
        "project_id": port.project_id,
    }
    if ask.caller.is_admin:
        view |= {
            "binding:profile": {},
            "binding:host_id": port.host,
            "binding:vif_type": "bridge" if active else "unbound",
            "binding:vif_details": {"connectivity": "l2", "port_filter": True} if active else {},
        }
    return view
