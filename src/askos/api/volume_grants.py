"""From a pod's volumes to what it may use of the volume service."""

from __future__ import annotations

from askos.api.shape import Problems
from askos.model.capsules import VolumeGrant
from askos.model.errors import ConflictError, NotFoundError
from askos.model.pods import Pod
from askos.model.volumes import GIB, Volume
from askos.ports.volume_store import VolumeStore


async def grants(pod: Pod, project_id: str, volume_store: VolumeStore) -> list[VolumeGrant]:
    """What every `cinder` (by id) and `persistentVolumeClaim` (by name or id) of a pod stands for in this project.

    Raises ApiError 400 that names each field whose volume is not there for the project. Whether they are free is
    said by the create itself, in its transaction.
    """
    problems = Problems()
    problems.shaped()
    found: list[VolumeGrant] = []
    for i, volume in enumerate(pod.spec.volumes):
        if volume.cinder is not None:
            path, ident, read_only = (
                f"spec.volumes[{i}].cinder.volumeID",
                volume.cinder.volume_id,
                volume.cinder.read_only,
            )
        elif volume.persistent_volume_claim is not None:
            claim = volume.persistent_volume_claim
            path, ident = f"spec.volumes[{i}].persistentVolumeClaim.claimName", claim.claim_name
            read_only = claim.read_only
        else:
            continue
        try:
            meant = await volume_store.volume(ident, project_id)
        except NotFoundError:
            problems.add(path, f"there is no volume {ident} in this project")
            continue
        except ConflictError:
            problems.add(path, f"there are several volumes of the name {ident}; use the id")
            continue
        if volume.cinder is not None and meant.uuid != ident:
            problems.add(path, f"there is no volume with the id {ident}; claims take names, this field does not")
        elif meant.deleted:
            problems.add(path, f"volume {ident} is being deleted")
        else:
            found.append(_grant(meant, volume.name, read_only=read_only))
    problems.raise_any()
    return found


def _grant(volume: Volume, name: str, *, read_only: bool) -> VolumeGrant:
    return VolumeGrant(volume.uuid, name, volume.size_gib * GIB, read_only)
