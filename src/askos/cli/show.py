"""`askos show`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from askos.cli import base, output, placeholders, text
from askos.cli.ps import restart


@click.command(cls=base.Command, examples=["askos show web", "askos show -o json web | jq -r .addresses"])
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=base.complete_names)
@click.option(
    "-f",
    "--format",
    "line",
    metavar="TEMPLATE",
    callback=placeholders.option,
    help="A line for each: '{{.Name}} {{.Addresses}}', or json.",
)
@base.format_options("text", "json", "yaml")
def show(names: tuple[str, ...], line: Callable[[dict[str, Any]], str] | None, form: str) -> None:
    """Show all about one or more containers, by name or uuid.

    JSON and YAML are the API's own objects: one for one name, a list for several.
    """
    if line is not None and form != "text":
        raise click.UsageError("use one of --format and -o")
    containers = base.containers()
    found: list[dict[str, Any]] = []

    def look(name: str) -> None:
        container = containers.show(name)
        if line is not None:
            output.write(f"{line(container)}\n")
        elif form == "text":
            output.write(("\n" if found else "") + output.key_values(view(container)))
        found.append(container)

    try:
        base.for_each(names, "show {}", look)
    finally:
        if form != "text" and found:
            output.write(output.structured(found[0] if len(names) == 1 else found, form))


def view(c: dict[str, Any]) -> list[tuple[str, str]]:
    """What a person wants to know, most wanted first; empty things are left out."""
    environment = "\n".join(f"{key}={value}" for key, value in (c.get("environment") or {}).items())
    labels = "\n".join(f"{key}={value}" for key, value in (c.get("labels") or {}).items())
    flags = [key for key in ("interactive", "tty", "auto_remove", "auto_heal", "privileged") if c.get(key)]
    status = str(c.get("status"))
    detail = str(c.get("status_detail") or "").strip()
    task = str(c.get("task_state") or "").replace("_", " ")
    extra = ", ".join(word for word in (detail, task) if word and word != status)
    pairs = [
        ("Name", c.get("name")),
        ("UUID", c.get("uuid")),
        ("Status", f"{status} ({extra})" if extra else status),
        ("Reason", " ".join(str(c.get("status_reason") or "").split())),
        ("Image", c.get("image")),
        ("Entrypoint", text.command(c.get("entrypoint"))),
        ("Command", text.command(c.get("command"))),
        ("Folder", c.get("workdir")),
        ("Host name", c.get("hostname")),
        ("Address", text.addresses(c.get("addresses"))),
        ("Networks", "\n".join(c.get("addresses") or {})),
        ("Ports", ", ".join(map(str, c.get("ports") or []))),
        ("CPU", f"{c['cpu']:g}" if c.get("cpu") else ""),
        ("Memory", f"{c['memory']} MiB" if str(c.get("memory") or "0") != "0" else ""),
        ("Disk", f"{c['disk']} GiB" if c.get("disk") else ""),
        ("Restart", restart(c)),
        ("Options", ", ".join(flags)),
        ("Environment", environment),
        ("Labels", labels),
        ("Host", c.get("host")),
        ("Runtime", c.get("runtime")),
        ("Project", c.get("project_id")),
        ("Created", _when(c.get("created_at"))),
        ("Updated", _when(c.get("updated_at"))),
    ]
    return [(key, str(value)) for key, value in pairs if value]


def _when(moment: str | None) -> str:
    return f"{moment} UTC ({text.ago(moment)})" if moment else ""
