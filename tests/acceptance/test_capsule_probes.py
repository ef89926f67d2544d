"""Probes of real containers, from inside the capsule's network."""

from __future__ import annotations

from typing import Any

from tests.acceptance.capsule_fixtures import Pod, container, pod
from tests.acceptance.cloud_fixtures import Cloud, eventually

FAST = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 30}
"""Tells a change at once. On a busy machine a single run may take longer than a second."""
WEB = "mkdir /www; echo ok > /www/ok; exec httpd -f -p 8080 -h /www"


def test_readiness_follows_the_container(cloud: Cloud) -> None:
    by_exec = {"exec": {"command": ["cat", "/tmp/ready"]}, **FAST}
    by_http = {"httpGet": {"path": "/ok", "port": "web"}, **FAST}
    by_tcp = {"tcpSocket": {"port": 8080}, **FAST}
    body = pod(
        container("exec", readinessProbe=by_exec),
        container("http", WEB, readinessProbe=by_http, ports=[{"name": "web", "containerPort": 8080}]),
        container("tcp", readinessProbe=by_tcp),
    )
    made = Pod.create(cloud, body)
    made.until(lambda s: {c["name"] for c in s["containerStatuses"] if c["ready"]} == {"http", "tcp"}, "two are ready")
    condition = made.condition("Ready")
    assert (condition["status"], condition["reason"]) == ("False", "ContainersNotReady")
    assert "exec" in condition["message"]
    assert "cat: can't open" in made.event("Unhealthy")["message"]
    made.inside("touch /tmp/ready", "exec")
    made.ready()
    made.inside("rm /www/ok", "http")
    made.until(lambda s: not next(c for c in s["containerStatuses"] if c["name"] == "http")["ready"], "404 is bad")
    assert made.of("http")["restartCount"] == 0


def test_liveness_restarts(cloud: Cloud) -> None:
    probe = {"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}, **FAST}
    made = Pod.create(cloud, pod(container("main", livenessProbe=probe))).ready()
    before = made.of()["containerID"]
    made.inside("touch /tmp/sick")
    made.until(lambda s: s["containerStatuses"][0]["restartCount"] == 1, "it was restarted")
    made.ready()
    assert made.of()["containerID"] != before
    assert "liveness" in made.event("Killing")["message"].lower()


def test_startup_holds_the_others_back(cloud: Cloud) -> None:
    script = "until [ -e /tmp/go ]; do sleep 0.1; done; touch /tmp/up; exec sleep 1000"
    startup = {"exec": {"command": ["cat", "/tmp/up"]}, **FAST, "failureThreshold": 1000}
    liveness = {"exec": {"command": ["cat", "/tmp/up"]}, **FAST}
    made = Pod.create(cloud, pod(container("main", script, startupProbe=startup, livenessProbe=liveness)))
    made.until(lambda s: "running" in s["containerStatuses"][0]["state"], "it runs")
    assert "Startup probe failed" in made.event("Unhealthy")["message"]
    assert made.of()["started"] is False
    made.inside("touch /tmp/go")
    made.ready()
    status = made.of()
    assert (status["started"], status["restartCount"]) == (True, 0)
    slow = {"exec": {"command": ["false"]}, **FAST}
    script = "trap 'exit 7' TERM; while :; do sleep 0.1; done"
    never = Pod.create(cloud, pod(container("main", script, startupProbe=slow), restartPolicy="Never"))
    never.phase("Failed")


def test_a_probe_survives_the_agent(cloud: Cloud) -> None:
    probe = {"httpGet": {"path": "/ok", "port": 8080}, **FAST}
    made = Pod.create(cloud, pod(container("main", WEB, readinessProbe=probe))).ready()
    flips: list[Any] = [made.condition("Ready")["lastTransitionTime"]]
    cloud.restart()
    eventually(lambda: made.api("GET").status == 200, "it is back")
    made.ready()
    assert made.condition("Ready")["lastTransitionTime"] == flips[0]
    made.inside("rm /www/ok")
    made.until(lambda s: not s["containerStatuses"][0]["ready"], "the probe goes on")
