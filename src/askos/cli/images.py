"""`askos image ls`, `import`, `pull` and `rm`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import click

from askos.cli import base, output, progress, text
from askos.cli.base import Lazy, LazyGroup
from askos.cli.output import Column
from askos.client.errors import ClientError
from askos.client.native import Native

CHUNK = 64 * 1024
HERE = "askos.cli.images"


@click.group(
    cls=LazyGroup,
    lazy={
        "ls": Lazy(f"{HERE}:ls", "List images."),
        "import": Lazy(f"{HERE}:import_", "Load an image from a tar archive."),
        "pull": Lazy(f"{HERE}:pull", "Fetch an image from its registry."),
        "rm": Lazy(f"{HERE}:rm", "Remove images."),
    },
    hints={
        "load": "Use `askos image import`.",
        "list": "Use `askos image ls`.",
        "tag": "Import it under the other name: `askos image import FILE NAME`, or commit a container of it.",
        "search": "Images of registries are searched on their own pages; of the image service: `openstack image list`.",
        "push": "Use `askos commit`: the image is kept in the project.",
        "save": "Use `askos commit`: the image is kept in the project.",
        "build": "Images are built elsewhere: import them, or push them to a registry.",
        "inspect": "Use `askos image ls -o json`.",
        "prune": "Use `askos image rm` with those that are not needed.",
    },
)
def image() -> None:
    """List, import, pull and remove images."""


def _native() -> Native:
    return base.native(base.containers())


@click.command(cls=base.Command, examples=["askos image ls", "askos image ls -o json"])
@click.option("-q", "--quiet", is_flag=True, help="Only ids, one a line.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten anything.")
@base.format_options("table", "json", "yaml")
def ls(quiet: bool, no_trunc: bool, form: str) -> None:
    """List the images that are at hand, so that a container of them starts at once."""
    with base.doing("list images"):
        images = _native().images()
    if quiet:
        output.write("".join(f"{each['id']}\n" for each in images))
    elif form != "table":
        output.write(output.structured(images, form))
    else:
        width = None if no_trunc else output.table_width()
        output.write(listing(images, cut=not no_trunc, width=width))


def listing(images: list[dict[str, Any]], *, cut: bool, width: int | None) -> str:
    """The table: one row for each name of an image."""
    rows = []
    for each in images:
        ident = str(each["id"]).removeprefix("sha256:")
        shown, size = ident[:12] if cut else ident, text.size(each.get("size_bytes") or 0)
        rows += [[name, shown, size] for name in each.get("tags") or ["<none>"]]
    return output.table([Column("IMAGE", 16), Column("ID"), Column("SIZE")], sorted(rows), width=width)


@click.command(
    "import",
    cls=base.Command,
    examples=["askos image import busybox.tar", "docker save app:2 | askos image import - app:2"],
)
@click.argument("file", metavar="FILE")
@click.argument("name", required=False)
def import_(file: str, name: str | None) -> None:
    """Load an image from a tar archive: an OCI layout or what `docker save` writes, gzipped or not.

    FILE may be - for standard input. NAME is for archives that name no image.
    """
    native = _native()
    title = "standard input" if file == "-" else file
    with _opened(file) as source, base.doing(f"import {title}"):
        size = os.fstat(source.fileno()).st_size if file != "-" else None
        with progress.bar(f"Importing {title}", size) as advance:
            made = native.import_image(_pieces(source, advance), size, name)
    for ref in made:
        print(ref)


@click.command(cls=base.Command, examples=["askos image pull busybox", "askos image pull registry.example/app:2"])
@click.argument("ref", metavar="IMAGE")
def pull(ref: str) -> None:
    """Fetch an image from its registry, so that it is at hand."""
    native = _native()
    done: dict[str, Any] = {}
    with base.doing(f"pull {ref}"):
        try:
            with progress.bar(f"Pulling {ref}", None) as advance:
                for step in native.pull(ref):
                    advance(int(step.get("current") or 0), int(step.get("total") or 0))
                    done = step
        except ClientError as error:
            if type(error) is ClientError:
                raise ClientError(base.told(f"pull {ref}", error)) from None
            raise
    fetched = done.get("image") or {}
    for name in fetched.get("tags") or [fetched.get("id") or ref]:
        print(name)


@click.command(cls=base.Command, examples=["askos image rm busybox:latest", "askos image rm $(askos image ls -q)"])
@click.argument("refs", nargs=-1, required=True, metavar="IMAGE...")
def rm(refs: tuple[str, ...]) -> None:
    """Remove images, by name or id."""
    native = _native()

    def act(ref: str) -> None:
        native.remove_image(ref)
        print(ref)

    base.for_each(refs, "remove the image {}", act, {404: "See `askos image ls`"})


def _opened(file: str) -> BinaryIO:
    if file == "-":
        if sys.stdin.isatty():
            raise ClientError("cannot import from standard input: it is a terminal. Give a file, or pipe one in")
        return os.fdopen(os.dup(0), "rb", buffering=0)
    try:
        source = open(file, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise ClientError(f"cannot read {file}: {(error.strerror or '').lower()}. Check its name") from None
    return source


def _pieces(source: BinaryIO, advance: Callable[[int, int], None]) -> Iterator[bytes]:
    sent = 0
    while piece := source.read(CHUNK):
        yield piece
        sent += len(piece)
        advance(sent, 0)
