"""`askos security-group`: what may reach containers, and what they may reach."""

from __future__ import annotations

import re
from typing import Any

import click

from askos.cli import base, output
from askos.cli.base import Lazy, LazyGroup
from askos.cli.network_words import complete_groups, doing, for_each, networks
from askos.cli.output import Column
from askos.client.errors import ApiError, ClientError
from askos.client.networks import GROUP, RULE, Thing

HERE = "askos.cli.security_groups"
LAST_WITH_GROUPS = "1.14"
"""The last version of Zun's API in which a container's groups can be changed."""


@click.group(
    cls=LazyGroup,
    lazy={
        "ls": Lazy(f"{HERE}:ls", "List security groups."),
        "create": Lazy(f"{HERE}:create", "Make a security group."),
        "show": Lazy(f"{HERE}:show", "Show security groups with their rules."),
        "rm": Lazy(f"{HERE}:rm", "Remove security groups."),
        "rule": Lazy(f"{HERE}:rule", "Add and remove rules."),
        "attach": Lazy(f"{HERE}:attach", "Give a container a group, also while it runs."),
        "detach": Lazy(f"{HERE}:detach", "Take a group from a container."),
    },
    hints={"list": "Use `askos security-group ls`.", "delete": "Use `askos security-group rm`."},
)
def security_group() -> None:
    """Security groups: what may reach containers. What no rule lets through is dropped."""


@click.command(cls=base.Command, examples=["askos security-group ls"])
@click.option("-q", "--quiet", is_flag=True, help="Only ids, one a line.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten anything.")
@base.format_options("table", "json", "yaml")
def ls(quiet: bool, no_trunc: bool, form: str) -> None:
    """List the security groups of the project."""
    with doing("list security groups", GROUP):
        found = networks().list(GROUP)
    if quiet:
        output.write("".join(f"{each['id']}\n" for each in found))
    elif form != "table":
        output.write(output.structured(found, form))
    else:
        rows = [
            [
                str(each["name"]),
                str(each["id"])[: None if no_trunc else 8],
                str(len(each.get("security_group_rules") or [])),
                str(each.get("description") or ""),
            ]
            for each in found
        ]
        columns = [Column("NAME", 12), Column("ID"), Column("RULES"), Column("DESCRIPTION", 12)]
        output.write(output.table(columns, rows, width=None if no_trunc else output.table_width()))


@click.command(cls=base.Command, examples=["askos security-group create web --description 'of the web servers'"])
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@click.argument("name")
def create(name: str, description: str) -> None:
    """Make a security group, and print its id. Containers in it may reach everything; nothing reaches them yet."""
    with doing(f"create the security group {name}", GROUP):
        made = networks().create(GROUP, {"name": name, "description": description})
    print(made["id"])


@click.command(cls=base.Command, examples=["askos security-group show web"])
@click.argument("names", nargs=-1, required=True, metavar="GROUP...", shell_complete=complete_groups)
@base.format_options("text", "json", "yaml")
def show(names: tuple[str, ...], form: str) -> None:
    """Show security groups with their rules."""
    api = networks()
    found: list[Thing] = []

    def look(name: str) -> None:
        one = api.find(GROUP, name)
        if form == "text":
            output.write(("\n" if found else "") + view(one, output.table_width()))
        found.append(one)

    try:
        for_each(names, GROUP, "show", look)
    finally:
        if form != "text" and found:
            output.write(output.structured(found[0] if len(names) == 1 else found, form))


def view(one: Thing, width: int | None) -> str:
    """The group, and a table of its rules."""
    pairs = [("Name", one["name"]), ("ID", one["id"]), ("Description", one.get("description") or "")]
    head = output.key_values([(key, str(value)) for key, value in pairs if value])
    rows = [
        [str(r["direction"]), str(r["protocol"] or "any"), ports_of(r), other_side(r), str(r["id"])]
        for r in sorted(one.get("security_group_rules") or [], key=lambda r: (r["direction"] != "ingress", r["id"]))
    ]
    columns = [Column("DIRECTION"), Column("PROTOCOL"), Column("PORTS"), Column("FROM/TO", 12), Column("RULE")]
    return head + "\n" + output.table(columns, rows, width=width)


def ports_of(rule: Thing) -> str:
    """'80', '80-90' or 'any'; of ICMP its type and code."""
    low, high = rule.get("port_range_min"), rule.get("port_range_max")
    if low is None:
        return "any"
    return str(low) if high in (None, low) else f"{low}-{high}"


def other_side(rule: Thing) -> str:
    """Who may come, or where one may go."""
    if rule.get("remote_group_id"):
        return f"group {rule['remote_group_id']}"
    return str(rule.get("remote_ip_prefix") or ("anywhere" if rule.get("ethertype") != "IPv6" else "anywhere (IPv6)"))


@click.command(cls=base.Command, examples=["askos security-group rm web"])
@click.argument("names", nargs=-1, required=True, metavar="GROUP...", shell_complete=complete_groups)
def rm(names: tuple[str, ...]) -> None:
    """Remove security groups. Those that are in use stay."""
    api = networks()

    def act(name: str) -> None:
        api.remove(GROUP, api.find(GROUP, name)["id"])
        print(name)

    for_each(names, GROUP, "remove", act)


# -- rules ---------------------------------------------------------------------------------------------------------


@click.group(
    cls=LazyGroup,
    lazy={
        "add": Lazy(f"{HERE}:add_rule", "Let something through."),
        "rm": Lazy(f"{HERE}:rm_rule", "Remove rules."),
    },
    hints={"ls": "Use `askos security-group show GROUP`.", "create": "Use `askos security-group rule add`."},
)
def rule() -> None:
    """Rules of security groups."""


@click.command(
    "add",
    cls=base.Command,
    examples=[
        "askos security-group rule add web --port 80",
        "askos security-group rule add db --port 5432 --from-group web",
        "askos security-group rule add dns --port 53/udp --from 10.0.0.0/8",
        "askos security-group rule add dns --port 53/udp --ipv6",
    ],
)
@click.option("-p", "--port", "port", metavar="PORT[-PORT][/udp]", help="Of TCP unless it says udp; all if left out.")
@click.option("--protocol", metavar="PROTOCOL", help="tcp, udp, icmp or a number; all if left out.")
@click.option("--from", "--to", "cidr", metavar="CIDR", help="Only these addresses; everybody if left out.")
@click.option("--from-group", "--to-group", "group", metavar="GROUP", help="Only containers in that group.")
@click.option("--egress", is_flag=True, help="For what leaves the containers, not for what arrives.")
@click.option("-6", "--ipv6", is_flag=True, help="For IPv6; goes without saying for a range or a protocol of that.")
@click.argument("name", metavar="GROUP", shell_complete=complete_groups)
def add_rule(
    *, name: str, port: str | None, protocol: str | None, cidr: str | None, group: str | None, egress: bool, ipv6: bool
) -> None:
    """Let something through, and print the rule's id. It holds at once, also for containers that run."""
    ipv6 = ipv6 or ":" in (cidr or "") or protocol in ("icmpv6", "ipv6-icmp")
    body: dict[str, Any] = {"direction": "egress" if egress else "ingress", "ethertype": "IPv6" if ipv6 else "IPv4"}
    if port is not None:
        body |= parse_ports(port, protocol)
    elif protocol is not None:
        body["protocol"] = protocol
    if cidr and group:
        raise click.UsageError("--from and --from-group exclude each other", click.get_current_context())
    if cidr:
        body["remote_ip_prefix"] = cidr
    api = networks()
    with doing(f"add a rule to the security group {name}", GROUP):
        body["security_group_id"] = api.find(GROUP, name)["id"]
        if group:
            body["remote_group_id"] = api.find(GROUP, group)["id"]
        made = api.create(RULE, body)
    print(made["id"])


def parse_ports(given: str, protocol: str | None) -> dict[str, Any]:
    """'80', '8000-8010', '53/udp' as a rule's fields. UsageError otherwise."""
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", given, re.ASCII)
    if match is None:
        raise click.UsageError(f"--port: {given!r} is no port. Write 80, 53/udp or 8000-8010")
    if protocol and match[3] and protocol != match[3]:
        raise click.UsageError(f"--port {given} and --protocol {protocol} contradict each other")
    low, high = int(match[1]), int(match[2] or match[1])
    return {"protocol": protocol or match[3] or "tcp", "port_range_min": low, "port_range_max": high}


@click.command("rm", cls=base.Command, examples=["askos security-group rule rm RULE"])
@click.argument("rules", nargs=-1, required=True, metavar="RULE...")
def rm_rule(rules: tuple[str, ...]) -> None:
    """Remove rules by their ids; `askos security-group show` tells them."""
    api = networks()

    def act(ident: str) -> None:
        api.remove(RULE, ident)
        print(ident)

    for_each(rules, RULE, "remove", act)


# -- containers ----------------------------------------------------------------------------------------------------


@click.command(cls=base.Command, examples=["askos security-group attach web shop"])
@click.argument("group", metavar="GROUP", shell_complete=complete_groups)
@click.argument("name", metavar="CONTAINER", shell_complete=base.complete_names)
def attach(group: str, name: str) -> None:
    """Give a container one more security group. It holds at once."""
    _change(group, name, "add_security_group", f"give {name} the security group {group}")


@click.command(cls=base.Command, examples=["askos security-group detach web shop"])
@click.argument("group", metavar="GROUP", shell_complete=complete_groups)
@click.argument("name", metavar="CONTAINER", shell_complete=base.complete_names)
def detach(group: str, name: str) -> None:
    """Take a security group from a container. It holds at once."""
    _change(group, name, "remove_security_group", f"take the security group {group} from {name}")


def _change(group: str, name: str, action: str, what: str) -> None:
    try:
        base.containers().act(name, action, [("name", group)], version=LAST_WITH_GROUPS)
    except ApiError as error:
        if error.no_such_route or error.status == 406:
            raise ClientError(f"cannot {what}: this cloud does not offer it") from None
        hints = {404: "See `askos ps -a`", 400: "See `askos security-group ls`"}
        raise ClientError(base.told(what, error, hints, name)) from error
    print(name)
