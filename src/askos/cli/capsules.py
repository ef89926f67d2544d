"""`askos capsule`: the group, and ls, top, label and delete."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from askos.cli import base, output
from askos.cli.base import Lazy, LazyGroup
from askos.cli.capsule_state import Capsule, age, ready, restarts, summary
from askos.cli.output import Column
from askos.client.errors import ClientError

if TYPE_CHECKING:
    from askos.client.capsules import Capsules

HERE = "askos.cli.capsules"
CREATE = "askos.cli.capsule_create"
SHOW = "askos.cli.capsule_describe"
STREAMS = "askos.cli.capsule_streams"
NOT_FOUND = {404: "See `askos capsule ls`"}
MARGIN_S = 60.0
"""Beyond its grace, for a capsule to be gone."""
COMPLETE_WITHIN_S = 3.0


@click.group(
    cls=LazyGroup,
    lazy={
        "create": Lazy(f"{CREATE}:create", "Create capsules from Pod manifests."),
        "apply": Lazy(f"{CREATE}:apply", "Create or change capsules, to be as their manifests say."),
        "ls": Lazy(f"{HERE}:ls", "List capsules."),
        "describe": Lazy(f"{SHOW}:describe", "Show all about capsules, with events."),
        "get": Lazy(f"{SHOW}:get", "Print capsules as YAML or JSON."),
        "events": Lazy(f"{SHOW}:events", "Show what happened to a capsule."),
        "logs": Lazy("askos.cli.capsule_logs:logs", "Print what a container of a capsule has written."),
        "exec": Lazy(f"{STREAMS}:exec_", "Run a command in a container of a capsule."),
        "attach": Lazy(f"{STREAMS}:attach", "Connect to a container's own process."),
        "port-forward": Lazy("askos.cli.capsule_forward:port_forward", "Reach ports inside a capsule from here."),
        "top": Lazy(f"{HERE}:top", "Show what running containers use."),
        "label": Lazy(f"{HERE}:label", "Change a capsule's labels."),
        "delete": Lazy(f"{HERE}:delete", "Delete capsules."),
        "rm": Lazy(f"{HERE}:delete", "Same as `delete`.", hidden=True),
        "ps": Lazy(f"{HERE}:ls", "Same as `ls`.", hidden=True),
        "show": Lazy(f"{SHOW}:describe", "Same as `describe`.", hidden=True),
        "update": Lazy(f"{CREATE}:apply", "Same as `apply`.", hidden=True),
    },
    hints={
        "list": "Use `askos capsule ls`.",
        "run": "Use `askos capsule create -f FILE`, or `askos run` for a single container.",
        "replace": "Use `askos capsule apply -f FILE`.",
        "edit": "Use `askos capsule get NAME`, and `askos capsule apply -f FILE`.",
        "inspect": "Use `askos capsule get -o json NAME`.",
        "stats": "Use `askos capsule top`.",
        "stop": "Use `askos capsule delete`: a capsule is not started again.",
        "start": "A capsule runs until it ends or is deleted. Use `askos capsule create -f FILE`.",
    },
)
def capsule() -> None:
    """Capsules: pods of containers that share a network and volumes."""


def capsules(namespace: str | None = None) -> Capsules:
    """The native API's capsules, on the session of the running command."""
    from askos.client.capsules import Capsules

    return Capsules(base.session(), namespace)


# -- what commands share -------------------------------------------------------------------------------------------


def _looked_up(ctx: click.Context, look: Callable[[Capsules], list[str]], incomplete: str) -> list[str]:
    """Words for the shell. Never an error: a shell has no use for one."""
    try:
        from askos.client.capsules import Capsules
        from askos.client.connection import resolve
        from askos.client.session import Session
        from askos.client.tokens import TokenCache

        outer = ctx.find_root().params
        cloud, data = (ctx.params.get(key) or outer.get(key) for key in ("os_cloud", "data"))
        line = Session(resolve(cloud, data), TokenCache.of_user())
        try:
            return [word for word in look(Capsules(line, ctx.params.get("namespace"))) if word.startswith(incomplete)]
        finally:
            line.close()
    except Exception:
        return []


def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of capsules for the shell."""

    def look(api: Capsules) -> list[str]:
        given = ctx.params.get("names") or ()
        return [c["metadata"]["name"] for c in api.every(timeout_s=COMPLETE_WITHIN_S) if c["metadata"]["name"] not in given]

    return _looked_up(ctx, look, incomplete)


def complete_container(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the containers of the capsule that is named; of all capsules when none is named yet."""

    def look(api: Capsules) -> list[str]:
        name = ctx.params.get("name")
        found = [api.show(name, timeout_s=COMPLETE_WITHIN_S)] if name else api.every(timeout_s=COMPLETE_WITHIN_S)
        every = [c["name"] for each in found for part in ("containers", "initContainers") for c in each["spec"].get(part, [])]
        return list(dict.fromkeys(every))

    return _looked_up(ctx, look, incomplete)


def complete_namespace(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Namespaces that there are."""

    def look(api: Capsules) -> list[str]:
        api.namespace = None
        return sorted({c["metadata"]["namespace"] for c in api.every(timeout_s=COMPLETE_WITHIN_S)})

    return _looked_up(ctx, look, incomplete)


namespace_option = click.option(
    "-n", "--namespace", metavar="NAME", help="Only in this namespace.", shell_complete=complete_namespace
)
container_option = click.option(
    "-c",
    "--container",
    metavar="NAME",
    help="Which container; needed with several.",
    shell_complete=complete_container,
)
name_argument = click.argument("name", shell_complete=complete)
names_argument = click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete)


# -- ls ------------------------------------------------------------------------------------------------------------


@click.command(
    cls=base.Command, examples=["askos capsule ls -l app=web,tier!=back", "askos capsule ls --watch -o wide"]
)
@namespace_option
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="By labels: app=web,tier in (a,b),!old.")
@click.option("-A", "--all-projects", is_flag=True, help="Of all projects (administrators only).")
@click.option("-q", "--quiet", is_flag=True, help="Only ids, one a line.")
@click.option("-w", "--watch", is_flag=True, help="Go on with a line for each change.")
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

    def row(self, each: Capsule) -> list[str]:
        row = [str(each["metadata"]["namespace"])] if self._namespaces else []
        row += [str(each["metadata"]["name"]), ready(each), summary(each), restarts(each), age(each)]
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
    """A line for each change that is to be seen, until Ctrl-C."""
    heads = [max(len(column.head), 10) for column in shape.columns()]
    for each in found:
        heads = [max(wide, output.display_width(cell)) for wide, cell in zip(heads, shape.row(each), strict=True)]
    told: dict[str, tuple[str, ...]] = {}
    with base.doing("watch capsules"):
        while True:
            for change in api.watch(revision, selector=selector, all_projects=all_projects):
                each = change["object"]
                revision = str(each["metadata"]["resourceVersion"])
                key = (ready(each), "Deleted" if change["type"] == "DELETED" else summary(each), restarts(each, 0.0))
                if told.get(each["id"]) == key:
                    continue
                told[each["id"]] = key
                row = shape.row(each)
                if change["type"] == "DELETED":
                    row[row.index(summary(each))] = "Deleted"
                cells = [output.pad(output.printable(cell), wide) for cell, wide in zip(row, heads, strict=True)]
                output.write("  ".join(cells).rstrip() + "\n")
                sys.stdout.flush()


# -- top, label, delete ----------------------------------------------------------------------------------------------


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
        for c in each["containers"]:
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


@click.command(cls=base.Command, examples=["askos capsule label web tier=front", "askos capsule label web tier-"])
@namespace_option
@name_argument
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
def label(namespace: str | None, name: str, changes: tuple[str, ...]) -> None:
    """Set labels of a capsule, or take them away with KEY-."""
    labels: dict[str, str | None] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals and not (change.endswith("-") and change[:-1]):
            raise click.UsageError(f"{change!r} is no change of a label. Write KEY=VALUE, or KEY- to take it away")
        key = key if equals else change[:-1]
        if key in labels:
            raise click.UsageError(f"the label {key} is given twice")
        labels[key] = value if equals else None
    api = capsules(namespace)
    with base.doing(f"label capsule {name}", NOT_FOUND, name):
        now, _ = api.patch(name, {"metadata": {"labels": labels}})
    told = ",".join(f"{key}={value}" for key, value in (now["metadata"].get("labels") or {}).items())
    output.write(f"capsule {now['metadata']['name']}: {output.printable(told) or 'no labels'}\n")


@click.command(cls=base.Command, examples=["askos capsule delete web", "askos capsule delete --grace 0 -l app=web"])
@namespace_option
@click.option("--grace", "--grace-period", type=click.IntRange(min=0), metavar="SECONDS", help="Before it is killed.")
@click.option("--force", is_flag=True, help="Same as --grace 0.")
@click.option("--no-wait", is_flag=True, help="Return when it is accepted, not when it is gone.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="All with these labels.")
@click.option("-f", "--file", "files", multiple=True, type=click.Path(), metavar="FILE", help="Those of a manifest.")
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete)
def delete(
    *,
    namespace: str | None,
    grace: int | None,
    force: bool,
    no_wait: bool,
    selector: str,
    files: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Delete capsules by name or id, and wait until they are gone."""
    if sum(map(bool, (names, selector, files))) != 1:
        raise click.UsageError("name capsules, or select them with -l, or give their manifests with -f")
    api = capsules(namespace)
    wanted: list[tuple[str, Capsules]] = [(name, api) for name in names]
    if files:
        from askos.cli import manifest_files
        from askos.client.capsules import Capsules

        for body in manifest_files.read(files, namespace).bodies:
            space = str((body.get("metadata") or {}).get("namespace") or "default")
            wanted.append((manifest_files.label(body), Capsules(api.session, space)))
    if selector:
        with base.doing("list capsules"):
            wanted = [(str(each["id"]), api) for each in api.every(selector=selector)]
        if not wanted:
            print(f"(no capsule has the labels {selector})", file=sys.stderr)
    places = dict(wanted)
    asked: dict[str, tuple[str, float]] = {}

    def ask(name: str) -> None:
        found = places[name].delete(name, 0 if force else grace)
        wait_s = float(found["metadata"].get("deletionGracePeriodSeconds") or 0)
        asked[str(found["id"])] = (str(found["metadata"]["name"]), wait_s)

    try:
        base.for_each(places, "delete capsule {}", ask, NOT_FOUND)
    finally:
        _wait_gone(api, asked, no_wait=no_wait)


def _wait_gone(api: Capsules, asked: dict[str, tuple[str, float]], *, no_wait: bool) -> None:
    late = []
    for ident, (name, wait_s) in asked.items():
        if no_wait or api.wait_gone(ident, wait_s + MARGIN_S):
            output.write(f"{name}\n")
            sys.stdout.flush()
        else:
            late.append(name)
    if late:
        raise ClientError(f"not gone yet: {', '.join(late)}. See `askos capsule describe {late[0]}`")
