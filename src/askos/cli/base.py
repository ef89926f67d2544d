"""What every command shares: its class, the options for cloud and format, and how errors are told.

Commands are loaded one at a time: `LazyGroup` knows their names and summaries, and imports a command's
module when it is called. Nothing here or in `main` may import what costs more than a few milliseconds.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from askos.client.errors import ApiError, ClientError, one_line
from askos.model.errors import AskosError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from askos.client.containers import Containers
    from askos.client.native import Native
    from askos.client.session import Session

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
CLOUD_OPTIONS = ("os_cloud", "data")


class Lazy(NamedTuple):
    """Where a command is: "module:attribute". `summary` is what the list of commands says."""

    target: str
    summary: str
    hidden: bool = False


class Globals(NamedTuple):
    """The options in front of the command; `ctx.obj` of every command."""

    os_cloud: str | None = None
    data: str | None = None


class Command(click.Command):
    """A command that takes `--os-cloud` and `--data` too, and shows examples as they were written."""

    def __init__(self, *args: Any, examples: Iterable[str] = (), needs_cloud: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = list(examples)
        if needs_cloud:
            self.params += _cloud_options()

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, with the cloud options out of the callback's way."""
        given = {name: ctx.params.pop(name, None) for name in CLOUD_OPTIONS if name in self._cloud_names()}
        outer = ctx.obj if isinstance(ctx.obj, Globals) else Globals()
        ctx.obj = Globals(given.get("os_cloud") or outer.os_cloud, given.get("data") or outer.data)
        return super().invoke(ctx)

    def _cloud_names(self) -> set[str]:
        return {p.name for p in self.params if isinstance(p, CloudOption) and p.name}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options first; which cloud it talks to comes last."""
        own: list[tuple[str, str]] = []
        cloud: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                (cloud if isinstance(param, CloudOption) else own).append(record)
        for title, records in (("Options", own), ("Which cloud", cloud)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, not re-wrapped."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class CloudOption(click.Option):
    """An option that says which cloud to talk to."""


def _cloud_options() -> list[click.Parameter]:
    return [
        CloudOption(["--os-cloud"], metavar="NAME", help="A cloud of clouds.yaml.  [env: OS_CLOUD]"),
        CloudOption(["--data"], metavar="FOLDER", help="The local cloud's folder.  [env: ASKOS_DATA]"),
    ]


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], hints: Mapping[str, str] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.lazy = lazy
        self.hints = hints or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which they are of use."""
        return [name for name, entry in self.lazy.items() if not entry.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command. ClientError when its part of Askos is not installed."""
        entry = self.lazy.get(cmd_name)
        if entry is None:
            return None
        import importlib

        module, _, attribute = entry.target.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise ClientError(f"cannot run `askos {cmd_name}`: this installation has no {module}") from None
        if not isinstance(found, click.Command):
            raise TypeError(f"{entry.target} is not a command")
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant, or what may have been meant."""
        name = args[0]
        if name in self.lazy or name.startswith("-"):
            return super().resolve_command(ctx, args)
        import difflib

        near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
        hint = self.hints.get(name) or (f"Did you mean `{ctx.command_path} {near[0]}`?" if near else "")
        raise click.UsageError(f"there is no command {name!r}. {hint}".rstrip(), ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.lazy[name].summary) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands for the shell, with their summaries."""
        from click.shell_completion import CompletionItem

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [CompletionItem(name, help=self.lazy[name].summary) for name in names]


def session() -> Session:
    """The session of the running command. ClientError when no cloud can be found."""
    from askos.client.connection import resolve
    from askos.client.session import Session
    from askos.client.tokens import TokenCache

    ctx = click.get_current_context()
    found = ctx.find_object(Globals) or Globals()
    made = Session(resolve(found.os_cloud, found.data), TokenCache.of_user())
    ctx.call_on_close(made.close)
    return made


def containers() -> Containers:
    """The Zun API's containers."""
    from askos.client.containers import Containers

    return Containers(session())


def native(shared: Containers) -> Native:
    """The native API on the same session."""
    from askos.client.native import Native

    return Native(shared.session)


def format_options(*forms: str) -> Decorator:
    """-o/--output with the given formats (the first is the default)."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(forms),
        default=forms[0],
        help=f"Format: {', '.join(forms)}.",
    )


@contextlib.contextmanager
def doing(what: str, hints: Mapping[int, str] | None = None, name: str = "") -> Iterator[None]:
    """Says in the API's errors what could not be done: "cannot <what>: <why>. <what next>".

    `hints` are by HTTP status; `name`: of the container or capsule that it is done to.
    """
    try:
        yield
    except ApiError as error:
        raise ClientError(told(what, error, hints, name)) from error


def told(what: str, error: AskosError, hints: Mapping[int, str] | None = None, name: str = "") -> str:
    """The sentence for an error that happened while doing `what`."""
    why = one_line(error.message)
    if why.startswith(("cannot ", "no Askos answers")):
        return why
    if isinstance(error, ApiError) and error.no_such_route:
        return f"cannot {what}: this cloud does not offer it"
    status = error.status if isinstance(error, ApiError) else 0
    hint = (hints or {}).get(status) or GENERAL_HINTS.get(status, "")
    if name and isinstance(error, ApiError):
        hint = _other_noun(name, error) or hint
    return f"cannot {what}: {why}. {hint}".rstrip()


def _other_noun(name: str, error: ApiError) -> str:
    """What to say when a container is asked for by the name of a capsule, or the other way round."""
    try:
        if error.kind == "container-not-found":
            _look("/capsules", name, "native")
            return f"It is a capsule: use `askos capsule`, such as `askos capsule describe {name}`"
        if error.kind == "capsule-not-found":
            _look("/containers", name, "zun")
            return f"It is a container: leave out `capsule`, as in `askos show {name}`"
    except AskosError:
        pass
    return ""


def _look(path: str, name: str, api: Literal["zun", "native"]) -> None:
    """ApiError unless there is one of that name, or several."""
    from askos.client.session import part

    try:
        session().json("GET", f"{path}/{part(name)}", api=api, timeout_s=3)
    except ApiError as error:
        if error.status != 409:
            raise


def note_of_others(noun: Literal["container", "capsule"]) -> None:
    """Under a list without entries: that there are some of the other noun. For people only."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        return
    with contextlib.suppress(AskosError, KeyError):
        if noun == "container":
            found = containers().list(all_projects=False)
        else:
            found = session().json("GET", "/capsules", api="native", query=[("limit", "1000")], timeout_s=3)["items"]
        if found:
            count = f"{len(found)} {noun}{'s' if len(found) != 1 else ''}"
            command = "askos ps -a" if noun == "container" else "askos capsule ls"
            print(f"(there {'is' if len(found) == 1 else 'are'} {count}: {command})", file=sys.stderr)


GENERAL_HINTS = {
    403: "Ask for the right, or use another project",
    404: "See `askos ps -a`",
    500: "Look into the server's log",
    503: "Try again in a moment",
}


def complain(message: str) -> None:
    """One line on stderr."""
    line = one_line(message)
    print(f"askos: {line}{'' if line.endswith(('?', '!')) else '.'}", file=sys.stderr, flush=True)


def for_each(
    names: Iterable[str], what: str, act: Callable[[str], Any], hints: Mapping[int, str] | None = None
) -> None:
    """Do something to all names, complain about those that fail, and exit with 1 if there were any.

    What fails for all alike, such as a server that does not answer, is told once.
    """
    failed = False
    for name in names:
        try:
            act(name)
        except ApiError as error:
            complain(told(what.format(name), error, hints, name))
            failed = True
        except ClientError as error:
            if type(error) is not ClientError:
                raise
            complain(told(what.format(name), error))
            failed = True
    if failed:
        raise SystemExit(1)


def complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of containers for the shell. Never an error: a shell has no use for one."""
    try:
        from askos.client.connection import resolve
        from askos.client.session import Session
        from askos.client.tokens import TokenCache

        line = Session(resolve(ctx.params.get("os_cloud"), ctx.params.get("data")), TokenCache.of_user())
        page = line.json("GET", "/containers", query=[("sort_dir", "desc")], timeout_s=3)
        line.close()
        return [c["name"] for c in page["containers"] if c["name"].startswith(incomplete)]
    except Exception:
        return []
