"""Manifests as they are written in the world, and short ways to read one or see why it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from askos.api import manifests
from askos.api.errors import ApiError
from askos.model.identity import Caller

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
