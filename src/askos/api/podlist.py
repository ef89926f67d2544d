"""Capsules as JSON that was rendered before: lists and watches of many readers render each revision once."""

from __future__ import annotations

from collections import OrderedDict

from askos.model.capsules import Capsule


class Rendered:
    """By (uuid, whether for administrators) and revision; bounded in bytes, the least recently used thrown away."""

    def __init__(self, limit_bytes: int = 64 << 20) -> None:
        self._pieces: OrderedDict[tuple[str, bool], tuple[int, int, bytes]] = OrderedDict()
        self._limit = limit_bytes
        self._size = 0

    def get(self, uuid: str, revision: int, *, admin: bool) -> tuple[int, bytes] | None:
        """The capsule's number and JSON, if this revision of it was rendered."""
        piece = self._pieces.get((uuid, admin))
        if piece is None or piece[0] != revision:
            return None
        self._pieces.move_to_end((uuid, admin))
        return piece[1], piece[2]

    def put(self, capsule: Capsule, body: bytes, *, admin: bool) -> None:
        """Remember one; an older revision than what is known is not kept."""
        key = (capsule.uuid, admin)
        known = self._pieces.get(key)
        if known is not None:
            if known[0] > capsule.revision:
                return
            self._size -= len(known[2])
        self._pieces[key] = (capsule.revision, capsule.id, body)
        self._pieces.move_to_end(key)
        self._size += len(body)
        while self._size > self._limit and len(self._pieces) > 1:
            _, (_, _, dropped) = self._pieces.popitem(last=False)
            self._size -= len(dropped)
