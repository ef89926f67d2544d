"""Capsules through the native API: JSON objects in Kubernetes' shape, with an `id` beside their metadata."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from askos.client.errors import ApiError
from askos.client.native import lines
from askos.client.session import Query, Session, part

Capsule = dict[str, Any]
PAGE = 500
MERGE = "application/strategic-merge-patch+json"


class Capsules:
    """The verbs of `/askos/v1/capsules`. All raise ApiError with the server's own words. `namespace` goes with names;
    an id needs none."""

    def __init__(self, session: Session, namespace: str | None = None) -> None:
        self.session = session
        self.namespace = namespace

    def _query(self, *more: tuple[str, str]) -> Query:
        return [*([("namespace", self.namespace)] if self.namespace else []), *more]

    def every(self, *, selector: str = "", all_projects: bool = False) -> list[Capsule]:
        """All capsules, page after page."""
        found: list[Capsule] = []
        following = ""
        while True:
            query = self._query(("limit", str(PAGE)))
            query += [("labelSelector", selector)] if selector else []
            query += [("all_projects", "true")] if all_projects else []
            query += [("continue", following)] if following else []
            page = self.session.json("GET", "/capsules", api="native", query=query)
            found += page["items"]
            following = str(page["metadata"].get("continue") or "")
            if not following:
                return found

    def show(self, ident: str) -> Capsule:
        """One capsule by id or name."""
        return dict(self.session.json("GET", f"/capsules/{part(ident)}", api="native", query=self._query()))

    def create(self, body: dict[str, Any]) -> tuple[Capsule, list[str]]:
        """The accepted capsule, and the server's warnings."""
        answer = self.session.request("POST", "/capsules", api="native", body=body)
        warned = [value for name, value in answer.headers.items() if name.lower() == "warning"]
        return dict(json.loads(answer.body)), [_warning(value) for value in warned]

    def delete(self, ident: str, grace_s: int | None = None) -> Capsule:
        """Asks it to end; what is returned is how it is now."""
        more = [] if grace_s is None else [("gracePeriodSeconds", str(grace_s))]
        path = f"/capsules/{part(ident)}"
        return dict(self.session.json("DELETE", path, api="native", query=self._query(*more)))

    def wait_gone(self, ident: str, within_s: float) -> bool:
        """Whether it is gone within that time."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                self.show(ident)
            except ApiError as error:
                if error.status == 404:
                    return True
                raise
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)

    def events(self, ident: str) -> list[dict[str, Any]]:
        """What was told about a capsule, oldest first."""
        path = f"/capsules/{part(ident)}/events"
        return list(self.session.json("GET", path, api="native", query=self._query())["items"])

    def stats(self, ident: str | None = None) -> list[dict[str, Any]]:
        """What running containers use now: of one capsule, or of all."""
        path = "/capsules/stats" if ident is None else f"/capsules/{part(ident)}/stats"
        return list(self.session.json("GET", path, api="native", query=self._query())["items"])

    def logs(self, ident: str, query: Query) -> Iterator[bytes]:
        """The log of one container as it comes."""
        path = f"/capsules/{part(ident)}/logs"
        with self.session.stream("GET", path, query=self._query(*query)) as stream:
            yield from stream.chunks()

    def watch(self, revision: str, *, selector: str = "") -> Iterator[dict[str, Any]]:
        """Changes after a revision, as {"type", "object"}; ends when the server ends it."""
        query = self._query(("watch", "true"), ("resourceVersion", revision))
        query += [("labelSelector", selector)] if selector else []
        with self.session.stream("GET", "/capsules", query=query) as stream:
            for line in lines(stream.chunks()):
                yield json.loads(line)


def _warning(header: str) -> str:
    """The text of a Warning header: 299 - "text"."""
    first, last = header.find('"'), header.rfind('"')
    return header[first + 1 : last].replace('\\"', '"') if 0 <= first < last else header
