"""All routes of the network service, for the main application to add."""

from __future__ import annotations

from aiohttp import web

from askos.api.neutron.context import BASE, Ask, Context
from askos.api.neutron.groups import Groups, Rules
from askos.api.neutron.networks import Networks
from askos.api.neutron.outside import FloatingIps
from askos.api.neutron.pools import SubnetPools
from askos.api.neutron.ports import Ports
from askos.api.neutron.resource import Resource
from askos.api.neutron.routers import Routers
from askos.api.neutron.subnets import Subnets
from askos.api.service import Json, reply
from askos.model.errors import ForbiddenError, NotFoundError
from askos.ports.identity import Identity
from askos.ports.network_store import NetworkStore

_KINDS: tuple[type[Resource], ...] = (Networks, Subnets, Ports, Groups, Rules, FloatingIps, Routers, SubnetPools)

_EXTENSIONS = {
    "router": "Neutron L3 Router",
    "external-net": "Neutron external network",
    "security-group": "security-group",
    "standard-attr-description": "standard-attr-description",
    "standard-attr-revisions": "Resource revision numbers",
    "standard-attr-timestamp": "Resource timestamps",
    "port-security": "Port Security",
    "binding": "Port Binding",
    "net-mtu": "Network MTU",
    "subnet_allocation": "Subnet Allocation",
    "project-id": "project_id field enabled",
    "pagination": "Pagination support",
    "sorting": "Sorting support",
    "filter-validation": "Filter parameters validation",
    "fip-port-details": "Floating IP Port Details Extension",
    "quotas": "Quota management support",
    "availability_zone": "Availability Zone",
    "network_availability_zone": "Network Availability Zone",
    "router_availability_zone": "Router Availability Zone",
    "port-security-groups-filtering": "Port filtering on security groups",
    "ip-substring-filtering": "IP address substring filtering",
}

_QUOTAS = (
    "network", "subnet", "subnetpool", "port", "router", "floatingip", "security_group", "security_group_rule",
    "rbac_policy",
)  # fmt: skip


def routes(store: NetworkStore, identity: Identity, public_url: str | None = None) -> list[web.RouteDef]:
    """Everything under /networking. `public_url` is where clients reach the cloud (without path); None takes the
    scheme and Host of each request."""
    context = Context(store, identity, public_url)
    found = _versions(context)
    for kind in _KINDS:
        found += kind(context).routes()
    found += _extensions(context) + _quotas(context)

    async def zones(_ask: Ask) -> web.Response:
        kinds = ("network", "router")
        return reply({"availability_zones": [{"name": "nova", "resource": k, "state": "available"} for k in kinds]})

    found.append(web.get(f"{BASE}/availability_zones", context.handled(zones)))
    found.append(context.missing())
    return found


def _versions(context: Context) -> list[web.RouteDef]:
    """What clients read first, without a token."""

    def v2(request: web.Request) -> Json:
        return {
            "id": "v2.0",
            "status": "CURRENT",
            "links": [{"rel": "self", "href": f"{context.base(request)}/v2.0/"}],
        }

    async def every(request: web.Request) -> web.Response:
        return reply({"versions": [v2(request)]})

    async def one(request: web.Request) -> web.Response:
        resources = [
            {
                "name": kind.single,
                "collection": kind.plural,
                "links": [{"rel": "self", "href": f"{context.base(request)}/v2.0/{kind.path}"}],
            }
            for kind in _KINDS
        ]
        return reply({"version": v2(request), "resources": resources})

    return [
        *(web.get(path, every) for path in ("/networking", "/networking/")),
        *(web.get(path, one) for path in (BASE, f"{BASE}/")),
    ]


def _extensions(context: Context) -> list[web.RouteDef]:
    def shown(alias: str) -> Json:
        name = _EXTENSIONS[alias]
        return {"alias": alias, "name": name, "description": name, "updated": "2016-01-01T10:00:00-00:00", "links": []}

    async def every(_ask: Ask) -> web.Response:
        return reply({"extensions": [shown(alias) for alias in _EXTENSIONS]})

    async def one(ask: Ask) -> web.Response:
        if ask.item not in _EXTENSIONS:
            raise NotFoundError(f"Extension with alias {ask.item} does not exist.", "http-not-found")
        return reply({"extension": shown(ask.item)})

    path = f"{BASE}/extensions"
    return [web.get(path, context.handled(every)), web.get(f"{path}/{{item}}", context.handled(one))]


def _quotas(context: Context) -> list[web.RouteDef]:
    """Networks and their like are not counted: -1 is without limit."""

    async def every(_ask: Ask) -> web.Response:
        return reply({"quotas": []})

    async def one(ask: Ask) -> web.Response:
        ask.check_owner(ask.item, "get_quota")
        return reply({"quota": dict.fromkeys(_QUOTAS, -1)})

    async def fixed(ask: Ask) -> web.Response:
        raise ForbiddenError(f"Cannot change the quotas of {ask.item}: networks and their like are not limited here.")

    path = f"{BASE}/quotas"
    return [
        web.get(path, context.handled(every)),
        web.get(f"{path}/{{item}}", context.handled(one)),
        web.get(f"{path}/{{item}}/default", context.handled(one)),
        web.put(f"{path}/{{item}}", context.handled(fixed)),
        web.delete(f"{path}/{{item}}", context.handled(fixed)),
    ]
