"""`ports.network_store.NetworkStore` on SQL, put together from its parts."""

from __future__ import annotations

from askos.adapters.sql.networking.groups import GroupStore
from askos.adapters.sql.networking.hosts import StateStore
from askos.adapters.sql.networking.networks import TenantNetworkStore
from askos.adapters.sql.networking.outside import FloatingStore
from askos.adapters.sql.networking.pools import PoolStore
from askos.adapters.sql.networking.ports import PortStore
from askos.adapters.sql.networking.routers import RouterStore
from askos.adapters.sql.networking.subnets import SubnetStore

__all__ = ["SqlNetworking"]


class SqlNetworking(
    TenantNetworkStore, SubnetStore, PortStore, GroupStore, FloatingStore, RouterStore, PoolStore, StateStore
):
    """The network service's records on a migrated database."""
