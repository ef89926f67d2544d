"""`askos capsule`: the group, and label and delete."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from askos.cli import base, output
from askos.cli.base import Lazy, LazyGroup
from askos.cli.capsule_options import NOT_FOUND, capsules, complete, name_argument, namespace_option
from askos.client.errors import ClientError

if TYPE_CHECKING:
    from askos.client.capsules import Capsules

HERE = "askos.cli.capsules"
CREATE = "askos.cli.capsule_create"
LIST = "askos.cli.capsule_list"
SHOW = "askos.cli.capsule_describe"
STREAMS = "askos.cli.capsule_streams"
MARGIN_S = 60.0
"""Beyond its grace, for a capsule to be gone."""


@click.group(
    cls=LazyGroup,
    lazy={
        "create": Lazy(f"{CREATE}:create", "Create capsules from Pod manifests."),
        "apply": Lazy(f"{CREATE}:apply", "Create or change capsules, to be as their manifests say."),
        "ls": Lazy(f"{LIST}:ls", "List capsules."),
        "describe": Lazy(f"{SHOW}:describe", "Show all about capsules, with events."),
        "get": Lazy(f"{SHOW}:get", "Print capsules as YAML or JSON."),
        "events": Lazy(f"{SHOW}:events", "Show what happened to a capsule."),
        "logs": Lazy("askos.cli.capsule_logs:logs", "Print what a container of a capsule has written."),
        "exec": Lazy(f"{STREAMS}:exec_", "Run a command in a container of a capsule."),
        "attach": Lazy(f"{STREAMS}:attach", "Connect to a container's own process."),
        "port-forward": Lazy("askos.cli.capsule_forward:port_forward", "Reach ports inside a capsule from here."),
        "top": Lazy(f"{LIST}:top", "Show what running containers use."),
        "label": Lazy(f"{HERE}:label", "Change a capsule's labels."),
        "delete": Lazy(f"{HERE}:delete", "Delete capsules."),
        "rm": Lazy(f"{HERE}:delete", "Same as `delete`.", hidden=True),
        "ps": Lazy(f"{LIST}:ls", "Same as `ls`.", hidden=True),
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
    wanted: dict[str, tuple[Capsules, str]] = {name: (api, name) for name in names}
    if files:
        from askos.cli import manifest_files
        from askos.client.capsules import Capsules

        for body in manifest_files.read(files, namespace).bodies:
            name, space = manifest_files.label(body), manifest_files.namespace_of(body)
            wanted[f"{name} of {space}" if name in wanted else name] = (Capsules(api.session, space), name)
    if selector:
        with base.doing("list capsules"):
            wanted = {str(each["id"]): (api, str(each["id"])) for each in api.every(selector=selector)}
        if not wanted:
            print(f"(no capsule has the labels {selector})", file=sys.stderr)
    asked: dict[str, tuple[str, float]] = {}

    def ask(shown: str) -> None:
        where, name = wanted[shown]
        found = where.delete(name, 0 if force else grace)
        wait_s = float(found["metadata"].get("deletionGracePeriodSeconds") or 0)
        asked[str(found["id"])] = (str(found["metadata"]["name"]), wait_s)

    try:
        base.for_each(wanted, "delete capsule {}", ask, NOT_FOUND)
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
