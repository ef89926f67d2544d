"""The part of the store that operators use: quotas, registries, services. Verbs are as those of `ports.store`."""

from __future__ import annotations

from typing import Protocol

from askos.model.hosts import EngineNetwork, Host, HostImage, HostUse
from askos.model.quotas import Limits, Usage
from askos.model.registries import Registry, RegistryChange


class QuotaStore(Protocol):
    """Limits. The check itself is a part of `Store.create_capsule` and `Store.update_capsule`: ForbiddenError
    over-quota."""

    async def limits(self, project_id: str) -> Limits:
        """What a project may use: its own limits, else those of the class "default", else those of the settings."""

    async def class_limits(self, name: str) -> Limits:
        """The limits of a class; of one that is not known those of the settings."""

    async def usage(self, project_id: str) -> Usage:
        """What the project's containers use."""

    async def set_limits(self, project_id: str, changes: dict[str, int]) -> Limits:
        """Replace some limits of a project, by resource. Returns all."""

    async def set_class_limits(self, name: str, changes: dict[str, int]) -> Limits:
        """Replace some limits of a class, which is made if need be. Returns all."""

    async def forget_limits(self, project_id: str) -> None:
        """Remove the project's own limits."""


class RegistryStore(Protocol):
    """Registries. `project_id` None: of all projects. Passwords go in and never come out; the host of a container that
    uses a registry is told it with the container's content."""

    async def create_registry(self, new: Registry, password: str | None) -> Registry:
        """Write a registry."""

    async def registry(self, ident: str, project_id: str | None) -> Registry:
        """By uuid, else by exact name. NotFoundError registry-not-found; ConflictError when several have that name."""

    async def registries(self, project_id: str | None) -> list[Registry]:
        """All, the oldest first."""

    async def update_registry(self, ident: str, project_id: str | None, change: RegistryChange) -> Registry:
        """Replace some values. Raises what `registry` does."""

    async def delete_registry(self, ident: str, project_id: str | None) -> None:
        """Remove one. Raises what `registry` does, and ConflictError while a container uses it."""


class ServiceStore(Protocol):
    """Hosts, and what operators asked of them."""

    async def host_uses(self) -> list[HostUse]:
        """All hosts, by name."""

    async def change_service(
        self,
        hostname: str,
        *,
        disabled: bool | None = None,
        disabled_reason: str | None = None,
        forced_down: bool | None = None,
    ) -> Host:
        """Take a host out of service or back; None leaves what is there. NotFoundError zun-service-not-found."""

    async def forget_service(self, hostname: str) -> None:
        """Remove a host that is gone; of one that is connected, what was said of it is forgotten. NotFoundError
        zun-service-not-found; ConflictError while something is on a host that is gone."""

    async def host_images(self) -> list[HostImage]:
        """The images that were asked for, the oldest first."""

    async def note_image(self, image: HostImage) -> None:
        """Keep that an image was asked for."""

    async def forget_image(self, uuid: str) -> None:
        """The opposite; nothing when it is not known."""

    async def create_engine_network(self, network: EngineNetwork) -> None:
        """Keep that a network was made known. ConflictError network-already-exists."""

    async def delete_engine_network(self, network_uuid: str) -> None:
        """The opposite, by the network's own uuid. NotFoundError network-not-found."""


class AdminStore(QuotaStore, RegistryStore, ServiceStore, Protocol):
    """All of it."""
