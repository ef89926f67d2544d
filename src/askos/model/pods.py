"""A pod as Kubernetes' v1 API writes it: the part of its metadata, spec and content that capsules support.

Field names, units and defaults are Kubernetes' (`rename="camel"`), so that a manifest decodes into these structs as
it is. What is not a field here is not supported; `api/manifests.py` refuses it by name before anything is decoded.
Quantities stay strings ("500m", "64Mi") and are read by `plan.quantities`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

RestartRule = Literal["Always", "OnFailure", "Never"]


class _Part(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What all parts of a manifest have in common."""


# -- environment and files --------------------------------------------------------------------------------------


class KeyRef(_Part, frozen=True):
    """One key of a config map or secret."""

    name: str
    key: str
    optional: bool = False


class ObjectRef(_Part, frozen=True):
    """A whole config map or secret."""

    name: str
    optional: bool = False


class FieldRef(_Part, frozen=True):
    """A field of the pod itself, such as metadata.name or status.podIP."""

    field_path: str
    api_version: str = "v1"


class ResourceFieldRef(_Part, frozen=True):
    """A resource of a container; `divisor` is a quantity, results are rounded up."""

    resource: str
    container_name: str = ""
    divisor: str = "1"


class EnvSource(_Part, frozen=True):
    """Where a variable's value comes from: exactly one is set."""

    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None


class EnvVar(_Part, frozen=True):
    """One variable; `value` may refer to earlier ones as $(NAME)."""

    name: str
    value: str = ""
    value_from: EnvSource | None = None


class EnvFrom(_Part, frozen=True):
    """All keys of a config map or secret as variables."""

    prefix: str = ""
    config_map_ref: ObjectRef | None = None
    secret_ref: ObjectRef | None = None


class KeyToPath(_Part, frozen=True):
    """One key as a file; `mode` in decimal, as JSON has no octal."""

    key: str
    path: str
    mode: int | None = None


class ConfigMapVolume(_Part, frozen=True):
    """Files from a config map."""

    name: str = ""
    items: list[KeyToPath] = []
    default_mode: int = 0o644
    optional: bool = False


class SecretVolume(_Part, frozen=True):
    """Files from a secret; kept in memory on the host."""

    secret_name: str = ""
    items: list[KeyToPath] = []
    default_mode: int = 0o644
    optional: bool = False


class DownwardFile(_Part, frozen=True):
    """A field of the pod as a file."""

    path: str
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None
    mode: int | None = None


class DownwardVolume(_Part, frozen=True):
    """Files from the pod's own fields."""

    items: list[DownwardFile] = []
    default_mode: int = 0o644


class ConfigMapProjection(_Part, frozen=True):
    """A config map within a projected volume."""

    name: str = ""
    items: list[KeyToPath] = []
    optional: bool = False


class SecretProjection(_Part, frozen=True):
    """A secret within a projected volume."""

    name: str = ""
    items: list[KeyToPath] = []
    optional: bool = False


class DownwardProjection(_Part, frozen=True):
    """Fields of the pod within a projected volume."""

    items: list[DownwardFile] = []


class Projection(_Part, frozen=True):
    """One source of a projected volume: exactly one is set."""

    config_map: ConfigMapProjection | None = None
    secret: SecretProjection | None = None
    downward_api: DownwardProjection | None = msgspec.field(default=None, name="downwardAPI")


class ProjectedVolume(_Part, frozen=True):
    """Several sources in one folder."""

    sources: list[Projection] = []
    default_mode: int = 0o644


class EmptyDir(_Part, frozen=True):
    """A folder that lives as long as the capsule."""

    medium: Literal["", "Memory"] = ""
    size_limit: str | None = None


class CinderVolume(_Part, frozen=True):
    """A volume of the volume service, by its id."""

    volume_id: str = msgspec.field(name="volumeID")
    fs_type: str = "ext4"
    read_only: bool = False


class ClaimVolume(_Part, frozen=True):
    """A volume of the volume service, by its name (or id) within the project."""

    claim_name: str
    read_only: bool = False


class Volume(_Part, frozen=True):
    """A named volume: exactly one source is set; none means an empty folder."""

    name: str
    empty_dir: EmptyDir | None = None
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    downward_api: DownwardVolume | None = msgspec.field(default=None, name="downwardAPI")
    projected: ProjectedVolume | None = None
    cinder: CinderVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None


class VolumeMount(_Part, frozen=True):
    """Where a container sees a volume."""

    name: str
    mount_path: str
    sub_path: str = ""
    sub_path_expr: str = ""
    read_only: bool = False
    mount_propagation: Literal["None"] = "None"
    recursive_read_only: Literal["Disabled"] = "Disabled"


# -- containers -------------------------------------------------------------------------------------------------


class ContainerPort(_Part, frozen=True):
    """A port that a container listens on. For people and for probes by name; `hostPort` is kept, see docs."""

    container_port: int
    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    host_port: int = 0


class ExecAction(_Part, frozen=True):
    """A command in the container; exit code 0 is good."""

    command: list[str] = []


class HttpHeader(_Part, frozen=True):
    """One header."""

    name: str
    value: str


class HttpGet(_Part, frozen=True):
    """A request; 200 to 399 is good. `port`: a number or the name of a container port."""

    port: int | str
    path: str = "/"
    host: str = ""
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: list[HttpHeader] = []


class TcpSocket(_Part, frozen=True):
    """A connection that opens is good."""

    port: int | str
    host: str = ""


class GrpcAction(_Part, frozen=True):
    """grpc.health.v1 Check; SERVING is good."""

    port: int
    service: str = ""


class SleepAction(_Part, frozen=True):
    """Wait."""

    seconds: int


class Probe(_Part, frozen=True):
    """A check that is repeated: exactly one action is set."""

    exec: ExecAction | None = None
    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    grpc: GrpcAction | None = None
    initial_delay_seconds: int = 0
    period_seconds: int = 10
    timeout_seconds: int = 1
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class Hook(_Part, frozen=True):
    """postStart or preStop: exactly one action is set."""

    exec: ExecAction | None = None
    http_get: HttpGet | None = None
    sleep: SleepAction | None = None


class Lifecycle(_Part, frozen=True):
    """Hooks, and the signal that stops the container."""

    post_start: Hook | None = None
    pre_stop: Hook | None = None
    stop_signal: str | None = None


class Capabilities(_Part, frozen=True):
    """Beyond or below the default set; "ALL" is allowed in `drop`, in `add` by policy only."""

    add: list[str] = []
    drop: list[str] = []


class SeccompProfile(_Part, frozen=True):
    """Unconfined by policy only."""

    type: Literal["RuntimeDefault", "Unconfined"] = "RuntimeDefault"


class SecurityContext(_Part, frozen=True):
    """Of one container; what is set here goes before the pod's."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool | None = None
    privileged: bool = False
    capabilities: Capabilities = Capabilities()
    seccomp_profile: SeccompProfile | None = None
    proc_mount: Literal["Default"] = "Default"


class Sysctl(_Part, frozen=True):
    """One kernel setting of the pod's own namespaces."""

    name: str
    value: str


class PodSecurityContext(_Part, frozen=True):
    """Of all containers."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: list[int] = []
    supplemental_groups_policy: Literal["Merge"] = "Merge"
    fs_group: int | None = None
    fs_group_change_policy: Literal["Always", "OnRootMismatch"] = "Always"
    seccomp_profile: SeccompProfile | None = None
    sysctls: list[Sysctl] = []


class Resources(_Part, frozen=True):
    """Quantities of cpu, memory and ephemeral-storage. A limit without a request is the request too."""

    limits: dict[str, str] = {}
    requests: dict[str, str] = {}


class ResizePolicy(_Part, frozen=True):
    """Whether a change of a resource restarts the container."""

    resource_name: Literal["cpu", "memory"]
    restart_policy: Literal["NotRequired", "RestartContainer"] = "NotRequired"


class Container(_Part, frozen=True):
    """One container. `restartPolicy` "Always" makes an init container a sidecar."""

    name: str
    image: str
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    ports: list[ContainerPort] = []
    env_from: list[EnvFrom] = []
    env: list[EnvVar] = []
    resources: Resources = Resources()
    resize_policy: list[ResizePolicy] = []
    restart_policy: Literal["Always"] | None = None
    volume_mounts: list[VolumeMount] = []
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: Literal["File", "FallbackToLogsOnError"] = "File"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """None: Always for :latest or no tag, else IfNotPresent."""
    security_context: SecurityContext = SecurityContext()
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


# -- the pod ----------------------------------------------------------------------------------------------------


class DnsOption(_Part, frozen=True):
    """One option of resolv.conf."""

    name: str
    value: str | None = None


class DnsConfig(_Part, frozen=True):
    """What is added to (with policy None: instead of) the resolver's settings."""

    nameservers: list[str] = []
    searches: list[str] = []
    options: list[DnsOption] = []


class HostAlias(_Part, frozen=True):
    """One line of /etc/hosts."""

    ip: str
    hostnames: list[str] = []


class LocalRef(_Part, frozen=True):
    """A secret by name."""

    name: str = ""


class PodSpec(_Part, frozen=True):
    """A pod's spec."""

    containers: list[Container]
    init_containers: list[Container] = []
    volumes: list[Volume] = []
    restart_policy: RestartRule = "Always"
    termination_grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"] = "ClusterFirst"
    dns_config: DnsConfig = DnsConfig()
    hostname: str = ""
    subdomain: str = ""
    set_hostname_as_fqdn: bool = msgspec.field(default=False, name="setHostnameAsFQDN")
    host_aliases: list[HostAlias] = []
    share_process_namespace: bool = False
    security_context: PodSecurityContext = PodSecurityContext()
    runtime_class_name: str | None = None
    image_pull_secrets: list[LocalRef] = []
    overhead: dict[str, str] = {}
    node_name: str = ""
    service_account_name: str = ""
    service_account: str = ""
    automount_service_account_token: bool | None = None
    enable_service_links: bool = False
    priority_class_name: str = ""
    priority: int | None = None
    preemption_policy: str = ""
    scheduler_name: str = ""
    tolerations: list[dict[str, str | int]] = []


class PodMetadata(_Part, frozen=True):
    """A pod's metadata. `uid` is the client's: creating again with the same one changes nothing."""

    name: str
    namespace: str = "default"
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Pod(_Part, frozen=True):
    """Metadata and spec; what the user writes."""

    metadata: PodMetadata
    spec: PodSpec


# -- content ----------------------------------------------------------------------------------------------------


class ConfigMap(_Part, frozen=True):
    """A config map's data, as the pod is to see it."""

    data: dict[str, str] = {}
    binary_data: dict[str, bytes] = {}
    """Base64 in JSON."""
    immutable: bool = False


class Secret(_Part, frozen=True):
    """A secret's data (base64 in JSON)."""

    data: dict[str, bytes] = {}
    type: str = "Opaque"
    immutable: bool = False


class Content(_Part, frozen=True):
    """What config maps and secrets become: by name, beside the pod that refers to them. Encrypted at rest."""

    config_maps: dict[str, ConfigMap] = {}
    secrets: dict[str, Secret] = {}


# -- status -----------------------------------------------------------------------------------------------------


class Ended(msgspec.Struct, frozen=True):
    """How a container ended."""

    exit_code: int
    signal: int | None = None
    reason: str = "Completed"
    """Completed, Error, OOMKilled, StartError, DeadlineExceeded, ContainerStatusUnknown ..."""
    message: str = ""
    """The termination message."""
    started_us: int | None = None
    finished_us: int | None = None
    container_id: str = ""


class PodContainerReport(msgspec.Struct, frozen=True):
    """One container of a pod as the agent last saw it."""

    name: str
    state: Literal["waiting", "running", "terminated"] = "waiting"
    reason: str = ""
    """While waiting: ContainerCreating, PodInitializing, CrashLoopBackOff, ErrImagePull ..."""
    message: str = ""
    started_us: int | None = None
    """While running."""
    ended: Ended | None = None
    """While terminated."""
    last: Ended | None = None
    """The end before this life; None before the first restart."""
    ready: bool = False
    started: bool = False
    """The startup probe has passed (and postStart is done), or there is none and it runs."""
    restarts: int = 0
    crashes: int = 0
    """Back-off level: ends in a row without ten minutes of running in between."""
    container_id: str = ""
    image: str = ""
    image_id: str = ""
    resources: Resources = Resources()
    """As applied to the running container."""


class Condition(msgspec.Struct, frozen=True):
    """A pod condition. `changed_us`: when `status` last flipped."""

    type: str
    status: bool
    reason: str = ""
    message: str = ""
    changed_us: int = 0


class PodReport(msgspec.Struct, frozen=True):
    """A pod as its agent last saw it."""

    phase: Literal["Pending", "Running", "Succeeded", "Failed"] = "Pending"
    reason: str = ""
    """Pod-level failure only: DeadlineExceeded, Evicted ..."""
    message: str = ""
    start_us: int | None = None
    """When the agent first saw it; set once."""
    conditions: list[Condition] = []
    init_containers: list[PodContainerReport] = []
    containers: list[PodContainerReport] = []
    host_ip: str = ""


class Event(msgspec.Struct, frozen=True):
    """Something worth telling about a capsule; equal ones (type, reason, message, container) are counted."""

    type: Literal["Normal", "Warning"]
    reason: str
    """CamelCase: Pulling, Pulled, Created, Started, Killing, BackOff, Unhealthy, FailedMount ..."""
    message: str
    container: str = ""
    """The container's name; empty for the whole capsule."""
    at_us: int = 0
    count: int = 1
    first_us: int = 0
