"""Containers through the Zun API, as a client sees them: JSON objects with the API's own keys."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from askos.client.credentials import API_VERSION
from askos.client.errors import ApiError, ClientError
from askos.client.session import Query, Session, part

Container = dict[str, Any]
"""Zun's representation of a container: section 6 of docs/zun-api.md."""

MOVING = {"Creating", "Restarting", "Rebuilding", "Deleting"}
"""Statuses that do not last."""
SLACK_S = 3.0
POLL_FIRST_S, POLL_LAST_S = 0.04, 0.4


class Containers:
    """The verbs of `/v1/containers`. All raise ApiError with the server's own words."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def list(self, *, all_projects: bool = False) -> list[Container]:
        """All containers, newest first, page after page."""
        query: Query = [("sort_dir", "desc")]
        if all_projects:
            query.append(("all_projects", "1"))
        path, found = "/containers", []
        while True:
            page = self.session.json("GET", path, query=query)
            found += page["containers"]
            if not page.get("next"):
                return found
            # `next` is absolute and names the host as the server sees it; only its query is of use.
            path, query = f"/containers?{urlsplit(page['next']).query}", []
            if all_projects and "all_projects" not in path:
                path += "&all_projects=1"

    def show(self, ident: str) -> Container:
        """One container by name or uuid."""
        return dict(self.session.json("GET", f"/containers/{part(ident)}"))

    def create(self, body: dict[str, Any], *, run: bool) -> Container:
        """Accepts the container; what becomes of it shows later."""
        return dict(self.session.json("POST", "/containers", query=[("run", str(run).lower())], body=body))

    def act(
        self, ident: str, action: str, query: Query | None = None, *, body: Any = None, version: str = API_VERSION
    ) -> Any:
        """POST an action, such as start or kill; returns what it answers. `version` for those that ended with one."""
        path = f"/containers/{part(ident)}/{action}"
        answer = self.session.request("POST", path, query=query, body=body, version=version)
        return json.loads(answer.body) if answer.body else None

    def ask(self, ident: str, what: str, query: Query | None = None) -> Any:
        """GET something of a container: top, stats, network_list, container_actions."""
        return self.session.json("GET", f"/containers/{part(ident)}/{what}", query=query)

    def update(self, ident: str, changes: dict[str, Any]) -> Container:
        """PATCH name, cpu, memory or auto_heal."""
        return dict(self.session.json("PATCH", f"/containers/{part(ident)}", body=changes))

    def delete(self, ident: str, *, stop: bool = False) -> None:
        """Asks for removal; `stop` also when it runs."""
        query: Query = [("stop", "true")] if stop else []
        self.session.request("DELETE", f"/containers/{part(ident)}", query=query)

    def logs(self, ident: str, query: Query) -> str:
        """Zun's own logs call: everything at once, as text."""
        return str(self.session.json("GET", f"/containers/{part(ident)}/logs", query=query) or "")

    def settle(
        self,
        ident: str,
        *,
        within_s: float,
        watch: Callable[[Container], None] | None = None,
        unless: Callable[[Container], bool] | None = None,
    ) -> Container | None:
        """Wait until nothing is under way with a container. None when it is gone.

        `watch` sees each observation. `unless`: what it must not be, such as "running" after a stop; Zun takes a
        moment to show that it has begun, so that is looked at again for `SLACK_S`. ClientError after `within_s`.
        """
        since, pause = time.monotonic(), POLL_FIRST_S
        deadline = since + within_s
        while True:
            try:
                container = self.show(ident)
            except ApiError as error:
                if error.status == 404:
                    return None
                raise
            if container.get("task_state") is None and container.get("status") not in MOVING:
                early = time.monotonic() - since < SLACK_S
                if unless is None or not early or not unless(container):
                    return container
            if watch is not None:
                watch(container)
            if time.monotonic() + pause > deadline:
                doing = container.get("task_state") or container.get("status")
                raise ClientError(
                    f"{container.get('name')} is still {str(doing).replace('_', ' ')} after {within_s:g} s. "
                    f"Look again with `askos show {container.get('name')}`"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_LAST_S)


def exit_code(container: Container) -> int | None:
    """The exit code in `status_detail` ("Exited(3) 5 mins ago"), or None."""
    match = re.match(r"Exited\((-?\d+)\)", str(container.get("status_detail") or ""))
    return int(match.group(1)) if match else None
