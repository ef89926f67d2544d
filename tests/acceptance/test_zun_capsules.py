"""Zun's capsules on real containers: the ecosystem's clients, both forms, statuses that keep being true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.acceptance.capsule_fixtures import Pod
from tests.acceptance.client_fixtures import runs
from tests.acceptance.cloud_fixtures import LIVES, Cloud, eventually

WORKING = {"image": "busybox", "command": list(LIVES)}


def template(*containers: dict[str, Any], name: str | None = "pod", **spec: Any) -> dict[str, Any]:
    return {
        "kind": "capsule",
        "metadata": {} if name is None else {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": list(containers) or [WORKING], **spec},
    }


class Capsule(Pod):
    """A capsule made from a template; its status is Zun's."""

    @classmethod
    def make(cls, cloud: Cloud, given: Any, version: str = "1.40") -> Capsule:
        answer = cloud.api("POST", "/v1/capsules", {"template": given}, version=version)
        assert answer.status == 202, answer
        return cls(cloud, {"id": answer.json()["uuid"]})

    def zun(self, version: str = "1.40") -> dict[str, Any]:
        answer = self.cloud.api("GET", f"/v1/capsules/{self.id}", version=version)
        assert answer.status == 200, answer
        return dict(answer.json())

    def in_status(self, wanted: str, timeout_s: float = 60) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            shown = self.zun()
            return shown if shown["status"] == wanted else None

        try:
            return dict(eventually(look, f"status {wanted}", timeout_s) or {})
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.zun()}\n{self.events()}\n{self.cloud.log_tail()}") from None

    def remove(self) -> None:
        assert self.cloud.api("DELETE", f"/v1/capsules/{self.id}").status == 204
        eventually(lambda: self.cloud.api("GET", f"/v1/capsules/{self.id}").status == 404, "it is gone")


# -- clients -------------------------------------------------------------------------------------------------------


@runs("openstack", "capsule create", "capsule show", "capsule list", "capsule delete")
@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_openstack_capsule(cloud: Cloud, tmp_path: Path, dump: Any) -> None:
    def capsule(*arguments: str) -> Any:
        return json.loads(cloud.openstack("capsule", *arguments, "-f", "json").stdout)

    file = tmp_path / "template"
    file.write_text(dump(template({**WORKING, "name": "main", "resources": {"requests": {"cpu": 0.2, "memory": 64}}})))
    made = capsule("create", "--file", str(file))
    assert (made["name"], made["memory"]) == ("pod", "64")
    eventually(lambda: capsule("show", "pod")["status"] == "Running", "openstack capsule show")
    (listed,) = capsule("list")
    shown = capsule("show", "pod")
    assert (listed["uuid"], listed["status"]) == (made["uuid"], "Running")
    ((address,),) = Capsule(cloud, {"id": made["uuid"]}).zun()["addresses"].values()
    assert listed["addresses"] == shown["addresses"] == address["addr"]
    assert [(c["name"], c["status"]) for c in shown["containers"]] == [("main", "Running")]
    assert "accepted" in cloud.openstack("capsule", "delete", "pod").stdout
    eventually(lambda: not capsule("list"), "openstack capsule delete")


@runs("zun", "capsule-create", "capsule-list", "capsule-describe", "capsule-delete")
def test_zun_capsule(cloud: Cloud, tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump(template()))
    assert "accepted" in cloud.zun("capsule-create", "-f", str(file)).stdout
    eventually(lambda: "Running" in cloud.zun("capsule-list").stdout, "zun capsule-list")
    assert "Running" in cloud.zun("capsule-describe", "pod").stdout
    cloud.zun("capsule-delete", "pod")
    eventually(lambda: "pod" not in cloud.zun("capsule-list").stdout, "zun capsule-delete")
    missing = cloud.zun("capsule-describe", "nobody", check=False)
    assert missing.returncode != 0
    assert "nobody could not be found" in missing.stderr + missing.stdout


def test_a_client_is_told_all_that_is_wrong(cloud: Cloud, tmp_path: Path) -> None:
    file = tmp_path / "pod.json"
    file.write_text(json.dumps(template({"image": "busybox", "foo": 1, "tty": 5})))
    refused = cloud.openstack("capsule", "create", "--file", str(file), check=False)
    assert "Cannot use this template: 2 fields are wrong" in refused.stderr + refused.stdout


# -- on real containers --------------------------------------------------------------------------------------------


def test_a_capsule_as_gophercloud_makes_it(cloud: Cloud) -> None:
    mount = {"name": "work", "mountPath": "/work"}
    made = Capsule.make(
        cloud,
        json.dumps(
            template(
                {
                    "image": "busybox", "name": "web", "command": ["sh", "-c"],
                    "args": ["cat /work/f; echo $A; exec httpd -f -p 8080 -h /work"],
                    "env": {"A": "$(B) $$"}, "workDir": "/tmp", "volumeMounts": [{**mount, "readOnly": True}],
                },
                {**WORKING, "name": "other", "volumeMounts": [mount]},
                initContainers=[{"image": "busybox", "name": "init", "command": ["sh", "-c", "echo made > /work/f"], "volumeMounts": [mount]}],
                volumes=[{"name": "work", "cinder": {"size": 1, "autoRemove": True}}],
            )
        ),
        version="1.31",
    )  # fmt: skip
    shown = made.in_status("Running")
    assert [c["status"] for c in (*shown["init_containers"], *shown["containers"])] == ["Stopped", "Running", "Running"]
    old = made.zun("1.31")
    assert (old["meta_name"], old["restart_policy"], old["volumes_info"]) == ("pod", "always", {})
    made.says("made\n$(B) $$\n", "web")
    assert made.inside("pwd; touch /work/g || echo denied", "web").split() == ["/tmp", "denied"]
    fetch = "wget -qO- http://127.0.0.1:8080/f || true"
    eventually(lambda: made.inside(fetch, "other") == "made\n", "its neighbour serves")
    assert [v["size_gib"] for v in cloud.api("GET", "/askos/v1/volumes").json()["volumes"]] == [1]
    made.remove()
    eventually(lambda: not cloud.api("GET", "/askos/v1/volumes").json()["volumes"], "autoRemove")


def test_statuses_keep_being_true(cloud: Cloud) -> None:
    done = Capsule.make(cloud, template({"image": "busybox", "command": ["true"], "name": "a"}, restartPolicy="Never"))
    shown = done.in_status("Stopped")
    assert shown["status_reason"] is None
    assert shown["containers"][0]["status_detail"].startswith("Exited(0) ")
    crash = Capsule.make(cloud, template({"image": "busybox", "command": ["false"], "name": "a"}, name=None))
    shown = crash.in_status("Restarting")
    assert "CrashLoopBackOff" in shown["status_reason"]
    assert shown["containers"][0]["status"] == "Restarting"
    assert shown["name"].endswith("-capsule")
    init = {"image": "busybox", "command": ["false"], "name": "first"}
    failed = Capsule.make(cloud, template(WORKING, name="failed", initContainers=[init], restartPolicy="Never"))
    shown = failed.in_status("Stopped")
    assert shown["status_reason"] == "Container first: it ended with exit code 1"
    program = Capsule.make(cloud, template({"image": "busybox", "command": ["/none"], "name": "a"}, name="program"))
    shown = program.in_status("Error")
    assert "/none" in shown["status_reason"]
    for capsule in (done, crash, failed, program):
        capsule.remove()


def test_an_image_that_is_not_there(cloud: Cloud) -> None:
    made = Capsule.make(cloud, template({"image": "127.0.0.1:1/no/such:1", "name": "a"}))
    shown = made.in_status("Error")
    assert "Container a: " in shown["status_reason"]
    made.remove()
