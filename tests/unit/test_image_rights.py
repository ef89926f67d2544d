"""An image that was fetched with a login is for the projects that had one."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import msgspec

from askos.loops.image_rights import ImageRights
from askos.model.capsules import Assignment, CapsuleSpec, ContainerSpec, Wish
from askos.model.images import normalise
from askos.model.pods import Content, Secret
from askos.ports import runtime as rt

from .fake_runtime import fake_image
from .test_pod_worker import Host, assignment, container, host, until

SECRET_APP = "registry.example/team/app:1"
LOGIN = rt.Credential(username="ann", password="hunter2")
_AUTH = base64.b64encode(b"ann:hunter2").decode()
CONTENT = Content(
    secrets={
        "login": Secret(
            type="kubernetes.io/dockerconfigjson",
            data={".dockerconfigjson": json.dumps({"auths": {"registry.example": {"auth": _AUTH}}}).encode()},
        )
    }
)


def wants(project: str, *, login: bool, policy: str = "IfNotPresent", image: str = SECRET_APP) -> Assignment:
    made = assignment(
        container(image=image, imagePullPolicy=policy),
        content=CONTENT if login else Content(),
        imagePullSecrets=[{"name": "login"}] if login else [],
    )
    return msgspec.structs.replace(made, project_id=project)


def registry(h: Host) -> str:
    """Puts the private image into the registry; returns its id."""
    image = fake_image(SECRET_APP)
    h.runtime.registry[normalise(SECRET_APP)] = image
    h.runtime.private[normalise(SECRET_APP)] = LOGIN
    return image.id


def waits_for(h: Host, a: Assignment) -> str:
    found = h.main(a.capsule_uuid)
    return found.reason if found.state == "waiting" else found.state


async def test_anothers_private_image_has_to_be_fetched_with_a_login_of_ones_own(tmp_path: Path) -> None:
    async with host(tmp_path) as h:
        image_id = registry(h)
        owner = wants("owners", login=True)
        h.agent.changed([owner])
        await until(lambda: waits_for(h, owner) == "running")
        digest = f"registry.example/team/app@{image_id}"
        h.runtime.stored[image_id] = msgspec.structs.replace(
            h.runtime.stored[image_id], tags=[normalise(SECRET_APP), digest]
        )
        thief = wants("thieves", login=False)
        never = wants("thieves", login=False, policy="Never")
        by_digest = wants("thieves", login=False, image=digest)
        zun = Assignment(
            capsule_uuid="44444444-0000-4000-8000-000000000004",
            project_id="thieves",
            name="zun",
            epoch=1,
            spec=CapsuleSpec([ContainerSpec("main", SECRET_APP)]),
            wish=Wish("running"),
            ports=[],
            networks=[],
        )
        h.agent.changed([thief, never, by_digest])
        await until(lambda: waits_for(h, thief) in ("ErrImagePull", "ImagePullBackOff"))
        await until(lambda: waits_for(h, never) == "ErrImageNeverPull")
        await until(lambda: waits_for(h, by_digest) in ("ErrImagePull", "ImagePullBackOff"))
        # The same question for Zun's containers.
        assert await h.agent.image(zun, normalise(SECRET_APP)) is None
        assert await h.agent.image(msgspec.structs.replace(zun, project_id="owners"), normalise(SECRET_APP)) is not None
        # Who has a login too, has it from then on; the owner needs no registry again.
        friend = wants("friends", login=True)
        h.agent.changed([friend])
        await until(lambda: waits_for(h, friend) == "running")
        h.runtime.registry.clear()
        again = [wants("owners", login=False), wants("friends", login=False, policy="Never")]
        h.agent.changed(again)
        for a in again:
            await until(lambda a=a: waits_for(h, a) == "running")


async def test_what_was_there_for_all_stays_so(tmp_path: Path) -> None:
    async with host(tmp_path) as h:
        image_id = registry(h)
        h.runtime.stored[image_id] = h.runtime.registry[normalise(SECRET_APP)]  # an operator has imported it
        first = wants("owners", login=True, policy="Always")
        h.agent.changed([first])
        await until(lambda: waits_for(h, first) == "running")
        second = wants("others", login=False)
        h.agent.changed([second])
        await until(lambda: waits_for(h, second) == "running")


async def test_the_notes(tmp_path: Path) -> None:
    path = tmp_path / "rights.json"
    rights = ImageRights(path)
    assert rights.may_use("a/b:1", "id", "p")
    await rights.fetched("a:5000/b:1", "id", "p", login=True, was_there=False)
    for known in (rights, ImageRights(path)):
        for ref in ("a:5000/b:1", "a:5000/b:2", "a:5000/b@sha256:x"):
            assert known.may_use(ref, "id", "p")
            assert not known.may_use(ref, "id", "q")
            assert known.may_use(ref, "another", "q")
        assert known.may_use("a:5000/c:1", "id", "q")
        assert known.may_use("a/b:1", "id", "q")
    # It turns out that the registry gives it to everybody.
    await ImageRights(path).fetched("a:5000/b:1", "id", "q", login=False, was_there=False)
    assert ImageRights(path).may_use("a:5000/b:1", "id", "q")
    path.write_text("not JSON")
    assert ImageRights(path).may_use("a:5000/b:1", "id", "q")
    assert list(tmp_path.iterdir()) == [path]
