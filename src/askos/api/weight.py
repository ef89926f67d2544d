"""How big and how deep a body is, beyond its bytes: a megabyte of `{"name":"a"}` takes seconds to check and to show.

What is refused here would not be a pod any more: the largest that Kubernetes' own tests make has some thousand parts.
"""

from __future__ import annotations

from typing import Any

from askos.api.errors import ApiError

MOST_PARTS = 20_000
"""Objects and lists in one body."""
MOST_VALUES = 200_000
"""Everything in one body, texts and numbers too."""
DEEPEST = 50
"""Objects and lists within each other; a pod has less than 20."""


def check(body: Any) -> None:
    """Raises an ApiError 400 for a body that is nested too deeply, 413 for one of too many parts. Does not recurse."""
    parts = values = 0
    level: list[Any] = [body]
    for _ in range(DEEPEST + 1):
        inner: list[Any] = []
        for part in level:
            if isinstance(part, dict | list):
                parts += 1
                values += len(part)
                if parts > MOST_PARTS or values > MOST_VALUES:
                    raise ApiError(
                        413,
                        f"Cannot take this request: its body has more than {MOST_PARTS} objects and lists, or more "
                        f"than {MOST_VALUES} values. Split what it describes over several capsules.",
                    )
                found = part.values() if isinstance(part, dict) else part
                inner += [value for value in found if isinstance(value, dict | list)]
        if not inner:
            return
        level = inner
    raise ApiError(
        400,
        f"Cannot read the request: its body has objects and lists nested more than {DEEPEST} deep.",
        code="container.invalid-body",
    )
