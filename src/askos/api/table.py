"""Every route of the Zun and native APIs: path, verb, handler and limits on adjacent lines.

To add an endpoint: a handler in its noun's module, a line here, a rule in `policy.py`, schemas in `schemas.py` and
`openapi.py`, and a test.
"""

from __future__ import annotations

from askos.api import schemas
from askos.api.containers import Containers
from askos.api.core import PARAMETER_BODY, Route
from askos.api.discovery import Discovery
from askos.api.native import Native


def routes(discovery: Discovery, containers: Containers, native: Native) -> list[Route]:
    """The table."""
    c, n = "/v1/containers", "/askos/v1"
    one = f"{c}/{{ident}}"
    return [
        Route("GET", "/", discovery.root, "Versions of the API", answer="Versions", public=True),
        Route("GET", "/v1", discovery.v1, "What v1 offers", answer="Version", public=True),
        Route("GET", "/healthcheck", discovery.health, "Whether the service works", answer="Health", public=True),
        # -- containers
        Route("GET", c, containers.list, "List containers", answer="Containers"),
        Route("POST", c, containers.create, "Create, and with run=true start, a container", 202, "Container",
              schemas.CREATE_QUERY, containers.create_schema),
        Route("GET", one, containers.show, "Show a container", answer="Container"),
        Route("DELETE", one, containers.delete, "Delete a container", 204, None, schemas.DELETE_QUERY),
        Route("POST", f"{one}/start", containers.start, "Start", 202, "Null", schemas.EMPTY_QUERY, PARAMETER_BODY),
        Route("POST", f"{one}/stop", containers.stop, "Stop", 202, "Null", schemas.TIMEOUT_QUERY, PARAMETER_BODY),
        Route("POST", f"{one}/reboot", containers.reboot, "Stop and start", 202, "Null", schemas.TIMEOUT_QUERY,
              PARAMETER_BODY),
        Route("POST", f"{one}/kill", containers.kill, "Send a signal", 202, "Null", schemas.KILL_QUERY,
              PARAMETER_BODY),
        Route("GET", f"{one}/logs", containers.logs, "Read the log", 200, "Text", schemas.LOGS_QUERY),
        Route("POST", f"{one}/execute", containers.execute, "Run a command inside", 200, "Executed",
              schemas.EXECUTE_QUERY, PARAMETER_BODY),
        # -- native
        Route("GET", f"{n}/containers/{{ident}}/exec", native.exec, "Run a command over a WebSocket", 101,
              native=True),
        Route("GET", f"{n}/containers/{{ident}}/logs", native.logs, "Stream the log", native=True),
        Route("GET", f"{n}/containers/{{ident}}/wait", native.wait, "Wait until it has ended", answer="Waited",
              native=True),
        Route("GET", f"{n}/images", native.images, "Images on the host", answer="Images", native=True),
        Route("POST", f"{n}/images/pull", native.image_pull, "Pull an image", native=True),
        Route("POST", f"{n}/images/import", native.image_import, "Import an archive", answer="References",
              native=True),
        Route("DELETE", f"{n}/images", native.image_remove, "Remove an image", 204, native=True),
    ]  # fmt: skip
