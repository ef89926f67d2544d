"""The network service's part of the store: networks, ports, security groups, floating addresses, routers.

As in `ports.store`, every verb is one transaction. What a `project_id` of None means: of all projects. Verbs that
take a `who` check that it is that caller's to use (`Who`); things of others are not found. What capsules do with
ports is in `ports.store`: it happens in the transactions of their creates, changes and ends.

Codes of errors are Neutron's words in kebab case: network-in-use, ip-address-already-allocated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from askos.model.networks import (
    FloatingAddress,
    NetworkState,
    Router,
    SecurityGroup,
    SecurityRule,
    Subnet,
    SubnetPool,
    TenantNetwork,
    TenantPort,
)


class Who(msgspec.Struct, frozen=True):
    """For whom something is done. An administrator may use everything; others their project's own, and networks that
    are shared or external."""

    project_id: str
    is_admin: bool = False


class NewSubnet(msgspec.Struct, frozen=True):
    """A subnet to be made. The range is `cidr`, or is cut from a pool with `prefix` (None: the pool's default)."""

    network_uuid: str
    name: str = ""
    description: str = ""
    cidr: str | None = None
    pool_uuid: str | None = None
    prefix: int | None = None
    gateway: str | Literal[False] | None = None
    """None: the first address. False: none."""
    dhcp: bool = True
    ranges: list[tuple[str, str]] = []
    project_id: str = ""
    """Empty: the network's."""
    ip_version: int = 4
    address_mode: str | None = None
    ra_mode: str | None = None


class FixedIp(msgspec.Struct, frozen=True):
    """One address that a port is to have: any of a subnet, or the one given; at least one of both is there."""

    subnet_uuid: str = ""
    address: str = ""


class NewPort(msgspec.Struct, frozen=True):
    """A port to be made. `groups` None: the project's default group. `fixed` None: an address of each subnet."""

    network_uuid: str
    project_id: str
    fixed: list[FixedIp] | None = None
    name: str = ""
    description: str = ""
    groups: list[str] | None = None
    secured: bool = True
    device_id: str = ""
    device_owner: str = ""


class PortQuery(msgspec.Struct, frozen=True):
    """Which ports; empty things do not matter. Within `project_id` (None: all projects)."""

    project_id: str | None = None
    uuids: list[str] = []
    network_uuids: list[str] = []
    device_ids: list[str] = []


class NetworkStore(Protocol):
    """See the module's docstring for what all verbs have in common."""

    # -- networks ----------------------------------------------------------------------------------------------

    async def networks(self, who: Who, uuids: list[str] | None = None) -> list[TenantNetwork]:
        """Those that the caller sees, oldest first."""

    async def network(self, ident: str, who: Who) -> TenantNetwork:
        """By uuid, else by exact name: the caller's own go before those that are shared or external. NotFoundError
        network-not-found; ConflictError when several have that name."""

    async def create_network(
        self, project_id: str, name: str, *, description: str = "", shared: bool = False
    ) -> TenantNetwork:
        """A network without a subnet."""

    async def update_network(
        self, uuid: str, *, name: str | None = None, description: str | None = None, shared: bool | None = None
    ) -> TenantNetwork:
        """What is None stays. NotFoundError; ConflictError when it is to be shared no more and others use it."""

    async def delete_network(self, uuid: str) -> None:
        """With its subnets. NotFoundError; ConflictError network-in-use while a port, router or floating address is
        on it."""

    async def create_subnet(self, new: NewSubnet) -> Subnet:
        """InvalidError when the range cannot be used; ConflictError when the network has one of that IP version, or the
        pool has no room."""

    async def update_subnet(
        self,
        uuid: str,
        *,
        name: str | None = None,
        description: str | None = None,
        dhcp: bool | None = None,
        gateway: str | Literal[False] | None = None,
        ranges: list[tuple[str, str]] | None = None,
    ) -> Subnet:
        """What is None stays. ConflictError when the gateway would change while capsules are on the network."""

    async def delete_subnet(self, uuid: str) -> None:
        """NotFoundError subnet-not-found; ConflictError subnet-in-use while a port has an address of it."""

    # -- ports -------------------------------------------------------------------------------------------------

    async def ports(self, query: PortQuery) -> list[TenantPort]:
        """Oldest first."""

    async def port(self, ident: str, who: Who) -> TenantPort:
        """By uuid, else by exact name in the caller's project. NotFoundError port-not-found; ConflictError."""

    async def create_port(self, new: NewPort, who: Who) -> TenantPort:
        """A user's own port, which outlives the capsules that use it. InvalidError for an address outside;
        ConflictError for one in use, or when none is left; NotFoundError."""

    async def update_port(
        self,
        uuid: str,
        who: Who,
        *,
        name: str | None = None,
        description: str | None = None,
        groups: list[str] | None = None,
        secured: bool | None = None,
        device_id: str | None = None,
        device_owner: str | None = None,
        fixed: list[FixedIp] | None = None,
    ) -> TenantPort:
        """What is None stays. The addresses and the device of a port that a capsule or router has cannot be changed."""

    async def delete_port(self, uuid: str) -> None:
        """NotFoundError; ConflictError while a capsule or router has it."""

    # -- security groups ---------------------------------------------------------------------------------------

    async def groups(self, project_id: str | None, uuids: list[str] | None = None) -> list[SecurityGroup]:
        """Oldest first, with their rules."""

    async def default_group(self, project_id: str) -> SecurityGroup:
        """The project's group "default", made at its first use."""

    async def group_ids(self, idents: list[str], project_id: str) -> list[str]:
        """Uuids of a project's groups given by uuid or name, each once. InvalidError invalid-value for an unknown one;
        ConflictError when several have that name."""

    async def create_group(self, project_id: str, name: str, description: str = "") -> SecurityGroup:
        """With the two rules that let everything out. ConflictError for a second "default"."""

    async def update_group(
        self, uuid: str, *, name: str | None = None, description: str | None = None
    ) -> SecurityGroup:
        """What is None stays. NotFoundError; ConflictError when the default group is to be renamed."""

    async def delete_group(self, uuid: str, who: Who) -> None:
        """NotFoundError; ConflictError while ports use it, and for a default group unless by an administrator."""

    async def rules(self, project_id: str | None) -> list[tuple[SecurityRule, SecurityGroup]]:
        """All rules, each with its group."""

    async def create_rule(self, rule: SecurityRule, who: Who) -> tuple[SecurityRule, SecurityGroup]:
        """Add a rule (its uuid is chosen here), which is valid in itself (`plan.security`). NotFoundError for its group
        or the remote one; ConflictError security-group-rule-exists."""

    async def delete_rule(self, uuid: str, who: Who) -> None:
        """NotFoundError."""

    # -- the outside -------------------------------------------------------------------------------------------

    async def ensure_external(self) -> TenantNetwork:
        """The external network "public", made at its first use."""

    async def floating(self, project_id: str | None, uuids: list[str] | None = None) -> list[FloatingAddress]:
        """Oldest first."""

    async def create_floating(
        self,
        project_id: str,
        network_uuid: str,
        who: Who,
        *,
        address: str | None = None,
        port_uuid: str | None = None,
        fixed_address: str | None = None,
        description: str = "",
    ) -> FloatingAddress:
        """Allocate an address of an external network, and lead it to a port if one is given. InvalidError,
        ConflictError, NotFoundError."""

    async def update_floating(
        self,
        uuid: str,
        who: Who,
        *,
        port_uuid: str | None = "",
        fixed_address: str | None = None,
        description: str | None = None,
    ) -> FloatingAddress:
        """`port_uuid` None: leads nowhere any more; empty: as before. ConflictError when the port has another one."""

    async def delete_floating(self, uuid: str) -> None:
        """NotFoundError."""

    async def routers(self, project_id: str | None, uuids: list[str] | None = None) -> list[Router]:
        """Oldest first."""

    async def create_router(
        self,
        project_id: str,
        name: str,
        *,
        description: str = "",
        enabled: bool = True,
        network_uuid: str | None = None,
    ) -> Router:
        """`network_uuid`: the external network it leads to."""

    async def update_router(self, uuid: str, change: Callable[[Router], Router]) -> Router:
        """Replace name, description, enabled and network_uuid by what `change` returns. NotFoundError."""

    async def delete_router(self, uuid: str) -> None:
        """NotFoundError; ConflictError router-in-use while it has interfaces."""

    async def add_interface(
        self, router_uuid: str, who: Who, *, subnet_uuid: str | None = None, port_uuid: str | None = None
    ) -> TenantPort:
        """Give a router an interface: a new port with the subnet's gateway address, or an existing one. InvalidError
        when its range overlaps that of another one."""

    async def remove_interface(
        self, router_uuid: str, *, subnet_uuid: str | None = None, port_uuid: str | None = None
    ) -> TenantPort:
        """Take it away; the port as it was. NotFoundError."""

    async def subnet_pools(self, project_id: str | None) -> list[SubnetPool]:
        """Oldest first; those of the project, and shared ones."""

    async def create_pool(self, new: SubnetPool) -> SubnetPool:
        """Its uuid and times are chosen here."""

    async def update_pool(self, uuid: str, change: Callable[[SubnetPool], SubnetPool]) -> SubnetPool:
        """NotFoundError."""

    async def delete_pool(self, uuid: str) -> None:
        """NotFoundError; ConflictError while subnets are cut from it."""

    # -- hosts -------------------------------------------------------------------------------------------------

    async def states(self) -> dict[str, NetworkState]:
        """What each host must make true, by host uuid; hosts without ports are left out. `revision` is 0."""
