"""`askos down`: stop everything of a cloud on this machine, and leave nothing of it behind but its data.

Works from any state: running, killed, half started. Containers are stopped as by `askos stop`, so that the next
`askos up` finds them Stopped (or starts them, where their restart policy says so).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Callable

from askos.adapters.containerd.cgroups import remove_cgroups
from askos.adapters.containerd.teardown import shims
from askos.model.errors import AskosError, SetupError
from askos.ports.network import Attachment
from askos.programs import locks
from askos.programs.agent import Host
from askos.settings import Settings

_log = logging.getLogger(__name__)

GRACE_S = 10


async def down(settings: Settings, step: Callable[[str], None]) -> bool:
    """Stop the cloud of a data folder. Returns whether there was anything to stop."""
    if not settings.data.is_dir() or not (settings.data / "instance").exists():
        return False
    if os.geteuid() != 0:
        raise SetupError("Askos must be root to stop containers. Try again with sudo.")
    was_running = False
    for path in (settings.paths.lock, settings.data / "server.lock"):
        pid = locks.holder(path)
        if pid is not None:
            was_running = True
            step(f"stopping Askos (process {pid})")
            await _end(pid)
    host = Host(settings)
    if host.containerd is not None:
        was_running |= await _stop_capsules(host, step)
        await host.containerd.stop()
    else:
        await _drop_prepared(host)
    with contextlib.suppress(AskosError):
        await host.network.start(_nobody)
        await host.network.stop()
    await host.network.remove_all()
    await _quietly(host.volumes.unmount_all())
    remove_cgroups(host.instance)
    shutil.rmtree(settings.paths.run, ignore_errors=True)
    locks.withdraw(host.instance)
    return was_running


async def _nobody(_capsule_uuid: str) -> Attachment | None:
    return None


async def _end(pid: int) -> None:
    """SIGTERM, and SIGKILL if it has not gone after a while."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        for _ in range(200):
            await asyncio.sleep(0.05)
            os.kill(pid, 0)
        _log.warning("process %d does not stop; killing it", pid)
        os.kill(pid, signal.SIGKILL)
        for _ in range(100):
            await asyncio.sleep(0.05)
            os.kill(pid, 0)


async def _stop_capsules(host: Host, step: Callable[[str], None]) -> bool:
    assert host.containerd is not None
    alive = host.containerd.running() is not None
    if not alive and not shims(host.containerd.socket):
        return False
    try:
        # The plugin must answer while sandboxes are taken down.
        await host.network.start(_nobody)
        await host.start_runtime()
        await _quietly(host.runtime.prepare(0))
        sandboxes, containers = await host.runtime.observe()
        running = [c for c in containers if c.state in ("running", "unknown")]
        if running:
            step(f"stopping {len(running)} container{'s' if len(running) != 1 else ''}")
        await asyncio.gather(*(_quietly(host.runtime.stop_container(c.id, GRACE_S)) for c in running))
        # Also those that are not ready: half made, they may have a network.
        await asyncio.gather(*(_quietly(host.runtime.stop_sandbox(s.id)) for s in sandboxes))
    except AskosError as error:
        _log.warning("could not stop capsules in order: %s", error)
    finally:
        with contextlib.suppress(Exception):
            await host.runtime.close()
        with contextlib.suppress(AskosError):
            await host.network.stop()
    return True


async def _drop_prepared(host: Host) -> None:
    """Somebody else's containerd goes on with the capsules in it, but not with sandboxes that nobody has taken."""
    try:
        await host.network.start(_nobody)
        await host.runtime.prepare(0)
    except AskosError as error:
        _log.warning("could not remove the sandboxes made in advance: %s", error)
    finally:
        with contextlib.suppress(Exception):
            await host.runtime.close()
        with contextlib.suppress(AskosError):
            await host.network.stop()


async def _quietly(work: object) -> None:
    try:
        await work  # type: ignore[misc]
    except AskosError as error:
        _log.warning("%s", error)
