"""Errors on the wire, in Zun's form. The one place where Askos' errors become HTTP statuses."""

from __future__ import annotations

from typing import Any

import msgspec

from askos.model import errors


class ApiError(Exception):
    """An answer that is not a success. `code` is the whole code word; "container." for those of the framework."""

    def __init__(
        self,
        status: int,
        title: str,
        *,
        detail: str | None = None,
        code: str = "container.",
        extra: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.detail = title if detail is None else detail
        self.code = code
        self.extra = extra or {}
        self.headers = headers or {}

    def body(self, request_id: str) -> bytes:
        """The JSON body. A 401 has Keystone middleware's form."""
        if self.status == 401:
            return msgspec.json.encode({"error": {"code": 401, "title": "Unauthorized", "message": self.title}})
        error = {
            "request_id": request_id,
            "code": self.code,
            "status": self.status,
            "title": self.title,
            "detail": self.detail,
            "links": [],
            **self.extra,
        }
        return msgspec.json.encode({"errors": [error]})


_STATUSES: list[tuple[type[errors.AskosError], int]] = [
    (errors.InvalidError, 400),
    (errors.UnauthorizedError, 401),
    (errors.ForbiddenError, 403),
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (errors.UnavailableError, 503),
]


def from_askos(error: errors.AskosError) -> ApiError:
    """The answer for one of our errors."""
    for cls, status in _STATUSES:
        if isinstance(error, cls):
            return ApiError(status, error.message, code=f"container.{error.code}")
    if isinstance(error, errors.RuntimeFailedError):
        # The runtime refused: not the caller's grammar, not our crash. Zun's engine errors are conflicts, too.
        return ApiError(409, error.message, code="container.conflict")
    return ApiError(500, "Internal Server Error", detail=error.message)


def invalid_field(field: str, value: object, why: str) -> ApiError:
    """A body field that does not fit."""
    shown = str(value)
    if len(shown) > 200:
        shown = shown[:200] + "..."
    title = f"Invalid input for field '{field}'.Value: '{shown}'. {why}"
    return ApiError(400, title, code="container.schema-validation-error")


def invalid_query(name: str, value: object, why: str) -> ApiError:
    """A query parameter that does not fit."""
    title = f"Invalid input for query parameters '{name}'. Value: '{value}'. {why}"
    return ApiError(400, title, code="container.schema-validation-error")


def invalid_value(why: str) -> ApiError:
    """A value that the schema cannot refuse."""
    return ApiError(400, why, code="container.invalid-value")
