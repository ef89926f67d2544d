"""`askos volume create`, `ls`, `show` and `rm`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from askos.cli import base, output, text
from askos.cli.base import Lazy, LazyGroup
from askos.cli.output import Column
from askos.client.native import Native

HERE = "askos.cli.volumes"


@click.group(
    cls=LazyGroup,
    lazy={
        "create": Lazy(f"{HERE}:create", "Make a volume."),
        "ls": Lazy(f"{HERE}:ls", "List volumes."),
        "show": Lazy(f"{HERE}:show", "Show all about one or more volumes."),
        "rm": Lazy(f"{HERE}:rm", "Remove volumes and what is on them."),
    },
    hints={"list": "Use `askos volume ls`.", "delete": "Use `askos volume rm`."},
)
def volume() -> None:
    """Create, list and remove volumes: disks of a fixed size that outlive what uses them."""


def _native() -> Native:
    return base.native(base.containers())


def complete_volumes(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of volumes for the shell. Never an error: a shell has no use for one."""
    try:
        from askos.client.connection import resolve
        from askos.client.session import Session
        from askos.client.tokens import TokenCache

        line = Session(resolve(ctx.params.get("os_cloud"), ctx.params.get("data")), TokenCache.of_user())
        found = line.json("GET", "/volumes", api="native", timeout_s=3)["volumes"]
        line.close()
        return [v["name"] for v in found if v["name"].startswith(incomplete)]
    except Exception:
        return []


def parse_size_gib(given: str) -> int:
    """'10g', '1t' or a number of GiB; less than a whole GiB is rounded up."""
    try:
        return text.parse_size_gib(given)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--size") from None


@click.command(
    cls=base.Command, examples=["askos volume create data --size 10g", "askos volume create shared -s 1t -m"]
)
@click.argument("name", metavar="NAME")
@click.option("-s", "--size", required=True, metavar="SIZE", help="Such as 10g, in whole GiB.")
@click.option("-m", "--multiattach", is_flag=True, help="Several capsules may use it at once.")
def create(name: str, size: str, multiattach: bool) -> None:
    """Make a volume. It takes its space on the host of the capsule that uses it first, and stays there."""
    gib = parse_size_gib(size)
    with base.doing(f"create the volume {name}"):
        made = _native().create_volume(name, gib, multiattach=multiattach)
    print(made["id"])


@click.command(cls=base.Command, examples=["askos volume ls", "askos volume rm $(askos volume ls -q)"])
@click.option("-q", "--quiet", is_flag=True, help="Only ids, one a line.")
@click.option("--all-projects", is_flag=True, help="Of all projects (administrators only).")
@click.option("--no-trunc", is_flag=True, help="Do not shorten anything.")
@base.format_options("table", "json", "yaml")
def ls(*, quiet: bool, all_projects: bool, no_trunc: bool, form: str) -> None:
    """List the volumes of the project."""
    with base.doing("list volumes"):
        found = _native().volumes(all_projects=all_projects)
    if quiet:
        output.write("".join(f"{each['id']}\n" for each in found))
    elif form != "table":
        output.write(output.structured(found, form))
    else:
        width = None if no_trunc else output.table_width()
        output.write(listing(found, cut=not no_trunc, width=width))


def listing(volumes: list[dict[str, Any]], *, cut: bool, width: int | None) -> str:
    """The table."""
    rows = [
        [
            str(each["name"]),
            str(each["id"])[: 8 if cut else None],
            f"{each['size_gib']} GiB",
            _status(each),
            ", ".join(str(user)[: 8 if cut else None] for user in each["attachments"]),
            str(each["host"] or ""),
        ]
        for each in volumes
    ]
    columns = [Column("NAME", 12), Column("ID"), Column("SIZE"), Column("STATUS", 9), Column("USED BY", 8)]
    if any(row[-1] for row in rows):
        columns.append(Column("HOST", 8))
    else:
        rows = [row[:-1] for row in rows]
    return output.table(columns, rows, width=width)


def _status(each: dict[str, Any]) -> str:
    reason = " ".join(str(each.get("status_reason") or "").split())
    return f"{each['status']}: {reason}" if reason else str(each["status"])


@click.command(cls=base.Command, examples=["askos volume show data", "askos volume show -o json data"])
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_volumes)
@base.format_options("text", "json", "yaml")
def show(names: tuple[str, ...], form: str) -> None:
    """Show all about one or more volumes, by name or id.

    JSON and YAML are the API's own objects: one for one name, a list for several.
    """
    native = _native()
    found: list[dict[str, Any]] = []

    def look(name: str) -> None:
        one = native.volume(name)
        if form == "text":
            output.write(("\n" if found else "") + output.key_values(view(one)))
        found.append(one)

    try:
        base.for_each(names, "show the volume {}", look, {404: "See `askos volume ls`"})
    finally:
        if form != "text" and found:
            output.write(output.structured(found[0] if len(names) == 1 else found, form))


def view(v: dict[str, Any]) -> list[tuple[str, str]]:
    """What a person wants to know; empty things are left out."""
    created = datetime.fromisoformat(str(v["created_at"])).strftime("%Y-%m-%d %H:%M:%S")
    pairs = [
        ("Name", v["name"]),
        ("UUID", v["id"]),
        ("Status", v["status"]),
        ("Reason", " ".join(str(v.get("status_reason") or "").split())),
        ("Size", f"{v['size_gib']} GiB"),
        ("Used by", "\n".join(v["attachments"])),
        ("Options", "multiattach" if v["multiattach"] else ""),
        ("Host", v["host"]),
        ("Project", v.get("project_id")),
        ("Created", f"{created} UTC ({text.ago(created)})"),
    ]
    return [(key, str(value)) for key, value in pairs if value]


@click.command(cls=base.Command, examples=["askos volume rm data", "askos volume rm $(askos volume ls -q)"])
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_volumes)
def rm(names: tuple[str, ...]) -> None:
    """Remove volumes and what is on them, by name or id. Those that are in use stay."""
    native = _native()

    def act(name: str) -> None:
        native.remove_volume(name)
        print(name)

    base.for_each(names, "remove the volume {}", act, {404: "See `askos volume ls`"})
