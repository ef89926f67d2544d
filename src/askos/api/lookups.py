"""What the fields of a create name: networks, ports, security groups, volumes, registries and hosts.

Everything is found before anything is written. Whether it is still free is said by the create itself, in its
transaction.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from askos.api import policy, runtimes
from askos.api.errors import ApiError, invalid_field
from askos.model.capsules import ContainerMount, VolumeGrant
from askos.model.errors import NotFoundError
from askos.model.identity import Caller
from askos.model.networks import NetWish
from askos.model.pods import Content, Secret
from askos.model.volumes import GIB
from askos.plan import pools
from askos.ports.network_store import NetworkStore, Who
from askos.ports.store import Store
from askos.ports.volume_store import VolumeStore

MAX_VOLUME_GIB = 1 << 14
SECRET = "mounts"  # noqa: S105 - a name
"""The sealed content's secret that has the files that are mounted."""

FindRegistry = Callable[[str, Caller], Awaitable[str]]
"""The uuid of a registry, by uuid or name, within what the caller may use. NotFoundError; ConflictError."""

FindImage = Callable[[str, Caller], Awaitable[str]]
"""The uuid of an active image of the image service, by uuid or name, that the caller may use. NotFoundError;
ConflictError."""


class Mounts(NamedTuple):
    """What the field mounts comes to."""

    mounts: list[ContainerMount]
    volumes: list[VolumeGrant]
    new_volumes: list[VolumeGrant]
    content: Content


class Lookups:
    """Finds things for a caller."""

    def __init__(
        self,
        store: Store,
        volumes: VolumeStore | None = None,
        networks: NetworkStore | None = None,
        registries: FindRegistry | None = None,
        images: FindImage | None = None,
    ) -> None:
        self._store = store
        self._volumes = volumes
        self._networks = networks
        self._registries = registries
        self._images = images

    # -- networks ----------------------------------------------------------------------------------------------

    def network_store(self) -> NetworkStore:
        """The network service. A 400 when this cloud has none."""
        if self._networks is None:
            raise ApiError(400, "This cloud has no network service.", code="container.invalid")
        return self._networks

    async def groups(self, idents: list[str] | None, caller: Caller) -> list[str]:
        """Uuids of security groups."""
        if not idents:
            return []
        return await self.network_store().group_ids(idents, caller.project_id)

    async def nets(self, given: list[dict[str, str]] | None, caller: Caller) -> list[NetWish]:
        """The networks to be on, in the order given; each only once."""
        found: list[NetWish] = []
        for number, net in enumerate(given or []):
            wished: dict[str, str] = {}
            for field, ours, version in (("v4-fixed-ip", "address", 4), ("v6-fixed-ip", "address6", 6)):
                if field in net:
                    wished[ours] = checked_address(field, net[field], version)
            wish = await self.net(caller, network=net.get("network"), port=net.get("port"), **wished)
            if wish in found:
                raise invalid_field("nets", net, f"it is the same as another one (number {number})")
            found.append(wish)
        return found

    async def net(
        self,
        caller: Caller,
        *,
        network: str | None = None,
        port: str | None = None,
        address: str = "",
        address6: str = "",
    ) -> NetWish:
        """One network or port; with neither, the project's usual network."""
        who = Who(caller.project_id, caller.is_admin)
        if port:
            meant = await self.network_store().port(port, who)
            for field, wanted, has in (
                ("v4-fixed-ip", address, meant.address),
                ("v6-fixed-ip", address6, meant.address6),
            ):
                if wanted and wanted != has:
                    raise invalid_field(field, wanted, f"port {port} has the address {has or meant.address} already")
            return NetWish(port_uuid=meant.uuid)
        if network:
            found = await self.network_store().network(network, who)
            if found.external and not found.shared and not policy.allows(caller, "network:attach_external_network"):
                title = f"It is not allowed to create an interface on external network {found.uuid}"
                raise ApiError(403, title, code="container.external-network-attach-forbidden")
            return NetWish(network_uuid=found.uuid, address=address, address6=address6)
        return NetWish(address=address, address6=address6)

    # -- volumes -----------------------------------------------------------------------------------------------

    async def mounts(self, given: list[dict[str, Any]] | None, caller: Caller) -> Mounts:
        """The volumes to mount, those to be made, and files."""
        found = Mounts([], [], [], Content())
        files: dict[str, bytes] = {}
        names: dict[str, str] = {}
        for number, mount in enumerate(given or []):
            destination = _destination(mount["destination"])
            if any(m.destination == destination for m in found.mounts):
                raise invalid_field("destination", destination, "something else is mounted there already")
            name, source = f"mount-{number}", mount.get("source") or ""
            if mount.get("type") == "bind":
                files[name] = _file(source)
                found.mounts.append(ContainerMount(destination, content=name))
                continue
            if source:
                grant = await self._volume(source, name, caller)
                if grant.uuid not in names:
                    names[grant.uuid] = name
                    found.volumes.append(grant)
                name = names[grant.uuid]
            else:
                size = _size(mount.get("size"))
                found.new_volumes.append(VolumeGrant(str(uuid.uuid4()), name, size * GIB, auto_remove=True))
            found.mounts.append(ContainerMount(destination, volume=name))
        content = Content(secrets={SECRET: Secret(files)}) if files else Content()
        return found._replace(content=content)

    async def _volume(self, ident: str, name: str, caller: Caller) -> VolumeGrant:
        if self._volumes is None:
            raise invalid_field("mounts", ident, "this cloud has no volume service")
        volume = await self._volumes.volume(ident, caller.project_id)
        if volume.deleted:
            raise ApiError(400, f"Volume {volume.uuid} is being deleted.", code="container.volume-not-usable")
        if volume.attachments and not volume.multiattach:
            raise ApiError(400, f"Volume {volume.uuid} is still in use.", code="container.volume-in-use")
        return VolumeGrant(volume.uuid, name, volume.size_gib * GIB)

    # -- the rest ----------------------------------------------------------------------------------------------

    async def registry(self, ident: str | None, caller: Caller) -> str | None:
        """The uuid of the registry whose log-in is to be used."""
        if not ident:
            return None
        if self._registries is None:
            raise invalid_field("registry", ident, "this cloud keeps no registries; leave it out")
        return await self._registries(ident, caller)

    async def image(self, image: str, driver: str, caller: Caller) -> str:
        """The uuid of an image of the image service; a 400 when it is not there. Those of registries are found by
        hosts, and have none."""
        if driver != "glance":
            return ""
        if self._images is None:
            raise invalid_field("image_driver", driver, "this cloud has no image service; use docker or leave it out")
        try:
            return await self._images(image, caller)
        except NotFoundError as error:
            raise ApiError(400, error.message, code="container.image-not-found") from error

    async def check_host(self, name: str) -> None:
        """A 404 for a host that is not there."""
        if name and name not in (await self._store.host_names()).values():
            raise NotFoundError(f"Requested host {name} could not be found.", "requested-host-not-found")

    async def check_runtime(self, name: str) -> None:
        """A 400 for a runtime that no host has; nobody is asked when none is named."""
        if not name:
            return
        there = await runtimes.offered(self._store)
        if name not in there:
            raise invalid_field(
                "runtime", name, f"no host has it; the runtimes are: {', '.join(sorted(there)) or 'none'}"
            )


def checked_address(field: str, text: str, version: int = 0) -> str:
    """An address in its usual form. Raises a 400 for what is none, or none of the IP version wanted (0: either)."""
    found = pools.parsed(text)
    if found is None or version not in (0, found.version):
        raise invalid_field(field, text, f"{text!r} is not a {f'ipv{version}' if version else 'IP address'!r}")
    return str(found)


def _destination(path: str) -> str:
    if not path.startswith("/"):
        raise invalid_field("destination", path, "it must be an absolute path")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise invalid_field("destination", path, "it must be below / and may not contain ..")
    return "/" + "/".join(parts)


def _file(source: str) -> bytes:
    try:
        return base64.b64decode("".join(source.split()), validate=True)
    except (binascii.Error, ValueError):
        why = "The source of a bind mount is not the base64 of a file's content."
        raise ApiError(400, why, code="container.base-64-exception") from None


def _size(given: object) -> int:
    size = int(str(given)) if given is not None else 0
    if not 1 <= size <= MAX_VOLUME_GIB:
        why = f"Volume Creation failed: a size of {size} GiB is not between 1 and {MAX_VOLUME_GIB}."
        raise ApiError(400, why, code="container.volume-create-failed")
    return size
