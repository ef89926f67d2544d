"""Images in a real containerd: names, archives, registries."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
from pathlib import Path

import pytest
from aiohttp import web

from askos.model.errors import (
    NotFoundError,
    UnavailableError,
)

from .containerd_fixtures import BUSYBOX, Bench, back_after, bench, fresh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
__all__ = ["bench", "fresh"]  # fixtures


async def test_images_by_name_and_id(bench: Bench) -> None:
    image = await bench.runtime.image("busybox")
    assert image is not None
    assert image.tags == [BUSYBOX]
    assert image.command == ["sh"]
    assert await bench.runtime.image(image.id) == image
    assert await bench.runtime.image(image.id.removeprefix("sha256:")[:12]) == image
    assert await bench.runtime.image("nosuch:1") is None
    assert [i.id for i in await bench.runtime.images()] == [image.id]


async def test_an_image_that_is_not_here_cannot_be_made_into_a_container(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="Pull it first"):
        await bench.up("true", image_ref="docker.io/library/nosuch:1")


async def test_names_come_and_go_one_by_one(bench: Bench, tmp_path: Path) -> None:
    archive = _renamed(bench.data / "busybox.tar", tmp_path / "two.tar", "docker.io/library/second:v1")
    assert await bench.runtime.import_image(str(archive)) == ["docker.io/library/second:v1"]
    image = await bench.runtime.image("second:v1")
    assert image is not None
    assert sorted(image.tags) == [BUSYBOX, "docker.io/library/second:v1"]
    await bench.runtime.remove_image("second:v1")
    assert await bench.runtime.image("second:v1") is None
    assert (await bench.runtime.image("busybox")) is not None
    await bench.runtime.remove_image("second:v1")


async def test_the_last_two_names_go_together(bench: Bench) -> None:
    _, _, container = await bench.up("sleep", "1000")
    for number in range(5):
        # What is committed twice within a second is one image.
        while True:
            names = [f"localhost/twice:{number}a", f"localhost/twice:{number}b"]
            ids = {(await bench.runtime.commit(container, name)).id for name in names}
            if len(ids) == 1:
                break
        await asyncio.gather(*map(bench.runtime.remove_image, names))
        assert await bench.runtime.image(ids.pop()) is None


def _renamed(source: Path, target: Path, name: str) -> Path:
    import io
    import tarfile

    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            data = old.extractfile(member).read()  # type: ignore[union-attr]
            data = data.replace(BUSYBOX.encode(), name.encode()) if member.name == "index.json" else data
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return target


async def test_docker_save_archives_run(fresh: Bench, tmp_path: Path) -> None:
    archive = _docker_archive(fresh.data / "busybox.tar", tmp_path / "saved.tar.gz", "saved:v2")
    await fresh.runtime.remove_image("busybox")
    assert await fresh.runtime.images() == []
    assert await fresh.runtime.import_image(str(archive)) == ["docker.io/library/saved:v2"]
    capsule, _, _ = await fresh.up("echo", "runs", image_ref="saved:v2")
    assert (await fresh.ended(capsule)).exit_code == 0
    assert "F runs" in fresh.log(capsule)
    # The collector has had its chance, and containerd starts anew: all is still there.
    os.kill(fresh.containerd.pid or 0, signal.SIGKILL)
    await back_after(fresh, 1)
    capsule, _, _ = await fresh.up("echo", "again", image_ref="saved:v2")
    assert (await fresh.ended(capsule)).exit_code == 0


def _docker_archive(source: Path, target: Path, tag: str) -> Path:
    import io
    import tarfile

    with tarfile.open(source) as old:
        files = {m.name: old.extractfile(m).read() for m in old}  # type: ignore[union-attr]
    blob = lambda digest: files["blobs/sha256/" + digest.removeprefix("sha256:")]  # noqa: E731
    manifest = json.loads(blob(json.loads(files["index.json"])["manifests"][0]["digest"]))
    layer = blob(manifest["layers"][0]["digest"])
    listing = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["abc/layer.tar"]}]
    with tarfile.open(target, "w:gz") as new:
        for name, data in (
            ("config.json", blob(manifest["config"]["digest"])),
            ("abc/layer.tar", layer),
            ("manifest.json", json.dumps(listing).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            new.addfile(info, io.BytesIO(data))
    return target


async def test_pulling_from_a_registry(bench: Bench, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(bench.data / "busybox.tar") as old:
        files = {m.name: old.extractfile(m).read() for m in old}  # type: ignore[union-attr]
    manifest_digest = json.loads(files["index.json"])["manifests"][0]["digest"]
    manifest = json.loads(files["blobs/sha256/" + manifest_digest[7:]])
    # Its own configuration, so that nothing is here already.
    config = json.loads(files["blobs/sha256/" + manifest["config"]["digest"][7:]]) | {"author": "registry"}
    blobs = {f"sha256:{name.split('/')[-1]}": data for name, data in files.items() if name.startswith("blobs")}
    # A layer that no other image has: random bytes after the end of the tar change nothing in it.
    layer_data = blobs[manifest["layers"][0]["digest"]] + bytes(10240) + random.randbytes(1024)
    manifest["layers"][0] |= {"digest": f"sha256:{hashlib.sha256(layer_data).hexdigest()}", "size": len(layer_data)}
    blobs[manifest["layers"][0]["digest"]] = layer_data
    config["rootfs"]["diff_ids"] = [manifest["layers"][0]["digest"]]
    steps: list[tuple[int, int]] = []
    data = json.dumps(config).encode()
    manifest["config"] |= {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}
    blobs[manifest["config"]["digest"]] = data
    top = json.dumps(manifest).encode()
    top_digest = f"sha256:{hashlib.sha256(top).hexdigest()}"

    async def serve(request: web.Request) -> web.StreamResponse:
        kind, what = request.match_info["kind"], request.match_info["what"]
        if request.match_info["name"] != "some/app":
            return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)
        body = top if kind == "manifests" and what in ("v1", top_digest) else blobs.get(what)
        if body is None:
            return web.json_response({"errors": [{"code": "BLOB_UNKNOWN"}]}, status=404)
        if len(body) > 1 << 20:
            answer = web.StreamResponse(headers={"Content-Length": str(len(body))})
            await answer.prepare(request)
            await answer.write(body[: len(body) * 3 // 4])
            # containerd writes half a MiB at a time. The rest comes when it was seen that there is a part.
            while not any(0 < done < total for done, total in steps):
                await asyncio.sleep(0.05)
            await answer.write(body[len(body) * 3 // 4 :])
            return answer
        media = manifest["mediaType"] if kind == "manifests" else "application/octet-stream"
        headers = {"Docker-Content-Digest": what if what.startswith("sha256") else top_digest}
        return web.Response(body=body, content_type=media, headers=headers)

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(600)
        return web.Response()

    async def hello(_: web.Request) -> web.StreamResponse:
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/v2/", hello)
    app.router.add_get("/v2/hang/{rest:.*}", hang)
    app.router.add_get("/v2/{name:.+}/{kind:manifests|blobs}/{what}", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    impatient = bench.make_runtime(pull_stall_s=2.0)
    try:
        image = await bench.runtime.pull(f"{address}/some/app:v1", lambda done, total: steps.append((done, total)))
        assert steps == sorted(steps)
        # Its configuration may have been seen coming as well.
        part = next(total for done, total in steps if 0 < done < total)
        assert len(layer_data) <= part <= len(layer_data) + len(data)
        assert steps[-1][0] == steps[-1][1] >= len(layer_data)
        assert image.tags == [f"{address}/some/app:v1"]
        assert image.digests == [f"{address}/some/app@{top_digest}"]
        with pytest.raises(NotFoundError, match="does not exist"):
            await bench.runtime.pull(f"{address}/some/other:v1")
        with pytest.raises(NotFoundError, match="does not exist"):
            await bench.runtime.pull(f"{address}/some/app:v9")
        with pytest.raises(UnavailableError, match="nothing came"):
            await asyncio.wait_for(impatient.pull(f"{address}/hang/x:1"), 60)
        await bench.runtime.remove_image(f"{address}/some/app:v1")
    finally:
        await impatient.close()
        await runner.cleanup()
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await bench.runtime.pull(f"{address}/some/app:v1")


async def test_a_registry_that_has_no_address(bench: Bench) -> None:
    impatient = bench.make_runtime(pull_stall_s=5.0)
    try:
        with pytest.raises(UnavailableError) as caught:
            await asyncio.wait_for(impatient.pull("registry.invalid/x:1"), 60)
        assert len(caught.value.message) < 300
    finally:
        await impatient.close()
