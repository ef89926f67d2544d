"""The key that config maps and secrets are encrypted with: made once, kept private, never shown."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from askos.adapters.sql.migrate import upgrade
from askos.model.errors import SetupError
from askos.model.pods import Content
from askos.programs import content_key
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
