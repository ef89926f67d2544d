"""`askos capsule describe` and `get`."""

from __future__ import annotations

import time
from typing import Any

import click

from askos.cli import base, output, text
from askos.cli.capsules import capsules, complete, moment, namespace_option, summary
from askos.client.capsules import Capsule

Pairs = list[tuple[str, str]]


@click.command(cls=base.Command, examples=["askos capsule describe web"])
@namespace_option
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete)
@base.format_options("text", "json", "yaml")
def describe(namespace: str | None, names: tuple[str, ...], form: str) -> None:
    """Show all about capsules, by name or id: state, containers, conditions, volumes and events."""
    _each(namespace, names, form)


@click.command(cls=base.Command, examples=["askos capsule get web -o yaml"])
@namespace_option
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete)
@base.format_options("yaml", "json", "text")
def get(namespace: str | None, names: tuple[str, ...], form: str) -> None:
    """Print capsules as the API gives them."""
    _each(namespace, names, form)


def _each(namespace: str | None, names: tuple[str, ...], form: str) -> None:
    api = capsules(namespace)
    found: list[Capsule] = []

    def look(name: str) -> None:
        each = api.show(name)
        if form == "text":
            events = api.events(str(each["id"]))
            output.write(("\n" if found else "") + view(each, events))
        found.append(each)

    try:
        base.for_each(names, "show capsule {}", look, {404: "See `askos capsule ls`"})
    finally:
        if form != "text" and found:
            output.write(output.structured(found[0] if len(names) == 1 else found, form))


def view(each: Capsule, events: list[dict[str, Any]]) -> str:
    """Everything, in the order in which people look for it."""
    metadata, spec, status = each["metadata"], each["spec"], each["status"]
    head: Pairs = [
        ("Name", metadata["name"]),
        ("Namespace", metadata["namespace"]),
        ("Id", each["id"]),
        ("Status", _status(each)),
        ("Reason", str(status.get("reason") or "")),
        ("Message", str(status.get("message") or "")),
        ("Address", ", ".join(ip["ip"] for ip in status.get("podIPs") or [])),
        ("Host", str(each.get("host") or status.get("hostIP") or "")),
        ("Created", _when(metadata.get("creationTimestamp"))),
        ("Started", _when(status.get("startTime"))),
        ("Restart policy", str(spec.get("restartPolicy", "Always"))),
        ("QoS class", str(status.get("qosClass") or "")),
        ("Runtime class", str(spec.get("runtimeClassName") or "")),
        ("Labels", _lines(metadata.get("labels"))),
        ("Annotations", _lines(metadata.get("annotations"))),
    ]
    parts = [output.key_values([(key, value) for key, value in head if value])]
    for title, specs, statuses in (
        ("Init containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
    ):
        known = {c["name"]: c for c in status.get(statuses, [])}
        if spec.get(specs):
            parts.append(f"{title}:\n")
            parts += [_indented(f"{c['name']}:", _container(c, known.get(c["name"], {}))) for c in spec[specs]]
    conditions = [
        [c["type"], c["status"], str(c.get("reason") or ""), str(c.get("message") or "")]
        for c in status.get("conditions", [])
    ]
    if conditions:
        columns = [
            output.Column("CONDITION"),
            output.Column("STATUS"),
            output.Column("REASON"),
            output.Column("MESSAGE"),
        ]
        parts.append(output.table(columns, conditions, width=None))
    if spec.get("volumes"):
        parts.append(output.key_values([("Volumes", "\n".join(map(_volume, spec["volumes"])))]))
    parts.append(_events(events))
    return "".join(parts)


def _status(each: Capsule) -> str:
    word, phase = summary(each), str(each["status"]["phase"])
    grace = each["metadata"].get("deletionGracePeriodSeconds")
    if word == "Terminating":
        return f"Terminating ({phase}; grace {grace} s)"
    return phase if word == phase else f"{phase} ({word})"


def _container(spec: dict[str, Any], status: dict[str, Any]) -> Pairs:
    resources = status.get("resources") or spec.get("resources") or {}
    pairs: Pairs = [
        ("Container id", str(status.get("containerID") or "")),
        ("Image", str(spec.get("image"))),
        ("Image id", str(status.get("imageID") or "")),
        ("Ports", ", ".join(f"{p['containerPort']}/{p.get('protocol', 'TCP')}" for p in spec.get("ports", []))),
        ("Command", text.command(spec.get("command"))),
        ("Arguments", text.command(spec.get("args"))),
        ("State", _state(status.get("state") or {})),
        ("Last state", _state(status.get("lastState") or {})),
        ("Ready", str(bool(status.get("ready")))),
        ("Restarts", str(status.get("restartCount", 0))),
        ("Limits", ", ".join(f"{k} {v}" for k, v in (resources.get("limits") or {}).items())),
        ("Requests", ", ".join(f"{k} {v}" for k, v in (resources.get("requests") or {}).items())),
        ("Liveness", _probe(spec.get("livenessProbe"))),
        ("Readiness", _probe(spec.get("readinessProbe"))),
        ("Startup", _probe(spec.get("startupProbe"))),
        ("Environment", "\n".join(map(_variable, spec.get("env", [])))),
        ("Mounts", "\n".join(map(_mount, spec.get("volumeMounts", [])))),
    ]
    return [(key, value) for key, value in pairs if value]


def _state(state: dict[str, Any]) -> str:
    for word, inner in state.items():
        lines = [word.capitalize()]
        if inner.get("reason"):
            lines[0] += f" ({inner['reason']})"
        if "exitCode" in inner:
            signal = f", signal {inner['signal']}" if inner.get("signal") else ""
            lines.append(f"exit code {inner['exitCode']}{signal}")
        lines += [
            f"{key.removesuffix('At')} {_when(inner[key])}" for key in ("startedAt", "finishedAt") if inner.get(key)
        ]
        if inner.get("message"):
            lines.append(str(inner["message"]).strip())
        return "\n".join(lines)
    return ""


def _probe(probe: dict[str, Any] | None) -> str:
    if not probe:
        return ""
    if "httpGet" in probe:
        get_ = probe["httpGet"]
        action = f"{get_.get('scheme', 'HTTP').lower()} {get_['port']}{get_.get('path', '/')}"
    elif "exec" in probe:
        action = f"exec {text.command(probe['exec'].get('command'))}"
    elif "tcpSocket" in probe:
        action = f"tcp {probe['tcpSocket']['port']}"
    else:
        action = f"grpc {probe.get('grpc', {}).get('port')}"
    return (
        f"{action} (delay {probe.get('initialDelaySeconds', 0)} s, timeout {probe.get('timeoutSeconds', 1)} s, every "
        f"{probe.get('periodSeconds', 10)} s, bad after {probe.get('failureThreshold', 3)})"
    )


def _variable(variable: dict[str, Any]) -> str:
    source = variable.get("valueFrom")
    if not source:
        return f"{variable['name']}={variable.get('value', '')}"
    kind, inner = next(iter(source.items()))
    known = {
        "secretKeyRef": f"key {inner.get('key')} of secret {inner.get('name')}",
        "configMapKeyRef": f"key {inner.get('key')} of config map {inner.get('name')}",
        "fieldRef": str(inner.get("fieldPath")),
        "resourceFieldRef": str(inner.get("resource")),
    }
    return f"{variable['name']} from {known.get(kind, kind)}"


def _mount(mount: dict[str, Any]) -> str:
    options = [word for word, on in (("read-only", mount.get("readOnly")), (mount.get("subPath"), True)) if on and word]
    return f"{mount['mountPath']} from {mount['name']}" + (f" ({', '.join(map(str, options))})" if options else "")


def _volume(volume: dict[str, Any]) -> str:
    kind = next((key for key in volume if key != "name"), "emptyDir")
    inner = volume.get(kind) or {}
    what = inner.get("name") or inner.get("secretName") or inner.get("claimName") or inner.get("volumeID") or ""
    return " ".join(word for word in (f"{volume['name']}:", kind, str(what)) if word)


def _events(events: list[dict[str, Any]]) -> str:
    if not events:
        return "Events: none\n"
    columns = [output.Column(head) for head in ("TYPE", "REASON", "AGE", "FROM", "EVENT")]
    rows = []
    for each in events:
        count = int(each.get("count") or 1)
        when = text.span(max(0.0, time.time() - moment(str(each["lastTimestamp"]))))
        rows.append(
            [
                str(each["type"]),
                str(each["reason"]),
                when + (f" (x{count})" if count > 1 else ""),
                str(each.get("container") or "-"),
                str(each["message"]),
            ]
        )
    return "Events:\n" + output.table(columns, rows, width=None)


def _when(stamp: str | None) -> str:
    return f"{stamp} ({text.span(max(0.0, time.time() - moment(stamp)))} ago)" if stamp else ""


def _lines(values: dict[str, str] | None) -> str:
    return "\n".join(f"{key}={value}" for key, value in (values or {}).items())


def _indented(title: str, pairs: Pairs) -> str:
    body = "".join(f"    {line}\n" for line in output.key_values(pairs).splitlines())
    return f"  {output.printable(title)}\n{body}"
