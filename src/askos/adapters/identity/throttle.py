"""Slows guessing of passwords down.

Failures are counted three ways: for a user from one source, for a user from everywhere, and for a source
against everybody. Each count beyond what people mistype delays the *next* attempts, the more the higher it
is, up to `max_delay_s`. Nobody is locked out: an attempt with the right password succeeds after the delay,
however many failures others cause. Counts halve every `half_life_s`; a success forgives what the same user
failed from the same source, and nothing else, so an attacker with one account of his own wins nothing by it.

While an attempt is delayed it holds one of `max_parallel` seats of its (user, source); beyond those, attempts
are refused at once. That bounds guessing over many connections from one source, and does not touch the same
user elsewhere. (A burst before the first failure is known gets through; the bound on waiting hashes bounds
it, and what failed then slows what follows for many minutes.) An attacker who shares the user's address can
only make the user try more often.

Memory is bounded: the least recently failed keys are forgotten first.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from askos.model.errors import UnavailableError

_Key = tuple[str, str]

_FREE_OF_PAIR = 3
_FREE_OF_USER = 10
_FREE_OF_SOURCE = 20


class Throttle:
    """Delays of log-ins by what failed before. `clock` gives microseconds; `sleep` waits seconds."""

    def __init__(
        self,
        clock: Callable[[], int],
        *,
        first_delay_s: float = 0.25,
        max_delay_s: float = 4.0,
        half_life_s: float = 120.0,
        max_parallel: int = 4,
        max_keys: int = 20_000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._first_delay_s = first_delay_s
        self._max_delay_s = max_delay_s
        self._half_life_us = half_life_s * 1e6
        self._max_parallel = max_parallel
        self._max_keys = max_keys
        self._sleep = sleep
        self._failures: OrderedDict[_Key, tuple[float, int]] = OrderedDict()
        self._seats: Counter[_Key] = Counter()

    def delay_s(self, user: str, source: str) -> float:
        """How long an attempt has to wait now."""
        network = _network(source)
        excess = max(
            self._count((user, network)) - _FREE_OF_PAIR,
            self._count((user, "")) - _FREE_OF_USER,
            self._count(("", network)) - _FREE_OF_SOURCE,
        )
        if excess <= -1:
            return 0.0
        # `min` before the power: a count may be large enough to overflow it.
        return float(min(self._first_delay_s * 2 ** min(excess, 30.0), self._max_delay_s))

    @asynccontextmanager
    async def attempt(self, user: str, source: str) -> AsyncIterator[Callable[[bool], None]]:
        """Wait as long as needed, then give the function that is told how the attempt ended.

        UnavailableError when too many attempts for this user from this source wait already.
        """
        delay = self.delay_s(user, source)
        if delay > 0:
            seat = (user, _network(source))
            if self._seats[seat] >= self._max_parallel:
                raise UnavailableError(
                    "Cannot log in now: too many attempts for this user from this address wait. "
                    "Try again in some seconds."
                )
            self._seats[seat] += 1
            try:
                await self._sleep(delay)
                yield lambda success: self._ended(user, source, success)
            finally:
                self._seats[seat] -= 1
                if self._seats[seat] <= 0:
                    del self._seats[seat]
        else:
            yield lambda success: self._ended(user, source, success)

    def _ended(self, user: str, source: str, success: bool) -> None:
        network = _network(source)
        keys: list[_Key] = [(user, network), (user, ""), ("", network)]
        change = -self._count(keys[0]) if success else 1.0
        if change == 0:
            return
        for key in keys:
            count = self._count(key) + change
            self._failures.pop(key, None)
            if count > 0.01:
                self._failures[key] = (count, self._clock())
        while len(self._failures) > self._max_keys:
            self._failures.popitem(last=False)

    def _count(self, key: _Key) -> float:
        count, since_us = self._failures.get(key, (0.0, 0))
        if count == 0.0:
            return 0.0
        age_us = max(0, self._clock() - since_us)
        return float(count * 0.5 ** (age_us / self._half_life_us))


def _network(source: str) -> str:
    """What one attacker holds at least: an IPv4 address, or an IPv6 /64."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return source[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(address)
