"""`ports.volumes.HostVolumes` in a folder, without mounts or root: enough for the worker of a pod."""

from __future__ import annotations

import shutil
from pathlib import Path

from askos.model.errors import InvalidError
from askos.ports.volumes import HostVolume


class FakeVolumes:
    """Everything is a plain folder below `root`. `fail`: errors that the next `set_up` raise; `sizes`: what `usage`
    says; `torn`: the capsules torn down."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fail: list[Exception] = []
        self.sizes: dict[str, int] = {}
        self.torn: list[str] = []

    async def set_up(
        self, capsule_uuid: str, volumes: list[HostVolume], fs_group: int | None, *, on_root_mismatch: bool = False
    ) -> dict[str, str]:
        if self.fail:
            raise self.fail.pop(0)
        (self.root / capsule_uuid).mkdir(parents=True, exist_ok=True)
        for volume in volumes:
            folder = self.root / capsule_uuid / "volumes" / volume.name
            folder.mkdir(parents=True, exist_ok=True)
            if volume.kind == "files":
                await self.write_files(capsule_uuid, volume, fs_group)
        return {v.name: str(self.root / capsule_uuid / "volumes" / v.name) for v in volumes}

    async def write_files(self, capsule_uuid: str, volume: HostVolume, fs_group: int | None) -> None:
        folder = self.root / capsule_uuid / "volumes" / volume.name
        shutil.rmtree(folder, ignore_errors=True)
        for file in volume.files:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.path).write_bytes(file.data)

    async def sub_path(self, capsule_uuid: str, volume: str, sub_path: str, holder: str) -> str:
        if ".." in sub_path.split("/"):
            raise InvalidError(f"The sub path {sub_path} leaves its volume.")
        path = self.root / capsule_uuid / "volumes" / volume / sub_path
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    async def file(self, capsule_uuid: str, name: str, data: bytes, mode: int = 0o644) -> str:
        path = self.root / capsule_uuid / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)

    async def message_file(self, capsule_uuid: str, container: str, attempt: int) -> str:
        return await self.file(capsule_uuid, f"message-{container}-{attempt}", b"")

    async def message(self, capsule_uuid: str, container: str, attempt: int) -> bytes:
        path = self.root / capsule_uuid / f"message-{container}-{attempt}"
        return path.read_bytes() if path.exists() else b""

    async def usage(self, capsule_uuid: str) -> dict[str, int]:
        return self.sizes

    async def tear_down(self, capsule_uuid: str) -> None:
        self.torn.append(capsule_uuid)
        shutil.rmtree(self.root / capsule_uuid, ignore_errors=True)

    async def remove_volume(self, uuid: str) -> None:
        return

    def present(self, capsule_uuid: str) -> bool:
        return (self.root / capsule_uuid).exists()

    async def collect(self, live: set[str]) -> list[str]:
        return []

    async def unmount_all(self) -> None:
        return
