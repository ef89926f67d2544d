"""`askos exec`."""

from __future__ import annotations

import contextlib
import os
import sys

import click

from askos.cli import base, specification, terminal
from askos.client.errors import ApiError, ClientError
from askos.client.session import part
from askos.client.wire import Result, start_failure

FAILED = 125


@click.command(
    "exec",
    cls=base.Command,
    context_settings={"allow_interspersed_args": False},
    examples=["askos exec -it web sh", "askos exec web cat /var/log/big | gzip > big.gz"],
)
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give the process a terminal.")
@click.option("-e", "--env", "env", multiple=True, metavar="K[=V]", help="Set a variable; K alone: as it is here.")
@click.option("-w", "--workdir", metavar="FOLDER", help="Where the process starts.")
@click.argument("name", shell_complete=base.complete_names)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    *,
    interactive: bool,
    tty: bool,
    env: tuple[str, ...],
    workdir: str | None,
    name: str,
    command: tuple[str, ...],
) -> int:
    """Run a command in a running container; its exit code becomes that of this command.

    127: there is no such program; 126: it cannot be run; 125: the container or the cloud did not do it.
    """
    try:
        result = _exec(name, list(command), interactive=interactive, tty=tty, env=env, workdir=workdir)
    except ApiError as error:
        code = start_failure(error.message)
        # The container runs, but the program cannot: to start the container is no advice then.
        hints = {409: f"Start it with `askos start {name}`"} if code == FAILED else {}
        if error.no_such_route:
            base.complain(f"cannot run {command[0]} in {name}: this cloud does not offer exec with streams")
        else:
            base.complain(base.told(f"run {command[0]} in {name}", error, hints, name))
        return FAILED if error.status == 404 else code
    except ClientError as error:
        base.complain(base.told(f"run {command[0]} in {name}", error))
        return FAILED
    if result is None:
        base.complain(f"cannot tell how {command[0]} in {name} ended: the server closed without a word about it")
        return FAILED
    if result.failure:
        base.complain(f"cannot run {command[0]} in {name}: {result.failure}")
    return result.exit_code


def _exec(
    name: str, command: list[str], *, interactive: bool, tty: bool, env: tuple[str, ...], workdir: str | None
) -> Result | None:
    if tty and interactive and not sys.stdin.isatty():
        raise ClientError(f"cannot run in {name} with -t: standard input is not a terminal. Leave -t out")
    session = base.session()
    variables = specification.environment(env, os.environ)
    from askos.client import remote

    size = terminal.size() if tty else None
    query = remote.exec_query(
        command,
        stdin=interactive,
        tty=tty,
        size=size,
        environment=[f"{key}={value}" for key, value in variables.items()],
        workdir=workdir,
    )
    watch_size = terminal.size if tty and sys.stdout.isatty() else None
    streams = remote.Streams(stdin=0 if interactive else None, terminal_size=watch_size)
    sys.stdout.flush()
    with terminal.raw() if tty and interactive else contextlib.nullcontext():
        return remote.run(session, f"/containers/{part(name)}/exec", query, streams)
