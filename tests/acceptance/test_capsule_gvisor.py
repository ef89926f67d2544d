"""A capsule in gVisor, through the native API, on a real cloud: network, names, content, probes, restart, deletion."""

from __future__ import annotations

import shutil

import pytest
from tests.acceptance.capsule_fixtures import BASE, Pod, container, pod
from tests.acceptance.cloud_fixtures import Cloud, eventually

pytestmark = pytest.mark.skipif(shutil.which("runsc") is None, reason="needs gVisor's runsc")


def test_a_capsule_in_gvisor(cloud: Cloud) -> None:
    probe = {"httpGet": {"port": 8080, "path": "/index.html"}, "periodSeconds": 1, "timeoutSeconds": 30}
    body = pod(
        container(
            "web",
            "cat /proc/version; exec httpd -f -p 8080 -h /www",
            readinessProbe=probe,
            volumeMounts=[{"name": "www", "mountPath": "/www"}],
        ),
        container("once", "echo $WHO; [ -e /shared/been ] && exec sleep 1000; touch /shared/been; exit 3",
            env=[{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            volumeMounts=[{"name": "shared", "mountPath": "/shared"}],
        ),
        runtimeClassName="runsc",
        volumes=[{"name": "www", "configMap": {"name": "pages"}}, {"name": "shared", "emptyDir": {}}],
    )  # fmt: skip
    body["content"] = {"configMaps": {"pages": {"data": {"index.html": "hello"}}}}
    made = Pod.create(cloud, body)
    made.ready()
    made.says("Linux version 4.4.0", "web")
    address = made.status["podIP"]
    made.says(address, "once")
    # It ended by itself, with its own exit code, and was started again beside the other one.
    made.until(lambda s: any(c["restartCount"] == 1 for c in s["containerStatuses"]), "it was started again")
    restarted = made.of("once")
    assert restarted["restartCount"] == 1
    assert restarted["lastState"]["terminated"]["exitCode"] == 3
    assert made.of("web")["restartCount"] == 0

    other = Pod.create(cloud, pod())
    other.ready()
    assert other.inside(f"wget -q -O - http://{address}:8080/index.html") == "hello"
    name = made.show()["metadata"]["name"]
    assert other.inside(f"wget -q -O - http://{name}:8080/index.html") == "hello"
    # busybox' wget does not get on with the loopback of this gVisor.
    assert made.inside(r"printf 'GET /index.html HTTP/1.0\r\n\r\n' | nc 127.0.0.1 8080", "once").endswith("hello")

    answer = made.api("PUT", "/content", {"configMaps": {"pages": {"data": {"index.html": "changed"}}}})
    assert answer.status == 200, answer
    eventually(lambda: made.inside("cat /www/index.html", "web") == "changed", "new content is seen")
    made.delete()
    made.gone()


def test_a_runtime_that_no_host_has_is_named(cloud: Cloud) -> None:
    answer = cloud.api("POST", BASE, pod(runtimeClassName="nowhere"))
    assert answer.status == 400, answer
    assert "nowhere" in answer.error["detail"]
    assert "runsc" in answer.error["detail"]
