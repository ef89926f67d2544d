"""`askos cp`."""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from askos.cli import base
from askos.client.archives import Archives
from askos.client.errors import ApiError, ClientError, one_line

CHUNK = 256 * 1024
LONGEST_CHAIN = 40
"""Links that lead to links, as many as Linux follows."""
NOT_FOUND = {409: "It has to run, or to have run: see `askos ps -a`"}


class _How(NamedTuple):
    """`owners`: files keep their uid and gid. `follow`: of a link, what it leads to."""

    owners: bool
    follow: bool


@click.command(
    cls=base.Command,
    examples=[
        "askos cp web:/etc/nginx/nginx.conf .",
        "askos cp site/. web:/usr/share/nginx/html",
        "askos cp -a web:/srv/data backup",
        "askos cp web:/var/log - | tar t",
    ],
)
@click.option(
    "-a", "--archive", is_flag=True, help="Keep uid and gid of all files; without it they are root's there, yours here."
)
@click.option(
    "-L", "--follow-link", is_flag=True, help="If SOURCE is a link, copy what it leads to, by the link's name."
)
@click.option("-q", "--quiet", is_flag=True, help="Accepted and without effect: nothing is told anyhow.", hidden=True)
@click.argument("source", metavar="SOURCE")
@click.argument("destination", metavar="DESTINATION")
def cp(*, source: str, destination: str, archive: bool, follow_link: bool, quiet: bool) -> None:
    """Copy files out of a container (NAME:PATH) or into one.

    A folder that is there takes the copy in; a name that is not is what the copy is called. FOLDER/. means what is in
    the folder. - is a tar archive on standard input or output, with the owners that are in it. Links within a folder
    stay links. Here, only root can give files to others (-a).
    """
    del quiet
    how = _How(archive, follow_link)
    there, here = parsed(source), parsed(destination)
    if (there is None) == (here is None):
        wrong = "Both are in containers" if there else "Neither is in a container"
        raise click.UsageError(
            f"{wrong}. Write NAME:PATH for one of them, and ./PATH for a local path with a colon",
            click.get_current_context(),
        )
    session = base.session()
    what = f"copy {source} to {destination}"
    name = (there or here or ("", ""))[0]
    with base.doing(what, NOT_FOUND, name):
        try:
            if there is not None:
                _out(Archives(session, there[0]), there[1], destination, how)
            elif here is not None:
                _into(Archives(session, here[0]), source, here[1], how)
        except ApiError as error:
            if error.kind != "no-such-path":
                raise
            raise ClientError(f"cannot {what}: {one_line(error.message)}. Check the path") from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ClientError(f"cannot {what}: {reason}: {error.filename or 'standard input or output'}") from None
        except ClientError as error:
            if type(error) is not ClientError:
                raise
            raise ClientError(base.told(what, error)) from None


def parsed(given: str) -> tuple[str, str] | None:
    """(container, path in it), or None for a local path."""
    name, colon, path = given.partition(":")
    if not colon or not name or given.startswith((".", "/", "~")):
        return None
    return name, path if path.startswith("/") else f"/{path}"


def _out(archives: Archives, path: str, destination: str, how: _How) -> None:
    from askos.cli import packing

    name, pieces = "", archives.get(path)
    if how.follow:
        name = posixpath.basename(posixpath.normpath(path))
        pieces = _followed(archives, path)
    if destination == "-":
        if sys.stdout.isatty():
            raise ClientError("standard output is a terminal, and an archive is not to be read. Name a file, or a pipe")
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    contents = path.endswith("/.")
    packing.unpack(pieces, destination, contents=contents, complain=base.complain, name=name, owners=how.owners)


def _followed(archives: Archives, path: str) -> Iterator[bytes]:
    """The archive of what a path leads to in the container. ClientError for links that lead round in a circle."""
    from askos.cli import packing

    at = path
    for _ in range(LONGEST_CHAIN):
        pieces = archives.get(at)
        link, pieces = packing.top_link(pieces)
        if link is None:
            return pieces
        for _rest in pieces:
            pass  # It is short, and what is read to its end leaves the connection for the next.
        at = posixpath.join("/", posixpath.dirname(at), link)
    raise ClientError(f"{path} is a link that leads round in a circle. Copy it as a link, without -L")


def _into(archives: Archives, source: str, path: str, how: _How) -> None:
    if source == "-":
        if sys.stdin.isatty():
            raise ClientError("standard input is a terminal. Pipe a tar archive in")
        if not archives.is_folder(path):
            raise ClientError(f"there is no folder {path} in the container. An archive is unpacked into a folder")
        archives.put(path, _stdin())
        return
    from askos.cli import packing

    local = Path(source)
    if source.endswith(("/", "/.")):
        local = local.resolve()
        if local.exists() and not local.is_dir():
            raise ClientError(f"{source} is not a folder")
    if not (local.exists() or local.is_symlink()):
        raise ClientError(f"there is no {source} here")
    # A link goes by its own name, a path such as .. by that of the folder it means.
    own = local.name if local.is_symlink() else local.resolve().name
    if how.follow and local.is_symlink():
        if not local.exists():
            raise ClientError(f"{source} is a link that leads nowhere. Copy it as a link, without -L")
        local = local.resolve()
    folder = local.is_dir() and not local.is_symlink()
    into, name = _target(archives, path, own, folder=folder, contents=source.endswith("/."))
    archives.put(into, packing.pack(local, name, base.complain, owners=how.owners))


def _target(archives: Archives, path: str, name: str, *, folder: bool, contents: bool) -> tuple[str, str]:
    """(the folder to put it into, the name that it gets there), by docker's rules."""
    if archives.is_folder(path):
        return path, "" if folder and contents else name
    if path.endswith("/") and not folder:
        raise ClientError(f"there is no folder {path} in the container. Make it first, or leave the last / out")
    parent, last = posixpath.split(posixpath.normpath(path))
    if not archives.is_folder(parent):
        raise ClientError(f"there is no folder {parent} in the container. Make it first")
    return parent, last


def _stdin() -> Iterator[bytes]:
    while data := os.read(0, CHUNK):
        yield data
