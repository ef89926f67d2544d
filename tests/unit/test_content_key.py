"""The key that config maps and secrets are encrypted with: made once, kept private, never shown."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from askos.adapters.sql.migrate import upgrade
from askos.cli.base import Globals
from askos.cli.main import cli
from askos.model.errors import SetupError
from askos.model.pods import Content
from askos.model.registries import Registry
from askos.programs import content_key, locks
from askos.programs.server import Server
from askos.settings import load

from .cloud import POOL
from .test_store_pods import SECRET, new

KEY = base64.b64encode(bytes(range(32))).decode()


def test_it_is_made_at_the_first_start(tmp_path: Path) -> None:
    settings = load({"data": tmp_path}, {})
    key = content_key.load(settings)
    assert len(key) == 32
    assert content_key.load(settings) == key
    assert settings.paths.content_key.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["content.key"]
    other = tmp_path / "other"
    other.mkdir()
    assert content_key.load(load({"data": other}, {})) != key


def test_it_can_be_given(tmp_path: Path) -> None:
    assert content_key.load(load({"data": tmp_path}, {"ASKOS_CONTENT_KEY": KEY})) == bytes(range(32))
    assert list(tmp_path.iterdir()) == []
    assert KEY not in repr(load({"data": tmp_path}, {"ASKOS_CONTENT_KEY": KEY}))
    for wrong in ("short", KEY[:-4], "é" * 44):
        with pytest.raises(SetupError, match="ASKOS_CONTENT_KEY: it must be 32 bytes in base64") as refused:
            load({"data": tmp_path}, {"ASKOS_CONTENT_KEY": wrong})
        assert wrong not in refused.value.message


def test_a_file_that_cannot_be_right(tmp_path: Path) -> None:
    settings = load({"data": tmp_path}, {})
    content_key.load(settings)
    path = settings.paths.content_key
    path.chmod(0o640)
    with pytest.raises(SetupError, match="can be read by others"):
        content_key.load(settings)
    path.chmod(0o600)
    for wrong in (b"", b"abc", b"\xff" * 40, KEY.encode()[:40]):
        path.write_bytes(wrong)
        with pytest.raises(SetupError, match="does not hold a content key"):
            content_key.load(settings)
    path.unlink()
    path.mkdir()
    with pytest.raises(SetupError):
        content_key.load(settings)


async def test_a_server_with_another_key_does_not_start(tmp_path: Path) -> None:
    """Said at once, in one line, and not when the first capsule needs its secrets."""
    settings = load({"data": tmp_path, "port": 1}, {})
    settings.paths.run.mkdir(parents=True)

    async def start(content: Content | None = None) -> None:
        server = Server(settings)
        try:
            await upgrade(server._database)
            await server._check_content_key()
            if content is not None:
                await server.store.fact("network_pool", lambda: POOL)
                await server.store.create_capsule(new(content=content))
        finally:
            await server.stop()

    key = settings.paths.content_key
    await start()
    key.write_text(KEY)
    await start(SECRET)  # nothing was encrypted with the first one
    await start()
    key.unlink()
    with pytest.raises(SetupError, match="secrets of 1 capsules"):
        await start()
    key.write_text(KEY)
    await start()


async def test_the_way_out_when_the_key_is_lost(tmp_path: Path) -> None:
    settings = load({"data": tmp_path, "port": 1}, {})
    settings.paths.run.mkdir(parents=True)

    async def with_server(work: Callable[[Server], Awaitable[Any]]) -> Any:
        server = Server(settings)
        try:
            await upgrade(server._database)
            await server._check_content_key()
            await server.store.fact("network_pool", lambda: POOL)
            return await work(server)
        finally:
            await server.stop()

    async def fill(server: Server) -> tuple[str, str]:
        kept = await server.store.create_capsule(new(content=SECRET))
        registry = Registry(str(uuid.uuid4()), "p", "ann", "hub", "hub.example.org", "ann", 0)
        await server.store.create_registry(registry, "secret")
        plain = await server.store.create_capsule(new(name="plain"))
        return kept.uuid, plain.uuid

    secret_one, plain = await with_server(fill)
    settings.paths.content_key.unlink()
    with pytest.raises(SetupError, match="askos admin forget-sealed"):
        await with_server(fill)

    def run(*words: str, answer: str = "") -> Result:
        words = ("admin", "forget-sealed", "--data", str(tmp_path), *words)
        return CliRunner().invoke(cli, words, obj=Globals(), input=answer)

    refused = await asyncio.to_thread(run, answer="n\n")
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (0, "nothing was forgotten"), refused.output
    assert secret_one in refused.stdout and "hub" in refused.stdout and plain not in refused.stdout
    with pytest.raises(SetupError):
        await with_server(fill)
    lock = locks.Lock(tmp_path / "server.lock")
    lock.take("Another server")
    busy = await asyncio.to_thread(run, "--yes")
    lock.release()
    assert busy.exit_code != 0 and "running already" in str(busy.exception)

    done = await asyncio.to_thread(run, "--yes")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (0, "forgot 2"), done.output

    async def look(server: Server) -> None:
        found = {c.uuid: c for c in await server.store.capsules_by_uuid([secret_one, plain])}
        # Files of what runs are written anew for a new revision alone.
        assert found[secret_one].content_revision == 1
        assert await server.store.content(secret_one) == Content()
        (registry,) = await server.store.registries(None)
        assert (registry.name, registry.username) == ("hub", "ann")
        await server.store.create_capsule(new(name="next", content=SECRET))

    await with_server(look)
    again = await asyncio.to_thread(run, "--yes")
    assert again.stderr.splitlines()[-1] == "nothing was forgotten", "what the present key opens is never touched"
    assert await with_server(lambda server: server.store.content(secret_one)) == Content()


def test_there_is_nothing_to_forget_where_there_is_no_cloud(tmp_path: Path) -> None:
    gone = CliRunner().invoke(cli, ["admin", "forget-sealed", "--data", str(tmp_path)], obj=Globals())
    assert "There is no cloud" in str(gone.exception)
    assert list(tmp_path.iterdir()) == []
