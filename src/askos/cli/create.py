"""`askos run` and `askos create`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import click

from askos.cli import base, specification
from askos.cli.terminal import Note
from askos.client.containers import Container, Containers
from askos.client.errors import ApiError, ClientError, one_line
from askos.client.wire import start_failure

START_WITHIN_S = 900.0
"""Pulling a large image takes minutes."""
FAILED = 125
"""Exit code of `run` when it is not the process that failed; the same as docker's."""
AFTER_IMAGE = {"allow_interspersed_args": False}


@click.command(
    cls=base.Command,
    context_settings=AFTER_IMAGE,
    options_metavar="[OPTIONS]",
    examples=["askos run --rm busybox echo hello", "askos run -d --name web -m 256m -e COLOUR=blue nginx"],
)
@click.option("-d", "--detach", is_flag=True, help="Do not wait for the end: print the uuid and return.")
@click.option("--rm", "remove", is_flag=True, help="Remove the container when it has ended.")
@specification.options
def run(detach: bool, remove: bool, image: str, **options: Any) -> int:
    """Create a container from an image and run it.

    Its output is shown until it ends, and its exit code becomes that of this command. Ctrl-C interrupts it; a
    second Ctrl-C leaves it running. Everything after IMAGE is the command to run in it.
    """
    try:
        return _run(image, options, detach=detach, remove=remove)
    except ClientError as error:
        base.complain(error.message)
        return FAILED


def _run(image: str, options: dict[str, Any], *, detach: bool, remove: bool) -> int:
    restart = options["restart"]
    if remove and restart is not None and restart["Name"] != "no":
        raise click.UsageError("--rm and --restart exclude each other", click.get_current_context())
    attached = options["interactive"] and not detach
    containers = base.containers()
    if attached:
        _check_attach(containers, image, tty=options["tty"])
    body = specification.body(image=image, auto_remove=remove and detach, **options)
    container = begin(containers, body, start=True, remove=remove and not detach)
    if detach:
        print(container["uuid"])
        return 0
    from askos.cli import foreground

    return foreground.until_end(containers, container, attached=attached, remove=remove)


@click.command(
    cls=base.Command,
    context_settings=AFTER_IMAGE,
    examples=["askos create --name web nginx", "askos create --restart always busybox sleep 1000"],
)
@specification.options
def create(image: str, **options: Any) -> None:
    """Create a container without starting it, and print its uuid.

    Start it with `askos start`. Everything after IMAGE is the command to run in it.
    """
    containers = base.containers()
    container = begin(containers, specification.body(image=image, **options), start=False, remove=False)
    print(container["uuid"])


def begin(containers: Containers, body: dict[str, Any], *, start: bool, remove: bool) -> Container:
    """Create, and wait until it runs, has run, or failed. ClientError when it failed (SystemExit 126 or 127
    when its program cannot be started)."""
    what = f"{'run' if start else 'create'} {body['image']}"
    with base.doing(what, {404: "Check the names given"}):
        accepted = containers.create(body, run=start)
    try:
        container = settled(containers, accepted)
    except KeyboardInterrupt:
        _given_up(containers, accepted, remove=remove)
        raise
    if container is None:
        return accepted  # Removed by itself: it was quick, and told to.
    reason = one_line(str(container.get("status_reason") or ""))
    failed = container["status"] == "Error"
    not_started = start and container["status"] == "Created"
    if not (failed or not_started):
        return container
    if remove:
        containers.delete(container["uuid"], stop=True)
        kept = ""
    else:
        name = container["name"]
        kept = f". {name} is kept: see `askos show {name}`, or `askos rm {name}`"
    message = f"cannot {what}: {reason or 'no reason was given'}{kept}"
    # Zun leaves it Created when only its program could not be started; Askos says Error with such a reason.
    if not_started or (start and "cannot start" in reason.lower()):
        base.complain(message)
        raise SystemExit(start_failure(reason))
    raise ClientError(message)


def _given_up(containers: Containers, container: Container, *, remove: bool) -> None:
    """Ctrl-C before it ran: with --rm nothing is left behind, else the user is told what is."""
    if remove:
        with contextlib.suppress(ApiError):
            containers.delete(container["uuid"], stop=True)
            return
    base.complain(f"{container['name']} is still being made. Remove it with `askos rm -f {container['name']}`")


def settled(containers: Containers, container: Container) -> Container | None:
    """Wait for the end of creating and starting, with a note of what goes on. None when it is gone."""
    note = Note()
    try:
        return containers.settle(container["uuid"], within_s=START_WITHIN_S, watch=_watcher(note))
    finally:
        note.clear()


def _watcher(note: Note) -> Callable[[Container], None]:
    def watch(container: Container) -> None:
        doing = str(container.get("task_state") or container.get("status")).removeprefix("container_")
        note.show(f"{container['name']}: {doing.replace('_', ' ').lower()} ...")

    return watch


def _check_attach(containers: Containers, image: str, *, tty: bool) -> None:
    """ClientError when -i cannot work, before anything has been created."""
    if tty and not sys.stdin.isatty():
        raise ClientError(f"cannot run {image} with -t: standard input is not a terminal. Leave -t out")
    try:
        offered = base.native(containers).can_attach()
    except ApiError as error:
        raise ClientError(base.told(f"run {image}", error)) from error
    if not offered:
        flags = "-it" if tty else "-i"
        raise ClientError(
            f"cannot run {image} with {flags}: this cloud does not offer attach. "
            f"Start it with `askos run -d {flags} ...` and enter it with `askos exec {flags} NAME sh`"
        )
