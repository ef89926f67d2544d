"""`askos capsule logs`."""

from __future__ import annotations

import queue
import sys
import threading
import time

import click

from askos.cli import base, text
from askos.cli.capsule_options import NOT_FOUND, capsules, container_option, name_argument, namespace_option
from askos.cli.logs import tail_value
from askos.cli.specification import converted
from askos.client.capsules import Capsules
from askos.client.errors import ClientError
from askos.client.session import Query

LONGEST_LINE = 1 << 20
"""Bytes after which a line is printed though it has not ended."""


@click.command(
    cls=base.Command,
    examples=[
        "askos capsule logs -f web -c nginx",
        "askos capsule logs --previous --tail 20 web",
        "askos capsule logs -f --all-containers web",
    ],
)
@namespace_option
@container_option
@click.option("--all-containers", is_flag=True, help="Of all containers, with the name in front of each line.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the container ends.")
@click.option("-p", "--previous", is_flag=True, help="Of the container's life before this one.")
@click.option("--tail", default="all", metavar="N", callback=converted(tail_value), help="Only the last N lines.")
@click.option("-t", "--timestamps", is_flag=True, help="Put the time in front of each line.")
@click.option(
    "--since",
    metavar="TIME",
    callback=converted(lambda value: text.parse_since_s(value, time.time())),
    help="Only what is newer: 10m, 2026-11-21T08:00:00Z, or seconds since 1970.",
)
@click.option("--limit-bytes", type=click.IntRange(min=1), metavar="N", help="At most so many bytes.")
@name_argument
def logs(
    *,
    namespace: str | None,
    container: str | None,
    all_containers: bool,
    follow: bool,
    previous: bool,
    tail: str,
    timestamps: bool,
    since: int | None,
    limit_bytes: int | None,
    name: str,
) -> None:
    """Print what a container has written: standard output and standard error, in their order."""
    flags = (("follow", follow), ("previous", previous), ("timestamps", timestamps))
    query: Query = [(word, "true") for word, on in flags if on]
    query += [("tailLines", tail)] if tail != "all" else []
    query += [("limitBytes", str(limit_bytes))] if limit_bytes is not None else []
    if since is not None:
        query.append(("sinceTime", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))))
    api = capsules(namespace)
    if all_containers:
        if container:
            raise click.UsageError("use either -c or --all-containers")
        _all(api, name, query)
        return
    query += [("container", container)] if container else []
    with base.doing(f"read the log of {name}", NOT_FOUND, name):
        for chunk in api.logs(name, query):
            _put(chunk)


def _put(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


class Reader(threading.Thread):
    """Reads the log of one container, and puts whole lines into the common queue; in the end itself."""

    def __init__(self, api: Capsules, capsule: str, container: str, query: Query, lines: queue.Queue[bytes | Reader]):
        super().__init__(name=f"log of {container}", daemon=True)
        self.container = container
        self.problem: Exception | None = None
        self._api = api
        self._capsule = capsule
        self._query: Query = [*query, ("container", container)]
        self._lines = lines

    def run(self) -> None:
        """Until the log ends; what went wrong is in `problem` then."""
        prefix, rest = f"[{self.container}] ".encode(), b""
        try:
            for chunk in self._api.logs(self._capsule, self._query):
                *complete, rest = (rest + chunk).split(b"\n")
                if len(rest) > LONGEST_LINE:
                    complete, rest = [*complete, rest], b""
                if complete:
                    self._lines.put(b"".join(prefix + line + b"\n" for line in complete))
            if rest:
                self._lines.put(prefix + rest + b"\n")
        except Exception as error:
            self.problem = error
        self._lines.put(self)


def _all(api: Capsules, name: str, query: Query) -> None:
    """The logs of all containers at once, line by line, each with its container's name."""
    with base.doing(f"read the logs of {name}", NOT_FOUND, name):
        capsule = api.show(name)
    names = [c["name"] for part in ("initContainers", "containers") for c in capsule["spec"].get(part, [])]
    follow = ("follow", "true") in query
    # Followed: as it comes. Otherwise one container after the other, as they stand in the manifest.
    batches = [names] if follow else [[each] for each in names]
    failed = False
    for batch in batches:
        # Of one place: a reader that prints slowly holds up the containers' logs, and no memory fills.
        lines: queue.Queue[bytes | Reader] = queue.Queue(1)
        readers = [Reader(api, str(capsule["id"]), each, query, lines) for each in batch]
        for reader in readers:
            reader.start()
        left = len(readers)
        while left:
            found = lines.get()
            if isinstance(found, bytes):
                _put(found)
                continue
            left -= 1
            if found.problem is None:
                continue
            if not isinstance(found.problem, ClientError):
                raise found.problem
            failed = True
            base.complain(base.told(f"read the log of {found.container} in {name}", found.problem, NOT_FOUND))
    if failed:
        raise SystemExit(1)
