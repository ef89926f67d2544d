"""Zun's actions on a container's networks and security groups."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from askos.api import state
from askos.api.containers import Containers, action
from askos.api.core import Request, json_response, raw_json
from askos.api.errors import ApiError, invalid_query, invalid_value
from askos.api.lookups import checked_address
from askos.api.representation import versions
from askos.model.errors import InvalidError
from askos.ports.network_store import Who


class Attachments:
    """The handlers."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._store = containers.store
        self._lookups = containers.lookups

    # -- networks ----------------------------------------------------------------------------------------------

    async def list(self, request: Request) -> web.Response:
        """GET network_list: one entry per address up to 1.17, then one per port."""
        capsule = await self._containers.find(request)
        found: list[dict[str, Any]] = []
        for port, network in zip(capsule.ports, capsule.networks, strict=True):
            head = {"net_id": network.uuid, "port_id": port.uuid}
            mine = [
                {"subnet_id": subnet_uuid, "version": version, "ip_address": address}
                for version, address, subnet_uuid in versions(port, network)
            ]
            if request.version >= (1, 18):
                found.append({**head, "fixed_ips": mine})
            else:
                found += [{**head, **address} for address in mine]
        return json_response({"networks": found})

    async def attach(self, request: Request) -> web.Response:
        """POST network_attach: one more network, also while it runs."""
        query = request.query
        network, port, address = query.get("network"), query.get("port"), query.get("fixed_ip") or ""
        if network and port:
            raise _schema(f"{{'network': {network!r}, 'port': {port!r}}}: give one of them, not both")
        if address:
            address = checked_address("fixed_ip", address)
        capsule = await self._containers.find(request, "network_attach")
        state.check("network_attach", capsule)
        wished = {"address6" if ":" in address else "address": address}
        wish = await self._lookups.net(request.caller, network=network, port=port, **wished)
        if any(n.uuid == wish.network_uuid for n in capsule.networks):
            raise InvalidError(f"Network '{network}' is already connected to container '{capsule.uuid}'.")
        await self._store.attach_port(capsule.uuid, wish, action(request, "network_attach"))
        return raw_json(b"null")

    async def detach(self, request: Request) -> web.Response:
        """POST network_detach: away from a network, or without one port."""
        query = request.query
        network, port = query.get("network"), query.get("port")
        if bool(network) == bool(port):
            raise _schema("Exactly one of network and port is required.")
        capsule = await self._containers.find(request, "network_detach")
        state.check("network_detach", capsule)
        who = Who(request.caller.project_id, request.caller.is_admin)
        networks = self._lookups.network_store()
        if port:
            uuid = (await networks.port(port, who)).uuid
            if all(p.uuid != uuid for p in capsule.ports):
                raise InvalidError(f"Port '{port}' is not attached to container '{capsule.uuid}'.")
            chosen = {"port_uuid": uuid}
        else:
            # Also a network that is not the caller's (any more): what is attached can be detached.
            mine = [n.uuid for n in capsule.networks if network in (n.uuid, n.name)]
            uuid = mine[0] if len(mine) == 1 else (await networks.network(str(network), who)).uuid
            if all(n.uuid != uuid for n in capsule.networks):
                raise InvalidError(f"Network '{network}' is not attached to container '{capsule.uuid}'.")
            chosen = {"network_uuid": uuid}
        await self._store.detach_port(capsule.uuid, **chosen, action=action(request, "network_detach"))
        return raw_json(b"null", 202)

    # -- security groups (up to 1.14) --------------------------------------------------------------------------

    async def add_group(self, request: Request) -> web.Response:
        """POST add_security_group."""
        return await self._secure(request, "add_security_group")

    async def remove_group(self, request: Request) -> web.Response:
        """POST remove_security_group."""
        return await self._secure(request, "remove_security_group")

    async def _secure(self, request: Request, word: str) -> web.Response:
        name = request.query.get("name")
        if not name:
            raise invalid_query("name", "", "the name or uuid of a security group is required")
        capsule = await self._containers.find(request, word)
        state.check(word, capsule)
        (group,) = await self._lookups.network_store().group_ids([name], capsule.project_id)

        def change(now: list[str]) -> list[str]:
            if word == "add_security_group":
                if group in now:
                    raise invalid_value(f"Security group {group} has been added to container.")
                return [*now, group]
            if group not in now:
                raise invalid_value(f"Security group {group} was not added to container.")
            return [uuid for uuid in now if uuid != group]

        await self._store.secure(capsule.uuid, change, action(request, word))
        return raw_json(b"null", 202)


def _schema(title: str) -> ApiError:
    return ApiError(400, title, code="container.schema-validation-error")
