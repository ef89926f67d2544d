"""Who may use an image that lies on this host: what was fetched with a login is for the projects that had one.

Without this, naming another project's private image would be enough to run it, wherever that project has run it
before. Noted are pairs of repository and image id: the same layers may be public under another name. Images that
were on the host before (imported, or fetched without a login) are for all; those of the image service are only for
projects that have asked it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

import msgspec

from askos.model.images import is_of_service

_log = logging.getLogger(__name__)


class ImageRights:
    """The notes of one host, kept in a file (None: in memory only)."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self._projects: dict[str, list[str]] = {}
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                try:
                    self._projects = msgspec.json.decode(path.read_bytes(), type=dict[str, list[str]])
                except msgspec.DecodeError as error:
                    _log.warning("Cannot read %s: %s. Images on this host can be used by all projects.", path, error)

    def may_use(self, ref: str, image_id: str, project_id: str) -> bool:
        """Whether a project may use an image without fetching it anew. `ref`: normalised."""
        projects = self._projects.get(_key(ref, image_id))
        if projects is None:
            return not is_of_service(ref)
        return project_id in projects

    def noted(self, ref: str, image_id: str) -> bool:
        """Whether anything is noted of an image: it was fetched, and not only brought under this name by somebody."""
        return _key(ref, image_id) in self._projects

    def belongs_to(self, ref: str, image_id: str, project_id: str) -> bool:
        """Whether an image is not for all, and this project is among those that may use it. `ref`: normalised."""
        return project_id in self._projects.get(_key(ref, image_id), [])

    async def fetched(self, ref: str, image_id: str, project_id: str, *, login: bool, was_there: bool) -> None:
        """Note that a project has fetched an image. `login`: with one. `was_there`: the same image was on the host
        under this name already."""
        key = _key(ref, image_id)
        async with self._lock:
            projects = self._projects.get(key)
            if not login:
                # Whoever asks gets it.
                if self._projects.pop(key, None) is None:
                    return
            elif projects is not None:
                if project_id in projects:
                    return
                self._projects[key] = [*projects, project_id]
            elif was_there:
                return
            else:
                self._projects[key] = [project_id]
            if self._path is not None:
                await asyncio.to_thread(_write, self._path, msgspec.json.encode(self._projects))


def _key(ref: str, image_id: str) -> str:
    name = ref.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]} {image_id}"


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.new")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
