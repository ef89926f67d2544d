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
