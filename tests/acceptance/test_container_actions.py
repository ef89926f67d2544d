"""Zun's actions on real containers."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from typing import Any

from tests.acceptance.cloud_fixtures import Answer, Cloud, eventually


def act(cloud: Cloud, uuid: str, action: str, body: Any = None, *, version: str = "1.40", status: int = 202) -> Answer:
    answer = cloud.api("POST", f"/v1/containers/{uuid}/{action}", body, version=version)
    assert answer.status == status, answer
    return answer


def get(cloud: Cloud, uuid: str, what: str, *, version: str = "1.40", status: int = 200) -> Any:
    answer = cloud.api("GET", f"/v1/containers/{uuid}/{what}", version=version)
    assert answer.status == status, answer
    return answer.json()


def packed(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: f.read() for m in tar.getmembers() if (f := tar.extractfile(m)) is not None}


COUNTS = (
    "sh",
    "-c",
    "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i > /new; mv /new /count; sleep 0.1; done",
)


def test_a_paused_container_stands_still_and_can_be_deleted(cloud: Cloud) -> None:
    uuid = cloud.running(COUNTS)
    eventually(lambda: cloud.inside(uuid, "cat /count")[0] == 0, "it counts")
    act(cloud, uuid, "pause")
    shown = cloud.wait_for(uuid, "Paused")
    assert shown["status_detail"].endswith("(paused)")
    first = unpacked(base64.b64decode(get(cloud, uuid, "get_archive?path=/count")["data"]))
    assert cloud.api("POST", f"/v1/containers/{uuid}/execute?command=id").status == 409
    second = unpacked(base64.b64decode(get(cloud, uuid, "get_archive?path=/count")["data"]))
    assert first == second
    act(cloud, uuid, "unpause")
    cloud.wait_for(uuid, "Running")
    before = int(first["count"])
    eventually(lambda: int(cloud.inside(uuid, "cat /count")[1]) > before, "it goes on")
    act(cloud, uuid, "pause")
    cloud.wait_for(uuid, "Paused")
    assert cloud.api("DELETE", f"/v1/containers/{uuid}").status == 204
    eventually(lambda: cloud.api("GET", f"/v1/containers/{uuid}").status == 404, "it is gone")


def test_a_rebuild_begins_anew_with_the_same_address(cloud: Cloud) -> None:
    uuid = cloud.running()
    before = cloud.show(uuid)["addresses"]
    assert cloud.inside(uuid, "echo mine > /mark")[0] == 0
    act(cloud, uuid, "rebuild")
    cloud.wait_for(uuid, "Running")
    assert cloud.inside(uuid, "cat /mark")[0] == 1
    assert cloud.show(uuid)["addresses"] == before
    act(cloud, uuid, "stop?timeout=2")
    cloud.wait_for(uuid, "Stopped")
    act(cloud, uuid, "rebuild")
    cloud.wait_for(uuid, "Created")
    act(cloud, uuid, "start")
    cloud.wait_for(uuid, "Running")


def test_new_limits_while_it_runs(cloud: Cloud) -> None:
    uuid = cloud.running(memory="64", cpu=0.5)
    pids = cloud.inside(uuid, "cat /proc/1/stat")[1].split()[0]
    answer = cloud.api("PATCH", f"/v1/containers/{uuid}", {"memory": "96", "cpu": 0.7, "name": "larger"})
    assert answer.status == 200, answer
    assert (answer.json()["memory"], answer.json()["cpu"], answer.json()["name"]) == ("96", 0.7, "larger")
    look = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    eventually(lambda: str(96 << 20) in cloud.inside(uuid, look)[1], "the kernel knows the new limit")
    shown = cloud.wait_for("larger", "Running")
    assert shown["uuid"] == uuid
    assert cloud.inside(uuid, "cat /proc/1/stat")[1].split()[0] == pids


def test_archives(cloud: Cloud) -> None:
    uuid = cloud.running()
    data = base64.b64encode(packed(hello=b"h\xe4llo", more=b"x" * 700_000)).decode()
    act(cloud, uuid, "put_archive?path=/tmp", {"data": data}, status=200)
    assert cloud.inside(uuid, "wc -c < /tmp/more")[1].strip() == "700000"
    got = get(cloud, uuid, "get_archive?path=/tmp/hello")
    assert unpacked(base64.b64decode(got["data"])) == {"hello": b"h\xe4llo"}
    assert set(got["stat"]) == {"name", "size", "mode", "mtime", "linkTarget"}
    assert (got["stat"]["name"], got["stat"]["size"]) == ("hello", 5)
    act(cloud, uuid, "put_archive?path=/tmp", {"data": packed(text=b"plain").decode()}, version="1.24", status=200)
    assert "plain" in get(cloud, uuid, "get_archive?path=/tmp/text", version="1.24")["data"]
    get(cloud, uuid, "get_archive?path=/no/such", status=404)
    act(cloud, uuid, "put_archive?path=/no/such", {"data": data}, status=404)
    act(cloud, uuid, "put_archive?path=/tmp", {"data": base64.b64encode(b"no tar").decode()}, status=400)


def test_top_and_stats(cloud: Cloud) -> None:
    uuid = cloud.running(("sleep", "1000"), name="watched", memory="64")
    found = get(cloud, uuid, "top")
    assert "PID" in found["Titles"]
    # For a moment after its start it is still the runtime's own program.
    eventually(
        lambda: [row[-1] for row in get(cloud, uuid, "top")["Processes"]] == ["sleep 1000"], "it is what was asked for"
    )
    assert get(cloud, uuid, "top?ps_args=-o+pid,comm")["Titles"] == ["PID", "COMMAND"]
    assert get(cloud, uuid, "top?ps_args=--bad", status=400)["errors"]
    used = get(cloud, uuid, "stats")
    assert set(used) == {
        "CONTAINER", "CPU %", "MEM USAGE(MiB)", "MEM LIMIT(MiB)", "MEM %", "BLOCK I/O(B)", "NET I/O(B)",
    }  # fmt: skip
    assert (used["CONTAINER"], used["MEM LIMIT(MiB)"]) == ("watched", 64.0)
    assert 0 < used["MEM USAGE(MiB)"] < 64


def test_networks_come_and_go_while_it_runs(cloud: Cloud) -> None:
    uuid = cloud.running()
    made = cloud.api("POST", "/networking/v2.0/networks", {"network": {"name": "second"}}).json()["network"]["id"]
    subnet = {"network_id": made, "cidr": "172.29.7.0/24", "ip_version": 4}
    assert cloud.api("POST", "/networking/v2.0/subnets", {"subnet": subnet}).status == 201
    try:
        act(cloud, uuid, "network_attach?network=second&fixed_ip=172.29.7.77", status=200)
        eventually(lambda: "172.29.7.77" in cloud.inside(uuid, "ip -4 addr")[1], "it has the address")
        cloud.wait_for(uuid, "Running")
        assert [n["fixed_ips"][0]["ip_address"] for n in get(cloud, uuid, "network_list")["networks"]][1:] == [
            "172.29.7.77"
        ]
        act(cloud, uuid, "network_detach?network=second")
        eventually(lambda: "172.29.7.77" not in cloud.inside(uuid, "ip -4 addr")[1], "it has it no more")
        cloud.wait_for(uuid, "Running")
    finally:
        cloud.clear()
        assert cloud.api("DELETE", f"/networking/v2.0/networks/{made}").status == 204


def test_volumes_and_files(cloud: Cloud) -> None:
    content = base64.b64encode(b"injected \xff").decode()
    mounts = [{"size": 1, "destination": "/data"}, {"source": content, "destination": "/etc/app/conf", "type": "bind"}]
    uuid = cloud.running(mounts=mounts)
    assert cloud.inside(uuid, "echo kept > /data/f && cat /data/f") == (0, "kept\n")
    got = get(cloud, uuid, "get_archive?path=/etc/app/conf")
    assert cloud.inside(uuid, "wc -c < /etc/app/conf")[1].strip() == "10", got["stat"]
    act(cloud, uuid, "rebuild")
    cloud.wait_for(uuid, "Running")
    assert cloud.inside(uuid, "cat /data/f") == (0, "kept\n")
    volumes = cloud.api("GET", "/askos/v1/volumes").json()["volumes"]
    assert [v["attachments"] for v in volumes if v["attachments"]] == [[uuid]]
    cloud.clear()
    eventually(lambda: cloud.api("GET", "/askos/v1/volumes").json()["volumes"] == [], "the volume went with it")


def test_the_log_of_what_was_asked(cloud: Cloud) -> None:
    uuid = cloud.running()
    act(cloud, uuid, "pause")
    cloud.wait_for(uuid, "Paused")
    act(cloud, uuid, "unpause")
    cloud.wait_for(uuid, "Running")
    act(cloud, uuid, "kill?signal=USR2")
    found = get(cloud, uuid, "container_actions")["containerActions"]
    assert [a["action"] for a in found] == ["kill", "unpause", "pause", "create"]
    assert all(a["finish_time"] and a["message"] is None for a in found), found
    assert all(a["start_time"] <= a["finish_time"] for a in found)
    one = get(cloud, uuid, f"container_actions/{found[-1]['request_id']}")
    assert [(e["event"], e["result"]) for e in one["events"]] == [
        ("compute__do_container_start", "Success"), ("compute__do_container_create", "Success"),
    ]  # fmt: skip
    broken = cloud.create(("/no/such",))
    eventually(lambda: cloud.show(broken)["status"] == "Error", "it fails")
    (create,) = get(cloud, broken, "container_actions")["containerActions"]
    assert create["message"] == "Error"
    events = get(cloud, broken, f"container_actions/{create['request_id']}")["events"]
    assert (events[0]["event"], events[0]["result"]) == ("compute__do_container_start", "Error"), json.dumps(events)


def test_a_healthcheck_says_what_it_finds(cloud: Cloud) -> None:
    check = {"cmd": "test -e /well", "interval": 1, "retries": 1, "timeout": 2}
    uuid = cloud.running(healthcheck=check)
    assert cloud.show(uuid)["healthcheck"] == {"test": "test -e /well", "interval": 1, "retries": 1, "timeout": 2}
    eventually(lambda: "unhealthy" in (cloud.show(uuid)["status_detail"] or ""), "it is unhealthy")
    assert cloud.inside(uuid, "touch /well")[0] == 0
    eventually(lambda: "(healthy)" in (cloud.show(uuid)["status_detail"] or ""), "it is healthy")
