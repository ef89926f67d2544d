"""`askos top` and `askos stats`."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from askos.cli import base, output, text
from askos.cli.output import Column
from askos.client.containers import Containers
from askos.client.errors import ApiError, ClientError
from askos.client.session import Query

EVERY_S = 1.0
AT_ONCE = 8
"""Containers that are asked about at the same time."""
_CLEAR = "\x1b[H\x1b[2J"


@click.command(
    cls=base.Command,
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
    examples=["askos top web", "askos top web -o pid,args"],
)
@click.argument("name", shell_complete=base.complete_names)
@click.argument("ps_args", nargs=-1, type=click.UNPROCESSED, metavar="[PS OPTIONS]")
def top(name: str, ps_args: tuple[str, ...]) -> None:
    """List the processes of a running container, as `ps` does with these options."""
    query: Query = [("ps_args", " ".join(ps_args))] if ps_args else []
    with base.doing(f"list the processes of {name}", {409: f"Start it with `askos start {name}`"}, name):
        found = base.containers().ask(name, "top", query)
    columns = [Column(str(head)) for head in found["Titles"]]
    rows = [[str(cell) for cell in row] for row in found["Processes"]]
    output.write(output.table(columns, rows, width=None))


@click.command(cls=base.Command, examples=["askos stats", "askos stats --no-stream web db"])
@click.option("--no-stream", is_flag=True, help="Once only.")
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=base.complete_names)
@base.format_options("table", "json", "yaml")
def stats(names: tuple[str, ...], no_stream: bool, form: str) -> None:
    """Show what running containers use: all of the project, or some. Goes on until Ctrl-C."""
    containers = base.containers()
    if form != "table":
        output.write(output.structured(_all(containers, names), form))
        return
    live = not no_stream and sys.stdout.isatty()
    while True:
        since = time.monotonic()
        found = _all(containers, names)
        output.write((_CLEAR if live else "") + usage(found, output.table_width()))
        sys.stdout.flush()
        if no_stream:
            return
        time.sleep(max(0.0, EVERY_S - (time.monotonic() - since)))


def _all(containers: Containers, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Of each container; without names those that stop meanwhile are left out."""
    idents = list(names)
    if not names:
        with base.doing("list containers"):
            idents = [str(c["uuid"]) for c in containers.list() if c["status"] == "Running"]

    def one(ident: str) -> dict[str, Any] | None:
        try:
            return dict(containers.ask(ident, "stats"))
        except ApiError as error:
            if not names and error.status in (404, 409):
                return None
            hints = {409: f"Start it with `askos start {ident}`"}
            raise ClientError(base.told(f"look at {ident}", error, hints, ident)) from error

    containers.session.login()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [found for found in pool.map(one, idents) if found is not None]


def usage(found: list[dict[str, Any]], width: int | None) -> str:
    """The table, with docker's columns."""
    columns = [Column("NAME", 12), *map(Column, ("CPU %", "MEMORY / LIMIT", "MEM %", "NET I/O", "BLOCK I/O"))]
    rows = [
        [
            str(each["CONTAINER"]),
            f"{each['CPU %']:.2f}%",
            f"{each['MEM USAGE(MiB)']:.1f} / {each['MEM LIMIT(MiB)']:.0f} MiB",
            f"{each['MEM %']:.2f}%",
            _pair(each["NET I/O(B)"]),
            _pair(each["BLOCK I/O(B)"]),
        ]
        for each in found
    ]
    return output.table(columns, rows, width=width)


def _pair(given: str) -> str:
    """'1024/20480' as '1.02kB / 20.5kB'."""
    try:
        return " / ".join(text.size(float(part)) for part in given.split("/"))
    except ValueError:
        return given
