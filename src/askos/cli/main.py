"""`askos`: the commands, and the one place where errors become words and exit codes.

0 ok; 1 it did not work; 2 called wrongly; 130 Ctrl-C. `run` and `exec` give the exit code of the process, and
125 to 127 when it is not the process that failed, as docker does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from askos import __version__
from askos.cli.base import Globals, Lazy, LazyGroup, complain
from askos.model.errors import AskosError

_CLI = "askos.cli"
COMMANDS = {
    "run": Lazy(f"{_CLI}.create:run", "Create a container from an image and run it."),
    "ps": Lazy(f"{_CLI}.ps:ps", "List containers."),
    "show": Lazy(f"{_CLI}.show:show", "Show all about one or more containers."),
    "logs": Lazy(f"{_CLI}.logs:logs", "Print what a container has written."),
    "exec": Lazy(f"{_CLI}.exec:exec_", "Run a command in a running container."),
    "attach": Lazy(f"{_CLI}.changes:attach", "Connect to a running container's own process."),
    "cp": Lazy(f"{_CLI}.copy:cp", "Copy files out of a container, or into one."),
    "create": Lazy(f"{_CLI}.create:create", "Create a container without starting it."),
    "start": Lazy(f"{_CLI}.lifecycle:start", "Start containers that do not run."),
    "stop": Lazy(f"{_CLI}.lifecycle:stop", "Stop running containers."),
    "restart": Lazy(f"{_CLI}.lifecycle:restart", "Stop containers and start them again."),
    "pause": Lazy(f"{_CLI}.lifecycle:pause", "Let containers stand still."),
    "unpause": Lazy(f"{_CLI}.lifecycle:unpause", "Let paused containers go on."),
    "kill": Lazy(f"{_CLI}.lifecycle:kill", "Send a signal to running containers."),
    "rm": Lazy(f"{_CLI}.lifecycle:rm", "Remove containers."),
    "wait": Lazy(f"{_CLI}.lifecycle:wait", "Wait until containers have stopped; print their exit codes."),
    "top": Lazy(f"{_CLI}.usage:top", "List the processes of a container."),
    "stats": Lazy(f"{_CLI}.usage:stats", "Show what running containers use."),
    "port": Lazy(f"{_CLI}.changes:port", "Tell where a container's ports are reached."),
    "actions": Lazy(f"{_CLI}.changes:actions", "Tell what was asked of a container."),
    "rename": Lazy(f"{_CLI}.changes:rename", "Give a container another name."),
    "update": Lazy(f"{_CLI}.changes:update", "Change what containers may use."),
    "rebuild": Lazy(f"{_CLI}.changes:rebuild", "Make a container anew, perhaps from another image."),
    "commit": Lazy(f"{_CLI}.changes:commit", "Make an image of a container."),
    "capsule": Lazy(f"{_CLI}.capsules:capsule", "Capsules: pods of containers, from Kubernetes manifests."),
    "image": Lazy(f"{_CLI}.images:image", "List, import, pull and remove images."),
    "volume": Lazy(f"{_CLI}.volumes:volume", "Create, list and remove volumes."),
    "network": Lazy(f"{_CLI}.networks:network", "Networks, and what is plugged into them."),
    "security-group": Lazy(f"{_CLI}.security_groups:security_group", "What may reach containers."),
    "floating-ip": Lazy(f"{_CLI}.floating_ips:floating_ip", "Addresses outside, for containers."),
    "registry": Lazy(f"{_CLI}.registries:registry", "Credentials for registries of images."),
    "quota": Lazy(f"{_CLI}.admin:quota", "What a project may use at most."),
    "host": Lazy(f"{_CLI}.admin:host", "The machines that containers run on."),
    "service": Lazy(f"{_CLI}.admin:service", "Askos' program on each host."),
    "up": Lazy(f"{_CLI}.serve:up", "Run a whole cloud on this machine."),
    "down": Lazy(f"{_CLI}.serve:down", "Stop the cloud on this machine."),
    "server": Lazy(f"{_CLI}.serve:server", "Run the API and control plane."),
    "agent": Lazy(f"{_CLI}.serve:agent", "Run this machine's containers for a server."),
    "admin": Lazy(f"{_CLI}.rescue:admin", "Repairs at the machine of a server."),
    "env": Lazy(f"{_CLI}.env:env", "Print the variables with which other clients reach the cloud."),
    "version": Lazy(f"{_CLI}.version:version", "Show the versions of client and server."),
    "completion": Lazy(f"{_CLI}.completion:completion", "Print the completion script for a shell."),
    "sg": Lazy(f"{_CLI}.security_groups:security_group", "Same as `security-group`.", hidden=True),
    "fip": Lazy(f"{_CLI}.floating_ips:floating_ip", "Same as `floating-ip`.", hidden=True),
    "events": Lazy(f"{_CLI}.changes:actions", "Same as `actions`.", hidden=True),
    "images": Lazy(f"{_CLI}.images:ls", "Same as `image ls`.", hidden=True),
    "pull": Lazy(f"{_CLI}.images:pull", "Same as `image pull`.", hidden=True),
    "rmi": Lazy(f"{_CLI}.images:rm", "Same as `image rm`.", hidden=True),
}
COMPLETE_VARIABLE = "_ASKOS_COMPLETE"
HINTS = {
    "inspect": "Use `askos show -o json`, or `askos show --format`.",
    "load": "Use `askos image import`.",
    "list": "Use `askos ps`.",
    "delete": "Use `askos rm`.",
    "reboot": "Use `askos restart`.",
    "login": "Use `askos env`.",
    "apply": "Use `askos capsule apply -f FILE`.",
    "get": "Use `askos ps`, or `askos capsule ls`.",
    "describe": "Use `askos show`, or `askos capsule describe`.",
    "port-forward": "Use `askos capsule port-forward`.",
    "save": "Use `askos commit`.",
    "tag": "Images have the names that they were imported, pulled or committed with.",
    "push": "Use `askos commit`: the image is kept in the project.",
    "search": "Images of registries are searched on their own pages; of the image service: `openstack image list`.",
    "diff": "Containers do not tell what has changed in them: look with `askos exec`, or copy with `askos cp`.",
    "build": "Images are built elsewhere: import them with `askos image import`, or push them to a registry.",
    "export": "Use `askos cp NAME:/ -`.",
    "container": "Use the words without it: `askos ps`, `askos rm`.",
    "compose": "Use `askos capsule apply -f FILE` with a pod.",
    "prune": "Use `askos rm $(askos ps -aq --filter status=stopped)`.",
    "system": "Use `askos host ls`, or `askos actions NAME`.",
    "logout": "Remove the variables of `askos env`: nothing else is kept.",
    "networks": "Use `askos network ls`.",
    "volumes": "Use `askos volume ls`.",
    "history": "Use `askos actions`.",
    "info": "Use `askos host ls`, or `askos version`.",
    "pod": "Use `askos capsule`.",
    "pods": "Use `askos capsule ls`.",
    "capsules": "Use `askos capsule ls`.",
}


@click.group(
    "askos",
    cls=LazyGroup,
    lazy=COMMANDS,
    hints=HINTS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`askos COMMAND --help` tells more, with examples.",
)
@click.option("--os-cloud", metavar="NAME", help="A cloud of clouds.yaml.  [env: OS_CLOUD]")
@click.option("--data", metavar="FOLDER", help="The local cloud's folder.  [env: ASKOS_DATA]")
@click.version_option(__version__, message="askos %(version)s", help="Show the version of this command.")
@click.pass_context
def cli(ctx: click.Context, os_cloud: str | None, data: str | None) -> None:
    """Run a container or a pod with one command, on shared hosts."""
    ctx.obj = Globals(os_cloud, data)


def run(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors have been told on stderr."""
    try:
        try:
            code = _invoke(args)
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads our output any more. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    return code


def _invoke(args: Sequence[str] | None) -> int:
    # Not cli.main(): it has its own ideas of broken pipes, of Ctrl-C and of what an error looks like.
    try:
        instruction = os.environ.get(COMPLETE_VARIABLE)
        if instruction:
            from click.shell_completion import shell_complete

            return shell_complete(cli, {}, "askos", COMPLETE_VARIABLE, instruction)
        with cli.make_context("askos", list(sys.argv[1:] if args is None else args)) as ctx:
            result = cli.invoke(ctx)
            return result if isinstance(result, int) else 0
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "askos"
        message = error.format_message().rstrip(".")
        message = message if message[1:2].isupper() else message[:1].lower() + message[1:]
        end = "" if message.endswith("?") else "."
        print(f"{path}: {message}{end} See `{path} --help`.", file=sys.stderr)
        return 2
    except click.ClickException as error:
        complain(error.format_message())
        return 1
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        raise
    except AskosError as error:
        complain(error.message)
        return 1
    except Exception as error:
        if os.environ.get("ASKOS_DEBUG"):
            raise
        complain(
            f"cannot go on: {type(error).__name__}: {error}. "
            "This is a mistake in askos: set ASKOS_DEBUG=1 to see where, and report it"
        )
        return 1


def main() -> NoReturn:
    """The console script."""
    sys.exit(run())
