"""What can go wrong, named for what the caller can do about it.

Messages are for people: what could not be done, to what, why, and what to do next. `code` is the stable
kebab-case word that the API puts behind "container." in its error body.
"""

from __future__ import annotations


class AskosError(Exception):
    """Root of every error that Askos raises on purpose."""

    code = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidError(AskosError):
    """The request itself is wrong: the caller must change it (HTTP 400)."""

    code = "invalid"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class NotFoundError(AskosError):
    """The named thing does not exist, or not for this caller (HTTP 404)."""

    code = "not-found"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ConflictError(AskosError):
    """The request does not fit the state of things now (HTTP 409)."""

    code = "conflict"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ForbiddenError(AskosError):
    """Policy or quota says no (HTTP 403)."""

    code = "policy-not-authorized"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class UnauthorizedError(AskosError):
    """No valid token, or wrong credentials (HTTP 401)."""

    code = "unauthorized"


class UnavailableError(AskosError):
    """Something needed does not answer now; trying again later may help (HTTP 503)."""

    code = "unavailable"


class StorageFullError(UnavailableError):
    """There is no room for what was sent (HTTP 413 where a body is too large for it)."""

    code = "storage-full"


class RuntimeFailedError(AskosError):
    """The container runtime refused or failed. `retryable` tells whether the same call may succeed later."""

    code = "runtime-failed"

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class SetupError(AskosError):
    """The program cannot start as configured; the message is one line that says what to do."""

    code = "setup"
