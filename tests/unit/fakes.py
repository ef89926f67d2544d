"""Fakes of the ports: a runtime, a host network, calls to hosts, callers and a link's call, all in memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from askos.model.capsules import Network
from askos.model.errors import RuntimeFailedError, UnauthorizedError, UnavailableError
from askos.model.identity import Caller
from askos.model.networks import NetworkState
from askos.ports.calls import Frame
from askos.ports.image_search import FoundImage
from askos.ports.network import Attachment, AttachmentLookup, Names

from .fake_runtime import BUSYBOX, FakeAttach, FakeExec, FakeRuntime, fake_image

__all__ = ["BUSYBOX", "FakeAttach", "FakeExec", "FakeRuntime", "fake_image"]  # the fake runtime's, and what is below

# -- the host network -------------------------------------------------------------------------------------------------


class FakeNetwork:
    """`ports.network.HostNetwork` in memory: `plugged` by capsule uuid, `names` as last set, `collected` calls."""

    def __init__(self) -> None:
        self.lookup: AttachmentLookup | None = None
        self.plugged: dict[str, Attachment] = {}
        self.names: list[Names] = []
        self.state: NetworkState | None = None
        self.collected: list[tuple[set[str], list[Network]]] = []

    async def start(self, lookup: AttachmentLookup) -> None:
        self.lookup = lookup

    async def stop(self) -> None:
        self.lookup = None

    async def attach(self, sandbox_id: str, netns: str, attachment: Attachment) -> None:
        self.plugged[attachment.capsule_uuid] = attachment

    async def connect(self, sandbox_id: str, address: str, port: int, timeout_s: float) -> socket.socket:
        """Pods of the fake have no network: the connection is one of this process."""
        made = socket.create_connection((address, port), timeout_s)
        made.setblocking(False)
        return made

    async def sync(self, sandbox_id: str, attachment: Attachment) -> None:
        self.plugged[attachment.capsule_uuid] = attachment

    async def set_state(self, state: NetworkState) -> None:
        self.state = state

    async def set_names(self, names: list[Names]) -> None:
        self.names = names

    async def collect(self, live_sandboxes: set[str], networks: list[Network]) -> None:
        self.collected.append((live_sandboxes, networks))

    async def remove_all(self) -> None:
        self.plugged.clear()

    async def plug(self, capsule_uuid: str) -> None:
        """What the CNI plugin does for a new sandbox."""
        found = await self.lookup(capsule_uuid) if self.lookup is not None else None
        if found is None:
            raise RuntimeFailedError(f"Could not make the sandbox: {capsule_uuid} is no capsule of this host.")
        self.plugged[capsule_uuid] = found

    def unplug(self, capsule_uuid: str) -> None:
        """What the CNI plugin does for a sandbox that stops."""
        self.plugged.pop(capsule_uuid, None)

    def addresses(self, name: str) -> list[str]:
        """What the name services answer for a name, over all networks."""
        return [address for n in self.names for address in n.addresses.get(name, [])]


# -- identity ---------------------------------------------------------------------------------------------------------


class FakeIdentity:
    """Tokens are `<user>:<project>:<admin|member|reader>`; anything else is refused. `down` makes it unavailable, what
    is in `expired` is good for streams that are open already, what is in `revoked` for nothing."""

    def __init__(self) -> None:
        self.down = False
        self.expired: set[str] = set()
        self.revoked: set[str] = set()
        self.asked: list[str] = []

    async def validate(self, token: str, *, allow_expired: bool = False) -> Caller:
        self.asked.append(token)
        if self.down:
            raise UnavailableError("The identity service does not answer.")
        if token in self.revoked or (token in self.expired and not allow_expired):
            raise UnauthorizedError("The token is not valid.")
        parts = token.split(":")
        if len(parts) != 3 or parts[2] not in ("admin", "member", "reader"):
            raise UnauthorizedError("The token is not valid.")
        return Caller(parts[0], parts[1], parts[2] == "admin", [parts[2]])


class FakeSearch:
    """`ports.image_search.ImageSearch` over `images`; `down` makes it unavailable."""

    def __init__(self) -> None:
        self.down = False
        self.images: list[FoundImage] = []

    async def search(self, term: str) -> list[FoundImage]:
        if self.down:
            raise UnavailableError("The registry does not answer.")
        return [image for image in self.images if term in image.name]


# -- calls to hosts ---------------------------------------------------------------------------------------------------

Answer = Callable[[dict[str, Any]], Any] | Exception | Any


class FakeCallStream:
    """`ports.calls.CallStream`: gives prepared frames, then the result or an error. `reads`: the result comes when all
    that is sent has come."""

    def __init__(self, prepared: list[Frame], result: Any, *, reads: bool = False) -> None:
        self._prepared = prepared
        self._over = asyncio.Event()
        if not reads:
            self._over.set()
        self._outcome = result
        self.result: Any = None
        self.sent: list[Frame] = []
        self.closed = False

    async def send(self, frame: Frame) -> None:
        self.sent.append(frame)
        if frame.eof:
            self._over.set()

    async def frames(self) -> AsyncIterator[Frame]:
        for frame in self._prepared:
            yield frame
        if isinstance(self._outcome, Exception):
            raise self._outcome
        await self._over.wait()
        self.result = self._outcome

    async def close(self) -> None:
        self.closed = True


class FakeHostCalls:
    """`ports.calls.HostCalls`: `answers[method]` is a value, an exception to raise, or a function of the arguments.

    For `open` the answer is (frames, result). `asked` is every (host, method, arguments, timeout). Arguments are
    encoded as the real link does, so that what cannot travel fails here too.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str, dict[str, Any], float | None]] = []
        self.streams: list[FakeCallStream] = []

    def _answer(self, host: str, method: str, arguments: dict[str, Any], timeout_s: float | None) -> Any:
        self.asked.append((host, method, msgspec.json.decode(msgspec.json.encode(arguments)), timeout_s))
        answer = self.answers.get(method, UnavailableError("The container's host is not connected now."))
        if isinstance(answer, Exception):
            raise answer
        return answer(arguments) if callable(answer) else answer

    async def call(self, host_uuid: str, method: str, arguments: dict[str, Any], timeout_s: float) -> Any:
        return self._answer(host_uuid, method, arguments, timeout_s)

    async def open(self, host_uuid: str, method: str, arguments: dict[str, Any]) -> FakeCallStream:
        frames, result = self._answer(host_uuid, method, arguments, None)
        stream = FakeCallStream(list(frames), result, reads=method in {"image_import", "put_archive"})
        self.streams.append(stream)
        return stream


class FakeHostCall:
    """`ports.calls.HostCall`: the host's end, with prepared input; `sent` is what the host sent."""

    def __init__(self, method: str, arguments: dict[str, Any], given: list[Frame] | None = None) -> None:
        self.method = method
        self.arguments = arguments
        self.sent: list[Frame] = []
        self._given = given or []

    async def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    async def frames(self) -> AsyncIterator[Frame]:
        for frame in self._given:
            yield frame

    def text(self, channel: int = 1) -> str:
        """Everything sent on a channel."""
        return b"".join(f.data for f in self.sent if f.channel == channel).decode()
