"""The part of the table for Zun's containers: what can be asked of them, and since and until which version."""

from __future__ import annotations

from typing import NamedTuple

from askos.api import action_schemas, archives, schemas, sessions
from askos.api.action_log import ActionLog
from askos.api.archives import Archives
from askos.api.attachments import Attachments
from askos.api.commits import Commits
from askos.api.containers import Containers
from askos.api.core import PARAMETER_BODY, Route
from askos.api.inside import Inside
from askos.api.lifecycle import Lifecycle
from askos.api.microversion import Version
from askos.api.sessions import Sessions
from askos.api.updates import Updates


class Handlers(NamedTuple):
    """Everything that answers for containers."""

    containers: Containers
    lifecycle: Lifecycle
    updates: Updates
    inside: Inside
    archives: Archives
    attachments: Attachments
    commits: Commits
    log: ActionLog
    sessions: Sessions


def routes(h: Handlers) -> list[Route]:
    """The table."""
    c = "/v1/containers"
    one = f"{c}/{{ident}}"
    native = f"/askos{c}/{{ident}}"
    return [
        Route("GET", c, h.containers.list, "List containers", answer="Containers"),
        Route("POST", c, h.containers.create, "Create, and with run=true start, a container", 202, "Container",
              schemas.CREATE_QUERY, h.containers.create_schema),
        Route("GET", one, h.containers.show, "Show a container", answer="Container"),
        Route("PATCH", one, h.updates.update, "Change name, cpu, memory or auto_heal", answer="Container",
              query=schemas.EMPTY_QUERY, body=h.updates.schema),
        Route("DELETE", one, h.containers.delete, "Delete a container", 204, None, schemas.DELETE_QUERY),
        # -- where it is to be
        Route("POST", f"{one}/start", h.lifecycle.start, "Start", 202, "Null", schemas.EMPTY_QUERY, PARAMETER_BODY),
        Route("POST", f"{one}/stop", h.lifecycle.stop, "Stop", 202, "Null", schemas.TIMEOUT_QUERY, PARAMETER_BODY),
        Route("POST", f"{one}/reboot", h.lifecycle.reboot, "Stop and start", 202, "Null", schemas.TIMEOUT_QUERY,
              PARAMETER_BODY),
        Route("POST", f"{one}/pause", h.lifecycle.pause, "Let its processes stand still", 202, "Null",
              schemas.EMPTY_QUERY, PARAMETER_BODY),
        Route("POST", f"{one}/unpause", h.lifecycle.unpause, "Let them go on", 202, "Null", schemas.EMPTY_QUERY,
              PARAMETER_BODY),
        Route("POST", f"{one}/kill", h.lifecycle.kill, "Send a signal", 202, "Null", schemas.KILL_QUERY,
              PARAMETER_BODY),
        Route("POST", f"{one}/rebuild", h.lifecycle.rebuild, "Begin anew, perhaps from another image", 202, "Null",
              action_schemas.REBUILD_QUERY, PARAMETER_BODY),
        # -- what it is
        Route("POST", f"{one}/resize_container", h.updates.resize_container, "Change cpu or memory", 202, "Container",
              body=h.updates.schema, since=Version(1, 19)),
        Route("POST", f"{one}/rename", h.updates.rename, "Give it another name", 200, "Container",
              action_schemas.RENAME_QUERY, PARAMETER_BODY, until=Version(1, 13)),
        Route("POST", f"{one}/network_attach", h.attachments.attach, "Plug it into one more network", 200, "Null",
              action_schemas.NETWORK_ATTACH_QUERY, PARAMETER_BODY, since=Version(1, 8)),
        Route("POST", f"{one}/network_detach", h.attachments.detach, "Unplug it from a network", 202, "Null",
              action_schemas.NETWORK_DETACH_QUERY, PARAMETER_BODY, since=Version(1, 6)),
        Route("GET", f"{one}/network_list", h.attachments.list, "List its networks", 200, "ContainerNetworks",
              since=Version(1, 13)),
        Route("POST", f"{one}/add_security_group", h.attachments.add_group, "Add a security group", 202, "Null",
              action_schemas.NAME_QUERY, PARAMETER_BODY, until=Version(1, 14)),
        Route("POST", f"{one}/remove_security_group", h.attachments.remove_group, "Take a security group away", 202,
              "Null", action_schemas.NAME_QUERY, PARAMETER_BODY, until=Version(1, 14)),
        # -- what is inside
        Route("GET", f"{one}/logs", h.inside.logs, "Read the log", 200, "Text", schemas.LOGS_QUERY),
        Route("GET", f"{one}/top", h.inside.top, "List its processes", 200, "Processes", action_schemas.TOP_QUERY),
        Route("GET", f"{one}/stats", h.inside.stats, "What it uses now", 200, "ContainerStats"),
        Route("POST", f"{one}/execute", h.inside.execute, "Run a command inside", 200, "Executed",
              schemas.EXECUTE_QUERY, PARAMETER_BODY),
        Route("POST", f"{one}/execute_resize", h.inside.execute_resize, "Resize the terminal of an exec", 200, "Null",
              action_schemas.EXECUTE_RESIZE_QUERY, PARAMETER_BODY),
        Route("GET", f"{one}/attach", h.inside.attach, "A URL for its own streams", 200, "Text", schemas.EMPTY_QUERY),
        Route("POST", f"{one}/resize", h.inside.resize, "Resize its terminal", 200, "Null", action_schemas.SIZE_QUERY,
              PARAMETER_BODY),
        Route("GET", f"{one}/get_archive", h.archives.get, "Copy files out of it", 200, "Archive"),
        Route("POST", f"{one}/put_archive", h.archives.put, "Copy files into it", 200, "Null",
              body=archives.put_schema, body_limit=h.archives.body_bytes),
        Route("GET", f"{native}/archive", h.archives.stream_out, "Copy files out of a container, as a stream",
              native=True, query=schemas.PATH_QUERY),
        Route("PUT", f"{native}/archive", h.archives.stream_in, "Copy files into a container, as a stream", 204,
              native=True, query=schemas.PATH_QUERY),
        Route("POST", f"{one}/commit", h.commits.commit, "Make an image of it", 202, "Committed",
              action_schemas.COMMIT_QUERY, PARAMETER_BODY),
        # -- what was asked of it
        Route("GET", f"{one}/container_actions", h.log.list, "What was asked of it", 200, "ContainerActions"),
        Route("GET", f"{one}/container_actions/{{request_id}}", h.log.show, "One of these, with its events", 200,
              "ContainerAction"),
        # -- sessions
        Route("GET", sessions.PATH, h.sessions.connect, "Connect to an attach or execute session over a WebSocket",
              101, public=True, native=True),
    ]  # fmt: skip
