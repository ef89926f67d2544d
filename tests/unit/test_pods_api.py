"""The native API of capsules: create, show, list, change and delete."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from askos.model.pods import Event
from askos.plan.placement import Ratios, choose, claim
from askos.ports.network_store import NewSubnet

from .cloud import HOST, NOW, Answer, Cloud, facts
from .pods_world import CAPSULES, ended, labelled, make, pod, relabel, remove, report, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ask(cloud: Cloud, method: str, path: str, token: str, **more: Any) -> Answer:
    return await cloud.ask(method, f"{CAPSULES}{path}", token, version=None, **more)


async def show(cloud: Cloud, token: str, ident: str) -> dict[str, Any]:
    got = await ask(cloud, "GET", f"/{ident}", token)
    assert got.status == 200, got
    return dict(got.body)


def admin_of(token: str) -> str:
    return f"root:{token.split(':')[1]}:admin"


async def placed(cloud: Cloud, token: str, name: str = "web", **more: Any) -> str:
    made = await make(cloud, token, name, **more)
    await cloud.place(made["id"])
    return str(made["id"])


# -- create -------------------------------------------------------------------------------------------------------


async def test_a_new_capsule_is_shown_as_a_pending_pod(cloud: Cloud) -> None:
    token = cloud.project()
    got = await ask(cloud, "POST", "", token, body=pod(metadata={"labels": {"app": "web"}}))
    assert got.status == 201
    made = got.body
    assert got.headers["Location"] == f"{cloud.url}{CAPSULES}/{made['id']}"
    assert (made["apiVersion"], made["kind"]) == ("askos/v1", "Capsule")
    metadata = made["metadata"]
    assert metadata.pop("resourceVersion").isdigit()
    assert metadata == {
        "name": "web", "namespace": "default", "uid": made["id"], "labels": {"app": "web"}, "annotations": {},
        "generation": 1, "creationTimestamp": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    assert made["spec"]["restartPolicy"] == "Always"
    assert made["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    status = made["status"]
    assert (status["phase"], status["qosClass"], status["observedGeneration"]) == ("Pending", "BestEffort", 0)
    assert status["podIPs"] == [{"ip": status["podIP"]}]
    assert ":" not in status["podIP"]
    assert status["containerStatuses"] == [
        {
            "name": "app", "state": {"waiting": {"reason": "ContainerCreating"}}, "lastState": {}, "ready": False,
            "started": False, "restartCount": 0, "image": "busybox:1.36", "imageID": "",
        }
    ]  # fmt: skip
    assert "hostIP" not in status
    assert "host" not in made
    metadata["resourceVersion"] = (await show(cloud, token, "web"))["metadata"]["resourceVersion"]
    assert await show(cloud, token, "web") == await show(cloud, token, made["id"]) == made


async def test_a_pod_of_both_ip_versions(cloud: Cloud) -> None:
    token = cloud.project()
    made = await cloud.networking.create_network(token.split(":")[1], "dual")
    for version, cidr in ((4, "10.3.0.0/24"), (6, "fd00:3::/64")):
        await cloud.networking.create_subnet(NewSubnet(made.uuid, cidr=cidr, ip_version=version))
    status = (await ask(cloud, "POST", "", token, body=pod())).body["status"]
    assert (status["podIP"], status["podIPs"]) == ("10.3.0.2", [{"ip": "10.3.0.2"}, {"ip": "fd00:3::2"}])


async def test_with_init_containers_everything_waits_for_them(cloud: Cloud) -> None:
    init = [{"name": "first", "image": "busybox"}]
    made = await make(cloud, cloud.project(), initContainers=init)
    status = made["status"]
    assert [c["name"] for c in status["initContainerStatuses"]] == ["first"]
    for found in status["initContainerStatuses"] + status["containerStatuses"]:
        assert found["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert made["spec"]["initContainers"][0]["imagePullPolicy"] == "Always"


async def test_a_create_with_a_uid_happens_once(cloud: Cloud) -> None:
    token, uid = cloud.project(), "pod-uid-1"
    first = await make(cloud, token, metadata={"uid": uid})
    assert first["metadata"]["uid"] == uid
    again = await ask(cloud, "POST", "", token, body=pod(metadata={"uid": uid, "labels": {"new": "one"}}))
    assert (again.status, again.body) == (200, first)
    other = pod(metadata={"uid": uid}, restartPolicy="Never")
    refused = await ask(cloud, "POST", "", token, body=other)
    assert "spec.restartPolicy" in refused.refused(409, "already-exists")["title"]
    # In another project it is nobody's, and a name is not taken either.
    elsewhere = await make(cloud, cloud.project(), metadata={"uid": uid})
    assert elsewhere["id"] != first["id"]
    assert len((await ask(cloud, "GET", "", token)).body["items"]) == 1


async def test_a_generated_name_and_a_uid_go_together(cloud: Cloud) -> None:
    token = cloud.project()
    body = {**pod(), "metadata": {"generateName": "job-", "uid": "u2"}}
    first, again = [await ask(cloud, "POST", "", token, body=body) for _ in range(2)]
    assert (first.status, again.status) == (201, 200)
    assert first.body["metadata"]["name"] == again.body["metadata"]["name"] != "job-"
    assert first.body["metadata"]["name"].startswith("job-")


async def test_names_are_unique_in_a_namespace(cloud: Cloud) -> None:
    token = cloud.project()
    made = await make(cloud, token)
    refused = await ask(cloud, "POST", "", token, body=pod())
    assert made["id"] in refused.refused(409, "already-exists")["title"]
    other = await make(cloud, token, metadata={"namespace": "blue"})
    got = await ask(cloud, "GET", "/web?namespace=blue", token)
    assert got.body["id"] == other["id"]
    (await ask(cloud, "GET", "/web", token)).refused(409, "conflict", "Multiple capsules")
    (await ask(cloud, "GET", "/web?namespace=red", token)).refused(404, "capsule-not-found")
    # While the old one goes, a new one may have its name, and is what the name means.
    await cloud.place(made["id"])
    assert (await ask(cloud, "DELETE", f"/{made['id']}", token)).status == 202
    successor = await make(cloud, token)
    assert (await ask(cloud, "GET", "/web?namespace=default", token)).body["id"] == successor["id"]
    assert (await show(cloud, token, made["id"]))["metadata"]["deletionTimestamp"]


async def test_everything_wrong_is_said_at_once(cloud: Cloud) -> None:
    body = pod(hostNetwork=True, runtimeClassName="nowhere", tolerations=[{"key": "a", "operator": "Exists"}])
    detail = (await ask(cloud, "POST", "", cloud.project(), body=body)).error["detail"]
    assert "spec.hostNetwork" in detail
    assert "spec.runtimeClassName" in detail
    for sent, status in ((b"{", 400), (b"[]", 400), (b"x" * (4 << 20), 400), (b"x" * ((4 << 20) + 1), 413)):
        assert (await ask(cloud, "POST", "", cloud.project(), data=sent)).status == status


async def test_what_has_no_effect_is_told_in_headers(cloud: Cloud) -> None:
    body = pod(tolerations=[{"key": "a", "operator": "Exists"}], serviceAccountName="robot")
    got = await ask(cloud, "POST", "", cloud.project(), body=body)
    assert got.status == 201
    warnings = got.headers.getall("Warning")
    assert len(warnings) == 2
    assert all(w.startswith('299 - "') and w.endswith('"') for w in warnings)


async def test_runtime_classes_are_those_of_hosts(cloud: Cloud) -> None:
    token, uuid = cloud.project(), "22222222-0000-4000-8000-000000000002"
    await cloud.store.register_host(facts(uuid, "host-2", runtimes=("runc", "gvisor")), "nova")
    made = await make(cloud, token, runtimeClassName="gvisor")
    (capsule,) = await cloud.store.capsules_by_uuid([made["id"]])
    assert await cloud.store.place(made["id"], lambda c, loads: choose(claim(c.spec), loads, Ratios()), "none")
    assert capsule.placement.host_uuid is None
    (capsule,) = await cloud.store.capsules_by_uuid([made["id"]])
    assert capsule.placement.host_uuid == uuid
    refused = (await ask(cloud, "POST", "", token, body=pod("x", runtimeClassName="kata"))).error["title"]
    assert "gvisor, runc" in refused


async def test_volumes_must_be_there(cloud: Cloud) -> None:
    claim_it = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "none"}}]}
    refused = await ask(cloud, "POST", "", cloud.project(), body=pod(**claim_it))
    assert refused.status == 400
    assert "spec.volumes[0].persistentVolumeClaim" in refused.error["title"]
    token = cloud.project()
    volume = await cloud.ask("POST", "/askos/v1/volumes", token, version=None, body={"name": "none", "size_gib": 1})
    assert volume.status == 201, volume
    made = await make(cloud, token, **claim_it)
    used = await cloud.ask("GET", f"/askos/v1/volumes/{volume.body['id']}", token, version=None)
    assert used.body["attachments"] == [made["id"]]
    (await ask(cloud, "POST", "", token, body=pod("other", **claim_it))).refused(409, "conflict")
    assert [c["metadata"]["name"] for c in (await ask(cloud, "GET", "", token)).body["items"]] == ["web"]
    await ask(cloud, "DELETE", f"/{made['id']}", token)
    assert (await ask(cloud, "POST", "", token, body=pod("other", **claim_it))).status == 201


# -- status -------------------------------------------------------------------------------------------------------


async def test_what_is_told_of_a_container_that_was_made(cloud: Cloud) -> None:
    token = cloud.project()
    resources = {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "500m"}}
    mounts = [{"name": "d", "mountPath": "/d"}, {"name": "d", "mountPath": "/r", "readOnly": True}]
    app = {
        "name": "app", "image": "busybox:1.36", "resources": resources, "volumeMounts": mounts,
        "lifecycle": {"stopSignal": "SIGQUIT"},
    }  # fmt: skip
    made = await make(cloud, token, containers=[app], volumes=[{"name": "d", "emptyDir": {}}], os={"name": "linux"})
    keys = {"allocatedResources", "volumeMounts", "stopSignal"}
    (waiting,) = made["status"]["containerStatuses"]
    assert waiting["image"] == "busybox:1.36"
    assert not keys & waiting.keys(), "nothing is known of it yet"
    await cloud.place(made["id"])
    await report(cloud, made["id"], running(image="busybox:1.36"))
    (shown,) = (await show(cloud, token, made["id"]))["status"]["containerStatuses"]
    assert shown["image"] == "docker.io/library/busybox:1.36"
    assert shown["allocatedResources"] == {"cpu": "500m", "memory": "64Mi"}
    assert shown["volumeMounts"] == [
        {"name": "d", "mountPath": "/d"},
        {"name": "d", "mountPath": "/r", "readOnly": True, "recursiveReadOnly": "Disabled"},
    ]
    assert shown["stopSignal"] == "SIGQUIT"


async def test_what_a_host_reports(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await placed(cloud, token)
    last = ended(code=1).ended
    await report(cloud, uuid, running(restarts=2, last=last, image="docker.io/library/busybox:1.36"))
    status = (await show(cloud, token, uuid))["status"]
    assert (status["phase"], status["hostIP"], status["observedGeneration"]) == ("Running", "192.0.2.7", 1)
    assert status["startTime"] == "2023-11-14T22:13:20Z"
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Ready": "True", "ContainersReady": "True", "PodScheduled": "True",
    }  # fmt: skip
    (container,) = status["containerStatuses"]
    assert container["state"] == {"running": {"startedAt": "2023-11-14T22:13:20Z"}}
    assert container["lastState"]["terminated"]["exitCode"] == 1
    assert (container["restartCount"], container["ready"]) == (2, True)
    assert (container["containerID"], container["imageID"]) == ("containerd://c1", "sha256:1")
    await report(cloud, uuid, ended(), phase="Failed", reason="DeadlineExceeded", message="too long")
    status = (await show(cloud, token, uuid))["status"]
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "DeadlineExceeded", "too long")
    assert status["containerStatuses"][0]["state"]["terminated"]["finishedAt"] == "2023-11-14T22:13:25Z"


async def test_what_nobody_can_run_stays_pending_and_says_why(cloud: Cloud) -> None:
    token = cloud.project()
    made = await make(cloud, token)
    assert await cloud.store.place(made["id"], lambda _c, _l: None, "There are not enough hosts available.")
    status = (await show(cloud, token, made["id"]))["status"]
    assert status["phase"] == "Pending"
    (scheduled,) = status["conditions"]
    assert (scheduled["status"], scheduled["reason"]) == ("False", "Unschedulable")
    assert scheduled["message"] == "There are not enough hosts available."


async def test_a_silent_host_makes_it_unready(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await placed(cloud, token)
    await report(cloud, uuid, running())
    await relabel(cloud, token, uuid, a="b")  # something waits for the host
    cloud.now += 400_000_000
    try:
        assert uuid in await cloud.store.fail_waiting(300_000_000, "silent")
    finally:
        cloud.now -= 400_000_000
    status = (await show(cloud, token, uuid))["status"]
    assert (status["phase"], status["reason"], status["message"]) == ("Running", "NodeLost", "silent")
    found = {c["type"]: c["status"] for c in status["conditions"]}
    assert found == {"Ready": "False", "ContainersReady": "False", "PodScheduled": "True"}


async def test_events(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await placed(cloud, token)
    pulled = Event("Normal", "Pulled", "got it", "app", NOW)
    failed = Event("Warning", "BackOff", "again", "app", NOW + 1_000_000)
    await report(cloud, uuid, running(), events=[failed, pulled])
    await report(cloud, uuid, running(), events=[Event("Warning", "BackOff", "again", "app", NOW + 9_000_000)])
    got = await ask(cloud, "GET", f"/{uuid}/events", token)
    assert got.body["items"] == [
        {
            "type": "Normal", "reason": "Pulled", "message": "got it", "count": 1, "container": "app",
            "firstTimestamp": "2023-11-14T22:13:20Z", "lastTimestamp": "2023-11-14T22:13:20Z",
        },
        {
            "type": "Warning", "reason": "BackOff", "message": "again", "count": 2, "container": "app",
            "firstTimestamp": "2023-11-14T22:13:21Z", "lastTimestamp": "2023-11-14T22:13:29Z",
        },
    ]  # fmt: skip


# -- lists --------------------------------------------------------------------------------------------------------


async def names(cloud: Cloud, token: str, query: str) -> list[str]:
    got = await ask(cloud, "GET", query, token)
    assert got.status == 200, got
    return [c["metadata"]["name"] for c in got.body["items"]]


async def test_selectors(cloud: Cloud) -> None:
    token = cloud.project()
    await labelled(cloud, token, "a", app="web", tier="front")
    await labelled(cloud, token, "b", app="web")
    await labelled(cloud, token, "c", app="db", tier="back")
    await labelled(cloud, token, "d")
    for selector, found in {
        "": "abcd", "app=web": "ab", "app==db": "c", "app!=web": "cd", "app": "abc", "!app": "d",
        "app in (web, db),tier": "ac", "tier notin (front)": "bcd", "app=web,tier=front": "a", "app=": "",
        "tier notin(back),app": "ab", "app,!tier": "b", "app in (x)": "",
    }.items():  # fmt: skip
        query = "?labelSelector=" + selector.replace(" ", "%20").replace(",", "%2C")
        assert "".join(await names(cloud, token, query)) == found, selector
    for wrong in ("a=b,", "=a", "a b", "a in b", "a=-x", "(a)", "/a", ",a"):
        query = "?labelSelector=" + wrong.replace(" ", "%20")
        refused = await ask(cloud, "GET", query, token)
        refused.refused(400, "schema-validation-error", "Invalid input for query parameters 'labelSelector'")


async def test_pages_go_on_although_rows_vanish(cloud: Cloud) -> None:
    token = cloud.project()
    ids = {name: await labelled(cloud, token, name, app="x") for name in "abcde"}
    first = await ask(cloud, "GET", "?limit=2&labelSelector=app%3Dx", token)
    assert [c["metadata"]["name"] for c in first.body["items"]] == ["a", "b"]
    going_on = first.body["metadata"]["continue"]
    for name in "bc":
        await ask(cloud, "DELETE", f"/{ids[name]}", token)
    second = await ask(cloud, "GET", f"?limit=2&continue={going_on}", token)
    assert [c["metadata"]["name"] for c in second.body["items"]] == ["d", "e"]
    assert second.body["metadata"] == {"resourceVersion": first.body["metadata"]["resourceVersion"]}
    (await ask(cloud, "GET", "?continue=nonsense", token)).refused(400, "schema-validation-error")
    (await ask(cloud, "GET", "?limit=x", token)).refused(400, "schema-validation-error")
    (await ask(cloud, "GET", "?bogus=x", token)).refused(400, "schema-validation-error")


async def test_a_list_shows_what_is_true_now(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await placed(cloud, token)
    for container in (running(), running(restarts=1)):
        await report(cloud, uuid, container)
        (item,) = (await ask(cloud, "GET", "", token)).body["items"]
        assert item["status"]["containerStatuses"][0]["restartCount"] == container.restarts
        assert item == await show(cloud, token, uuid)
    (item,) = (await ask(cloud, "GET", "", admin_of(token))).body["items"]
    assert item["host"] == "host-1"
    await make(cloud, token, "blue", metadata={"namespace": "blue"})
    assert await names(cloud, token, "?namespace=blue") == ["blue"]


async def test_projects_are_walls(cloud: Cloud) -> None:
    mine, other = cloud.project(), cloud.project()
    uuid = await placed(cloud, mine)
    for method, path, body in (
        ("GET", "", None), ("GET", "/events", None), ("DELETE", "", None), ("PUT", "", pod()),
        ("PATCH", "", {"metadata": {"labels": {"a": "b"}}}), ("PUT", "/content", {}),
    ):  # fmt: skip
        for ident in (uuid, "web"):
            sent = {} if body is None else {"body": body}
            (await ask(cloud, method, f"/{ident}{path}", other, **sent)).refused(404, "capsule-not-found")
            everywhere = await ask(cloud, method, f"/{ident}{path}?all_projects=true", other, **sent)
            everywhere.refused(403, "policy-not-authorized")
    assert await names(cloud, other, "") == []
    (await ask(cloud, "GET", "?all_projects=true", other)).refused(403, "policy-not-authorized")
    (await ask(cloud, "GET", "?watch=true&all_projects=true", other)).refused(403, "policy-not-authorized")
    assert "web" in await names(cloud, admin_of(other), "?all_projects=true")
    assert (await show(cloud, admin_of(other), uuid))["host"] == "host-1"
    assert "deletionTimestamp" not in (await show(cloud, mine, uuid))["metadata"]


# -- change -------------------------------------------------------------------------------------------------------


async def test_what_can_be_changed(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await placed(cloud, token)
    await report(cloud, uuid, running())
    body = await show(cloud, token, uuid)
    body["spec"]["containers"][0]["image"] = "busybox:1.37"
    body["spec"]["activeDeadlineSeconds"] = 60
    body["spec"]["terminationGracePeriodSeconds"] = 5
    body["metadata"]["labels"] = {"a": "b"}
    body["metadata"]["annotations"] = {"note": "x"}
    got = await ask(cloud, "PUT", f"/{uuid}", token, body=body)
    assert got.status == 200, got
    assert (got.body["metadata"]["generation"], got.body["status"]["observedGeneration"]) == (2, 1)
    assert got.body["spec"] == body["spec"]
    assert got.body["metadata"]["labels"] == {"a": "b"}
    assert got.body["status"]["phase"] == "Running"
    assert "Warning" not in got.headers
    # The same again changes nothing.
    again = await ask(cloud, "PUT", f"/{uuid}", token, body=got.body)
    assert (again.status, again.body) == (200, got.body)
    # What was read before the change is too old to be written.
    refused = await ask(cloud, "PUT", f"/{uuid}", token, body=body)
    assert "modified meanwhile" in refused.refused(409, "conflict")["title"]
    assert await names(cloud, token, "?labelSelector=a%3Db") == ["web"]


async def test_what_cannot_be_changed_is_all_named(cloud: Cloud) -> None:
    token = cloud.project()
    made = await make(cloud, token, activeDeadlineSeconds=60)
    wrong = pod("other", restartPolicy="Never", activeDeadlineSeconds=61)
    wrong["spec"]["containers"][0] |= {"image": "busybox:2", "env": [{"name": "A", "value": "1"}], "command": ["x"]}
    title = (await ask(cloud, "PUT", f"/{made['id']}", token, body=wrong)).refused(400, "immutable")["title"]
    for path in (
        "metadata.name ", "spec.containers[app].env ", "spec.containers[app].command ", "spec.restartPolicy ",
        "spec.activeDeadlineSeconds is 60",
    ):  # fmt: skip
        assert path in title, path
    assert "spec.containers[app].image " not in title
    added = {"spec": {"containers": [{"name": "more", "image": "busybox"}]}}
    title = (await ask(cloud, "PATCH", f"/{made['id']}", token, body=added)).refused(400, "immutable")["title"]
    assert "spec.containers " in title
    assert await show(cloud, token, made["id"]) == made


async def test_patches(cloud: Cloud) -> None:
    token = cloud.project()
    two = [{"name": "a", "image": "busybox:1"}, {"name": "b", "image": "busybox:1"}]
    made = await make(cloud, token, containers=two, metadata={"labels": {"x": "1", "y": "2"}})
    patch = {
        "metadata": {"labels": {"x": None, "z": "3"}},
        "spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "b", "image": "busybox:2"}]},
    }
    got = await ask(cloud, "PATCH", f"/{made['id']}", token, body=patch)
    assert got.status == 200, got
    assert got.body["metadata"]["labels"] == {"y": "2", "z": "3"}
    assert [c["image"] for c in got.body["spec"]["containers"]] == ["busybox:1", "busybox:2"]
    kind = {"Content-Type": "application/merge-patch+json"}
    got = await ask(cloud, "PATCH", f"/{made['id']}", token, body={"metadata": {"labels": None}}, headers=kind)
    assert got.body["metadata"]["labels"] == {}
    replaced = {"spec": {"containers": [{"name": "b", "image": "busybox:3"}]}}
    got = await ask(cloud, "PATCH", f"/{made['id']}", token, body=replaced, headers=kind)
    got.refused(400, "immutable")
    for wrong in ({"spec": {"containers": [{"image": "x"}]}}, {"spec": {"$retainKeys": ["x"]}}):
        (await ask(cloud, "PATCH", f"/{made['id']}", token, body=wrong)).refused(400, "invalid-patch")
    kind = {"Content-Type": "text/plain"}
    assert (await ask(cloud, "PATCH", f"/{made['id']}", token, body={}, headers=kind)).status == 415


async def test_resources_grow_only_where_there_is_room(cloud: Cloud) -> None:
    token = cloud.project()
    asked = {"requests": {"memory": "64Mi"}}
    app = {"name": "app", "image": "busybox:1", "resources": asked}
    uuid = await placed(cloud, token, containers=[app])

    async def ask_for(memory: str, **more: Any) -> Answer:
        resources = {"requests": {"memory": memory}, **more}
        patch = {"spec": {"containers": [{"name": "app", "resources": resources}]}}
        return await ask(cloud, "PATCH", f"/{uuid}", token, body=patch)

    assert (await ask_for("1Gi")).status == 200
    (load,) = [x for x in await loads(cloud) if x.host.facts.uuid == HOST]
    before = load.memory_claimed_mib
    refused = (await ask_for("900Gi")).refused(409, "conflict")
    assert "not enough memory" in refused["title"]
    assert (await ask_for("64Mi")).status == 200
    (load,) = [x for x in await loads(cloud) if x.host.facts.uuid == HOST]
    assert load.memory_claimed_mib == before - 1024 + 64
    everything = {"limits": {"memory": "64Mi", "cpu": "1"}}
    refused = (await ask_for("64Mi", **everything)).refused(400, "immutable")
    assert "Guaranteed" in refused["title"]


async def loads(cloud: Cloud) -> list[Any]:
    found: list[Any] = []
    made = await make(cloud, cloud.project())
    await cloud.store.place(made["id"], lambda _c, seen: found.extend(seen), "none")
    return found


# -- content ------------------------------------------------------------------------------------------------------

CONTENT = {
    "configMaps": {"settings": {"data": {"mode": "fast"}}, "fixed": {"data": {"a": "1"}, "immutable": True}},
    "secrets": {"key": {"stringData": {"password": "hunter2"}}},
}


async def content(cloud: Cloud, uuid: str) -> tuple[dict[str, Any], int]:
    (assignment,) = await cloud.store.assignments_of(HOST, [uuid])
    found = await cloud.store.content(uuid)
    assert found == assignment.content
    data = {name: dict(bag.data) for bags in (found.config_maps, found.secrets) for name, bag in bags.items()}
    return data, assignment.content_revision


async def test_content_travels_to_the_host_and_nowhere_else(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await placed(cloud, token, content=CONTENT)
    assert await content(cloud, uuid) == (
        {"settings": {"mode": "fast"}, "fixed": {"a": "1"}, "key": {"password": b"hunter2"}}, 1,
    )  # fmt: skip
    shown = await ask(cloud, "GET", f"/{uuid}", token)
    assert b"hunter2" not in shown.raw
    assert base64.b64encode(b"hunter2") not in shown.raw
    assert "content" not in shown.body
    # Without content, a replace leaves it; a patch merges it; a put of the content replaces it.
    patch = {"content": {"configMaps": {"settings": {"data": {"more": "yes"}}}}}
    got = await ask(cloud, "PATCH", f"/{uuid}", token, body=patch)
    assert (got.status, got.body["metadata"]["generation"]) == (200, 2)
    data, revision = await content(cloud, uuid)
    assert (data["settings"], data["key"], revision) == ({"mode": "fast", "more": "yes"}, {"password": b"hunter2"}, 2)
    body = pod(metadata={"labels": {"a": "b"}})
    assert (await ask(cloud, "PUT", f"/{uuid}", token, body=body)).status == 200
    assert (await content(cloud, uuid))[1] == 2
    only = {"secrets": {"new": {"data": {"k": base64.b64encode(b"v").decode()}}}}
    got = await ask(cloud, "PUT", f"/{uuid}/content", token, body=only)
    assert (got.status, got.body["metadata"]["generation"]) == (200, 4)
    assert await content(cloud, uuid) == ({"new": {"k": b"v"}}, 3)
    again = await ask(cloud, "PUT", f"/{uuid}/content", token, body=only)
    assert again.body == got.body


async def test_content_has_limits(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await placed(cloud, token, content=CONTENT)
    changed = {"configMaps": {"fixed": {"data": {"a": "2"}, "immutable": True}}}
    refused = await ask(cloud, "PUT", f"/{uuid}/content", token, body=changed)
    assert "configMap fixed" in refused.refused(400, "immutable")["title"]
    large = {"configMaps": {"big": {"data": {"x": "y" * (1 << 20)}}}}
    got = await ask(cloud, "POST", "", token, body=pod("large", content=large))
    assert got.status == 413
    assert "at most 1048576" in got.error["title"]
    fits = {"secrets": {"big": {"data": {"x": base64.b64encode(b"y" * ((1 << 20) - 1)).decode()}}}}
    assert (await ask(cloud, "POST", "", token, body=pod("fits", content=fits))).status == 201
    wrong = {"secrets": {"s": {"data": {"x": "not base64"}}}}
    assert (await ask(cloud, "PUT", f"/{uuid}/content", token, body=wrong)).status == 400


# -- delete -------------------------------------------------------------------------------------------------------


async def test_delete(cloud: Cloud) -> None:
    token = cloud.project()
    uuid = await placed(cloud, token)
    await report(cloud, uuid, running())
    got = await ask(cloud, "DELETE", "/web", token)
    assert got.status == 202
    metadata = got.body["metadata"]
    assert (metadata["deletionGracePeriodSeconds"], metadata["generation"]) == (30, 2)
    assert metadata["deletionTimestamp"] == "2023-11-14T22:13:50Z"
    # Only ever shorter.
    for query, grace in (("", 30), ("?gracePeriodSeconds=99", 30), ("?gracePeriodSeconds=3", 3), ("", 3)):
        got = await ask(cloud, "DELETE", f"/{uuid}{query}", token)
        assert got.body["metadata"]["deletionGracePeriodSeconds"] == grace, query
    refused = await ask(cloud, "PATCH", f"/{uuid}", token, body={"metadata": {"labels": {"a": "b"}}})
    assert "is being deleted" in refused.refused(409, "conflict")["title"]
    (await ask(cloud, "DELETE", f"/{uuid}?gracePeriodSeconds=-1", token)).refused(400, "schema-validation-error")
    await remove(cloud, uuid)
    for ident in (uuid, "web"):
        (await ask(cloud, "GET", f"/{ident}", token)).refused(404, "capsule-not-found")
        (await ask(cloud, "DELETE", f"/{ident}", token)).refused(404, "capsule-not-found")


async def test_what_has_no_host_is_gone_at_once(cloud: Cloud) -> None:
    token = cloud.project()
    made = await make(cloud, token)
    got = await ask(cloud, "DELETE", f"/{made['id']}?gracePeriodSeconds=0", token)
    assert (got.status, got.body["metadata"]["deletionGracePeriodSeconds"]) == (202, 0)
    (await ask(cloud, "GET", f"/{made['id']}", token)).refused(404, "capsule-not-found")


# -- the document ---------------------------------------------------------------------------------------------------


async def test_answers_fit_the_document(cloud: Cloud) -> None:
    told = (await cloud.ask("GET", "/openapi.json", None)).body
    token = cloud.project()
    init = [{"name": "first", "image": "busybox"}]
    uuid = await placed(cloud, token, initContainers=init, content=CONTENT, volumes=[{"name": "tmp", "emptyDir": {}}])
    await report(cloud, uuid, running(restarts=1, last=ended(code=3).ended), events=[Event("Normal", "A", "b")])
    done = await placed(cloud, token, "done")
    await report(cloud, done, ended(code=1), phase="Failed", reason="Evicted", message="why")
    await ask(cloud, "DELETE", f"/{done}", token)
    unplaced = await make(cloud, token, "unplaced")
    await cloud.store.place(unplaced["id"], lambda _c, _l: None, "none")
    asked = [("GET", ""), ("GET", f"/{uuid}"), ("GET", f"/{done}"), ("GET", f"/{uuid}/events"), ("GET", "/nobody")]
    for caller in (token, admin_of(token)):
        for method, path in asked:
            got = await ask(cloud, method, path, caller)
            template = CAPSULES + path.replace(uuid, "{ident}").replace(done, "{ident}").replace("nobody", "{ident}")
            responses = told["paths"][template][method.lower()]["responses"]
            answer = responses["4XX"] if got.status >= 400 else responses[str(got.status)]
            schema = {**answer["content"]["application/json"]["schema"], "components": told["components"]}
            problems = [f"{list(e.path)} {e.message[:200]}" for e in Draft202012Validator(schema).iter_errors(got.body)]
            assert problems == [], path
