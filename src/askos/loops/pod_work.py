"""How the actions of `plan.pods.steps` are performed on a host, and what has to be remembered of them meanwhile."""

from __future__ import annotations

import asyncio
import math
import shutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from askos.loops import assembly, last_words
from askos.loops.probes import Prober
from askos.model.capsules import Assignment
from askos.model.errors import AskosError, NotFoundError, RuntimeFailedError
from askos.model.pods import Container, Event, Resources
from askos.plan import pull_secrets, reconcile, resources
from askos.plan.pods import steps
from askos.ports import runtime as rt
from askos.ports.volumes import HostVolumes

if TYPE_CHECKING:
    from askos.loops.agent import Agent
    from askos.loops.pods import PodWorker

PIDS_MAX = 4096
"""Processes of one capsule."""
HOOK_S = 3600.0
"""The longest that a postStart hook may take. (Kubernetes has no limit.)"""
_LEAST_GRACE_S = 2.0
"""Between stop signal and SIGKILL, also when no grace was given or the preStop hook has used it up."""
_MESSAGES_BYTES = 12 << 10
"""Termination messages of a whole pod."""


class PodTools(msgspec.Struct, frozen=True):
    """What pods need of a host beside the runtime and the network."""

    volumes: HostVolumes
    prober: Prober
    env: assembly.HostEnv


class StartFailedError(RuntimeFailedError):
    """The container was made, but its program could not be started."""

    starting = True


class Work:
    """Performs the actions of one pod."""

    def __init__(self, agent: Agent, tools: PodTools, worker: PodWorker) -> None:
        self._agent = agent
        self._tools = tools
        self._worker = worker
        self.paths: dict[str, str] | None = None
        """Host paths of the volumes, once they are made."""
        self.written_content = 0
        self.hooks: dict[str, str] = {}
        self.messages: dict[str, str] = {}
        self.pulled: dict[str, int] = {}
        self.applied: dict[str, Resources] = {}
        self._pre_stopped: set[str] = set()

    def say(self, kind: Literal["Normal", "Warning"], reason: str, message: str, container: str = "") -> None:
        """Tell an event."""
        self._worker.tell(Event(kind, reason, message, container, at_us=self._agent.clock()))

    def forget(self, living: set[str]) -> None:
        """Drop what is remembered of containers that are gone."""
        for memory in (self.hooks, self.messages, self.applied):
            for container_id in [key for key in memory if key not in living]:
                del memory[container_id]
        self._pre_stopped &= living

    def leftovers(self, uuid: str) -> bool:
        """Whether anything of the capsule is on the host's disk."""
        return self._tools.volumes.present(uuid) or (self._agent.log_root / uuid).exists()

    async def perform(self, a: Assignment, action: steps.Action) -> None:
        """Perform one action. Raises AskosError."""
        runtime = self._agent.runtime
        match action:
            case steps.SetUpVolumes():
                await self._set_up(a)
            case steps.WriteContent(revision):
                await self._write_content(a, revision)
            case steps.RunSandbox(attempt, failed):
                for sandbox_id in failed:
                    await runtime.stop_sandbox(sandbox_id)
                config = assembly.sandbox_config(a, attempt, self._tools.env)
                for omission in assembly.dns_omissions(a, self._tools.env):
                    self.say("Warning", "DNSConfigForming", omission)
                await self._agent.start_sandbox(a, config)
            case steps.PullImage():
                await self._pull(a, action)
            case steps.Launch():
                await self._launch(a, action)
            case steps.Start(name, container_id):
                await self._start(name, container_id)
            case steps.PostStart(name, container_id):
                await self._post_start(a, name, container_id)
            case steps.Terminate():
                await self._terminate(a, action)
            case steps.UpdateLimits(name, container_id):
                await self._update(name, container_id)
            case steps.Remove(_, container_id):
                await runtime.remove_container(container_id)
                self._agent.disown(container_id)
            case steps.StopSandbox(sandbox_id):
                await runtime.stop_sandbox(sandbox_id)
            case steps.RemoveSandbox(sandbox_id):
                await runtime.stop_sandbox(sandbox_id)
                await runtime.remove_sandbox(sandbox_id)
                self._agent.disown(sandbox_id)
            case steps.TearDown():
                await self._tear_down(a)

    # -- volumes and files -------------------------------------------------------------------------------------

    async def _set_up(self, a: Assignment) -> None:
        pod, uuid = self._worker.pod, a.capsule_uuid
        await self._agent.runtime.prepare_group(uuid, PIDS_MAX, _limits(resources.pod_limits(pod)))
        revision = a.content_revision
        volumes = assembly.host_volumes(a, self._tools.env)
        group = pod.spec.security_context.fs_group
        mismatch = pod.spec.security_context.fs_group_change_policy == "OnRootMismatch"
        paths = await self._tools.volumes.set_up(uuid, volumes, group, on_root_mismatch=mismatch)
        for volume in volumes:
            if volume.kind == "files":
                # They may be there from before, with what was in them then.
                await self._tools.volumes.write_files(uuid, volume, group)
        await self._hosts_file(a)
        self.paths, self.written_content = paths, revision

    async def _hosts_file(self, a: Assignment) -> str:
        text = assembly.hosts_text(a, self._tools.env)
        return await self._tools.volumes.file(a.capsule_uuid, "etc-hosts", text.encode())

    async def _write_content(self, a: Assignment, revision: int) -> None:
        group = self._worker.pod.spec.security_context.fs_group
        for volume in assembly.host_volumes(a, self._tools.env):
            if volume.kind == "files":
                await self._tools.volumes.write_files(a.capsule_uuid, volume, group)
        self.written_content = revision

    async def _tear_down(self, a: Assignment) -> None:
        uuid = a.capsule_uuid
        await self._tools.volumes.tear_down(uuid)
        await self._agent.runtime.discard_group(uuid)
        await asyncio.to_thread(shutil.rmtree, self._agent.log_root / uuid, ignore_errors=True)
        self.paths = None

    # -- images ------------------------------------------------------------------------------------------------

    async def _pull(self, a: Assignment, action: steps.PullImage) -> None:
        names = [ref.name for ref in self._worker.pod.spec.image_pull_secrets]
        for problem in pull_secrets.problems(a.content, names):
            self.say("Warning", "FailedToRetrieveImagePullSecret", problem)
        found = pull_secrets.credentials(a.content, names, action.ref)
        tries = [rt.Credential(c.username, c.password, c.identity_token, c.registry_token) for c in found]
        self.say("Normal", "Pulling", f'Pulling image "{action.ref}"', action.container)
        begun = time.monotonic()
        image = await self._pull_with(a, action.ref, [*tries] or [None])
        took_s = time.monotonic() - begun
        size = f"Image size: {image.size_bytes} bytes."
        message = f'Successfully pulled image "{action.ref}" in {took_s:.3g}s. {size}'
        self.say("Normal", "Pulled", message, action.container)
        self.pulled[action.container] = action.attempt

    async def _pull_with(self, a: Assignment, ref: str, tries: Sequence[rt.Credential | None]) -> rt.Image:
        runtime, rights = self._agent.runtime, self._agent.image_rights
        before = await runtime.image(ref)
        failure: AskosError | None = None
        for credential in tries:
            try:
                image = await runtime.pull(ref, credential=credential)
            except (NotFoundError, RuntimeFailedError) as error:
                failure = error
                continue
            there = before is not None and before.id == image.id
            await rights.fetched(ref, image.id, a.project_id, login=credential is not None, was_there=there)
            return image
        assert failure is not None, "there is always one try"
        raise failure

    # -- containers --------------------------------------------------------------------------------------------

    def _spec(self, name: str) -> Container:
        return next(c for c in self._worker.containers() if c.name == name)

    async def _launch(self, a: Assignment, action: steps.Launch) -> None:
        uuid, spec = a.capsule_uuid, self._spec(action.container)
        if self.paths is None:
            raise RuntimeFailedError("The volumes are not ready yet.")
        volumes = self._tools.volumes
        hosts_file = await self._hosts_file(a)
        message_file = await volumes.message_file(uuid, spec.name, action.attempt)
        sub_paths: dict[tuple[str, str], str] = {}
        for volume, path in assembly.sub_paths(a, spec, self._tools.env):
            sub_paths[volume, path] = await volumes.sub_path(uuid, volume, path, spec.name)
        image = self._worker.seen.images.get(action.image_ref)
        config = assembly.container_config(
            a,
            spec,
            action.attempt,
            action.image_id,
            image.user if image else "",
            host=self._tools.env,
            volume_paths=self.paths,
            sub_path=lambda volume, path: sub_paths[volume, path],
            hosts_file=hosts_file,
            message_file=message_file,
        )
        skipped = assembly.skipped_names(a, spec, self._tools.env)
        if skipped:
            message = f"Keys [{', '.join(skipped)}] were skipped since they are no names of variables."
            self.say("Warning", "InvalidEnvironmentVariableNames", message, spec.name)
        if self.pulled.get(spec.name) != action.attempt:
            present = f'Container image "{spec.image}" already present on machine'
            self.say("Normal", "Pulled", present, spec.name)
        config = msgspec.structs.replace(config, cpus=self._agent.cores.shared)
        sandbox = assembly.sandbox_config(a, action.sandbox_attempt, self._tools.env)
        made = await self._agent.runtime.create_container(action.sandbox_id, config, sandbox)
        # Known before it starts: it may end before anybody looks again.
        self._agent.own(made, uuid)
        self.applied[made] = spec.resources
        self.say("Normal", "Created", f"Created container {spec.name}", spec.name)
        await self._start(spec.name, made)

    async def _start(self, name: str, container_id: str) -> None:
        try:
            async with self._agent.starts:
                await self._agent.runtime.start_container(container_id)
        except RuntimeFailedError as error:
            raise StartFailedError(error.message, retryable=error.retryable) from error
        self.say("Normal", "Started", f"Started container {name}", name)

    async def _post_start(self, a: Assignment, name: str, container_id: str) -> None:
        spec = self._spec(name)
        hook = spec.lifecycle.post_start if spec.lifecycle else None
        failure = "" if hook is None else await self._hook(a, spec, container_id, hook, HOOK_S)
        self.hooks[container_id] = failure

    async def _hook(self, a: Assignment, spec: Container, container_id: str, hook: object, timeout_s: float) -> str:
        ready = [s for s in self._worker.seen.sandboxes if s.ready]
        if not ready:
            return "the sandbox is gone"
        pod_ip = a.ports[0].address if a.ports else "127.0.0.1"
        prober = self._tools.prober
        return await prober.hook(ready[-1].id, pod_ip, container_id, spec, hook, timeout_s)  # type: ignore[arg-type]

    async def _terminate(self, a: Assignment, action: steps.Terminate) -> None:
        spec, container_id = self._spec(action.container), action.container_id
        hook = spec.lifecycle.pre_stop if spec.lifecycle else None
        left_s = self._left_s(action)
        if action.pre_stop and hook is not None and left_s > 0 and container_id not in self._pre_stopped:
            self._pre_stopped.add(container_id)
            failure = await self._hook(a, spec, container_id, hook, left_s)
            if failure:
                self.say("Warning", "FailedPreStopHook", f"PreStopHook failed: {failure}", spec.name)
            left_s = self._left_s(action)
        signal = spec.lifecycle.stop_signal if spec.lifecycle else None
        await self._agent.runtime.stop_container(container_id, math.ceil(max(left_s, _LEAST_GRACE_S)), signal)

    def _left_s(self, action: steps.Terminate) -> float:
        return max(0.0, (action.deadline_us - self._agent.clock()) / 1e6)

    async def _update(self, name: str, container_id: str) -> None:
        spec = self._spec(name)
        a, runtime = self._worker.assignment, self._agent.runtime
        whole = _limits(resources.pod_limits(self._worker.pod))
        # A container may not have more than its group, nor a group less than what is in it: open, change, close.
        opened = msgspec.structs.replace(whole, cpu_quota_us=0, memory_bytes=0)
        await runtime.prepare_group(a.capsule_uuid, PIDS_MAX, opened)
        await runtime.update_limits(container_id, assembly.container_limits(a, spec, self._tools.env))
        await runtime.prepare_group(a.capsule_uuid, PIDS_MAX, whole)
        self.applied[container_id] = spec.resources

    async def message(self, a: Assignment, spec: Container, ended: reconcile.Container, of: int) -> str:
        """The termination message of an ended container."""
        limit = _MESSAGES_BYTES // max(of, 1)
        data = (await self._tools.volumes.message(a.capsule_uuid, spec.name, ended.attempt))[:limit]
        failed = ended.exit_code != 0
        if not data and failed and spec.termination_message_policy == "FallbackToLogsOnError":
            path = self._agent.log_root / a.capsule_uuid / spec.name / f"{ended.attempt}.log"
            data = (await asyncio.to_thread(last_words.tail, path))[-limit:]
        return data.decode(errors="replace")


def _limits(found: resources.Limits) -> rt.Limits:
    return rt.Limits(
        cpu_shares=found.cpu_shares,
        cpu_quota_us=found.cpu_quota_us,
        cpu_period_us=found.cpu_period_us,
        memory_bytes=found.memory_bytes,
        oom_score_adj=found.oom_score_adj,
    )
