"""Whether capsules have become what was asked for."""

from __future__ import annotations

from typing import Any

from tests.acceptance.capsule_workload import BASE, ENDS, STEADY, Slot
from tests.acceptance.crash_fixtures import Cloud

from askos.model.images import normalise


def shown(cloud: Cloud) -> dict[str, dict[str, Any]]:
    answer = cloud.client.at("GET", BASE)
    assert answer.status == 200, answer.body
    return {each["metadata"]["name"]: each for each in answer.json()["items"]}


def unsettled(cloud: Cloud, slots: list[Slot]) -> list[str]:
    found = shown(cloud)
    wrong = []
    for slot in slots:
        each = found.pop(slot.name, None)
        if each is None or each["metadata"].get("deletionTimestamp"):
            if "gone" not in slot.may or each is not None:
                wrong.append(f"{slot.name} is {'going' if each else 'gone'}, not {slot.may}")
            continue
        status = each["status"]
        if "there" not in slot.may or status["phase"] not in ENDS[slot.kind]:
            wrong.append(f"{slot.name} is {status['phase']}, may be {slot.may}: {status.get('containerStatuses')}")
        if slot.kind in STEADY and not all(c["ready"] for c in status["containerStatuses"]):
            wrong.append(f"{slot.name} is not ready: {status['containerStatuses']}")
        wrong += not_as_asked(cloud, slot, each)
    return wrong + [f"{name} exists, but nobody made it" for name in found]


def not_as_asked(cloud: Cloud, slot: Slot, each: dict[str, Any]) -> list[str]:
    wrong = []
    if each["metadata"]["labels"]["n"] not in slot.label:
        wrong.append(f"{slot.name} has the label {each['metadata']['labels']}, asked for was {slot.label}")
    if slot.kind not in STEADY:
        return wrong
    (main,) = (c for c in each["status"]["containerStatuses"] if c["name"] == "main")
    asked = each["spec"]["containers"][0]["image"]
    if asked not in slot.image or normalise(asked) != main["image"]:
        wrong.append(f"{slot.name} has the image {main['image']}, asked for was {slot.image}")
    if each["status"]["observedGeneration"] != each["metadata"]["generation"]:
        wrong.append(f"{slot.name} is behind: {each['status']['observedGeneration']} {each['metadata']['generation']}")
    held = secret_of(cloud, each)
    if held not in slot.secret:
        wrong.append(f"{slot.name} holds the secret {held!r}, asked for was {slot.secret}")
    return wrong


def secret_of(cloud: Cloud, each: dict[str, Any]) -> bytes:
    try:
        return (cloud.data / "capsules" / each["id"] / "secret" / "secret" / "k").read_bytes()
    except FileNotFoundError:
        return b""


def know(cloud: Cloud, slot: Slot, each: dict[str, Any]) -> None:
    """What came of a change whose answer was lost is known now."""
    slot.label = {each["metadata"]["labels"]["n"]}
    slot.image = {c["image"] for c in each["spec"]["containers"] if c["name"] == "main"}
    if slot.kind in STEADY:
        slot.secret = {secret_of(cloud, each)}
