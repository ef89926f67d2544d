"""`askos capsule create` and `apply`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from askos.cli import base, output, text
from askos.cli.capsule_options import NOT_FOUND, capsules
from askos.cli.specification import converted
from askos.client.capsules import Capsule, Capsules
from askos.client.errors import ApiError, ClientError, one_line

TIMEOUT_S = 300
Made = tuple[Capsule, list[str], str]
"""What the server answered, its warnings, and the word for what was done."""


def _span(value: str) -> int:
    seconds = int(value) if value.isascii() and value.isdigit() else text.parse_span_s(value)
    if seconds is None:
        raise ValueError(f"{value!r} is not a span of time. Write 90s, 5m or a number of seconds")
    return seconds


_OPTIONS: list[base.Decorator] = [
    click.option(
        "-f",
        "--file",
        "files",
        multiple=True,
        required=True,
        metavar="FILE",
        type=click.Path(),
        help="A manifest, or a folder of them; - is standard input. May be repeated.",
    ),
    click.option("-n", "--namespace", metavar="NAME", help="For manifests that name none."),
    click.option("--no-wait", is_flag=True, help="Return when it is accepted, not when it is ready or has ended."),
    click.option(
        "--timeout",
        metavar="TIME",
        default="5m",
        callback=converted(_span),
        help="How long to wait: 90s, 5m (the default), or seconds.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Print ids only."),
    base.format_options("text", "json", "yaml"),
]


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in reversed(_OPTIONS):
        function = decorate(function)
    return function


@click.command(
    cls=base.Command,
    examples=["askos capsule create -f pod.yaml", "cat pod.yaml | askos capsule create -f - --no-wait"],
)
@_options
def create(**options: Any) -> None:
    """Create capsules from Kubernetes Pod manifests, and wait until they are ready or have ended.

    A file may hold several documents: each Pod becomes a capsule; ConfigMaps and Secrets beside it go with it.

    What hinders a capsule is told when it does not pass by itself. The capsule stays then.
    """

    def make(api: Capsules, body: dict[str, Any]) -> Made:
        return *api.create(body), "created"

    _each("create", make, **options)


@click.command(cls=base.Command, examples=["askos capsule apply -f pod.yaml", "askos capsule apply -f folder/"])
@_options
def apply(**options: Any) -> None:
    """Make capsules be as their manifests say: create those that are not there, change the others.

    Changed can be labels, annotations, images, resources, config maps and secrets, and little else of a pod; the
    server names what it cannot change. ConfigMaps and Secrets that are not given stay as they are.
    """

    def make(api: Capsules, body: dict[str, Any]) -> Made:
        from askos.cli import manifest_files

        metadata = body.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not isinstance(name, str) or not name:
            return *api.create(body), "created"
        space = Capsules(api.session, manifest_files.namespace_of(body))
        try:
            before = space.show(name)
        except ApiError as error:
            if error.status != 404:
                raise
            return *api.create(body), "created"
        after, warnings = space.replace(name, body)
        same = after["metadata"]["generation"] == before["metadata"]["generation"]
        return after, warnings, "unchanged" if same else "changed"

    _each("apply", make, **options)


def _each(
    verb: str,
    make: Callable[[Capsules, dict[str, Any]], Made],
    *,
    files: tuple[str, ...],
    namespace: str | None,
    no_wait: bool,
    timeout: int,
    quiet: bool,
    form: str,
) -> None:
    """One capsule after the other is asked for; all are waited for together."""
    from askos.cli import manifest_files

    found = manifest_files.read(files, namespace)
    for warning in found.warnings:
        _warn(warning)
    api = capsules()
    failed = False
    made: dict[str, Capsule] = {}
    for body in found.bodies:
        name = manifest_files.label(body)
        try:
            capsule, warnings, word = make(api, body)
        except ApiError as error:
            _refused(verb, name, error)
            failed = True
            continue
        for warning in warnings:
            _warn(f"{name}: {warning}")
        made[str(capsule["id"])] = capsule
        if quiet:
            output.write(f"{capsule['id']}\n")
            sys.stdout.flush()
        elif form == "text" and (no_wait or word != "created"):
            output.write(f"capsule {capsule['metadata']['name']} {word if verb == 'apply' else 'accepted'}\n")
    if made and not no_wait:
        failed = _wait(api, made, timeout, tell=not quiet and form == "text") or failed
    if form != "text" and not quiet and made:
        every = list(made.values())
        output.write(output.structured(every[0] if len(found.bodies) == 1 else every, form))
    if failed:
        raise SystemExit(1)


def _warn(message: str) -> None:
    print(f"askos: warning: {output.printable(message)}", file=sys.stderr, flush=True)


def _refused(verb: str, name: str, error: ApiError) -> None:
    """Every refused field on a line of its own."""
    hints = {**NOT_FOUND, 409: f"See `askos capsule describe {name}`"} if error.kind == "already-exists" else NOT_FOUND
    details = [line for line in error.details.splitlines() if line.strip()]
    if not details or (len(details) == 1 and one_line(details[0]) in error.message):
        base.complain(base.told(f"{verb} capsule {name}", error, hints))
        return
    title = error.message.removesuffix("; see detail")
    base.complain(base.told(f"{verb} capsule {name}", ApiError(error.status, title, error.kind), hints))
    for line in details:
        print(f"  {output.printable(line)}", file=sys.stderr)


def _wait(api: Capsules, made: dict[str, Capsule], timeout_s: int, *, tell: bool) -> bool:
    """Whether one of them failed. `made` is as they are in the end."""
    from askos.cli.capsule_wait import Outcome, Wait

    failed = False

    def told(each: Capsule, found: Outcome) -> None:
        nonlocal failed
        made[str(each["id"])] = each
        name = each["metadata"]["name"]
        if found.good and tell:
            output.write(f"capsule {name} {found.word}\n")
            sys.stdout.flush()
        elif not found.good:
            failed = True
            base.complain(f"capsule {name} {one_line(found.word)}. See `askos capsule describe {name}`")

    wait = Wait(api, list(made.values()), timeout_s, told)
    try:
        wait.run()
    except KeyboardInterrupt:
        names = wait.left
        there = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} still there"
        base.complain(
            f"no longer waiting: {there}. See `askos capsule ls`, or `askos capsule delete {' '.join(names)}`"
        )
        raise
    except ApiError as error:
        raise ClientError(base.told(f"wait for {', '.join(wait.left)}", error, NOT_FOUND)) from error
    return failed
