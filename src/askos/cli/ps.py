"""`askos ps`. Kept small: it is the command that is typed most, and must be quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import click

from askos.cli import base, output, placeholders, text
from askos.cli.output import Column

AT_REST = {"Created", "Stopped", "Error", "Dead", "Deleted"}
"""What is shown with -a only; everything else runs or is on its way."""
FILTERS = ("name", "status", "label", "image")
COMMAND_WIDTH = 30


@click.command(
    cls=base.Command,
    examples=[
        "askos ps -a --filter label=app=web",
        "askos ps --format '{{.Names}} {{.Status}}'",
        "askos rm $(askos ps -aq --filter status=stopped)",
    ],
)
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run.")
@click.option("-q", "--quiet", is_flag=True, help="Only uuids, one a line.")
@click.option(
    "-f",
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help=f"Only those that match: {', '.join(FILTERS)}. May be repeated.",
)
@click.option("--all-projects", is_flag=True, help="Of all projects (administrators only).")
@click.option("--no-trunc", is_flag=True, help="Do not shorten anything.")
@click.option(
    "--format",
    "line",
    metavar="TEMPLATE",
    callback=placeholders.option,
    help="A line for each: '{{.ID}} {{.Names}} {{.Status}}', or json.",
)
@base.format_options("table", "wide", "json", "yaml")
def ps(
    *,
    everything: bool,
    quiet: bool,
    filters: tuple[str, ...],
    all_projects: bool,
    no_trunc: bool,
    line: Callable[[dict[str, Any]], str] | None,
    form: str,
) -> None:
    """List containers: those that run, or with -a all.

    A filter on status looks at all of them. A name matches by any part of it.
    """
    if line is not None and (quiet or form != "table"):
        raise click.UsageError("use one of --format, -o and -q")
    wanted = [parsed_filter(one) for one in filters]
    everything = everything or any(key == "status" for key, _ in wanted)
    with base.doing("list containers"):
        found = base.containers().list(all_projects=all_projects)
    matching = [c for c in found if all(matches(c, key, value) for key, value in wanted)]
    shown = [c for c in matching if everything or c["status"] not in AT_REST]
    if quiet:
        output.write("".join(f"{c['uuid']}\n" for c in shown))
    elif line is not None:
        output.write("".join(f"{line(c)}\n" for c in shown))
    elif form in {"json", "yaml"}:
        output.write(output.structured(shown, form))
    else:
        width = None if no_trunc else output.table_width()
        output.write(listing(shown, wide=form == "wide", cut=not no_trunc, width=width, projects=all_projects))
        hidden = len(matching) - len(shown)
        if hidden and sys.stderr.isatty() and sys.stdout.isatty():
            print(f"({hidden} more {'does' if hidden == 1 else 'do'} not run: askos ps -a)", file=sys.stderr)
        if not found and not wanted:
            base.note_of_others("capsule")


def parsed_filter(given: str) -> tuple[str, str]:
    """Key and value of one --filter. UsageError for a key that is not known."""
    key, equals, value = given.partition("=")
    if not equals or key not in FILTERS:
        raise click.BadParameter(
            f"{given!r}: write KEY=VALUE, with {', '.join(FILTERS)} as the key", param_hint="--filter"
        )
    return key, value


def matches(container: dict[str, Any], key: str, value: str) -> bool:
    """Whether a container passes one filter."""
    if key == "label":
        label, equals, wanted = value.partition("=")
        labels = container.get("labels") or {}
        return label in labels and (not equals or str(labels[label]) == wanted)
    if key == "status":
        aliases = {"exited": "stopped", "up": "running"}
        return str(container["status"]).lower() == aliases.get(value.lower(), value.lower())
    if key == "image":
        image = str(container.get("image"))
        return value in {image, image.rpartition(":")[0]}
    return value in str(container.get("name"))


def listing(containers: Iterable[dict[str, Any]], *, wide: bool, cut: bool, width: int | None, projects: bool) -> str:
    """The table. `cut`: short uuids and commands."""
    columns = [
        Column("NAME", 12),
        Column("UUID"),
        Column("IMAGE", 10),
        Column("COMMAND", 8),
        Column("STATUS", 12),
        Column("ADDRESS"),
        Column("CREATED", 8),
    ]
    columns += [Column("CPU"), Column("MEMORY"), Column("RESTART"), Column("HOST", 8)] if wide else []
    columns += [Column("PROJECT")] if projects else []
    rows = []
    for c in containers:
        command = text.command(c.get("command"))
        row = [
            str(c.get("name") or ""),
            str(c["uuid"])[:8] if cut and not wide else str(c["uuid"]),
            str(c.get("image") or ""),
            output.cut(output.printable(command), COMMAND_WIDTH) if cut and not wide else command,
            text.status(c),
            text.addresses(c.get("addresses")),
            text.ago(c.get("created_at")),
        ]
        if wide:
            row += [
                f"{c.get('cpu') or 0:g}",
                f"{c.get('memory') or 0}MiB",
                restart(c),
                str(c.get("host") or ""),
            ]
        if projects:
            row.append(str(c.get("project_id") or ""))
        rows.append(row)
    return output.table(columns, rows, width=width)


def restart(container: dict[str, Any]) -> str:
    """A container's restart policy as it is given to --restart."""
    policy = container.get("restart_policy") or {}
    name, count = str(policy.get("Name") or "no"), str(policy.get("MaximumRetryCount") or "0")
    return f"{name}:{count}" if name == "on-failure" and count != "0" else name
