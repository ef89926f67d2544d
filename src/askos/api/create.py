"""From the body of a create to a capsule's spec.

What this release cannot do yet is refused by name. Nothing that was asked for is dropped silently; what clients send
without meaning it (empty lists, their defaults) passes.
"""

from __future__ import annotations

import random
import shlex
from typing import Any

from askos.api import policy, schemas
from askos.api.errors import ApiError, invalid_field, invalid_value
from askos.api.microversion import Version
from askos.model.capsules import CapsuleSpec, ContainerSpec, PullPolicy, RestartPolicy
from askos.model.errors import InvalidError
from askos.model.identity import Caller
from askos.model.images import normalise

_GREEK = [
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"),
    *("nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
]

_PULL: dict[str, PullPolicy] = {"never": "never", "always": "always", "ifnotpresent": "ifnotpresent"}

_POLICIES = {
    "image_pull_policy": "container:create:image_pull_policy",
    "runtime": "container:create:runtime",
    "privileged": "container:create:privileged",
    "host": "container:create:requested_destination",
}

_LATER = ("nets", "security_groups", "mounts", "exposed_ports", "healthcheck", "hints", "registry", "runtime")
"""Fields of which only an empty value can be served in this release."""


def greek() -> str:
    """The part of Zun's names that tells them apart, such as omega-7."""
    return f"{random.choice(_GREEK)}-{random.randint(1, 24)}"  # noqa: S311 - a name, not a secret


def random_name(noun: str = "container") -> str:
    """Zun's way to name what has no name."""
    return f"{greek()}-{noun}"


def spec_of(
    body: dict[str, Any], version: Version, caller: Caller, zones: set[str], limits: schemas.Limits
) -> tuple[str, CapsuleSpec]:
    """Name and spec of a checked body. Raises 400s and 403s that name the field."""
    for field, since in schemas.CREATE_SINCE.items():
        if body.get(field) is not None and version < since:
            raise ApiError(
                400,
                f"Invalid param {field} because current request version is {version}. "
                f"{field} is only supported from version {since}",
                code="container.invalid-param-in-version",
            )
    for field, rule in _POLICIES.items():
        # Zun asks policy whenever the key is there and not null, even for `false`.
        if body.get(field) is not None:
            policy.enforce(caller, rule)
    _refuse_unsupported(body, zones)
    try:
        normalise(body["image"])
    except InvalidError as error:
        raise invalid_field("image", body["image"], error.message) from error
    command = body.get("command")
    if isinstance(command, str):
        command = split("command", command)
    interactive = schemas.boolean(body.get("interactive"), False)
    tty = schemas.boolean(body.get("tty"), False)
    if (1, 20) <= version <= (1, 35) and body.get("interactive") is not None:
        tty = interactive
    cpu = body.get("cpu")
    memory = body.get("memory")
    container = ContainerSpec(
        name="main",
        image=body["image"],
        entrypoint=body.get("entrypoint"),
        command=command,
        environment=body.get("environment") or {},
        workdir=body.get("workdir"),
        interactive=interactive,
        tty=tty,
        cpu=1.0 if cpu is None else schemas.number("cpu", cpu, limits.min_cpu, limits.max_cpu),
        memory_mib=512
        if memory is None
        else int(schemas.number("memory", memory, limits.min_memory_mib, limits.max_memory_mib)),
        image_pull_policy=_PULL[(body.get("image_pull_policy") or "ifnotpresent").lower()],
    )
    spec = CapsuleSpec(
        containers=[container],
        hostname=body.get("hostname"),
        restart_policy=_restart_policy(body.get("restart_policy")),
        auto_remove=schemas.boolean(body.get("auto_remove"), False),
        labels={k: v if isinstance(v, str) else str(v) for k, v in (body.get("labels") or {}).items()},
    )
    if spec.auto_remove and spec.restart_policy.name != "no":
        raise invalid_value("auto_remove and restart_policy exclude each other: a removed container cannot restart")
    return body.get("name") or random_name(), spec


def split(field: str, command: str) -> list[str]:
    """A shell-quoted string as words."""
    try:
        return shlex.split(command)
    except ValueError as error:
        raise invalid_field(field, command, f"it cannot be split into words: {error}") from error


def _refuse_unsupported(body: dict[str, Any], zones: set[str]) -> None:
    for field in _LATER:
        if body.get(field):
            raise invalid_field(field, body[field], "it is not supported by this release of Askos; leave it out")
    if body.get("host"):
        raise invalid_field("host", body["host"], "choosing a host is not supported by this release of Askos")
    if body.get("disk") is not None:
        raise invalid_field("disk", body["disk"], "disk limits are not supported by this release of Askos")
    if body.get("cpu_policy") == "dedicated":
        raise invalid_field("cpu_policy", "dedicated", "dedicated CPUs are not supported by this release of Askos")
    if body.get("image_driver") == "glance":
        raise invalid_field("image_driver", "glance", "this cloud has no Glance; use docker or leave it out")
    if schemas.boolean(body.get("auto_heal"), False):
        raise invalid_field("auto_heal", body["auto_heal"], "it is not supported by this release of Askos")
    zone = body.get("availability_zone")
    if zone is not None and zone not in zones:
        raise invalid_field("availability_zone", zone, f"the zones are: {', '.join(sorted(zones)) or 'none'}")


def _restart_policy(given: dict[str, Any] | None) -> RestartPolicy:
    if not given:
        return RestartPolicy()
    name = given["Name"]
    retries = int(given.get("MaximumRetryCount") or 0)
    if retries and name in ("always", "unless-stopped"):
        raise invalid_value(f"maximum retry count not valid with restart policy of {name}")
    return RestartPolicy(name, retries if name == "on-failure" else 0)
