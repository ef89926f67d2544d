"""Reading the fields of a body. What is not known is refused by name; what is known and has only one possible value
here, for any other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from askos.api.neutron.context import bad
from askos.api.service import Json
from askos.model.errors import InvalidError

_MAX_TEXT = 255


class Fields:
    """The fields of one body. Each method takes one; None means that it was not given. `done` refuses the rest."""

    def __init__(self, body: Json) -> None:
        self._left = dict(body)

    def has(self, name: str) -> bool:
        """Whether it was given, be it as null."""
        return name in self._left

    def text(self, name: str, most: int = _MAX_TEXT) -> str | None:
        """A text; null counts as empty."""
        if name not in self._left:
            return None
        value = self._left.pop(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise wrong(name, f"'{value}' is not a valid string.")
        if len(value) > most:
            raise wrong(name, f"'{value[:40]}...' exceeds maximum length of {most}.")
        if any(ord(letter) < 32 and letter not in "\n\r\t" for letter in value):
            raise wrong(name, "it contains control characters.")
        return value

    def ident(self, name: str) -> str | None:
        """An id; None for null, too."""
        value = self._left.pop(name, None)
        if value is not None and (not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT):
            raise wrong(name, f"'{value}' is not a valid UUID.")
        return value

    def required(self, name: str) -> str:
        """An id or text that must be there."""
        if name not in self._left:
            raise bad(f"Failed to parse request. Required attribute '{name}' not specified.")
        value = self.ident(name)
        if value is None:
            raise wrong(name, "'None' is not a valid UUID.")
        return value

    def flag(self, name: str) -> bool | None:
        """True or false, also as words."""
        if name not in self._left:
            return None
        value = self._left.pop(name)
        found = {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())
        if found is None:
            raise wrong(name, f"'{value}' cannot be converted to boolean.")
        return found

    def number(self, name: str, low: int, high: int) -> int | None:
        """A whole number, also as digits; None for null, too."""
        value = self._left.pop(name, None)
        if value is None or value == "":
            return None
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(name, f"'{value}' is not an integer.")
        if not low <= value <= high:
            raise wrong(name, f"'{value}' is not in range [{low}, {high}].")
        return value

    def idents(self, name: str) -> list[str] | None:
        """A list of ids."""
        if name not in self._left:
            return None
        value = self._left.pop(name)
        value = [] if value is None else value
        if not isinstance(value, list) or not all(isinstance(one, str) and 0 < len(one) <= _MAX_TEXT for one in value):
            raise wrong(name, f"'{value}' is not a list of ids.")
        return list(dict.fromkeys(value))

    def objects(self, name: str, keys: Iterable[str]) -> list[dict[str, str]] | None:
        """A list of objects of texts with no other keys than these."""
        if name not in self._left:
            return None
        value = self._left.pop(name)
        value = [] if value is None else value
        known = set(keys)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise wrong(name, f"'{value}' is not a list of objects.")
        for one in value:
            if not one.keys() <= known or not all(isinstance(part, str) for part in one.values()):
                raise wrong(name, f"'{one}' may have {sorted(known)}, as text.")
        return value

    def taken(self, name: str) -> Any:
        """Whatever it is; the caller has asked `has`."""
        return self._left.pop(name)

    def only(self, **allowed: Any) -> None:
        """Fields that can have but one value here, or be null. Colons in their names are written as two underlines."""
        for key, wanted in allowed.items():
            name = key.replace("__", ":")
            if name not in self._left:
                continue
            value = self._left.pop(name)
            same = value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
            if value is not None and not same and str(value).lower() != str(wanted).lower():
                raise wrong(name, f"'{value}' is not supported by this cloud: it can only be {wanted!r}.")

    def done(self) -> None:
        """Refuse what nobody took."""
        if self._left:
            names = ", ".join(f"'{name}'" for name in sorted(self._left))
            raise bad(f"Unrecognized attribute(s) {names}")


def wrong(name: str, why: str) -> InvalidError:
    """A field that does not fit."""
    return bad(f"Invalid input for {name}. Reason: {why}")
