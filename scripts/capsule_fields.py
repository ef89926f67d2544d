"""Writes the table of fields in docs/capsules.md from the tables that the API itself uses; --check only compares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from msgspec import inspect

from askos.api import fields
from askos.api.shape import struct_fields
from askos.model import pods

PAGE = Path(__file__).parents[1] / "docs" / "capsules.md"
BEGIN, END = "<!-- fields: scripts/capsule_fields.py -->\n", "<!-- /fields -->\n"


def structs_in(kind: inspect.Type) -> Iterator[type]:
    """The structs that a field of this type holds."""
    match kind:
        case inspect.StructType():
            yield kind.cls
        case inspect.ListType():
            yield from structs_in(kind.item_type)
        case inspect.UnionType():
            for inner in kind.types:
                yield from structs_in(inner)


def places() -> dict[type, list[str]]:
    """Every struct of a pod with the fields that hold it, in the order in which a reader meets them."""
    found: dict[type, list[str]] = {pods.PodMetadata: ["metadata"], pods.PodSpec: ["spec"]}
    waiting: list[type] = list(found)
    while waiting:
        struct = waiting.pop(0)
        for name, field in struct_fields(struct).items():
            for inner in structs_in(field.type):
                known = inner in found
                several = "[]" if isinstance(field.type, inspect.ListType) else ""
                place = f"{name}{several}"
                if place not in found.setdefault(inner, []):
                    found[inner].append(place)
                if not known:
                    waiting.append(inner)
    return found


AMBIGUOUS = {
    pods.PodSecurityContext: "`securityContext` of `spec`",
    pods.SecurityContext: "`securityContext` of a container",
}


def rows(struct: type) -> Iterator[tuple[str, str, str]]:
    """Fields, what happens with them, and what is to be said about it."""
    muted = fields.WITHOUT_EFFECT.get(struct, {})
    silent = [f"`{name}`" for name in struct_fields(struct) if name not in muted and (struct, name) not in fields.NOTES]
    if silent:
        yield ", ".join(silent), "supported", ""
    for name in struct_fields(struct):
        if name not in muted and (struct, name) in fields.NOTES:
            yield f"`{name}`", "supported", fields.NOTES[struct, name]
    for word, table in (("no effect", muted), ("refused", fields.REFUSED.get(struct, {}))):
        reasons: dict[str, list[str]] = {}
        for name, decided in table.items():
            reasons.setdefault(decided.why, []).append(f"`{name}`")
        for why, names in reasons.items():
            yield ", ".join(names), word, why


def table() -> str:
    """The table in Markdown."""
    lines = ["", "| where | field | | |", "| --- | --- | --- | --- |"]
    for struct, where in places().items():
        shown = AMBIGUOUS.get(struct) or ", ".join(f"`{place}`" for place in where)
        for names, word, note in rows(struct):
            lines.append(f"| {shown} | {names} | {word} | {note} |")
            shown = ""
    return "\n".join([*lines, "", ""])


def page(text: str) -> str:
    """The page with the present table."""
    head, rest = text.split(BEGIN)
    _old, tail = rest.split(END)
    return head + BEGIN + table() + END + tail


def main() -> None:
    """Write or compare."""
    text = PAGE.read_text()
    wanted = page(text)
    if "--check" in sys.argv:
        if text != wanted:
            sys.exit(f"{PAGE.name} does not tell what the API does: run python scripts/capsule_fields.py.")
    else:
        PAGE.write_text(wanted)


if __name__ == "__main__":
    main()
