"""Parts of a pod in a line or a few, for `askos capsule describe`: probes, variables, mounts, volumes, states.

Pure functions of the API's objects.
"""

from __future__ import annotations

import time
from typing import Any

from askos.cli import output, text
from askos.cli.capsule_state import moment, since

Part = dict[str, Any]


def when(stamp: str | None) -> str:
    """A time, and how long ago it was (or is to come)."""
    if not stamp:
        return ""
    past = time.time() - moment(stamp)
    return f"{stamp} (in {text.short_span(-past)})" if past < 0 else f"{stamp} ({text.short_span(past)} ago)"


def lines(values: dict[str, str] | None) -> str:
    """Labels and the like, one a line, whatever is in them."""
    return "\n".join(output.printable(f"{key}={value}") for key, value in (values or {}).items())


def state(given: Part) -> str:
    """A container's state: the word, and what belongs to it below."""
    for word, inner in given.items():
        told = [word.capitalize()]
        if inner.get("reason"):
            told[0] += f" ({inner['reason']})"
        if "exitCode" in inner:
            signal = f", signal {inner['signal']}" if inner.get("signal") else ""
            told.append(f"exit code {inner['exitCode']}{signal}")
        told += [
            f"{key.removesuffix('At')} {when(inner[key])}" for key in ("startedAt", "finishedAt") if inner.get(key)
        ]
        if inner.get("message"):
            told += [output.printable(line) for line in str(inner["message"]).strip().splitlines()]
        return "\n".join(told)
    return ""


def probe(given: Part | None) -> str:
    """What is asked, and how often: as kubectl says it."""
    if not given:
        return ""
    timing = (
        f"delay={given.get('initialDelaySeconds', 0)}s timeout={given.get('timeoutSeconds', 1)}s "
        f"period={given.get('periodSeconds', 10)}s success={given.get('successThreshold', 1)} "
        f"failure={given.get('failureThreshold', 3)}"
    )
    return f"{action(given)} {timing}"


def action(given: Part) -> str:
    """What a probe or a hook does."""
    if "exec" in given:
        return f"exec {text.command((given['exec'] or {}).get('command'))}".rstrip()
    if "httpGet" in given:
        get = given["httpGet"]
        where = f"{get.get('host') or ''}:{get.get('port')}{get.get('path') or '/'}"
        return f"http-get {str(get.get('scheme') or 'HTTP').lower()}://{where}"
    if "tcpSocket" in given:
        return f"tcp-socket {given['tcpSocket'].get('host') or ''}:{given['tcpSocket'].get('port')}"
    if "grpc" in given:
        service = given["grpc"].get("service")
        return f"grpc :{given['grpc'].get('port')}" + (f" {service}" if service else "")
    if "sleep" in given:
        return f"sleep {given['sleep'].get('seconds')}s"
    return "unknown"


def port(given: Part) -> str:
    """80/TCP (http)."""
    named = f" ({given['name']})" if given.get("name") else ""
    return f"{given.get('containerPort')}/{given.get('protocol') or 'TCP'}{named}"


def variable(given: Part) -> str:
    """NAME=value, or where the value comes from."""
    source = given.get("valueFrom")
    if not source:
        return output.printable(f"{given['name']}={given.get('value', '')}")
    kind, inner = next(iter(source.items()))
    known = {
        "secretKeyRef": f"key {inner.get('key')} of secret {inner.get('name')}",
        "configMapKeyRef": f"key {inner.get('key')} of config map {inner.get('name')}",
        "fieldRef": f"field {inner.get('fieldPath')}",
        "resourceFieldRef": " of container ".join(
            str(word) for word in (inner.get("resource"), inner.get("containerName")) if word
        ),
    }
    return f"{given['name']} from {known.get(kind, kind)}{_optional(inner)}"


def variables_from(given: Part) -> str:
    """Every key of a config map or secret, as variables."""
    for kind, noun in (("configMapRef", "config map"), ("secretRef", "secret")):
        if kind in given:
            inner = given[kind] or {}
            prefix = f" with prefix {given['prefix']}" if given.get("prefix") else ""
            return f"{noun} {inner.get('name')}{prefix}{_optional(inner)}"
    return "unknown"


def mount(given: Part) -> str:
    """Where, from which volume, and how."""
    options = ["ro" if given.get("readOnly") else "rw"]
    options += [f"path={given[key]}" for key in ("subPath", "subPathExpr") if given.get(key)]
    options += [str(given["mountPropagation"])] if given.get("mountPropagation") else []
    return f"{given['mountPath']} from {given['name']} ({', '.join(options)})"


def resources(given: Part | None) -> str:
    """Of limits or requests: "cpu 500m, memory 64Mi"."""
    return ", ".join(f"{key} {value}" for key, value in (given or {}).items())


def volume(given: Part) -> tuple[str, str]:
    """A volume's name, and what it is made of: the source in the first line, what it takes from it below."""
    kind = next((key for key in given if key != "name"), "emptyDir")
    return str(given["name"]), "\n".join(_source(kind, given.get(kind) or {}))


def _source(kind: str, inner: Part) -> list[str]:
    if kind == "emptyDir":
        words = ["in memory"] if inner.get("medium") == "Memory" else []
        words += [f"at most {inner['sizeLimit']}"] if inner.get("sizeLimit") else []
        return ["empty folder that lives as long as the capsule" + "".join(f", {word}" for word in words)]
    if kind == "projected":
        told = ["projected from"]
        for source in inner.get("sources") or []:
            for inner_kind, each in source.items():
                told += [f"  {line}" for line in _source(inner_kind, each or {})]
        return told
    if kind in ("configMap", "secret"):
        noun = "config map" if kind == "configMap" else "secret"
        return [f"{noun} {inner.get('name') or inner.get('secretName')}{_optional(inner)}", *_items(inner)]
    if kind == "downwardAPI":
        return ["the capsule's own fields", *_items(inner)]
    if kind in ("cinder", "persistentVolumeClaim"):
        read_only = ", read-only" if inner.get("readOnly") else ""
        return [f"volume {inner.get('volumeID') or inner.get('claimName')}{read_only}"]
    return [kind]


def _items(inner: Part) -> list[str]:
    told = []
    for item in inner.get("items") or []:
        reference = item.get("fieldRef") or item.get("resourceFieldRef") or {}
        what = item.get("key") or reference.get("fieldPath") or reference.get("resource")
        told.append(f"  {item.get('path')} from {what}")
    return told


def _optional(inner: Part) -> str:
    return ", optional" if inner.get("optional") else ""


def events(found: list[Part], width: int | None = None) -> str:
    """The table of events. A count tells how often, and for how long by now."""
    columns = [output.Column(head) for head in ("TYPE", "REASON", "AGE", "FROM")] + [output.Column("MESSAGE", 20)]
    rows = []
    for each in found:
        count, age = int(each.get("count") or 1), since(str(each["lastTimestamp"]))
        if count > 1:
            age += f" (x{count} over {since(str(each.get('firstTimestamp') or each['lastTimestamp']))})"
        message = " ".join(str(each["message"]).split())
        rows.append([str(each["type"]), str(each["reason"]), age, str(each.get("container") or "-"), message])
    return output.table(columns, rows, width=width)
