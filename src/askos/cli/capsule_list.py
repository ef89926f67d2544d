"""`askos capsule ls` and `top`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from askos.cli import base, output
from askos.cli.capsule_options import NOT_FOUND, capsules, complete, namespace_option
from askos.cli.capsule_state import Capsule, age, ready, restarts, summary
from askos.cli.output import Column
from askos.cli.rejoin import Rejoin
from askos.client.errors import ApiError, ClientError

if TYPE_CHECKING:
    from askos.client.capsules import Capsules

GONE = 410
"""The status for a revision that is forgotten."""


@click.command(
    cls=base.Command, examples=["askos capsule ls -l app=web,tier!=back", "askos capsule ls --watch -o wide"]
)
@namespace_option
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="By labels: app=web,tier in (a,b),!old.")
@click.option("-A", "--all-projects", is_flag=True, help="Of all projects (administrators only).")
@click.option("-q", "--quiet", is_flag=True, help="Only ids, one a line.")
@click.option(
    "-w", "--watch", is_flag=True, help="Go on with a line for each change, also after restarts of the server."
)
@click.option("--show-labels", is_flag=True, help="Labels in a column of their own.")
@base.format_options("table", "wide", "json", "yaml")
def ls(
    *,
    namespace: str | None,
    selector: str,
    all_projects: bool,
    quiet: bool,
    watch: bool,
    show_labels: bool,
    form: str,
) -> None:
    """List capsules."""
    if watch and (quiet or form in ("json", "yaml")):
        raise click.UsageError("--watch goes with tables only")
    api = capsules(namespace)
    with base.doing("list capsules"):
        found, revision = api.listed(selector=selector, all_projects=all_projects)
    if quiet:
        output.write("".join(f"{each['id']}\n" for each in found))
    elif form in ("json", "yaml"):
        output.write(output.structured(found, form))
    else:
        spaces = not namespace and any(each["metadata"]["namespace"] != "default" for each in found)
        shape = _Shape(wide=form == "wide", labels=show_labels, namespaces=spaces or (watch and not namespace))
        output.write(shape.table(found, output.table_width()))
        if not found and not selector and not watch:
            base.note_of_others("container")
        if watch:
            sys.stdout.flush()
            _follow(api, found, revision, selector, shape, all_projects=all_projects)


class _Shape:
    """Which columns a list has."""

    def __init__(self, *, wide: bool, labels: bool, namespaces: bool) -> None:
        self._wide, self._labels, self._namespaces = wide, labels, namespaces

    def columns(self) -> list[Column]:
        columns = [Column("NAMESPACE", 8)] if self._namespaces else []
        columns += [Column("NAME", 16), Column("READY"), Column("STATUS", 8), Column("RESTARTS"), Column("AGE")]
        columns += [Column("ADDRESS"), Column("HOST", 8), Column("ID")] if self._wide else []
        return columns + ([Column("LABELS", 8)] if self._labels else [])

    def row(self, each: Capsule, word: str = "") -> list[str]:
        row = [str(each["metadata"]["namespace"])] if self._namespaces else []
        row += [str(each["metadata"]["name"]), ready(each), word or summary(each), restarts(each), age(each)]
        if self._wide:
            host = each.get("host") or each["status"].get("hostIP")
            row += [str(each["status"].get("podIP") or ""), str(host or ""), str(each["id"])]
        if self._labels:
            row.append(",".join(f"{key}={value}" for key, value in (each["metadata"].get("labels") or {}).items()))
        return row

    def table(self, found: list[Capsule], width: int | None) -> str:
        return output.table(self.columns(), [self.row(each) for each in found], width=width)


def _follow(
    api: Capsules, found: list[Capsule], revision: str, selector: str, shape: _Shape, *, all_projects: bool
) -> None:
    """A line for each change that is to be seen, until Ctrl-C, or the server is away for too long."""
    heads = [max(len(column.head), 10) for column in shape.columns()]
    for each in found:
        heads = [max(wide, output.display_width(cell)) for wide, cell in zip(heads, shape.row(each), strict=True)]
    there = {str(each["id"]): each for each in found}
    told: dict[str, tuple[str, ...]] = {}

    def tell(each: Capsule, word: str) -> None:
        key = (ready(each), word, restarts(each, 0.0))
        if told.get(each["id"]) == key:
            return
        told[each["id"]] = key
        row = zip(shape.row(each, word), heads, strict=True)
        cells = [output.pad(output.printable(cell), wide) for cell, wide in row]
        output.write("  ".join(cells).rstrip() + "\n")
        sys.stdout.flush()

    rejoin, forgotten = Rejoin(tell=True), False
    with base.doing("watch capsules"):
        while True:
            try:
                if forgotten:
                    # The server was away for longer than it remembers: what has changed is seen by looking.
                    before, (found, revision) = there, api.listed(selector=selector, all_projects=all_projects)
                    there, forgotten = {str(each["id"]): each for each in found}, False
                    for ident in before.keys() - there.keys():
                        tell(before[ident], "Deleted")
                    for ident, each in there.items():
                        if each["metadata"] != before.get(ident, {}).get("metadata"):
                            tell(each, summary(each))
                changes = api.watch(revision, selector=selector, all_projects=all_projects, opened=rejoin.works)
                for change in changes:
                    each = change["object"]
                    revision = str(each["metadata"]["resourceVersion"])
                    if change["type"] == "DELETED":
                        there.pop(str(each["id"]), None)
                        tell(each, "Deleted")
                    else:
                        there[str(each["id"])] = each
                        tell(each, summary(each))
            except ClientError as error:
                forgotten = isinstance(error, ApiError) and error.status == GONE
                if not forgotten:
                    rejoin.after(error)


@click.command(cls=base.Command, examples=["askos capsule top", "askos capsule top web db"])
@namespace_option
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete)
@base.format_options("table", "json", "yaml")
def top(namespace: str | None, names: tuple[str, ...], form: str) -> None:
    """Show what running containers use now: of all capsules, or of some."""
    api = capsules(namespace)
    found: list[dict[str, Any]] = []
    try:
        if names:
            base.for_each(names, "look at {}", lambda name: found.extend(api.stats(name)), NOT_FOUND)
        else:
            with base.doing("look at the capsules"):
                found += api.stats()
    finally:
        if form != "table":
            output.write(output.structured(found, form))
        elif found or not names:
            output.write(usage(found, output.table_width()))
    idle = [str(each["name"]) for each in found if not each["containers"]]
    if idle and form == "table":
        base.complain(f"nothing runs in {', '.join(idle)}")


def usage(found: list[dict[str, Any]], width: int | None) -> str:
    """The table of what containers use."""
    columns = [Column("CAPSULE", 16), Column("CONTAINER", 8), Column("CPU"), Column("MEMORY"), Column("PROCESSES")]
    columns.append(Column("FILES"))
    rows = []
    for each in found:
        for c in sorted(each["containers"], key=lambda c: str(c["name"])):
            cpu, memory, disk = (c.get(k) for k in ("cpuUsageNanoCores", "memoryWorkingSetBytes", "rootfsUsedBytes"))
            rows.append(
                [
                    str(each["name"]),
                    str(c["name"]),
                    "-" if cpu is None else f"{cpu / 1e6:.0f}m",
                    "-" if memory is None else f"{memory / 2**20:.1f}Mi",
                    str(c["pids"]) if c.get("pids") else "-",
                    "-" if disk is None else f"{disk / 2**20:.1f}Mi",
                ]
            )
    return output.table(columns, rows, width=width)
