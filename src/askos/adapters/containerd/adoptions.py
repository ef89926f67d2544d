"""Which prepared sandboxes have become whose: one small file for each, because labels in CRI cannot change.

A file is first a claim and becomes whole, synced to disk, when the sandbox is its capsule's in every respect. Who made
the claim sees the sandbox as the capsule's from then on. A claim of a dead process is a sandbox between two owners: it
is removed, never used. The files outlive `askos down`, since the sandboxes and what their containers have written do.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

import msgspec

from askos.adapters.containerd import spec
from askos.ports.runtime import Sandbox

PREPARED = "askos.io/prepared"
"""The label of a sandbox that was made before its capsule; its value tells how it was made."""

_ID = re.compile(r"[0-9a-f]{1,128}")
_log = logging.getLogger(__name__)


class Adoption(msgspec.Struct, frozen=True):
    """Whose a prepared sandbox is. `at_us`: when it was adopted."""

    sandbox_id: str
    capsule_uuid: str
    attempt: int
    name: str
    project_id: str
    at_us: int
    whole: bool = False


class Adoptions:
    """The files `<root>/<sandbox id>.json`, kept in memory too. They are read at first use."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, Adoption] | None = None
        self._own: set[str] = set()
        """Claims of this process."""

    def all(self) -> dict[str, Adoption]:
        """All records, claims among them, by sandbox id."""
        if self._known is None:
            self._known = self._read()
        return self._known

    def of_capsule(self, capsule_uuid: str) -> list[str]:
        """The sandboxes that a capsule has adopted."""
        return [a.sandbox_id for a in self.all().values() if a.capsule_uuid == capsule_uuid and self.valid(a)]

    def seen(self, item: Any) -> Sandbox | None:
        """A sandbox of CRI's list as its capsule's; None when it is nobody's (yet)."""
        adoption = self.all().get(item.id)
        found = spec.read_sandbox(item)
        if adoption is None:
            return None if PREPARED in item.labels else found
        if not self.valid(adoption):
            return None
        return msgspec.structs.replace(
            found, capsule_uuid=adoption.capsule_uuid, attempt=adoption.attempt, created_us=adoption.at_us
        )

    def claim(self, adoption: Adoption) -> None:
        """Note that a sandbox is about to become a capsule's. After a power failure it would not run: no sync."""
        self._write(adoption, sync=False)
        self._own.add(adoption.sandbox_id)

    def complete(self, adoption: Adoption) -> None:
        """Note that it is the capsule's; on disk when this returns."""
        self._write(msgspec.structs.replace(adoption, whole=True), sync=True)
        self._own.discard(adoption.sandbox_id)

    def forsake(self, sandbox_id: str) -> None:
        """Take a claim of this process for that of a dead one: the sandbox is nobody's, and is to be removed."""
        self._own.discard(sandbox_id)

    def remove(self, sandbox_id: str) -> None:
        """Forget a sandbox that is gone; unknown is fine."""
        self._own.discard(sandbox_id)
        if self.all().pop(sandbox_id, None) is not None:
            self._path(sandbox_id).unlink(missing_ok=True)

    def abandoned(self, sandbox_id: str) -> bool:
        """Whether a sandbox was left between two owners; it goes soon, with the containers in it."""
        adoption = self.all().get(sandbox_id)
        return adoption is not None and not self.valid(adoption)

    def valid(self, adoption: Adoption) -> bool:
        """Whether the sandbox is to be seen as the capsule's."""
        return adoption.whole or adoption.sandbox_id in self._own

    def _path(self, sandbox_id: str) -> Path:
        return self._root / f"{sandbox_id}.json"

    def _write(self, adoption: Adoption, *, sync: bool) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(adoption.sandbox_id)
        draft = path.with_suffix(".new")
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(adoption))
            if sync:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
        if sync:
            folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self.all()[adoption.sandbox_id] = adoption

    def _read(self) -> dict[str, Adoption]:
        found: dict[str, Adoption] = {}
        for draft in self._root.glob("*.new"):
            draft.unlink(missing_ok=True)
        for path in self._root.glob("*.json"):
            if not _ID.fullmatch(path.stem):
                continue
            try:
                adoption = msgspec.json.decode(path.read_bytes(), type=Adoption)
            except FileNotFoundError:
                continue
            except (OSError, msgspec.MsgspecError) as error:
                _log.warning("Cannot read %s (%s): its sandbox is taken as nobody's and will be removed.", path, error)
                adoption = Adoption(path.stem, "", 0, "", "", 0)
            found[path.stem] = msgspec.structs.replace(adoption, sandbox_id=path.stem)
        return found
