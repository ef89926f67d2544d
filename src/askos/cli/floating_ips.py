"""`askos floating-ip`: addresses outside, for containers."""

from __future__ import annotations

import click

from askos.cli import base, output
from askos.cli.base import Lazy, LazyGroup
from askos.cli.network_words import complete_floating, complete_networks, doing, for_each, networks
from askos.cli.output import Column
from askos.client.errors import ClientError
from askos.client.networks import FLOATING, NETWORK, PORT, Networks, Thing

HERE = "askos.cli.floating_ips"


@click.group(
    cls=LazyGroup,
    lazy={
        "ls": Lazy(f"{HERE}:ls", "List floating addresses."),
        "create": Lazy(f"{HERE}:create", "Take an address from outside."),
        "attach": Lazy(f"{HERE}:attach", "Let an address lead to a container."),
        "detach": Lazy(f"{HERE}:detach", "Let an address lead nowhere."),
        "rm": Lazy(f"{HERE}:rm", "Give addresses back."),
    },
    hints={"list": "Use `askos floating-ip ls`.", "delete": "Use `askos floating-ip rm`."},
)
def floating_ip() -> None:
    """Floating addresses: they are outside, and lead to a container's own address."""


@click.command(cls=base.Command, examples=["askos floating-ip ls"])
@click.option("-q", "--quiet", is_flag=True, help="Only the addresses, one a line.")
@base.format_options("table", "json", "yaml")
def ls(quiet: bool, form: str) -> None:
    """List the floating addresses of the project, and where they lead."""
    with doing("list floating addresses", FLOATING):
        found = networks().list(FLOATING)
    if quiet:
        output.write("".join(f"{each['floating_ip_address']}\n" for each in found))
    elif form != "table":
        output.write(output.structured(found, form))
    else:
        names: dict[str, str] = {}
        if any(each.get("port_id") for each in found):
            with base.doing("list containers"):
                names = {str(c["uuid"]): str(c["name"]) for c in base.containers().list()}
        rows = [
            [
                str(each["floating_ip_address"]),
                str(each.get("fixed_ip_address") or ""),
                _led_to(each, names),
                str(each.get("status") or ""),
            ]
            for each in found
        ]
        columns = [Column("ADDRESS"), Column("LEADS TO"), Column("CONTAINER", 12), Column("STATUS")]
        output.write(output.table(columns, rows, width=output.table_width()))


def _led_to(each: Thing, names: dict[str, str]) -> str:
    device = str((each.get("port_details") or {}).get("device_id") or "")
    return names.get(device, device)


@click.command(
    cls=base.Command, examples=["askos floating-ip create", "askos floating-ip attach $(askos floating-ip create) web"]
)
@click.option(
    "--network", "outside", metavar="NETWORK", help="Of this external network.", shell_complete=complete_networks
)
@click.option("--address", metavar="ADDRESS", help="This one, if it is free (administrators only).")
def create(outside: str | None, address: str | None) -> None:
    """Take an address from outside, and print it."""
    api = networks()
    with doing("create a floating address", NETWORK):
        body: Thing = {"floating_network_id": _external(api, outside)}
        if address:
            body["floating_ip_address"] = address
        made = api.create(FLOATING, body)
    print(made["floating_ip_address"])


def _external(api: Networks, name: str | None) -> str:
    if name is not None:
        return str(api.find(NETWORK, name)["id"])
    found = [n for n in api.list(NETWORK) if n.get("router:external")]
    if len(found) != 1:
        several = ", ".join(str(n["name"]) for n in found)
        raise ClientError(
            f"there are several networks to the outside: say which with --network, one of {several}"
            if found
            else "this cloud has no network to the outside. Ask its operator for one"
        )
    return str(found[0]["id"])


@click.command(cls=base.Command, examples=["askos floating-ip attach web", "askos floating-ip attach 172.24.4.10 web"])
@click.option("--network", "inside", metavar="NETWORK", help="To its address there.", shell_complete=complete_networks)
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]", shell_complete=complete_floating)
@click.argument("name", metavar="CONTAINER", shell_complete=base.complete_names)
def attach(addresses: tuple[str, ...], name: str, inside: str | None) -> None:
    """Let an address lead to a container, a new one if none is named, and print it. The container's security groups say
    who may come that way."""
    if len(addresses) > 1:
        raise click.UsageError(f"One address leads to one container: {' '.join(addresses)} are {len(addresses)}.")
    address = addresses[0] if addresses else None
    api = networks()
    what = f"attach {address or 'a floating address'} to {name}"
    with base.doing(what, name=name):
        container = base.containers().show(name)
    with doing(what, FLOATING):
        ports = api.list(PORT, [("device_id", container["uuid"])])
        if inside is not None:
            wanted = api.find(NETWORK, inside)["id"]
            ports = [port for port in ports if port["network_id"] == wanted]
        if not ports:
            where = f" in the network {inside}" if inside else ""
            raise ClientError(f"{name} has no address{where} yet. See `askos show {name}`")
        if len(ports) > 1:
            raise ClientError(f"{name} is in {len(ports)} networks. Say which with --network")
        port = {"port_id": ports[0]["id"]}
        if address is None:
            made = api.create(FLOATING, {"floating_network_id": _external(api, None), **port})
        else:
            made = api.update(FLOATING, api.find(FLOATING, address)["id"], port)
    print(made["floating_ip_address"])


@click.command(cls=base.Command, examples=["askos floating-ip detach 172.24.4.10"])
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...", shell_complete=complete_floating)
def detach(addresses: tuple[str, ...]) -> None:
    """Let addresses lead nowhere; they stay the project's."""
    api = networks()

    def act(address: str) -> None:
        api.update(FLOATING, api.find(FLOATING, address)["id"], {"port_id": None})
        print(address)

    for_each(addresses, FLOATING, "detach", act)


@click.command(cls=base.Command, examples=["askos floating-ip rm 172.24.4.10"])
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...", shell_complete=complete_floating)
def rm(addresses: tuple[str, ...]) -> None:
    """Give addresses back."""
    api = networks()

    def act(address: str) -> None:
        api.remove(FLOATING, api.find(FLOATING, address)["id"])
        print(address)

    for_each(addresses, FLOATING, "remove", act)
