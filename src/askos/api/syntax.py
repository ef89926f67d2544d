"""How names, labels, paths and quantities of a manifest may look: Kubernetes' rules, each as why something is wrong.

Every function returns "" when the text is good, else a reason that reads well behind "path: ".
"""

from __future__ import annotations

import re
from fractions import Fraction
from ipaddress import ip_address

from askos.api.shape import clip
from askos.model.errors import InvalidError
from askos.plan import quantities

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?", re.ASCII)
_PORT = re.compile(r"[a-z0-9](?:[a-z0-9]|-(?!-))*", re.ASCII)
_KEY = re.compile(r"[-._A-Za-z0-9]+", re.ASCII)
_VARIABLE = re.compile(r"[ -<>-~]+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def dns_label(text: str) -> str:
    """A DNS label of at most 63 characters."""
    if len(text) > 63 or not _LABEL.fullmatch(text):
        return f"{clip(text)} is not a DNS label (at most 63 of a-z, 0-9 and - between them)"
    return ""


def subdomain(text: str) -> str:
    """DNS labels with dots between them, at most 253 characters."""
    if len(text) > 253 or not _SUBDOMAIN.fullmatch(text):
        return f"{clip(text)} is not a DNS name (at most 253 of a-z, 0-9, - and . between them)"
    return ""


def qualified(text: str) -> str:
    """The key of a label or annotation: [prefix/]name."""
    prefix, slash, name = text.rpartition("/")
    if slash and subdomain(prefix):
        return "what is before the slash is not a DNS name"
    if len(name) > 63 or not _WORD.fullmatch(name):
        return "the name must be at most 63 letters, digits and - _ . between them"
    return ""


def label_value(text: str) -> str:
    """A label's value."""
    if text and (len(text) > 63 or not _WORD.fullmatch(text)):
        return f"{clip(text)} must be empty, or at most 63 letters, digits and - _ . between them"
    return ""


def port_name(text: str) -> str:
    """The name of a port: at most 15 of a-z, 0-9 and single hyphens, with a letter."""
    if len(text) > 15 or not _PORT.fullmatch(text) or text.endswith("-") or not re.search("[a-z]", text):
        return f"{clip(text)} is not the name of a port (at most 15 of a-z, 0-9 and single -, with a letter)"
    return ""


def config_key(text: str) -> str:
    """A key of a config map or secret."""
    if len(text) > 253 or not _KEY.fullmatch(text) or text in (".", "..") or text.startswith(".."):
        return "a key must be at most 253 letters, digits and - _ . (and not begin with two dots)"
    return ""


def variable(text: str) -> str:
    """The name of an environment variable."""
    if not _VARIABLE.fullmatch(text):
        return f"{clip(text)} cannot be the name of a variable (printable ASCII without =)" if text else "it is empty"
    return ""


def relative(text: str) -> str:
    """A path inside a volume."""
    if text.startswith("/"):
        return f"{clip(text)} must be a relative path"
    if ".." in text.split("/"):
        return f"{clip(text)} must not hold '..'"
    return ""


def file_path(text: str) -> str:
    """Where a key goes within a volume: one file, below its folder."""
    if not text:
        return "it is required"
    if text.startswith(".."):
        return f"{clip(text)} must not begin with '..'"
    if text.endswith("/") or "//" in text or "." in text.split("/"):
        return f"{clip(text)} is not the path of a file"
    return relative(text)


def absolute(text: str) -> str:
    """A path in a container."""
    if not text.startswith("/"):
        return f"{clip(text)} must be an absolute path"
    if ".." in text.split("/"):
        return f"{clip(text)} must not hold '..'"
    return ""


def address(text: str) -> str:
    """An IPv4 or IPv6 address without a zone."""
    try:
        ip_address(text)
    except ValueError:
        return f"{clip(text)} is not an IP address"
    return f"{clip(text)} has a zone, which means nothing here" if "%" in text else ""


def one_line(text: str) -> str:
    """Text without control characters, as in HTTP."""
    return "it holds a control character" if _CONTROL.search(text) else ""


def between(number: int, least: int, most: int) -> str:
    """A number within bounds."""
    return "" if least <= number <= most else f"{number} must be {least} to {most}"


def quantity(text: str) -> tuple[Fraction | None, str]:
    """The value of a quantity that is not negative, or why it is none."""
    try:
        value = quantities.parse(text)
    except InvalidError as error:
        return None, error.message
    return (None, f"{clip(text)} must not be negative") if value < 0 else (value, "")
