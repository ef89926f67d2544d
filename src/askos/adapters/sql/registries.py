"""The store's registries: their records, and the log-ins that containers' hosts are told."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql.base import Base
from askos.adapters.sql.schema import capsules, registries
from askos.adapters.sql.sealing import Sealer
from askos.model.capsules import CapsuleSpec
from askos.model.errors import ConflictError, NotFoundError
from askos.model.images import at_registry
from askos.model.pods import Content, Secret
from askos.model.registries import Registry, RegistryChange

SECRET = "registry"  # noqa: S105 - a name
"""The sealed content's secret that has the log-in of a container's registry."""
_KEY = "password"


class RegistryStore(Base):
    """`ports.admin_store.RegistryStore`."""

    async def create_registry(self, new: Registry, password: str | None) -> Registry:
        """See the port."""
        values = {key: value for key, value in msgspec.structs.asdict(new).items() if key != "id"}
        values |= {"password": self._sealed(new.uuid, password), "created_us": self._clock()}
        async with self._db.write() as connection:
            made = await connection.execute(insert(registries).values(**values))
        return msgspec.structs.replace(new, id=made.inserted_primary_key[0] if made.inserted_primary_key else 0)

    async def registry(self, ident: str, project_id: str | None) -> Registry:
        """See the port."""
        async with self._db.read() as connection:
            return await _find(connection, ident, project_id)

    async def registries(self, project_id: str | None) -> list[Registry]:
        """See the port."""
        query = select(registries).order_by(registries.c.id)
        if project_id is not None:
            query = query.where(registries.c.project_id == project_id)
        async with self._db.read() as connection:
            return [_registry(row) for row in (await connection.execute(query)).all()]

    async def update_registry(self, ident: str, project_id: str | None, change: RegistryChange) -> Registry:
        """See the port."""
        given = {k: v for k, v in msgspec.structs.asdict(change).items() if v is not msgspec.UNSET}
        async with self._db.write() as connection:
            found = await _find(connection, ident, project_id)
            if _KEY in given:
                given[_KEY] = self._sealed(found.uuid, given[_KEY])
            if given:
                await connection.execute(update(registries).where(registries.c.uuid == found.uuid).values(**given))
            return await _find(connection, found.uuid, None)

    async def delete_registry(self, ident: str, project_id: str | None) -> None:
        """See the port."""
        async with self._db.write() as connection:
            found = await _find(connection, ident, project_id)
            used = select(capsules.c.uuid).where(capsules.c.registry_uuid == found.uuid).limit(1)
            if (await connection.execute(used)).first() is not None:
                raise ConflictError(f"Failed to delete registry {found.uuid} since it is in use.")
            await connection.execute(delete(registries).where(registries.c.uuid == found.uuid))

    def _sealed(self, uuid: str, password: str | None) -> bytes | None:
        if password is None:
            return None
        return self._sealer.seal(sealed_as(uuid), Content(secrets={SECRET: Secret({_KEY: password.encode()})}))


async def rows_by_uuid(connection: AsyncConnection, uuids: set[str]) -> dict[str, Row[Any]]:
    """The records of these registries."""
    if not uuids:
        return {}
    query = select(registries).where(registries.c.uuid.in_(sorted(uuids)))
    return {row.uuid: row for row in (await connection.execute(query)).all()}


def with_log_in(
    spec: CapsuleSpec, content: Content, row: Row[Any] | None, sealer: Sealer
) -> tuple[CapsuleSpec, Content]:
    """What the host of a container is told of its registry: an image without a domain is that registry's, and the
    log-in stands in the content as a pull secret. `row`: of the registry; None: the container has none."""
    if row is None:
        return spec, content
    container = spec.containers[0]
    container = msgspec.structs.replace(container, image=at_registry(container.image, row.domain))
    spec = msgspec.structs.replace(spec, containers=[container])
    if row.username is None and row.password is None:
        return spec, content
    opened = sealer.open(sealed_as(row.uuid), row.password).secrets.get(SECRET, Secret()).data.get(_KEY, b"").decode()
    name = row.username or ""
    auth = base64.b64encode(f"{name}:{opened}".encode()).decode()
    config = {"auths": {row.domain: {"username": name, "password": opened, "auth": auth}}}
    secret = Secret({".dockerconfigjson": msgspec.json.encode(config)}, type="kubernetes.io/dockerconfigjson")
    return spec, msgspec.structs.replace(content, secrets={**content.secrets, SECRET: secret})


async def _find(connection: AsyncConnection, ident: str, project_id: str | None) -> Registry:
    scope = [] if project_id is None else [registries.c.project_id == project_id]
    found = (await connection.execute(select(registries).where(registries.c.uuid == ident, *scope))).all()
    if not found:
        query = select(registries).where(registries.c.name == ident, *scope).limit(2)
        found = (await connection.execute(query)).all()
    if not found:
        raise NotFoundError(f"Registry {ident} could not be found.", "registry-not-found")
    if len(found) > 1:
        raise ConflictError("Multiple registries exist with same name. Please use the registry uuid instead.")
    return _registry(found[0])


def _registry(row: Row[Any]) -> Registry:
    return Registry(row.uuid, row.project_id, row.user_id, row.name, row.domain, row.username, row.id)


def sealed_as(uuid: str) -> str:
    """What the password is sealed for: it cannot be moved to another registry, nor to a capsule."""
    return f"registry {uuid}"
