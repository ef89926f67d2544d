"""Shapes: JSON with types in place of values.

`"str"`, `"int"`, `"float"`, `"bool"`, null; `"=word"` this very word; `"{name}"` a string that stands for something,
the same one wherever the name comes; `[shape, …]` a list whose elements each have one of the shapes; `{"*": [shape, …]}`
an object whose keys are data; any other object has exactly these keys.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

_NAME = re.compile(r"^\{[\w.#:-]+\}$")
Types = dict[str, set[str]]
"""For each key, the types that its values were seen with anywhere."""


def is_name(shape: Any) -> bool:
    return isinstance(shape, str) and _NAME.match(shape) is not None


def type_of(value: Any) -> str:
    """The word for a value, or for a shape."""
    if value is None:
        return "null"
    return {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict"}[type(value)]


def _word(shape: Any) -> str:
    if isinstance(shape, str):
        return "str" if shape.startswith(("=", "{")) else shape
    return type_of(shape)


def gather(shape: Any, types: Types, key: str = "") -> None:
    """Add the types in a shape to those seen."""
    types[key].add(_word(shape))
    if isinstance(shape, list):
        for each in shape:
            gather(each, types, f"{key}[]")
    elif isinstance(shape, dict):
        for name, each in shape.items():
            for one in each if name == "*" else [each]:
                gather(one, types, f"{key}{{}}" if name == "*" else name)


def new_types() -> Types:
    return defaultdict(set)


def differences(
    shape: Any, value: Any, types: Types, names: dict[str, str], where: str = "", key: str = ""
) -> list[str]:
    """How `value` differs from the shape, in words; nothing when it does not. `names` learns what names stand for."""
    if _word(shape) != type_of(value):
        # Null or not is a matter of the moment; a type that this key never has is not.
        if (shape is None or value is None) and type_of(value) in types[key]:
            return []
        return [f"{where or 'body'} is {type_of(value)}, not {_word(shape)}"]
    if isinstance(shape, dict):
        return _in_object(shape, value, types, names, where)
    if isinstance(shape, list):
        return _in_list(shape, value, types, names, where, key)
    if isinstance(shape, str) and shape.startswith("=") and value != shape[1:]:
        return [f"{where} is {value!r}, not {shape[1:]!r}"]
    if is_name(shape) and names.setdefault(shape, value) != value:
        return [f"{where} is {value!r}, but {shape} was {names[shape]!r}"]
    return []


def _in_object(
    shape: dict[str, Any], value: dict[str, Any], types: Types, names: dict[str, str], where: str
) -> list[str]:
    if "*" in shape:
        found = []
        for name, each in value.items():
            found += _one_of(shape["*"], each, types, names, f"{where}.{name}", f"{where.rpartition('.')[2]}{{}}")
        return found
    found = [f"{where}.{name} is missing" for name in shape if name not in value]
    found += [f"{where}.{name} is too much" for name in value if name not in shape]
    for name in shape.keys() & value.keys():
        found += differences(shape[name], value[name], types, names, f"{where}.{name}", name)
    return found


def _in_list(
    shape: list[Any], value: list[Any], types: Types, names: dict[str, str], where: str, key: str
) -> list[str]:
    found = []
    for index, each in enumerate(value):
        found += _one_of(shape, each, types, names, f"{where}[{index}]", f"{key}[]")
    if shape and not value:
        found.append(f"{where} is empty")
    return found


def _one_of(shapes: list[Any], value: Any, types: Types, names: dict[str, str], where: str, key: str) -> list[str]:
    if not shapes:
        # Nothing was there to see: what it looks like is seen elsewhere.
        return []
    tried = []
    for shape in shapes:
        # Which element is which is not known: names in a list are learned when nothing else told them, never checked.
        learned: dict[str, str] = {}
        if not (problems := differences(shape, value, types, learned, where, key)):
            for name, one in learned.items():
                names.setdefault(name, one)
            return []
        tried.append(problems)
    return min(tried, key=len)
