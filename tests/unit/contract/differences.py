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


KNOWN: list[Known] = []
