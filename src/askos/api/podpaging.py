"""Continue tokens of lists of capsules: which revision a list is of, and how far it has come."""

from __future__ import annotations

import base64
import binascii

from askos.api.errors import invalid_query


def token_of(revision: int, after: int) -> str:
    """What a list gives as metadata.continue: its revision, and the last number of the page."""
    return base64.urlsafe_b64encode(f"{revision}.{after}".encode()).decode().rstrip("=")


def read(token: str) -> tuple[int, int]:
    """Revision and last number of the page before; zeros at the begin. ApiError 400."""
    if not token:
        return 0, 0
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode("ascii")
        revision, _, after = text.partition(".")
        if not (revision.isdigit() and after.isdigit() and len(text) < 40):
            raise ValueError
        return int(revision), int(after)
    except (ValueError, binascii.Error):
        raise invalid_query("continue", token, "it is not what a list has given as metadata.continue") from None
