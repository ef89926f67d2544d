"""The fields of Zun's capsule template. What Zun takes as a number or a string, or as more than one word, is `Any`
here, and read by `template.py`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from askos.model.pods import RestartRule


class Part(msgspec.Struct, frozen=True, rename="camel"):
    """What all parts of a template have in common."""


class Port(Part, frozen=True):
    """A port that a container listens on."""

    container_port: int
    name: str = ""
    host_port: int | None = None
    protocol: Literal["TCP", "UDP"] = "TCP"


class Requests(Part, frozen=True):
    """CPUs and MiB: numbers, or strings of them."""

    cpu: Any = None
    memory: Any = None


class Resources(Part, frozen=True):
    """What a container asks for."""

    requests: Requests = Requests()


class Mount(Part, frozen=True):
    """Where a container sees a volume."""

    mount_path: str
    name: str = ""
    read_only: Any = None


class Container(Part, frozen=True):
    """One container."""

    image: str
    name: str = ""
    command: list[str] = []
    args: list[str] = []
    env: dict[str, str] = {}
    work_dir: str = ""
    image_pull_policy: str = ""
    ports: list[Port] = []
    resources: Resources = Resources()
    volume_mounts: list[Mount] = []
    stdin: Any = None
    tty: Any = None


class Cinder(Part, frozen=True):
    """A volume by its id, or a new one of so many GiB: exactly one of them."""

    volume_id: str = msgspec.field(default="", name="volumeID")
    size: Any = None
    auto_remove: Any = None


class Volume(Part, frozen=True):
    """A named volume."""

    name: str
    cinder: Cinder


class Spec(Part, frozen=True):
    """The containers and their volumes."""

    containers: list[Container]
    init_containers: list[Container] = []
    restart_policy: RestartRule | None = None
    volumes: list[Volume] = []


class Metadata(Part, frozen=True):
    """What the capsule is called."""

    name: str = ""
    labels: dict[str, Any] = {}
    annotations: dict[str, Any] = {}


class Template(Part, frozen=True):
    """The whole template."""

    kind: Literal["capsule", "Capsule"]
    metadata: Metadata
    spec: Spec
    capsule_version: Literal["beta", "Beta"] = "beta"
    restart_policy: RestartRule | None = None
    availability_zone: str = ""
