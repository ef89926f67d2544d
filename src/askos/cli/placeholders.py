"""--format of lists: docker's placeholders of fields, without the language around them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import click

from askos.cli import output, text

Thing = dict[str, Any]
_PLACEHOLDER = re.compile(r"\{\{\s*(?:\.(\w+)|(json)\s+\.)\s*\}\}")
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\\": "\\"}


def _labels(c: Thing) -> str:
    return ",".join(f"{key}={value}" for key, value in (c.get("labels") or {}).items())


CONTAINER: dict[str, Callable[[Thing], str]] = {
    "ID": lambda c: str(c["uuid"]),
    "Names": lambda c: str(c.get("name") or ""),
    "Name": lambda c: str(c.get("name") or ""),
    "Image": lambda c: str(c.get("image") or ""),
    "Command": lambda c: text.command(c.get("command")),
    "Status": text.status,
    "State": lambda c: str(c.get("status") or "").lower(),
    "CreatedAt": lambda c: str(c.get("created_at") or ""),
    "RunningFor": lambda c: text.ago(c.get("created_at")),
    "Addresses": lambda c: text.addresses(c.get("addresses")),
    "Networks": lambda c: ",".join(c.get("addresses") or {}),
    "Ports": lambda c: ", ".join(map(str, c.get("ports") or [])),
    "Labels": _labels,
    "Host": lambda c: str(c.get("host") or ""),
    "Project": lambda c: str(c.get("project_id") or ""),
}
"""What can be said of a container."""


def container_line(template: str) -> Callable[[Thing], str]:
    """From a template to what makes a line of a container. ValueError, in a sentence, for what is not a placeholder."""
    if template == "json":
        return _json
    known = ", ".join(f"{{{{.{name}}}}}" for name in CONTAINER)
    what = f"Write placeholders such as {{{{.ID}}}} and text between them, or json. There are {known}, {{{{json .}}}}"
    if template.startswith("table "):
        raise ValueError(f"{template!r}: there are no tables with columns of one's own. {what}")
    pieces: list[Callable[[Thing], str]] = []
    end = 0
    for found in _PLACEHOLDER.finditer(template):
        pieces.append(_literal(template[end : found.start()], what))
        end = found.end()
        name = found[1]
        if name is not None and name not in CONTAINER:
            raise ValueError(f"{template!r}: there is no field .{name}. {what}")
        pieces.append(_json if name is None else _safe(CONTAINER[name]))
    pieces.append(_literal(template[end:], what))
    return lambda thing: "".join(piece(thing) for piece in pieces)


def _literal(given: str, what: str) -> Callable[[Thing], str]:
    if "{{" in given or "}}" in given:
        raise ValueError(f"{given.strip()!r} is not understood: this is not the template language of Go. {what}")
    made = re.sub(r"\\[tn\\]", lambda found: _ESCAPES[found[0]], given)
    return lambda _thing: made


def _json(thing: Thing) -> str:
    return json.dumps(thing, ensure_ascii=False)


def _safe(field: Callable[[Thing], str]) -> Callable[[Thing], str]:
    return lambda thing: output.printable(field(thing))


def option(ctx: click.Context, param: click.Parameter, value: str | None) -> Callable[[Thing], str] | None:
    """The callback of --format."""
    if value is None:
        return None
    try:
        return container_line(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
