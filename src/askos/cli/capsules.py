"""`askos capsule`: create, ls, describe, logs, exec, attach, port-forward, top, delete."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from askos.cli import base, output, text
from askos.cli.base import Lazy, LazyGroup
from askos.cli.output import Column
from askos.cli.specification import converted
from askos.client.capsules import Capsule, Capsules
from askos.client.errors import ApiError, ClientError

HERE = "askos.cli.capsules"
STREAMS = "askos.cli.capsule_streams"
MARGIN_S = 60.0


@click.group(
    cls=LazyGroup,
    lazy={
        "create": Lazy(f"{HERE}:create", "Create capsules from Pod manifests."),
        "ls": Lazy(f"{HERE}:ls", "List capsules."),
        "describe": Lazy("askos.cli.capsule_describe:describe", "Show all about capsules, with events."),
        "logs": Lazy(f"{HERE}:logs", "Print what a container of a capsule has written."),
        "exec": Lazy(f"{STREAMS}:exec_", "Run a command in a container of a capsule."),
        "attach": Lazy(f"{STREAMS}:attach", "Connect to a container's own process."),
        "port-forward": Lazy(f"{STREAMS}:port_forward", "Reach a port inside a capsule from here."),
        "top": Lazy(f"{HERE}:top", "Show what running containers use."),
        "delete": Lazy(f"{HERE}:delete", "Delete capsules."),
        "get": Lazy("askos.cli.capsule_describe:get", "Print capsules as YAML or JSON.", hidden=True),
        "rm": Lazy(f"{HERE}:delete", "Same as `delete`.", hidden=True),
        "ps": Lazy(f"{HERE}:ls", "Same as `ls`.", hidden=True),
        "show": Lazy("askos.cli.capsule_describe:describe", "Same as `describe`.", hidden=True),
    },
    hints={"apply": "Use `askos capsule create -f FILE`.", "list": "Use `askos capsule ls`."},
)
def capsule() -> None:
    """Capsules: pods of containers that share a network and volumes."""


namespace_option = click.option("-n", "--namespace", metavar="NAME", help="Where names are looked up (default).")
container_option = click.option("-c", "--container", metavar="NAME", help="Which container; needed with several.")


def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of capsules for the shell. Never an error: a shell has no use for one."""
    try:
        from askos.client.connection import resolve
        from askos.client.session import Session
        from askos.client.tokens import TokenCache

        line = Session(resolve(ctx.params.get("os_cloud"), ctx.params.get("data")), TokenCache.of_user())
        found = Capsules(line, ctx.params.get("namespace")).every()
        line.close()
        return [c["metadata"]["name"] for c in found if c["metadata"]["name"].startswith(incomplete)]
    except Exception:
        return []


name_argument = click.argument("name", shell_complete=complete)


def capsules(namespace: str | None = None) -> Capsules:
    """The native API's capsules, on the session of the running command."""
    return Capsules(base.session(), namespace)


@click.command(
    cls=base.Command, examples=["askos capsule create -f pod.yaml", "cat pod.yaml | askos capsule create -f -"]
)
@click.option(
    "-f", "--file", "files", multiple=True, required=True, metavar="FILE", help="A manifest; - is standard input."
)
@click.option("-n", "--namespace", metavar="NAME", help="For manifests that name none.")
@click.option("--no-wait", is_flag=True, help="Return when it is accepted, not when it is ready or has ended.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
def create(files: tuple[str, ...], namespace: str | None, no_wait: bool, quiet: bool) -> None:
    """Create capsules from Kubernetes Pod manifests, and wait until they are ready or have ended.

    A file may hold several documents: each Pod becomes a capsule; ConfigMaps and Secrets beside it go with it.
    """
    from askos.cli import manifest_files

    bodies = manifest_files.read(files)
    api = capsules()
    failed = False
    made: list[tuple[str, Capsule]] = []
    for body in bodies:
        metadata = body.get("metadata")
        if isinstance(metadata, dict) and namespace and not metadata.get("namespace"):
            body["metadata"] = {**metadata, "namespace": namespace}
        shown = str((metadata or {}).get("name") or (metadata or {}).get("generateName") or "without a name")
        try:
            created, warnings = api.create(body)
        except ApiError as error:
            base.complain(base.told(f"create capsule {shown}", error, {404: ""}))
            for line in error.details.splitlines():
                print(f"  {output.printable(line)}", file=sys.stderr)
            failed = True
            continue
        for warning in warnings:
            print(f"askos: warning: {output.printable(warning)}", file=sys.stderr)
        made.append((str(created["metadata"]["name"]), created))
    for name, created in made:
        if quiet:
            output.write(f"{created['id']}\n")
        state = "accepted" if no_wait else _settle(api, str(created["id"]))
        if not quiet:
            output.write(f"capsule {name} {state}\n")
        failed = failed or state.startswith("failed")
    if failed:
        raise SystemExit(1)


def _settle(api: Capsules, ident: str) -> str:
    """Wait until a capsule is ready, has ended, or cannot go on without help; how it is then."""
    seen = api.show(ident)
    while True:
        found = _verdict(seen)
        if found:
            return found
        for change in api.watch(str(seen["metadata"]["resourceVersion"])):
            if change["object"].get("id") == ident:
                break
        try:
            seen = api.show(ident)
        except ApiError as error:
            if error.status == 404:
                return "failed: somebody deleted it"
            raise


_STUCK = {"ImagePullBackOff", "CrashLoopBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"}


def _verdict(seen: Capsule) -> str:
    status = seen["status"]
    if status["phase"] == "Succeeded":
        return "succeeded"
    if status["phase"] == "Failed":
        why = status.get("message") or status.get("reason") or "a container ended with an error"
        return f"failed: {why}"
    for c in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = c["state"].get("waiting")
        if waiting and waiting.get("reason") in _STUCK:
            return f"failed: {c['name']}: {waiting['reason']}: {waiting.get('message') or 'see its log'}"
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return f"failed: {condition.get('message') or 'no host takes it'}"
        if condition["type"] == "Ready" and condition["status"] == "True":
            return "ready"
    return ""


@click.command(cls=base.Command, examples=["askos capsule ls", "askos capsule ls -l app=web,tier!=back -o json"])
@namespace_option
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="By labels: app=web,tier in (a,b),!old.")
@click.option("-A", "--all-projects", is_flag=True, help="Of all projects (administrators).")
@click.option("-q", "--quiet", is_flag=True, help="Only ids, one a line.")
@click.option("-w", "--wide", is_flag=True, help="More columns.")
@base.format_options("table", "json", "yaml")
def ls(*, namespace: str | None, selector: str, all_projects: bool, quiet: bool, wide: bool, form: str) -> None:
    """List capsules."""
    with base.doing("list capsules"):
        found = capsules(namespace).every(selector=selector, all_projects=all_projects)
    if quiet:
        output.write("".join(f"{each['id']}\n" for each in found))
    elif form != "table":
        output.write(output.structured(found, form))
    else:
        output.write(listing(found, wide=wide, width=output.table_width()))


def listing(found: list[Capsule], *, wide: bool, width: int | None) -> str:
    """The table, as kubectl's of pods."""
    columns = [Column("NAME", 16), Column("READY"), Column("STATUS", 8), Column("RESTARTS"), Column("AGE")]
    columns += [Column("ADDRESS"), Column("NAMESPACE", 8), Column("HOST", 8), Column("ID")] if wide else []
    rows = []
    for each in found:
        status = each["status"]
        own = status.get("containerStatuses", [])
        ready = f"{sum(1 for c in own if c.get('ready'))}/{len(own)}"
        restarts = sum(int(c.get("restartCount", 0)) for c in [*own, *status.get("initContainerStatuses", [])])
        row = [each["metadata"]["name"], ready, summary(each), str(restarts), age(each["metadata"])]
        if wide:
            row += [
                str(status.get("podIP") or ""),
                str(each["metadata"]["namespace"]),
                str(each.get("host") or ""),
                str(each["id"]),
            ]
        rows.append(row)
    return output.table(columns, rows, width=width)


def summary(each: Capsule) -> str:
    """One word for how a capsule is, as kubectl says it."""
    status = each["status"]
    if each["metadata"].get("deletionTimestamp"):
        return "Terminating"
    if status.get("reason"):
        return str(status["reason"])
    init = status.get("initContainerStatuses", [])
    sidecars = {c["name"] for c in each["spec"].get("initContainers", []) if c.get("restartPolicy") == "Always"}
    for number, c in enumerate(init):
        state = c["state"]
        if c["name"] in sidecars and c.get("started"):
            continue
        if "terminated" in state and state["terminated"]["exitCode"] == 0:
            continue
        word = (state.get("waiting") or state.get("terminated") or {}).get("reason") or ""
        if word in ("", "PodInitializing", "ContainerCreating"):
            return f"Init:{number}/{len(init)}"
        return f"Init:{word}"
    for c in reversed(status.get("containerStatuses", [])):
        state = c["state"].get("waiting") or c["state"].get("terminated")
        if state and state.get("reason"):
            word = str(state["reason"])
            if word == "Completed" and status["phase"] == "Running":
                continue
            return word
    return str(status["phase"])


def age(metadata: dict[str, Any]) -> str:
    """How long ago it was made: "5m", "3h"."""
    seconds = max(0, int(time.time() - moment(str(metadata["creationTimestamp"]))))
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def moment(stamp: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp()


@click.command(
    cls=base.Command,
    examples=["askos capsule logs -f web -c nginx", "askos capsule logs --previous --tail 20 web"],
)
@namespace_option
@container_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the container ends.")
@click.option("-p", "--previous", is_flag=True, help="Of the container's life before this one.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("-t", "--timestamps", is_flag=True, help="Put the time in front of each line.")
@click.option(
    "--since",
    metavar="TIME",
    callback=converted(lambda value: text.parse_since_s(value, time.time())),
    help="Only what is newer: 10m, 2026-11-21T08:00:00Z, or seconds since 1970.",
)
@click.option("--limit-bytes", type=click.IntRange(min=1), metavar="N", help="At most so many bytes.")
@name_argument
def logs(
    *,
    namespace: str | None,
    container: str | None,
    follow: bool,
    previous: bool,
    tail: int | None,
    timestamps: bool,
    since: int | None,
    limit_bytes: int | None,
    name: str,
) -> None:
    """Print what a container has written: standard output and standard error, in their order."""
    query = [("container", container)] if container else []
    query += [
        (word, "true") for word, on in (("follow", follow), ("previous", previous), ("timestamps", timestamps)) if on
    ]
    query += [("tailLines", str(tail))] if tail is not None else []
    query += [("limitBytes", str(limit_bytes))] if limit_bytes is not None else []
    if since is not None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
        query.append(("sinceTime", stamp))
    with base.doing(f"read the log of {name}", {404: "See `askos capsule ls`"}):
        for chunk in capsules(namespace).logs(name, query):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


@click.command(cls=base.Command, examples=["askos capsule top", "askos capsule top web"])
@namespace_option
@click.argument("name", required=False, shell_complete=complete)
@base.format_options("table", "json", "yaml")
def top(namespace: str | None, name: str | None, form: str) -> None:
    """Show what running containers use now."""
    with base.doing(f"look at {name or 'the capsules'}", {404: "See `askos capsule ls`"}):
        found = capsules(namespace).stats(name)
    if form != "table":
        output.write(output.structured(found, form))
        return
    columns = [Column("CAPSULE", 16), Column("CONTAINER", 8), Column("CPU"), Column("MEMORY"), Column("PROCESSES")]
    rows = []
    for each in found:
        for c in each["containers"]:
            cpu = c.get("cpuUsageNanoCores")
            rows.append(
                [
                    str(each["name"]),
                    str(c["name"]),
                    "-" if cpu is None else f"{cpu / 1e6:.0f}m",
                    f"{int(c.get('memoryWorkingSetBytes') or 0) / 2**20:.1f}Mi",
                    str(c.get("pids") or "-"),
                ]
            )
    output.write(output.table(columns, rows, width=output.table_width()))


@click.command(cls=base.Command, examples=["askos capsule delete web", "askos capsule delete --grace 0 web db"])
@namespace_option
@click.option("--grace", "--grace-period", type=click.IntRange(min=0), metavar="SECONDS", help="Before it is killed.")
@click.option("--force", is_flag=True, help="Same as --grace 0.")
@click.option("--no-wait", is_flag=True, help="Return when it is accepted, not when it is gone.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="All with these labels.")
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete)
def delete(
    *, namespace: str | None, grace: int | None, force: bool, no_wait: bool, selector: str, names: tuple[str, ...]
) -> None:
    """Delete capsules, and wait until they are gone."""
    if bool(names) == bool(selector):
        raise click.UsageError("name capsules, or select them with -l")
    api = capsules(namespace)
    if selector:
        with base.doing("list capsules"):
            names = tuple(str(each["id"]) for each in api.every(selector=selector))
    asked: list[tuple[str, str, float]] = []

    def ask(name: str) -> None:
        found = api.delete(name, 0 if force else grace)
        wait_s = float(found["metadata"].get("deletionGracePeriodSeconds") or 0)
        asked.append((str(found["id"]), str(found["metadata"]["name"]), wait_s))

    try:
        base.for_each(names, "delete capsule {}", ask, {404: "See `askos capsule ls`"})
    finally:
        for ident, shown, wait_s in asked:
            if not no_wait and not api.wait_gone(ident, wait_s + MARGIN_S):
                raise ClientError(f"capsule {shown} is not gone yet. See `askos capsule describe {shown}`")
            output.write(f"{shown}\n")
