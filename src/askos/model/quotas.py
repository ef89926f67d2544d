"""Quotas: how much the containers and capsules of one project may take together. Zun's four resources."""

from __future__ import annotations

from typing import Any

import msgspec

from askos.model.errors import ForbiddenError

UNLIMITED = -1
DEFAULT_CLASS = "default"
"""The quota class whose limits are those of projects without their own."""
RESOURCES = ("containers", "memory", "cpu", "disk")


class Limits(msgspec.Struct, frozen=True):
    """At most so much; -1: no limit. `memory` in MiB, `disk` in GiB, `cpu` in CPUs."""

    containers: int = UNLIMITED
    memory: int = UNLIMITED
    cpu: int = UNLIMITED
    disk: int = UNLIMITED

    @property
    def none(self) -> bool:
        """Whether nothing is limited."""
        return all(value == UNLIMITED for value in msgspec.structs.astuple(self))


class Usage(msgspec.Struct, frozen=True):
    """What containers and capsules take: MiB, thousandths of CPUs, and GiB of layers with a limit."""

    containers: int = 0
    memory_mib: int = 0
    cpu_milli: int = 0
    disk_gib: int = 0

    def shown(self) -> dict[str, int | float]:
        """By resource, in the units of `Limits`."""
        return {
            "containers": self.containers,
            "memory": self.memory_mib,
            "cpu": self.cpu_milli / 1000,
            "disk": self.disk_gib,
        }


def override(limits: Limits, changes: dict[str, int]) -> Limits:
    """The limits with some of them replaced, by resource."""
    known: dict[str, Any] = {key: value for key, value in changes.items() if key in RESOURCES}
    return msgspec.structs.replace(limits, **known)


def check(limits: Limits, used: Usage, before: Usage, after: Usage) -> None:
    """Raises ForbiddenError over-quota that names every resource of which too much would be used when a part of it
    grows from `before` to `after`. What does not grow is not looked at: a project that is over a limit that was lowered
    can still change other things."""
    exceeded: list[str] = []
    was, now, total = before.shown(), after.shown(), used.shown()
    for resource in RESOURCES:
        limit = getattr(limits, resource)
        more = now[resource] - was[resource]
        if limit != UNLIMITED and more > 0 and round(total[resource] + more, 3) > limit:
            exceeded.append(resource)
    if exceeded:
        raise ForbiddenError(f"Quota exceeded for resources: {exceeded}", "over-quota")
