"""What can go wrong between a client and a cloud.

Cheap to import on purpose: every command of the CLI loads this. The messages are made for people; the CLI
prints them after "askos: " on one line.
"""

from __future__ import annotations

import json
from typing import Any

from askos.model.errors import AskosError


class ClientError(AskosError):
    """Something on the client's side is wrong: no credentials, an unreadable file, an unknown cloud."""

    code = "client"


class NoAnswerError(ClientError):
    """Nobody answers at `base` (scheme, host and port). `reason` is the operating system's word for it."""

    code = "no-answer"

    def __init__(self, base: str, reason: str) -> None:
        super().__init__(
            f"no Askos answers at {base}: {reason}. "
            "Start one with `askos up -d` (as root), or point OS_AUTH_URL at another"
        )
        self.base = base
        self.reason = reason


class ConnectionBrokenError(ClientError):
    """The server went away in the middle of an answer."""

    code = "connection-broken"


class LoginError(ClientError):
    """The identity service refused the credentials."""

    code = "login"


class ApiError(ClientError):
    """The API answered with an error. `status` is HTTP's, `kind` the word behind "container." in the body, `details`
    what the body says beyond the message (several lines, or empty)."""

    def __init__(self, status: int, message: str, kind: str = "", details: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.details = details

    @property
    def no_such_route(self) -> bool:
        """Whether the server does not know the path or verb at all (as opposed to the object in it)."""
        return self.status in {404, 405, 501} and not self.kind


def api_error(status: int, reason: str, body: bytes) -> ApiError:
    """The error in an answer's body, in any of the shapes that Zun, Keystone and proxies use."""
    try:
        document = json.loads(body)
    except ValueError:
        text = body.decode("utf-8", "replace").strip()
        short = text.splitlines()[0][:200] if text and not text.startswith("<") else reason
        return ApiError(status, f"HTTP {status}: {short or 'no reason given'}")
    message, kind = _message(document)
    return ApiError(status, one_line(message) or f"HTTP {status} {reason}", kind, _details(document, message))


def _details(document: Any, message: str) -> str:
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list) or not errors or not isinstance(errors[0], dict):
        return ""
    detail = str(errors[0].get("detail") or "")
    return "" if detail == message else detail


def _message(document: Any) -> tuple[str, str]:
    """Message and kind. A 500's title says nothing, so its detail is taken."""
    if not isinstance(document, dict):
        return str(document), ""
    errors = document.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        first = errors[0]
        title, detail = str(first.get("title") or ""), str(first.get("detail") or "")
        kind = str(first.get("code") or "").rpartition(".")[2]
        return (detail if not title or title == "Internal Server Error" else title) or title, kind
    neutron = document.get("NeutronError")
    if isinstance(neutron, dict):
        kind = str(neutron.get("type") or "")
        return str(neutron.get("message") or ""), "" if kind == "HTTPNotFound" else kind
    error = document.get("error")
    if isinstance(error, dict):
        return str(error.get("message") or error.get("title") or ""), ""
    return str(document.get("message") or error or ""), ""


def one_line(text: str) -> str:
    """Text on one line and without a full stop at its end, to be put in a sentence."""
    return " ".join(text.split()).rstrip(".")
