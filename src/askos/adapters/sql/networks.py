"""Project networks and addresses, inside the caller's transaction."""

from __future__ import annotations

import ipaddress
import uuid

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import rows
from askos.adapters.sql.schema import cloud, networks, ports
from askos.model.capsules import Network, Port
from askos.model.errors import ConflictError
from askos.plan import pools


async def project_network(connection: AsyncConnection, project_id: str, now_us: int) -> Network:
    """The project's network; made from the cloud's pool at its first use."""
    query = select(networks).where(networks.c.project_id == project_id).order_by(networks.c.created_us).limit(1)
    row = (await connection.execute(query)).first()
    if row is not None:
        return rows.network(row)
    pool = (await connection.execute(select(cloud.c.value).where(cloud.c.key == "network_pool"))).scalar_one()
    taken = set((await connection.execute(select(networks.c.cidr))).scalars())
    cidr = next((s for s in pools.subnets(pool) if s not in taken), None)
    if cidr is None:
        raise ConflictError(f"Cannot make a network for this project: the pool {pool} has no free subnet left.")
    gateway = str(next(ipaddress.ip_network(cidr).hosts()))
    network = Network(str(uuid.uuid4()), project_id, "default", cidr, gateway, str(uuid.uuid4()))
    await connection.execute(
        insert(networks).values(
            uuid=network.uuid,
            project_id=project_id,
            name=network.name,
            cidr=cidr,
            gateway=gateway,
            subnet_uuid=network.subnet_uuid,
            created_us=now_us,
        )
    )
    return network


async def claim_port(connection: AsyncConnection, network: Network, capsule_uuid: str, now_us: int) -> Port:
    """Claim a free address on the network for a capsule. ConflictError when there is none."""
    query = select(ports.c.address_number).where(ports.c.network_uuid == network.uuid)
    used = set((await connection.execute(query)).scalars())
    address = pools.free_address(network.cidr, used)
    if address is None:
        raise ConflictError(
            f"Cannot give the container an address: all addresses of network {network.name} ({network.cidr}) are "
            "in use. Delete containers that are not needed."
        )
    port = Port(str(uuid.uuid4()), network.uuid, capsule_uuid, address, pools.mac_for(address))
    await connection.execute(
        insert(ports).values(
            uuid=port.uuid,
            network_uuid=network.uuid,
            capsule_uuid=capsule_uuid,
            address=address,
            address_number=int(ipaddress.ip_address(address)),
            mac=port.mac,
            created_us=now_us,
        )
    )
    return port
