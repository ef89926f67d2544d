"""Storing images in containerd: blobs through the content API under a lease, then the names.

The lease keeps containerd's garbage collector away until the names refer to everything. It expires by itself, so a
crash in between leaves nothing for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import msgspec
from google.protobuf import field_mask_pb2

from askos.adapters.containerd.archive import Archive, Blob, Found
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import Client, RpcError, rpc_error
from askos.model.errors import InvalidError

_LEASE_S = 3600
_BLOB_S = 1800.0
_CALL_S = 20.0
PINNED = {"io.cri-containerd.pinned": "pinned"}


async def import_archive(
    client: Client,
    path: str,
    ref: str | None,
    scratch: Path,
    labels: dict[str, str] | None = None,
    *,
    rename: bool = False,
) -> dict[str, str]:
    """Load every image of an archive; returns the ids of the images by the names made. With `rename` there must be
    one, and it gets the name `ref` instead of those that the archive says.

    Raises InvalidError and RpcError.
    """
    archive = await asyncio.to_thread(Archive, path, scratch)
    with archive:
        found = await asyncio.to_thread(archive.images, ref)
        if rename and ref is not None:
            if len(found) != 1:
                why = f"it holds {len(found)} images, and one is needed"
                raise InvalidError(f"Could not load an image from {path}: {why}.", "image-archive")
            found = [msgspec.structs.replace(found[0], names=[ref])]
        names: dict[str, str] = {}
        async with lease(client) as held:
            for image in found:
                await _store_blobs(client, archive, image, held)
                for name in image.names:
                    await name_image(client, name, image.manifest, labels or {})
                    names[name] = image.config.digest
    return names


@asynccontextmanager
async def lease(client: Client) -> AsyncIterator[str]:
    """The id of a lease that keeps what is made under it from being collected meanwhile."""
    held = f"askos-import-{uuid.uuid4().hex}"
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + _LEASE_S))
    request = api.CreateLeaseRequest(id=held, labels={"containerd.io/gc.expire": expires})
    await client.call("leases.v1.Leases/Create", request, _CALL_S)
    try:
        yield held
    finally:
        with contextlib.suppress(RpcError):
            await client.call("leases.v1.Leases/Delete", api.DeleteLeaseRequest(id=held), _CALL_S)


async def _store_blobs(client: Client, archive: Archive, image: Found, lease: str) -> None:
    for blob in (*image.layers, image.config):
        await _store(client, archive, blob, lease, {})
    # The manifest's labels tell the garbage collector what it refers to.
    labels = {"containerd.io/gc.ref.content.config": image.config.digest}
    for number, layer in enumerate(image.layers):
        labels[f"containerd.io/gc.ref.content.l.{number}"] = layer.digest
    await _store(client, archive, image.manifest, lease, labels)


async def put(client: Client, blob: Blob, lease: str, labels: dict[str, str]) -> None:
    """Store a blob that was made here."""
    await _store(client, _Made(), blob, lease, labels)


class _Made:
    """In the place of an archive, for blobs that hold their data."""

    path = "memory"

    def read(self, blob: Blob) -> Iterator[bytes]:
        """The blob's data."""
        yield blob.data or b""


async def _store(client: Client, archive: Archive | _Made, blob: Blob, lease: str, labels: dict[str, str]) -> None:
    ref = f"askos-import-{uuid.uuid4().hex}"
    try:
        await _write(client, archive, blob, lease, labels, ref=ref)
    except RpcError as error:
        if error.code == "already_exists":
            if labels:
                await _label(client, blob, labels)
            return
        with contextlib.suppress(RpcError):
            await client.call("content.v1.Content/Abort", api.AbortRequest(ref=ref), _CALL_S)
        if error.code == "failed_precondition" or "unexpected commit" in error.text:
            raise InvalidError(
                f"Could not load an image from {archive.path}: {blob.entry} is damaged "
                f"(its content does not have the digest {blob.digest}).",
                "image-archive",
            ) from None
        raise


async def _write(
    client: Client, archive: Archive | _Made, blob: Blob, lease: str, labels: dict[str, str], *, ref: str
) -> None:
    method = "content.v1.Content/Write"
    call = client.dialogue(method, api.WriteContentRequest, _BLOB_S, lease)
    head = {"ref": ref, "total": blob.size, "expected": blob.digest}
    chunks = archive.read(blob)
    offset = 0
    try:
        while (data := await asyncio.to_thread(next, chunks, None)) is not None:
            # One answer for each chunk: nothing piles up anywhere.
            await call.write(api.WriteContentRequest(action=api.WRITE, offset=offset, data=data, **head))
            await _answer(call)
            offset += len(data)
        await call.write(api.WriteContentRequest(action=api.COMMIT, offset=offset, labels=labels, **head))
        await _answer(call)
        await call.done_writing()
    except grpc.aio.AioRpcError as error:
        raise rpc_error(method, error) from None
    except asyncio.InvalidStateError:
        # gRPC's way of saying that the call has already ended: its status says why.
        code, details = await call.code(), await call.details()
        raise RpcError(method, code.name.lower(), details or "") from None
    finally:
        call.cancel()


async def _answer(call: grpc.aio.StreamStreamCall) -> None:
    if await call.read() is grpc.aio.EOF:
        code, details = await call.code(), await call.details()
        raise RpcError("content.v1.Content/Write", code.name.lower(), details or "the stream ended")


async def _label(client: Client, blob: Blob, labels: dict[str, str]) -> None:
    request = api.UpdateContentRequest(
        info=api.ContentInfo(digest=blob.digest, labels=labels),
        update_mask=field_mask_pb2.FieldMask(paths=[f"labels.{key}" for key in labels]),
    )
    await client.call("content.v1.Content/Update", request, _CALL_S)


async def name_image(client: Client, name: str, manifest: Blob, labels: dict[str, str]) -> None:
    """Let a name stand for an image, whatever it stood for before."""
    target = api.Descriptor(media_type=manifest.media_type, digest=manifest.digest, size=manifest.size)
    image = api.Image(name=name, target=target, labels=labels)
    try:
        await client.call("images.v1.Images/Create", api.CreateImageRequest(image=image), _CALL_S)
    except RpcError as error:
        if error.code != "already_exists":
            raise
        mask = field_mask_pb2.FieldMask(paths=["target", "labels"])
        await client.call("images.v1.Images/Update", api.UpdateImageRequest(image=image, update_mask=mask), _CALL_S)
