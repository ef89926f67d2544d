"""Security groups and floating addresses on their way to hosts.

Level-triggered: what a host must make true is computed from the store as a whole, and sent when it is not what the
host's present session has confirmed. A ring only makes that happen sooner.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec

from askos.loops.wake import Bell
from askos.model.errors import AskosError, UnavailableError
from askos.model.networks import NetworkState
from askos.ports.calls import HostCalls
from askos.ports.network_store import NetworkStore

_log = logging.getLogger(__name__)

DEBOUNCE_S = 0.02
"""How long to wait behind a ring, so that a burst of changes is one."""
REST = 4
"""A pass is followed by a rest of so many times its length: with very many capsules this is not all a server does."""
MOST_REST_S = 0.25
"""A host that has taken a state gets the next one after a rest as long as it took, but not longer than this: while
capsules come in a burst, packet rules take no more than half of its time, and each new port waits for little more."""
CALL_S = 30.0
NOTHING = NetworkState()


class NetworkLoop:
    """Runs until cancelled. `sessions` tells which hosts are connected, each with the number of its session."""

    def __init__(
        self,
        networking: NetworkStore,
        calls: HostCalls,
        sessions: Callable[[], Mapping[str, int]],
        *,
        every_s: float = 15.0,
    ) -> None:
        self._networking = networking
        self._calls = calls
        self._sessions = sessions
        self._every_s = every_s
        self._confirmed: dict[str, tuple[int, NetworkState]] = {}
        """By host: what it has confirmed, in which session."""
        self._wanted: dict[str, NetworkState] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._revision = 0
        self.bell = Bell()

    async def run(self) -> None:
        """Send what is news; again at every ring and every few seconds."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                begun = loop.time()
                try:
                    await self.once()
                except AskosError as error:
                    _log.warning("security groups could not be worked out: %s", error)
                except Exception:
                    _log.exception("working out security groups failed; trying again")
                await asyncio.sleep((loop.time() - begun) * REST)
                if await self.bell.wait(self._every_s):
                    await asyncio.sleep(DEBOUNCE_S)
        finally:
            for task in self._sending.values():
                task.cancel()

    async def once(self) -> None:
        """One pass: work out all states, and begin to send those that hosts do not have. A host that is slow keeps
        none of the others waiting; it gets the newest state when it has answered."""
        sessions = self._sessions()
        states = await self._networking.states()
        self._wanted = {host: states.get(host, NOTHING) for host in sessions}
        for host in self._confirmed.keys() - sessions.keys():
            del self._confirmed[host]
        for host, session in sessions.items():
            if host not in self._sending and self._confirmed.get(host) != (session, self._wanted[host]):
                self._sending[host] = asyncio.create_task(self._send(host))

    async def settled(self) -> None:
        """Wait until nothing is being sent."""
        while self._sending:
            await asyncio.gather(*self._sending.values())

    async def _send(self, host: str) -> None:
        """Send a host's newest state, until it has that or does not take it."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                session, state = self._sessions().get(host), self._wanted.get(host)
                if session is None or state is None or self._confirmed.get(host) == (session, state):
                    return
                self._revision += 1
                numbered = msgspec.structs.replace(state, revision=self._revision)
                arguments = {"state": msgspec.to_builtins(numbered)}
                begun = loop.time()
                await self._calls.call(host, "network_state", arguments, CALL_S)
                self._confirmed[host] = (session, state)
                await asyncio.sleep(min(loop.time() - begun, MOST_REST_S))
        except UnavailableError as error:
            _log.info("host %s does not take its security groups now: %s", host, error)
        except AskosError as error:
            _log.warning("host %s could not make its security groups true: %s", host, error)
        except Exception:
            _log.exception("sending security groups to host %s failed", host)
        finally:
            self._sending.pop(host, None)
