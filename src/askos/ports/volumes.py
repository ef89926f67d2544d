"""The host's volumes port: folders and files that capsules mount, on one host.

Everything of one capsule lies in one folder of the adapter's root and goes with `tear_down`, except the files of the
volume service, which stay until `remove_volume`. Every verb is idempotent; a crash at any line leaves something that
`set_up` completes or `collect` removes. Unmounting comes before removing, always.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec


class File(msgspec.Struct, frozen=True):
    """One file of a content volume. `path` is relative, without "..": checked by the adapter once more."""

    path: str
    data: bytes
    mode: int = 0o644


class HostVolume(msgspec.Struct, frozen=True):
    """One volume of a capsule.

    - "folder": an empty folder on disk, mode 0777;
    - "memory": a tmpfs of `size_bytes` (0: no limit of its own), mode 0777;
    - "files": `files` in the layout of Kubernetes (links through `..data` to a folder with a time in its name,
      swapped atomically by `write_files`); with `secret` in memory, never on disk. Containers get it read-only;
    - "block": the volume service's file `uuid` of `size_bytes`, made at its first use with an ext4 file system,
      mounted. A file that holds anything else is neither formatted nor mounted. Several capsules of the host may
      have the same one at once.
    """

    name: str
    kind: Literal["folder", "memory", "files", "block"]
    size_bytes: int = 0
    files: list[File] = []
    secret: bool = False
    uuid: str = ""
    read_only: bool = False


class HostVolumes(Protocol):
    """Folders, tmpfs and loop mounts of the capsules of one host. RuntimeFailedError says what could not be done."""

    async def set_up(
        self, capsule_uuid: str, volumes: list[HostVolume], fs_group: int | None, *, on_root_mismatch: bool = False
    ) -> dict[str, str]:
        """Make every volume; returns the host path by volume name. With `fs_group`, folders and what lies in them
        belong to that group, with setgid and group rights (`on_root_mismatch`: only if the root does not yet); this
        is done once for each volume of a capsule, and never to a read-only "block"."""

    async def write_files(self, capsule_uuid: str, volume: HostVolume, fs_group: int | None) -> None:
        """Swap the files of a "files" volume, atomically, while it is mounted. Nothing when they are the same."""

    async def sub_path(self, capsule_uuid: str, volume: str, sub_path: str, holder: str) -> str:
        """A host path for one folder or file inside a volume, made as a folder if it is not there, that stays inside
        the volume whatever links a container makes meanwhile. `holder` names the container. InvalidError for ".."."""

    async def file(self, capsule_uuid: str, name: str, data: bytes, mode: int = 0o644) -> str:
        """A single file of the capsule (its /etc/hosts), written in place so that mounts see it; returns its path."""

    async def message_file(self, capsule_uuid: str, container: str, attempt: int) -> str:
        """The (empty, world-writable) file for a termination message; returns its path."""

    async def message(self, capsule_uuid: str, container: str, attempt: int) -> bytes:
        """At most the last 4096 bytes of a termination message, as kubelet reads it; empty when there is none. A
        container may have put anything in its place: only a regular file is read."""

    async def usage(self, capsule_uuid: str) -> dict[str, int]:
        """Bytes used on disk by each "folder" volume."""

    async def tear_down(self, capsule_uuid: str) -> None:
        """Unmount and remove everything of a capsule; files of the volume service stay."""

    async def remove_volume(self, uuid: str) -> None:
        """Remove a file of the volume service. ConflictError while it is mounted."""

    def present(self, capsule_uuid: str) -> bool:
        """Whether anything of a capsule is there."""

    async def collect(self, live: set[str]) -> list[str]:
        """Remove what belongs to capsules not in `live`; returns what was removed. What is set up after the call has
        begun is left alone, so `live` must be true at that moment."""

    async def unmount_all(self) -> None:
        """Unmount everything, as the end of the machine would: what lies on disk stays for the next `set_up`, what
        lies in memory is gone."""
