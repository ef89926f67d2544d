"""The way of a request to the image service, and Glance's form of errors."""

from __future__ import annotations

import html
import http
from typing import Any

from aiohttp import web

from askos.api import service
from askos.api.service import decoded, reply
from askos.model import errors
from askos.model.identity import Caller
from askos.ports.image_store import ImageReader, ImageStore

BASE = "/image/v2"
MAX_BODY = 1 << 20


class Ask(service.Ask):
    """One request: who sends it, and what."""

    def __init__(self, raw: web.Request, caller: Caller) -> None:
        super().__init__(raw, caller)
        self.reader = ImageReader(caller.project_id, caller.is_admin)

    @property
    def uuid(self) -> str:
        """The image that the path names."""
        return self.raw.match_info["image_id"]

    async def body(self, kind: type) -> Any:
        """The JSON of a body. InvalidError."""
        data = await self.raw.content.read(MAX_BODY + 1) if self.raw.can_read_body else b""
        while len(data) <= MAX_BODY and (more := await self.raw.content.read(MAX_BODY)):
            data += more
        if len(data) > MAX_BODY:
            raise errors.InvalidError(f"The body of the request is larger than {MAX_BODY} bytes.")
        value = decoded(data, errors.InvalidError("JSON body is malformed: it cannot be read."))
        if not isinstance(value, kind):
            raise errors.InvalidError(
                f"JSON body is malformed: it must be {'an object' if kind is dict else 'a list'}."
            )
        return value


class Context(service.Service[ImageStore, Ask]):
    """What all handlers share."""

    root = "/image"
    kind, model = "image", "Glance"
    statuses = ((errors.StorageFullError, 413), *service.STATUSES)

    def ask(self, raw: web.Request, caller: Caller) -> Ask:
        """What handlers get."""
        return Ask(raw, caller)

    def refused(self, request: web.Request, status: int, error: errors.AskosError) -> web.Response:
        """The answer to what was refused."""
        return refusal(request, status, error.message)

    def rejected(self, request: web.Request, error: web.HTTPException) -> web.Response:
        """The answer to what HTTP itself does not allow."""
        return refusal(request, error.status, f"{error.reason}.")

    def failed(self, request: web.Request, request_id: str) -> web.Response:
        """The answer when we are at fault."""
        why = f"The server failed to handle this request. Its log has more, under {request_id}."
        return refusal(request, 500, why)

    def unauthorized(self, request: web.Request) -> web.Response:
        """The answer to who has no token, in the service's own form."""
        return refusal(request, 401, "This server could not verify that you may see this document.")


def refusal(request: web.Request, status: int, message: str) -> web.Response:
    """An error as Glance says it: a small page, or JSON for those who ask for that."""
    phrase = http.HTTPStatus(status).phrase if status != 413 else "Request Entity Too Large"
    if "json" in request.headers.get("Accept", ""):
        response = reply({"message": message, "code": f"{status} {phrase}", "title": phrase}, status)
    else:
        page = (
            f"<html>\n <head>\n  <title>{status} {phrase}</title>\n </head>\n <body>\n  <h1>{status} {phrase}</h1>\n"
            f"  {html.escape(message)}<br /><br />\n\n\n\n </body>\n</html>"
        )
        response = web.Response(text=page, status=status, content_type="text/html", charset="UTF-8")
    if request.body_exists and not request.content.is_eof():
        # What is left of a large body is not read.
        response.force_close()
    return response
