"""Which fields of a Kubernetes v1 Pod (1.35) a capsule takes: the one table that code, docs and tests share.

A field of the structs in `model/pods.py` is supported, unless it is in `WITHOUT_EFFECT`. What is in neither is in
`REFUSED`, with the reason that the user reads. Anything else is not a field of a pod at all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from askos.model import pods

Struct = type[pods._Part]


class Refusal(NamedTuple):
    """Why a field cannot be used. Empty values (null, false, "", 0, [], {}) and those in `passes` say nothing that
    could be missed, and are accepted."""

    why: str
    passes: tuple[Any, ...] = ()
    empty_passes: bool = True
    """Not where an empty value asks for something."""


class Mute(NamedTuple):
    """Why a field has no effect. Empty values and those in `silent` are accepted without a warning."""

    why: str
    silent: tuple[Any, ...] = ()


_ONE_HOST = "the cloud chooses where a capsule runs"
_ISOLATED = "a capsule never shares this with its host"
_OTHER_STORAGE = "only cinder and persistentVolumeClaim volumes of this cloud can be attached"
_NO_LSM = "profiles of the host's security modules cannot be chosen; every container has the default ones"
_LINUX = "capsules run Linux only"
_NO_API_SERVER = "there is no Kubernetes API server behind a capsule that could issue it; put a token into a secret"
_SERVER = "set by the server"

REFUSED: dict[Struct, dict[str, Refusal]] = {
    pods.PodMetadata: {
        "finalizers": Refusal("nothing would wait for them when the capsule is deleted"),
    },
    pods.PodSpec: {
        "affinity": Refusal(_ONE_HOST),
        "ephemeralContainers": Refusal("containers cannot be added to a capsule; use exec for debugging"),
        "hostIPC": Refusal(_ISOLATED),
        "hostNetwork": Refusal("a capsule has a network and an address of its own, never its host's"),
        "hostPID": Refusal(_ISOLATED),
        "hostUsers": Refusal("user namespaces are not supported; leave it out", (True,), empty_passes=False),
        "hostnameOverride": Refusal("use hostname and subdomain"),
        "nodeSelector": Refusal(_ONE_HOST, ({"kubernetes.io/os": "linux"},)),
        "os": Refusal(_LINUX, ({"name": "linux"},)),
        "readinessGates": Refusal("no controller sets conditions of a capsule; use a readinessProbe"),
        "resourceClaims": Refusal("there are no devices to claim"),
        "resources": Refusal("set resources of each container"),
        "schedulingGates": Refusal("a capsule is placed as soon as it is created"),
        "topologySpreadConstraints": Refusal(_ONE_HOST),
        "workloadRef": Refusal("there are no Workload objects"),
    },
    pods.Container: {
        "restartPolicyRules": Refusal("rules by exit code are not supported; the restartPolicy of the pod decides"),
        "volumeDevices": Refusal("volumes are mounted as file systems, never handed over as block devices"),
    },
    pods.Resources: {"claims": Refusal("there are no devices to claim")},
    pods.EnvSource: {"fileKeyRef": Refusal("variables cannot come from files; source the file in the command")},
    pods.Hook: {"tcpSocket": Refusal("it does nothing in Kubernetes either; use exec, httpGet or sleep")},
    pods.SecurityContext: {
        "appArmorProfile": Refusal(_NO_LSM, ({"type": "RuntimeDefault"},)),
        "seLinuxOptions": Refusal(_NO_LSM),
        "windowsOptions": Refusal(_LINUX),
    },
    pods.PodSecurityContext: {
        "appArmorProfile": Refusal(_NO_LSM, ({"type": "RuntimeDefault"},)),
        "seLinuxChangePolicy": Refusal(_NO_LSM, ("MountOption", "Recursive")),
        "seLinuxOptions": Refusal(_NO_LSM),
        "windowsOptions": Refusal(_LINUX),
    },
    pods.SeccompProfile: {"localhostProfile": Refusal("profiles of the host cannot be chosen; use RuntimeDefault")},
    pods.Volume: {
        "awsElasticBlockStore": Refusal(_OTHER_STORAGE),
        "azureDisk": Refusal(_OTHER_STORAGE),
        "azureFile": Refusal(_OTHER_STORAGE),
        "cephfs": Refusal(_OTHER_STORAGE),
        "csi": Refusal(_OTHER_STORAGE),
        "ephemeral": Refusal("volumes are not made from templates; create one and name it, or use emptyDir"),
        "fc": Refusal(_OTHER_STORAGE),
        "flexVolume": Refusal(_OTHER_STORAGE),
        "flocker": Refusal(_OTHER_STORAGE),
        "gcePersistentDisk": Refusal(_OTHER_STORAGE),
        "gitRepo": Refusal("Kubernetes has retired it; clone in an init container into an emptyDir"),
        "glusterfs": Refusal(_OTHER_STORAGE),
        "hostPath": Refusal("folders of the host are never mounted; use emptyDir or a volume"),
        "image": Refusal("images cannot be mounted; copy in an init container into an emptyDir"),
        "iscsi": Refusal(_OTHER_STORAGE),
        "nfs": Refusal(_OTHER_STORAGE),
        "photonPersistentDisk": Refusal(_OTHER_STORAGE),
        "portworxVolume": Refusal(_OTHER_STORAGE),
        "quobyte": Refusal(_OTHER_STORAGE),
        "rbd": Refusal(_OTHER_STORAGE),
        "scaleIO": Refusal(_OTHER_STORAGE),
        "storageos": Refusal(_OTHER_STORAGE),
        "vsphereVolume": Refusal(_OTHER_STORAGE),
    },
    pods.CinderVolume: {"secretRef": Refusal("the cloud itself has the rights on its volumes")},
    pods.Projection: {
        "clusterTrustBundle": Refusal("there are no ClusterTrustBundle objects; use a configMap"),
        "podCertificate": Refusal(_NO_API_SERVER),
        "serviceAccountToken": Refusal(_NO_API_SERVER),
    },
}  # fmt: skip
"""Fields that Kubernetes has and a capsule has not."""

WITHOUT_EFFECT: dict[Struct, dict[str, Mute]] = {
    pods.PodMetadata: {
        "creationTimestamp": Mute(_SERVER),
        "deletionGracePeriodSeconds": Mute("said by the request that deletes"),
        "deletionTimestamp": Mute("said by the request that deletes"),
        "generation": Mute(_SERVER),
        "managedFields": Mute("who changed which field is not tracked"),
        "ownerReferences": Mute("there is no garbage collection by owner; delete the capsule itself"),
        "resourceVersion": Mute(_SERVER),
        "selfLink": Mute(_SERVER),
    },
    pods.PodSpec: {
        "automountServiceAccountToken": Mute("no service account token is mounted, whatever it says", (False,)),
        "enableServiceLinks": Mute("there are no Services that variables could describe", (False,)),
        "nodeName": Mute("it does not choose a host; containers see it as spec.nodeName"),
        "preemptionPolicy": Mute("capsules never preempt each other", ("PreemptLowerPriority",)),
        "priority": Mute("capsules never preempt each other"),
        "priorityClassName": Mute("capsules never preempt each other"),
        "serviceAccount": Mute("the old name of serviceAccountName", ("default",)),
        "serviceAccountName": Mute(
            "no token is issued for it; containers see it as spec.serviceAccountName", ("default",)
        ),
        "schedulerName": Mute("there is one scheduler; other names than default-scheduler are refused",
                              ("default-scheduler",)),
        "tolerations": Mute("hosts have no taints"),
    },
    pods.ContainerPort: {
        "hostIP": Mute("no port of a host is opened"),
        "hostPort": Mute("no port of the host is opened; reach containerPort at the capsule's own address"),
    },
}  # fmt: skip
"""Fields that are accepted, with a warning. Those that are fields of our structs are kept and shown."""

REFUSED_VALUES: dict[tuple[Struct, str], str] = {
    (pods.VolumeMount, "mountPropagation"): "mounts never pass between a host and a capsule",
    (pods.VolumeMount, "recursiveReadOnly"): "only the mount itself can be made read-only",
    (pods.SecurityContext, "procMount"): "/proc is always masked",
    (pods.SeccompProfile, "type"): "profiles of the host cannot be chosen",
    (pods.PodSecurityContext, "supplementalGroupsPolicy"): "groups of the image's own /etc/group are always merged",
    (pods.EmptyDir, "medium"): "huge pages are not supported",
    (pods.Container, "restartPolicy"): "a single container can only be made a sidecar; the pod's own restartPolicy is "
    "for the others",
}
"""Why values of a supported field that Kubernetes has are not among those accepted."""

NOTES: dict[tuple[Struct, str], str] = {
    (pods.PodMetadata, "name"): "or `generateName`, which gets a random ending",
    (pods.PodMetadata, "namespace"): "a word to group capsules by; projects are the walls. Default `default`",
    (pods.PodMetadata, "uid"): "the client's own: creating again with the same one changes nothing",
    (pods.PodSpec, "runtimeClassName"): "one of the runtimes that the hosts have",
    (pods.PodSpec, "dnsPolicy"): "`ClusterFirst`: the name service of the capsule's network",
    (pods.PodSpec, "overhead"): "counted when the capsule is placed",
    (pods.Container, "restartPolicy"): "`Always`, of init containers: a sidecar",
    (pods.Container, "imagePullPolicy"): "default `Always` for `:latest` or no tag, else `IfNotPresent`",
    (pods.Container, "stdin"): "for attach",
    (pods.Resources, "limits"): "cpu, memory, ephemeral-storage",
    (pods.Resources, "requests"): "cpu, memory, ephemeral-storage; default: the limit",
    (pods.SecurityContext, "privileged"): "by policy `capsule:create:privileged`: nobody",
    (
        pods.SecurityContext,
        "allowPrivilegeEscalation",
    ): "`true` by policy `capsule:create:privilege_escalation`: admins",
    (pods.SecurityContext, "procMount"): "`Default` only",
    (pods.Capabilities, "add"): "the default set freely; others by policy `capsule:create:capabilities`: admins; "
    "`ALL` by policy `capsule:create:all_capabilities`: nobody",
    (
        pods.SeccompProfile,
        "type",
    ): "`RuntimeDefault`; `Unconfined` by policy `capsule:create:seccomp_unconfined`: nobody",
    (pods.PodSecurityContext, "sysctls"): "those that concern the pod's own namespaces; see below",
    (pods.PodSecurityContext, "supplementalGroupsPolicy"): "`Merge` only",
    (pods.VolumeMount, "mountPropagation"): "`None` only",
    (pods.VolumeMount, "recursiveReadOnly"): "`Disabled` only",
    (pods.VolumeMount, "subPath"): "relative, without `..`",
    (pods.EmptyDir, "medium"): '`""` (disk) or `Memory`',
    (pods.CinderVolume, "fsType"): "`ext4`",
    (pods.ClaimVolume, "claimName"): "name or id of a volume of the project",
    (pods.Volume, "cinder"): "a volume of the project by its id",
    (pods.Volume, "configMap"): "from `content.configMaps`",
    (pods.Volume, "secret"): "from `content.secrets`; never on a disk of the host",
    (pods.EnvVar, "name"): "any printable ASCII but `=`",
}
"""What the docs say beside a supported field."""

ZERO_IS_DEFAULT: frozenset[tuple[Struct, str]] = frozenset(
    {
        (pods.Probe, "periodSeconds"),
        (pods.Probe, "timeoutSeconds"),
        (pods.Probe, "successThreshold"),
        (pods.Probe, "failureThreshold"),
        (pods.ResourceFieldRef, "divisor"),
    }
)
"""Fields in which Kubernetes takes 0 for "not given"."""

QUANTITIES: frozenset[tuple[Struct, str]] = frozenset(
    {
        (pods.Resources, "limits"),
        (pods.Resources, "requests"),
        (pods.PodSpec, "overhead"),
        (pods.EmptyDir, "sizeLimit"),
        (pods.ResourceFieldRef, "divisor"),
    }
)
"""Fields of quantities: plain numbers are accepted for them, too."""

SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
"""Kubernetes' safe set: they are the pod's own and cannot harm others."""

DEFAULT_CAPABILITIES = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    }
)
CAPABILITIES = DEFAULT_CAPABILITIES | {
    *("AUDIT_CONTROL", "AUDIT_READ", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "DAC_READ_SEARCH", "IPC_LOCK"),
    *("IPC_OWNER", "LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "NET_ADMIN", "NET_BROADCAST", "PERFMON"),
    *("SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM"),
}
