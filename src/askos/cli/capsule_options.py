"""What the commands of `askos capsule` share: the line to the API, options, and completion for the shell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from askos.cli import base

if TYPE_CHECKING:
    from askos.client.capsules import Capsules

NOT_FOUND = {404: "See `askos capsule ls`"}
COMPLETE_WITHIN_S = 3.0


def capsules(namespace: str | None = None) -> Capsules:
    """The native API's capsules, on the session of the running command."""
    from askos.client.capsules import Capsules

    return Capsules(base.session(), namespace)


def _looked_up(ctx: click.Context, look: Callable[[Capsules], list[str]], incomplete: str) -> list[str]:
    """Words for the shell. Never an error: a shell has no use for one."""
    try:
        from askos.client.capsules import Capsules
        from askos.client.connection import resolve
        from askos.client.session import Session
        from askos.client.tokens import TokenCache

        outer = ctx.find_root().params
        cloud, data = (ctx.params.get(key) or outer.get(key) for key in ("os_cloud", "data"))
        line = Session(resolve(cloud, data), TokenCache.of_user())
        try:
            return [word for word in look(Capsules(line, ctx.params.get("namespace"))) if word.startswith(incomplete)]
        finally:
            line.close()
    except Exception:
        return []


def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of capsules for the shell."""

    def look(api: Capsules) -> list[str]:
        given = ctx.params.get("names") or ()
        return [
            c["metadata"]["name"] for c in api.every(timeout_s=COMPLETE_WITHIN_S) if c["metadata"]["name"] not in given
        ]

    return _looked_up(ctx, look, incomplete)


def complete_container(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the containers of the capsule that is named; of all capsules when none is named yet."""

    def look(api: Capsules) -> list[str]:
        import os

        # Of the words of an unfinished command line click tells nothing.
        words = set(split_arg_string(os.environ.get("COMP_WORDS", "")))
        every = api.every(timeout_s=COMPLETE_WITHIN_S)
        named = [each for each in every if words & {each["id"], each["metadata"]["name"]}]
        parts = [(each, part) for each in named or every for part in ("containers", "initContainers")]
        return list(dict.fromkeys(c["name"] for each, part in parts for c in each["spec"].get(part, [])))

    from click.shell_completion import split_arg_string

    return _looked_up(ctx, look, incomplete)


def complete_namespace(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Namespaces that there are."""

    def look(api: Capsules) -> list[str]:
        api.namespace = None
        return sorted({c["metadata"]["namespace"] for c in api.every(timeout_s=COMPLETE_WITHIN_S)})

    return _looked_up(ctx, look, incomplete)


namespace_option = click.option(
    "-n", "--namespace", metavar="NAME", help="Only in this namespace.", shell_complete=complete_namespace
)
container_option = click.option(
    "-c",
    "--container",
    metavar="NAME",
    help="Which container; needed with several.",
    shell_complete=complete_container,
)
name_argument = click.argument("name", shell_complete=complete)
names_argument = click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete)
