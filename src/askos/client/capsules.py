"""Capsules through the native API: JSON objects in Kubernetes' shape, with an `id` beside their metadata."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from askos.client.errors import ApiError
from askos.client.http import READ_TIMEOUT_S, Answer
from askos.client.native import lines
from askos.client.session import Query, Session, part

Capsule = dict[str, Any]
PAGE = 500
GONE_POLL_S = 0.1


class Capsules:
    """The verbs of `/askos/v1/capsules`. All raise ApiError with the server's own words. `namespace` goes with names;
    an id needs none."""

    def __init__(self, session: Session, namespace: str | None = None) -> None:
        self.session = session
        self.namespace = namespace

    def _query(self, *more: tuple[str, str]) -> Query:
        return [*([("namespace", self.namespace)] if self.namespace else []), *more]

    def path(self, ident: str, below: str = "") -> str:
        """The path of one capsule, or of something below it."""
        return f"/capsules/{part(ident)}{below}"

    def every(
        self, *, selector: str = "", all_projects: bool = False, timeout_s: float = READ_TIMEOUT_S
    ) -> list[Capsule]:
        """All capsules, page after page."""
        return self.listed(selector=selector, all_projects=all_projects, timeout_s=timeout_s)[0]

    def listed(
        self, *, selector: str = "", all_projects: bool = False, timeout_s: float = READ_TIMEOUT_S
    ) -> tuple[list[Capsule], str]:
        """All capsules, and the revision from which on a watch tells what came after."""
        found: list[Capsule] = []
        following = ""
        while True:
            query = self._query(("limit", str(PAGE)))
            query += [("labelSelector", selector)] if selector else []
            query += [("all_projects", "true")] if all_projects else []
            query += [("continue", following)] if following else []
            page = self.session.json("GET", "/capsules", api="native", query=query, timeout_s=timeout_s)
            found += page["items"]
            following = str(page["metadata"].get("continue") or "")
            if not following:
                return found, str(page["metadata"]["resourceVersion"])

    def show(self, ident: str, *, timeout_s: float = READ_TIMEOUT_S) -> Capsule:
        """One capsule by id or name."""
        query = self._query()
        return dict(self.session.json("GET", self.path(ident), api="native", query=query, timeout_s=timeout_s))

    def create(self, body: dict[str, Any]) -> tuple[Capsule, list[str]]:
        """The accepted capsule, and the server's warnings."""
        return _accepted(self.session.request("POST", "/capsules", api="native", body=body))

    def replace(self, ident: str, body: dict[str, Any]) -> tuple[Capsule, list[str]]:
        """The capsule as it is to be from now on, and the server's warnings. Without content the present one stays."""
        query = self._query()
        return _accepted(self.session.request("PUT", self.path(ident), api="native", query=query, body=body))

    def patch(self, ident: str, body: dict[str, Any]) -> tuple[Capsule, list[str]]:
        """The same with what changes only; null takes a key away."""
        query = self._query()
        return _accepted(self.session.request("PATCH", self.path(ident), api="native", query=query, body=body))

    def delete(self, ident: str, grace_s: int | None = None) -> Capsule:
        """Asks it to end; what is returned is how it is now."""
        more = [] if grace_s is None else [("gracePeriodSeconds", str(grace_s))]
        return dict(self.session.json("DELETE", self.path(ident), api="native", query=self._query(*more)))

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
            time.sleep(GONE_POLL_S)

    def events(self, ident: str) -> list[dict[str, Any]]:
        """What was told about a capsule, oldest first."""
        path = self.path(ident, "/events")
        return list(self.session.json("GET", path, api="native", query=self._query())["items"])

    def stats(self, ident: str | None = None) -> list[dict[str, Any]]:
        """What running containers use now: of one capsule, or of all."""
        path = "/capsules/stats" if ident is None else self.path(ident, "/stats")
        return list(self.session.json("GET", path, api="native", query=self._query())["items"])

    def logs(self, ident: str, query: Query) -> Iterator[bytes]:
        """The log of one container as it comes."""
        with self.session.stream("GET", self.path(ident, "/logs"), query=self._query(*query)) as stream:
            yield from stream.chunks()

    def watch(
        self,
        revision: str,
        *,
        selector: str = "",
        all_projects: bool = False,
        timeout_s: int | None = None,
        opened: Callable[[], None] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Changes after a revision, as {"type", "object"}; ends when the server ends it, after `timeout_s` (whole
        seconds) if that is given. `opened` is called when the server has agreed. ApiError 410 when the revision is
        forgotten: list again."""
        query = self._query(("watch", "true"), ("resourceVersion", revision))
        query += [("labelSelector", selector)] if selector else []
        query += [("all_projects", "true")] if all_projects else []
        query += [("timeoutSeconds", str(timeout_s))] if timeout_s is not None else []
        with self.session.stream("GET", "/capsules", query=query) as stream:
            if opened is not None:
                opened()
            for line in lines(stream.chunks()):
                change = json.loads(line)
                if change["type"] == "ERROR":
                    problem = change["object"]
                    raise ApiError(int(problem.get("code") or 500), str(problem.get("message") or "the watch ended"))
                yield change


def _accepted(answer: Answer) -> tuple[Capsule, list[str]]:
    warned = answer.headers.get_all("Warning") or []
    return dict(json.loads(answer.body)), [warning(value) for value in warned]


def warning(header: str) -> str:
    """The text of a Warning header: 299 - "text"."""
    first, last = header.find('"'), header.rfind('"')
    return re.sub(r"\\(.)", r"\1", header[first + 1 : last]) if 0 <= first < last else header
