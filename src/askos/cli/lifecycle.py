"""`askos start`, `stop`, `restart`, `pause`, `unpause`, `kill`, `rm` and `wait`: each for several containers.

The requests go out first and are waited for afterwards, so that stopping ten containers takes as long as
stopping the slowest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from askos.cli import base
from askos.client.containers import Container, Containers
from askos.client.errors import ClientError, one_line
from askos.client.session import Query

MARGIN_S = 60.0
"""What a host may take beyond the grace given to a process."""
START_WITHIN_S = 900.0
STOP_TIMEOUT_S = 10

names_argument = click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=base.complete_names)
no_wait_option = click.option("--no-wait", is_flag=True, help="Return when it is accepted, not when it is done.")
time_option = click.option(
    "-t",
    "--time",
    "--timeout",
    "timeout_s",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="Grace before it is killed (10).",
)


@click.command(cls=base.Command, examples=["askos start web", "askos start web db"])
@no_wait_option
@names_argument
def start(names: tuple[str, ...], no_wait: bool) -> None:
    """Start containers that do not run, and wait until they do."""
    _all(
        names,
        "start",
        ask=lambda c, name: c.act(name, "start"),
        judge=_started,
        within_s=START_WITHIN_S,
        no_wait=no_wait,
    )


@click.command(cls=base.Command, examples=["askos stop web", "askos stop -t 60 web db"])
@time_option
@no_wait_option
@names_argument
def stop(names: tuple[str, ...], timeout_s: int | None, no_wait: bool) -> None:
    """Stop running containers: SIGTERM, and SIGKILL when the grace is over."""
    within = MARGIN_S + (STOP_TIMEOUT_S if timeout_s is None else timeout_s)
    _all(
        names,
        "stop",
        ask=lambda c, name: c.act(name, "stop", _grace(timeout_s)),
        judge=_stopped,
        within_s=within,
        no_wait=no_wait,
    )


@click.command(cls=base.Command, examples=["askos restart web", "askos restart -t 0 web db"])
@time_option
@no_wait_option
@names_argument
def restart(names: tuple[str, ...], timeout_s: int | None, no_wait: bool) -> None:
    """Stop containers and start them again."""
    _all(
        names,
        "restart",
        ask=lambda c, name: c.act(name, "reboot", _grace(timeout_s)),
        judge=_started,
        within_s=START_WITHIN_S,
        no_wait=no_wait,
    )


@click.command(cls=base.Command, examples=["askos pause web", "askos pause web db"])
@no_wait_option
@names_argument
def pause(names: tuple[str, ...], no_wait: bool) -> None:
    """Let all processes of containers stand still, until `askos unpause`."""
    _all(names, "pause", ask=lambda c, n: c.act(n, "pause"), judge=_paused, within_s=MARGIN_S, no_wait=no_wait)


@click.command(cls=base.Command, examples=["askos unpause web", "askos unpause $(askos ps -q)"])
@no_wait_option
@names_argument
def unpause(names: tuple[str, ...], no_wait: bool) -> None:
    """Let the processes of paused containers go on."""
    _all(names, "unpause", ask=lambda c, n: c.act(n, "unpause"), judge=_unpaused, within_s=MARGIN_S, no_wait=no_wait)


@click.command(cls=base.Command, examples=["askos kill web", "askos kill -s HUP web"])
@click.option("-s", "--signal", "signal_name", default="KILL", metavar="SIGNAL", help="Name or number (KILL).")
@names_argument
def kill(names: tuple[str, ...], signal_name: str) -> None:
    """Send a signal to the first process of running containers."""
    containers = base.containers()

    def act(name: str) -> None:
        containers.act(name, "kill", [("signal", signal_name)])
        print(name)

    base.for_each(names, "kill {}", act, {409: "It has to run: see `askos ps -a`"})


@click.command(cls=base.Command, examples=["askos rm web", "askos rm -f web db"])
@click.option("-f", "--force", is_flag=True, help="Stop it first if it runs.")
@no_wait_option
@names_argument
def rm(names: tuple[str, ...], force: bool, no_wait: bool) -> None:
    """Remove containers with all that belongs to them."""
    hints = {409: "Stop it first, or use `askos rm -f`"}
    _all(
        names,
        "remove",
        ask=lambda c, name: c.delete(name, stop=force),
        judge=_removed,
        within_s=MARGIN_S,
        no_wait=no_wait,
        hints=hints,
    )


@click.command(cls=base.Command, examples=["askos wait job", "test $(askos wait job) = 0"])
@names_argument
def wait(names: tuple[str, ...]) -> None:
    """Wait until containers have stopped, and print the exit code of each."""
    native = base.native(base.containers())

    def act(name: str) -> None:
        ended = native.wait(name)
        if ended.exit_code is None:
            raise ClientError(f"cannot wait for {name}: it is {ended.status}{_because(ended.reason)}")
        print(ended.exit_code, flush=True)

    base.for_each(names, "wait for {}", act)


Judge = Callable[[str, Container | None], None]
BEGUN = {
    "stop": lambda c: c["status"] == "Running",
    "pause": lambda c: c["status"] == "Running",
    "unpause": lambda c: c["status"] == "Paused",
    "remove": lambda c: c["status"] != "Error",
}
"""What a container must not be any more when a verb is done; see `Containers.settle`."""


def _all(
    names: tuple[str, ...],
    verb: str,
    *,
    ask: Callable[[Containers, str], Any],
    judge: Judge,
    within_s: float,
    no_wait: bool,
    hints: dict[int, str] | None = None,
) -> None:
    """Ask for all, then wait for all; print each name that is done. Exits with 1 if any failed."""
    containers = base.containers()
    accepted: list[tuple[str, str]] = []

    def request(name: str) -> None:
        # By uuid from here on: while one is being removed, another may take its name.
        uuid = name if no_wait else str(containers.show(name)["uuid"])
        ask(containers, uuid)
        accepted.append((name, uuid))

    def finish(name: str) -> None:
        if not no_wait:
            judge(name, containers.settle(dict(accepted)[name], within_s=within_s, unless=BEGUN.get(verb)))
        print(name, flush=True)

    failed = False
    for step, of in ((request, names), (finish, None)):
        try:
            base.for_each(of if of is not None else [name for name, _ in accepted], f"{verb} {{}}", step, hints)
        except SystemExit:
            failed = True
    if failed:
        raise SystemExit(1)


def _started(name: str, container: Container | None) -> None:
    if container is not None and container["status"] in {"Created", "Error", "Dead"}:
        raise ClientError(_failed("start", name, container))


def _stopped(name: str, container: Container | None) -> None:
    if container is not None and container["status"] in {"Running", "Error"}:
        raise ClientError(_failed("stop", name, container))


def _paused(name: str, container: Container | None) -> None:
    if container is not None and container["status"] != "Paused":
        raise ClientError(_failed("pause", name, container))


def _unpaused(name: str, container: Container | None) -> None:
    if container is not None and container["status"] in {"Paused", "Error"}:
        raise ClientError(_failed("unpause", name, container))


def _removed(name: str, container: Container | None) -> None:
    if container is not None:
        raise ClientError(_failed("remove", name, container))


def _failed(verb: str, name: str, container: Container) -> str:
    reason = _because(str(container.get("status_reason") or ""))
    return f"cannot {verb} {name}: it is {container['status']}{reason}. See `askos show {name}`"


def _because(reason: str) -> str:
    return f" ({one_line(reason)})" if reason else ""


def _grace(timeout_s: int | None) -> Query:
    return [] if timeout_s is None else [("timeout", str(timeout_s))]
