"""The volume service's part of the store. As in `ports.store`, every verb is one transaction.

Attaching and detaching are no verbs of their own: they happen with the create and the end of a capsule, in the same
transaction (`Store.create_capsule`).
"""

from __future__ import annotations

from typing import Protocol

from askos.model.volumes import Volume


class VolumeStore(Protocol):
    """Volumes of all projects. A `project_id` of None looks into all of them."""

    async def create(self, project_id: str, user_id: str, name: str, size_gib: int, *, multiattach: bool) -> Volume:
        """A new volume, on no host yet. ConflictError when the project has one of that name."""

    async def volumes(self, project_id: str | None) -> list[Volume]:
        """All volumes, oldest first."""

    async def volume(self, ident: str, project_id: str | None) -> Volume:
        """By uuid, else by exact name. NotFoundError; ConflictError when several have that name, which happens over
        projects and while one of them is being deleted."""

    async def rename(self, uuid: str, name: str) -> Volume:
        """Another name. NotFoundError; ConflictError when the project has one of that name."""

    async def extend(self, uuid: str, size_gib: int) -> Volume:
        """A larger size, which its file gets at its next use. NotFoundError; ConflictError while a capsule uses it, it
        is being deleted, or has that size already."""

    async def delete(self, uuid: str) -> Volume:
        """Wish it gone. One that no host has is gone when this returns; the others when their host confirms it.
        Its name is free at once. NotFoundError; ConflictError while a capsule uses it."""

    async def to_remove(self) -> list[Volume]:
        """All that are to be deleted and have a host whose confirmation is missing."""

    async def removed(self, uuid: str, host_uuid: str) -> None:
        """The host confirms that nothing of it is left. Nothing happens for a volume that is not to be deleted, or
        that is another host's."""

    async def failed(self, uuid: str, failure: str) -> None:
        """Note why a host could not remove it."""

    async def drop_silent(self, silent_us: int) -> list[str]:
        """Hide volumes that are to be deleted and whose host has been silent for `silent_us`: their users see them
        no more. They stay in `to_remove`, so that a host that comes back does not keep their files for ever.
        Forgets those of hosts that are not registered any more. Returns the uuids of both."""
