"""`askos capsule describe`, `get` and `events`."""

from __future__ import annotations

from typing import Any

import click

from askos.cli import base, capsule_parts, output, text
from askos.cli.capsule_options import NOT_FOUND, capsules, complete, names_argument, namespace_option
from askos.cli.capsule_parts import lines, resources, when
from askos.cli.capsule_state import Capsule, condition, since, summary

Pairs = list[tuple[str, str]]
NOISE = ("kubectl.kubernetes.io/last-applied-configuration",)
"""Annotations that nobody wants to read: a copy of all of the manifest."""


@click.command(cls=base.Command, examples=["askos capsule describe web"])
@namespace_option
@names_argument
@base.format_options("text", "json", "yaml")
def describe(namespace: str | None, names: tuple[str, ...], form: str) -> None:
    """Show all about capsules, by name or id: state, containers, conditions, volumes and events."""
    _each(namespace, names, form)


@click.command(cls=base.Command, examples=["askos capsule get web > web.yaml", "askos capsule get -o json web db"])
@namespace_option
@names_argument
@base.format_options("yaml", "json", "text")
def get(namespace: str | None, names: tuple[str, ...], form: str) -> None:
    """Print capsules as the API gives them: one object for one name, a list for several."""
    _each(namespace, names, form)


@click.command(cls=base.Command, examples=["askos capsule events web"])
@namespace_option
@click.argument("name", shell_complete=complete)
@base.format_options("table", "json", "yaml")
def events(namespace: str | None, name: str, form: str) -> None:
    """Show what happened to a capsule, oldest first."""
    with base.doing(f"show the events of {name}", NOT_FOUND, name):
        found = capsules(namespace).events(name)
    if form != "table":
        output.write(output.structured(found, form))
    else:
        output.write(capsule_parts.events(found, output.table_width()))


def _each(namespace: str | None, names: tuple[str, ...], form: str) -> None:
    api = capsules(namespace)
    found: list[Capsule] = []

    def look(name: str) -> None:
        each = api.show(name)
        if form == "text":
            told = api.events(str(each["id"]))
            output.write(("\n" if found else "") + view(each, told))
        found.append(each)

    try:
        base.for_each(names, "show capsule {}", look, NOT_FOUND)
    finally:
        if form != "text" and found:
            output.write(output.structured(found[0] if len(names) == 1 else found, form))


def view(each: Capsule, told: list[dict[str, Any]]) -> str:
    """Everything, in the order in which people look for it."""
    spec, status = each["spec"], each["status"]
    parts = [output.key_values([(key, value) for key, value in _head(each) if value])]
    for title, specs, statuses in (
        ("Init containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
    ):
        known = {c["name"]: c for c in status.get(statuses, [])}
        if spec.get(specs):
            parts.append(f"{title}:\n")
            parts += [_indented(c["name"], _container(c, known.get(c["name"], {}))) for c in spec[specs]]
    if status.get("conditions"):
        parts.append("Conditions:\n" + _shifted(_conditions(status["conditions"])))
    if spec.get("volumes"):
        parts.append("Volumes:\n" + _shifted(output.key_values([capsule_parts.volume(v) for v in spec["volumes"]])))
    parts.append("Events:\n" + _shifted(capsule_parts.events(told)) if told else "Events:  none\n")
    return "".join(parts)


def _head(each: Capsule) -> Pairs:
    metadata, spec, status = each["metadata"], each["spec"], each["status"]
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k not in NOISE}
    host = " / ".join(str(word) for word in (each.get("host"), status.get("hostIP")) if word)
    deadline, security = spec.get("activeDeadlineSeconds"), spec.get("securityContext") or {}
    flags = [word for word, on in (("share processes", spec.get("shareProcessNamespace")),) if on]
    pulls = ", ".join(str(secret.get("name")) for secret in spec.get("imagePullSecrets") or [])
    return [
        ("Name", str(metadata["name"])),
        ("Namespace", str(metadata["namespace"])),
        ("Id", str(each["id"])),
        ("Client's uid", str(metadata["uid"]) if metadata.get("uid") != each["id"] else ""),
        ("Labels", lines(metadata.get("labels"))),
        ("Annotations", lines(annotations)),
        ("Status", _status(each)),
        ("Reason", str(status.get("reason") or "")),
        ("Message", " ".join(str(status.get("message") or "").split())),
        ("Addresses", ", ".join(ip["ip"] for ip in status.get("podIPs") or [])),
        ("Host name", ".".join(str(w) for w in (spec.get("hostname"), spec.get("subdomain")) if w)),
        ("Host", host),
        ("Created", when(metadata.get("creationTimestamp"))),
        ("Started", when(status.get("startTime"))),
        ("Restart policy", str(spec.get("restartPolicy") or "Always")),
        ("Grace", f"{spec.get('terminationGracePeriodSeconds', 30)}s"),
        ("Deadline", f"{deadline}s" if deadline is not None else ""),
        ("QoS class", str(status.get("qosClass") or "")),
        ("Runtime class", str(spec.get("runtimeClassName") or "")),
        ("Security", _flat(security)),
        ("Options", ", ".join(flags)),
        ("Pull secrets", pulls),
    ]


def _status(each: Capsule) -> str:
    word, phase, metadata = summary(each), str(each["status"]["phase"]), each["metadata"]
    if metadata.get("deletionTimestamp"):
        grace = metadata.get("deletionGracePeriodSeconds")
        return f"Terminating ({phase}; grace {grace}s, until {when(metadata['deletionTimestamp'])})"
    word = "Unschedulable" if condition(each, "PodScheduled").get("reason") == "Unschedulable" else word
    return phase if word == phase else f"{phase} ({word})"


def _container(spec: dict[str, Any], status: dict[str, Any]) -> Pairs:
    given = status.get("resources") or spec.get("resources") or {}
    lifecycle = spec.get("lifecycle") or {}
    flags = [key for key in ("stdin", "stdinOnce", "tty") if spec.get(key)]
    policy = "sidecar: started before and stopped after the others" if spec.get("restartPolicy") == "Always" else ""
    pairs: Pairs = [
        ("Container id", str(status.get("containerID") or "")),
        ("Image", str(spec.get("image"))),
        ("Image id", str(status.get("imageID") or "")),
        ("Kind", policy),
        ("Ports", ", ".join(map(capsule_parts.port, spec.get("ports") or []))),
        ("Command", text.command(spec.get("command"))),
        ("Arguments", text.command(spec.get("args"))),
        ("Folder", str(spec.get("workingDir") or "")),
        ("State", capsule_parts.state(status.get("state") or {})),
        ("Last state", capsule_parts.state(status.get("lastState") or {})),
        ("Ready", str(bool(status.get("ready")))),
        ("Restarts", str(status.get("restartCount", 0))),
        ("Limits", resources(given.get("limits"))),
        ("Requests", resources(given.get("requests"))),
        ("Liveness", capsule_parts.probe(spec.get("livenessProbe"))),
        ("Readiness", capsule_parts.probe(spec.get("readinessProbe"))),
        ("Startup", capsule_parts.probe(spec.get("startupProbe"))),
        ("After start", capsule_parts.action(lifecycle["postStart"]) if lifecycle.get("postStart") else ""),
        ("Before stop", capsule_parts.action(lifecycle["preStop"]) if lifecycle.get("preStop") else ""),
        ("Security", _flat(spec.get("securityContext") or {})),
        ("Options", ", ".join(flags)),
        ("Variables from", "\n".join(map(capsule_parts.variables_from, spec.get("envFrom") or []))),
        ("Environment", "\n".join(map(capsule_parts.variable, spec.get("env") or []))),
        ("Mounts", "\n".join(map(capsule_parts.mount, spec.get("volumeMounts") or []))),
    ]
    return [(key, value) for key, value in pairs if value]


def _flat(given: dict[str, Any]) -> str:
    """A small object on one line: "runAsUser 1000, capabilities add [NET_ADMIN]"."""
    words = []
    for key, value in given.items():
        if isinstance(value, dict):
            words += [f"{key} {_flat(value)}"] if value else []
        elif isinstance(value, list):
            words.append(f"{key} [{' '.join(map(str, value))}]")
        else:
            words.append(f"{key} {str(value).lower() if isinstance(value, bool) else value}")
    return ", ".join(words)


def _conditions(found: list[dict[str, Any]]) -> str:
    columns = [output.Column(head) for head in ("TYPE", "STATUS", "SINCE", "REASON", "MESSAGE")]
    rows = [
        [c["type"], c["status"], since(c.get("lastTransitionTime")), c.get("reason") or "", c.get("message") or ""]
        for c in found
    ]
    return output.table(columns, [[" ".join(str(cell).split()) for cell in row] for row in rows], width=None)


def _shifted(block: str, by: int = 2) -> str:
    return "".join(f"{'':{by}}{line}\n" for line in block.splitlines())


def _indented(title: str, pairs: Pairs) -> str:
    return f"  {output.printable(title)}:\n" + _shifted(output.key_values(pairs), 4)
