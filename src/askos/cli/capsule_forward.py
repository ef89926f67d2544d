"""`askos capsule port-forward`."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

import click

from askos.cli import base, output
from askos.cli.capsule_options import NOT_FOUND, capsules, complete, namespace_option
from askos.cli.capsule_state import Capsule
from askos.client.errors import ClientError
from askos.client.session import Query

if TYPE_CHECKING:
    from askos.client.capsules import Capsules
    from askos.client.forwarding import Pair

LARGEST_PORT = 65535


@click.command(
    "port-forward",
    cls=base.Command,
    examples=["askos capsule port-forward web 8080:80", "askos capsule port-forward web :http 5432"],
)
@namespace_option
@click.option("--address", default="127.0.0.1", metavar="ADDRESS", help="Where to listen (127.0.0.1).")
@click.argument("name", shell_complete=complete)
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL:]REMOTE...")
def port_forward(namespace: str | None, address: str, name: str, ports: tuple[str, ...]) -> int:
    """Pass connections to local ports on to ports inside a capsule, until Ctrl-C.

    REMOTE is a number, or the name of a port of a container. LOCAL is the same number if it is left out, and a free
    one if nothing stands before the colon.
    """
    wanted = [_parsed(each) for each in ports]
    api = capsules(namespace)
    with base.doing(f"forward ports of {name}", NOT_FOUND, name):
        capsule = api.show(name)
    phase = str(capsule["status"]["phase"])
    if phase != "Running":
        raise ClientError(f"cannot forward ports of {name}: it is not running, but {phase}. See `askos capsule ls`")
    from askos.client.forwarding import Pair

    pairs = []
    for local, remote in wanted:
        number = int(remote) if remote.isdigit() else _named(capsule, remote)
        pairs.append(Pair(number if local is None else local, number))
    return _serve(api, capsule, address, pairs)


def _parsed(given: str) -> tuple[int | None, str]:
    """The local port (0: any; None: the same as the remote one) and the remote one, a number or a name."""
    local, colon, remote = given.rpartition(":")
    good = (not local or _is_port(local, 0)) and (not remote.isdigit() or _is_port(remote, 1))
    if not good or not remote or not remote.isascii() or (not colon and local):
        raise click.UsageError(f"{given!r} is not a port. Write REMOTE, LOCAL:REMOTE or :REMOTE, such as 8080:80")
    return (int(local or 0) if colon else None), remote


def _is_port(word: str, least: int) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 5 and least <= int(word) <= LARGEST_PORT


def _named(capsule: Capsule, name: str) -> int:
    every = [
        port
        for part in ("containers", "initContainers")
        for c in capsule["spec"].get(part, [])
        for port in c.get("ports", [])
        if port.get("name")
    ]
    for port in every:
        if port["name"] == name:
            return int(port["containerPort"])
    known = f"Its ports are {', '.join(str(p['name']) for p in every)}" if every else "None of its ports has a name"
    raise ClientError(f"cannot forward {name}: {capsule['metadata']['name']} has no port of that name. {known}")


def _serve(api: Capsules, capsule: Capsule, address: str, pairs: list[Pair]) -> int:
    from askos.client import forwarding

    shown = f"[{address}]" if ":" in address else address

    def ready(found: list[Pair]) -> None:
        for pair in found:
            output.write(f"Forwarding from {shown}:{pair.local} -> {pair.remote}\n")
        sys.stdout.flush()

    async def run() -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        path, query = api.path(str(capsule["id"]), "/portforward"), Query()
        await forwarding.serve(api.session, path, query, pairs, address=address, ready=ready, complain=base.complain)

    try:
        asyncio.run(run())
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    return 0
