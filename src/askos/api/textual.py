"""JSON or YAML in a string, read so that no text can cost more than its size allows."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

_DEEPEST = 50
_MOST_NODES = 20_000
"""Values of a document with all its aliases written out. A megabyte of JSON in clothes has fewer."""


class UnreadableError(ValueError):
    """Why a text cannot be read."""


class _Loader(yaml.CSafeLoader):
    """JSON's types only: what looks like a date stays text. The one in C, as this is done between other requests."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge", ":value"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(text: str) -> Any:
    """The value that a text of JSON, or of one YAML document, describes. Raises UnreadableError."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        pass
    except RecursionError:
        raise UnreadableError("it is nested too deeply") from None
    try:
        _check_depth(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node, {}, set())
            return _plain(loader.construct_document(node))
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise UnreadableError(f"it is neither JSON nor YAML: {_short(error)}") from None
    except UnreadableError:
        raise
    except (ValueError, OverflowError, RecursionError) as error:
        raise UnreadableError(f"it is neither JSON nor YAML: {str(error)[:200]}") from None


def _check_depth(text: str) -> None:
    """Before anything is built: the scanner does not recurse, what follows does."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise UnreadableError(f"it is nested more than {_DEEPEST} deep")
        if count > _MOST_NODES:
            raise UnreadableError(f"it has more than {_MOST_NODES} values")


def _count(node: yaml.Node, known: dict[int, int], open_: set[int]) -> int:
    """How many values a node stands for when its aliases are written out; a small text can stand for billions."""
    if id(node) in known:
        return known[id(node)]
    if id(node) in open_:
        raise UnreadableError("it contains itself")
    open_.add(id(node))
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_count(inner, known, open_) for inner in node.value)
    elif isinstance(node, yaml.MappingNode):
        total += sum(_count(key, known, open_) + _count(value, known, open_) for key, value in node.value)
    if total > _MOST_NODES:
        raise UnreadableError(f"it has more than {_MOST_NODES} values when its aliases are written out")
    open_.discard(id(node))
    known[id(node)] = total
    return total


def _plain(value: Any) -> Any:
    """JSON's types, or UnreadableError."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise UnreadableError(f"the key {str(key)[:60]!r} must be a string: put it into quotes")
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise UnreadableError(f"a value of YAML's type {type(value).__name__} means nothing here")


def _short(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())[:200]
