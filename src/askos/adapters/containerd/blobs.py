"""Reading images out of containerd: blobs, manifests, and a whole image as an OCI archive."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import tarfile
from typing import Any

from askos.adapters.containerd.archive import architecture
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import Client, RpcError
from askos.model.errors import NotFoundError, RuntimeFailedError

_CALL_S = 20.0
_BLOB_S = 1800.0
_LARGEST = 8 << 20
"""Bytes of a manifest or configuration."""
_DEPTH = 4


async def read(client: Client, digest: str) -> bytes:
    """A small blob. Raises RpcError, RuntimeFailedError."""
    kept = bytearray()
    request = api.ReadContentRequest(digest=digest)
    async with contextlib.aclosing(_pieces(client, request)) as pieces:
        async for piece in pieces:
            kept += piece
            if len(kept) > _LARGEST:
                raise RuntimeFailedError(f"Cannot read {digest}: it is no manifest.", retryable=False)
    return bytes(kept)


async def _pieces(client: Client, request: Any) -> Any:
    async for answer in client.stream("content.v1.Content/Read", request, _BLOB_S):
        yield answer.data


async def descriptor_of(client: Client, name: str) -> dict[str, Any]:
    """What an image's name stands for, on this machine's platform. Raises RpcError; not_found: there is none."""
    image = (await client.call("images.v1.Images/Get", api.GetImageRequest(name=name), _CALL_S)).image
    target = {"mediaType": image.target.media_type, "digest": image.target.digest, "size": image.target.size}
    for _ in range(_DEPTH):
        value = json.loads(await read(client, target["digest"]))
        if "manifests" not in value:
            return target
        target = next((entry for entry in value["manifests"] if _fits(entry)), {}) or _none(name)
    return _none(name)


async def manifest_of(client: Client, name: str) -> dict[str, Any]:
    """The manifest of an image. Raises as `descriptor_of`."""
    found: dict[str, Any] = json.loads(await read(client, (await descriptor_of(client, name))["digest"]))
    return found


def _fits(entry: dict[str, Any]) -> bool:
    platform = entry.get("platform") or {}
    return (platform.get("os", "linux"), platform.get("architecture", architecture())) == ("linux", architecture())


def _none(name: str) -> dict[str, Any]:
    raise RuntimeFailedError(f"Image {name} has nothing for linux/{architecture()}.", retryable=False)


async def export(client: Client, name: str, path: str, *, named: bool) -> None:
    """Write an image as an OCI archive, with its name in it or without. Raises NotFoundError, RpcError, OSError."""
    try:
        target = await descriptor_of(client, name)
        manifest_data = await read(client, target["digest"])
    except RpcError as error:
        if error.not_found:
            raise NotFoundError(f"Image {name} is not on this host.", "image-not-found") from None
        raise
    manifest = json.loads(manifest_data)
    described = {"mediaType": target["mediaType"], "digest": target["digest"], "size": len(manifest_data)}
    if named:
        described["annotations"] = {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": _tag(name),
        }
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [described]}
    draft = f"{path}.part"
    try:
        with open(draft, "wb") as file:  # noqa: ASYNC230 - opening is quick; what is long is done in threads
            tar = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add(tar, "index.json", json.dumps(index).encode())
            _add(tar, _entry(target["digest"]), manifest_data)
            parts = {part["digest"]: part["size"] for part in (manifest["config"], *manifest["layers"])}
            for digest, size in parts.items():
                await _copy(client, tar, file, digest, size)
            await asyncio.to_thread(tar.close)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise


async def _copy(client: Client, tar: tarfile.TarFile, file: Any, digest: str, size: int) -> None:
    head = tarfile.TarInfo(_entry(digest))
    head.size = size
    header = head.tobuf(tarfile.PAX_FORMAT)
    file.write(header)
    written = 0
    async with contextlib.aclosing(_pieces(client, api.ReadContentRequest(digest=digest))) as pieces:
        async for piece in pieces:
            await asyncio.to_thread(file.write, piece)
            written += len(piece)
    if written != size:
        raise RuntimeFailedError(f"Cannot write the image: {digest} has {written} bytes instead of {size}.")
    rest = -size % tarfile.BLOCKSIZE
    file.write(bytes(rest))
    tar.offset += len(header) + size + rest


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    head = tarfile.TarInfo(name)
    head.size = len(data)
    tar.addfile(head, io.BytesIO(data))


def _entry(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _tag(name: str) -> str:
    last = name.rsplit("/", 1)[-1].split("@", 1)[0]
    return last.partition(":")[2] or "latest"
