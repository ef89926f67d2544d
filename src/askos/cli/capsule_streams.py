"""`askos capsule exec` and `attach`."""

from __future__ import annotations

import contextlib
import sys

import click

from askos.cli import base, terminal
from askos.cli.capsule_options import (
    NOT_FOUND,
    capsules,
    complete,
    container_option,
    name_argument,
    namespace_option,
)
from askos.client.errors import ApiError, ClientError
from askos.client.session import Query, part
from askos.client.wire import Result, start_failure

FAILED = 125


class ExecCommand(base.Command):
    """Takes options behind the name, too, if -- tells where the command begins: `exec web -c side -- ls -l`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, after a look at what stands before the --."""
        if "--" in args:
            # A -- that belongs to the command itself has more than one word before it.
            head = args[: args.index("--")]
            probe = self.make_context(ctx.info_name, list(head), resilient_parsing=True, allow_interspersed_args=True)
            if probe.params.get("name") and not probe.params.get("command"):
                ctx.allow_interspersed_args = True
        return super().parse_args(ctx, args)


@click.command(
    "exec",
    cls=ExecCommand,
    context_settings={"allow_interspersed_args": False},
    examples=["askos capsule exec -it web -- sh", "askos capsule exec -c side web -- cat /etc/hosts"],
)
@click.option("-i", "--interactive", "--stdin", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give the process a terminal.")
@namespace_option
@container_option
@click.argument("name", shell_complete=complete)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    *,
    interactive: bool,
    tty: bool,
    namespace: str | None,
    container: str | None,
    name: str,
    command: tuple[str, ...],
) -> int:
    """Run a command in a container of a capsule; its exit code becomes that of this command.

    127: there is no such program; 126: it cannot be run; 125: the capsule or the cloud did not do it.
    """
    words = list(command[1:] if command[0] == "--" else command)
    if not words:
        raise click.UsageError("a command is needed after --")
    if words[0].startswith("-"):
        raise click.UsageError(f"{words[0]} is no command. Options stand before the name, or put -- before the command")
    query: Query = [("command", word) for word in words]
    what = f"run {words[0]} in {name}"
    return _talk("exec", what, name, query, interactive=interactive, tty=tty, namespace=namespace, container=container)


@click.command(cls=base.Command, examples=["askos capsule attach -it web"])
@click.option("-i", "--interactive", "--stdin", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="The container has a terminal: use it.")
@namespace_option
@container_option
@name_argument
def attach(*, interactive: bool, tty: bool, namespace: str | None, container: str | None, name: str) -> int:
    """Connect to the process that a container is; ends when it ends, with its exit code."""
    what = f"attach to {name}"
    return _talk("attach", what, name, [], interactive=interactive, tty=tty, namespace=namespace, container=container)


def _talk(
    verb: str,
    what: str,
    name: str,
    query: Query,
    *,
    interactive: bool,
    tty: bool,
    namespace: str | None,
    container: str | None,
) -> int:
    try:
        result = _streams(verb, name, query, interactive=interactive, tty=tty, namespace=namespace, container=container)
    except ApiError as error:
        base.complain(base.told(what, error, NOT_FOUND, name))
        return FAILED if error.status == 404 else start_failure(error.message)
    except ClientError as error:
        base.complain(base.told(what, error))
        return FAILED
    if result is None:
        base.complain(f"cannot tell how it ended ({what}): the server closed without a word about it")
        return FAILED
    if result.failure:
        base.complain(f"cannot {what}: {result.failure}")
    return result.exit_code


def _streams(
    verb: str,
    name: str,
    query: Query,
    *,
    interactive: bool,
    tty: bool,
    namespace: str | None,
    container: str | None,
) -> Result | None:
    if tty and interactive and not sys.stdin.isatty():
        raise ClientError("cannot use -t: standard input is not a terminal. Leave -t out")
    from askos.client import remote

    api = capsules(namespace)
    size = terminal.size() if tty else None
    query = [*query, ("stdout", "true"), ("stderr", "false" if tty else "true")]
    query += [("stdin", "true")] if interactive else []
    query += [("tty", "true")] if tty else []
    query += [("container", container)] if container else []
    query += [("namespace", namespace)] if namespace else []
    query += [("width", str(size[0])), ("height", str(size[1]))] if size and verb == "exec" else []
    watch_size = terminal.size if tty and sys.stdout.isatty() else None
    streams = remote.Streams(stdin=0 if interactive else None, terminal_size=watch_size)
    sys.stdout.flush()
    with terminal.raw() if tty and interactive else contextlib.nullcontext():
        return remote.run(api.session, f"/capsules/{part(name)}/{verb}", query, streams)
