"""Microversions of the Zun API: one header, 1.1 to 1.40.

The boundaries that clients observe (a 406 below or above) stand beside the routes in `table.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from askos.api.errors import ApiError


class Version(NamedTuple):
    """A microversion; compares like a pair of numbers."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


MIN = Version(1, 1)
MAX = Version(1, 40)
HEADER = "OpenStack-API-Version"


def negotiate(header: str | None) -> Version:
    """The version to answer with. Raises a 406 for what cannot be served."""
    if header is None:
        return MIN
    for element in header.split(","):
        service, _, version = element.strip().partition(" ")
        if service == "container":
            return _parse(version.strip())
    raise _unusable(header, "Invalid service type for OpenStack-API-Version header")


def _parse(text: str) -> Version:
    if text == "latest":
        return MAX
    major, dot, minor = text.partition(".")
    if not (dot and major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        raise _unusable(f"container {text}", "Invalid value for OpenStack-API-Version header")
    version = Version(int(major[:9]), int(minor[:9]))
    if not MIN <= version <= MAX:
        raise ApiError(
            406,
            f"Version {text} is not supported by the API. Minimum is {MIN} and maximum is {MAX}.",
            code="zun.microversion-unsupported",
            extra={"max_version": str(MAX), "min_version": str(MIN)},
        )
    return version


def _unusable(asked: str, detail: str) -> ApiError:
    """A header that names no version. Clients show the title; the detail is Zun's."""
    shown = asked if len(asked) <= 100 else asked[:100] + "..."
    return ApiError(
        406,
        f"Not Acceptable: the header {HEADER} is {shown!r}. Send 'container VERSION' with a version from {MIN} to "
        f"{MAX}, or 'container latest'.",
        detail=detail,
    )


def elsewhere(version: Version, what: str, since: Version, until: Version) -> ApiError:
    """The 406 for what is there at other versions than the one that was asked for. `what`: method and path."""
    last = min(until, MAX)
    served = f"at version {since}" if since == last else f"at versions {since} to {last}"
    return ApiError(
        406,
        f"Not Acceptable: {what} is served {served}, and {version} was asked for. Set the header {HEADER}, or the "
        "client's option for the API version, to one of those.",
        detail=f"Version {version} was requested but the requested API is not supported for this version.",
    )


def headers(version: Version) -> dict[str, str]:
    """The headers of every answer below /v1."""
    return {
        HEADER: f"container {version}",
        "OpenStack-API-Minimum-Version": f"container {MIN}",
        "OpenStack-API-Maximum-Version": f"container {MAX}",
        "vary": HEADER,
    }
