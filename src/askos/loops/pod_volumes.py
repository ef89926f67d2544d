"""A pod's volumes as the host is to make them: what files there are, with which modes, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping

from askos.loops.host_env import HostEnv, facts, pod_of
from askos.model.capsules import Assignment
from askos.model.errors import InvalidError
from askos.model.pods import (
    ConfigMapProjection,
    ConfigMapVolume,
    Content,
    DownwardFile,
    DownwardProjection,
    DownwardVolume,
    EmptyDir,
    KeyToPath,
    Pod,
    ProjectedVolume,
    SecretProjection,
    Volume,
)
from askos.plan import quantities, resources
from askos.plan.environment import Facts, UnresolvedError, field, resource_field
from askos.ports.volumes import File, HostVolume


class MissingContent(InvalidError):
    """A volume needs a config map, a secret, a key or a volume of the volume service that is not there (yet)."""

    code = "missing-content"
    reason = "FailedMount"


def host_volumes(a: Assignment, host: HostEnv) -> list[HostVolume]:
    """Every volume of the pod. Raises MissingContent naming what is not there, InvalidError for unsafe paths."""
    known = facts(a, host)
    return [_volume(volume, a, known) for volume in pod_of(a).spec.volumes]


def read_only(a: Assignment) -> set[str]:
    """The names of the volumes that may only be read, whatever their mounts say: files are the cloud's to write."""
    names = {grant.name for grant in a.volumes if grant.read_only}
    for volume in pod_of(a).spec.volumes:
        cinder, claim = volume.cinder, volume.persistent_volume_claim
        if _is_content(volume) or (cinder and cinder.read_only) or (claim and claim.read_only):
            names.add(volume.name)
    return names


def _is_content(volume: Volume) -> bool:
    sources = (volume.config_map, volume.secret, volume.downward_api, volume.projected)
    return any(source is not None for source in sources)


def _volume(volume: Volume, a: Assignment, known: Facts) -> HostVolume:
    if volume.cinder is not None or volume.persistent_volume_claim is not None:
        return _granted(volume, a)
    if not _is_content(volume):
        return _empty(volume.name, volume.empty_dir or EmptyDir(), known.pod)
    tree = _Tree(volume.name, a.content, known)
    if volume.config_map is not None:
        tree.config_map(volume.config_map, volume.config_map.default_mode)
    elif volume.secret is not None:
        source = volume.secret
        tree.secrets(SecretProjection(source.secret_name, source.items, source.optional), source.default_mode)
    elif volume.downward_api is not None:
        tree.downward(volume.downward_api, volume.downward_api.default_mode)
    elif volume.projected is not None:
        tree.projected(volume.projected)
    return HostVolume(volume.name, "files", files=tree.whole(), secret=tree.secret)


def _empty(name: str, source: EmptyDir, pod: Pod) -> HostVolume:
    limit = quantities.to_bytes(source.size_limit) if source.size_limit is not None else 0
    if source.medium != "Memory":
        return HostVolume(name, "folder", size_bytes=limit)
    # What is written there counts as memory of the pod: a larger one would only be killed later.
    whole = resources.pod_limits(pod).memory_bytes
    return HostVolume(name, "memory", size_bytes=min(filter(None, (limit, whole)), default=0))


def _granted(volume: Volume, a: Assignment) -> HostVolume:
    grant = next((grant for grant in a.volumes if grant.name == volume.name), None)
    if grant is None:
        wanted = volume.cinder.volume_id if volume.cinder else ""
        wanted = volume.persistent_volume_claim.claim_name if volume.persistent_volume_claim else wanted
        raise MissingContent(f"The volume {wanted!r}, which {volume.name!r} stands for, is not there for this capsule.")
    only = volume.name in read_only(a)
    return HostVolume(volume.name, "block", size_bytes=grant.size_bytes, uuid=grant.uuid, read_only=only)


class _Tree:
    """The files of one volume, as they are gathered from its sources. Of two with the same path the later one wins."""

    def __init__(self, volume: str, content: Content, known: Facts) -> None:
        self.secret = False
        """Whether any of it is: then all of it is kept as secrets are."""
        self._volume = volume
        self._content = content
        self._known = known
        self._files: dict[str, File] = {}

    def whole(self) -> list[File]:
        """All files. InvalidError when one of them is a folder of another."""
        for path in self._files:
            parts = path.split("/")
            for depth in range(1, len(parts)):
                folder = "/".join(parts[:depth])
                if folder in self._files:
                    raise InvalidError(f"The volume {self._volume!r} cannot have {folder!r} beside {path!r}.")
        return list(self._files.values())

    def config_map(self, source: ConfigMapVolume | ConfigMapProjection, mode: int) -> None:
        found = self._content.config_maps.get(source.name)
        data: dict[str, bytes] | None = None
        if found is not None:
            data = {key: text.encode() for key, text in found.data.items()} | found.binary_data
        self._keys(f"config map {source.name!r}", data, source, mode)

    def secrets(self, source: SecretProjection, mode: int) -> None:
        self.secret = True
        found = self._content.secrets.get(source.name)
        self._keys(f"secret {source.name!r}", None if found is None else found.data, source, mode)

    def downward(self, source: DownwardVolume | DownwardProjection, mode: int) -> None:
        for item in source.items:
            self._add(item.path, self._text(item).encode(), item.mode, mode)

    def projected(self, source: ProjectedVolume) -> None:
        for part in source.sources:
            if part.config_map is not None:
                self.config_map(part.config_map, source.default_mode)
            elif part.secret is not None:
                self.secrets(part.secret, source.default_mode)
            elif part.downward_api is not None:
                self.downward(part.downward_api, source.default_mode)

    def _keys(
        self,
        what: str,
        data: Mapping[str, bytes] | None,
        source: ConfigMapVolume | ConfigMapProjection | SecretProjection,
        mode: int,
    ) -> None:
        """All keys as files, or the listed ones."""
        if data is None:
            if source.optional:
                return
            raise MissingContent(
                f"The {what}, which the volume {self._volume!r} is made of, is not there. Give it with the capsule's "
                "content."
            )
        for item in source.items or [KeyToPath(key, key) for key in data]:
            value = data.get(item.key)
            if value is not None:
                self._add(item.path, value, item.mode, mode)
            elif not source.optional:
                raise MissingContent(f"The {what} has no key {item.key!r}, which the volume {self._volume!r} holds.")

    def _text(self, item: DownwardFile) -> str:
        where = f"The file {item.path!r} of the volume {self._volume!r}"
        try:
            if item.field_ref is not None:
                return field(item.field_ref, self._known)
            if item.resource_field_ref is not None:
                return resource_field(item.resource_field_ref, self._known)
        except UnresolvedError as error:
            raise MissingContent(f"{where} cannot be written: {error}") from None
        raise MissingContent(f"{where} names neither a field nor a resource.")

    def _add(self, path: str, data: bytes, mode: int | None, default_mode: int) -> None:
        parts = path.split("/")
        # Names that begin with ".." are the layout's own.
        if "\0" in path or parts[0].startswith("..") or any(part in ("", ".", "..") for part in parts):
            raise InvalidError(
                f"The volume {self._volume!r} cannot have a file {path!r}: a path is relative, and has no part that "
                'is empty, ".", ".." or (the first) begins with "..".'
            )
        self._files[path] = File(path, data, default_mode if mode is None else mode)
