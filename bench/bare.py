"""The same three CRI calls that a start makes, from a bare synchronous gRPC client.

The pod's uid is that of a container made with run=false, so that our CNI plugin finds its port and the network work
is the same on both sides. Without our labels the agent leaves the sandbox alone.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import grpc
from cri_api.v1 import api_pb2 as cri
from cri_api.v1.api_pb2_grpc import RuntimeServiceStub


class Bare:
    """A client of a containerd socket."""

    def __init__(self, socket: Path, image_id: str) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self._runtime = RuntimeServiceStub(self._channel)
        self._image = image_id
        self._sandbox = ""

    def start(self, pod_uid: str, cgroup_parent: str, logs: Path, config: dict[str, Any]) -> float:
        """Seconds from the first call to the answer of the last."""
        security = {"security_context": config["sandbox_security"]}
        sandbox = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=pod_uid, uid=pod_uid, namespace="bench", attempt=0),
            hostname="bench",
            log_directory=str(logs),
            dns_config=cri.DNSConfig(servers=["127.0.0.1"]),
            linux=cri.LinuxPodSandboxConfig(cgroup_parent=cgroup_parent, **security),
        )
        container = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="main", attempt=0),
            image=cri.ImageSpec(image=self._image),
            args=["sleep", "100000"],
            log_path=f"{uuid.uuid4()}.log",
            linux=cri.LinuxContainerConfig(
                resources=cri.LinuxContainerResources(cpu_shares=1024, memory_limit_in_bytes=512 << 20),
                security_context=config["container_security"],
            ),
        )
        begun = time.perf_counter()
        self._sandbox = self._runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=sandbox), timeout=60).pod_sandbox_id
        request = cri.CreateContainerRequest(pod_sandbox_id=self._sandbox, config=container, sandbox_config=sandbox)
        made = self._runtime.CreateContainer(request, timeout=60).container_id
        self._runtime.StartContainer(cri.StartContainerRequest(container_id=made), timeout=60)
        return time.perf_counter() - begun

    def remove(self) -> None:
        """Take the last one away."""
        self._runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=self._sandbox), timeout=60)
        self._runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=self._sandbox), timeout=60)

    def close(self) -> None:
        self._channel.close()


def security() -> dict[str, Any]:
    """The same walls as Askos': default seccomp, no new privileges, namespaces of its own."""
    profile = cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)
    return {
        "sandbox_security": cri.LinuxSandboxSecurityContext(seccomp=profile),
        "container_security": cri.LinuxContainerSecurityContext(seccomp=profile, no_new_privs=True),
    }
