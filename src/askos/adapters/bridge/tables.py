"""A table of packet rules as a value, and what makes one out of another. Pure text for nft.

A table is a skeleton (base chains, sets and maps, further chains) and the contents of its sets. Names of further chains
and of sets follow from what is in them, so two of one name are the same. So nearly every change adds chains or changes
elements, and only a new base needs the table to be replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

_SURPLUS = 200
"""So many chains and sets that nobody needs any more are too many: the table is made anew without them."""


class Table(msgspec.Struct, frozen=True):
    """One table of the inet family. `base`: its base chains, as text. `sets`: name to declaration without name and
    elements, such as "set { type ipv4_addr; }". `chains`: name to body. `contents`: of each set, key to value (maps)
    or to ""."""

    name: str
    base: str
    sets: dict[str, str] = {}
    chains: dict[str, str] = {}
    contents: dict[str, dict[str, str]] = {}


def replacement(table: Table) -> str:
    """The transaction that makes the table what it has to be, whatever it was before: one atomic step for packets."""
    # First added, so that deleting cannot fail.
    return (
        f"table inet {table.name} {{}}\ndelete table inet {table.name}\n"
        f"table inet {table.name} {{\n{_skeleton(table.sets, table.chains)}\n{table.base}\n}}\n"
        + "".join(_elements("add", table.name, name, held) for name, held in sorted(table.contents.items()))
    )


def change(before: Table, wanted: Table) -> str | None:
    """The transaction that makes `wanted` out of `before`, "" when nothing is to do; None when the table must be
    replaced."""
    if before.name != wanted.name or before.base != wanted.base:
        return None
    surplus = len(before.sets.keys() - wanted.sets.keys()) + len(before.chains.keys() - wanted.chains.keys())
    if surplus > _SURPLUS:
        return None
    new_sets = {name: kind for name, kind in wanted.sets.items() if name not in before.sets}
    new_chains = {name: body for name, body in wanted.chains.items() if name not in before.chains}
    if any(before.sets[name] != kind for name, kind in wanted.sets.items() if name in before.sets):
        return None
    if any(before.chains[name] != body for name, body in wanted.chains.items() if name in before.chains):
        return None
    text = []
    if new_sets or new_chains:
        text.append(f"table inet {wanted.name} {{\n{_skeleton(new_sets, new_chains)}\n}}\n")
    for name in sorted(wanted.sets):
        had, has = before.contents.get(name, {}), wanted.contents.get(name, {})
        if had == has:
            continue
        text.append(_elements("delete", wanted.name, name, {k: v for k, v in had.items() if has.get(k) != v}))
        text.append(_elements("add", wanted.name, name, {k: v for k, v in has.items() if had.get(k) != v}))
    return "".join(text)


def changed(before: Table, wanted: Table) -> Table:
    """What stands after `change`: chains and sets that nobody needs any more are still there."""
    return Table(
        wanted.name,
        wanted.base,
        {**before.sets, **wanted.sets},
        {**before.chains, **wanted.chains},
        {**before.contents, **{name: wanted.contents.get(name, {}) for name in wanted.sets}},
    )


def _skeleton(sets: Mapping[str, str], chains: Mapping[str, str]) -> str:
    lines = []
    for name, kind in sorted(sets.items()):
        what, _, rest = kind.partition(" ")
        lines.append(f"{what} {name} {rest}")
    lines += [f"chain {name} {{\n{body}\n}}" for name, body in sorted(chains.items())]
    return "\n".join(lines)


def _elements(verb: str, table: str, name: str, held: Mapping[str, str]) -> str:
    if not held:
        return ""
    items: Iterable[str] = (f"{key} : {value}" if value else key for key, value in sorted(held.items()))
    return f"{verb} element inet {table} {name} {{ {', '.join(items)} }}\n"
