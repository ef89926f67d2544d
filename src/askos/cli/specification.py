"""From the options of `run` and `create` to the body of the API's create call."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from askos.cli import create_words, text
from askos.cli.base import Decorator
from askos.client.errors import ClientError

PULL = {"missing": "ifnotpresent", "always": "always", "never": "never"}


def processors(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """A number that JSON can say: a range does not keep nan out."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of processors. Write 2 or 0.5.", context, parameter)
    return value


def converted(convert: Callable[[str], Any]) -> Callable[..., Any]:
    """A click callback from a function that raises ValueError."""

    def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else convert(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback


def each(convert: Callable[[str], Any]) -> Callable[..., Any]:
    """The same for an option that may be given several times."""

    def callback(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[Any]:
        try:
            return [convert(one) for one in value]
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback


def complete_networks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of networks for the shell."""
    from askos.cli.network_words import complete_networks as complete

    return complete(ctx, param, incomplete)


def _several(*flags: str, name: str, form: str, read: Callable[[str], Any], told: str) -> Decorator:
    """An option that may be given several times."""
    return click.option(*flags, name, multiple=True, metavar=form, callback=each(read), help=told)


OPTIONS: list[Decorator] = [
    click.option("--name", help="A name; one is made up if none is given."),
    click.option("-i", "--interactive", is_flag=True, help="Keep standard input open."),
    click.option("-t", "--tty", is_flag=True, help="Give the process a terminal."),
    click.option("-e", "--env", "env", multiple=True, metavar="K[=V]", help="Set a variable; K alone: as it is here."),
    click.option("--env-file", multiple=True, type=click.Path(), metavar="FILE", help="Set variables from lines K=V."),
    click.option("-w", "--workdir", metavar="FOLDER", help="Where the process starts."),
    click.option("-l", "--label", "labels", multiple=True, metavar="K[=V]", help="Add a label."),
    click.option(
        "--cpus",
        "--cpu",
        "cpu",
        type=click.FloatRange(min=0, min_open=True),
        callback=processors,
        metavar="N",
        help="Processors.",
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
    _several(
        "-v", "--volume", name="volumes", form="NAME:/PATH", read=create_words.volume, told="Mount a volume there."
    ),
    _several(
        "--mount",
        name="mounts",
        form="KEY=VALUE,...",
        read=create_words.mount,
        told="The same in long: source=NAME,destination=/PATH; size=10 for a new volume that goes with it.",
    ),
    _several(
        "--file", name="files", form="LOCAL:/PATH", read=create_words.file, told="Put a file there, up to 512 KiB."
    ),
    click.option(
        "--net",
        "--network",
        "networks",
        multiple=True,
        metavar="NAME[:ip=ADDRESS][,ip6=ADDRESS]",
        shell_complete=complete_networks,
        help="Plug it into a network; may be repeated. port=PORT for a port made before.",
    ),
    click.option("--ip", "address", metavar="ADDRESS", help="Its address in the only --net."),
    click.option("--ip6", "address6", metavar="ADDRESS", help="Its IPv6 address there."),
    click.option(
        "-p",
        "--publish",
        "--expose",
        "ports",
        multiple=True,
        metavar="PORT[/udp]",
        help="Open a port to everybody, on the container's own address. It gets a security group for that.",
    ),
    click.option(
        "--security-group", "--sg", "groups", multiple=True, metavar="GROUP", help="What may reach it; may be repeated."
    ),
    click.option("--health-cmd", metavar="COMMAND", help="A shell command that fails while it is not well."),
    click.option("--health-interval", metavar="TIME", callback=converted(create_words.seconds), help="Between checks."),
    click.option("--health-timeout", metavar="TIME", callback=converted(create_words.seconds), help="For each check."),
    click.option("--health-retries", type=click.IntRange(min=1), metavar="N", help="Failures in a row that count."),
    click.option(
        "--disk", metavar="SIZE", callback=converted(text.parse_size_gib), help="Limit of what it writes, such as 10g."
    ),
    click.option("--cpu-policy", type=click.Choice(["shared", "dedicated"]), help="dedicated: cores of its own."),
    click.option("--auto-heal", is_flag=True, help="Make it anew should it vanish from its host."),
    click.option("--registry", metavar="NAME", help="Fetch the image with these credentials: `askos registry ls`."),
    click.option("--image-driver", type=click.Choice(["docker", "glance"]), help="glance: from the image service."),
    click.option("--zone", metavar="ZONE", help="The availability zone."),
    click.option("--hint", "hints", multiple=True, metavar="K=V", help="For its placement, such as label:disk=ssd."),
    click.option("--host", metavar="HOST", help="The host it is to run on (administrators only)."),
    click.option("--runtime", metavar="NAME", help="Another runtime, such as runsc (administrators only)."),
    click.option("--privileged", is_flag=True, help="With all rights on its host; clouds seldom allow it."),
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
    volumes: list[dict[str, Any]],
    mounts: list[dict[str, Any]],
    files: list[dict[str, Any]],
    networks: tuple[str, ...],
    address: str | None,
    address6: str | None,
    ports: tuple[str, ...],
    groups: tuple[str, ...],
    health_cmd: str | None,
    health_interval: int | None,
    health_timeout: int | None,
    health_retries: int | None,
    disk: int | None,
    cpu_policy: str | None,
    auto_heal: bool,
    registry: str | None,
    image_driver: str | None,
    zone: str | None,
    hints: tuple[str, ...],
    host: str | None,
    runtime: str | None,
    privileged: bool,
    auto_remove: bool = False,
) -> dict[str, Any]:
    """The JSON for POST /v1/containers. What is not given is left out, so that the server's defaults hold."""
    try:
        nets, exposed = create_words.nets(networks, address, address6), create_words.ports(ports)
        numbers = {"interval": health_interval, "timeout": health_timeout, "retries": health_retries}
        healthcheck = create_words.health(health_cmd, numbers)
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context(silent=True)) from None
    if exposed and groups:
        raise click.UsageError(
            "--publish makes a group of its own and cannot go with --security-group: open the port in that group, with "
            "`askos security-group rule add`",
            click.get_current_context(silent=True),
        )
    variables = environment([line for path in env_file for line in env_lines(Path(path))] + list(env), os.environ)
    given: dict[str, Any] = {
        "image": image,
        "name": name,
        "command": list(command) or None,
        "entrypoint": None if entrypoint is None else ([entrypoint] if entrypoint else []),
        "environment": variables or None,
        "workdir": workdir,
        "labels": _labels(labels) or None,
        "cpu": cpu,
        "memory": None if memory is None else str(memory),
        "hostname": hostname,
        "restart_policy": restart,
        "image_pull_policy": PULL[pull] if pull else None,
        "interactive": interactive or None,
        "tty": tty or None,
        "auto_remove": auto_remove or None,
        "mounts": [*volumes, *mounts, *files] or None,
        "nets": nets or None,
        "exposed_ports": exposed or None,
        "security_groups": list(groups) or None,
        "healthcheck": healthcheck,
        "disk": disk,
        "cpu_policy": cpu_policy,
        "auto_heal": auto_heal or None,
        "registry": registry,
        "image_driver": image_driver,
        "availability_zone": zone,
        "hints": dict(hint.partition("=")[::2] for hint in hints) or None,
        "host": host,
        "runtime": runtime,
        "privileged": privileged or None,
    }
    return {key: value for key, value in given.items() if value is not None}


def _labels(pairs: Iterable[str]) -> dict[str, str]:
    result: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not key:
            raise ClientError(f"cannot add the label {pair!r}: it has no name. Write -l NAME=VALUE")
        result[key] = value
    return result


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
