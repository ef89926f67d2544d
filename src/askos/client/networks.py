"""Networks, ports, security groups and floating addresses through Neutron's API."""

from __future__ import annotations

from typing import Any, NamedTuple

from askos.client.errors import ApiError, ClientError
from askos.client.session import Query, Session, part

Thing = dict[str, Any]
"""Neutron's representation."""


class Kind(NamedTuple):
    """A kind of thing: its words in bodies, its path, what people call it, and by what it is found beside its id."""

    single: str
    plural: str
    path: str
    noun: str
    command: str
    named_by: str = "name"


NETWORK = Kind("network", "networks", "networks", "network", "network")
SUBNET = Kind("subnet", "subnets", "subnets", "subnet", "network")
PORT = Kind("port", "ports", "ports", "port", "network")
GROUP = Kind("security_group", "security_groups", "security-groups", "security group", "security-group")
RULE = Kind("security_group_rule", "security_group_rules", "security-group-rules", "rule", "security-group", "id")
FLOATING = Kind("floatingip", "floatingips", "floatingips", "floating IP", "floating-ip", "floating_ip_address")


class Networks:
    """The verbs. All raise ApiError with the server's own words, and ClientError where there are no networks."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def list(self, kind: Kind, query: Query | None = None) -> list[Thing]:
        """All that the user may see."""
        return list(self.session.json("GET", f"/{kind.path}", api="network", query=query)[kind.plural])

    def find(self, kind: Kind, ident: str) -> Thing:
        """One by id or name. ApiError 404 without any, ClientError when several have the name."""
        try:
            return dict(self.session.json("GET", f"/{kind.path}/{part(ident)}", api="network")[kind.single])
        except ApiError as error:
            if error.no_such_route or error.status not in (400, 404):
                raise
        found = self.list(kind, [(kind.named_by, ident)])
        if not found:
            raise ApiError(404, f"there is no {kind.noun} {ident}", "not-found")
        if len(found) > 1:
            ids = ", ".join(str(one["id"]) for one in found)
            raise ClientError(f"there are several of the name {ident}: say which by its id, one of {ids}")
        return found[0]

    def create(self, kind: Kind, body: Thing) -> Thing:
        """Make one."""
        return dict(self.session.json("POST", f"/{kind.path}", api="network", body={kind.single: body})[kind.single])

    def update(self, kind: Kind, ident: str, body: Thing) -> Thing:
        """Change one, by id."""
        path = f"/{kind.path}/{part(ident)}"
        return dict(self.session.json("PUT", path, api="network", body={kind.single: body})[kind.single])

    def remove(self, kind: Kind, ident: str) -> None:
        """Remove one, by id."""
        self.session.request("DELETE", f"/{kind.path}/{part(ident)}", api="network")
