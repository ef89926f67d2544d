"""`askos registry`: where images are fetched from, and with which credentials."""

from __future__ import annotations

import sys
from typing import Any

import click

from askos.cli import base, output
from askos.cli.base import Lazy, LazyGroup
from askos.cli.output import Column
from askos.client.errors import ClientError
from askos.client.session import part

HERE = "askos.cli.registries"
NOT_FOUND = {404: "See `askos registry ls`"}


@click.group(
    cls=LazyGroup,
    lazy={
        "ls": Lazy(f"{HERE}:ls", "List registries."),
        "add": Lazy(f"{HERE}:add", "Keep the credentials for a registry."),
        "update": Lazy(f"{HERE}:update", "Change what is kept of a registry."),
        "rm": Lazy(f"{HERE}:rm", "Forget registries."),
    },
    hints={
        "list": "Use `askos registry ls`.",
        "create": "Use `askos registry add`.",
        "delete": "Use `askos registry rm`.",
    },
)
def registry() -> None:
    """Registries of private images: `askos run --registry NAME IMAGE`."""


def complete_registries(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of registries for the shell. Never an error: a shell has no use for one."""
    try:
        from askos.client.connection import resolve
        from askos.client.session import Session
        from askos.client.tokens import TokenCache

        line = Session(resolve(ctx.params.get("os_cloud"), ctx.params.get("data")), TokenCache.of_user())
        found = line.json("GET", "/registries", timeout_s=3)["registries"]
        line.close()
        return [r["name"] for r in found if (r["name"] or "").startswith(incomplete)]
    except Exception:
        return []


@click.command(cls=base.Command, examples=["askos registry ls"])
@click.option("-q", "--quiet", is_flag=True, help="Only uuids, one a line.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten anything.")
@base.format_options("table", "json", "yaml")
def ls(quiet: bool, no_trunc: bool, form: str) -> None:
    """List the registries of the project. Passwords are never shown."""
    with base.doing("list registries"):
        found = base.session().json("GET", "/registries")["registries"]
    if quiet:
        output.write("".join(f"{each['uuid']}\n" for each in found))
    elif form != "table":
        output.write(output.structured(found, form))
    else:
        rows = [
            [
                str(r["name"] or ""),
                str(r["uuid"])[: None if no_trunc else 8],
                str(r["domain"]),
                str(r["username"] or ""),
            ]
            for r in found
        ]
        columns = [Column("NAME", 12), Column("ID"), Column("DOMAIN", 12), Column("USER", 8)]
        output.write(output.table(columns, rows, width=None if no_trunc else output.table_width()))


_user_option = click.option("-u", "--username", metavar="USER", help="The user there.")
_stdin_option = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


@click.command(
    cls=base.Command,
    examples=[
        "askos registry add hub docker.io -u alice",
        "pass hub | askos registry add hub docker.io -u alice --password-stdin",
    ],
)
@_user_option
@_stdin_option
@click.argument("name")
@click.argument("domain")
def add(name: str, domain: str, username: str | None, password_stdin: bool) -> None:
    """Keep the credentials for the registry at DOMAIN under a name, and print its uuid.

    The password is asked for, or read from standard input; it is stored encrypted.
    """
    body: dict[str, Any] = {"name": name, "domain": domain}
    if username is not None or password_stdin:
        body |= {"username": username, "password": _password(name, from_stdin=password_stdin)}
    with base.doing(f"add the registry {name}"):
        made = base.session().json("POST", "/registries", body={"registry": body})
    print(_inner(made)["uuid"])


@click.command(
    cls=base.Command, examples=["askos registry update hub --password", "askos registry update hub --name docker"]
)
@_user_option
@click.option("--password", "ask", is_flag=True, help="Ask for a new password.")
@_stdin_option
@click.option("--name", "new_name", metavar="NAME", help="A new name.")
@click.option("--domain", metavar="DOMAIN", help="Another domain.")
@click.argument("name", shell_complete=complete_registries)
def update(
    *, name: str, username: str | None, ask: bool, password_stdin: bool, new_name: str | None, domain: str | None
) -> None:
    """Change what is kept of a registry."""
    changes: dict[str, Any] = {"name": new_name, "domain": domain, "username": username}
    changes = {key: value for key, value in changes.items() if value is not None}
    if ask or password_stdin:
        changes["password"] = _password(name, from_stdin=password_stdin)
    if not changes:
        raise click.UsageError("say what is to change, such as --password", click.get_current_context())
    with base.doing(f"update the registry {name}", NOT_FOUND):
        base.session().json("PATCH", f"/registries/{part(name)}", body={"registry": changes})
    print(name)


@click.command(cls=base.Command, examples=["askos registry rm hub"])
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_registries)
def rm(names: tuple[str, ...]) -> None:
    """Forget registries and their passwords. Those that containers were made with stay."""
    session = base.session()

    def act(name: str) -> None:
        session.request("DELETE", f"/registries/{part(name)}")
        print(name)

    base.for_each(names, "remove the registry {}", act, {**NOT_FOUND, 409: "Remove the containers that use it first"})


def _password(name: str, *, from_stdin: bool) -> str:
    """Never from the command line, where everybody on the machine can read it."""
    if from_stdin:
        found = sys.stdin.read().rstrip("\r\n")
        if not found:
            raise ClientError(f"cannot keep the password of {name}: standard input is empty")
        return found
    if not sys.stdin.isatty():
        raise ClientError(
            f"cannot ask for the password of {name}: standard input is not a terminal. Use --password-stdin"
        )
    return str(click.prompt(f"Password for {name}", hide_input=True, err=True))


def _inner(answer: dict[str, Any]) -> dict[str, Any]:
    inner = answer.get("registry")
    return inner if isinstance(inner, dict) else answer
