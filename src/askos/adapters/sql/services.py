"""The store's hosts as operators see and steer them, and what they asked of them: images and engine networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql import rows
from askos.adapters.sql.base import Base
from askos.adapters.sql.schema import capsules, engine_networks, host_images, hosts
from askos.model.errors import ConflictError, NotFoundError
from askos.model.hosts import EngineNetwork, Host, HostImage, HostUse
from askos.ports.store import Change


class ServiceStore(Base):
    """`ports.admin_store.ServiceStore`."""

    async def host_uses(self) -> list[HostUse]:
        """See the port."""
        sums = [func.coalesce(func.sum(c), 0) for c in (capsules.c.cpu, capsules.c.memory_mib, capsules.c.disk_gib)]
        query = select(capsules.c.host_uuid, func.count(), *sums).group_by(capsules.c.host_uuid)
        async with self._db.read() as connection:
            used: dict[str, Sequence[Any]] = {row[0]: tuple(row) for row in (await connection.execute(query)).all()}
            found = (await connection.execute(select(hosts).order_by(hosts.c.hostname))).all()
        return [_use(rows.host(row), used.get(row.uuid)) for row in found]

    async def change_service(
        self,
        hostname: str,
        *,
        disabled: bool | None = None,
        disabled_reason: str | None = None,
        forced_down: bool | None = None,
    ) -> Host:
        """See the port."""
        values: dict[str, Any] = {"updated_us": self._clock()}
        if disabled is not None:
            values |= {"disabled": disabled, "disabled_reason": disabled_reason}
        if forced_down is not None:
            values["forced_down"] = forced_down
        async with self._db.write() as connection:
            uuid = (await _named(connection, hostname)).uuid
            await connection.execute(update(hosts).where(hosts.c.uuid == uuid).values(**values))
            revision = await self._log(connection, "host", uuid, None)
            after = rows.host((await connection.execute(select(hosts).where(hosts.c.uuid == uuid))).one())
        self._on_change(Change(revision, "host", uuid, deleted=False, host_uuid=uuid))
        return after

    async def forget_service(self, hostname: str) -> None:
        """See the port."""
        async with self._db.write() as connection:
            row = await _named(connection, hostname)
            here = select(func.count()).select_from(capsules).where(capsules.c.host_uuid == row.uuid)
            count = (await connection.execute(here)).scalar_one()
            if row.connected:
                # It is there, and would join again at once: what was said of it is forgotten.
                now = self._clock()
                fresh = {
                    "disabled": False,
                    "disabled_reason": None,
                    "forced_down": False,
                    "report_count": 0,
                    "created_us": now,
                    "updated_us": now,
                }
                await connection.execute(update(hosts).where(hosts.c.uuid == row.uuid).values(**fresh))
            elif count:
                raise ConflictError(
                    f"Cannot delete the service of host {hostname}: {count} containers and capsules are on it. Delete "
                    "them first."
                )
            else:
                await connection.execute(delete(host_images).where(host_images.c.host_uuid == row.uuid))
                await connection.execute(delete(hosts).where(hosts.c.uuid == row.uuid))
            revision = await self._log(connection, "host", row.uuid, None, deleted=not row.connected)
        self._on_change(Change(revision, "host", row.uuid, deleted=not row.connected, host_uuid=row.uuid))

    # -- images ------------------------------------------------------------------------------------------------

    async def host_images(self) -> list[HostImage]:
        """See the port."""
        query = select(host_images).order_by(host_images.c.created_us, host_images.c.uuid)
        async with self._db.read() as connection:
            return [_image(row) for row in (await connection.execute(query)).all()]

    async def note_image(self, image: HostImage) -> None:
        """See the port."""
        async with self._db.write() as connection:
            await connection.execute(delete(host_images).where(host_images.c.uuid == image.uuid))
            await connection.execute(
                insert(host_images).values(
                    uuid=image.uuid,
                    host_uuid=image.host_uuid,
                    project_id=image.project_id,
                    ref=image.ref,
                    created_us=self._clock(),
                )
            )

    async def forget_image(self, uuid: str) -> None:
        """See the port."""
        async with self._db.write() as connection:
            await connection.execute(delete(host_images).where(host_images.c.uuid == uuid))

    # -- engine networks ---------------------------------------------------------------------------------------

    async def create_engine_network(self, network: EngineNetwork) -> None:
        """See the port."""
        async with self._db.write() as connection:
            known = select(engine_networks.c.uuid).where(engine_networks.c.network_uuid == network.network_uuid)
            if (await connection.execute(known)).first() is not None:
                raise ConflictError(
                    f"A network with neutron_net_id {network.network_uuid} already exists.", "network-already-exists"
                )
            await connection.execute(
                insert(engine_networks).values(
                    network_uuid=network.network_uuid,
                    uuid=network.uuid,
                    project_id=network.project_id,
                    user_id=network.user_id,
                    created_us=self._clock(),
                )
            )

    async def delete_engine_network(self, network_uuid: str) -> None:
        """See the port."""
        async with self._db.write() as connection:
            gone = await connection.execute(
                delete(engine_networks).where(engine_networks.c.network_uuid == network_uuid)
            )
            if gone.rowcount == 0:
                raise NotFoundError(f"Neutron network {network_uuid} could not be found.", "network-not-found")


async def _named(connection: AsyncConnection, hostname: str) -> Row[Any]:
    row = (await connection.execute(select(hosts).where(hosts.c.hostname == hostname))).first()
    if row is None:
        raise NotFoundError(f"Zun service zun-compute on host {hostname} could not be found.", "zun-service-not-found")
    return row


def _use(host: Host, used: Sequence[Any] | None) -> HostUse:
    if used is None:
        return HostUse(host)
    return HostUse(host, int(used[1]), int(used[2]), int(used[3]), int(used[4]))


def _image(row: Row[Any]) -> HostImage:
    return HostImage(row.uuid, row.host_uuid, row.project_id, row.ref)
