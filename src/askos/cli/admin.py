"""`askos quota`, `askos host` and `askos service`: what projects may use, and the machines."""

from __future__ import annotations

from typing import Any

import click

from askos.cli import base, output, text
from askos.cli.base import Lazy, LazyGroup
from askos.cli.output import Column
from askos.client.session import Query, part

HERE = "askos.cli.admin"
BINARY = "zun-compute"
"""The name of the program on a host in Zun's API."""
RESOURCES = {"containers": "", "cpu": "", "memory": "MiB", "disk": "GiB"}


@click.group(
    cls=LazyGroup,
    lazy={
        "show": Lazy(f"{HERE}:quota_show", "Show what a project may use, and uses."),
        "set": Lazy(f"{HERE}:quota_set", "Change what a project may use."),
        "reset": Lazy(f"{HERE}:quota_reset", "Give a project the defaults again."),
    },
    hints={"ls": "Use `askos quota show PROJECT`.", "rm": "Use `askos quota reset PROJECT`."},
)
def quota() -> None:
    """What a project may use at most."""


@click.command("show", cls=base.Command, examples=["askos quota show", "askos quota show -o json PROJECT"])
@click.option("--defaults", is_flag=True, help="Of projects without limits of their own.")
@click.argument("project", required=False)
@base.format_options("table", "json", "yaml")
def quota_show(project: str | None, defaults: bool, form: str) -> None:
    """Show what a project may use, and uses: your own, or (for administrators) any, by its id."""
    session = base.session()
    with base.doing("show the quota"):
        path = f"/quotas/{part(project or session.project())}"
        if defaults:
            limits = session.json("GET", f"{path}/defaults")
            found: dict[str, Any] = {name: {"limit": limit} for name, limit in limits.items()}
        else:
            found = session.json("GET", path, query=[("usages", "true")])
    if form != "table":
        output.write(output.structured(found, form))
        return
    rows = [
        [name, *(["" if defaults else _amount(one["in_use"], name)]), _amount(one["limit"], name)]
        for name, one in found.items()
    ]
    columns = [Column("OF"), Column("IN USE"), Column("LIMIT")]
    output.write(output.table(columns, rows, width=output.table_width()))


def _amount(value: Any, name: str) -> str:
    if value == -1:
        return "unlimited"
    return f"{float(value):g} {RESOURCES.get(name, '')}".rstrip()


def _limit(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if value in ("unlimited", "-1"):
        return -1
    try:
        if param.name == "memory":
            return text.parse_memory_mib(value)
        return text.parse_size_gib(value) if param.name == "disk" else int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no limit. Write a number or 'unlimited'", ctx, param) from None


@click.command("set", cls=base.Command, examples=["askos quota set PROJECT --containers 100 --memory 64g"])
@click.option("--containers", callback=_limit, metavar="N", help="Containers.")
@click.option("--cpu", callback=_limit, metavar="N", help="Processors.")
@click.option("--memory", callback=_limit, metavar="SIZE", help="Memory, such as 64g.")
@click.option("--disk", callback=_limit, metavar="SIZE", help="Disk, such as 100g.")
@click.option("--default", "default", is_flag=True, help="Of all projects without limits of their own.")
@click.argument("project", required=False)
def quota_set(project: str | None, default: bool, **limits: int | None) -> None:
    """Change what a project, by its id, may use (administrators only)."""
    changes = {name: value for name, value in limits.items() if value is not None}
    if not changes:
        raise click.UsageError("say which limit, such as --containers 100", click.get_current_context())
    if bool(project) == default:
        raise click.UsageError("say whose: a PROJECT, or --default", click.get_current_context())
    path = "/quota_classes/default" if default else f"/quotas/{part(project or '')}"
    with base.doing(f"set the quota of {project or 'projects'}"):
        base.session().json("PUT", path, body=changes)
    print(project or "default")


@click.command("reset", cls=base.Command, examples=["askos quota reset PROJECT"])
@click.argument("project")
def quota_reset(project: str) -> None:
    """Take away a project's own limits: the defaults count again (administrators only)."""
    with base.doing(f"reset the quota of {project}"):
        base.session().request("DELETE", f"/quotas/{part(project)}")
    print(project)


# -- hosts ---------------------------------------------------------------------------------------------------------


@click.group(
    cls=LazyGroup,
    lazy={
        "ls": Lazy(f"{HERE}:host_ls", "List hosts."),
        "show": Lazy(f"{HERE}:host_show", "Show all about one or more hosts."),
        "zones": Lazy(f"{HERE}:host_zones", "List availability zones."),
    },
)
def host() -> None:
    """The machines that containers run on (administrators only)."""


@click.command("ls", cls=base.Command, examples=["askos host ls"])
@click.option("-q", "--quiet", is_flag=True, help="Only names, one a line.")
@base.format_options("table", "json", "yaml")
def host_ls(quiet: bool, form: str) -> None:
    """List hosts, and how much of each is given away."""
    with base.doing("list hosts"):
        found = base.session().json("GET", "/hosts")["hosts"]
    if quiet:
        output.write("".join(f"{each['hostname']}\n" for each in found))
    elif form != "table":
        output.write(output.structured(found, form))
    else:
        rows = [
            [
                str(h["hostname"]),
                str(h["total_containers"]),
                f"{h['cpu_used']:g} of {h['cpus']:g}",
                f"{h['mem_used']} of {h['mem_total']} MiB",
                f"{h['disk_used']} of {h['disk_total']} GiB",
                ", ".join(h.get("runtimes") or []),
                ", ".join(f"{key}={value}" for key, value in (h.get("labels") or {}).items()),
            ]
            for h in found
        ]
        columns = [Column("HOST", 10), *map(Column, ("CONTAINERS", "CPU", "MEMORY", "DISK"))]
        columns += [Column("RUNTIMES", 8), Column("LABELS", 8)]
        output.write(output.table(columns, rows, width=output.table_width()))


@click.command("show", cls=base.Command, examples=["askos host show node-1"])
@click.argument("names", nargs=-1, required=True, metavar="HOST...")
@base.format_options("text", "json", "yaml")
def host_show(names: tuple[str, ...], form: str) -> None:
    """Show all about one or more hosts, by name or uuid."""
    session = base.session()
    found: list[dict[str, Any]] = []

    def look(name: str) -> None:
        one = session.json("GET", f"/hosts/{part(name)}")
        if form == "text":
            output.write(("\n" if found else "") + output.key_values(host_view(one)))
        found.append(one)

    try:
        base.for_each(names, "show the host {}", look, {404: "See `askos host ls`"})
    finally:
        if form != "text" and found:
            output.write(output.structured(found[0] if len(names) == 1 else found, form))


def host_view(h: dict[str, Any]) -> list[tuple[str, str]]:
    """What a person wants to know."""
    pairs = [
        ("Name", str(h["hostname"])),
        ("UUID", str(h["uuid"])),
        ("Containers", str(h["total_containers"])),
        ("CPU", f"{h['cpu_used']:g} of {h['cpus']:g}"),
        ("Memory", f"{h['mem_used']} of {h['mem_total']} MiB"),
        ("Disk", f"{h['disk_used']} of {h['disk_total']} GiB"),
        ("Machine", f"{h['architecture']}, {h['os']}, kernel {h['kernel_version']}"),
        ("Runtimes", ", ".join(h.get("runtimes") or [])),
        ("Labels", "\n".join(f"{key}={value}" for key, value in (h.get("labels") or {}).items())),
    ]
    return [(key, value) for key, value in pairs if value]


@click.command("zones", cls=base.Command, examples=["askos host zones"])
def host_zones() -> None:
    """List the availability zones that `askos run --zone` takes."""
    with base.doing("list availability zones"):
        found = base.session().json("GET", "/availability_zones")["availability_zones"]
    output.write("".join(f"{each['availability_zone']}\n" for each in found))


# -- services ------------------------------------------------------------------------------------------------------


@click.group(
    cls=LazyGroup,
    lazy={
        "ls": Lazy(f"{HERE}:service_ls", "List the services of hosts."),
        "enable": Lazy(f"{HERE}:service_enable", "Let hosts get containers again."),
        "disable": Lazy(f"{HERE}:service_disable", "Let hosts get no more containers."),
        "force-down": Lazy(f"{HERE}:service_force_down", "Let hosts count as down."),
        "rm": Lazy(f"{HERE}:service_rm", "Forget hosts that are gone."),
    },
)
def service() -> None:
    """Askos' program on each host (administrators only)."""


@click.command("ls", cls=base.Command, examples=["askos service ls"])
@base.format_options("table", "json", "yaml")
def service_ls(form: str) -> None:
    """List the services: whether they are there, and get containers."""
    with base.doing("list services"):
        found = base.session().json("GET", "/services")["services"]
    if form != "table":
        output.write(output.structured(found, form))
        return
    rows = [
        [
            str(s["host"]),
            str(s["binary"]),
            "forced down" if s["forced_down"] else str(s["state"]),
            (f"disabled: {s['disabled_reason']}" if s["disabled_reason"] else "disabled")
            if s["disabled"]
            else "enabled",
            str(s["availability_zone"]),
            text.ago(s["last_seen_up"]),
        ]
        for s in found
    ]
    columns = [Column("HOST", 10), Column("SERVICE"), Column("STATE"), Column("USE", 8), Column("ZONE"), Column("SEEN")]
    output.write(output.table(columns, rows, width=output.table_width()))


def _switch(method: str, path: str, hosts: tuple[str, ...], what: str, more: Query) -> None:
    session = base.session()

    def act(name: str) -> None:
        session.request(method, f"/services{path}", query=[("host", name), ("binary", BINARY), *more])
        print(name)

    base.for_each(hosts, what + " {}", act, {404: "See `askos service ls`"})


_hosts_argument = click.argument("hosts", nargs=-1, required=True, metavar="HOST...")


@click.command("enable", cls=base.Command, examples=["askos service enable node-1"])
@_hosts_argument
def service_enable(hosts: tuple[str, ...]) -> None:
    """Let hosts get containers again."""
    _switch("PUT", "/enable", hosts, "enable", [])


@click.command("disable", cls=base.Command, examples=["askos service disable --reason 'new disks' node-1"])
@click.option("--reason", metavar="TEXT", help="Why, for others to read.")
@_hosts_argument
def service_disable(hosts: tuple[str, ...], reason: str | None) -> None:
    """Let hosts get no more containers. Those that they have stay."""
    _switch("PUT", "/disable", hosts, "disable", [("disabled_reason", reason)] if reason else [])


@click.command("force-down", cls=base.Command, examples=["askos service force-down node-1"])
@click.option("--unset", is_flag=True, help="Not any more.")
@_hosts_argument
def service_force_down(hosts: tuple[str, ...], unset: bool) -> None:
    """Let hosts count as down, whatever they say themselves."""
    _switch("PUT", "/force_down", hosts, "force down", [("forced_down", str(not unset))])


@click.command("rm", cls=base.Command, examples=["askos service rm node-9"])
@_hosts_argument
def service_rm(hosts: tuple[str, ...]) -> None:
    """Forget hosts that are gone."""
    _switch("DELETE", "", hosts, "remove", [])
