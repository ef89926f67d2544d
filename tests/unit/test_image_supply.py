"""How images of the image service come to hosts: what is waited for, brought, refused, and asked again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from askos.loops.image_calls import ImageCalls
from askos.loops.image_rights import ImageRights
from askos.loops.image_supply import ImageSupply
from askos.loops.service_images import ServiceImages
from askos.model.errors import AskosError, NotFoundError, RuntimeFailedError, UnavailableError
from askos.model.images import of_service
from askos.model.stored_images import StoredImage
from askos.ports.calls import Frame
from askos.ports.image_store import ImageReader

from .fakes import FakeRuntime

IMAGE = "aaaaaaaa-0000-4000-8000-000000000001"
END: Any = object()


class Pipe:
    """Both ends of one call: as the server and as the host see it."""

    def __init__(self, method: str, arguments: dict[str, Any]) -> None:
        self.method, self.arguments, self.result = method, arguments, None
        self.to_host: asyncio.Queue[Frame | None] = asyncio.Queue()
        self.to_server: asyncio.Queue[Any] = asyncio.Queue()


class ServerEnd:
    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.result: Any = None

    async def send(self, frame: Frame) -> None:
        await self._pipe.to_host.put(frame)

    async def frames(self) -> AsyncIterator[Frame]:
        while (got := await self._pipe.to_server.get()) is not END:
            if isinstance(got, Exception):
                raise got
            yield got

    async def close(self) -> None:
        await self._pipe.to_host.put(None)


class HostEnd:
    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.method, self.arguments = pipe.method, pipe.arguments

    async def send(self, frame: Frame) -> None:
        await self._pipe.to_server.put(frame)

    async def frames(self) -> AsyncIterator[Frame]:
        while (got := await self._pipe.to_host.get()) is not None:
            yield got


class World:
    """One host, one server, and a link between them that can be cut."""

    def __init__(self, folder: Path) -> None:
        self.runtime = FakeRuntime()
        self.rights = ImageRights(None)
        self.host = ServiceImages(self.runtime, self.rights)
        supply = ImageCalls(self.runtime, folder / "uploads").supply(self.host)
        self._methods = {"image_wants": self.host.wants, "image_supply": supply}
        self.folder = folder
        self.images: dict[str, StoredImage] = {}
        self.content = [b"image:", b"docker.io/library/busybox:latest"]
        self.reads = 0
        self.sessions = {"h": 1}
        self.linked = True
        self.pipes: list[Pipe] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.server = ImageSupply(self, self, lambda: self.sessions, every_s=0.02)  # type: ignore[arg-type]

    # -- the image service

    async def image(self, uuid: str, reader: ImageReader) -> StoredImage:
        image = self.images.get(uuid)
        if image is None or not image.visible_to(reader.project_id):
            raise NotFoundError(f"No image found with ID {uuid}")
        return image

    async def read(self, _image: StoredImage) -> AsyncIterator[bytes]:
        self.reads += 1
        for piece in self.content:
            yield piece

    # -- the link

    async def open(self, _host: str, method: str, arguments: dict[str, Any]) -> ServerEnd:
        if not self.linked:
            raise UnavailableError("not connected")
        pipe = Pipe(method, arguments)
        self.pipes.append(pipe)
        self.spawn(self._serve(pipe))
        return ServerEnd(pipe)

    async def call(self, host: str, method: str, arguments: dict[str, Any], _timeout_s: float) -> None:
        stream = await self.open(host, method, arguments)
        async for _frame in stream.frames():
            pass

    async def _serve(self, pipe: Pipe) -> None:
        try:
            await self._methods[pipe.method](HostEnd(pipe))  # type: ignore[arg-type]
            await pipe.to_server.put(END)
        except AskosError as error:
            await pipe.to_server.put(error)

    def cut(self) -> None:
        """The link breaks: both ends of all calls see it."""
        self.linked = False
        for pipe in self.pipes:
            pipe.to_host.put_nowait(None)
            pipe.to_server.put_nowait(UnavailableError("cut"))
        self.pipes.clear()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        return task


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    made.images[IMAGE] = StoredImage(IMAGE, "p1", "ann", status="active", size_bytes=40)
    running = asyncio.create_task(made.server.run())
    yield made
    running.cancel()
    for task in [running, *made.tasks]:
        task.cancel()
    await asyncio.gather(running, *made.tasks, return_exceptions=True)


async def fetch(world: World, project: str = "p1", image: str = IMAGE) -> None:
    async with asyncio.timeout(10):
        await world.host.fetch(image, project)


def may_use(world: World, image_id: str, project: str) -> bool:
    return world.rights.may_use(of_service(IMAGE), image_id, project)


async def test_it_comes_under_its_own_name_and_for_its_project(world: World) -> None:
    await fetch(world)
    found = await world.runtime.image(of_service(IMAGE))
    assert found is not None
    assert may_use(world, found.id, "p1")
    assert not may_use(world, found.id, "p2")
    assert await world.runtime.image("docker.io/library/busybox:latest") is None
    assert list((world.folder / "uploads").iterdir()) == []


async def test_it_is_sent_once_for_all_who_wait(world: World) -> None:
    world.images[IMAGE] = StoredImage(IMAGE, "p1", "ann", status="active", visibility="public")
    await asyncio.gather(fetch(world), fetch(world), fetch(world, "p2"))
    await fetch(world, "p3")
    assert world.reads == 1
    found = await world.runtime.image(of_service(IMAGE))
    assert found is not None
    assert all(may_use(world, found.id, project) for project in ("p1", "p2", "p3"))


async def test_what_somebody_else_put_under_the_name_is_not_taken(world: World) -> None:
    world.runtime.add_image(of_service(IMAGE))
    planted = await world.runtime.image(of_service(IMAGE))
    assert planted is not None
    assert not may_use(world, planted.id, "p1")
    await fetch(world)
    assert world.reads == 1


@pytest.mark.parametrize("status", ["queued", "killed", None])
async def test_what_the_project_has_not_is_not_found(world: World, status: Any) -> None:
    if status is not None:
        world.images[IMAGE] = StoredImage(IMAGE, "p2", "ann", status=status, visibility="public")
    with pytest.raises(NotFoundError, match=IMAGE):
        await fetch(world, "p2")
    assert world.reads == 0


async def test_what_is_no_image_is_final(world: World) -> None:
    world.content = [b"rubbish"]
    with pytest.raises(RuntimeFailedError, match="not an image archive") as failed:
        await fetch(world)
    assert not failed.value.retryable
    assert list((world.folder / "uploads").iterdir()) == []


async def test_a_link_that_breaks_is_asked_anew(world: World) -> None:
    waits = asyncio.create_task(fetch(world))
    gate = asyncio.Event()

    async def slow(_image: StoredImage) -> AsyncIterator[bytes]:
        world.reads += 1
        yield b"image:"
        if world.reads == 1:
            await gate.wait()
        yield b"x:1"

    world.read = slow  # type: ignore[method-assign]
    while not world.reads:
        await asyncio.sleep(0.01)
    world.cut()
    gate.set()
    await asyncio.sleep(0.05)
    assert not waits.done()
    world.sessions = {"h": 2}
    world.linked = True
    await waits
    assert world.reads == 2


async def test_nobody_waits_any_more(world: World) -> None:
    world.linked = False
    world.cut()
    waits = asyncio.create_task(fetch(world))
    await asyncio.sleep(0.01)
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    world.linked = True
    world.sessions = {"h": 2}
    await asyncio.sleep(0.1)
    assert world.reads == 0


async def test_what_no_capsule_uses_is_removed(world: World) -> None:
    await fetch(world)
    world.runtime.add_image("docker.io/library/other:1")
    assert await world.host.collect({IMAGE}) == []
    assert await world.host.collect({""}) == [of_service(IMAGE)]
    assert await world.runtime.image("docker.io/library/other:1") is not None
    await fetch(world)
    assert world.reads == 2
