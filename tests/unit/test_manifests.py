"""Manifests: what becomes a pod as it is, what is only warned about, and content."""

from __future__ import annotations

import base64

import msgspec
import pytest
import yaml

from askos.api import fields, manifests
from askos.api.errors import ApiError
from askos.model import pods

from .manifest_samples import DUMP, JOB, NGINX, SIDECAR, pod, read, refusal

# -- manifests from the world -----------------------------------------------------------------------------------


def test_nginx() -> None:
    found = read(yaml.safe_load(NGINX))
    assert found.warnings == []
    (container,) = found.pod.spec.containers
    assert container.resources.limits == {"cpu": "1", "memory": "128Mi"}
    assert container.env[1].value_from == pods.EnvSource(
        resource_field_ref=pods.ResourceFieldRef("limits.cpu", divisor="1")
    )
    assert container.readiness_probe == pods.Probe(http_get=pods.HttpGet("http"), period_seconds=5)
    assert container.lifecycle is not None and container.lifecycle.stop_signal == "SIGQUIT"
    assert found.pod.spec.volumes[0].config_map == pods.ConfigMapVolume(
        "settings", [pods.KeyToPath("site.conf", "site.conf", 0o444)]
    )
    assert found.content.secrets["login"].data == {"user": b"ann", "password": b"hunter2"}
    assert found.content.config_maps["settings"].data == {"site.conf": "server {}"}


def test_a_job_with_a_generated_name() -> None:
    body = yaml.safe_load(JOB)
    first, second = read(body), read(body)
    assert first.generated and first.pod.metadata.name.startswith("pi-") and len(first.pod.metadata.name) == 8
    assert first.pod.metadata.name != second.pod.metadata.name
    assert first.pod.spec == second.pod.spec
    assert "generateName" in body["metadata"], "the body is not changed"


def test_a_sidecar() -> None:
    found = read(yaml.safe_load(SIDECAR))
    assert found.warnings == [] and not found.generated
    assert [c.restart_policy for c in found.pod.spec.init_containers] == [None, "Always"]
    assert found.pod.metadata.uid == "0c9e1f0e-1111-4222-8333-123456789abc"


def test_what_kubectl_prints() -> None:
    body = yaml.safe_load(DUMP)
    error = refusal(body)
    assert error.status == 400
    (line,) = error.detail.splitlines()
    assert line.startswith("spec.volumes[0].projected.sources[0].serviceAccountToken: not supported: ")
    del body["spec"]["volumes"][0]["projected"]["sources"][0]
    found = read(body)
    assert sorted(warning.split(" ")[0] for warning in found.warnings) == [
        "metadata.creationTimestamp", "metadata.generateName", "metadata.generation", "metadata.ownerReferences",
        "metadata.resourceVersion", "spec.enableServiceLinks", "spec.nodeName", "spec.tolerations", "status",
    ]  # fmt: skip
    assert found.pod.spec.tolerations[0]["tolerationSeconds"] == 300, "kept, and shown"
    assert found.pod.metadata.name == "web-5d9c7b8f6-x2x7k"


def test_our_own_answer_can_be_sent_back() -> None:
    body = {
        **pod(), "apiVersion": "askos/v1", "kind": "Capsule", "id": "x", "host": None, "status": {"phase": "Running"},
    }  # fmt: skip
    body["metadata"] = {
        "name": "web", "uid": "u-1", "generation": 3, "creationTimestamp": "2026-05-01T10:00:00Z", "resourceVersion": "7",
    }  # fmt: skip
    found = read(body)
    assert found.warnings == []
    assert found.pod.metadata == pods.PodMetadata("web", uid="u-1")


def test_what_a_pod_becomes_can_be_read_again() -> None:
    first = read(yaml.safe_load(NGINX))
    again = msgspec.to_builtins(first.pod)
    assert read(again).pod == first.pod


def test_nulls_and_empty_values_are_the_same_as_nothing() -> None:
    body = pod(
        {
            "hostNetwork": False, "hostPID": None, "hostIPC": False, "hostUsers": True, "affinity": {}, "nodeSelector": {},
            "os": {"name": "linux"}, "ephemeralContainers": [], "topologySpreadConstraints": None, "dnsConfig": None,
            "initContainers": None, "volumes": [], "restartPolicy": "", "schedulerName": "", "runtimeClassName": None,
            "securityContext": {"seLinuxOptions": None, "windowsOptions": {}}, "subdomain": None, "readinessGates": [],
        },
        volumeDevices=[], command=None, imagePullPolicy="", terminationMessagePath="", workingDir="",
        livenessProbe={"exec": {"command": ["x"]}, "periodSeconds": 0, "timeoutSeconds": 0, "grpc": None},
        ports=[{"containerPort": 80, "protocol": "", "hostPort": 0, "hostIP": ""}],
        resources={"claims": [], "limits": None},
    )  # fmt: skip
    found = read(body)
    assert found.warnings == []
    (container,) = found.pod.spec.containers
    assert container.liveness_probe == pods.Probe(exec=pods.ExecAction(["x"]))
    assert container.ports == [pods.ContainerPort(80)]
    assert msgspec.structs.replace(container, liveness_probe=None, ports=[]) == pods.Container("app", "busybox")


# -- warnings ---------------------------------------------------------------------------------------------------


def test_one_warning_a_field_however_often_it_is_used() -> None:
    ports = [{"containerPort": 80 + i, "hostPort": 80 + i} for i in range(300)]
    (warning,) = read(pod(ports=ports)).warnings
    assert warning.startswith("spec.containers[0].ports[0].hostPort (and 299 more) has no effect: ")
    assert warning.isascii() and "\n" not in warning


def test_warnings_can_be_headers() -> None:
    body = pod(
        {
            name: {"priority": 5, "tolerations": [{"key": "a"}]}.get(name, "some-thing")
            for name in fields.WITHOUT_EFFECT[pods.PodSpec]
        }
    )
    body["spec"] |= {
        "automountServiceAccountToken": True,
        "enableServiceLinks": True,
        "schedulerName": "default-scheduler",
    }
    body["metadata"] |= dict.fromkeys(fields.WITHOUT_EFFECT[pods.PodMetadata], "\u00e4\r\nX-Evil: 1")
    body["metadata"]["annotations"] = {"container.apparmor.security.beta.kubernetes.io/app": "unconfined"}
    warnings = read(body).warnings
    assert (
        len(warnings) == len(fields.WITHOUT_EFFECT[pods.PodSpec]) - 1 + len(fields.WITHOUT_EFFECT[pods.PodMetadata]) + 1
    )
    assert all(w.isascii() and w.isprintable() and len(w) < 200 and '"' not in w for w in warnings)


# -- content ----------------------------------------------------------------------------------------------------


def test_content_alone() -> None:
    login = base64.b64encode(b'{"auths":{}}').decode()
    found = manifests.read_content(
        {
            "configMaps": {"c": {"data": {"a": "b"}, "binaryData": {"z": "AAE="}, "immutable": True}},
            "secrets": {
                "s": {"data": {"k": "eA==\n", "both": "eA=="}, "stringData": {"both": "\u00fc"}},
                "login": {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": login}},
            },
        }
    )
    assert found.config_maps == {"c": pods.ConfigMap({"a": "b"}, {"z": b"\0\1"}, True)}
    assert found.secrets["s"].data == {"k": b"x", "both": "\u00fc".encode()}
    assert found.secrets["login"].type == "kubernetes.io/dockerconfigjson"
    with pytest.raises(ApiError) as caught:
        manifests.read_content({"secrets": {"s": {"data": {"k": 1}}}, "other": 1})
    assert caught.value.detail.splitlines() == [
        'secrets["s"].data["k"]: it must be a string of base64, not the number 1',
        "other: there is no such field",
    ]
