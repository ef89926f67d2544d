"""The records that containerd's CNI library keeps of the networks it has set up.

It writes one file for each sandbox and network into a folder that all containerds of a machine share, and removes it
when the network is taken away in order. After a crash nobody does.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

_FOLDER = Path("/var/lib/cni/results")


def remove(state: Path, known: set[str]) -> list[str]:
    """Remove the records of sandboxes of the containerd with this state folder, but for the `known` ids.

    Whose a record is, is told by the network namespace in it, which lies in the state folder. Returns the ids.
    """
    mine = f'"{state}/io.containerd.grpc.v1.cri/netns/'
    removed = set()
    for path in _FOLDER.iterdir() if _FOLDER.is_dir() else ():
        with contextlib.suppress(OSError, ValueError, KeyError):
            text = path.read_text()
            sandbox_id = str(json.loads(text)["containerId"]) if mine in text else ""
            if sandbox_id and sandbox_id not in known:
                path.unlink()
                removed.add(sandbox_id)
    return sorted(removed)


def remove_broken(instance: str) -> list[str]:
    """Remove a cloud's records that cannot be read; returns their names. Only while its containerd does not run.

    Whose they are, is told by the name of the network, which begins them: `adapters.bridge.plugin` gives it.

    They are not written at once: whoever is killed meanwhile leaves one that is empty, and with that the network of its
    sandbox could never be taken away. Without a record it can.
    """
    removed = []
    for path in _FOLDER.glob(f"askos-{instance}-*"):
        with contextlib.suppress(OSError):
            try:
                json.loads(path.read_bytes())
            except ValueError:
                path.unlink()
                removed.append(path.name)
    return sorted(removed)
