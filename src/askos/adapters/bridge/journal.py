"""The journal: one file per sandbox that says what may have been made for it, written before anything is made.

Not synced to disk: after a power failure the interfaces are gone too, and an unreadable file is treated as one that
names nothing.
"""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import msgspec

_log = logging.getLogger(__name__)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


class Entry(msgspec.Struct, frozen=True):
    """What ADD was about to make for one sandbox. `links`: the host's ends of its veths."""

    container_id: str
    capsule_uuid: str
    netns: str
    links: list[str]
    networks: list[str]
    made_us: int


def valid_id(container_id: str) -> bool:
    """Whether the id can be a file's name; the CNI specification allows no other."""
    return _ID.fullmatch(container_id) is not None


class Journal:
    """The files `<root>/<container id>.json`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def tidy(self) -> None:
        """Remove drafts that a killed agent left. Only before calls are taken."""
        for draft in self._root.glob(".*.new"):
            draft.unlink(missing_ok=True)

    def _path(self, container_id: str) -> Path:
        return self._root / f"{container_id}.json"

    def write(self, container_id: str, capsule_uuid: str, netns: str, links: list[str], networks: list[str]) -> None:
        """Remember a sandbox; replaces what was known of it."""
        entry = Entry(container_id, capsule_uuid, netns, links, networks, time.time_ns() // 1000)
        draft = self._root / f".{container_id}.new"
        draft.write_bytes(msgspec.json.encode(entry))
        draft.replace(self._path(container_id))

    def read(self, container_id: str) -> Entry | None:
        """What is known of a sandbox; None when there is no file."""
        path = self._path(container_id)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Entry)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("Cannot read %s (%s): its interfaces will be found by their labels.", path, error)
            return Entry(container_id, "", "", [], [], 0)

    def remove(self, container_id: str) -> None:
        """Forget a sandbox; unknown is fine."""
        self._path(container_id).unlink(missing_ok=True)

    def entries(self) -> list[Entry]:
        """All that is known."""
        if not self._root.is_dir():
            return []
        found = (self.read(path.stem) for path in self._root.glob("*.json") if valid_id(path.stem))
        return [entry for entry in found if entry is not None]
