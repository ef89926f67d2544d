"""`askos version`."""

from __future__ import annotations

import json
import platform
from typing import Any

import click

from askos import __version__
from askos.cli import base, output
from askos.client.errors import ClientError


@click.command(cls=base.Command, examples=["askos version", "askos version -o json"])
@base.format_options("text", "json", "yaml")
def version(form: str) -> int:
    """Show the versions of client and server. The exit code is 1 when no server answers."""
    client = {"version": __version__, "python": platform.python_version()}
    problem, server = "", {}
    try:
        server = server_version()
    except ClientError as error:
        problem = error.message
    if form == "text":
        pairs = [("Client", f"askos {__version__} (Python {client['python']})")]
        if server:
            pairs += [
                ("Server", server["url"]),
                ("API", f"{server['min_version']} to {server['max_version']}"),
            ]
        output.write(output.key_values(pairs))
    else:
        output.write(output.structured({"client": client, "server": server or None}, form))
    if problem:
        base.complain(problem)
    return int(bool(problem))


def server_version() -> dict[str, Any]:
    """URL and microversions of the server that the command talks to."""
    session = base.session()
    base_url = session.login().endpoint.removesuffix("/v1")
    answer = session.http.request("GET", f"{base_url}/", headers={"Accept": "application/json"})
    try:
        document = json.loads(answer.body)
        current = next(each for each in document["versions"] if each["status"] == "CURRENT")
        found = {key: current[key] for key in ("min_version", "max_version")}
    except (ValueError, KeyError, TypeError, StopIteration):
        raise ClientError(f"cannot read the version of {base_url}: it does not answer like a container API") from None
    return {"url": base_url, "name": document.get("name"), **found}
