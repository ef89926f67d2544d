"""`askos logs`."""

from __future__ import annotations

import time

import click

from askos.cli import base, tailing, text
from askos.cli.foreground import copy_output, put
from askos.cli.specification import converted
from askos.client.containers import Containers
from askos.client.errors import ApiError, ClientError
from askos.client.native import STDERR, STDOUT, Native


def tail_value(value: str) -> str:
    """A number of lines, or "all". ValueError otherwise."""
    if value != "all" and not (value.isascii() and value.isdigit()):
        raise ValueError(f"{value!r} is not a number of lines. Write a number or 'all'")
    return value


@click.command(cls=base.Command, examples=["askos logs -f --tail 20 web", "askos logs --since 10m -t web"])
@click.option("-f", "--follow", is_flag=True, help="Go on until the container stops.")
@click.option(
    "-n",
    "--tail",
    default="all",
    metavar="N",
    callback=converted(tail_value),
    help="Only the last N lines.",
)
@click.option("-t", "--timestamps", is_flag=True, help="Put the time in front of each line.")
@click.option(
    "--since",
    metavar="TIME",
    callback=converted(lambda value: text.parse_since_s(value, time.time())),
    help="Only what is newer: 10m, 2026-11-21T08:00:00Z, or seconds since 1970.",
)
@click.argument("name", shell_complete=base.complete_names)
def logs(follow: bool, tail: str, timestamps: bool, since: int | None, name: str) -> None:
    """Print what a container has written.

    What it wrote to standard error goes to standard error here, too. With -f it survives a restart of the server:
    nothing is lost or told twice.
    """
    containers = base.containers()
    with base.doing(f"read the log of {name}", name=name):
        try:
            if follow and tail == "all":
                copy_output(base.native(containers), name, timestamps=timestamps, since_s=since, tell=True)
                return
            native = base.native(containers)
            read = tailing.follow if follow else Native.logs
            for channel, data in read(native, name, tail=tail, timestamps=timestamps, since_s=since):
                put(channel, data)
        except ApiError as error:
            if not error.no_such_route:
                raise
            if follow:
                raise ClientError(
                    f"cannot follow the log of {name}: this cloud does not offer it. Leave out -f"
                ) from None
            _print_zun_logs(containers, name, tail, timestamps, since)


def _print_zun_logs(containers: Containers, name: str, tail: str, timestamps: bool, since: int | None) -> None:
    """The same from a Zun without our native API: one call for each stream, so that they are told apart."""
    for channel, stream in ((STDOUT, "stdout"), (STDERR, "stderr")):
        query = [(each, str(each == stream).lower()) for each in ("stdout", "stderr")]
        query += [("tail", tail), ("timestamps", str(timestamps).lower())]
        query += [("since", str(since))] if since else []
        put(channel, containers.logs(name, query).encode())
