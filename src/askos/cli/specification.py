"""From the options of `run` and `create` to the body of the API's create call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from askos.cli import text
from askos.cli.base import Decorator
from askos.client.errors import ClientError

PULL = {"missing": "ifnotpresent", "always": "always", "never": "never"}


def converted(convert: Callable[[str], Any]) -> Callable[..., Any]:
    """A click callback from a function that raises ValueError."""

    def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else convert(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback


OPTIONS: list[Decorator] = [
    click.option("--name", help="A name; one is made up if none is given."),
    click.option("-i", "--interactive", is_flag=True, help="Keep standard input open."),
    click.option("-t", "--tty", is_flag=True, help="Give the process a terminal."),
    click.option("-e", "--env", "env", multiple=True, metavar="K[=V]", help="Set a variable; K alone: as it is here."),
    click.option("--env-file", multiple=True, type=click.Path(), metavar="FILE", help="Set variables from lines K=V."),
    click.option("-w", "--workdir", metavar="FOLDER", help="Where the process starts."),
    click.option("-l", "--label", "labels", multiple=True, metavar="K[=V]", help="Add a label."),
    click.option(
        "--cpus", "--cpu", "cpu", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Processors."
    ),
    click.option(
        "-m",
        "--memory",
        metavar="SIZE",
        callback=converted(text.parse_memory_mib),
        help="Limit of memory: 512m, 1.5g, or a number of MiB.",
    ),
    click.option("--hostname", help="The host name inside; made from the container's id by default."),
    click.option("--entrypoint", metavar="PROGRAM", help="Instead of the image's entrypoint; '' for none."),
    click.option(
        "--restart",
        metavar="POLICY",
        callback=converted(text.parse_restart),
        help="no, always, unless-stopped, on-failure[:N].",
    ),
    click.option("--pull", type=click.Choice(list(PULL)), help="When to fetch the image (administrators only)."),
    click.argument("image"),
    click.argument("command", nargs=-1, type=click.UNPROCESSED),
]


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """All options and arguments that describe a container."""
    for decorate in reversed(OPTIONS):
        function = decorate(function)
    return function


def body(
    *,
    image: str,
    command: tuple[str, ...],
    name: str | None,
    interactive: bool,
    tty: bool,
    env: Iterable[str],
    env_file: Iterable[str],
    workdir: str | None,
    labels: Iterable[str],
    cpu: float | None,
    memory: int | None,
    hostname: str | None,
    entrypoint: str | None,
    restart: dict[str, str] | None,
    pull: str | None,
    auto_remove: bool = False,
) -> dict[str, Any]:
    """The JSON for POST /v1/containers. What is not given is left out, so that the server's defaults hold."""
    variables = environment([line for path in env_file for line in env_lines(Path(path))] + list(env), os.environ)
    given: dict[str, Any] = {
        "image": image,
        "name": name,
        "command": list(command) or None,
        "entrypoint": None if entrypoint is None else ([entrypoint] if entrypoint else []),
        "environment": variables or None,
        "workdir": workdir,
        "labels": {key: value for key, _, value in (label.partition("=") for label in labels)} or None,
        "cpu": cpu,
        "memory": None if memory is None else str(memory),
        "hostname": hostname,
        "restart_policy": restart,
        "image_pull_policy": PULL[pull] if pull else None,
        "interactive": interactive or None,
        "tty": tty or None,
        "auto_remove": auto_remove or None,
    }
    return {key: value for key, value in given.items() if value is not None}


def environment(pairs: Iterable[str], here: Mapping[str, str]) -> dict[str, str]:
    """Variables from "K=V" and "K" (taken from `here`; left out if it is not set there). The last one
    wins."""
    result: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key:
            raise ClientError(f"cannot set the variable {pair!r}: it has no name. Write -e NAME=VALUE")
        if equals:
            result[key] = value
        elif key in here:
            result[key] = here[key]
    return result


def env_lines(path: Path) -> list[str]:
    """The assignments of a file of docker's kind: one a line, `#` comments, nothing is unquoted."""
    try:
        content = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or "").lower() if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ClientError(f"cannot read the variables in {path}: {why}. Check --env-file") from None
    lines = (line.strip("\r\n").lstrip() for line in content.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
