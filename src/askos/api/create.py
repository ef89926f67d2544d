"""From the body of a create to a capsule's spec, as far as nothing has to be looked up.

What names something else (networks, volumes, groups, hosts) is looked up in `lookups`. Nothing that was asked for is
dropped silently; what clients send without meaning it (empty lists, their defaults) passes.
"""

from __future__ import annotations

import math
import random
import re
import shlex
from typing import Any, Literal

from askos.api import policy, schemas
from askos.api.errors import ApiError, invalid_field, invalid_value
from askos.api.microversion import Version
from askos.model.capsules import (
    CapsuleSpec,
    ContainerSpec,
    Healthcheck,
    PlacementWish,
    PullPolicy,
    RestartPolicy,
)
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

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_HEALTH_LIMITS = {"interval": 86_400, "timeout": 86_400, "retries": 1000}
_LONGEST_HINT = 255


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
    policy.enforce(caller, "container:create")
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
    driver: Literal["docker", "glance"] = "glance" if body.get("image_driver") == "glance" else "docker"
    check_image("image", body["image"], driver)
    if body.get("security_groups") and body.get("exposed_ports"):
        raise ApiError(
            400,
            "security_groups and exposed_ports exclude each other: for exposed ports a group is made",
            code="container.schema-validation-error",
        )
    zone = body.get("availability_zone") or ""
    if zone and zone not in zones:
        raise invalid_field("availability_zone", zone, f"the zones are: {', '.join(sorted(zones)) or 'none'}")
    command = body.get("command")
    if isinstance(command, str):
        command = split("command", command)
    interactive = schemas.boolean(body.get("interactive"), False)
    tty = schemas.boolean(body.get("tty"), False)
    if (1, 20) <= version <= (1, 35) and body.get("interactive") is not None:
        tty = interactive
    cpu = cpu_of(body, limits)
    cpu_policy: Literal["shared", "dedicated"] = "dedicated" if body.get("cpu_policy") == "dedicated" else "shared"
    check_cores(cpu_policy, cpu)
    disk = body.get("disk")
    container = ContainerSpec(
        name="main",
        image=body["image"],
        entrypoint=body.get("entrypoint"),
        command=command,
        environment=body.get("environment") or {},
        workdir=body.get("workdir"),
        interactive=interactive,
        tty=tty,
        cpu=cpu,
        memory_mib=memory_of(body, limits),
        image_pull_policy=_PULL[(body.get("image_pull_policy") or "ifnotpresent").lower()],
        privileged=schemas.boolean(body.get("privileged"), False),
        cpu_policy=cpu_policy,
        disk_gib=0 if disk is None else int(schemas.number("disk", disk, 1, limits.max_disk_gib)),
        healthcheck=_healthcheck(body.get("healthcheck")),
        exposed_ports=_exposed_ports(body.get("exposed_ports")),
        image_driver=driver,
    )
    spec = CapsuleSpec(
        containers=[container],
        hostname=body.get("hostname"),
        restart_policy=_restart_policy(body.get("restart_policy")),
        auto_remove=schemas.boolean(body.get("auto_remove"), False),
        labels={k: v if isinstance(v, str) else str(v) for k, v in (body.get("labels") or {}).items()},
        runtime=body.get("runtime") or "",
        auto_heal=schemas.boolean(body.get("auto_heal"), False),
        placement=PlacementWish(body.get("host") or "", zone, _hints(body.get("hints"))),
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


def check_image(field: str, image: str, driver: str) -> None:
    """Raises a 400 for what cannot be the name of an image. Glance's images have any name."""
    if driver == "glance":
        return
    try:
        normalise(image)
    except InvalidError as error:
        raise invalid_field(field, image, error.message) from error


def cpu_of(body: dict[str, Any], limits: schemas.Limits, default: float = 1.0) -> float:
    """The field cpu, else the default."""
    cpu = body.get("cpu")
    return default if cpu is None else schemas.number("cpu", cpu, limits.min_cpu, limits.max_cpu)


def memory_of(body: dict[str, Any], limits: schemas.Limits, default: int = 512) -> int:
    """The field memory in MiB, else the default."""
    memory = body.get("memory")
    if memory is None:
        return default
    return int(schemas.number("memory", memory, limits.min_memory_mib, limits.max_memory_mib))


def check_cores(cpu_policy: str, cpu: float) -> None:
    """Raises a 400 for parts of dedicated cores."""
    if cpu_policy == "dedicated" and not (cpu >= 1 and math.floor(cpu) == cpu):
        raise invalid_field("cpu", cpu, "with the cpu_policy dedicated it is a number of whole cores")


def _healthcheck(given: dict[str, Any] | None) -> Healthcheck | None:
    if not given:
        return None
    command = given.get("cmd")
    if not command:
        raise invalid_field("healthcheck", given, "cmd is required: the shell command that checks")
    numbers = {
        name: int(schemas.number(name, given[name], 1, highest))
        for name, highest in _HEALTH_LIMITS.items()
        if given.get(name) is not None
    }
    usual = Healthcheck(command)
    return Healthcheck(
        command,
        numbers.get("interval", usual.interval_s),
        numbers.get("retries", usual.retries),
        numbers.get("timeout", usual.timeout_s),
    )


def _exposed_ports(given: dict[str, Any] | None) -> list[str]:
    """Such as "80/tcp", each once, in the order of numbers."""
    found: set[tuple[int, str]] = set()
    for text in given or {}:
        number, slash, protocol = text.partition("/")
        if slash and protocol not in ("tcp", "udp"):
            raise invalid_value(f"value {protocol} is an invalid protocol")
        if not _PORT.fullmatch(number) or not 1 <= int(number) <= 65535:
            raise invalid_value(f"value {number} is invalid as publish port.")
        found.add((int(number), protocol or "tcp"))
    return [f"{number}/{protocol}" for number, protocol in sorted(found)]


def _hints(given: dict[str, Any] | None) -> dict[str, str]:
    """Hints as text. Those that begin with "label:" are for the placement, others for schedulers that are not here."""
    found: dict[str, str] = {}
    for key, value in (given or {}).items():
        if not isinstance(value, str | int | float | bool):
            raise invalid_field("hints", given, f"the value of {key!r} must be a text")
        text = str(value)
        if len(key) > _LONGEST_HINT or len(text) > _LONGEST_HINT:
            raise invalid_field("hints", given, f"keys and values have at most {_LONGEST_HINT} characters")
        found[key] = text
    return found


def _restart_policy(given: dict[str, Any] | None) -> RestartPolicy:
    if not given:
        return RestartPolicy()
    name = given["Name"]
    retries = int(given.get("MaximumRetryCount") or 0)
    if retries and name in ("always", "unless-stopped"):
        raise invalid_value(f"maximum retry count not valid with restart policy of {name}")
    return RestartPolicy(name, retries if name == "on-failure" else 0)
