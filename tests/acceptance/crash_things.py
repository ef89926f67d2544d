"""Volumes, networks, images and what else users make beside containers, while everybody is killed."""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from tests.acceptance.crash_fixtures import QUOTA, Api
from tests.acceptance.crash_model import Known, Thing
from tests.acceptance.crash_world import NEUTRON, World


class Record(Thing, ABC):
    """One record of a service after the other. Class variables: where it is, and under which words it is shown."""

    path: ClassVar[str]
    single: ClassVar[str]
    plural: ClassVar[str]
    ident_field: ClassVar[str] = "id"
    update: ClassVar[str] = "PUT"
    listing: ClassVar[str] = ""

    def __init__(self, world: World, index: int) -> None:
        super().__init__()
        self.world = world
        self.index = index
        self.serial = 0
        self.children: list[Record] = []
        """What goes with it."""
        self.ident = ""
        self.there = Known(False)
        self.fields: dict[str, Known[Any]] = {}

    def __repr__(self) -> str:
        return f"{self.single} {self.name} ({self.ident or 'id not known'}) after {self.history}"

    @property
    def name(self) -> str:
        return f"{self.world.tag}-{self.single}-{self.index}-{self.serial}"

    @property
    def usable(self) -> bool:
        """Whether it is there, for sure."""
        return bool(self.there.sure and self.ident)

    @abstractmethod
    def body(self, chance: random.Random) -> dict[str, Any] | None:
        """Of a create; None: not now."""

    @abstractmethod
    def change(self, api: Api, chance: random.Random) -> None:
        """Ask for something else than a delete."""

    def shows(self, view: dict[str, Any], field: str) -> Any:
        return view[field]

    def act(self, api: Api, chance: random.Random) -> None:
        if not self.ident and self.there.sure is not False:
            self._find(api)
        if self.there.sure is False:
            self._create(api, chance)
        elif chance.random() < 0.25:
            self._delete(api)
        else:
            self.change(api, chance)

    def all(self, api: Api) -> list[dict[str, Any]]:
        """Everything of this kind that there is."""
        answer = api.at("GET", self.listing or self.path)
        assert answer.status == 200, answer.body
        found: list[dict[str, Any]] = answer.json()[self.plural]
        return found

    def _find(self, api: Api) -> None:
        """Whether a create without an answer has happened."""
        mine = [view for view in self.all(api) if view["name"] == self.name]
        self.there.looked(bool(mine))
        if mine:
            self.ident = mine[0][self.ident_field]
            self.found(mine[0])

    def found(self, view: dict[str, Any]) -> None:
        """It is there, as somebody found out."""

    def _create(self, api: Api, chance: random.Random) -> None:
        self.serial += 1
        self.ident, self.history, self.fields = "", [], {}
        body = self.body(chance)
        if body is None:
            return
        self.world.aim.sends("make")
        outcome = self.ask(api, "make", "POST", self.path, self.wrapped(body), refused=(400, 404, 409))
        self.there.told(True, outcome)
        if outcome == "done":
            view = self.answer.json()
            self.ident = view.get(self.single, view)[self.ident_field]

    def wrapped(self, body: dict[str, Any]) -> dict[str, Any]:
        return {self.single: body}

    def _delete(self, api: Api) -> None:
        self.world.aim.sends("unmake")
        outcome = self.ask(api, "unmake", "DELETE", f"{self.path}/{self.ident}", refused=(400, 404, 409))
        if self.answer.status == 404:
            assert False in self.there.values, f"{self} was lost"
            outcome = "done"
        for one in (self, *self.children):
            one.there.told(False, outcome if one is self or one.there.sure is not False else "refused")

    def set(self, api: Api, **fields: Any) -> None:
        """Ask for other values."""
        outcome = self.ask(
            api, "set", self.update, f"{self.path}/{self.ident}", self.wrapped(fields), refused=(404, 409)
        )
        for field, value in fields.items():
            if outcome == "done":
                self.fields[field] = Known(value)
            elif field in self.fields:
                self.fields[field].told(value, outcome)

    def wrong(self, found: dict[str, dict[str, Any]]) -> list[str]:
        """What the service says of it that cannot be. `found`: views of its kind by id."""
        if not self.ident and self.there.sure is not False:
            mine = [ident for ident, view in found.items() if view["name"] == self.name]
            self.ident = mine[0] if mine else ""
        view = found.pop(self.ident, None)
        if not self.there.looked(view is not None):
            return [f"is {'there' if view else 'gone'}: {self}"]
        if view is None:
            return []
        bad = [
            f"has {field} {self.shows(view, field)!r}, not {known}: {self}"
            for field, known in self.fields.items()
            if not known.looked(self.shows(view, field))
        ]
        return bad + self.wrong_more(view)

    def wrong_more(self, view: dict[str, Any]) -> list[str]:
        return []


class Network(Record):
    path, single, plural = f"{NEUTRON}/networks", "network", "networks"

    def body(self, chance: random.Random) -> dict[str, Any]:
        return {"name": self.name}

    def change(self, api: Api, chance: random.Random) -> None:
        self.set(api, description=f"no {len(self.history)}")


class Subnet(Record):
    path, single, plural = f"{NEUTRON}/subnets", "subnet", "subnets"

    def __init__(self, world: World, index: int, network: Network) -> None:
        super().__init__(world, index)
        self.network = network
        network.children.append(self)

    def body(self, chance: random.Random) -> dict[str, Any] | None:
        if not self.network.usable:
            return None
        cidr = f"192.168.{200 + self.index}.0/24"
        return {"name": self.name, "network_id": self.network.ident, "cidr": cidr, "ip_version": 4}

    def change(self, api: Api, chance: random.Random) -> None:
        self.set(api, description=f"no {len(self.history)}")


class Port(Record):
    path, single, plural = f"{NEUTRON}/ports", "port", "ports"

    def __init__(self, world: World, index: int, network: Network) -> None:
        super().__init__(world, index)
        self.network = network

    def body(self, chance: random.Random) -> dict[str, Any] | None:
        return {"name": self.name, "network_id": self.network.ident} if self.network.usable else None

    def change(self, api: Api, chance: random.Random) -> None:
        groups = chance.choice([[self.world.open], [self.world.shut]])
        self.set(api, description=f"no {len(self.history)}", security_groups=groups)


class Router(Record):
    path, single, plural = f"{NEUTRON}/routers", "router", "routers"

    def __init__(self, world: World, index: int, subnet: Subnet) -> None:
        super().__init__(world, index)
        self.subnet = subnet
        self.joined = Known(False)

    def body(self, chance: random.Random) -> dict[str, Any]:
        self.joined = Known(False)
        return {"name": self.name, "external_gateway_info": {"network_id": self.world.public}}

    def change(self, api: Api, chance: random.Random) -> None:
        if chance.random() < 0.3 or not self.subnet.ident:
            self.set(api, description=f"no {len(self.history)}")
            return
        wanted = chance.random() < 0.5
        path = f"{self.path}/{self.ident}/{'add' if wanted else 'remove'}_router_interface"
        body = {"subnet_id": self.subnet.ident}
        self.joined.told(wanted, self.ask(api, f"join {wanted}", "PUT", path, body, refused=(400, 404, 409)))


class Group(Record):
    path, single, plural = f"{NEUTRON}/security-groups", "security_group", "security_groups"

    def body(self, chance: random.Random) -> dict[str, Any]:
        return {"name": self.name}

    def change(self, api: Api, chance: random.Random) -> None:
        self.set(api, description=f"no {len(self.history)}")


class Rule(Record):
    path, single, plural = f"{NEUTRON}/security-group-rules", "security_group_rule", "security_group_rules"

    def __init__(self, world: World, index: int, group: Group) -> None:
        super().__init__(world, index)
        self.group = group
        group.children.append(self)

    def all(self, api: Api) -> list[dict[str, Any]]:
        # They have no names: the description says which it is.
        return [{**view, "name": view["description"]} for view in super().all(api)]

    def body(self, chance: random.Random) -> dict[str, Any] | None:
        if not self.group.usable:
            return None
        wall = {"direction": "ingress", "protocol": "tcp", "port_range_min": 8000 + self.index, "ethertype": "IPv4"}
        wall |= {"port_range_max": 9000, "description": self.name}
        return {"security_group_id": self.group.ident, **wall}

    def change(self, api: Api, chance: random.Random) -> None:
        self.ask(api, "look", "GET", f"{self.path}/{self.ident}", refused=(404,))


class Floating(Record):
    path, single, plural = f"{NEUTRON}/floatingips", "floatingip", "floatingips"

    def all(self, api: Api) -> list[dict[str, Any]]:
        return [{**view, "name": view["description"]} for view in super().all(api)]

    def body(self, chance: random.Random) -> dict[str, Any]:
        self.leads: Known[str | None] = Known(None)
        return {"floating_network_id": self.world.public, "description": self.name}

    def change(self, api: Api, chance: random.Random) -> None:
        port: str | None = None
        if chance.random() < 0.8:
            query = f"?network_id={self.world.default}&device_owner=compute:askos"
            ports = api.at("GET", f"{NEUTRON}/ports{query}").json()["ports"]
            port = chance.choice(ports)["id"] if ports else None
        path, body = f"{self.path}/{self.ident}", {self.single: {"port_id": port}}
        self.world.aim.sends("lead")
        self.leads.told(port, self.ask(api, f"lead {port}", "PUT", path, body, refused=(404, 409)))

    def wrong_more(self, view: dict[str, Any]) -> list[str]:
        # It is led away by nobody, but it loses its port with the container.
        if not self.leads.looked(view["port_id"]) and (view["port_id"] or self.world.has_port(self.leads.sure)):
            return [f"leads to {view['port_id']}, not {self.leads}: {self}"]
        return []


class Volume(Record):
    path, single, plural = "/volume/v3/volumes", "volume", "volumes"
    listing = "/volume/v3/volumes/detail"

    def __init__(self, world: World, index: int) -> None:
        super().__init__(world, index)
        self.user: Any = None
        """The container that has it, if any."""
        self.content: Known[str | None] = Known(None)

    def body(self, chance: random.Random) -> dict[str, Any]:
        self.content = Known(None)
        self.fields["size"] = Known(1)
        return {"name": self.name, "size": 1}

    def change(self, api: Api, chance: random.Random) -> None:
        if chance.random() < 0.5:
            self.set(api, name=f"{self.name}-{len(self.history)}")
            return
        size = max(self.fields["size"].values) + 1
        path, body = f"{self.path}/{self.ident}/action", {"os-extend": {"new_size": size}}
        self.fields["size"].told(size, self.ask(api, "extend", "POST", path, body, refused=(400, 404, 409)))

    def set(self, api: Api, **fields: Any) -> None:
        self.fields.setdefault("name", Known(self.name))
        super().set(api, **fields)

    def wrong(self, found: dict[str, dict[str, Any]]) -> list[str]:
        # A delete is a wish: until its host has removed it, it shows as on its way.
        view = found.get(self.ident)
        if view is not None and view["status"] == "deleting" and False in self.there.values:
            self.there.looked(False)
            return [f"is still {view['status']}: {self}"]
        return super().wrong(found)


class StoredImage(Record):
    path, single, plural = "/image/v2/images", "image", "images"

    def body(self, chance: random.Random) -> dict[str, Any]:
        self.data = random.Random(self.name).randbytes(chance.choice([10, 300_000, 3_000_000]))
        self.filled = Known(False)
        return {"name": self.name, "container_format": "bare", "disk_format": "raw"}

    def wrapped(self, body: dict[str, Any]) -> dict[str, Any]:
        return body

    def change(self, api: Api, chance: random.Random) -> None:
        self.world.aim.sends("upload")
        stream = "application/octet-stream"
        path = f"{self.path}/{self.ident}/file"
        self.filled.told(True, self.ask(api, "upload", "PUT", path, self.data, refused=(404, 409), Content_Type=stream))

    def wrong_more(self, view: dict[str, Any]) -> list[str]:
        status = view["status"]
        if not self.filled.looked(status == "active") or status not in ("active", "queued"):
            return [f"is {status}, filled {self.filled}: {self}"]
        if status == "active" and view["os_hash_value"] != hashlib.sha512(self.data).hexdigest():
            return [f"has another file: {self}"]
        return []


class Registry(Record):
    path, single, plural, ident_field = "/v1/registries", "registry", "registries", "uuid"
    update = "PATCH"

    def body(self, chance: random.Random) -> dict[str, Any]:
        self.fields["username"] = Known("somebody")
        return {"name": self.name, "domain": "registry.example.org", "username": "somebody", "password": "open sesame"}

    def change(self, api: Api, chance: random.Random) -> None:
        self.set(api, username=f"user-{len(self.history)}")


class Quota(Thing):
    """What a project may have; it is never so little that it is felt."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.containers = Known(QUOTA)

    def act(self, api: Api, chance: random.Random) -> None:
        wanted = chance.randint(QUOTA, 2 * QUOTA)
        outcome = self.ask(api, "quota", "PUT", self.path, {"containers": wanted}, refused=())
        self.containers.told(wanted, outcome)

    def wrong(self, api: Api) -> list[str]:
        limit = api.at("GET", self.path).json()["containers"]
        return [] if self.containers.looked(limit) else [f"the quota is {limit}, not {self.containers}: {self.history}"]
