"""`kill -9` at random moments, and in the middle of a chosen request, while everything is asked of containers that Zun
knows, and capsules, volumes, networks, floating addresses, images, registries and quotas are made, changed and deleted.

What was accepted must be true in the end, what was refused must not have happened, and what had no answer may be
either. In the end everything can be deleted, and nothing is left. For a long run:

    ROUNDS=50 SEED=7 pytest tests/acceptance/test_crash_everything.py --timeout 7200
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.acceptance import capsule_checks, crash_oracle
from tests.acceptance import crash_checks as checks
from tests.acceptance import crash_things as things
from tests.acceptance.capsule_workload import Slot
from tests.acceptance.crash_boxes import BASE, Box
from tests.acceptance.crash_fixtures import Cloud, eventually
from tests.acceptance.crash_model import Actor, Crowd
from tests.acceptance.crash_world import World

ROUNDS = int(os.environ.get("ROUNDS", "2"))
SECONDS_MAX = float(os.environ.get("SECONDS_MAX", "inf"))
"""No new round is begun after so long."""
SEED = os.environ.get("SEED", "1")
VICTIMS = ("both", "containerd", "askos")
AIMS = (
    "create", "start", "stop", "reboot", "pause", "unpause", "kill", "rebuild", "commit", "put_archive", "delete",
    "network_attach", "network_detach", "add_security_group", "update", "lead", "upload", "make", "unmake",
)  # fmt: skip
THREADS = 4
BOXES = 3
"""Of each thread."""
KINDS = ["lasting", "job", "failing"]
SETTLE_S = 150.0
TIDY_S = 90.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    try:
        made.up()
        yield made
    finally:
        made.remove()


class Everything:
    """All that users have, and who asks for it: one list of actors for each thread."""

    def __init__(self, world: World) -> None:
        self.world = world
        volumes = [[things.Volume(world, 10 * n + i) for i in range(2)] for n in range(THREADS)]
        groups = [[Box(world, BOXES * n + i, volumes[n]) for i in range(BOXES)] for n in range(THREADS)]
        self.boxes = [box for group in groups for box in group]
        self.slots = [Slot(n, KINDS) for n in range(4)]
        networks = [things.Network(world, n) for n in range(2)]
        subnets = [things.Subnet(world, n, network) for n, network in enumerate(networks)]
        walls = [things.Group(world, n) for n in range(2)]
        self.records: list[things.Record] = [
            *(things.Floating(world, n) for n in range(4)), *(things.Port(world, n, networks[n]) for n in range(2)),
            *(things.Router(world, n, subnets[n]) for n in range(2)), *(things.Rule(world, n, walls[n]) for n in range(2)),
            *subnets, *networks, *walls, *(things.StoredImage(world, n) for n in range(2)),
            *(things.Registry(world, n) for n in range(2)),
        ]  # fmt: skip
        self.quota = things.Quota(f"/v1/quotas/{world.project}")
        self.volumes = [volume for own in volumes for volume in own]
        self.actors: list[list[Actor]] = [
            *(list[Actor]([*group, *group, *own]) for group, own in zip(groups, volumes, strict=True)),
            [*self.records, self.quota], [*self.slots],
        ]  # fmt: skip

    def unsettled(self) -> list[str]:
        """What the API says that cannot be, or not for long."""
        api, cloud = self.world.cloud.client, self.world.cloud
        shown = containers(cloud)
        witness = shown.pop(self.world.witness)
        wrong = [f"the witness is {witness['status']}"] if witness["status"] != "Running" else []
        wrong += [line for box in self.boxes for line in box.wrong(shown)]
        wrong += [f"{item['name']} exists, but nobody made it" for item in shown.values()]
        for kind in {type(record): record for record in (*self.records, *self.volumes)}.values():
            found = {view[kind.ident_field]: view for view in kind.all(api)}
            for record in (*self.records, *self.volumes):
                if type(record) is type(kind):
                    wrong += record.wrong(found)
            wrong += [
                f"{kind.single} {view['name']!r} ({ident}) exists, but nobody made it"
                for ident, view in found.items()
                if str(view["name"]).startswith(f"{self.world.tag}-{kind.single}-")
            ]
        for uuid in self.world.committed:
            image = api.at("GET", f"/image/v2/images/{uuid}").json()
            if image["status"] not in ("active", "killed"):
                wrong.append(f"the image {uuid} of a container is still {image['status']}")
        return wrong + self.quota.wrong(api) + capsule_checks.unsettled(cloud, self.slots)

    def wrong(self) -> list[str]:
        """What containers hold, and what the machine says, once everything has settled."""
        api, cloud = self.world.cloud.client, self.world.cloud
        shown = containers(cloud)
        there = [box for box in self.boxes if box.uuid in shown]
        bad = [line for box in there for line in box.wrong_inside(api)]
        return bad + crash_oracle.wrong_outside(self.world, there, shown)


def containers(cloud: Cloud) -> dict[str, dict[str, Any]]:
    answer = cloud.client.at("GET", BASE)
    assert answer.status == 200, answer.body
    return {item["uuid"]: item for item in answer.json()["containers"]}


@pytest.mark.timeout(600 + 300 * ROUNDS)
def test_everything_killed_at_random(cloud: Cloud) -> None:
    chance = random.Random(SEED)
    began = time.monotonic()
    before = crash_oracle.counted(cloud), crash_oracle.marked(cloud), crash_oracle.images_of(cloud)
    assert before[1], "the look for what is left cannot even see a running cloud"
    number = 0
    try:
        world = World(cloud)
        everything = Everything(world)
        witness = checks.Runtime(cloud).running[world.witness]
        while number < ROUNDS and time.monotonic() < began + SECONDS_MAX:
            one_round(everything, chance, number)
            assert checks.Runtime(cloud).running[world.witness] == witness, "who was left alone was restarted"
            number += 1
        the_end(everything, chance, before)
    except Exception as error:
        raise AssertionError(f"SEED={SEED} round {number} of {ROUNDS}: {error}\n{cloud.log_tail()}") from error


def one_round(everything: Everything, chance: random.Random, number: int) -> None:
    cloud, aim = everything.world.cloud, everything.world.aim
    # Each is killed in turn, first at any moment, then in the middle of a request.
    victim = VICTIMS[number % len(VICTIMS)]
    words = chance.sample(AIMS, 4) if number % 2 else []
    delay, again = chance.uniform(0.5, 3.5), chance.random() < 0.4
    with Crowd(cloud, everything.actors, f"{SEED}/{number}"):
        time.sleep(delay)
        if words:
            aim.at(words)
            hit = aim.hit.wait(4)
            time.sleep(chance.uniform(0, 0.06))
            say(f"round {number}: in the middle of {aim.word}" if hit else f"round {number}: nobody asked for {words}")
        cloud.kill(victim)
        say(f"round {number}: killed {victim} after {delay:.1f} s")
        if victim != "containerd":
            if chance.random() < 0.4:
                cloud.killed_start(chance.uniform(0.1, 1.2))
                say(f"round {number}: and a start")
            cloud.up()
        time.sleep(chance.uniform(0.2, 2.0))
        if again:
            cloud.kill("both")
            say(f"round {number}: killed both again")
            cloud.up()
            time.sleep(chance.uniform(0, 1.0))
    began = time.monotonic()
    wrong = eventually(everything.unsettled, SETTLE_S, 0.5)
    assert not wrong, f"({victim}) not settled after {SETTLE_S:g} s:\n" + "\n".join(wrong)
    settled_s = time.monotonic() - began
    wrong = eventually(everything.wrong, TIDY_S, 1.0)
    assert not wrong, f"({victim}) not as the API says:\n" + "\n".join(wrong)
    found = capsule_checks.shown(cloud)
    for slot in everything.slots:
        slot.may = {"there"} if slot.name in found else {"gone"}
        if slot.name in found:
            capsule_checks.know(cloud, slot, found[slot.name])
    say(f"round {number}: settled after {settled_s:.1f} s, looked at for {time.monotonic() - began - settled_s:.1f} s")


def say(text: str) -> None:
    print(text, flush=True)


def the_end(everything: Everything, chance: random.Random, before: tuple[dict[str, int], list[str], set[str]]) -> None:
    world, cloud = everything.world, everything.world.cloud
    api, began = cloud.client, time.monotonic()
    for box in everything.boxes:
        if box.ends.sure != "gone":
            box.remove(api, chance)
    for name in capsule_checks.shown(cloud):
        assert api.at("DELETE", f"/askos/v1/capsules/{name}?gracePeriodSeconds=0").status == 202
    assert api.at("DELETE", f"{BASE}/{world.witness}?force=true").status == 204
    time.sleep(chance.uniform(0, 1))
    cloud.kill("both")
    # Sandboxes made in advance belong to nobody: without them, nothing may be left.
    cloud.environment["ASKOS_WARM_SANDBOXES"] = "0"
    cloud.up()
    api = cloud.client
    wrong = eventually(lambda: [*containers(cloud), *capsule_checks.shown(cloud)], TIDY_S, 0.5)
    assert not wrong, f"these are still there {TIDY_S:g} s after they were deleted: {wrong}"
    say(f"the end: containers gone after {time.monotonic() - began:.1f} s")
    sweep(world)
    rows, marks, images = before
    wrong = eventually(
        lambda: checks.leftovers(cloud) + crash_oracle.left_behind(cloud, rows, marks, images), TIDY_S, 1.0
    )
    assert not wrong, "left over after everything was deleted:\n" + "\n".join(wrong)
    say(f"the end: nothing left after {time.monotonic() - began:.1f} s")
    wrong = crash_oracle.usage(api, world.project)
    assert not wrong, "\n".join(wrong)
    cloud.down()
    wrong = eventually(lambda: checks.on_machine(cloud) + crash_oracle.marked(cloud), TIDY_S)
    assert not wrong, "left over after askos down:\n" + "\n".join(wrong)


def sweep(world: World) -> None:
    """Delete everything that is not a container."""
    api = world.cloud.client
    base = "/networking/v2.0"
    for router in api.at("GET", f"{base}/routers").json()["routers"]:
        for port in api.at("GET", f"{base}/ports?device_id={router['id']}").json()["ports"]:
            path = f"{base}/routers/{router['id']}/remove_router_interface"
            answer = api.at("PUT", path, {"port_id": port["id"]})
            assert answer.status == 200, answer.body
    for path, plural, field in (
        (f"{base}/floatingips", "floatingips", "id"), (f"{base}/routers", "routers", "id"),
        (f"{base}/ports", "ports", "id"), (f"{base}/networks?router:external=false", "networks", "id"),
        (f"{base}/security-groups", "security_groups", "id"), ("/volume/v3/volumes", "volumes", "id"),
        ("/image/v2/images?limit=1000", "images", "id"), ("/v1/registries", "registries", "uuid"),
    ):  # fmt: skip
        for view in api.at("GET", path).json()[plural]:
            if view.get("name") != "default" or plural != "security_groups":
                answer = api.at("DELETE", f"{path.partition('?')[0]}/{view[field]}")
                assert answer.status in (202, 204), f"{plural} {view}: {answer.status} {answer.body!r}"
    assert api.at("DELETE", f"/v1/quotas/{world.project}").status == 200
