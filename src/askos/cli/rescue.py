"""`askos admin`: what an operator does at the machine of a server, while that is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from askos.cli import base, output
from askos.cli.base import Lazy, LazyGroup
from askos.cli.output import Column
from askos.cli.serve import load, settings_options

if TYPE_CHECKING:
    from askos.adapters.sql.forgetting import Sealed

_MEANS = {
    "capsule": "its config maps and secrets: give them anew with `askos capsule apply`",
    "container": "files that were given with it: make it anew",
    "registry": "its password: give it anew with `askos registry update`",
}


@click.group(
    cls=LazyGroup,
    lazy={"forget-sealed": Lazy("askos.cli.rescue:forget_sealed", "Give up secrets whose content key is lost.")},
)
def admin() -> None:
    """Repairs at the machine of a server, while that is stopped."""


@click.command(
    "forget-sealed",
    cls=base.Command,
    needs_cloud=False,
    examples=["askos admin forget-sealed --data /srv/cloud", "askos admin forget-sealed --yes"],
)
@click.option("--yes", is_flag=True, help="Do it without a question.")
@settings_options
def forget_sealed(yes: bool, **flags: Any) -> None:
    """Give up what is encrypted with a content key that is lost for good, so that the server starts again.

    Lists what is lost, and asks. Nothing else is touched: containers and capsules stay and go on. Look for the key
    first: with the right one in content.key or ASKOS_CONTENT_KEY nothing is lost. Stop all servers of the cloud before.
    """
    import asyncio

    from askos.programs.forgetting import forget_sealed as forget

    def agree(found: list[Sealed]) -> bool:
        rows = [[each.kind, each.name, each.uuid, each.project_id, _MEANS[each.kind]] for each in found]
        columns = [*map(Column, ("KIND", "NAME", "UUID", "PROJECT")), Column("LOSES", 20)]
        output.write(output.table(columns, rows, width=output.table_width()))
        return yes or click.confirm(f"Forget these {len(found)} for good?", err=True)

    found = asyncio.run(forget(load(flags), agree))
    click.echo(f"forgot {len(found)}" if found else "nothing was forgotten", err=True)
