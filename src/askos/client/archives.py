"""Files of containers as tar archives: as streams where the server has them, else by Zun's own calls."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator

from askos.client.errors import ApiError
from askos.client.session import Session, part

EMPTY = bytes(10240)
"""A tar archive without entries."""


class Archives:
    """The files of one container, by name or uuid. All raise ApiError with the server's own words."""

    def __init__(self, session: Session, ident: str) -> None:
        self._session = session
        self._path = f"/containers/{part(ident)}"

    def get(self, path: str) -> Iterator[bytes]:
        """The archive of a file or folder, whose top entry has its name. ConnectionBrokenError when it is cut off."""
        try:
            stream = self._session.stream("GET", f"{self._path}/archive", query=[("path", path)])
        except ApiError as error:
            if not error.no_such_route:
                raise
            found = self._session.json("GET", f"{self._path}/get_archive", query=[("path", path)])
            yield b64decode(found["data"])
            return
        with stream:
            yield from stream.chunks()

    def is_folder(self, path: str) -> bool:
        """Whether something can be put there. ApiError for other reasons than that there is no such folder."""
        try:
            self.put(path, [EMPTY])
        except ApiError as error:
            # A Zun that answers 500 here means the same.
            if error.kind.startswith(("container-not-found", "invalid-state")) or error.status in (401, 403, 503):
                raise
            return False
        return True

    def put(self, path: str, archive: Iterable[bytes]) -> None:
        """Unpack an archive into a folder. A long one is sent once only: ask `is_folder` before."""
        content = ("application/x-tar", None)
        try:
            with self._session.stream(
                "PUT", f"{self._path}/archive", query=[("path", path)], body=archive, content=content
            ) as stream:
                stream.read()
        except ApiError as error:
            if not error.no_such_route:
                raise
            body = {"data": b64encode(b"".join(archive)).decode()}
            self._session.request("POST", f"{self._path}/put_archive", query=[("path", path)], body=body)
