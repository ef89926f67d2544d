"""Images that are made only to be sent away do not stay, whatever fails meanwhile."""

from __future__ import annotations

import pytest

from askos.loops.passing_images import PassingImages
from askos.model.errors import UnavailableError
from tests.unit.fake_runtime import FakeRuntime


class Runtime(FakeRuntime):
    """One that may be away when an image is to be removed."""

    away = False

    async def remove_image(self, ref: str) -> None:
        if self.away:
            raise UnavailableError("containerd does not answer. It is tried again.")
        await super().remove_image(ref)


async def tags(runtime: Runtime) -> set[str]:
    return {tag for image in await runtime.images() for tag in image.tags}


async def broken_off(passing: PassingImages, runtime: Runtime) -> None:
    async with passing.name() as name:
        runtime.add_image(name)
        raise ZeroDivisionError


async def test_none_stays() -> None:
    runtime = Runtime()
    runtime.add_image("busybox")
    before = await tags(runtime)
    passing = PassingImages(runtime)
    async with passing.name() as name:
        runtime.add_image(name)
        # Who looks for leftovers now leaves it alone.
        assert await passing.collect() == []
        assert name in await tags(runtime)
    assert await tags(runtime) == before
    with pytest.raises(ZeroDivisionError):
        await broken_off(passing, runtime)
    assert await tags(runtime) == before
    async with passing.name():
        pass  # it never came to an image


async def test_what_could_not_be_removed_goes_later() -> None:
    runtime = Runtime()
    passing = PassingImages(runtime)
    async with passing.name() as name:
        runtime.add_image(name)
        runtime.away = True
    assert name in await tags(runtime)
    runtime.away = False
    # By another agent, too, which never knew of it.
    assert await PassingImages(runtime).collect() == [name]
    assert name not in await tags(runtime)
