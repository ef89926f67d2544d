"""A progress bar on stderr: rich's on a terminal, nothing or a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from askos.cli import text

Advance = Callable[[int, int], None]
"""Called with (bytes so far, bytes in total or 0 if not known)."""
PLAIN_EVERY_S = 5.0


@contextlib.contextmanager
def bar(title: str, total: int | None) -> Iterator[Advance]:
    """Show progress while in the block. `total` in bytes; None: it may come with the calls."""
    if not sys.stderr.isatty():
        yield _plain(title)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(escape(title), total=total)

        def advance(current: int, of: int) -> None:
            shown.update(task, completed=current, total=of or total)

        yield advance


def _plain(title: str) -> Advance:
    """A line every few seconds, for logs of CI jobs."""
    last = time.monotonic()

    def advance(current: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last > PLAIN_EVERY_S:
            last = time.monotonic()
            end = f" of {text.size(of)}" if of else ""
            print(f"{title}: {text.size(current)}{end}", file=sys.stderr, flush=True)

    return advance
