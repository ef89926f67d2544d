"""What the commands for networks, security groups and floating addresses share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import click

from askos.cli import base
from askos.client.errors import ApiError, ClientError
from askos.client.networks import FLOATING, GROUP, NETWORK, Kind, Networks


def networks() -> Networks:
    """Neutron's API of the running command's cloud."""
    return Networks(base.session())


@contextlib.contextmanager
def doing(what: str, kind: Kind) -> Iterator[None]:
    """As `base.doing`; tells a cloud without networks apart from one without this network."""
    try:
        yield
    except ApiError as error:
        raise ClientError(told(what, kind, error)) from error
    except ClientError as error:
        if type(error) is not ClientError:
            raise
        raise ClientError(base.told(what, error)) from error


def told(what: str, kind: Kind, error: ClientError) -> str:
    """The sentence for an error."""
    if isinstance(error, ApiError) and error.no_such_route:
        return f"cannot {what}: this cloud does not offer it"
    return base.told(what, error, {404: f"See `askos {kind.command} ls`"})


def for_each(names: tuple[str, ...], kind: Kind, verb: str, act: Callable[[str], Any]) -> None:
    """Do something to all, complain about those that fail, and exit with 1 if there were any."""
    failed = False
    for name in names:
        try:
            with doing(f"{verb} the {kind.noun} {name}", kind):
                act(name)
        except ClientError as error:
            if type(error) is not ClientError:
                raise
            base.complain(error.message)
            failed = True
    if failed:
        raise SystemExit(1)


def _completer(kind: Kind) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        """Names for the shell. Never an error: a shell has no use for one."""
        try:
            from askos.client.connection import resolve
            from askos.client.session import Session
            from askos.client.tokens import TokenCache

            line = Session(resolve(ctx.params.get("os_cloud"), ctx.params.get("data")), TokenCache.of_user())
            found = line.json("GET", f"/{kind.path}", api="network", timeout_s=3)[kind.plural]
            line.close()
            return [one[kind.named_by] for one in found if one[kind.named_by].startswith(incomplete)]
        except Exception:
            return []

    return complete


complete_networks = _completer(NETWORK)
complete_groups = _completer(GROUP)
complete_floating = _completer(FLOATING)
