"""`askos attach`, `rename`, `update`, `rebuild`, `commit`, `actions` and `port`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click

from askos.cli import base, foreground, output, text
from askos.cli.lifecycle import START_WITHIN_S
from askos.cli.output import Column
from askos.cli.specification import converted, processors
from askos.client.errors import ApiError, ClientError, one_line
from askos.client.session import Query

CHANGE_WITHIN_S = 60.0


@click.command(cls=base.Command, examples=["askos attach web", "askos attach --no-stdin web"])
@click.option("--no-stdin", is_flag=True, help="Only look: send nothing, and no signals either.")
@click.argument("name", shell_complete=base.complete_names)
def attach(name: str, no_stdin: bool) -> int:
    """Connect to the own process of a running container; its exit code becomes that of this command.

    Ctrl-P Ctrl-Q leaves a terminal while the container runs on. Without a terminal Ctrl-C interrupts the container; a
    second Ctrl-C leaves it running.
    """
    containers = base.containers()
    what = f"attach to {name}"
    with base.doing(what, name=name):
        container = containers.show(name)
    native, uuid = base.native(containers), str(container["uuid"])
    stdin = bool(container.get("interactive")) and not no_stdin
    import sys

    try:
        with foreground.forwarded_signals(containers, uuid, raw=no_stdin or (stdin and sys.stdin.isatty())):
            result = foreground.attach(native, container, stdin=stdin, logs=False)
    except foreground.Detached:
        base.complain(f"{name} is left running. See `askos attach {name}`, or stop it with `askos stop {name}`")
        return 0
    except ApiError as error:
        if error.no_such_route:
            raise ClientError(f"cannot {what}: this cloud does not offer it. See `askos logs -f {name}`") from None
        hints = {409: f"Start it with `askos start {name}`"}
        raise ClientError(base.told(what, error, hints, name)) from error
    if result is None:
        with base.doing(f"wait for {name}"):
            return foreground.exit_code(name, native.wait(uuid))
    if result.failure:
        base.complain(f"the connection to {name} ended: {one_line(result.failure)}")
    return result.exit_code


@click.command(cls=base.Command, examples=["askos rename omega-7-container web", "askos rename web old-web"])
@click.argument("name", shell_complete=base.complete_names)
@click.argument("new_name", metavar="NEW_NAME")
def rename(name: str, new_name: str) -> None:
    """Give a container another name."""
    with base.doing(f"rename {name}", name=name):
        base.containers().update(name, {"name": new_name})
    print(new_name)


@click.command(cls=base.Command, examples=["askos update --cpus 2 --memory 1g web", "askos update --auto-heal web db"])
@click.option(
    "--cpus",
    "--cpu",
    "cpu",
    type=click.FloatRange(min=0, min_open=True),
    callback=processors,
    metavar="N",
    help="Processors.",
)
@click.option("-m", "--memory", metavar="SIZE", callback=converted(text.parse_memory_mib), help="Limit of memory.")
@click.option("--auto-heal/--no-auto-heal", default=None, help="Make it anew should it vanish from its host.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=base.complete_names)
def update(*, names: tuple[str, ...], cpu: float | None, memory: int | None, auto_heal: bool | None) -> None:
    """Change what containers may use, also while they run."""
    wanted = {"cpu": cpu, "memory": None if memory is None else str(memory), "auto_heal": auto_heal}
    changes = {key: value for key, value in wanted.items() if value is not None}
    if not changes:
        raise click.UsageError("say what is to change, such as --memory 1g", click.get_current_context())
    containers = base.containers()

    def act(name: str) -> None:
        containers.update(name, changes)
        print(name)

    base.for_each(names, "update {}", act)


@click.command(cls=base.Command, examples=["askos rebuild web", "askos rebuild web nginx:1.27"])
@click.option("--no-wait", is_flag=True, help="Return when it is accepted, not when it is done.")
@click.argument("name", shell_complete=base.complete_names)
@click.argument("image", required=False)
def rebuild(name: str, image: str | None, no_wait: bool) -> None:
    """Make a container anew, perhaps from another image. Name, addresses and volumes stay; its own files go."""
    containers = base.containers()
    query: Query = [("image", image)] if image else []
    with base.doing(f"rebuild {name}", name=name):
        uuid = str(containers.show(name)["uuid"])
        containers.act(uuid, "rebuild", query)
        after = None if no_wait else containers.settle(uuid, within_s=START_WITHIN_S)
    if after is not None and after["status"] == "Error":
        reason = one_line(str(after.get("status_reason") or "no reason was given"))
        raise ClientError(f"cannot rebuild {name}: {reason}. See `askos show {name}`")
    print(name)


@click.command(cls=base.Command, examples=["askos commit web shop:2", "askos commit web shop"])
@click.argument("name", shell_complete=base.complete_names)
@click.argument("image", metavar="REPOSITORY[:TAG]")
def commit(name: str, image: str) -> None:
    """Make an image of a container's files, and print its id. It stands still meanwhile.

    The image is kept in the project's image service: `askos run --image-driver glance ID`.
    """
    repository, tag = image, ""
    if ":" in image.rpartition("/")[2]:
        repository, _, tag = image.rpartition(":")
    containers = base.containers()
    query: Query = [("repository", repository)] + ([("tag", tag)] if tag else [])
    with base.doing(f"commit {name}", name=name):
        made = containers.act(name, "commit", query)
    print(made["uuid"])


# -- looking -------------------------------------------------------------------------------------------------------


@click.command(
    cls=base.Command,
    examples=["askos actions web", "askos actions --since 1h web", "askos actions web req-8b1a9953-..."],
)
@click.option(
    "--since",
    metavar="TIME",
    callback=converted(lambda value: text.parse_since_s(value, time.time())),
    help="Only what was asked since then: 10m, 2026-11-21T08:00:00Z, or seconds since 1970.",
)
@click.argument("name", shell_complete=base.complete_names)
@click.argument("request", required=False)
@base.format_options("table", "json", "yaml")
def actions(name: str, request: str | None, since: int | None, form: str) -> None:
    """Tell what was asked of a container, the latest first: by whom, when, and how it went.

    With the id of a request: its steps.
    """
    if request and since is not None:
        raise click.UsageError("--since goes without the id of a request")
    with base.doing(f"read the actions of {name}", {404: f"See `askos actions {name}`"} if request else None, name):
        found = base.containers().ask(name, f"container_actions/{request}" if request else "container_actions")
    if not request:
        begin = datetime.fromtimestamp(since or 0, UTC)
        found = [each for each in found["containerActions"] if _parsed(each["start_time"]) >= begin]
    if form != "table":
        output.write(output.structured(found, form))
        return
    if request:
        rows = [
            [
                str(e["event"]),
                _when(e["start_time"]),
                _took(e),
                str(e.get("result") or ""),
                str(e.get("traceback") or ""),
            ]
            for e in found["events"]
        ]
        columns = [Column("STEP", 16), Column("WHEN"), Column("TOOK"), Column("RESULT"), Column("REASON", 16)]
    else:
        rows = [
            [
                str(a["action"]),
                _when(a["start_time"]),
                _took(a),
                str(a.get("message") or ("" if a.get("finish_time") is None else "Success")),
                str(a["user_id"])[:8],
                str(a["request_id"]),
            ]
            for a in found
        ]
        columns = [Column("ACTION", 8), *map(Column, ("WHEN", "TOOK", "RESULT", "USER", "REQUEST"))]
    output.write(output.table(columns, rows, width=output.table_width()))


def _when(moment: str | None) -> str:
    return text.ago(moment)


def _took(one: dict[str, Any]) -> str:
    start, finish = one.get("start_time"), one.get("finish_time")
    if not start or not finish:
        return "under way"
    seconds = (_parsed(finish) - _parsed(start)).total_seconds()
    return f"{seconds:.2f} s" if seconds < 60 else text.span(seconds)


def _parsed(moment: str) -> datetime:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC)


@click.command(cls=base.Command, examples=["askos port web", "curl $(askos port web | sed 's/.*> //;q')"])
@click.argument("name", shell_complete=base.complete_names)
def port(name: str) -> None:
    """Tell where a container's ports are reached: on its own addresses, and on the floating ones that lead to it."""
    containers = base.containers()
    with base.doing(f"look at {name}", name=name):
        container = containers.show(name)
    inside = [str(a["addr"]) for each in (container.get("addresses") or {}).values() for a in each]
    outside = _floating(str(container["uuid"]))
    for each in container.get("ports") or []:
        for address in [*inside, *outside]:
            print(f"{each} -> {f'[{address}]' if ':' in address else address}:{each}")


def _floating(uuid: str) -> list[str]:
    """The floating addresses that lead to a container; none where there is no network service."""
    from askos.client.networks import FLOATING, Networks

    try:
        found = Networks(base.session()).list(FLOATING)
    except ClientError as error:
        if type(error) is ClientError or (isinstance(error, ApiError) and error.no_such_route):
            return []
        raise ClientError(base.told("list floating addresses", error)) from error
    return [str(f["floating_ip_address"]) for f in found if (f.get("port_details") or {}).get("device_id") == uuid]
