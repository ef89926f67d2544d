"""Files of a container as a tar archive: Zun's get_archive and put_archive, in JSON (base64 from 1.25 on), and the
native API's streams, which have no limit of size."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from askos.api import state
from askos.api.containers import Containers
from askos.api.core import Request, raw_json
from askos.api.errors import ApiError, invalid_field, invalid_query
from askos.api.microversion import Version
from askos.api.schemas import Schema
from askos.model.errors import AskosError
from askos.ports.calls import deliver

BASE64_SINCE = Version(1, 25)
_CHUNK = 256 * 1024


def put_schema(_version: Version) -> Schema:
    """The schema of put_archive's body."""
    return {
        "type": "object",
        "properties": {"data": {"type": "string"}, "path": {"type": "string", "maxLength": 4096}},
    }


class Archives:
    """The handlers."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._most_bytes = containers.limits.archive_mib << 20

    @property
    def body_bytes(self) -> int:
        """What the body of put_archive may have: base64 is a third longer, and may be cut into lines."""
        return self._most_bytes * 4 // 3 + self._most_bytes // 32 + (1 << 16)

    async def get(self, request: Request) -> web.Response:
        """GET get_archive: a file or folder, and what it is."""
        path = _path(request.query.get("path"))
        capsule = await self._containers.find(request, "get_archive")
        state.check("get_archive", capsule)
        stream = await self._containers.open(capsule, "get_archive", {"path": path})
        kept = bytearray()
        try:
            async for frame in stream.frames():
                kept += frame.data
                if len(kept) > self._most_bytes:
                    raise self._too_large(f"{path} as an archive is")
            stat = stream.result
        finally:
            await stream.close()
        return raw_json(msgspec.json.encode({"data": _text(bytes(kept), request.version), "stat": stat}))

    async def put(self, request: Request) -> web.Response:
        """POST put_archive: unpack an archive into a folder."""
        path = _path(request.query.get("path") or request.body.get("path"))
        data = _bytes(request.body, request.version)
        if len(data) > self._most_bytes:
            raise self._too_large("The archive is")
        capsule = await self._containers.find(request, "put_archive")
        state.check("put_archive", capsule)
        stream = await self._containers.open(capsule, "put_archive", {"path": path})
        try:
            await deliver(stream, stream.frames(), _pieces(data))
        finally:
            await stream.close()
        return raw_json(b"null")

    def _too_large(self, what: str) -> ApiError:
        return ApiError(
            413,
            f"{what} larger than the {self._most_bytes >> 20} MiB that go through this call, because all of it is "
            "kept in memory. `askos cp` has no such limit; or copy parts, or let the operator raise ASKOS_ARCHIVE_MIB.",
            code="container.too-large",
        )

    # -- native ------------------------------------------------------------------------------------------------

    async def stream_out(self, request: Request) -> web.StreamResponse:
        """GET: a file or folder as a tar archive."""
        path = _path(request.query.get("path"))
        capsule = await self._containers.find(request, "get_archive")
        state.check("get_archive", capsule)
        stream = await self._containers.open(capsule, "get_archive", {"path": path})
        response = web.StreamResponse(headers={"X-Openstack-Request-Id": request.request_id})
        response.content_type = "application/x-tar"
        try:
            frames = stream.frames()
            # The first piece says that the path is there; a failure before it is an error of HTTP.
            first = await anext(frames, None)
            await response.prepare(request.raw)
            if first is not None:
                await response.write(first.data)
            try:
                async for frame in frames:
                    await response.write(frame.data)
            except AskosError:
                # An archive that ends early must not look like a whole one.
                if request.raw.transport is not None:
                    request.raw.transport.abort()
                return response
            await response.write_eof()
        finally:
            await stream.close()
        return response

    async def stream_in(self, request: Request) -> web.Response:
        """PUT: the tar archive that is the body, into a folder."""
        path = _path(request.query.get("path"))
        capsule = await self._containers.find(request, "put_archive")
        state.check("put_archive", capsule)
        stream = await self._containers.open(capsule, "put_archive", {"path": path})
        try:
            await deliver(stream, stream.frames(), request.raw.content.iter_chunked(_CHUNK))
        finally:
            await stream.close()
        return web.Response(status=204)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK]


def _path(given: Any) -> str:
    if not isinstance(given, str) or not given:
        raise invalid_query("path", "" if given is None else given, "a path is required")
    if "\0" in given or len(given) > 4096:
        raise invalid_query("path", given[:200], "it is no path")
    return given


def _text(data: bytes, version: Version) -> str:
    if version >= BASE64_SINCE:
        return base64.b64encode(data).decode()
    try:
        return data.decode()
    except UnicodeDecodeError:
        title = f"This archive is not text, and cannot be told at {version}: ask at {BASE64_SINCE} or later."
        raise ApiError(400, title, code="container.invalid") from None


def _bytes(body: dict[str, Any], version: Version) -> bytes:
    data = body.get("data")
    if not data:
        raise invalid_field("data", "" if data is None else data, "a tar archive is required")
    if version < BASE64_SINCE:
        try:
            return str(data).encode()
        except UnicodeEncodeError:
            raise invalid_field("data", "", "it holds half characters") from None
    try:
        return base64.b64decode("".join(str(data).split()), validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, "The archive's data is not base64.", code="container.base-64-exception") from None
