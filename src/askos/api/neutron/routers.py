"""/routers, with their interfaces."""

from __future__ import annotations

import msgspec
from aiohttp import web

from askos.api.neutron.context import BASE, Ask, bad, time_of
from askos.api.neutron.fields import Fields, wrong
from askos.api.neutron.ports import fixed_ips
from askos.api.neutron.resource import Resource
from askos.api.service import Json, decoded, reply
from askos.model.errors import NotFoundError
from askos.model.networks import Router, TenantPort


class Routers(Resource):
    """Routers."""

    single, plural, path = "router", "routers", "routers"
    missing = ("Router {} could not be found.", "router-not-found")
    filters = frozenset({"name", "tenant_id", "project_id", "status", "admin_state_up", "distributed", "ha"})

    async def views(self, ask: Ask, ids: list[str] | None) -> list[Json]:
        """See `Resource`."""
        return [router_view(router) for router in await self.store.routers(ask.scope, ids)]

    async def make(self, ask: Ask, body: Json) -> Json:
        """See `Resource`."""
        project_id = ask.owner(body)
        fields = Fields(body)
        name, description = fields.text("name") or "", fields.text("description") or ""
        enabled = fields.flag("admin_state_up") is not False
        network_uuid = await self._way_out(ask, fields)
        self._constant(fields)
        made = await self.store.create_router(
            project_id, name, description=description, enabled=enabled, network_uuid=network_uuid or None
        )
        return router_view(made)

    async def _way_out(self, ask: Ask, fields: Fields) -> str | None:
        """The external network's uuid; None: not given; empty: none any more."""
        if not fields.has("external_gateway_info"):
            return None
        info = fields.taken("external_gateway_info")
        if not info:
            return ""
        if not isinstance(info, dict):
            raise wrong("external_gateway_info", f"'{info}' is not an object.")
        inner = Fields(info)
        network_uuid = inner.required("network_id")
        inner.only(enable_snat=True, external_fixed_ips=[], qos_policy_id=None)
        inner.done()
        if not await self.store.networks(ask.who, [network_uuid]):
            raise NotFoundError(f"Network {network_uuid} could not be found.", "network-not-found")
        return network_uuid

    @staticmethod
    def _constant(fields: Fields) -> None:
        fields.only(
            distributed=False, ha=False, routes=[], availability_zone_hints=[], flavor_id=None, tags=[],
            enable_ndp_proxy=False, service_type_id=None,
        )  # fmt: skip
        fields.done()

    async def change(self, ask: Ask, view: Json, body: Json) -> Json:
        """See `Resource`."""
        fields = Fields(body)
        name, description, enabled = fields.text("name"), fields.text("description"), fields.flag("admin_state_up")
        network_uuid = await self._way_out(ask, fields)
        self._constant(fields)

        def change(router: Router) -> Router:
            return msgspec.structs.replace(
                router,
                name=router.name if name is None else name,
                description=router.description if description is None else description,
                enabled=router.enabled if enabled is None else enabled,
                network_uuid=router.network_uuid if network_uuid is None else network_uuid or None,
            )

        return router_view(await self.store.update_router(view["id"], change))

    async def remove(self, ask: Ask, view: Json) -> None:
        """See `Resource`."""
        del ask
        await self.store.delete_router(view["id"])

    # -- interfaces --------------------------------------------------------------------------------------------

    async def _interface(self, ask: Ask) -> tuple[Json, str | None, str | None]:
        view = await self.one(ask, ask.item)
        ask.check_owner(view["project_id"], "update_router")
        odd = bad("Invalid input: the body names a subnet_id or a port_id.")
        body = decoded(await ask.raw.read() or b"null", odd)
        if not isinstance(body, dict):
            raise odd
        fields = Fields(body)
        subnet_uuid, port_uuid = fields.ident("subnet_id"), fields.ident("port_id")
        fields.done()
        if (subnet_uuid is None) == (port_uuid is None):
            raise bad("Bad router request: Either subnet_id or port_id must be specified, and not both.")
        return view, subnet_uuid, port_uuid

    async def _add(self, ask: Ask) -> web.Response:
        view, subnet_uuid, port_uuid = await self._interface(ask)
        port = await self.store.add_interface(view["id"], ask.who, subnet_uuid=subnet_uuid, port_uuid=port_uuid)
        return reply(_interface_view(view, port))

    async def _take(self, ask: Ask) -> web.Response:
        view, subnet_uuid, port_uuid = await self._interface(ask)
        port = await self.store.remove_interface(view["id"], subnet_uuid=subnet_uuid, port_uuid=port_uuid)
        return reply(_interface_view(view, port))

    def routes(self) -> list[web.RouteDef]:
        """See `Resource`."""
        handled = self.context.handled
        return [
            *super().routes(),
            web.put(f"{BASE}/routers/{{item}}/add_router_interface", handled(self._add)),
            web.put(f"{BASE}/routers/{{item}}/remove_router_interface", handled(self._take)),
        ]


def _interface_view(router: Json, port: TenantPort) -> Json:
    subnets = [one["subnet_id"] for one in fixed_ips(port)]
    return {
        "id": router["id"],
        "tenant_id": router["project_id"],
        "port_id": port.uuid,
        "network_id": port.network_uuid,
        "subnet_id": subnets[0],
        "subnet_ids": subnets,
    }


def router_view(router: Router) -> Json:
    """A router as Neutron shows it."""
    gateway = None
    if router.network_uuid is not None:
        gateway = {
            "network_id": router.network_uuid,
            "external_fixed_ips": [{"subnet_id": router.subnet_uuid, "ip_address": router.address}],
            "enable_snat": True,
        }
    return {
        "id": router.uuid,
        "name": router.name,
        "tenant_id": router.project_id,
        "admin_state_up": router.enabled,
        "status": "ACTIVE",
        "external_gateway_info": gateway,
        "description": router.description,
        "availability_zones": ["nova"],
        "availability_zone_hints": [],
        "distributed": False,
        "ha": False,
        "routes": [],
        "flavor_id": None,
        "tags": [],
        "created_at": time_of(router.created_us),
        "updated_at": time_of(router.updated_us),
        "revision_number": router.changed,
        "project_id": router.project_id,
    }
