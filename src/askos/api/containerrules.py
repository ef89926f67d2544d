"""What must hold in the containers of a pod beyond their types. Rules and manner as in `podrules.py`."""

from __future__ import annotations

import re
import signal

from askos.api import fields, podrules, syntax
from askos.api.shape import Problems, clip
from askos.model import pods
from askos.model.identity import Caller

SIGNALS = frozenset(s.name for s in signal.Signals) - {"SIGRTMIN", "SIGRTMAX"}
_HEADER = re.compile(r"[-A-Za-z0-9]+", re.ASCII)
_LONGEST = 2**31 - 1


def check_containers(spec: pods.PodSpec, volumes: set[str], problems: Problems, caller: Caller) -> None:
    """All containers of a pod; `volumes`: the names of its volumes."""
    if not spec.containers:
        problems.add("spec.containers", "at least one is needed")
    if why := podrules.too_many(len(spec.init_containers) + len(spec.containers)):
        problems.add("spec.containers", why)
        return
    every = {c.name for c in (*spec.init_containers, *spec.containers)}
    seen: set[str] = set()
    for word, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for i, container in enumerate(containers):
            check = _Check(container, f"spec.{word}[{i}]", problems)
            check.tell("name", syntax.dns_label(container.name) if container.name else "it is required")
            if container.name and container.name in seen:
                check.tell("name", f"there are several containers {clip(container.name)}")
            seen.add(container.name)
            check.basics()
            check.ports()
            check.environment(every)
            check.resources()
            check.mounts(volumes)
            check.security(caller)
            check.hooks(spec.termination_grace_period_seconds)
            if word == "containers":
                if container.restart_policy is not None:
                    check.tell(
                        "restartPolicy", "only of init containers; the pod's own restartPolicy is for the others"
                    )
                check.probes()
            elif container.restart_policy == "Always":
                check.probes()
            else:
                check.no_probes()


class _Check:
    """The rules of one container."""

    def __init__(self, container: pods.Container, path: str, problems: Problems) -> None:
        self._c = container
        self._path = path
        self._problems = problems
        self._port_names = {port.name for port in container.ports if port.name}

    def tell(self, where: str, why: str) -> None:
        """A problem at a place within the container, if there is one."""
        if why:
            self._problems.add(f"{self._path}.{where}", why)

    def choice(self, where: str, why: str) -> None:
        """A problem with which parts are given."""
        self._problems.add_choice(f"{self._path}.{where}", why)

    def basics(self) -> None:
        """The image, and what stands alone."""
        c = self._c
        if not c.image:
            self.tell("image", "it is required")
        elif c.image != c.image.strip():
            self.tell("image", "it begins or ends with a space")
        if c.working_dir:
            self.tell("workingDir", syntax.absolute(c.working_dir))
        self.tell("terminationMessagePath", syntax.absolute(c.termination_message_path))
        if c.termination_message_path.endswith("/"):
            self.tell("terminationMessagePath", "it must be a file")
        seen: set[str] = set()
        for i, policy in enumerate(c.resize_policy):
            if policy.resource_name in seen:
                self.tell(f"resizePolicy[{i}].resourceName", f"there are several policies for {policy.resource_name}")
            seen.add(policy.resource_name)

    def ports(self) -> None:
        """Numbers, and names that are unique."""
        seen: set[str] = set()
        for i, port in enumerate(self._c.ports):
            self.tell(f"ports[{i}].containerPort", syntax.between(port.container_port, 1, 65535))
            if port.host_port:
                self.tell(f"ports[{i}].hostPort", syntax.between(port.host_port, 1, 65535))
            if port.name:
                self.tell(f"ports[{i}].name", syntax.port_name(port.name))
                if port.name in seen:
                    self.tell(f"ports[{i}].name", f"there are several ports {clip(port.name)}")
                seen.add(port.name)

    def environment(self, containers: set[str]) -> None:
        """Names and sources of variables."""
        for i, source in enumerate(self._c.env_from):
            at = f"envFrom[{i}]"
            if source.prefix:
                self.tell(f"{at}.prefix", syntax.variable(source.prefix))
            if (source.config_map_ref is None) == (source.secret_ref is None):
                self.choice(at, "exactly one of configMapRef and secretRef is needed")
            for word, whole in (("configMapRef", source.config_map_ref), ("secretRef", source.secret_ref)):
                if whole is not None:
                    self.tell(f"{at}.{word}.name", syntax.subdomain(whole.name) if whole.name else "it is required")
        for i, variable in enumerate(self._c.env):
            self.tell(f"env[{i}].name", syntax.variable(variable.name))
            if variable.value_from is not None:
                if variable.value:
                    self.tell(f"env[{i}]", "value and valueFrom exclude each other")
                self._source(variable.value_from, f"env[{i}].valueFrom", containers)

    def _source(self, source: pods.EnvSource, at: str, containers: set[str]) -> None:
        parts = (source.config_map_key_ref, source.secret_key_ref, source.field_ref, source.resource_field_ref)
        if sum(part is not None for part in parts) != 1:
            self.choice(at, "exactly one of configMapKeyRef, secretKeyRef, fieldRef and resourceFieldRef is needed")
        for word, ref in (("configMapKeyRef", source.config_map_key_ref), ("secretKeyRef", source.secret_key_ref)):
            if ref is not None:
                self.tell(f"{at}.{word}.name", syntax.subdomain(ref.name) if ref.name else "it is required")
                self.tell(f"{at}.{word}.key", syntax.config_key(ref.key))
        if source.field_ref is not None:
            where = f"{self._path}.{at}.fieldRef"
            podrules.check_field(source.field_ref, where, podrules.ENV_FIELDS, self._problems)
        if source.resource_field_ref is not None:
            where = f"{self._path}.{at}.resourceFieldRef"
            podrules.check_resource_field(source.resource_field_ref, where, containers, self._problems)

    def resources(self) -> None:
        """Quantities of what there is; no request above its limit."""
        limits = {}
        for word, given in (("limits", self._c.resources.limits), ("requests", self._c.resources.requests)):
            for resource, text in given.items():
                at = f"resources.{word}[{clip(resource)}]" if not resource.isalnum() else f"resources.{word}.{resource}"
                unknown = podrules.unknown_resource(resource)
                value, why = (None, unknown) if unknown else syntax.quantity(text)
                self.tell(at, why)
                if word == "limits" and value is not None:
                    limits[resource] = value
                elif value is not None and resource in limits and value > limits[resource]:
                    most = clip(self._c.resources.limits[resource])
                    self.tell(at, f"{clip(text)} is more than the limit of {most}")

    def mounts(self, volumes: set[str]) -> None:
        """Volumes that exist, at places that are their own."""
        seen: set[str] = set()
        for i, mount in enumerate(self._c.volume_mounts):
            at = f"volumeMounts[{i}]"
            if mount.name not in volumes:
                there = ", ".join(sorted(v for v in volumes if v)) or "none"
                there = there if len(there) < 200 else there[:200] + "..."
                self.tell(f"{at}.name", f"there is no volume {clip(mount.name)}; there are: {there}")
            place, why = podrules.mount_path(mount.mount_path)
            self.tell(f"{at}.mountPath", why)
            if place in seen:
                self.tell(f"{at}.mountPath", f"several volumes are to be mounted at {clip(place)}")
            seen.add(place)
            self.tell(f"{at}.subPath", syntax.relative(mount.sub_path))
            self.tell(f"{at}.subPathExpr", syntax.relative(mount.sub_path_expr))
            if mount.sub_path and mount.sub_path_expr:
                self.tell(f"{at}.subPathExpr", "subPath and subPathExpr exclude each other")

    def security(self, caller: Caller) -> None:
        """What needs the right of policy."""
        context, at = self._c.security_context, f"{self._path}.securityContext"
        forbid = self._problems.forbid
        podrules.check_security(context, at, self._problems, caller)
        if context.privileged:
            why = "a privileged container can do everything on its host"
            forbid(caller, f"{at}.privileged", "capsule:create:privileged", why)
        if context.allow_privilege_escalation:
            why = "programs could gain more rights than they were started with"
            forbid(caller, f"{at}.allowPrivilegeEscalation", "capsule:create:privilege_escalation", why)
        elif context.allow_privilege_escalation is False and context.privileged:
            self.tell("securityContext.allowPrivilegeEscalation", "it cannot be false while privileged is true")
        for word, names in (("add", context.capabilities.add), ("drop", context.capabilities.drop)):
            for i, name in enumerate(names):
                place = f"capabilities.{word}[{i}]"
                plain = name.upper().removeprefix("CAP_")
                if name != "ALL" and name not in fields.CAPABILITIES:
                    hint = f"; write {plain}" if plain in fields.CAPABILITIES or plain == "ALL" else ""
                    self.tell(f"securityContext.{place}", f"{clip(name)} is not the name of a capability{hint}")
                elif word == "add" and name == "ALL":
                    forbid(caller, f"{at}.{place}", "capsule:create:all_capabilities", "ALL is root on the host")
                elif word == "add" and name not in fields.DEFAULT_CAPABILITIES:
                    why = f"{name} is beyond the default set"
                    forbid(caller, f"{at}.{place}", "capsule:create:capabilities", why)

    # -- probes and hooks --------------------------------------------------------------------------------------

    def no_probes(self) -> None:
        """An init container that is no sidecar."""
        c, why = self._c, "only of sidecars (restartPolicy Always) and app containers"
        for word, part in (
            ("livenessProbe", c.liveness_probe),
            ("readinessProbe", c.readiness_probe),
            ("startupProbe", c.startup_probe),
        ):
            if part is not None:
                self.tell(word, why)
        if c.lifecycle is not None and (c.lifecycle.post_start is not None or c.lifecycle.pre_stop is not None):
            self.tell("lifecycle", why)

    def probes(self) -> None:
        """All three."""
        self._probe("livenessProbe", self._c.liveness_probe)
        self._probe("readinessProbe", self._c.readiness_probe)
        self._probe("startupProbe", self._c.startup_probe)

    def _probe(self, word: str, probe: pods.Probe | None) -> None:
        if probe is None:
            return
        actions = (probe.exec, probe.http_get, probe.tcp_socket, probe.grpc)
        if sum(action is not None for action in actions) != 1:
            self.choice(word, "exactly one of exec, httpGet, tcpSocket and grpc is needed")
        self._exec(f"{word}.exec", probe.exec)
        self._http(f"{word}.httpGet", probe.http_get)
        if probe.tcp_socket is not None:
            self._port(f"{word}.tcpSocket.port", probe.tcp_socket.port)
            self.tell(f"{word}.tcpSocket.host", syntax.one_line(probe.tcp_socket.host))
        if probe.grpc is not None:
            self._port(f"{word}.grpc.port", probe.grpc.port)
            self.tell(f"{word}.grpc.service", syntax.one_line(probe.grpc.service))
        for name, number, least in (
            ("initialDelaySeconds", probe.initial_delay_seconds, 0),
            ("periodSeconds", probe.period_seconds, 1),
            ("timeoutSeconds", probe.timeout_seconds, 1),
            ("successThreshold", probe.success_threshold, 1),
            ("failureThreshold", probe.failure_threshold, 1),
        ):
            self.tell(f"{word}.{name}", syntax.between(number, least, _LONGEST))
        if word != "readinessProbe" and probe.success_threshold > 1:
            self.tell(f"{word}.successThreshold", "it must be 1; only a readinessProbe can ask for more")
        grace = probe.termination_grace_period_seconds
        if grace is not None:
            why = "a readinessProbe ends no container" if word == "readinessProbe" else ""
            self.tell(f"{word}.terminationGracePeriodSeconds", why or syntax.between(grace, 1, _LONGEST))

    def _exec(self, at: str, action: pods.ExecAction | None) -> None:
        if action is not None and not action.command:
            self.tell(f"{at}.command", "it is required")

    def _http(self, at: str, action: pods.HttpGet | None) -> None:
        if action is None:
            return
        self._port(f"{at}.port", action.port)
        self.tell(f"{at}.path", syntax.one_line(action.path))
        self.tell(f"{at}.host", syntax.one_line(action.host))
        for i, header in enumerate(action.http_headers):
            if not _HEADER.fullmatch(header.name):
                self.tell(f"{at}.httpHeaders[{i}].name", f"{clip(header.name)} is not the name of a header")
            self.tell(f"{at}.httpHeaders[{i}].value", syntax.one_line(header.value))

    def _port(self, at: str, port: int | str) -> None:
        if isinstance(port, int):
            self.tell(at, syntax.between(port, 1, 65535))
        elif why := syntax.port_name(port):
            self.tell(at, why + ("; write the number without quotes" if port.isdigit() else ""))
        elif port not in self._port_names:
            self.tell(at, f"the container has no port named {clip(port)}")

    def hooks(self, grace_s: int) -> None:
        """postStart, preStop and the stop signal."""
        lifecycle = self._c.lifecycle
        if lifecycle is None:
            return
        for word, hook in (("postStart", lifecycle.post_start), ("preStop", lifecycle.pre_stop)):
            if hook is None:
                continue
            at = f"lifecycle.{word}"
            if sum(action is not None for action in (hook.exec, hook.http_get, hook.sleep)) != 1:
                self.choice(at, "exactly one of exec, httpGet and sleep is needed")
            self._exec(f"{at}.exec", hook.exec)
            self._http(f"{at}.httpGet", hook.http_get)
            if hook.sleep is not None and not 0 <= hook.sleep.seconds <= grace_s:
                why = f"{hook.sleep.seconds} must be 0 to {grace_s} (terminationGracePeriodSeconds)"
                self.tell(f"{at}.sleep.seconds", why)
        if lifecycle.stop_signal is not None and lifecycle.stop_signal not in SIGNALS:
            self.tell(
                "lifecycle.stopSignal", f"{clip(lifecycle.stop_signal)} is not the name of a signal such as SIGTERM"
            )
