"""Parsers of single settings: from what a file, a variable or a flag says to a value of the right type.

Each raises ValueError with words that complete the sentence "it ...": "must be a number from 1 to 65535".
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import Any

Parser = Callable[[Any], Any]


def text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text that is not empty")
    return value.strip()


def path(value: Any) -> Path:
    """An absolute path."""
    found = value if isinstance(value, Path) else Path(text(value))
    if not found.is_absolute():
        raise ValueError("must be an absolute path")
    if "\0" in str(found):
        raise ValueError("must not contain a zero byte")
    return found


def within(low: float, high: float, kind: type[int] | type[float]) -> Parser:
    """A number from `low` to `high`, which belong to the range."""
    must = f"must be {'a whole number' if kind is int else 'a number'} from {low:.15g} to {high:.15g}"

    def parse(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(must)
        if kind is int and isinstance(value, float):
            raise ValueError(must)
        try:
            number = kind(value)
        except ValueError:
            raise ValueError(must) from None
        if not math.isfinite(number) or not low <= number <= high:
            raise ValueError(must)
        return number

    return parse


def address(value: Any) -> str:
    """An IP address to listen on."""
    name = text(value)
    if name == "localhost":
        return "127.0.0.1"
    try:
        return str(ip_address(name))
    except ValueError:
        raise ValueError("must be an IP address, such as 127.0.0.1 or 0.0.0.0") from None


def url(value: Any) -> str:
    """An HTTP address without the last slash."""
    found = text(value).rstrip("/")
    scheme, _, rest = found.partition("://")
    if scheme not in {"http", "https"} or not rest.partition("/")[0]:
        raise ValueError("must be a URL, such as https://cloud.example.org:9517")
    return found


def pool(value: Any) -> str:
    """An IPv4 range with room for at least one network of containers."""
    try:
        found = IPv4Network(text(value))
    except ValueError:
        raise ValueError("must be an IPv4 network, such as 10.64.0.0/12") from None
    if found.prefixlen > 22:
        raise ValueError("must have room for a network of 1,022 addresses: a /22 or larger")
    return str(found)


def outside(value: Any) -> str:
    """An IPv4 range for floating or transit addresses."""
    try:
        found = IPv4Network(text(value))
    except ValueError:
        raise ValueError("must be an IPv4 network, such as 172.24.4.0/24") from None
    if not 8 <= found.prefixlen <= 29:
        raise ValueError("must be a network between a /8 and a /29")
    return str(found)


def key(value: Any) -> str:
    """A secret key: 32 bytes in base64. What is wrong is said without showing it."""
    must = "must be 32 bytes in base64, such as `openssl rand -base64 32` prints"
    try:
        found = base64.b64decode(text(value), validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(must) from None
    if len(found) != 32:
        raise ValueError(must)
    return text(value)


_LONGEST_LABEL = 255
_MOST_LABELS = 64


def labels(value: Any) -> tuple[tuple[str, str], ...]:
    """Labels, in the order of their keys: a table, "key=value,key=value", or several such texts."""
    must = "must be labels such as rack=a,disk=ssd, each key once"
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not all(isinstance(each, str) for each in texts):
            raise ValueError(must)
        split = [each.partition("=") for every in texts for each in every.split(",") if each.strip()]
        if not all(equals for _, equals, _ in split):
            raise ValueError(must)
        pairs = [(key.strip(), word.strip()) for key, _, word in split]
    for key, word in pairs:
        if not isinstance(word, str) or not all(
            len(each) <= _LONGEST_LABEL and each.isprintable() for each in (key, word)
        ):
            raise ValueError(f"must be labels whose keys and values are texts of at most {_LONGEST_LABEL} characters")
        if not key or "=" in key:
            raise ValueError(must)
    if len(dict(pairs)) != len(pairs):
        raise ValueError(must)
    if len(pairs) > _MOST_LABELS:
        raise ValueError(f"must be at most {_MOST_LABELS} labels")
    return tuple(sorted(pairs))


def one_of(*words: str) -> Parser:
    """One of a few words."""

    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return str(value)

    return parse
