"""Manifests: what becomes a pod as it is, what is refused by name, what is only warned about."""

from __future__ import annotations

import base64
import copy
import re
import runpy
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from askos.api import fields, manifests, policy, shape
from askos.api.errors import ApiError
from askos.model import pods
from askos.model.identity import Caller

from .kubernetes_fields import FIELDS

MEMBER = Caller("ann", "p1", is_admin=False, roles=["member"])
ADMIN = Caller("root", "p1", is_admin=True, roles=["admin"])
RUNTIMES = {"runc", "gvisor"}


def read(body: Any, caller: Caller = MEMBER) -> manifests.Manifest:
    return manifests.read(body, caller=caller, runtimes=RUNTIMES)


def refusal(body: Any, caller: Caller = MEMBER) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(body, caller)
    return caught.value


def pod(spec: dict[str, Any] | None = None, /, **container: Any) -> dict[str, Any]:
    """A small pod; `spec` and the container's fields on top."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "app", "image": "busybox", **container}], **(spec or {})},
    }


# -- manifests from the world -----------------------------------------------------------------------------------

NGINX = """
apiVersion: v1
kind: Pod
metadata:
  name: nginx
  labels: {app: nginx, app.kubernetes.io/part-of: shop}
  annotations: {example.com/note: "one\\ntwo"}
spec:
  nodeSelector: {kubernetes.io/os: linux}
  securityContext: {runAsNonRoot: true, runAsUser: 101, fsGroup: 101, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: nginx
    image: nginx:1.27-alpine
    ports:
    - {name: http, containerPort: 8080}
    env:
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: CPUS, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 0}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}}
    envFrom:
    - {prefix: CFG_, configMapRef: {name: settings, optional: true}}
    resources:
      requests: {cpu: 250m, memory: 64Mi}
      limits: {cpu: 1, memory: 128Mi}
    readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 5}
    livenessProbe: {tcpSocket: {port: 8080}, initialDelaySeconds: 15}
    lifecycle: {preStop: {exec: {command: [nginx, -s, quit]}}, stopSignal: SIGQUIT}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}
    volumeMounts:
    - {name: conf, mountPath: /etc/nginx/conf.d, readOnly: true}
    - {name: cache, mountPath: /var/cache/nginx}
    - {name: all, mountPath: /etc/all}
    - {name: data, mountPath: /data, subPath: web/files}
  volumes:
  - name: conf
    configMap: {name: settings, items: [{key: site.conf, path: site.conf, mode: 292}]}
  - {name: cache, emptyDir: {sizeLimit: 100Mi, medium: Memory}}
  - name: all
    projected:
      sources:
      - secret: {name: login}
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
  - {name: data, persistentVolumeClaim: {claimName: shop-data}}
content:
  configMaps: {settings: {data: {site.conf: "server {}"}}}
  secrets: {login: {stringData: {password: hunter2}, data: {user: YW5u}}}
"""

JOB = """
metadata: {generateName: pi-}
spec:
  restartPolicy: OnFailure
  activeDeadlineSeconds: 100
  containers:
  - {name: pi, image: "perl:5.34", command: [perl, -Mbignum=bpi, -wle, "print bpi(2000)"]}
"""

SIDECAR = """
metadata: {name: app, namespace: shop, uid: 0c9e1f0e-1111-4222-8333-123456789abc}
spec:
  initContainers:
  - {name: migrate, image: app, args: [migrate], volumeMounts: [{name: data, mountPath: /data}]}
  - name: logs
    image: fluent/fluent-bit:3.2
    restartPolicy: Always
    startupProbe: {exec: {command: [test, -e, /data/ready]}, failureThreshold: 30}
    volumeMounts: [{name: data, mountPath: /data, subPathExpr: $(POD_NAME)}]
    env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app.kubernetes.io/name']"}}}]
  containers:
  - {name: app, image: app, volumeMounts: [{name: data, mountPath: /data}]}
  volumes: [{name: data, emptyDir: {}}]
"""

DUMP = """
apiVersion: v1
kind: Pod
metadata:
  creationTimestamp: "2026-05-01T10:00:00Z"
  generateName: web-5d9c7b8f6-
  generation: 1
  labels: {app: web, pod-template-hash: 5d9c7b8f6}
  name: web-5d9c7b8f6-x2x7k
  namespace: default
  ownerReferences:
  - {apiVersion: apps/v1, blockOwnerDeletion: true, controller: true, kind: ReplicaSet, name: web-5d9c7b8f6, uid: u-1}
  resourceVersion: "8131"
  uid: 7f1c1f3e-9d58-4f4f-8f33-e9a4a9d6c001
spec:
  containers:
  - image: nginx:1.27
    imagePullPolicy: IfNotPresent
    name: nginx
    ports: [{containerPort: 80, protocol: TCP}]
    resources: {}
    terminationMessagePath: /dev/termination-log
    terminationMessagePolicy: File
    volumeMounts:
    - {mountPath: /var/run/secrets/kubernetes.io/serviceaccount, name: kube-api-access-q7c4l, readOnly: true}
  dnsPolicy: ClusterFirst
  enableServiceLinks: true
  nodeName: worker-1
  preemptionPolicy: PreemptLowerPriority
  priority: 0
  restartPolicy: Always
  schedulerName: default-scheduler
  securityContext: {}
  serviceAccount: default
  serviceAccountName: default
  terminationGracePeriodSeconds: 30
  tolerations:
  - {effect: NoExecute, key: node.kubernetes.io/not-ready, operator: Exists, tolerationSeconds: 300}
  volumes:
  - name: kube-api-access-q7c4l
    projected:
      defaultMode: 420
      sources:
      - serviceAccountToken: {expirationSeconds: 3607, path: token}
      - configMap: {items: [{key: ca.crt, path: ca.crt}], name: kube-root-ca.crt}
      - downwardAPI: {items: [{fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}, path: namespace}]}
status:
  phase: Running
"""


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


# -- the tables -------------------------------------------------------------------------------------------------


def test_every_field_of_kubernetes_is_decided() -> None:
    for name, known in FIELDS.items():
        struct = getattr(pods, name)
        supported = set(shape.struct_fields(struct))
        refused = set(fields.REFUSED.get(struct, ()))
        muted = set(fields.WITHOUT_EFFECT.get(struct, ()))
        assert not supported & refused and not refused & muted, name
        decided = supported | refused | muted | ({"generateName"} if name == "PodMetadata" else set())
        assert decided == set(known), name


def test_the_tables_name_fields_that_exist() -> None:
    for struct, name in [*fields.NOTES, *fields.REFUSED_VALUES, *fields.QUANTITIES, *fields.ZERO_IS_DEFAULT]:
        assert name in {**shape.struct_fields(struct), **fields.REFUSED.get(struct, {}), "sysctls": 0}, (struct, name)


def docs() -> str:
    return (Path(__file__).parents[2] / "docs" / "capsules.md").read_text()


def test_the_docs_have_the_same_table() -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "capsule_fields.py"))
    text = docs()
    assert script["page"](text) == text, "run python scripts/capsule_fields.py"
    for names in FIELDS.values():
        assert all(f"`{name}`" in text for name in names)


def test_the_docs_have_the_same_lists() -> None:
    text = docs()
    sysctls = text.partition("`sysctls` that may be set:")[2].partition(".\n\n")[0]
    assert set(re.findall(r"`([a-z0-9_.]+)`", sysctls)) == fields.SYSCTLS
    default = text.partition("Capabilities that every container has")[2].partition(".\n\n")[0]
    assert set(re.findall(r"`([A-Z_]+)`", default)) == fields.DEFAULT_CAPABILITIES
    rules = dict(re.findall(r"^\| `(capsule:create:\w+)` \|.*\| (\w+) \|$", text, re.MULTILINE))
    for rule, who in rules.items():
        assert policy.allows(ADMIN, rule) == (who == "admins"), rule
        assert not policy.allows(MEMBER, rule)
    named = {rule for rule in policy.ADMIN_RULES | policy.NOBODY_RULES if rule.startswith("capsule:create:")}
    assert set(rules) == named


def test_the_schema_describes_what_is_read() -> None:
    schema = {**manifests.schema(), "components": {"schemas": manifests.components()}}
    validator = Draft202012Validator(schema)
    for text in (NGINX, JOB, SIDECAR, DUMP):
        body = yaml.safe_load(text)
        validator.validate(body)
    assert not validator.is_valid(pod(ports=[{"containerPort": "80"}]))
    assert not validator.is_valid({"metadata": {"name": "a"}})


# -- anything at all --------------------------------------------------------------------------------------------

NAMES = sorted(
    {name for names in FIELDS.values() for name in names} | {"content", "configMaps", "secrets", "stringData"}
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.sampled_from(["", "a", "/a", "1Gi", "Always", "SIGTERM", "\0", "\ud800", "..", "a" * 300]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=5)), inner, max_size=5)
    ),
    max_leaves=25,
)


def read_or_refuse(body: Any) -> None:
    error: ApiError | None = None
    try:
        found = read(body)
    except ApiError as raised:
        error = raised
    if error is None:
        msgspec.json.encode(found)
        return
    assert error.status in (400, 403)
    assert error.detail
    error.body("req-x")


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_any_json_is_read_or_refused(body: Any) -> None:
    read_or_refuse(body)


PLACES = ["spec", "metadata", "content", "container", "volume", "probe", "securityContext"]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from(NAMES), VALUES)
def test_any_value_at_a_real_place_is_read_or_refused(place: str, name: str, value: Any) -> None:
    body = yaml.safe_load(NGINX)
    container = body["spec"]["containers"][0]
    target = {
        "container": container,
        "volume": body["spec"]["volumes"][0],
        "probe": container["readinessProbe"],
        "securityContext": container["securityContext"],
    }.get(place) or body[place]
    target[name] = value
    read_or_refuse(body)
