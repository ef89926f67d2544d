"""A capsule as Zun clients see it, in the two forms that Zun has: up to 1.31, and from 1.32 on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from askos.api.microversion import MIN, Version
from askos.api.rendered import Blanks, Piece
from askos.api.representation import addresses, time_text
from askos.model.capsules import Capsule, ContainerReport
from askos.model.pods import Container, EnvVar, PodSpec
from askos.plan import resources, zun_capsules, zun_status
from askos.plan.environment import MOST, UnresolvedError, expand

NEW_FORM = Version(1, 32)
Detail = Callable[[str, ContainerReport | None], str | None]
"""What stands for a container's status_detail, by status and what was reported."""

_MIB = 1 << 20
_POLICIES = {"Always": "always", "OnFailure": "on-failure", "Never": "no"}


def links(host_url: str, uuid: str) -> list[dict[str, str]]:
    """The two links of a capsule."""
    return [
        {"href": f"{host_url}/v1/capsules/{uuid}", "rel": "self"},
        {"href": f"{host_url}/capsules/{uuid}", "rel": "bookmark"},
    ]


def capsule_json(
    capsule: Capsule, now_us: int, version: Version, host_url: str, *, admin: bool, host_name: str | None
) -> dict[str, Any]:
    """The whole representation. What only administrators see is absent for others, not null."""

    def detail(status: str, report: ContainerReport | None) -> str | None:
        return zun_status.status_detail(status, report, now_us)

    return _capsule(capsule, version, host_url, detail, admin=admin, host_name=host_name)


def capsule_piece(capsule: Capsule, *, new_form: bool, admin: bool) -> Piece:
    """The same as an item of lists, to be filled in when it is read."""
    blanks = Blanks()
    version = NEW_FORM if new_form else MIN
    shown = _capsule(capsule, version, blanks.URL, blanks.detail, admin=admin, host_name=blanks.HOST)
    return blanks.piece(capsule, shown)


def _capsule(
    capsule: Capsule, version: Version, host_url: str, detail: Detail, *, admin: bool, host_name: str | None
) -> dict[str, Any]:
    pod = capsule.spec.pod
    assert pod is not None
    view = zun_capsules.view(capsule)
    claim = resources.claim(pod)
    policy = _POLICIES[pod.spec.restart_policy]
    shown: dict[str, Any] = {
        "uuid": capsule.uuid,
        "links": links(host_url, capsule.uuid),
        "project_id": capsule.project_id,
        "user_id": capsule.user_id,
        "status": view.status,
        "status_reason": view.status_reason,
        "annotations": pod.metadata.annotations,
        "cpu": claim.cpu_milli / 1000,
        "memory": _mib(claim.memory_bytes),
        "addresses": addresses(capsule),
        "created_at": time_text(capsule.created_us),
        "updated_at": time_text(capsule.updated_us),
        "containers": [
            _container(capsule, c, "app", policy, detail, admin=admin, host_name=host_name) for c in pod.spec.containers
        ],
        "init_containers": [
            _container(capsule, c, "init", _init_policy(c, policy), detail, admin=admin, host_name=host_name)
            for c in pod.spec.init_containers
        ],
    }
    if version >= NEW_FORM:
        shown |= {"name": capsule.name, "labels": pod.metadata.labels, "restart_policy": _restart_policy(policy)}
    else:
        # gophercloud tells the forms apart by the type of restart_policy: they must not be mixed.
        shown |= {
            "meta_name": capsule.name,
            "meta_labels": pod.metadata.labels,
            "restart_policy": policy,
            "volumes_info": {},
            "containers_uuids": [],
            "init_containers_uuids": [],
            "capsule_version": "",
        }
    if admin:
        shown["host"] = host_name
    return shown


def _init_policy(container: Container, policy: str) -> str:
    """What is true for an init container: one that fails is tried again, one that is done is not started again."""
    if container.restart_policy == "Always" or policy == "no":
        return "always" if container.restart_policy == "Always" else "no"
    return "on-failure"


def _restart_policy(name: str) -> dict[str, str]:
    return {"Name": name, "MaximumRetryCount": "0"}


def _mib(size_bytes: int) -> str:
    return str(-(-size_bytes // _MIB))


def _container(
    capsule: Capsule,
    container: Container,
    place: zun_capsules.Place,
    policy: str,
    detail: Detail,
    *,
    admin: bool,
    host_name: str | None,
) -> dict[str, Any]:
    pod = capsule.spec.pod
    assert pod is not None
    view = zun_capsules.container_words(capsule, container, place)
    cpu = resources.request(container, resources.CPU)
    memory = resources.request(container, resources.MEMORY)
    shown: dict[str, Any] = {
        "uuid": zun_capsules.container_uuid(capsule.uuid, place, container.name),
        "name": container.name,
        "project_id": capsule.project_id,
        "user_id": capsule.user_id,
        "image": container.image,
        "command": [_expanded(word, {}) for word in container.args],
        "entrypoint": [_expanded(word, {}) for word in container.command],
        "cpu": cpu / 1000 if cpu else None,
        "cpu_policy": "shared",
        "memory": _mib(memory) if memory else None,
        "disk": 0,
        "status": view.status,
        "status_reason": view.status_reason,
        "status_detail": None if view.timed is None else detail(view.status, view.timed),
        "task_state": None,
        "environment": _environment(container.env),
        "labels": {},
        "workdir": container.working_dir or None,
        "hostname": _hostname(pod.spec, capsule.name),
        "ports": [port.container_port for port in container.ports],
        "addresses": {},
        "restart_policy": _restart_policy(policy),
        "interactive": container.stdin,
        "tty": container.tty,
        "auto_remove": False,
        "auto_heal": False,
        "image_driver": None,
        "security_groups": [],
        "healthcheck": {},
        "registry_id": None,
        "created_at": time_text(capsule.created_us),
        "updated_at": time_text(capsule.updated_us),
    }
    if admin:
        shown["host"] = host_name
        shown["image_pull_policy"] = (container.image_pull_policy or "").lower() or None
        shown["privileged"] = container.security_context.privileged
        shown["runtime"] = pod.spec.runtime_class_name
    return shown


def _environment(variables: list[EnvVar]) -> dict[str, str]:
    """What was given as text. Values that come from content are not read for this: they may be secret."""
    known: dict[str, str] = {}
    left = MOST
    for variable in variables:
        if variable.value_from is None:
            text = variable.value if left < 0 else _expanded(variable.value, known)
            known[variable.name] = text
            left -= len(text)
    return known


def _expanded(text: str, values: dict[str, str]) -> str:
    """With variables put in; as it was given when that cannot be: the container's host says what is wrong."""
    try:
        return expand(text, values)
    except UnresolvedError:
        return text


def _hostname(spec: PodSpec, name: str) -> str:
    return spec.hostname or name[:63].rstrip("-.")
