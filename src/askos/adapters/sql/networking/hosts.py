"""What hosts must know of groups and floating addresses: one query per table, whatever their number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from askos.adapters.sql import groups as sql_groups
from askos.adapters.sql.networking.common import Common
from askos.adapters.sql.schema import capsules, floating_ips, port_groups, ports, security_rules
from askos.model.networks import HostFloating, HostGroup, HostPort, NetworkState, SecurityRule


class StateStore(Common):
    """Hosts' states."""

    async def states(self) -> dict[str, NetworkState]:
        """See `ports.network_store.NetworkStore`."""
        placed = (
            select(
                ports.c.uuid,
                ports.c.network_uuid,
                ports.c.address,
                ports.c.address6,
                ports.c.secured,
                capsules.c.host_uuid,
            )
            .join(capsules, capsules.c.uuid == ports.c.capsule_uuid)
            .where(capsules.c.host_uuid.is_not(None))
            .order_by(ports.c.uuid)
        )
        worn = select(port_groups).order_by(port_groups.c.port_uuid, port_groups.c.group_uuid)
        leading = (
            select(floating_ips.c.port_uuid, floating_ips.c.address)
            .where(floating_ips.c.port_uuid.is_not(None))
            .order_by(floating_ips.c.address)
        )
        async with self._db.snapshot() as connection:
            found = (await connection.execute(placed)).all()
            groups: dict[str, list[str]] = defaultdict(list)
            for row in (await connection.execute(worn)).all():
                groups[row.port_uuid].append(row.group_uuid)
            rules: dict[str, list[SecurityRule]] = defaultdict(list)
            for row in (await connection.execute(select(security_rules).order_by(security_rules.c.uuid))).all():
                rules[row.group_uuid].append(sql_groups.rule(row))
            floating = (await connection.execute(leading)).all()
        return _states(found, groups, rules, {row.port_uuid: row.address for row in floating})


def _states(
    placed: Sequence[Any],
    groups: dict[str, list[str]],
    rules: dict[str, list[SecurityRule]],
    floating: dict[str, str],
) -> dict[str, NetworkState]:
    members: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    by_host: dict[str, list[HostPort]] = defaultdict(list)
    leads: dict[str, list[HostFloating]] = defaultdict(list)
    for row in placed:
        mine = groups.get(row.uuid, [])
        theirs = [row.address, row.address6] if row.address6 else [row.address]
        for group in mine:
            members[group][row.network_uuid] += theirs
        by_host[row.host_uuid].append(
            HostPort(row.uuid, row.address, mine, row.secured, row.network_uuid, row.address6 or "")
        )
        if row.uuid in floating:
            leads[row.host_uuid].append(HostFloating(floating[row.uuid], row.address, row.network_uuid))
    return {
        host: NetworkState(ports=here, groups=_groups(here, rules, members), floating=leads[host])
        for host, here in by_host.items()
    }


def _groups(
    mine: list[HostPort], rules: dict[str, list[SecurityRule]], members: dict[str, dict[str, list[str]]]
) -> list[HostGroup]:
    """The groups of these ports with their rules, and those that rules name, for their members on these networks."""
    worn = {group for port in mine for group in port.groups}
    named = {rule.remote_group for group in worn for rule in rules.get(group, ()) if rule.remote_group is not None}
    here = sorted({port.network_uuid for port in mine})
    found = []
    for uuid in sorted(worn | named):
        everywhere = members.get(uuid, {})
        near = {network: everywhere[network] for network in here if network in everywhere}
        found.append(HostGroup(uuid, rules.get(uuid, []) if uuid in worn else [], near))
    return found
