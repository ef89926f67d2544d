"""Guessing gets slow; people who know their password get in."""

from __future__ import annotations

import asyncio

import pytest

from askos.adapters.identity.throttle import Throttle
from askos.model.errors import UnavailableError


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.us = 1_000_000_000
        self.slept: list[float] = []

    def __call__(self) -> int:
        return self.us

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.us += int(seconds * 1e6)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def throttle(time: Time) -> Throttle:
    return Throttle(time, sleep=time.sleep)


async def attempt(throttle: Throttle, user: str, source: str, success: bool) -> None:
    async with throttle.attempt(user, source) as ended:
        ended(success)


async def test_first_mistakes_cost_nothing_then_delay_doubles_up_to_the_maximum(throttle: Throttle, time: Time) -> None:
    for _ in range(12):
        await attempt(throttle, "alice", "192.0.2.1", False)
    assert len(time.slept) == 9  # the first three were free
    assert time.slept[0] == pytest.approx(0.25, rel=0.05)
    assert time.slept[1] == pytest.approx(0.5, rel=0.05)
    assert time.slept == sorted(time.slept)
    assert time.slept[-1] == 4.0


async def test_success_forgives_the_same_pair(throttle: Throttle) -> None:
    for _ in range(6):
        await attempt(throttle, "alice", "192.0.2.1", False)
    assert throttle.delay_s("alice", "192.0.2.1") > 1
    await attempt(throttle, "alice", "192.0.2.1", True)
    assert throttle.delay_s("alice", "192.0.2.1") == 0
    assert throttle.delay_s("bob", "192.0.2.1") == 0


async def test_many_sources_against_one_user_slow_that_user_everywhere_but_never_lock(
    throttle: Throttle, time: Time
) -> None:
    for number in range(200):
        await attempt(throttle, "alice", f"192.0.2.{number}", False)
    assert throttle.delay_s("alice", "198.51.100.7") == 4.0
    assert throttle.delay_s("bob", "198.51.100.7") == 0
    time.slept.clear()
    await attempt(throttle, "alice", "198.51.100.7", True)
    assert time.slept == [4.0]


async def test_one_source_against_many_users_is_slowed_even_with_an_account_of_its_own(throttle: Throttle) -> None:
    for number in range(40):
        await attempt(throttle, f"user{number}", "192.0.2.1", False)
        await attempt(throttle, "mallory", "192.0.2.1", True)
    assert throttle.delay_s("user-next", "192.0.2.1") > 3
    assert throttle.delay_s("user-next", "192.0.2.2") == 0


async def test_an_ipv6_prefix_is_one_source_and_a_mapped_ipv4_address_is_itself(throttle: Throttle) -> None:
    for number in range(30):
        await attempt(throttle, f"user{number}", f"2001:db8::{number:x}", False)
    assert throttle.delay_s("x", "2001:db8::ffff") > 0
    assert throttle.delay_s("x", "2001:db8:0:1::1") == 0
    for number in range(30):
        await attempt(throttle, f"other{number}", "::ffff:192.0.2.9", False)
    assert throttle.delay_s("x", "192.0.2.9") > 0
    assert throttle.delay_s("x", "::ffff:192.0.2.10") == 0


async def test_failures_fade(throttle: Throttle, time: Time) -> None:
    for _ in range(8):
        await attempt(throttle, "alice", "192.0.2.1", False)
    before = throttle.delay_s("alice", "192.0.2.1")
    time.us += 600 * 1_000_000
    assert before > 1
    assert throttle.delay_s("alice", "192.0.2.1") == 0


async def test_parallel_attempts_of_a_delayed_pair_are_bounded_and_seats_come_back(time: Time) -> None:
    gate = asyncio.Event()

    async def wait(_seconds: float) -> None:
        await gate.wait()

    throttle = Throttle(time, max_parallel=4, sleep=wait)
    gate.set()
    for _ in range(6):
        await attempt(throttle, "alice", "192.0.2.1", False)
    gate.clear()
    waiting = [asyncio.create_task(attempt(throttle, "alice", "192.0.2.1", False)) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError):
        await attempt(throttle, "alice", "192.0.2.1", True)
    # The same user elsewhere is not touched.
    await attempt(throttle, "alice", "192.0.2.2", True)
    waiting.pop().cancel()
    await asyncio.sleep(0)
    waiting.append(asyncio.create_task(attempt(throttle, "alice", "192.0.2.1", True)))
    gate.set()
    await asyncio.gather(*waiting)
    assert not throttle._seats


async def test_memory_is_bounded(time: Time) -> None:
    throttle = Throttle(time, max_keys=100, sleep=time.sleep)
    for number in range(1000):
        await attempt(throttle, f"user{number}", f"10.0.{number // 250}.{number % 250}", False)
    assert len(throttle._failures) <= 100
