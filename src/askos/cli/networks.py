"""`askos network ls`, `create`, `show`, `rm`, `connect` and `disconnect`."""

from __future__ import annotations

import secrets
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import click

from askos.cli import base, output
from askos.cli.base import Lazy, LazyGroup
from askos.cli.network_words import complete_networks, doing, for_each, networks
from askos.cli.output import Column
from askos.client.errors import ClientError
from askos.client.networks import NETWORK, PORT, SUBNET, Networks, Thing
from askos.client.session import Query

HERE = "askos.cli.networks"
SETTLE_S = 60.0


@click.group(
    cls=LazyGroup,
    lazy={
        "ls": Lazy(f"{HERE}:ls", "List networks."),
        "create": Lazy(f"{HERE}:create", "Make a network."),
        "show": Lazy(f"{HERE}:show", "Show a network, and what is plugged into it."),
        "rm": Lazy(f"{HERE}:rm", "Remove networks."),
        "connect": Lazy(f"{HERE}:connect", "Plug a container into a network, also while it runs."),
        "disconnect": Lazy(f"{HERE}:disconnect", "Unplug a container from a network."),
    },
    hints={
        "list": "Use `askos network ls`.",
        "inspect": "Use `askos network show`.",
        "delete": "Use `askos network rm`.",
        "attach": "Use `askos network connect`.",
        "detach": "Use `askos network disconnect`.",
    },
)
def network() -> None:
    """Networks of the project: containers in one reach each other, and nobody else's."""


@click.command(cls=base.Command, examples=["askos network ls", "askos network ls -o json"])
@click.option("-q", "--quiet", is_flag=True, help="Only ids, one a line.")
@click.option("--all-projects", is_flag=True, help="Of all projects (only administrators see others').")
@click.option("--no-trunc", is_flag=True, help="Do not shorten anything.")
@base.format_options("table", "json", "yaml")
def ls(quiet: bool, all_projects: bool, no_trunc: bool, form: str) -> None:
    """List the networks that the project may use, and the one to the outside."""
    api = networks()
    with doing("list networks", NETWORK):
        found = api.list(NETWORK)
        if not all_projects:
            # The network service tells administrators of all projects' networks, whatever is asked.
            project = api.session.project()
            found = [each for each in found if _usable(each, project)]
        if quiet:
            output.write("".join(f"{each['id']}\n" for each in found))
            return
        if form != "table":
            output.write(output.structured(found, form))
            return
        subnets = _subnets(api)
    rows = [
        [
            str(each["name"]),
            str(each["id"])[: None if no_trunc else 8],
            ", ".join(str(s["cidr"]) for s in subnets.get(each["id"], [])),
            _note(each),
            *([str(each.get("project_id") or "")] if all_projects else []),
        ]
        for each in found
    ]
    columns = [Column("NAME", 12), Column("ID"), Column("SUBNET"), Column("NOTE")]
    columns += [Column("PROJECT")] if all_projects else []
    output.write(output.table(columns, rows, width=None if no_trunc else output.table_width()))


def _usable(each: Thing, project: str) -> bool:
    """Whether a project may use a network: its own, or one for all."""
    return each.get("project_id", project) == project or bool(each.get("shared") or each.get("router:external"))


def _subnets(api: Networks) -> dict[str, list[Thing]]:
    found: dict[str, list[Thing]] = {}
    for one in sorted(api.list(SUBNET), key=_version):
        found.setdefault(one["network_id"], []).append(one)
    return found


def _version(subnet: Thing) -> int:
    return int(subnet.get("ip_version") or 4)


def _note(each: Thing) -> str:
    words = [word for word, key in (("external", "router:external"), ("shared", "shared")) if each.get(key)]
    return ", ".join(words)


@click.command(
    cls=base.Command,
    examples=[
        "askos network create back",
        "askos network create back --subnet 10.5.0.0/24 --gateway none",
        "askos network create back --subnet6 auto",
        "askos network create back --subnet6 2001:db8:5::/64 --gateway6 2001:db8:5::ff",
    ],
)
@click.option("--subnet", metavar="CIDR", help="Its addresses; free ones are chosen if none are given.")
@click.option("--gateway", metavar="ADDRESS", help="The way out, the first address by default; 'none': it has none.")
@click.option("--subnet6", metavar="CIDR", help="IPv6 addresses beside them; 'auto': a private range is made up.")
@click.option("--gateway6", metavar="ADDRESS", help="The same as --gateway, of IPv6.")
@click.option("--shared", is_flag=True, help="All projects may use it (administrators only).")
@click.argument("name")
def create(
    *, name: str, subnet: str | None, gateway: str | None, subnet6: str | None, gateway6: str | None, shared: bool
) -> None:
    """Make a network with its subnet, or with two, and print its id."""
    if gateway6 is not None and subnet6 is None:
        raise ClientError("--gateway6 goes with --subnet6")
    api = networks()
    with doing(f"create the network {name}", NETWORK):
        cidr = subnet or free_subnet([s["cidr"] for s in api.list(SUBNET)])
        wanted = [(4, cidr, gateway)]
        if subnet6 is not None:
            wanted.append((6, local_range() if subnet6 == "auto" else subnet6, gateway6))
        made = api.create(NETWORK, {"name": name, **({"shared": True} if shared else {})})
        try:
            for version, of_it, door in wanted:
                body: Thing = {"network_id": made["id"], "ip_version": version, "cidr": of_it, "name": name}
                if door is not None:
                    body["gateway_ip"] = None if door == "none" else door
                api.create(SUBNET, body)
        except BaseException:
            # A network without addresses is of no use to anybody.
            api.remove(NETWORK, made["id"])
            raise
    print(made["id"])


def local_range() -> str:
    """A unique-local /64 that most likely nobody else has (RFC 4193)."""
    return f"{IPv6Network((0xFD << 120 | secrets.randbits(40) << 80, 64))}"


def free_subnet(taken: list[str]) -> str:
    """The first /24 of 192.168.0.0/16 or 172.16.0.0/12 that overlaps none. ClientError when all are taken."""
    used = [IPv4Network(cidr) for cidr in taken if ":" not in cidr]
    for pool in ("192.168.0.0/16", "172.16.0.0/12"):
        for one in IPv4Network(pool).subnets(new_prefix=24):
            if not any(one.overlaps(each) for each in used):
                return str(one)
    raise ClientError("there is no free range of addresses left. Name one with --subnet")


@click.command(cls=base.Command, examples=["askos network show back", "askos network show -o json back"])
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...", shell_complete=complete_networks)
@base.format_options("text", "json", "yaml")
def show(names: tuple[str, ...], form: str) -> None:
    """Show networks with their subnets and what is plugged into them."""
    api = networks()
    found: list[Thing] = []

    def look(name: str) -> None:
        one = api.find(NETWORK, name)
        of_it: Query = [("network_id", one["id"])]
        if form == "text":
            subnets = sorted(api.list(SUBNET, of_it), key=_version)
            text = output.key_values(view(one, subnets, api.list(PORT, of_it)))
            output.write(("\n" if found else "") + text)
        found.append(one)

    try:
        for_each(names, NETWORK, "show", look)
    finally:
        if form != "text" and found:
            output.write(output.structured(found[0] if len(names) == 1 else found, form))


def view(one: Thing, subnets: list[Thing], ports: list[Thing]) -> list[tuple[str, str]]:
    """What a person wants to know; empty things are left out."""
    plugged = [
        f"{', '.join(ip['ip_address'] for ip in port.get('fixed_ips') or [])}  {_user(port)}".rstrip() for port in ports
    ]
    pairs: list[tuple[str, Any]] = [
        ("Name", one["name"]),
        ("ID", one["id"]),
        ("Note", _note(one)),
        ("Description", one.get("description")),
        ("Subnet", "\n".join(f"{s['cidr']}, gateway {s.get('gateway_ip') or 'none'}" for s in subnets)),
        ("Ports", "\n".join(plugged)),
        ("Project", one.get("project_id")),
    ]
    return [(key, str(value)) for key, value in pairs if value]


def _user(port: Thing) -> str:
    owner, device = str(port.get("device_owner") or ""), str(port.get("device_id") or "")
    return f"{owner.partition(':')[2] or owner} {device}".strip() or "not in use"


@click.command(cls=base.Command, examples=["askos network rm back"])
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...", shell_complete=complete_networks)
def rm(names: tuple[str, ...]) -> None:
    """Remove networks with their subnets. Those that are in use stay."""
    api = networks()

    def act(name: str) -> None:
        api.remove(NETWORK, api.find(NETWORK, name)["id"])
        print(name)

    for_each(names, NETWORK, "remove", act)


_TWO = {404: "See `askos network ls` and `askos ps -a`"}


@click.command(
    cls=base.Command, examples=["askos network connect back web", "askos network connect --ip 10.5.0.9 back web"]
)
@click.option("--ip", "address", metavar="ADDRESS", help="The address it is to have there, IPv4 or IPv6.")
@click.argument("network_name", metavar="NETWORK", shell_complete=complete_networks)
@click.argument("name", metavar="CONTAINER", shell_complete=base.complete_names)
def connect(network_name: str, name: str, address: str | None) -> None:
    """Plug a container into one more network, also while it runs."""
    query: Query = [("network", network_name)] + ([("fixed_ip", address)] if address else [])
    _plug(name, "network_attach", query, f"connect {name} to {network_name}")


@click.command(cls=base.Command, examples=["askos network disconnect back web"])
@click.argument("network_name", metavar="NETWORK", shell_complete=complete_networks)
@click.argument("name", metavar="CONTAINER", shell_complete=base.complete_names)
def disconnect(network_name: str, name: str) -> None:
    """Unplug a container from a network, also while it runs."""
    _plug(name, "network_detach", [("network", network_name)], f"disconnect {name} from {network_name}")


def _plug(name: str, action: str, query: Query, what: str) -> None:
    containers = base.containers()
    with base.doing(what, _TWO):
        uuid = str(containers.show(name)["uuid"])
        containers.act(uuid, action, query)
        after = containers.settle(uuid, within_s=SETTLE_S)
    if after is not None and after["status"] == "Error":
        raise ClientError(f"cannot {what}: {after.get('status_reason') or 'no reason was given'}")
    print(name)
