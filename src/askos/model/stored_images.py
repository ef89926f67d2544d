"""An image of the image service: a record, and (once it is active) a file that never changes."""

from __future__ import annotations

from typing import Literal

import msgspec

ImageStatus = Literal["queued", "saving", "active", "killed"]
"""Glance's words. queued: there is no file yet; saving: it is being written; killed: it will never come."""

Visibility = Literal["public", "community", "private"]
"""public: in everybody's lists; community: for everybody who knows its id; private: for its project alone."""

CONTAINER_FORMATS = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")
DISK_FORMATS = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop")


class StoredImage(msgspec.Struct, frozen=True):
    """What the control plane knows of one image."""

    uuid: str
    project_id: str
    user_id: str
    name: str | None = None
    status: ImageStatus = "queued"
    visibility: Visibility = "private"
    container_format: str | None = None
    disk_format: str | None = None
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    protected: bool = False
    """It cannot be deleted."""
    hidden: bool = False
    """Left out of lists that do not ask for such."""
    tags: list[str] = []
    properties: dict[str, str] = {}
    """What its users note beside it."""
    size_bytes: int | None = None
    md5: str | None = None
    sha512: str | None = None
    committed: bool = False
    """Its file is made of a container, by the cloud itself."""
    failure: str | None = None
    """Why it was killed."""
    created_us: int = 0
    updated_us: int = 0

    def visible_to(self, project_id: str) -> bool:
        """Whether a project may read and run it."""
        return self.visibility != "private" or self.project_id == project_id


class FileFacts(msgspec.Struct, frozen=True):
    """What is known of a file once it is written whole. Digests are in hexadecimal digits."""

    size_bytes: int
    md5: str
    sha512: str
