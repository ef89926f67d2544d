"""Where Askos answers differently from what Zun answered, call by call, and why: `docs/zun-differences.md` for readers.

A call is "conversation: name". What differs is told by the words that the comparison uses, as a pattern that fits the
whole of each; a difference of a call that is not here is a failure, and so is an entry that has no difference any more.
"""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """Differences of the calls whose "conversation: name" fits the pattern `calls`. `what` fits each difference."""

    calls: str
    what: str
    why: str


NOT_SAID: dict[str, str] = {
    "containers-lifecycle: wrong state: (force )?delete .*of a Paused .*|.*wrong state: .*delete a Paused container.*":
        "An owner can always delete: what comes after needs the container.",
    "containers-create-list: follow next.*": "The links are of that cloud; test_api_list follows those of this one.",
}  # fmt: skip
"""Calls that are not made, by a pattern of "conversation: name", and why."""


KNOWN: list[Known] = []
