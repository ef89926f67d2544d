"""Kubernetes' label selectors: `app=web,tier!=cache,env in (a, b),!canary`."""

from __future__ import annotations

import re

from askos.api import syntax
from askos.api.errors import invalid_query
from askos.api.shape import clip
from askos.ports.store import Requirement

PARAMETER = "labelSelector"
_TERM = re.compile(
    r"\s*(?:"
    r"(?P<missing>!)\s*(?P<absent>[^\s,=!()]+)"
    r"|(?P<key>[^\s,=!()]+)\s*(?:"
    r"(?P<equality>==?|!=)\s*(?P<value>[^\s,=!()]*)"
    r"|(?<=\s)(?P<word>in|notin)\s*\((?P<values>[^()]*)\)"
    r")?"
    r")\s*(?:,|$)"
)
_MOST = 100


def parse(text: str) -> list[Requirement]:
    """The terms of a selector; all must hold. Raises an ApiError 400 that names the text which cannot be read."""
    terms: list[Requirement] = []
    at = 0
    while text[at:].strip():
        found = _TERM.match(text, at)
        if found is None:
            raise _wrong(text, f"cannot read {clip(text[at:].strip())}")
        terms.append(_term(found, text))
        at = found.end()
        if text[found.end() - 1 : found.end()] == "," and not text[at:].strip():
            raise _wrong(text, "a term is missing behind the last comma")
    if len(terms) > _MOST:
        raise _wrong(text, f"it has more than {_MOST} terms")
    return terms


def matches(selector: list[Requirement], labels: dict[str, str]) -> bool:
    """Whether all terms hold for an object with these labels."""
    return all(_holds(term, labels) for term in selector)


def _holds(term: Requirement, labels: dict[str, str]) -> bool:
    if term.operator == "exists":
        return term.key in labels
    if term.operator == "missing":
        return term.key not in labels
    return (labels.get(term.key) in term.values) == (term.operator == "in")


def _term(found: re.Match[str], text: str) -> Requirement:
    if found["missing"]:
        return Requirement(_key(found["absent"], text), "missing")
    key = _key(found["key"], text)
    if found["equality"]:
        return Requirement(key, "notin" if found["equality"] == "!=" else "in", [_value(found["value"], text)])
    if found["word"]:
        values = [_value(value.strip(), text) for value in found["values"].split(",")]
        return Requirement(key, "in" if found["word"] == "in" else "notin", values)
    return Requirement(key, "exists")


def _key(key: str, text: str) -> str:
    why = syntax.qualified(key)
    if why:
        raise _wrong(text, f"{clip(key)} is not the key of a label: {why}")
    return key


def _value(value: str, text: str) -> str:
    why = syntax.label_value(value)
    if why:
        raise _wrong(text, f"a value: {why}")
    return value


def _wrong(text: str, why: str) -> Exception:
    return invalid_query(PARAMETER, clip(text, 200), f"{why}. A selector looks like app=web,tier in (a, b),!canary")
