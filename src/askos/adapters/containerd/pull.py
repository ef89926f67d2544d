"""Pulling images through CRI, with progress, patience and errors that say what is wrong.

CRI says nothing while it pulls, so progress comes from containerd's list of downloads under way. When nothing has
moved for a minute the pull is given up: a registry that swallows packets would otherwise hold it for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import Any

from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.reasons import shorten
from askos.adapters.containerd.rpc import Client, RpcError
from askos.model.errors import AskosError, NotFoundError, RuntimeFailedError, UnavailableError
from askos.model.images import DEFAULT_DOMAIN
from askos.ports.runtime import Credential, PullProgress

STALL_S = 60.0
# Once everything is here it is unpacked, which the list of downloads does not show.
_UNPACK_S = 900.0
_LONGEST_S = 4 * 3600.0
_LOOK_S = 0.5
_MISSING = ("not found", "pull access denied", "unauthorized", "401", "403 forbidden", "denied:", "insufficient_scope")
_UNREACHABLE = (
    "dial tcp",
    "connection refused",
    "no such host",
    "i/o timeout",
    "tls handshake",
    "network is unreachable",
    "no route to host",
    "connection reset",
    "server misbehaving",
    "context deadline exceeded",
    "unexpected eof",
    ": eof",
    "x509",
    "500 internal",
    "502 bad gateway",
    "503 service",
    "504 gateway",
    "429 too many",
)
_URL = re.compile(r'"https?://([^/"]+)')


async def pull(
    client: Client,
    ref: str,
    progress: PullProgress | None,
    stall_s: float = STALL_S,
    credential: Credential | None = None,
) -> str:
    """Pull a normalised reference; returns what CRI names it by. Raises as `Runtime.pull` does."""
    request = cri.PullImageRequest(image=cri.ImageSpec(image=ref), auth=_auth(ref, credential))
    pulling = asyncio.create_task(client.cri("PullImage", request, _LONGEST_S))
    meter = _Meter()
    try:
        while True:
            await asyncio.wait({pulling}, timeout=_LOOK_S)
            if pulling.done():
                break
            with contextlib.suppress(RpcError):
                answer = await client.call("content.v1.Content/ListStatuses", api.ListStatusesRequest(), 5.0)
                if meter.look(answer.statuses) and progress is not None:
                    progress(meter.done, meter.total)
            if time.monotonic() - meter.moved > (_UNPACK_S if meter.complete else stall_s):
                raise UnavailableError(
                    f"Could not pull {ref}: nothing came from {ref.split('/', maxsplit=1)[0]} for {stall_s:.0f} s. "
                    "Check the network of the host and try again."
                )
        answer = await pulling
    except RpcError as error:
        raise _explained(_without(credential, error), ref) from None
    finally:
        if not pulling.done():
            pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)
    if progress is not None and meter.total:
        progress(meter.total, meter.total)
    return str(answer.image_ref)


class _Meter:
    """Adds the downloads under way up. One that has left the list has come to its end."""

    def __init__(self) -> None:
        self.moved = time.monotonic()
        self._seen: dict[str, tuple[int, int]] = {}
        self._active = 0

    @property
    def done(self) -> int:
        return sum(offset for offset, _ in self._seen.values())

    @property
    def total(self) -> int:
        return sum(total for _, total in self._seen.values())

    @property
    def complete(self) -> bool:
        return bool(self._seen) and not self._active

    def look(self, statuses: list[api.ContentStatus]) -> bool:
        """Take a new list in; whether anything has moved since the last."""
        before = self.done, len(self._seen)
        current = {s.ref: (s.offset, max(s.total, s.offset)) for s in statuses if "sha256:" in s.ref}
        self._active = len(current)
        for ref, (_, total) in self._seen.items():
            if ref not in current:
                self._seen[ref] = (total, total)
        self._seen.update(current)
        if (self.done, len(self._seen)) == before:
            return False
        self.moved = time.monotonic()
        return True


def _auth(ref: str, credential: Credential | None) -> Any:
    if credential is None:
        return None
    domain = ref.split("/", maxsplit=1)[0]
    return cri.AuthConfig(
        username=credential.username,
        password=credential.password,
        identity_token=credential.identity_token,
        registry_token=credential.registry_token,
        # Only the registry itself is to get it, not a mirror of it.
        server_address=f"https://{'registry-1.docker.io' if domain == DEFAULT_DOMAIN else domain}",
    )


def _without(credential: Credential | None, error: RpcError) -> RpcError:
    """The error without a secret that a registry may have sent back."""
    text = error.text
    if credential is not None:
        for secret in (credential.password, credential.identity_token, credential.registry_token):
            text = text.replace(secret, "(secret)") if secret else text
    return RpcError(error.method, error.code, text)


def _explained(error: RpcError, ref: str) -> AskosError:
    text = error.text.lower()
    registry = ref.split("/", maxsplit=1)[0]
    if error.away and "dial tcp" not in text:
        return RuntimeFailedError(f"Could not pull {ref}: containerd does not answer. It is tried again.")
    # First who did not answer: such messages can contain the word "not found" as well (of a host's name).
    if any(word in text for word in _UNREACHABLE):
        match = _URL.search(error.text)
        where = match[1] if match else registry
        return UnavailableError(
            f"Could not pull {ref}: the registry {where} cannot be reached ({_cause(error.text)}). "
            "Check the host's network, or load the image from an archive."
        )
    if error.not_found or any(word in text for word in _MISSING):
        return NotFoundError(
            f"Image {ref} does not exist in the registry {registry}, or needs a login. Check its name.",
            "image-not-found",
        )
    return RuntimeFailedError(f"Could not pull {ref}: {shorten(error.text)}")


def _cause(text: str) -> str:
    return text.strip().rsplit(": ", 1)[-1][:120]
