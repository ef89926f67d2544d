"""What commands print: tables that fit the terminal, key/value views, JSON and YAML."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, TextIO

from askos.cli import terminal

GAP = 2


class Column(NamedTuple):
    """A column's head, and the narrowest it may become; 0: it is never cut."""

    head: str
    narrowest: int = 0


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int | None) -> str:
    """Lines with aligned columns. `width` None: nothing is cut, as for pipes.

    When it is too wide, the widest of the columns that may be cut gives way first; text that was cut ends in
    "…".
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    heads = [column.head for column in columns]
    widths = [max(map(display_width, (head, *column))) for head, *column in zip(heads, *cells, strict=True)]
    if width is not None:
        widths = fitted(columns, widths, width)
    lines = []
    for row in [heads, *cells]:
        padded = [pad(cut(cell, limit), limit) for cell, limit in zip(row, widths, strict=True)]
        lines.append((" " * GAP).join(padded).rstrip())
    return "\n".join(lines) + "\n"


def fitted(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """Widths that fit into `width`, or come as near as the columns allow."""
    widths = list(widths)
    excess = sum(widths) + GAP * (len(widths) - 1) - width
    while excess > 0:
        can = [i for i, column in enumerate(columns) if column.narrowest and widths[i] > column.narrowest]
        if not can:
            break
        widest = max(can, key=lambda i: widths[i])
        others = [widths[i] for i in can if i != widest]
        floor = max(columns[widest].narrowest, min(max(others, default=0), widths[widest] - 1))
        step = min(excess, widths[widest] - floor)
        widths[widest] -= step
        excess -= step
    return widths


def key_values(pairs: Sequence[tuple[str, str]]) -> str:
    """A readable view of one thing; values of several lines are indented below their key."""
    longest = max((len(key) for key, _ in pairs), default=0)
    lines = []
    for key, value in pairs:
        first, *rest = value.split("\n") or [""]
        lines.append(f"{key + ':':<{longest + 2}} {printable(first)}".rstrip())
        lines += [" " * (longest + 3) + printable(line) for line in rest]
    return "\n".join(lines) + "\n"


def structured(value: Any, form: str) -> str:
    """JSON or YAML text of the API's own objects."""
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def write(text: str, stream: TextIO | None = None) -> None:
    """Print text that ends in a newline already; characters the terminal cannot show become '?'."""
    stream = stream or sys.stdout
    try:
        stream.write(text)
    except UnicodeEncodeError:
        stream.write(text.encode(stream.encoding, "replace").decode(stream.encoding))


def table_width() -> int | None:
    """The width to fit tables into, or None when they go to a pipe or file."""
    return terminal.size()[0] if sys.stdout.isatty() else None


def printable(text: str) -> str:
    """Text without control characters: names and commands of others must not drive the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def display_width(text: str) -> int:
    """How many columns a terminal gives to a text."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """At most `width` columns of a text."""
    if display_width(text) <= width:
        return text
    kept = ""
    for character in text:
        if display_width(kept + character) > width - 1:
            break
        kept += character
    return kept + "…"


def pad(text: str, width: int) -> str:
    """A text filled up with blanks."""
    return text + " " * (width - display_width(text))
