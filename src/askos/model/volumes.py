"""A volume of the volume service: a file of a fixed size that outlives the capsules that use it."""

from __future__ import annotations

from typing import Literal

import msgspec

GIB = 1 << 30

VolumeStatus = Literal["available", "in-use", "deleting", "error"]


class Volume(msgspec.Struct, frozen=True):
    """What the control plane knows of one volume."""

    uuid: str
    project_id: str
    user_id: str
    name: str
    size_gib: int
    multiattach: bool = False
    """Several capsules may use it at once (all on its host)."""
    host_uuid: str | None = None
    """Where its file is; None until a capsule that uses it is placed. It never moves."""
    deleted: bool = False
    """Its user wants it gone: it cannot be attached any more."""
    failure: str | None = None
    """Why its host could not remove it when that was tried last; it is tried again."""
    created_us: int = 0
    attachments: list[str] = []
    """Uuids of the capsules that use it."""

    @property
    def status(self) -> VolumeStatus:
        """Cinder's word for how it is."""
        if self.deleted:
            return "error" if self.failure else "deleting"
        return "in-use" if self.attachments else "available"
