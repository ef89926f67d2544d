"""Removing images when containerd dies in the midst of it."""

from __future__ import annotations

from typing import Any, cast

import pytest
from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd import images
from askos.adapters.containerd.rpc import Client, RpcError

TAG = "localhost/mine:v1"
DIGEST = "localhost/mine@sha256:" + "d" * 64
ID = "sha256:" + "a" * 64


class Containerd:
    """What an image is called, and a death before the so many-th name is removed. CRI removes all of them, a tag first."""

    def __init__(self, *names: str, dies_at: int) -> None:
        self.names = list(names)
        self._left = dies_at

    def _remove(self, name: str) -> None:
        if not self._left:
            raise RpcError("any", "unavailable", "it is gone")
        self._left -= 1
        if name not in self.names:
            raise RpcError("any", "not_found", "no such image")
        self.names.remove(name)

    async def cri(self, method: str, request: Any, _timeout_s: float) -> Any:
        if method == "RemoveImage":
            assert request.image.image in self.names
            for name in sorted(self.names, key=lambda name: name != TAG):
                self._remove(name)
            return cri.RemoveImageResponse()
        assert method == "ImageStatus"
        answer = cri.ImageStatusResponse()
        if request.image.image in self.names:
            answer.image.id = ID
            answer.image.repo_tags.extend(name for name in self.names if name.startswith("localhost/mine:"))
            answer.image.repo_digests.extend(name for name in self.names if "@" in name)
        return answer

    async def call(self, method: str, request: Any, _timeout_s: float) -> None:
        assert method == "images.v1.Images/Delete"
        self._remove(request.name)


@pytest.mark.parametrize("dies_at", range(3))
async def test_who_is_not_yet_removed_still_has_the_name(dies_at: int) -> None:
    containerd = Containerd(TAG, DIGEST, ID, dies_at=dies_at)
    with pytest.raises(RpcError, match="gone"):
        await images.remove(cast("Client", containerd), TAG)
    assert TAG in containerd.names


async def test_all_names_go() -> None:
    containerd = Containerd(TAG, DIGEST, ID, dies_at=3)
    await images.remove(cast("Client", containerd), TAG)
    assert containerd.names == []


async def test_other_tags_keep_all_but_the_name() -> None:
    containerd = Containerd(TAG, "localhost/mine:v2", ID, dies_at=1)
    await images.remove(cast("Client", containerd), TAG)
    assert containerd.names == ["localhost/mine:v2", ID]
