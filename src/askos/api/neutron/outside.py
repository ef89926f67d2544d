"""/floatingips."""

from __future__ import annotations

from askos.api.neutron.context import Ask, time_of
from askos.api.neutron.fields import Fields, wrong
from askos.api.neutron.resource import Resource
from askos.api.service import Json
from askos.model.networks import FloatingAddress


class FloatingIps(Resource):
    """Floating addresses."""

    single, plural, path = "floatingip", "floatingips", "floatingips"
    missing = ("Floating IP {} could not be found.", "floating-ip-not-found")
    filters = frozenset({
        "tenant_id", "project_id", "floating_ip_address", "floating_network_id", "router_id", "port_id",
        "fixed_ip_address", "status",
    })  # fmt: skip

    async def views(self, ask: Ask, ids: list[str] | None) -> list[Json]:
        """See `Resource`."""
        return [floating_view(one) for one in await self.store.floating(ask.scope, ids)]

    async def make(self, ask: Ask, body: Json) -> Json:
        """See `Resource`."""
        project_id = ask.owner(body)
        fields = Fields(body)
        network_uuid = fields.required("floating_network_id")
        subnet_uuid = fields.ident("subnet_id")
        if subnet_uuid is not None:
            networks = await self.store.networks(ask.who, [network_uuid])
            if all(n.subnet is None or n.subnet.uuid != subnet_uuid for n in networks):
                raise wrong("subnet_id", f"network {network_uuid} has no subnet {subnet_uuid}.")
        address, port_uuid = fields.ident("floating_ip_address"), fields.ident("port_id")
        fixed, description = fields.ident("fixed_ip_address"), fields.text("description") or ""
        self._constant(fields)
        made = await self.store.create_floating(
            project_id,
            network_uuid,
            ask.who,
            address=address,
            port_uuid=port_uuid,
            fixed_address=fixed,
            description=description,
        )
        return floating_view(made)

    @staticmethod
    def _constant(fields: Fields) -> None:
        fields.only(dns_name="", dns_domain="", qos_policy_id=None, tags=[], distributed=False)
        fields.done()

    async def change(self, ask: Ask, view: Json, body: Json) -> Json:
        """See `Resource`."""
        fields = Fields(body)
        port_uuid = fields.ident("port_id") if fields.has("port_id") else ""
        fixed, description = fields.ident("fixed_ip_address"), fields.text("description")
        self._constant(fields)
        after = await self.store.update_floating(
            view["id"], ask.who, port_uuid=port_uuid, fixed_address=fixed, description=description
        )
        return floating_view(after)

    async def remove(self, ask: Ask, view: Json) -> None:
        """See `Resource`."""
        del ask
        await self.store.delete_floating(view["id"])


def floating_view(one: FloatingAddress) -> Json:
    """A floating address as Neutron shows it. It is ACTIVE while packets for it arrive somewhere."""
    address, port = one.address, one.port
    return {
        "id": address.uuid,
        "tenant_id": address.project_id,
        "floating_ip_address": address.address,
        "floating_network_id": address.network_uuid,
        "router_id": one.router_uuid,
        "port_id": address.port_uuid,
        "fixed_ip_address": address.fixed_address,
        "status": "ACTIVE" if port is not None and port.host else "DOWN",
        "project_id": address.project_id,
        "description": one.description,
        "port_details": None
        if port is None
        else {
            "name": port.name,
            "network_id": port.network_uuid,
            "mac_address": port.mac,
            "admin_state_up": True,
            "status": "ACTIVE" if port.host else "DOWN",
            "device_id": port.device_id,
            "device_owner": port.device_owner,
        },
        "tags": [],
        "created_at": time_of(address.created_us),
        "updated_at": time_of(one.updated_us),
        "revision_number": one.changed,
    }
