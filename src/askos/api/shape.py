"""Holds JSON against the structs that it is to become, and says everything that does not fit, at once.

Where something is wrong, a neutral value takes its place, so that the checks behind this one can go on; they are not
heard about places that are known to be wrong already.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from askos.api import fields, policy
from askos.api.errors import ApiError
from askos.model.identity import Caller

SHOWN = 100
"""How many problems an answer spells out."""
_MOST = 1000
"""After how many problems reading stops: a body that is nothing but mistakes must not take seconds."""
_LONGEST_LIST = 10_000
_GUESSES = 30
"""For how many unknown names a likely one is looked for: it takes a while, and names are free."""


def clip(value: object, limit: int = 60) -> str:
    """A value as JSON for a message, not too long."""
    text = json.dumps(value, ensure_ascii=True, default=str) if not isinstance(value, bytes) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


class Problems:
    """What is wrong with a manifest, and what is accepted without effect."""

    def __init__(self, what: str = "manifest") -> None:
        self._what = what
        self._found: dict[tuple[str, str], None] = {}
        self._wrong: set[str] = set()
        self._forbidden: dict[str, str] = {}
        self._muted: dict[tuple[type, str], list[str]] = {}
        self._shaping = True
        self.guesses = _GUESSES

    def add(self, path: str, why: str) -> None:
        """A problem at a path such as "spec.containers[1].image"."""
        if self._known(path):
            return
        if self._shaping:
            self._wrong.add(path)
        self._found[path, why] = None
        if len(self._found) >= _MOST:
            self.raise_any()

    def add_choice(self, path: str, why: str) -> None:
        """A problem with what is given at a path, unless one of its parts was wrong or refused: that says it all."""
        if not any(wrong.startswith(f"{path}.") for wrong in self._wrong):
            self.add(path, why)

    def forbid(self, caller: Caller, path: str, rule: str, why: str) -> None:
        """A problem if policy does not allow the caller this."""
        if not policy.allows(caller, rule) and not self._known(path):
            self._forbidden.setdefault(path, f"{why}; the policy {rule} does not allow it")

    def mute(self, struct: type, name: str, path: str) -> None:
        """A field without effect."""
        self._muted.setdefault((struct, name), []).append(path)

    def silence(self, path: str) -> None:
        """Nothing more about this place: what is wrong with it has been said elsewhere."""
        self._wrong.add(path)

    def shaped(self) -> None:
        """The types are checked; from here on, what is inside of a wrong place is not heard any more."""
        self._shaping = False

    def _known(self, path: str) -> bool:
        if not self._wrong:
            return False
        if path in self._wrong or "" in self._wrong:
            return True
        return any(path[i] in ".[" and path[:i] in self._wrong for i in range(1, len(path)))

    def unknown(self, path: str, name: str, known: list[str]) -> None:
        """A name that is no field."""
        guess: list[str] = []
        if self.guesses:
            self.guesses -= 1
            by_case = [k for k in known if k.lower() == name.lower()]
            guess = by_case or difflib.get_close_matches(name[:64], known, 1, 0.75)
        shown = name if len(name) <= 64 and name.isprintable() else clip(name)
        hint = f"; did you mean {guess[0]}?" if guess else ""
        self.add(join(path, shown), f"there is no such field{hint}")

    def warnings(self) -> list[str]:
        """One sentence a field, however often it is used."""
        lines = []
        for (struct, name), paths in self._muted.items():
            more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
            lines.append(f"{paths[0]}{more} has no effect: {fields.WITHOUT_EFFECT[struct][name].why}")
        return lines

    def lines(self) -> list[str]:
        """What was found, in order: "path: why" each."""
        found = [f"{path}: {why}" if path else why for path, why in self._found]
        return found + [f"{path}: {why}" for path, why in self._forbidden.items()]

    def raise_any(self) -> None:
        """ApiError with all of them: 403 when nothing but policy is against it, else 400."""
        lines = self.lines()
        if not lines:
            return
        shown = lines[:SHOWN] + ([f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])
        title = f"Cannot use this {self._what}: {lines[0]}"
        if len(lines) > 1:
            many = f"{len(lines)} or more" if len(lines) >= _MOST else str(len(lines))
            title = f"Cannot use this {self._what}: {many} fields are wrong, not supported or not allowed; see detail."
        if self._found:
            raise ApiError(400, title, detail="\n".join(shown), code="container.schema-validation-error")
        raise ApiError(403, title, detail="\n".join(shown), code="container.policy-not-authorized")


def join(path: str, name: str) -> str:
    """The path of a field."""
    return f"{path}.{name}" if path else name


@cache
def struct_fields(struct: type) -> dict[str, inspect.Field]:
    """The fields of a struct by their names in JSON."""
    found = inspect.type_info(struct)
    assert isinstance(found, inspect.StructType)
    return {field.encode_name: field for field in found.fields}


def is_empty(value: object) -> bool:
    """What says nothing: null, false, "", 0, [], {} and objects of such."""
    if isinstance(value, dict):
        return all(is_empty(inner) for inner in value.values())
    return not value


def shape(struct: type, value: object, path: str, problems: Problems) -> dict[str, Any]:
    """`value` as JSON that surely becomes a `struct`: nulls and what has no effect are left out, wrong values are
    replaced; `problems` has what was wrong."""
    if not isinstance(value, dict):
        problems.add(path, f"it must be an object, not {_kind(value)}")
        return _blank_struct(struct)
    known = struct_fields(struct)
    refused = fields.REFUSED.get(struct, {})
    muted = fields.WITHOUT_EFFECT.get(struct, {})
    kept: dict[str, Any] = {}
    for name, inner in value.items():
        if inner is None and (name in known or name in refused or name in muted):
            continue
        if name in muted and not is_empty(inner) and inner not in muted[name].silent:
            problems.mute(struct, name, join(path, name))
        if name in known:
            found = _field(struct, known[name], inner, join(path, name), problems)
            if found is not msgspec.UNSET:
                kept[name] = found
        elif name in refused:
            harmless = refused[name].empty_passes and is_empty(inner)
            if not harmless and inner not in refused[name].passes:
                problems.add(join(path, name), f"not supported: {refused[name].why}")
        elif name not in muted:
            problems.unknown(path, str(name), [*known, *refused, *muted])
    for name, field in known.items():
        if field.required and name not in kept:
            if value.get(name) is None:
                problems.add(join(path, name), "it is required")
            kept[name] = _blank(field.type)
    return kept


def _field(struct: type, field: inspect.Field, value: Any, path: str, problems: Problems) -> Any:
    name = field.encode_name
    if (struct, name) in fields.ZERO_IS_DEFAULT and value in (0, "0") and value is not False:
        return msgspec.UNSET
    if value == "" and isinstance(value, str) and not field.required and _is_texts(field.type):
        # As in Kubernetes, an empty string is the same as none: the default holds.
        return msgspec.UNSET
    if (struct, name) in fields.QUANTITIES:
        value = _quantities(value)
    return _value(field.type, value, path, problems, fields.REFUSED_VALUES.get((struct, name), ""))


def _is_texts(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.UnionType):
        return any(_is_texts(inner) for inner in kind.types) and not any(
            isinstance(inner, inspect.IntType) for inner in kind.types
        )
    return isinstance(kind, inspect.StrType | inspect.LiteralType)


def _quantities(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _quantities(inner) for name, inner in value.items()}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _value(kind: inspect.Type, value: Any, path: str, problems: Problems, why: str = "") -> Any:
    match kind:
        case inspect.StructType():
            return shape(kind.cls, value, path, problems)
        case inspect.UnionType():
            return _one_of(kind, value, path, problems, why)
        case inspect.ListType():
            if not isinstance(value, list):
                return _wrong(kind, value, path, problems, "a list")
            if len(value) > _LONGEST_LIST:
                problems.add(path, f"it has {len(value)} entries; at most {_LONGEST_LIST} are allowed")
                return []
            return [_value(kind.item_type, inner, f"{path}[{i}]", problems) for i, inner in enumerate(value)]
        case inspect.DictType():
            if not isinstance(value, dict):
                return _wrong(kind, value, path, problems, "an object")
            if len(value) > _LONGEST_LIST:
                problems.add(path, f"it has {len(value)} entries; at most {_LONGEST_LIST} are allowed")
                return {}
            return _entries(kind, value, path, problems)
        case inspect.LiteralType():
            if not isinstance(value, str) or value not in kind.values:
                accepted = " or ".join(clip(v) for v in sorted(map(str, kind.values)))
                because = f" ({why})" if why else ""
                problems.add(path, f"{clip(value)} is not supported here; it can be {accepted}{because}")
                return _blank(kind)
            return value
        case inspect.BoolType():
            return value if isinstance(value, bool) else _wrong(kind, value, path, problems, "true or false")
        case inspect.IntType():
            if isinstance(value, bool) or not isinstance(value, int):
                return _wrong(kind, value, path, problems, "a whole number")
            if not -(2**63) <= value < 2**63:
                problems.add(path, "the number does not fit into 64 bits")
                return 0
            return value
        case inspect.BytesType():
            return _base64(value, path, problems)
        case inspect.AnyType():
            return value
        case _:
            return _text(value, path, problems)


def _one_of(kind: inspect.UnionType, value: Any, path: str, problems: Problems, why: str) -> Any:
    kinds = [inner for inner in kind.types if not isinstance(inner, inspect.NoneType)]
    if len(kinds) == 1:
        return _value(kinds[0], value, path, problems, why)
    # The only other unions are of numbers and strings.
    if isinstance(value, str):
        return _text(value, path, problems)
    if isinstance(value, int) and not isinstance(value, bool):
        return _value(next(k for k in kinds if isinstance(k, inspect.IntType)), value, path, problems)
    problems.add(path, f"it must be a whole number or a string, not {_kind(value)}")
    return ""


def _entries(kind: inspect.DictType, value: dict[Any, Any], path: str, problems: Problems) -> dict[str, Any]:
    kept = {}
    for name, inner in value.items():
        shown = clip(name)
        if not isinstance(name, str) or not is_clean(name):
            problems.add(f"{path}[{shown}]", "the name is not clean text")
        elif inner is None:
            problems.add(f"{path}[{shown}]", "it has no value")
        else:
            kept[name] = _value(kind.value_type, inner, f"{path}[{shown}]", problems)
    return kept


def is_clean(text: str) -> bool:
    """Whether a text can be stored and sent: no NUL, no half of a surrogate pair."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _text(value: Any, path: str, problems: Problems) -> str:
    if not isinstance(value, str):
        why = f"it must be a string, not {_kind(value)}"
        if isinstance(value, bool | int | float):
            why += f": put {value if not isinstance(value, bool) else str(value).lower()} into quotes"
        problems.add(path, why)
        return ""
    if not is_clean(value):
        problems.add(path, "it holds a character that no text may hold (NUL or half of a surrogate pair)")
        return ""
    return value


def _base64(value: Any, path: str, problems: Problems) -> str:
    if isinstance(value, str):
        try:
            # Kubernetes' own output may be folded into lines.
            joined = "".join(value.split())
            base64.b64decode(joined, validate=True)
        except (binascii.Error, ValueError):
            problems.add(path, "it must be base64; in a secret, plain text goes into stringData")
            return ""
        return joined
    problems.add(path, f"it must be a string of base64, not {_kind(value)}")
    return ""


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return "a string" if isinstance(value, str) else f"the number {clip(value)}"


def _wrong(kind: inspect.Type, value: object, path: str, problems: Problems, wanted: str) -> Any:
    problems.add(path, f"it must be {wanted}, not {_kind(value)}")
    return _blank(kind)


def _blank(kind: inspect.Type) -> Any:
    match kind:
        case inspect.StructType():
            return _blank_struct(kind.cls)
        case inspect.UnionType():
            return None if any(isinstance(k, inspect.NoneType) for k in kind.types) else 0
        case inspect.ListType():
            return []
        case inspect.DictType():
            return {}
        case inspect.LiteralType():
            return min(map(str, kind.values))
        case inspect.BoolType():
            return False
        case inspect.IntType():
            return 0
        case _:
            return ""


def _blank_struct(struct: type) -> dict[str, Any]:
    return {name: _blank(field.type) for name, field in struct_fields(struct).items() if field.required}
