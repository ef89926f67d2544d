"""What a pod's container that is to run needs next: its image, a (re)start in its own time, care while it runs."""

from __future__ import annotations

from askos.model.errors import InvalidError
from askos.model.images import normalise
from askos.model.pods import Resources
from askos.plan import backoff
from askos.plan.pods import steps
from askos.plan.pods.draft import Draft, Wait
from askos.plan.pods.view import HOOK_FAILED, START_FAILED, Life

CRASH_LOOP = "CrashLoopBackOff"


def tend(draft: Draft, life: Life) -> bool:
    """Look after a live container of the current sandbox. Returns whether it is still being started: its postStart
    hook is not done."""
    view, c = draft.view, life.newest
    assert c is not None, "a live container has an instance"
    end_us = view.now_us + view.grace_us
    if c.state == "unknown":
        # Only ending it makes its state known again.
        draft.terminate(life, view.now_us, f"The runtime lost track of container {life.name}, it will be restarted")
        return False
    if life.outdated and life.kind != "init":
        draft.terminate(life, end_us, f"Container {life.name} definition changed, will be restarted")
        prefetch(draft, life)
        return False
    if life.hook == "failed":
        if life.prior.container_id != c.id or life.prior.reason != HOOK_FAILED:
            draft.warn("FailedPostStartHook", f"PostStartHook failed: {life.hook_error}", life.name)
        draft.waits[life.name] = Wait(HOOK_FAILED, life.hook_error)
        draft.terminate(life, end_us, "FailedPostStartHook")
        return False
    if life.hook == "pending":
        draft.waits[life.name] = Wait()
        draft.add(steps.PostStart(life.name, c.id))
        return True
    probed = view.seen.probes.get(c.id)
    if probed is not None and probed.fatal:
        grace_us = view.grace_us if probed.grace_s is None else probed.grace_s * 1_000_000
        draft.terminate(life, view.now_us + grace_us, f"{probed.fatal}, will be restarted")
    elif life.kind != "init" and _resized(draft, life):
        draft.add(steps.UpdateLimits(life.name, c.id))
    return False


def applied(draft: Draft, life: Life) -> Resources | None:
    """The resources that the present instance was last given; None: nobody remembers."""
    if life.newest is None:
        return None
    known = draft.view.seen.applied.get(life.newest.id)
    if known is None and life.prior.container_id == life.newest.id and life.prior.state == "running":
        known = life.prior.resources
    return known


def _resized(draft: Draft, life: Life) -> bool:
    known = applied(draft, life)
    if known is None:
        # Launched by an agent that was killed before it could report: applying once more does no harm.
        return life.spec.resources != Resources()
    return known != life.spec.resources


def bring(draft: Draft, life: Life, *, hold: bool) -> bool:
    """Get a container that does not run to run; with `hold` only as far as its image. Returns whether it is being
    started: then the next one has to wait, so that containers start in order."""
    view = draft.view
    key = f"container/{life.name}"
    draft.waits[life.name] = Wait()
    if life.end is not None and not life.outdated:
        if life.again and life.prior.reason in (CRASH_LOOP, START_FAILED):
            draft.waits[life.name] = Wait(life.prior.reason, life.prior.message)
        elif not life.again and not _once_more(life):
            # It is shown as it ended until there is more to say.
            del draft.waits[life.name]
        if _backing_off(draft, life):
            return False
    if draft.busy(key):
        return True
    c = life.newest
    if c is not None and c.state == "created" and life.here and not life.outdated:
        if _in_trouble(draft, life):
            return False
        if not hold:
            draft.force(steps.Start(life.name, c.id))
        return True
    ref, pulling = _image(draft, life)
    if ref is None:
        return pulling
    if _in_trouble(draft, life):
        return False
    if life.strays:
        return True
    sandbox, image = view.sandbox, view.seen.images[ref]
    if sandbox is None or not view.seen.ready_volumes or draft.busy("volumes"):
        return True
    if not hold:
        draft.force(steps.Launch(life.name, life.next_attempt, sandbox.id, sandbox.attempt, ref, image.id))
    return True


def prefetch(draft: Draft, life: Life) -> None:
    """Get the image of a container that will run later, and leave what is said about it alone."""
    kept = draft.waits.get(life.name)
    events = list(draft.events)
    _image(draft, life)
    draft.events = events
    draft.waits.pop(life.name, None)
    if kept is not None:
        draft.waits[life.name] = kept


def _backing_off(draft: Draft, life: Life) -> bool:
    view, end = draft.view, life.end
    assert end is not None, "only what has ended waits"
    if _once_more(life):
        return False
    due_us = min(end.finished_us or view.now_us, view.now_us) + backoff.crash_delay_us(life.crashes)
    unstarted = end.reason == "StartError"
    if view.now_us >= due_us:
        if unstarted:
            draft.waits[life.name] = Wait(START_FAILED, end.message)
        return False
    draft.look(due_us)
    pause_s = backoff.crash_delay_us(life.crashes) // 1_000_000
    pod = view.a.name
    message = f"back-off {pause_s}s restarting failed container={life.name} pod={pod}"
    reason = START_FAILED if unstarted else CRASH_LOOP
    draft.waits[life.name] = Wait(reason, end.message if unstarted else message)
    if not (life.prior.state == "waiting" and life.prior.reason == reason and _same_end(life)):
        draft.warn("BackOff", f"Back-off restarting failed container {life.name} in pod {pod}", life.name)
    return True


def _once_more(life: Life) -> bool:
    """Whether it has done its work, and does it again because the sandbox is a new one."""
    return life.kind == "init" and life.succeeded


def _same_end(life: Life) -> bool:
    return (
        life.end is not None and life.prior.last is not None and life.prior.last.container_id == life.end.container_id
    )


def _in_trouble(draft: Draft, life: Life) -> bool:
    """Whether the last try to make or start it failed a short while ago, or for good."""
    view = draft.view
    trouble = view.seen.troubles.get(f"container/{life.name}")
    if trouble is None:
        return False
    wanted = view.seen.spec_hashes.get(life.name, "")
    if trouble.spec_hash and wanted and trouble.spec_hash != wanted:
        return False
    if trouble.final and trouble.reason == START_FAILED and life.end is not None:
        return False  # That is an end, and has been waited for as one.
    if view.now_us >= trouble.retry_us and not (trouble.final and trouble.reason != START_FAILED):
        return False
    if not trouble.final or trouble.reason == START_FAILED:
        draft.look(trouble.retry_us)
    draft.waits[life.name] = Wait(trouble.reason, trouble.message)
    return True


# -- images -----------------------------------------------------------------------------------------------------


def _policy(life: Life, ref: str) -> str:
    if life.spec.image_pull_policy is not None:
        return life.spec.image_pull_policy
    return "Always" if ref.endswith(":latest") and "@" not in ref else "IfNotPresent"


def _image(draft: Draft, life: Life) -> tuple[str | None, bool]:
    """The reference of the image when it is there and fresh enough, else None; and whether it is being pulled."""
    view, name = draft.view, life.name
    image = life.spec.image
    try:
        ref = normalise(image)
    except InvalidError as error:
        if not _waited(life, "InvalidImageName"):
            draft.warn("InspectFailed", error.message, name)
            draft.warn("Failed", "Error: InvalidImageName", name)
        draft.waits[name] = Wait("InvalidImageName", error.message)
        return None, False
    policy = _policy(life, ref)
    there = ref in view.seen.images
    if there and (policy != "Always" or view.seen.pulled.get(name) == life.next_attempt):
        return ref, False
    if policy == "Never":
        message = f'Container image "{image}" is not present with pull policy of Never'
        if not _waited(life, "ErrImageNeverPull"):
            draft.warn("ErrImageNeverPull", message, name)
            draft.warn("Failed", "Error: ErrImageNeverPull", name)
        draft.waits[name] = Wait("ErrImageNeverPull", message)
        return None, False
    key = f"pull/{ref}"
    trouble = view.seen.troubles.get(key)
    if trouble is not None:
        # The first failure is shown as what it is; afterwards that there is a pause is the news.
        wait = Wait(trouble.reason, trouble.message)
        if trouble.failures > 1:
            wait = Wait("ImagePullBackOff", f'Back-off pulling image "{image}": {trouble.reason}: {trouble.message}')
            if not _waited(life, "ImagePullBackOff"):
                draft.tell("BackOff", f'Back-off pulling image "{image}"', name)
        draft.waits[name] = wait
    if draft.busy(key):
        return None, True
    return None, draft.add(steps.PullImage(name, ref, life.next_attempt, policy == "Always"))


def _waited(life: Life, reason: str) -> bool:
    return life.prior.state == "waiting" and life.prior.reason == reason
