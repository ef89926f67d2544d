"""Manifests that are refused: each problem by its place, and what needs policy."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from askos.api import fields, shape

from .manifest_samples import ADMIN, pod, read, refusal

# -- what is refused --------------------------------------------------------------------------------------------

ONE = {"name": "v"}
MOUNT = {"name": "v", "mountPath": "/v"}
EXEC = {"exec": {"command": ["true"]}}

WRONG: list[tuple[dict[str, Any], str, str]] = [
    # names
    ({**pod(), "metadata": {}}, "metadata.name", "required"),
    ({**pod(), "metadata": {"name": "Web"}}, "metadata.name", "DNS name"),
    ({**pod(), "metadata": {"name": "a" * 254}}, "metadata.name", "DNS name"),
    ({**pod(), "metadata": {"name": 5}}, "metadata.name", "must be a string, not the number 5: put 5 into quotes"),
    ({**pod(), "metadata": {"generateName": "-a"}}, "metadata.generateName", "cannot begin a name"),
    ({**pod(), "metadata": {"name": "a", "namespace": "a.b"}}, "metadata.namespace", "DNS label"),
    ({**pod(), "metadata": {"name": "a", "uid": "a b"}}, "metadata.uid", "64"),
    ({**pod(), "metadata": {"name": "a", "labels": {"a b": "x"}}}, 'metadata.labels["a b"]', "letters"),
    ({**pod(), "metadata": {"name": "a", "labels": {"a": "x" * 64}}}, 'metadata.labels["a"]', "63"),
    ({**pod(), "metadata": {"name": "a", "labels": {"a": True}}}, 'metadata.labels["a"]', "put true into quotes"),
    ({**pod(), "metadata": {"name": "a", "labels": {"a/b/c": "x"}}}, 'metadata.labels["a/b/c"]', "slash"),
    ({**pod(), "metadata": {"name": "a", "labels": {"a": None}}}, 'metadata.labels["a"]', "no value"),
    ({**pod(), "metadata": {"name": "a", "annotations": {"": "x"}}}, 'metadata.annotations[""]', "63"),
    ({**pod(), "metadata": {"name": "a", "annotations": {"a": "x" * 270_000}}}, "metadata.annotations", "262144"),
    ({**pod(), "metadata": {"name": "a", "finalizers": ["x/y"]}}, "metadata.finalizers", "not supported"),
    ({**pod(), "metadata": {"name": "a", "lables": {}}}, "metadata.lables", "did you mean labels?"),
    # the whole
    ({**pod(), "apiVersion": "apps/v1"}, "apiVersion", "must be v1"),
    ({**pod(), "kind": "Deployment"}, "kind", "must be Pod"),
    ({**pod(), "Spec": {}}, "Spec", "did you mean spec?"),
    ({**pod(), "nothing": 1}, "nothing", "no such field"),
    ({"metadata": {"name": "a"}}, "spec", "required"),
    ({"metadata": {"name": "a"}, "spec": []}, "spec", "must be an object, not a list"),
    (pod({"containers": []}), "spec.containers", "at least one"),
    (pod({"containers": None}), "spec.containers", "required"),
    (pod({"containers": ["x"]}), "spec.containers[0]", "must be an object, not a string"),
    (pod({"hostname": "a.b"}), "spec.hostname", "DNS label"),
    (pod({"subdomain": "-"}), "spec.subdomain", "DNS label"),
    (pod({"restartPolicy": "always"}), "spec.restartPolicy", '"Always" or "Never" or "OnFailure"'),
    (pod({"terminationGracePeriodSeconds": -1}), "spec.terminationGracePeriodSeconds", "0"),
    (pod({"terminationGracePeriodSeconds": 1.5}), "spec.terminationGracePeriodSeconds", "whole number"),
    (pod({"terminationGracePeriodSeconds": 2**70}), "spec.terminationGracePeriodSeconds", "64 bits"),
    (pod({"activeDeadlineSeconds": 0}), "spec.activeDeadlineSeconds", "1 to"),
    (pod({"runtimeClassName": "kata"}), "spec.runtimeClassName", "the runtimes are: gvisor, runc"),
    (pod({"schedulerName": "mine"}), "spec.schedulerName", "default-scheduler"),
    (pod({"dnsPolicy": "None"}), "spec.dnsConfig.nameservers", "at least one"),
    (pod({"dnsConfig": {"nameservers": ["1.1.1"]}}), "spec.dnsConfig.nameservers[0]", "IP address"),
    (pod({"dnsConfig": {"nameservers": ["1.1.1.1"] * 4}}), "spec.dnsConfig.nameservers", "3"),
    (pod({"dnsConfig": {"searches": ["a b"]}}), "spec.dnsConfig.searches[0]", "DNS name"),
    (pod({"dnsConfig": {"options": [{"name": "a b"}]}}), "spec.dnsConfig.options[0]", "words"),
    (pod({"hostAliases": [{"ip": "x", "hostnames": ["a"]}]}), "spec.hostAliases[0].ip", "IP address"),
    (pod({"hostAliases": [{"ip": "::1", "hostnames": ["a\nb"]}]}), "spec.hostAliases[0].hostnames[0]", "DNS name"),
    (pod({"imagePullSecrets": [{}]}), "spec.imagePullSecrets[0].name", "required"),
    (pod({"overhead": {"cpu": "x"}}), 'spec.overhead["cpu"]', "not a quantity"),
    (pod({"securityContext": {"runAsUser": -1}}), "spec.securityContext.runAsUser", "0 to"),
    (pod({"securityContext": {"fsGroup": 2**31}}), "spec.securityContext.fsGroup", "0 to"),
    (pod({"securityContext": {"supplementalGroups": [-5]}}), "spec.securityContext.supplementalGroups[0]", "0 to"),
    (pod({"securityContext": {"supplementalGroupsPolicy": "Strict"}}),
     "spec.securityContext.supplementalGroupsPolicy", "always merged"),
    (pod({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
     "spec.securityContext.sysctls[0].name", "net.ipv4.tcp_syncookies"),
    # fields that Kubernetes has
    (pod({"hostNetwork": True}), "spec.hostNetwork", "not supported: a capsule has a network and an address of its own"),
    (pod({"affinity": {"nodeAffinity": {"x": 1}}}), "spec.affinity", "not supported"),
    (pod({"os": {"name": "windows"}}), "spec.os", "Linux"),
    (pod({"hostUsers": "no"}), "spec.hostUsers", "not supported"),
    (pod(volumeDevices=[{"name": "a", "devicePath": "/dev/x"}]), "spec.containers[0].volumeDevices", "block devices"),
    (pod(restartPolicy="OnFailure"), "spec.containers[0].restartPolicy", "sidecar"),
    (pod(restartPolicy="Always"), "spec.containers[0].restartPolicy", "init containers"),
    (pod({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), "spec.volumes[0].hostPath", "folders of the host"),
    (pod({"volumes": [{"name": "v", "csi": {"driver": "x"}}]}), "spec.volumes[0].csi", "not supported"),
    (pod(securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "x"}}),
     "spec.containers[0].securityContext.seccompProfile.localhostProfile", "not supported"),
    (pod(securityContext={"procMount": "Unmasked"}), "spec.containers[0].securityContext.procMount", "masked"),
    # containers
    (pod({"containers": [{"name": f"c{i}", "image": "x"} for i in range(251)]}), "spec.containers", "at most 250"),
    (pod(env=[{"name": "A"}] * 10_001), "spec.containers[0].env", "at most 10000"),
    (pod(name="App"), "spec.containers[0].name", "DNS label"),
    (pod(name=None), "spec.containers[0].name", "required"),
    (pod(image=""), "spec.containers[0].image", "required"),
    (pod(image=" nginx"), "spec.containers[0].image", "space"),
    (pod(Command=["x"]), "spec.containers[0].Command", "did you mean command?"),
    (pod(command="sleep 1"), "spec.containers[0].command", "must be a list, not a string"),
    (pod(command=["a", 1]), "spec.containers[0].command[1]", "put 1 into quotes"),
    (pod(args=["a\0"]), "spec.containers[0].args[0]", "NUL"),
    (pod(tty="yes"), "spec.containers[0].tty", "true or false"),
    (pod(workingDir="tmp"), "spec.containers[0].workingDir", "absolute"),
    (pod(terminationMessagePath="x"), "spec.containers[0].terminationMessagePath", "absolute"),
    (pod(imagePullPolicy="Sometimes"), "spec.containers[0].imagePullPolicy", '"IfNotPresent"'),
    (pod(lifecycle={"stopSignal": "TERM"}), "spec.containers[0].lifecycle.stopSignal", "SIGTERM"),
    (pod(lifecycle={"preStop": {}}), "spec.containers[0].lifecycle.preStop", "exactly one"),
    (pod(lifecycle={"preStop": {"sleep": {"seconds": 31}}}), "spec.containers[0].lifecycle.preStop.sleep.seconds", "30"),
    (pod(lifecycle={"postStart": {"exec": {}}}), "spec.containers[0].lifecycle.postStart.exec.command", "required"),
    (pod(ports=[{"containerPort": 0}]), "spec.containers[0].ports[0].containerPort", "1 to 65535"),
    (pod(ports=[{"containerPort": 65536}]), "spec.containers[0].ports[0].containerPort", "1 to 65535"),
    (pod(ports=[{"containerPort": True}]), "spec.containers[0].ports[0].containerPort", "whole number"),
    (pod(ports=[{}]), "spec.containers[0].ports[0].containerPort", "required"),
    (pod(ports=[{"containerPort": 1, "name": "123"}]), "spec.containers[0].ports[0].name", "with a letter"),
    (pod(ports=[{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]),
     "spec.containers[0].ports[1].name", "several"),
    (pod(ports=[{"containerPort": 1, "protocol": "ICMP"}]), "spec.containers[0].ports[0].protocol", '"UDP"'),
    (pod(env=[{"name": ""}]), "spec.containers[0].env[0].name", "empty"),
    (pod(env=[{"name": "A=B"}]), "spec.containers[0].env[0].name", "without ="),
    (pod(env=[{"name": "A", "value": 5}]), "spec.containers[0].env[0].value", "put 5 into quotes"),
    (pod(env=[{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
     "spec.containers[0].env[0]", "exclude"),
    (pod(env=[{"name": "A", "valueFrom": {}}]), "spec.containers[0].env[0].valueFrom", "exactly one"),
    (pod(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}]),
     "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath", "metadata.labels['key']"),
    (pod(env=[{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]),
     "spec.containers[0].env[0].valueFrom.resourceFieldRef.resource", "ephemeral-storage"),
    (pod(env=[{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "containerName": "no"}}}]),
     "spec.containers[0].env[0].valueFrom.resourceFieldRef.containerName", "no container"),
    (pod(env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b/c"}}}]),
     "spec.containers[0].env[0].valueFrom.configMapKeyRef.key", "a key must be"),
    (pod(env=[{"name": "A", "valueFrom": {"fileKeyRef": {"key": "a"}}}]),
     "spec.containers[0].env[0].valueFrom.fileKeyRef", "not supported"),
    (pod(envFrom=[{}]), "spec.containers[0].envFrom[0]", "exactly one"),
    (pod(envFrom=[{"secretRef": {"name": ""}}]), "spec.containers[0].envFrom[0].secretRef.name", "required"),
    # resources
    (pod(resources={"limits": {"cpu": "a"}}), "spec.containers[0].resources.limits.cpu", "not a quantity"),
    (pod(resources={"limits": {"memory": "-1"}}), "spec.containers[0].resources.limits.memory", "negative"),
    (pod(resources={"limits": {"nvidia.com/gpu": 1}}), 'spec.containers[0].resources.limits["nvidia.com/gpu"]', "devices"),
    (pod(resources={"requests": {"hugepages-2Mi": "4Mi"}}), 'spec.containers[0].resources.requests["hugepages-2Mi"]', "huge"),
    (pod(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1999m"}}), "spec.containers[0].resources.requests.cpu", "1999m"),
    (pod(resources={"cpu": "1"}), "spec.containers[0].resources.cpu", "no such field"),
    (pod(resizePolicy=[{"resourceName": "cpu"}] * 2), "spec.containers[0].resizePolicy[1].resourceName", "several"),
    # volumes
    (pod(volumeMounts=[MOUNT]), "spec.containers[0].volumeMounts[0].name", "there are: none"),
    (pod({"volumes": [ONE, ONE]}), "spec.volumes[1].name", "several"),
    (pod({"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]}), "spec.volumes[0]", "emptyDir and secret"),
    (pod({"volumes": [{"name": "v", "emptyDir": {"medium": "HugePages"}}]}), "spec.volumes[0].emptyDir.medium", "huge"),
    (pod({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "-1Gi"}}]}), "spec.volumes[0].emptyDir.sizeLimit", "negative"),
    (pod({"volumes": [{"name": "v", "configMap": {"name": "a", "defaultMode": 512}}]}), "spec.volumes[0].configMap.defaultMode", "511"),
    (pod({"volumes": [{"name": "v", "configMap": {"name": "a", "items": [{"key": "k", "path": "../x"}]}}]}),
     "spec.volumes[0].configMap.items[0].path", "'..'"),
    (pod({"volumes": [{"name": "v", "secret": {"name": "a"}}]}), "spec.volumes[0].secret.name", "no such field"),
    (pod({"volumes": [{"name": "v", "secret": {}}]}), "spec.volumes[0].secret.secretName", "required"),
    (pod({"volumes": [{"name": "v", "projected": {"sources": [{}]}}]}), "spec.volumes[0].projected.sources[0]", "exactly one"),
    (pod({"volumes": [{"name": "v", "downwardAPI": {"items": [{"path": "/a", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}),
     "spec.volumes[0].downwardAPI.items[0].path", "relative"),
    (pod({"volumes": [{"name": "v", "downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "status.podIP"}}]}}]}),
     "spec.volumes[0].downwardAPI.items[0].fieldRef.fieldPath", "metadata.labels"),
    (pod({"volumes": [{"name": "v", "cinder": {"volumeID": "x", "fsType": "xfs"}}]}), "spec.volumes[0].cinder.fsType", "ext4"),
    (pod({"volumes": [{"name": "v", "cinder": {}}]}), "spec.volumes[0].cinder.volumeID", "required"),
    (pod({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": ""}}]}),
     "spec.volumes[0].persistentVolumeClaim.claimName", "required"),
    (pod({"volumes": [ONE]}, volumeMounts=[{**MOUNT, "mountPath": "v"}]), "spec.containers[0].volumeMounts[0].mountPath", "absolute"),
    (pod({"volumes": [ONE]}, volumeMounts=[{**MOUNT, "mountPath": "/"}]), "spec.containers[0].volumeMounts[0].mountPath", "whole image"),
    (pod({"volumes": [ONE]}, volumeMounts=[{**MOUNT, "mountPath": "/a/../b"}]), "spec.containers[0].volumeMounts[0].mountPath", "'..'"),
    (pod({"volumes": [ONE]}, volumeMounts=[MOUNT, {**MOUNT, "mountPath": "/v/"}]), "spec.containers[0].volumeMounts[1].mountPath", "several"),
    (pod({"volumes": [ONE]}, volumeMounts=[{**MOUNT, "subPath": "/x"}]), "spec.containers[0].volumeMounts[0].subPath", "relative"),
    (pod({"volumes": [ONE]}, volumeMounts=[{**MOUNT, "subPath": "a/../x"}]), "spec.containers[0].volumeMounts[0].subPath", "'..'"),
    (pod({"volumes": [ONE]}, volumeMounts=[{**MOUNT, "subPath": "a", "subPathExpr": "b"}]),
     "spec.containers[0].volumeMounts[0].subPathExpr", "exclude"),
    (pod({"volumes": [ONE]}, volumeMounts=[{**MOUNT, "mountPropagation": "HostToContainer"}]),
     "spec.containers[0].volumeMounts[0].mountPropagation", "never pass"),
    # probes
    (pod(livenessProbe={}), "spec.containers[0].livenessProbe", "exactly one"),
    (pod(livenessProbe={**EXEC, "tcpSocket": {"port": 1}}), "spec.containers[0].livenessProbe", "exactly one"),
    (pod(livenessProbe={**EXEC, "successThreshold": 2}), "spec.containers[0].livenessProbe.successThreshold", "readinessProbe"),
    (pod(startupProbe={**EXEC, "periodSeconds": -1}), "spec.containers[0].startupProbe.periodSeconds", "1 to"),
    (pod(readinessProbe={**EXEC, "terminationGracePeriodSeconds": 5}),
     "spec.containers[0].readinessProbe.terminationGracePeriodSeconds", "ends no container"),
    (pod(readinessProbe={"httpGet": {"port": "http"}}), "spec.containers[0].readinessProbe.httpGet.port", "no port named"),
    (pod(readinessProbe={"httpGet": {"port": "80"}}), "spec.containers[0].readinessProbe.httpGet.port", "without quotes"),
    (pod(readinessProbe={"httpGet": {"port": 0}}), "spec.containers[0].readinessProbe.httpGet.port", "65535"),
    (pod(readinessProbe={"httpGet": {"port": 8.5}}), "spec.containers[0].readinessProbe.httpGet.port", "number or a string"),
    (pod(readinessProbe={"httpGet": {"port": 80, "httpHeaders": [{"name": "a:", "value": "x"}]}}),
     "spec.containers[0].readinessProbe.httpGet.httpHeaders[0].name", "header"),
    (pod(readinessProbe={"httpGet": {"port": 80, "path": "/\r\nHost: x"}}), "spec.containers[0].readinessProbe.httpGet.path", "control"),
    (pod({"initContainers": [{"name": "i", "image": "x", "livenessProbe": EXEC}]}), "spec.initContainers[0].livenessProbe", "sidecars"),
    (pod({"initContainers": [{"name": "i", "image": "x", "lifecycle": {"preStop": EXEC}}]}), "spec.initContainers[0].lifecycle", "sidecars"),
    (pod({"initContainers": [{"name": "app", "image": "x"}]}), "spec.containers[0].name", "several"),
    # security
    (pod(securityContext={"capabilities": {"add": ["NET_FLY"]}}), "spec.containers[0].securityContext.capabilities.add[0]", "not the name"),
    (pod(securityContext={"capabilities": {"drop": ["CAP_KILL"]}}), "spec.containers[0].securityContext.capabilities.drop[0]", "write KILL"),
    # content
    ({**pod(), "content": []}, "content", "must be an object"),
    ({**pod(), "content": {"configmaps": {}}}, "content.configmaps", "did you mean configMaps?"),
    ({**pod(), "content": {"secrets": {"S": {}}}}, 'content.secrets["S"]', "DNS name"),
    ({**pod(), "content": {"secrets": {"s": {"data": {"k": "%"}}}}}, 'content.secrets["s"].data["k"]'.replace('["s"]', '["s"]'), "base64"),
    ({**pod(), "content": {"secrets": {"s": {"stringData": {"k": 5}}}}}, 'content.secrets["s"].stringData["k"]', "quotes"),
    ({**pod(), "content": {"secrets": {"s": {"stringData": {"../k": "x"}}}}}, 'content.secrets["s"].stringData["../k"]', "a key"),
    ({**pod(), "content": {"secrets": {"s": {"type": "kubernetes.io/dockerconfigjson"}}}}, 'content.secrets["s"].data', ".dockerconfigjson"),
    ({**pod(), "content": {"configMaps": {"c": {"data": {"k": "x"}, "binaryData": {"k": "eA=="}}}}},
     'content.configMaps["c"].binaryData["k"]', "same key"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "path", "why"), WRONG, ids=[f"{i}-{row[1]}" for i, row in enumerate(WRONG)])
def test_what_is_wrong_is_named(body: dict[str, Any], path: str, why: str) -> None:
    before = copy.deepcopy(body)
    error = refusal(body)
    assert error.status == 400
    assert error.code == "container.schema-validation-error"
    lines = [line for line in error.detail.splitlines() if line.startswith(f"{path}: ")]
    assert len(lines) == 1, error.detail
    assert why in lines[0]
    assert body == before


def test_everything_is_said_at_once() -> None:
    body = pod(
        {"hostNetwork": True, "hostPID": True, "volumes": 5, "colour": "red"}, image=None, ports=[{"containerPort": -1}]
    )
    body["metadata"] = {"name": "A", "labels": {"a": 1}}
    error = refusal(body)
    assert error.title == "Cannot use this manifest: 8 fields are wrong, not supported or not allowed; see detail."
    assert sorted(line.split(": ")[0] for line in error.detail.splitlines()) == sorted(
        ["metadata.labels[\"a\"]", "metadata.name", "spec.hostNetwork", "spec.hostPID", "spec.volumes", "spec.colour",
         "spec.containers[0].image", "spec.containers[0].ports[0].containerPort"]
    )  # fmt: skip


def test_what_is_inside_of_a_wrong_place_is_not_told() -> None:
    assert refusal(None).detail == "the body must be a JSON object with metadata and spec"
    assert refusal([1]).detail == "the body must be a JSON object with metadata and spec"
    assert refusal({}).detail == "metadata: it is required\nspec: it is required"
    assert refusal(pod({"containers": [5]})).detail == "spec.containers[0]: it must be an object, not the number 5"


def test_a_flood_of_problems_is_cut() -> None:
    error = refusal(pod({f"field{i}": 1 for i in range(20_000)}))
    lines = error.detail.splitlines()
    assert len(lines) == shape.SHOWN + 1
    assert lines[-1] == f"... and {1000 - shape.SHOWN} more"
    assert "1000 or more fields" in error.title


# -- policy -----------------------------------------------------------------------------------------------------

POWERS: list[tuple[dict[str, Any], str, bool]] = [
    ({"privileged": True}, "privileged", False),
    ({"seccompProfile": {"type": "Unconfined"}}, "seccompProfile.type", False),
    ({"capabilities": {"add": ["ALL"]}}, "capabilities.add[0]", False),
    ({"capabilities": {"add": ["CHOWN", "NET_ADMIN"]}}, "capabilities.add[1]", True),
    ({"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation", True),
]


@pytest.mark.parametrize(("context", "path", "admin"), POWERS, ids=[row[1] for row in POWERS])
def test_powers_need_policy(context: dict[str, Any], path: str, admin: bool) -> None:
    body = pod(securityContext=context)
    error = refusal(body)
    assert error.status == 403
    assert error.code == "container.policy-not-authorized"
    assert error.detail.startswith(f"spec.containers[0].securityContext.{path}: ")
    if admin:
        read(body, ADMIN)
    else:
        assert refusal(body, ADMIN).status == 403
    mixed = refusal({**body, "kind": "Job"})
    assert mixed.status == 400
    assert len(mixed.detail.splitlines()) == 2


def test_an_unconfined_pod_needs_policy() -> None:
    assert refusal(pod({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}), ADMIN).status == 403


def test_privileged_contradicts_no_escalation() -> None:
    error = refusal(pod(securityContext={"privileged": True, "allowPrivilegeEscalation": False}))
    assert error.status == 400
    assert "spec.containers[0].securityContext.allowPrivilegeEscalation: it cannot be false" in error.detail


def test_what_is_free() -> None:
    read(pod(securityContext={"capabilities": {"add": sorted(fields.DEFAULT_CAPABILITIES), "drop": ["ALL"]}}))
    sysctls = [
        {"name": name.replace(".", "/") if i % 2 else name, "value": "1"} for i, name in enumerate(fields.SYSCTLS)
    ]
    read(pod({"securityContext": {"sysctls": sysctls}}))
    assert read(pod({"runtimeClassName": "gvisor"})).pod.spec.runtime_class_name == "gvisor"
