"""Zun's /v1/networks: networks of the network service that operators make known to the engine. Hosts here make a
network when they need it, so that this is a record and no more."""

from __future__ import annotations

import uuid

from aiohttp import web

from askos.api import policy, schemas
from askos.api.core import Request, json_response
from askos.api.microversion import Version
from askos.model.hosts import EngineNetwork
from askos.ports.admin_store import ServiceStore
from askos.ports.network_store import NetworkStore, Who

_NAME: schemas.Schema = {"type": "string", "minLength": 1, "maxLength": 255}
_BODY: schemas.Schema = {
    "type": "object",
    "properties": {"name": _NAME, "neutron_net_id": _NAME},
    "required": ["name", "neutron_net_id"],
    "additionalProperties": False,
}


class EngineNetworks:
    """The handlers."""

    def __init__(self, store: ServiceStore, networking: NetworkStore) -> None:
        self._store = store
        self._networking = networking

    def schema(self, _version: Version) -> schemas.Schema:
        """The schema of a create's body."""
        return _BODY

    async def create(self, request: Request) -> web.Response:
        """POST: a 200, as in Zun."""
        caller = request.caller
        policy.enforce(caller, "network:create")
        network = await self._networking.network(request.body["neutron_net_id"], Who(caller.project_id, True))
        made = EngineNetwork(str(uuid.uuid4()), network.uuid, caller.project_id, caller.user_id)
        await self._store.create_engine_network(made)
        return json_response(
            {
                "uuid": made.uuid,
                "name": network.uuid,
                "project_id": made.project_id,
                "user_id": made.user_id,
                "network_id": uuid.UUID(network.uuid).hex,
                "neutron_net_id": network.uuid,
            }
        )

    async def delete(self, request: Request) -> web.Response:
        """DELETE, by the network service's uuid."""
        policy.enforce(request.caller, "network:delete")
        await self._store.delete_engine_network(request.arguments["ident"])
        return web.Response(status=204)
