"""`askos completion`."""

from __future__ import annotations

import click

from askos.cli import base, output


@click.command(
    cls=base.Command,
    needs_cloud=False,
    examples=[
        "askos completion bash > /etc/bash_completion.d/askos",
        "askos completion fish > ~/.config/fish/completions/askos.fish",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets a shell complete commands, options and names of containers."""
    from click.shell_completion import get_completion_class

    from askos.cli.main import COMPLETE_VARIABLE, cli

    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(cli, {}, "askos", COMPLETE_VARIABLE)
    # Not made.source(): for bash that runs bash to look at its version.
    output.write(made.source_template % made.source_vars() + "\n")
