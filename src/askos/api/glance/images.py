"""Images as the Image API shows and takes them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import ClientError, web

from askos.api.glance import fields
from askos.api.glance.context import Ask, Context
from askos.api.glance.listing import page
from askos.api.service import reply
from askos.model.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError
from askos.model.stored_images import StoredImage

_CHUNK = 1 << 18
_PATCHES = ("application/openstack-images-v2.1-json-patch", "application/openstack-images-v2.0-json-patch")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class Images:
    """The handlers."""

    def __init__(self, context: Context) -> None:
        self._store = context.store
        self._context = context

    async def index(self, ask: Ask) -> web.Response:
        """GET the list."""
        return reply(page(ask, await self._store.images(ask.reader)))

    async def show(self, ask: Ask) -> web.Response:
        """GET one."""
        return reply(fields.shown(await self._store.image(ask.uuid, ask.reader)))

    async def create(self, ask: Ask) -> web.Response:
        """POST: 201, queued until its file comes."""
        ask.may_write()
        made = await self._store.create(fields.new(await ask.body(dict), ask.caller))
        answer = reply(fields.shown(made), 201)
        answer.headers["Location"] = f"{self._context.url(ask.raw)}/image/v2/images/{made.uuid}"
        # There is no way to bring files here but PUT.
        answer.headers["OpenStack-image-import-methods"] = ""
        return answer

    async def update(self, ask: Ask) -> web.Response:
        """PATCH with Glance's JSON patch: all of its operations, or none."""
        ask.may_write()
        kind = ask.raw.content_type
        if kind not in _PATCHES:
            raise web.HTTPUnsupportedMediaType(reason=f"The Content-Type must be {_PATCHES[0]}, not {kind}")
        operations = [_operation(one) for one in await ask.body(list)]

        def change(image: StoredImage) -> StoredImage:
            self._owned(ask, image)
            for what, path, value in operations:
                image = _apply(ask, image, what, path, value)
            return image

        return reply(fields.shown(await self._store.change(ask.uuid, ask.reader, change)))

    async def delete(self, ask: Ask) -> web.Response:
        """DELETE: record and file."""
        ask.may_write()

        def check(image: StoredImage) -> None:
            self._owned(ask, image)
            if image.protected:
                raise ForbiddenError(f"Image {image.uuid} is protected and cannot be deleted.")

        await self._store.delete(ask.uuid, ask.reader, check)
        return web.Response(status=204)

    async def tag(self, ask: Ask) -> web.Response:
        """PUT or DELETE one tag."""
        ask.may_write()
        word, wanted = fields.tag(ask.raw.match_info["tag"]), ask.raw.method == "PUT"

        def change(image: StoredImage) -> StoredImage:
            self._owned(ask, image)
            if not wanted and word not in image.tags:
                raise NotFoundError(f"Image {image.uuid} has no tag {word}.")
            left = [tag for tag in image.tags if tag != word]
            return fields.with_field(image, "tags", [*left, word] if wanted else left, ask.caller)

        await self._store.change(ask.uuid, ask.reader, change)
        return web.Response(status=204)

    async def members(self, ask: Ask) -> web.Response:
        """GET the projects that it is shared with: none."""
        image = await self._store.image(ask.uuid, ask.reader)
        if image.visibility == "public":
            raise ForbiddenError("Public images do not have members.")
        return reply({"members": [], "schema": "/v2/schemas/members"})

    # -- files -------------------------------------------------------------------------------------------------

    async def upload(self, ask: Ask) -> web.Response:
        """PUT the file."""
        ask.may_write()
        if ask.raw.content_type != "application/octet-stream":
            why = f"The Content-Type must be application/octet-stream, not {ask.raw.content_type}"
            raise web.HTTPUnsupportedMediaType(reason=why)
        image = await self._store.image(ask.uuid, ask.reader)
        self._owned(ask, image)
        if not (image.container_format and image.disk_format):
            raise InvalidError(
                f"Cannot upload data for image {image.uuid}: its container_format and disk_format must be set first."
            )
        if image.committed:
            raise ConflictError(f"Cannot upload data for image {image.uuid}: it is made of a container.")
        await self._store.upload(image.uuid, _chunks(ask))
        return web.Response(status=204)

    async def download(self, ask: Ask) -> web.StreamResponse:
        """GET the file, or a part of it. 204 while there is none."""
        image = await self._store.image(ask.uuid, ask.reader)
        if image.status != "active" or image.size_bytes is None:
            return web.Response(status=204)
        start, length = _part(ask, image)
        pieces = self._store.read(image, start, length)
        first = await anext(pieces, b"")
        partial = length != image.size_bytes
        response = web.StreamResponse(status=206 if partial else 200)
        response.content_type = "application/octet-stream"
        response.content_length = length
        response.headers["Accept-Ranges"] = "bytes"
        if partial:
            response.headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{image.size_bytes}"
        elif image.md5:
            response.headers["Content-MD5"] = image.md5
        try:
            await response.prepare(ask.raw)
            if ask.raw.method != "HEAD":
                await response.write(first)
                async for piece in pieces:
                    await response.write(piece)
            await response.write_eof()
        except ConnectionError:
            # Who reads has gone; nobody is left to tell.
            response.force_close()
        finally:
            await pieces.aclose()
        return response

    def _owned(self, ask: Ask, image: StoredImage) -> None:
        if image.project_id != ask.caller.project_id and not ask.caller.is_admin:
            raise ForbiddenError("You are not permitted to modify this image: it belongs to another project.")


async def _chunks(ask: Ask) -> AsyncIterator[bytes]:
    try:
        async for chunk in ask.raw.content.iter_chunked(_CHUNK):
            yield chunk
    except (ClientError, ConnectionError, web.PayloadAccessError) as error:
        raise InvalidError(f"The upload of image {ask.uuid} was cut off: {error}.") from error
    if ask.raw.transport is None or ask.raw.transport.is_closing():
        raise InvalidError(f"The upload of image {ask.uuid} was cut off.")


def _part(ask: Ask, image: StoredImage) -> tuple[int, int]:
    """Where the asked part begins, and its length."""
    size = image.size_bytes or 0
    text = ask.raw.headers.get("Range")
    if text is None:
        return 0, size
    match = _RANGE.fullmatch(text)
    first, last = match.groups() if match is not None else ("", "")
    if match is None or not (first or last):
        raise web.HTTPRequestRangeNotSatisfiable(reason=f"The range {text[:100]} cannot be read")
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last), size - 1) if first and last else size - 1
    if start > end:
        raise web.HTTPRequestRangeNotSatisfiable(reason=f"The range is not in the {size} bytes of the image")
    return start, end - start + 1


def _operation(given: Any) -> tuple[str, list[str], Any]:
    """One operation: add, replace or remove; the parts of its path; its value."""
    if not isinstance(given, dict):
        raise InvalidError("Invalid JSON patch: each operation is an object.")
    what, path = given.get("op"), given.get("path")
    if what not in ("add", "replace", "remove"):
        raise InvalidError(
            f"Invalid operation: {str(what)[:100]!r}. It must be one of the following: add, replace, remove."
        )
    if not isinstance(path, str) or not path.startswith("/") or path == "/" or re.search("~(?![01])", path):
        raise InvalidError(f"Invalid path of a JSON patch: {str(path)[:100]!r}. It begins with / and names a field.")
    if what != "remove" and "value" not in given:
        raise InvalidError(f'Operation "{what}" requires a member named "value".')
    parts = [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    if len(parts) > (2 if parts[0] == "tags" else 1):
        raise InvalidError(f"Invalid path of a JSON patch: {path[:100]!r} leads too deep.")
    return what, parts, given.get("value")


def _apply(ask: Ask, image: StoredImage, what: str, path: list[str], value: Any) -> StoredImage:
    field = path[0]
    if len(path) == 2:
        return _apply_tag(ask, image, what, path[1], value)
    if what == "remove":
        return fields.without(image, field, ask.caller)
    if field == "owner":
        if not ask.caller.is_admin or not isinstance(value, str) or not 0 < len(value) <= 64:
            raise ForbiddenError("Attribute 'owner' can be changed by administrators alone, to the id of a project.")
        return msgspec.structs.replace(image, project_id=value)
    if what == "replace" and not fields.is_known(field) and field not in image.properties:
        raise ConflictError(f"Property {field} does not exist.")
    return fields.with_field(image, field, value, ask.caller)


def _apply_tag(ask: Ask, image: StoredImage, what: str, index: str, value: Any) -> StoredImage:
    tags = list(image.tags)
    if index == "-" and what == "add":
        return fields.with_field(image, "tags", [*tags, value], ask.caller)
    if not re.fullmatch("[0-9]{1,4}", index) or int(index) >= len(tags) + (what == "add"):
        raise ConflictError(f"The image has no tag number {index[:100]}.")
    if what == "add":
        tags.insert(int(index), value)
    elif what == "replace":
        tags[int(index)] = value
    else:
        del tags[int(index)]
    return fields.with_field(image, "tags", tags, ask.caller)
