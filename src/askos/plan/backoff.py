"""How long to wait before trying again."""

from __future__ import annotations

_SECOND_US = 1_000_000


def restart_delay_us(attempt: int, lasted_us: int) -> int:
    """The pause before restart number `attempt` + 1 of a container: 0.1 s, doubling to one minute.

    A container that had lasted ten seconds or longer is restarted as if it were the first time.
    """
    if lasted_us >= 10 * _SECOND_US:
        return _SECOND_US // 10
    return int(min(60 * _SECOND_US, (_SECOND_US // 10) * 2 ** min(attempt, 12)))


def retry_delay_us(failures: int) -> int:
    """The pause before an action is tried again after `failures` failures in a row: 0.2 s, doubling to 30 s."""
    return int(min(30 * _SECOND_US, (_SECOND_US // 5) * 2 ** min(failures - 1, 10)))


CRASH_RESET_US = 600 * _SECOND_US
"""A container of a pod that ran as long as this is restarted as if it were the first time."""


def crash_delay_us(crashes: int) -> int:
    """The pause before a container of a pod is started again after `crashes` ends in a row: none after the first,
    then 10 s, doubling to 300 s."""
    if crashes <= 1:
        return 0
    return int(min(300 * _SECOND_US, 10 * _SECOND_US * 2 ** min(crashes - 2, 10)))


def pull_delay_us(failures: int) -> int:
    """The pause before an image is asked for again after `failures` failures in a row: 10 s, doubling to 300 s."""
    return int(min(300 * _SECOND_US, 10 * _SECOND_US * 2 ** min(max(failures, 1) - 1, 10)))
