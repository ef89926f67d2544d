"""What a capsule's containers see: volumes, files, environment, network, identity, limits. On real containers."""

from __future__ import annotations

import base64
from typing import Any

from tests.acceptance.capsule_fixtures import BASE, Pod, container, pod
from tests.acceptance.cloud_fixtures import Cloud, eventually


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# -- volumes -------------------------------------------------------------------------------------------------------


def test_empty_dirs_on_disk_and_in_memory(cloud: Cloud) -> None:
    mounts = [{"name": "disk", "mountPath": "/disk"}, {"name": "ram", "mountPath": "/ram"}]
    read_only = [{"name": "disk", "mountPath": "/disk", "readOnly": True}]
    body = pod(
        container("main", volumeMounts=mounts),
        container("other", volumeMounts=read_only),
        volumes=[
            {"name": "disk", "emptyDir": {}},
            {"name": "ram", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
    )
    made = Pod.create(cloud, body).ready()
    assert "tmpfs" in made.inside("mount | grep ' /ram '")
    assert made.inside("dd if=/dev/zero of=/ram/x bs=64k count=64 2>&1 || echo full").endswith("full\n")
    made.inside("echo hello > /disk/x")
    assert made.inside("cat /disk/x; touch /disk/y 2>/dev/null || echo refused", "other") == "hello\nrefused\n"


def test_content_is_mounted_and_swapped_while_running(cloud: Cloud) -> None:
    body = pod(
        container(
            "main",
            volumeMounts=[
                {"name": "config", "mountPath": "/config"},
                {"name": "secret", "mountPath": "/secret", "readOnly": True},
                {"name": "config", "mountPath": "/one", "subPath": "a.txt"},
                {"name": "about", "mountPath": "/about"},
            ],
        ),
        labels={"tier": "front"},
        volumes=[
            {"name": "config", "configMap": {"name": "conf"}},
            {
                "name": "secret",
                "secret": {"secretName": "key", "defaultMode": 0o400, "items": [{"key": "k", "path": "deep/key"}]},
            },
            {
                "name": "about",
                "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
            },
        ],
    )
    content = {
        "configMaps": {"conf": {"data": {"a.txt": "first\n"}, "binaryData": {"b.bin": b64("bin")}}},
        "secrets": {"key": {"data": {"k": b64("hush"), "other": b64("no")}}},
    }
    made = Pod.create(cloud, {**body, "content": content}).ready()
    assert made.inside("cat /config/a.txt /config/b.bin /secret/deep/key; ls /secret/other 2>/dev/null || true") == (
        "first\nbinhush"
    )
    assert made.inside("stat -Lc %a /secret/deep/key") == "400\n"
    assert "tmpfs" in made.inside("mount | grep ' /secret '")
    assert 'tier="front"' in made.inside("cat /about/labels")
    content["configMaps"]["conf"]["data"]["a.txt"] = "second\n"  # type: ignore[index]
    answer = made.api("PUT", "/content", content)
    assert answer.status == 200, answer
    eventually(lambda: made.inside("cat /config/a.txt") == "second\n", "the new content is there")
    # As in Kubernetes: a single file that was mounted stays as it was.
    assert made.inside("cat /one") == "first\n"
    stored = (cloud.data / "askos.db").read_bytes() + (cloud.data / "askos.db-wal").read_bytes()
    assert b"hush" not in stored
    assert b64("hush").encode() not in stored


def test_missing_content_waits_until_it_comes(cloud: Cloud) -> None:
    body = pod(
        container("main", volumeMounts=[{"name": "config", "mountPath": "/config"}]),
        volumes=[{"name": "config", "configMap": {"name": "conf"}}],
    )
    mounts = Pod.create(cloud, body)
    variable = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    env = Pod.create(cloud, pod(container("main", "echo got $X; exec sleep 1000", env=[variable])))
    assert "conf" in mounts.event("FailedMount")["message"]

    def refused(status: dict[str, Any]) -> bool:
        reason = status["containerStatuses"][0]["state"].get("waiting", {}).get("reason")
        return bool(reason == "CreateContainerConfigError")

    env.until(refused, "it waits for its secret")
    assert mounts.api("PUT", "/content", {"configMaps": {"conf": {"data": {"a": "x"}}}}).status == 200
    assert env.api("PUT", "/content", {"secrets": {"s": {"data": {"k": b64("it")}}}}).status == 200
    mounts.ready()
    env.ready().says("got it")


def test_a_named_volume_is_kept_and_never_shared_by_two(cloud: Cloud) -> None:
    answer = cloud.api("POST", "/askos/v1/volumes", {"name": "data", "size_gib": 1})
    assert answer.status == 201, answer
    volume = answer.json()["id"]
    try:
        body = pod(
            container("main", "echo kept >> /data/x; cat /data/x; exec sleep 1000", volumeMounts=[
                {"name": "v", "mountPath": "/data"}
            ]),
            volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
        )  # fmt: skip
        first = Pod.create(cloud, body).ready()
        first.says("kept\n")
        assert "ext4" in first.inside("mount | grep ' /data '")
        other = pod(volumes=[{"name": "v", "cinder": {"volumeID": volume}}])
        refused = cloud.api("POST", BASE, other)
        assert refused.status == 409, refused
        assert cloud.api("DELETE", f"/askos/v1/volumes/{volume}").status == 409
        first.delete(0)
        first.gone()
        body["metadata"]["name"] += "-again"
        second = Pod.create(cloud, body).ready()
        second.says("kept\nkept\n")
        second.delete(0)
        second.gone()
    finally:
        eventually(lambda: cloud.api("DELETE", f"/askos/v1/volumes/{volume}").status in (202, 404), "it can go")
    eventually(lambda: cloud.api("GET", f"/askos/v1/volumes/{volume}").status == 404, "the volume is gone")


def test_sub_paths_stay_inside_their_volume(cloud: Cloud) -> None:
    body = pod(
        container(
            "main",
            volumeMounts=[
                {"name": "v", "mountPath": "/all"},
                {"name": "v", "mountPath": "/part", "subPath": "a/b"},
                {"name": "v", "mountPath": "/mine", "subPathExpr": "$(WHO)"},
            ],
            env=[{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        ),
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    made = Pod.create(cloud, body).ready()
    made.inside("echo x > /part/file; echo y > /mine/file")
    name = body["metadata"]["name"]
    assert made.inside(f"cat /all/a/b/file /all/{name}/file") == "x\ny\n"
    evil = pod(
        container("main", volumeMounts=[{"name": "v", "mountPath": "/x", "subPath": "link/etc"}]),
        initContainers=[container("init", "ln -s / /v/link", volumeMounts=[{"name": "v", "mountPath": "/v"}])],
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    trapped = Pod.create(cloud, evil)
    trapped.event("Failed")
    assert trapped.status["phase"] == "Pending"


def test_too_much_disk_means_eviction(cloud: Cloud) -> None:
    writes = "dd if=/dev/zero of=/v/x bs=1M count=8 2>/dev/null; exec sleep 1000"
    body = pod(
        container("main", writes, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "emptyDir": {"sizeLimit": "2Mi"}}],
    )
    status = Pod.create(cloud, body).phase("Failed")
    assert status["reason"] == "Evicted"
    assert "2Mi" in status["message"]


# -- environment ---------------------------------------------------------------------------------------------------


def test_environment(cloud: Cloud) -> None:
    def field(path: str) -> dict[str, Any]:
        return {"fieldRef": {"fieldPath": path}}

    env = [
        {"name": "A", "value": "a"},
        {"name": "B", "value": "$(A)-$(NOBODY)-$$(A)"},
        {"name": "IP", "valueFrom": field("status.podIP")},
        {"name": "LABEL", "valueFrom": field("metadata.labels['tier']")},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "no", "optional": True}}},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    main = {
        **container("main"),
        "command": ["sh", "-c", 'env; echo "arg $0"; exec sleep 1000'],
        "args": ["$(B)"],
        "env": env,
        "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "P_"}, {"secretRef": {"name": "s"}}],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    body = pod(main, labels={"tier": "front"})
    content = {"configMaps": {"c": {"data": {"x": "1"}}}, "secrets": {"s": {"data": {"k": b64("hush")}}}}
    made = Pod.create(cloud, {**body, "content": content}).ready()
    made.says("arg ")
    lines = set(made.logs().splitlines())
    expected = {
        "A=a",
        "B=a-$(NOBODY)-$(A)",
        f"IP={made.status['podIP']}",
        "LABEL=front",
        "KEY=hush",
        "MEMORY=64",
        "P_x=1",
        "k=hush",
        "arg a-$(NOBODY)-$(A)",
    }
    assert expected <= lines
    assert not any(line.startswith("MAYBE=") for line in lines)


# -- one network, one name -----------------------------------------------------------------------------------------


def test_containers_share_the_network_and_each_other_when_asked(cloud: Cloud) -> None:
    body = pod(
        container("main", "mkdir /www; echo hello > /www/x; exec httpd -f -p 8080 -h /www"),
        container("other"),
        hostname="web",
        hostAliases=[{"ip": "192.0.2.1", "hostnames": ["far.example", "far"]}],
        shareProcessNamespace=True,
        dnsConfig={"searches": ["lab.example"], "options": [{"name": "ndots", "value": "2"}]},
        securityContext={"sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "40000 41000"}]},
    )
    made = Pod.create(cloud, body).ready()
    eventually(lambda: "hello" in made.inside("wget -qO- http://127.0.0.1:8080/x || true", "other"), "it answers")
    assert "httpd" in made.inside("ps", "other")
    assert made.inside("hostname", "other") == "web\n"
    hosts = made.inside("cat /etc/hosts", "other")
    assert "192.0.2.1\tfar.example\tfar" in hosts
    assert made.status["podIP"] in hosts
    resolv = made.inside("cat /etc/resolv.conf")
    assert "lab.example" in resolv
    assert "ndots:2" in resolv
    assert made.inside("cat /proc/sys/net/ipv4/ip_local_port_range").split() == ["40000", "41000"]
    separate = Pod.create(cloud, pod(container("main", "exec sleep 4711"), container("other"))).ready()
    assert "4711" not in separate.inside("ps", "other")


# -- identity and limits -------------------------------------------------------------------------------------------


def test_security_context(cloud: Cloud) -> None:
    body = pod(
        container(
            "main",
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
            securityContext={"runAsUser": 1000, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        ),
        container("root", securityContext={"runAsUser": 0, "runAsNonRoot": False}),
        securityContext={"runAsGroup": 3000, "fsGroup": 2000, "supplementalGroups": [4000], "runAsNonRoot": True},
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    made = Pod.create(cloud, body).ready()
    assert made.inside("id -u; id -g").split() == ["1000", "3000"]
    assert {"2000", "4000"} <= set(made.inside("id -G").split())
    assert "CapEff:\t0000000000000000" in made.inside("cat /proc/self/status")
    assert "NoNewPrivs:\t1" in made.inside("cat /proc/self/status")
    assert "Seccomp:\t2" in made.inside("cat /proc/self/status")
    assert made.inside("touch /x 2>/dev/null || echo refused") == "refused\n"
    assert made.inside("touch /v/x; stat -c %g /v/x") == "2000\n"
    assert made.inside("id -u", "root") == "0\n"
    refused = Pod.create(cloud, pod(container(), securityContext={"runAsNonRoot": True}))

    def waiting(status: dict[str, Any]) -> bool:
        state = status["containerStatuses"][0]["state"].get("waiting", {})
        return state.get("reason") == "CreateContainerConfigError" and "root" in state.get("message", "")

    refused.until(waiting, "root is refused")


def test_resources_reach_the_kernel_and_change_in_place(cloud: Cloud) -> None:
    resources = {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}
    made = Pod.create(cloud, pod(container("main", resources=resources))).ready()
    before = made.of()
    read = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null || true"
    assert str(64 << 20) in made.inside(read)
    quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null || true"
    assert "50000" in made.inside(quota)
    change = {"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "250m", "memory": "96Mi"}}}]}}
    answer = made.api("PATCH", "", change, headers={"Content-Type": "application/strategic-merge-patch+json"})
    assert answer.status == 200, answer
    eventually(lambda: str(96 << 20) in made.inside(read), "the new limit holds")
    eventually(lambda: "25000" in made.inside(quota), "and the other one")
    # What the kernel knows is reported afterwards.
    limits = {"cpu": "250m", "memory": "96Mi"}
    made.until(lambda s: s["containerStatuses"][0]["resources"]["limits"] == limits, "they are reported")
    after = made.of()
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)


def test_processes_are_limited(cloud: Cloud) -> None:
    made = Pod.create(cloud, pod()).ready()
    limit = made.inside("cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null || true").split()
    groups = made.inside("cat /proc/self/cgroup")
    assert made.id in groups, "each capsule has a control group of its own"
    assert limit


def test_a_new_image_replaces_the_container(cloud: Cloud) -> None:
    made = Pod.create(cloud, pod()).ready()
    change = {"spec": {"containers": [{"name": "main", "image": "docker.io/library/busybox:latest"}]}}
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    assert made.api("PATCH", "", change, headers=headers).status == 200
    made.until(lambda s: s["containerStatuses"][0]["restartCount"] == 1, "it was replaced")
    made.ready()


def test_bad_images_say_what_is_wrong(cloud: Cloud) -> None:
    def make(**fields: Any) -> Pod:
        # Nobody runs who could make use of this: a delete that waited for it would not end here.
        return Pod.create(cloud, pod({**container(), **fields}, terminationGracePeriodSeconds=600))

    def reason(pod_: Pod, wanted: set[str]) -> None:
        def check(status: dict[str, Any]) -> bool:
            return status["containerStatuses"][0]["state"].get("waiting", {}).get("reason") in wanted

        pod_.until(check, f"it waits with {wanted}")

    nowhere = make(image="127.0.0.1:1/nothing:1")
    # Looked at first: it is called by this name until it is tried again.
    reason(nowhere, {"ErrImagePull"})
    invalid = make(image="Not/A:Valid:Name")
    never = make(image="127.0.0.1:1/nothing:1", imagePullPolicy="Never")
    reason(invalid, {"InvalidImageName"})
    reason(never, {"ErrImageNeverPull"})
    reason(nowhere, {"ImagePullBackOff"})
    for each in (invalid, never, nowhere):
        assert each.status["phase"] == "Pending"
        each.delete()
    for each in (invalid, never, nowhere):
        each.gone()
