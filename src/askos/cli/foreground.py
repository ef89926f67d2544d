"""A container in the foreground: its output here, our signals there, its exit code as ours."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from askos.cli import base, terminal
from askos.cli.rejoin import Rejoin
from askos.client.containers import Container, Containers
from askos.client.errors import ClientError
from askos.client.native import STDERR, Ended, Native
from askos.client.session import part
from askos.client.wire import Result
from askos.model.errors import AskosError

GONE_WITHIN_S = 60.0
"""What a host may take to remove a container that has ended."""
DETACH_KEYS = b"\x10\x11"
"""Ctrl-P Ctrl-Q, as docker has it."""


class Detached(BaseException):
    """A second Ctrl-C, or the keys for it: leave the container running."""


def until_end(containers: Containers, container: Container, *, attached: bool, remove: bool) -> int:
    """Show the container's output until it ends; returns its exit code, or 130 if left running."""
    native, uuid, name = base.native(containers), container["uuid"], container["name"]
    try:
        with forwarded_signals(containers, uuid, raw=attached and sys.stdin.isatty()):
            if attached:
                attach(native, container)
            else:
                with base.doing(f"read the output of {name}"):
                    copy_output(native, uuid)
            with base.doing(f"wait for {name}"):
                ended = native.wait(uuid)
    except Detached:
        base.complain(f"{name} is left running. See `askos logs -f {name}`, or stop it with `askos stop {name}`")
        return 130
    if remove:
        with base.doing(f"remove {name}"):
            containers.delete(uuid, stop=True)
            # Its name and addresses are free when this returns, as with docker.
            left = containers.settle(uuid, within_s=GONE_WITHIN_S, unless=lambda c: c["status"] != "Error")
        if left is not None:
            base.complain(f"{name} could not be removed yet: it is {left['status']}. See `askos show {name}`")
    return exit_code(name, ended)


def exit_code(name: str, ended: Ended) -> int:
    """The process's own; 125 with a word about it when there is none."""
    if ended.exit_code is not None:
        return ended.exit_code
    base.complain(f"{name} is {ended.status}: {ended.reason or 'its exit code is not known'}")
    return 125


def copy_output(
    native: Native, ident: str, *, timestamps: bool = False, since_s: int | None = None, tell: bool = False
) -> None:
    """Copy what a container writes to our own stdout and stderr until it stops.

    When the server goes away meanwhile, it is asked again, and what was already shown is skipped: nothing is
    lost or doubled by a restart of the server. `tell`: say so on stderr.
    """
    shown = {1: 0, 2: 0}
    rejoin = Rejoin(tell=tell)
    while True:
        skip = dict(shown)
        try:
            for channel, data in native.logs(ident, follow=True, timestamps=timestamps, since_s=since_s):
                rejoin.works()
                already = min(skip[channel], len(data))
                skip[channel] -= already
                if data[already:]:
                    put(channel, data[already:])
                    shown[channel] += len(data) - already
            return
        except ClientError as error:
            rejoin.after(error)


def put(channel: int, data: bytes) -> None:
    """Write bytes of a container to the right one of our own outputs, at once."""
    target = (sys.stderr if channel == STDERR else sys.stdout).buffer
    target.write(data)
    target.flush()


def attach(native: Native, container: Container, *, stdin: bool = True, logs: bool = True) -> Result | None:
    """Our terminal to the container's own process, until it ends; `logs`: what it wrote before comes first. Detached
    when the user leaves it with Ctrl-P Ctrl-Q. None when it is not known how it ended."""
    from askos.client import remote

    use_tty = stdin and bool(container.get("tty")) and sys.stdin.isatty()
    query = ([("stdin", "1")] if stdin else []) + ([("logs", "1")] if logs else [])
    size = terminal.size if use_tty else None
    if size is not None:
        width, height = size()
        query += [("tty", "1"), ("width", str(width)), ("height", str(height))]
    with terminal.raw() if use_tty else contextlib.nullcontext():
        streams = remote.Streams(
            stdin=0 if stdin else None, terminal_size=size, detach_keys=DETACH_KEYS if use_tty else b""
        )
        try:
            return remote.run(native.session, f"/containers/{part(container['uuid'])}/attach", query, streams)
        except remote.Detached:
            raise Detached from None


@contextlib.contextmanager
def forwarded_signals(containers: Containers, uuid: str, *, raw: bool) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to the container; a second Ctrl-C raises Detached. In raw mode there are none."""
    if raw or threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = 0

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if number == signal.SIGINT:
            seen += 1
            if seen > 1:
                raise Detached
        name = signal.Signals(number).name
        # In a thread of its own: the main one is in the middle of reading.
        threading.Thread(target=_send, args=(containers, uuid, name), daemon=True).start()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _send(containers: Containers, uuid: str, name: str) -> None:
    try:
        containers.act(uuid, "kill", [("signal", name)])
    except AskosError as error:
        base.complain(base.told(f"send {name} to the container", error))
