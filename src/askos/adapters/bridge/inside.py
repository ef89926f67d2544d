"""Connections made inside a sandbox's network namespace.

A socket belongs for life to the namespace in which it was made, whoever uses it later. So a thread only makes it
there, in a fraction of a millisecond, and everything slow (connecting, above all) is the event loop's business. One
thread is enough for all sandboxes; it goes home after each socket, so that it keeps no namespace alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import ip_address

from askos.adapters.bridge import host
from askos.adapters.bridge.journal import Journal
from askos.model.errors import NotFoundError

_CLONE_NEWNET = 0x40000000
_OWN = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)

Resolve = Callable[[str, str], Awaitable[str]]
"""(network uuid, name) to an address. OSError when there is none."""


class Sockets:
    """Makes TCP connections inside the sandboxes that a journal knows."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._pool: ThreadPoolExecutor | None = None

    async def connect(
        self, sandbox_id: str, address: str, port: int, timeout_s: float, resolve: Resolve
    ) -> socket.socket:
        """See `ports.network.HostNetwork.connect`."""
        try:
            async with asyncio.timeout(timeout_s):
                if not _is_numeric(address):
                    address = await self._resolved(sandbox_id, address, resolve)
                made = await self._made(sandbox_id, address)
                try:
                    await asyncio.get_running_loop().sock_connect(made, (address, port))
                except BaseException:
                    made.close()
                    raise
                return made
        except TimeoutError:
            raise TimeoutError(f"no answer from {address}:{port} within {timeout_s:g} s") from None

    async def _resolved(self, sandbox_id: str, name: str, resolve: Resolve) -> str:
        entry = self._journal.read(sandbox_id)
        if entry is None or not entry.networks:
            raise NotFoundError(f"The sandbox {sandbox_id} has no network (any more).")
        return await resolve(entry.networks[0], name)

    async def _made(self, sandbox_id: str, address: str) -> socket.socket:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="askos-netns")
        making = self._pool.submit(self._make, sandbox_id, address)
        try:
            return await asyncio.wrap_future(making)
        except asyncio.CancelledError:
            making.add_done_callback(_discard)
            raise

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None

    def _make(self, sandbox_id: str, address: str) -> socket.socket:
        entry = self._journal.read(sandbox_id)
        try:
            if entry is None or not entry.netns:
                raise FileNotFoundError
            inside = os.open(entry.netns, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFoundError(f"The sandbox {sandbox_id} has no network (any more).") from None
        try:
            home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if os.fstat(inside).st_ino == os.fstat(home).st_ino:
                    raise NotFoundError(f"The sandbox {sandbox_id} has no network of its own.")
                return _within(inside, home, lambda: _tcp(address))
            finally:
                os.close(home)
        finally:
            os.close(inside)


def _is_numeric(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


def _discard(making: Future[socket.socket]) -> None:
    """Nobody waits for this socket any more."""
    if not making.cancelled() and making.exception() is None:
        making.result().close()


def _tcp(address: str) -> socket.socket:
    made = socket.socket(host.family_of(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    with contextlib.suppress(OSError):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _within(inside: int, home: int, make: Callable[[], socket.socket]) -> socket.socket:
    """Call `make` in another namespace and come back; both are descriptors. Raises OSError."""
    _enter(inside)
    try:
        made = make()
    finally:
        _enter(home)
    return made


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
