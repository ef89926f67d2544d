"""`askos up`, `down`, `server` and `agent`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from askos.cli.base import Command
from askos.model.errors import SetupError

if TYPE_CHECKING:
    from askos.settings import Settings

_START_TIMEOUT_S = 120


def settings_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which cloud's settings are meant."""
    for option in reversed(
        [
            click.option("--data", metavar="FOLDER", help="Folder of this cloud [ASKOS_DATA, /var/lib/askos]."),
            click.option("--config", metavar="FILE", help="Settings file [ASKOS_CONFIG, FOLDER/askos.toml]."),
            click.option("--log-level", help="debug, info, warning or error."),
        ]
    ):
        function = option(function)
    return function


def _listen_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.option("--address", help="IP address to listen on; off loopback with TLS [127.0.0.1]."),
            click.option("--port", type=int, help="TCP port to listen on [9517]."),
            click.option("--public-url", help="What clients are told, when it differs from the address."),
            click.option("--network-pool", metavar="CIDR", help="Where container networks get their addresses."),
        ]
    ):
        function = option(function)
    return function


def _label_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--label",
        "host_labels",
        metavar="KEY=VALUE",
        multiple=True,
        callback=lambda _context, _option, given: given or None,
        help="Label of this host, for `askos run --hint label:KEY=VALUE`. Several: give it again.",
    )(function)


def load(flags: dict[str, Any]) -> Settings:
    """The settings that a command's flags, the environment and the file say. SetupError."""
    from askos import settings

    config = flags.pop("config", None)
    context = click.get_current_context()
    if flags.get("data") is None and getattr(context.obj, "data", None):
        flags["data"] = context.obj.data
    return settings.load(flags, os.environ, Path(config) if config else None)


@click.command(
    cls=Command,
    needs_cloud=False,
    examples=["askos up -d", "askos up -d --data /srv/second --port 9600", "askos up -d --address 192.0.2.10"],
)
@click.option("-d", "--detach", is_flag=True, help="Run in the background; return when the cloud works.")
@click.option("--report-fd", type=int, hidden=True)
@_label_option
@_listen_options
@settings_options
def up(detach: bool, report_fd: int | None, **flags: Any) -> None:
    """Run a whole cloud on this machine: API, identity, containerd, network.

    Containers go on when `askos up` ends, and the next one takes them over. `askos down` stops everything.
    """
    config = flags.get("config")
    settings = load(flags)
    if detach:
        _detach(settings, config)
        return
    from askos.programs import main

    main.start(settings, server=True, agent=True, report_fd=report_fd)


@click.command(cls=Command, needs_cloud=False, examples=["askos server --data /srv/cloud"])
@_listen_options
@settings_options
def server(**flags: Any) -> None:
    """Run the API and control plane in the foreground, without a host of its own."""
    from askos.programs import main

    main.start(load(flags), server=True, agent=False)


@click.command(
    cls=Command,
    needs_cloud=False,
    examples=["askos agent --data /srv/cloud", "askos agent --label disk=ssd --label rack=a"],
)
@click.option("--link-socket", help="Socket of the server [FOLDER/run/link.sock].")
@_label_option
@settings_options
def agent(**flags: Any) -> None:
    """Run this machine's containers for a server, in the foreground."""
    from askos.programs import main

    main.start(load(flags), server=False, agent=True)


@click.command(cls=Command, needs_cloud=False, examples=["askos down", "askos down --data /srv/second"])
@settings_options
def down(**flags: Any) -> None:
    """Stop the cloud on this machine, with all its containers. Its data stays."""
    import asyncio
    import logging

    from askos.programs.down import down as take_down

    settings = load(flags)
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    if asyncio.run(take_down(settings, _say)):
        _say("stopped; the data is kept in " + str(settings.data))
    else:
        _say(f"nothing runs on {settings.data}")


def _say(text: str) -> None:
    click.echo(f"  {text}", err=True)


def _detach(settings: Settings, config: str | None) -> None:
    """Start ourselves in the background and wait until the cloud works."""
    from askos.paths import prepare_folders
    from askos.programs import locks

    running = locks.holder(settings.paths.lock) if settings.data.is_dir() else None
    if running is not None:
        _say(f"Askos is running already on {settings.data} (process {running})")
        return
    # At once, and in our own words: whoever is not root may not even be able to start the child.
    prepare_folders(settings.paths)
    read_fd, write_fd = os.pipe()
    arguments = [sys.executable, "-m", "askos", "up", "--report-fd", str(write_fd)]
    if config is not None:
        arguments += ["--config", str(Path(config).resolve())]
    arguments += ["--data", str(settings.data), "--address", settings.listen.address]
    arguments += ["--port", str(settings.listen.port)]
    for flag, value in (("--public-url", settings.listen.public_url), ("--network-pool", settings.network.pool)):
        if value is not None:
            arguments += [flag, value]
    for key, word in settings.host.labels:
        arguments += ["--label", f"{key}={word}"]
    arguments += ["--log-level", settings.log.level]
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[write_fd],
        start_new_session=True,
        cwd="/",
    )
    os.close(write_fd)
    for message in _messages(read_fd):
        if "step" in message:
            _say(str(message["step"]))
        elif "ready" in message:
            _say(f"Askos answers at {message['ready']['url']}")
            return
        elif "error" in message:
            process.wait(30)
            raise SetupError(str(message["error"]))
    raise SetupError(f"Askos did not start. Its log may say why: {settings.paths.log}")


def _messages(fd: int) -> Iterator[dict[str, Any]]:
    import select

    deadline = time.monotonic() + _START_TIMEOUT_S
    pending = b""
    with contextlib.closing(os.fdopen(fd, "rb", buffering=0)) as pipe:
        while time.monotonic() < deadline:
            ready, _, _ = select.select([pipe], [], [], 1.0)
            if not ready:
                continue
            data = pipe.read(4096)
            if not data:
                return
            pending += data
            *lines, pending = pending.split(b"\n")
            for line in lines:
                yield json.loads(line)
