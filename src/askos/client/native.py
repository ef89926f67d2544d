"""The native API under `/askos/v1`: what Zun's cannot do, such as following a log and keeping images."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from askos.client.containers import Containers, exit_code
from askos.client.errors import ApiError, ClientError, ConnectionBrokenError, one_line
from askos.client.session import Query, Session, part

STDOUT, STDERR = 1, 2
WAIT_POLL_S = 30
_FRAME = struct.Struct(">BI")
MAX_FRAME = 64 * 1024 * 1024


class Ended(NamedTuple):
    """How a container is now that it changes no more by itself. `exit_code` None: it never ran."""

    status: str
    reason: str
    exit_code: int | None


class Native:
    """The verbs of `/askos/v1`. All raise ApiError with the server's own words."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def logs(
        self,
        ident: str,
        *,
        follow: bool = False,
        tail: str = "all",
        timestamps: bool = False,
        since_s: int | None = None,
    ) -> Iterator[tuple[int, bytes]]:
        """(STDOUT or STDERR, data) as written. With `follow`, until the container has stopped.

        ConnectionBrokenError when the server goes away before the end.
        """
        query: Query = [("streams", "1"), ("tail", tail)]
        query += [("follow", "1")] if follow else []
        query += [("timestamps", "1")] if timestamps else []
        query += [("since", str(since_s))] if since_s is not None else []
        with self.session.stream("GET", f"/containers/{part(ident)}/logs", query=query) as stream:
            yield from frames(stream.chunks())

    def wait(self, ident: str) -> Ended:
        """Wait, as long as it takes, until the container does not change by itself any more."""
        path = f"/containers/{part(ident)}/wait"
        while True:
            try:
                answer = self.session.request(
                    "GET",
                    path,
                    api="native",
                    query=[("timeout", str(WAIT_POLL_S))],
                    timeout_s=WAIT_POLL_S + 30,
                )
            except ApiError as error:
                if error.no_such_route:
                    return self._poll(ident)
                raise
            if answer.status == 200:
                found = json.loads(answer.body)
                return Ended(str(found.get("status")), str(found.get("status_reason") or ""), found.get("exit_code"))

    def _poll(self, ident: str) -> Ended:
        """The same for a Zun without our native API."""
        while True:
            found = Containers(self.session).show(ident)
            if found.get("task_state") is None and found["status"] in {"Stopped", "Error", "Created", "Dead"}:
                return Ended(found["status"], str(found.get("status_reason") or ""), exit_code(found))
            time.sleep(1)

    def can_attach(self) -> bool:
        """Whether the server knows the attach endpoint: a missing container is another 404 than a missing
        path."""
        try:
            nobody = "00000000-0000-0000-0000-000000000000"
            self.session.request("GET", f"/containers/{nobody}/attach", api="native")
        except ApiError as error:
            return not error.no_such_route
        return True

    def images(self) -> list[dict[str, Any]]:
        """The images of the cloud: id, tags, digests, size_bytes."""
        return list(self.session.json("GET", "/images", api="native")["images"])

    def remove_image(self, ref: str) -> None:
        """Remove an image by reference or id."""
        self.session.request("DELETE", "/images", api="native", query=[("ref", ref)])

    def volumes(self, *, all_projects: bool = False) -> list[dict[str, Any]]:
        """The project's volumes: id, name, size_gib, status, multiattach, host, attachments, created_at."""
        query: Query = [("all_projects", "1")] if all_projects else []
        return list(self.session.json("GET", "/volumes", api="native", query=query)["volumes"])

    def volume(self, ident: str) -> dict[str, Any]:
        """One volume, by id or name."""
        return dict(self.session.json("GET", f"/volumes/{part(ident)}", api="native"))

    def create_volume(self, name: str, size_gib: int, *, multiattach: bool) -> dict[str, Any]:
        """Make a volume; its space is taken when a capsule uses it first."""
        body = {"name": name, "size_gib": size_gib, "multiattach": multiattach}
        return dict(self.session.json("POST", "/volumes", api="native", body=body))

    def remove_volume(self, ident: str) -> None:
        """Remove a volume and what is on it, by id or name. It may take a moment until it is gone."""
        self.session.request("DELETE", f"/volumes/{part(ident)}", api="native")

    def pull(self, ref: str) -> Iterator[dict[str, Any]]:
        """Fetch an image; yields the server's progress lines, the last one with status "done".

        ClientError with the server's message when it fails.
        """
        body = json.dumps({"ref": ref}).encode()
        content = ("application/json", len(body))
        with self.session.stream("POST", "/images/pull", body=body, content=content) as stream:
            for line in lines(stream.chunks()):
                step = json.loads(line)
                if step.get("status") == "error":
                    raise ClientError(one_line(str(step.get("message") or "no reason given")))
                yield step
                if step.get("status") == "done":
                    return
        raise ConnectionBrokenError("the server ended the pull without a result. Try again")

    def import_image(self, tar: Iterable[bytes], size: int | None, ref: str | None) -> list[str]:
        """Send a tar archive (`size` bytes; None: unknown, sent chunked); returns the references made."""
        # A body that is a stream cannot be sent twice: find out first whether the token still holds.
        self.images()
        query: Query = [("ref", ref)] if ref else []
        content = ("application/x-tar", size)
        with self.session.stream("POST", "/images/import", query=query, body=tar, content=content) as stream:
            return [str(made) for made in json.loads(stream.read())["refs"]]


def frames(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Cut a log stream: 1 byte of channel, 4 bytes of length (big-endian), data.

    Data is handed on as it arrives, not only when its frame is complete. ConnectionBrokenError if the stream
    ends within a frame.
    """
    buffer, channel, missing = b"", 0, 0
    for chunk in chunks:
        buffer += chunk
        while buffer:
            if missing == 0:
                if len(buffer) < _FRAME.size:
                    break
                channel, missing = _FRAME.unpack_from(buffer)
                if channel not in {STDOUT, STDERR} or missing > MAX_FRAME:
                    raise ClientError("cannot read the log: the server's framing is unknown to this version")
                buffer = buffer[_FRAME.size :]
                continue
            data, buffer = buffer[:missing], buffer[missing:]
            missing -= len(data)
            yield channel, data
    if buffer or missing:
        raise ConnectionBrokenError("the log broke off in the middle of a line. Try again")


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Complete lines, and what stands after the last newline."""
    buffer = b""
    for chunk in chunks:
        *complete, buffer = (buffer + chunk).split(b"\n")
        yield from (line for line in complete if line.strip())
    if buffer.strip():
        yield buffer
