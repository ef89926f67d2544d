"""/ports."""

from __future__ import annotations

from askos.api.neutron.context import Ask, Json, time_of
from askos.api.neutron.fields import Fields, wrong
from askos.api.neutron.resource import Resource
from askos.model.networks import ROUTER_OWNER, TenantPort
from askos.ports.network_store import NewPort, PortQuery


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
            address=await self._address(ask, fields, network_uuid),
            name=fields.text("name") or "",
            description=fields.text("description", 10_000) or "",
            groups=fields.idents("security_groups"),
            secured=fields.flag("port_security_enabled") is not False,
            device_id=fields.text("device_id") or "",
            device_owner=_device_owner(fields) or "",
        )
        self._constant(fields)
        return port_view(await self.store.create_port(new, ask.who), ask)

    async def _address(self, ask: Ask, fields: Fields, network_uuid: str) -> str | None:
        """The address wished. One that is given must be the only one, and of the network's subnet."""
        given = fields.objects("fixed_ips", ("subnet_id", "ip_address"))
        if not given:
            return None
        if len(given) > 1:
            raise wrong("fixed_ips", "a port has one address here.")
        (one,) = given
        if "subnet_id" in one:
            networks = await self.store.networks(ask.who, [network_uuid])
            if all(n.subnet is None or n.subnet.uuid != one["subnet_id"] for n in networks):
                raise wrong("fixed_ips", f"network {network_uuid} has no subnet {one['subnet_id']}.")
        return one.get("ip_address")

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
        address = await self._address(ask, fields, view["network_id"])
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
            address=address,
        )
        return port_view(after, ask)

    async def remove(self, ask: Ask, view: Json) -> None:
        """See `Resource`."""
        del ask
        await self.store.delete_port(view["id"])


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
        "fixed_ips": [{"subnet_id": port.subnet_uuid, "ip_address": port.address}],
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
