"""What is there throughout a crash test: groups, networks, an image, and a container that nobody may disturb."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Any

from tests.acceptance.crash_fixtures import Api, Cloud, eventually
from tests.acceptance.crash_model import Aim
from tests.acceptance.image_fixtures import Image

NEUTRON = "/networking/v2.0"
PORT = 7000
"""On which every container says its name."""


class World:
    """Made once, for all rounds."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.tag = f"x{secrets.token_hex(3)}"
        self.aim = Aim()
        self.committed: list[str] = []
        """Images that were to be made of containers."""
        api = cloud.client
        self.public = str(api.at("GET", f"{NEUTRON}/networks?router:external=true").json()["networks"][0]["id"])
        self.open = self._group("open")
        self.shut = self._group("shut")
        self.witness = self._witness(api)
        """A container that runs throughout, from which the others are looked at."""
        shown = api.at("GET", f"/v1/containers/{self.witness}").json()
        self.project = str(shown["project_id"])
        (self.default,) = shown["addresses"]
        """The network that every container is on: it is the oldest."""
        self.sides = [self._side(number) for number in range(2)]
        self.image = self._image(api)

    def has_port(self, port: str | None) -> bool:
        """Whether there is a port of this id."""
        return port is not None and self.cloud.client.at("GET", f"{NEUTRON}/ports/{port}").status == 200

    def made(self, path: str, kind: str, **fields: Any) -> str:
        """POST to the network service; the id."""
        answer = self.cloud.client.at("POST", f"{NEUTRON}/{path}", {kind: fields})
        assert answer.status == 201, answer.body
        return str(answer.json()[kind]["id"])

    def _group(self, word: str) -> str:
        group = self.made("security-groups", "security_group", name=f"{self.tag}-{word}")
        if word == "open":
            rule = {"security_group_id": group, "direction": "ingress", "protocol": "tcp", "ethertype": "IPv4"}
            self.made("security-group-rules", "security_group_rule", **rule, port_range_min=PORT, port_range_max=PORT)
        return group

    def _side(self, number: int) -> str:
        """The two have the same ranges, and a container may be on both."""
        net = self.made("networks", "network", name=f"{self.tag}-side-{number}")
        for version, cidr in ((4, "192.168.230.0/24"), (6, "fd00:230::/64")):
            self.made("subnets", "subnet", network_id=net, cidr=cidr, ip_version=version)
        return net

    def _image(self, api: Api) -> str:
        fields = {"name": f"{self.tag}-image", "container_format": "docker", "disk_format": "raw"}
        answer = api.at("POST", "/image/v2/images", fields)
        assert answer.status == 201, answer.body
        uuid = str(answer.json()["id"])
        busybox = Path(shutil.which("busybox") or "").read_bytes()
        # The programs that are called by their own names.
        programs = {f"bin/{name}": busybox for name in ("cat", "echo")}
        data = Image("of the image service", programs).docker_archive("anything:1")
        stream = "application/octet-stream"
        assert api.at("PUT", f"/image/v2/images/{uuid}/file", data, Content_Type=stream).status == 204
        return uuid

    def _witness(self, api: Api) -> str:
        body = {
            "name": f"{self.tag}-witness", "image": "busybox", "memory": "16", "cpu": 0.1,
            "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"],
            "security_groups": [self.shut],
        }  # fmt: skip
        answer = api.at("POST", "/v1/containers?run=true", body)
        assert answer.status == 202, answer.body
        uuid = str(answer.json()["uuid"])
        wrong = eventually(lambda: [s for s in [status(api, uuid)] if s != "Running"], 60)
        assert not wrong, f"the first container is {wrong}"
        return uuid


def status(api: Api, uuid: str) -> str:
    return str(api.at("GET", f"/v1/containers/{uuid}").json()["status"])
