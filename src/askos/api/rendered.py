"""Capsules as JSON that was rendered before: lists and watches of many readers render each revision once.

What a capsule's row does not say stays blank in a piece and is filled in when it is read: the host's name, the URL that
the client uses, the revision that a watch tells, and details such as "Up 5 mins", which change with time. Everything
else of a piece changes only together with the revision that it is remembered by.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import msgspec

from askos.model.capsules import Capsule, ContainerReport
from askos.plan import zun_status
from askos.ports.store import Store

_MARK = secrets.token_hex(16)
"""Nobody can guess it, so that no capsule can have it in its texts."""
_BLANK = re.compile(rf'"<{_MARK} (host|url|revision|[0-9]+)>"?'.encode())

_encode = msgspec.json.encode


class Piece:
    """One capsule's JSON with blanks."""

    __slots__ = ("_details", "_filled", "_from_us", "_parts", "_until_us", "_with", "host_uuid", "number", "revision")

    def __init__(self, capsule: Capsule, parts: list[bytes], details: list[tuple[str, ContainerReport | None]]) -> None:
        self.number = capsule.id
        self.revision = capsule.revision
        self.host_uuid = capsule.placement.host_uuid
        self._parts = parts
        """Text and names of blanks in turn."""
        self._details = details
        self._filled: bytes | None = parts[0] if len(parts) == 1 else None
        """Kept from the second time on that it is asked for in the same way: most pieces are read once, by a watch."""
        self._with: tuple[str, str | None, int] | None = None
        self._from_us = 0
        self._until_us: int | None = None

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        return sum(map(len, self._parts)) * (1 if len(self._parts) == 1 else 2)

    def filled(self, now_us: int = 0, *, url: str = "", host_name: str | None = None, revision: int = 0) -> bytes:
        """The JSON as it is to be read now; with the capsule's own revision if no other one is given."""
        asked = (url, host_name, revision or self.revision)
        if self._filled is not None and (len(self._parts) == 1 or (self._with == asked and self._is_fresh(now_us))):
            return self._filled
        found = list(self._parts)
        for at in range(1, len(found), 2):
            found[at] = self._fill(found[at].decode(), now_us, *asked)
        ends = [zun_status.detail_until_us(*detail, now_us) for detail in self._details]
        filled = b"".join(found)
        self._filled = filled if self._with == asked else None
        self._with, self._from_us = asked, now_us
        self._until_us = min((end for end in ends if end is not None), default=None)
        return filled

    def _is_fresh(self, now_us: int) -> bool:
        """Whether no detail reads otherwise by now."""
        return self._until_us is None or self._from_us <= now_us < self._until_us

    def _fill(self, blank: str, now_us: int, url: str, host_name: str | None, revision: int) -> bytes:
        if blank == "url":
            # The begin of a text that goes on behind it.
            return _encode(url)[:-1]
        if blank == "host":
            return _encode(host_name)
        if blank == "revision":
            return _encode(str(revision))
        return _encode(zun_status.status_detail(*self._details[int(blank)], now_us))


class Blanks:
    """What is put into a representation in place of what is filled in later."""

    URL = f"<{_MARK} url>"
    """Only where a text begins with the URL and goes on behind it."""
    HOST = f"<{_MARK} host>"
    REVISION = f"<{_MARK} revision>"

    def __init__(self) -> None:
        self._details: list[tuple[str, ContainerReport | None]] = []

    def detail(self, status: str, report: ContainerReport | None) -> str:
        """Stands for `zun_status.status_detail`."""
        self._details.append((status, report))
        return f"<{_MARK} {len(self._details) - 1}>"

    def piece(self, capsule: Capsule, shown: dict[str, Any]) -> Piece:
        """The representation, rendered."""
        return Piece(capsule, _BLANK.split(_encode(shown)), self._details)


class Rendered:
    """Pieces by (uuid, form) and revision; bounded in bytes, the least recently used thrown away. A form is whatever
    makes a capsule look otherwise for different readers, such as whether they are administrators."""

    def __init__(self, limit_bytes: int = 64 << 20) -> None:
        self._pieces: OrderedDict[tuple[str, Hashable], tuple[int, Piece, int]] = OrderedDict()
        self._limit = limit_bytes
        self._size = 0

    def get(self, uuid: str, revision: int, form: Hashable) -> Piece | None:
        """The piece, if this revision of the capsule was rendered."""
        key = (uuid, form)
        known = self._pieces.get(key)
        if known is None or known[0] != revision:
            return None
        self._pieces.move_to_end(key)
        return known[1]

    def put(self, capsule: Capsule, piece: Piece, form: Hashable) -> None:
        """Remember one; an older revision than what is known is not kept."""
        key = (capsule.uuid, form)
        known = self._pieces.get(key)
        if known is not None:
            if known[0] > capsule.revision:
                return
            self._size -= known[2]
        size = piece.size
        self._pieces[key] = (capsule.revision, piece, size)
        self._pieces.move_to_end(key)
        self._size += size
        while self._size > self._limit and len(self._pieces) > 1:
            _, (_, _, dropped) = self._pieces.popitem(last=False)
            self._size -= dropped

    async def page(
        self, page: list[tuple[str, int]], form: Hashable, store: Store, render: Callable[[Capsule], Piece]
    ) -> list[Piece]:
        """The capsules of a page, (uuid, revision) each; those that are not known are read from the store and
        rendered. What vanished meanwhile is left out."""
        found = {uuid: self.get(uuid, revision, form) for uuid, revision in page}
        missing = [uuid for uuid, piece in found.items() if piece is None]
        for capsule in await store.capsules_by_uuid(missing) if missing else []:
            piece = found[capsule.uuid] = render(capsule)
            self.put(capsule, piece, form)
        return [piece for piece in found.values() if piece is not None]
