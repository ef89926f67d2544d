"""From a pod to what the runtime is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from askos.loops import assembly, host_env
from askos.loops.assembly import (
    ConfigError,
    HostEnv,
    MissingContent,
    dns_omissions,
    hosts_text,
    sandbox_config,
    spec_hash,
    sub_paths,
)
from askos.model.capsules import Assignment, CapsuleSpec, Network, Port, VolumeGrant, Wish
from askos.model.errors import InvalidError
from askos.model.pods import Container, Content, Pod
from askos.ports import runtime as rt
from askos.ports.volumes import File, HostVolume

UUID = "6f0d8a4e-0000-4000-8000-000000000001"
HOST = HostEnv("192.0.2.1", "host-1", 4, 16 << 30, ["127.0.0.53", "192.0.2.53"], ["corp.example"], "abc123")
CONTENT = {
    "configMaps": {"web": {"data": {"index.html": "hello", "conf": "x=1"}, "binaryData": {"logo": "/w=="}}},
    "secrets": {"db": {"data": {"password": "aHVzaA=="}}},
}


def assignment(
    spec: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, grants: list[VolumeGrant] | None = None
) -> Assignment:
    """`spec`: as in a manifest; containers may be left out."""
    written = {
        "metadata": {"name": "web-0", "namespace": "shop", **(metadata or {})},
        "spec": {"containers": [{"name": "main", "image": "busybox"}], **(spec or {})},
    }
    network = Network("n", "p", "private", "10.0.0.0/24", "10.0.0.1", "s")
    return Assignment(
        capsule_uuid=UUID,
        project_id="p",
        name="web-0",
        epoch=1,
        spec=CapsuleSpec(pod=msgspec.convert(written, Pod)),
        wish=Wish("running"),
        ports=[Port("t", "n", UUID, "10.0.0.5", "aa:bb:cc:dd:ee:ff")],
        networks=[network],
        kind="capsule",
        volumes=grants or [],
        content=msgspec.json.decode(msgspec.json.encode(CONTENT), type=Content),
    )


def container(a: Assignment, **kwargs: Any) -> rt.ContainerConfig:
    """The config of the pod's first container."""
    assert a.spec.pod is not None
    settings: dict[str, Any] = {
        "host": HOST,
        "volume_paths": {volume.name: f"/vol/{volume.name}" for volume in a.spec.pod.spec.volumes},
        "sub_path": lambda volume, path: f"/sub/{volume}/{path}",
        "hosts_file": "/f/hosts",
        "message_file": "/f/message",
        **kwargs,
    }
    user = settings.pop("image_user", "")
    return assembly.container_config(a, a.spec.pod.spec.containers[0], 3, "sha256:1", user, **settings)


def main(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "main", "image": "busybox", **fields}]}


# -- the sandbox ------------------------------------------------------------------------------------------------


def test_a_plain_sandbox() -> None:
    assert sandbox_config(assignment(), 2, HOST) == rt.SandboxConfig(
        capsule_uuid=UUID,
        name="web-0",
        project_id="p",
        attempt=2,
        hostname="web-0",
        dns_servers=["10.0.0.1"],
        cgroup_parent=f"/askos-abc123/{UUID}",
    )


def test_what_a_sandbox_is_told() -> None:
    spec = {
        "shareProcessNamespace": True,
        "runtimeClassName": "runsc",
        "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "512"}]},
    }
    config = sandbox_config(assignment(spec), 0, HOST)
    assert config.share_pid
    assert config.handler == "runsc"
    assert config.sysctls == {"net.core.somaxconn": "512"}


def test_host_names() -> None:
    long = "a" * 62 + "-" + "b" * 20
    assert sandbox_config(assignment(metadata={"name": long}), 0, HOST).hostname == "a" * 62
    assert sandbox_config(assignment({"hostname": "front"}), 0, HOST).hostname == "front"
    named = {"hostname": "front", "subdomain": "web"}
    assert sandbox_config(assignment(named), 0, HOST).hostname == "front"
    full = sandbox_config(assignment({**named, "setHostnameAsFQDN": True}), 0, HOST).hostname
    assert full == "front.web.shop.svc.askos.internal"
    assert sandbox_config(assignment({"setHostnameAsFQDN": True}), 0, HOST).hostname == "web-0"


def test_a_full_name_that_the_kernel_would_refuse() -> None:
    spec = {"hostname": "h" * 40, "subdomain": "web", "setHostnameAsFQDN": True}
    with pytest.raises(ConfigError, match="68 characters"):
        sandbox_config(assignment(spec), 0, HOST)


@pytest.mark.parametrize(
    ("spec", "servers", "searches", "options"),
    [
        ({}, ["10.0.0.1"], [], []),
        ({"dnsPolicy": "ClusterFirstWithHostNet"}, ["10.0.0.1"], [], []),
        ({"dnsPolicy": "Default"}, ["192.0.2.53"], ["corp.example"], []),
        (
            {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"], "searches": ["a.b"]}},
            ["9.9.9.9"],
            ["a.b"],
            [],
        ),
        (
            {
                "dnsConfig": {
                    "nameservers": ["9.9.9.9", "10.0.0.1", "8.8.8.8", "1.1.1.1"],
                    "searches": ["a.b", "a.b"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}, {"name": "ndots", "value": "5"}],
                }
            },
            ["10.0.0.1", "9.9.9.9", "8.8.8.8"],
            ["a.b"],
            ["ndots:5", "edns0"],
        ),
        ({"dnsPolicy": "Default", "dnsConfig": {"searches": ["a.b"]}}, ["192.0.2.53"], ["corp.example", "a.b"], []),
    ],
)
def test_dns(spec: dict[str, Any], servers: list[str], searches: list[str], options: list[str]) -> None:
    config = sandbox_config(assignment(spec), 0, HOST)
    assert (config.dns_servers, config.dns_search, config.dns_options) == (servers, searches, options)


def test_search_domains_have_limits() -> None:
    many = sandbox_config(assignment({"dnsConfig": {"searches": [f"d{i}" for i in range(40)]}}), 0, HOST)
    assert many.dns_search == [f"d{i}" for i in range(32)]
    long = sandbox_config(assignment({"dnsConfig": {"searches": [f"{i}" + "x" * 199 for i in range(20)]}}), 0, HOST)
    assert len(long.dns_search) == 10
    for searches in (many.dns_search, long.dns_search):
        assert dns_omissions(assignment({"dnsConfig": {"searches": searches}}), HOST) == []
        (omission,) = dns_omissions(assignment({"dnsConfig": {"searches": [*searches, "x" * 99]}}), HOST)
        assert omission == f"Not all search domains fit; these do: {' '.join(searches)}"


def test_name_servers_that_are_left_out_are_told() -> None:
    servers = ["9.9.9.9", "8.8.8.8"]
    assert dns_omissions(assignment({"dnsConfig": {"nameservers": servers}}), HOST) == []
    (omission,) = dns_omissions(assignment({"dnsConfig": {"nameservers": [*servers, "1.1.1.1"]}}), HOST)
    assert omission == "Only 3 name servers can be asked; these are: 10.0.0.1 9.9.9.9 8.8.8.8"


def test_a_host_with_a_resolver_of_its_own_gives_the_name_service() -> None:
    stub = msgspec.structs.replace(HOST, resolvers=["127.0.0.53", "::1"])
    assert sandbox_config(assignment({"dnsPolicy": "Default"}), 0, stub).dns_servers == ["10.0.0.1"]


def test_hosts_file() -> None:
    spec = {
        "hostname": "front",
        "subdomain": "web",
        "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["db", "db.corp"]}, {"ip": "::7", "hostnames": ["six"]}],
    }
    lines = hosts_text(assignment(spec), HOST).split("\n")
    assert "127.0.0.1\tlocalhost" in lines
    assert "10.0.0.5\tfront.web.shop.svc.askos.internal\tfront" in lines
    assert lines[-4:] == ["# From hostAliases.", "192.0.2.7\tdb\tdb.corp", "::7\tsix", ""]
    assert "10.0.0.5\tweb-0" in hosts_text(assignment(), HOST).split("\n")


def test_a_pod_of_both_ip_versions() -> None:
    a = assignment()
    both = [msgspec.structs.replace(port, address6="fd00::5") for port in a.ports]
    more = Port("t2", "n2", UUID, "10.0.9.5", "mac")
    a = msgspec.structs.replace(a, ports=[*both, more], networks=[*a.networks, *a.networks])
    lines = hosts_text(a, HOST).split("\n")
    at = lines.index("10.0.0.5\tweb-0")
    assert lines[at : at + 3] == ["10.0.0.5\tweb-0", "fd00::5\tweb-0", "10.0.9.5\tweb-0"]
    # As Kubernetes has it, one of each version.
    assert host_env.facts(a, HOST).pod_ips == ["10.0.0.5", "fd00::5"]


# -- containers -------------------------------------------------------------------------------------------------


def test_a_plain_container_is_safe() -> None:
    assert container(assignment()) == rt.ContainerConfig(
        capsule_uuid=UUID,
        name="main",
        run=1,
        attempt=3,
        image_ref="docker.io/library/busybox:latest",
        image_id="sha256:1",
        entrypoint=None,
        command=None,
        environment={},
        workdir=None,
        interactive=False,
        tty=False,
        cpu=0.0,
        memory_bytes=0,
        hosts_file="/f/hosts",
        log_name="main/3.log",
        mounts=[rt.Mount("/f/message", "/dev/termination-log")],
        limits=rt.Limits(oom_score_adj=1000),
        security=rt.Security(no_new_privileges=True),
        spec_hash=spec_hash(Container("main", "busybox")),
    )


@pytest.mark.parametrize(
    ("fields", "entrypoint", "command"),
    [
        ({"command": ["sh"]}, ["sh"], None),
        ({"args": ["-c", "ls"]}, None, ["-c", "ls"]),
        (
            {"command": ["sh"], "args": ["-c", "echo $(WHO) $$(WHO) $(NOBODY)"]},
            ["sh"],
            ["-c", "echo me $(WHO) $(NOBODY)"],
        ),
        ({"command": ["$(WHO)"]}, ["me"], None),
    ],
)
def test_command_and_args(fields: dict[str, Any], entrypoint: list[str] | None, command: list[str] | None) -> None:
    config = container(assignment(main(env=[{"name": "WHO", "value": "me"}], **fields)))
    assert (config.entrypoint, config.command) == (entrypoint, command)


def test_streams_and_folder() -> None:
    config = container(assignment(main(stdin=True, stdinOnce=True, tty=True, workingDir="/srv")))
    assert config.interactive and config.stdin_once and config.tty
    assert config.workdir == "/srv"
    assert not container(assignment(main(stdinOnce=True))).stdin_once


def test_environment_of_a_container() -> None:
    env = [
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
        {"name": "URL", "value": "http://$(IP)/$(conf)"},
    ]
    a = assignment(main(env=env, envFrom=[{"configMapRef": {"name": "web"}}]))
    assert container(a).environment == {
        "index.html": "hello",
        "conf": "x=1",
        "IP": "10.0.0.5",
        "HOST": "192.0.2.1",
        "NODE": "host-1",
        "UID": UUID,
        "CPUS": "4",
        "PASSWORD": "hush",
        "URL": "http://10.0.0.5/x=1",
    }


def test_a_reference_to_nothing_is_a_config_error() -> None:
    a = assignment(main(env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k"}}}]))
    with pytest.raises(ConfigError, match="secret 'gone' is not there") as caught:
        container(a)
    assert caught.value.reason == "CreateContainerConfigError"


def test_names_that_were_left_out() -> None:
    a = assignment(main(envFrom=[{"prefix": "ä", "configMapRef": {"name": "web"}}]))
    assert a.spec.pod is not None
    assert assembly.skipped_names(a, a.spec.pod.spec.containers[0], HOST) == ["äconf", "äindex.html"]


def test_limits() -> None:
    resources = {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}
    config = container(assignment(main(resources=resources)))
    assert config.limits == rt.Limits(256, 50_000, 100_000, 64 << 20, 997)
    assert config.memory_bytes == 64 << 20


# -- mounts -----------------------------------------------------------------------------------------------------


VOLUMES = {
    "volumes": [
        {"name": "scratch", "emptyDir": {}},
        {"name": "pages", "configMap": {"name": "web"}},
        {"name": "disk", "cinder": {"volumeID": "v-1", "readOnly": True}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "data"}},
    ]
}
GRANTS = [VolumeGrant("v-1", "disk", 1 << 30), VolumeGrant("v-2", "claim", 2 << 30)]


def mounted(*mounts: dict[str, Any], **fields: Any) -> Assignment:
    return assignment({**VOLUMES, **main(volumeMounts=list(mounts), **fields)}, grants=GRANTS)


def test_mounts() -> None:
    a = mounted(
        {"name": "scratch", "mountPath": "/tmp"},
        {"name": "scratch", "mountPath": "read", "readOnly": True},
        {"name": "scratch", "mountPath": "/one", "subPath": "a/b"},
        {"name": "scratch", "mountPath": "/two", "subPathExpr": "$(NAME)/log"},
        {"name": "pages", "mountPath": "/www"},
        {"name": "disk", "mountPath": "/disk"},
        {"name": "claim", "mountPath": "/claim"},
        env=[{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    )
    assert container(a).mounts == [
        rt.Mount("/vol/scratch", "/tmp"),
        rt.Mount("/vol/scratch", "/read", read_only=True),
        rt.Mount("/sub/scratch/a/b", "/one"),
        rt.Mount("/sub/scratch/web-0/log", "/two"),
        rt.Mount("/vol/pages", "/www", read_only=True),
        rt.Mount("/vol/disk", "/disk", read_only=True),
        rt.Mount("/vol/claim", "/claim"),
        rt.Mount("/f/message", "/dev/termination-log"),
    ]
    assert a.spec.pod is not None
    assert sub_paths(a, a.spec.pod.spec.containers[0], HOST) == [("scratch", "a/b"), ("scratch", "web-0/log")]


def test_a_grant_that_may_only_be_read() -> None:
    a = mounted({"name": "claim", "mountPath": "/claim"})
    a = msgspec.structs.replace(a, volumes=[GRANTS[0], msgspec.structs.replace(GRANTS[1], read_only=True)])
    assert container(a).mounts[0].read_only


def test_own_files_make_way() -> None:
    a = mounted(
        {"name": "scratch", "mountPath": "/etc/hosts", "subPath": "hosts"},
        {"name": "scratch", "mountPath": "/dev/termination-log", "subPath": "log"},
    )
    config = container(a)
    assert config.hosts_file is None
    assert [mount.container_path for mount in config.mounts] == ["/etc/hosts", "/dev/termination-log"]
    elsewhere = container(assignment(main(terminationMessagePath="/tmp/why")))
    assert elsewhere.mounts == [rt.Mount("/f/message", "/tmp/why")]


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ({"name": "gone", "mountPath": "/x"}, ["'gone'", "'main'", "'/x'"]),
        ({"name": "scratch", "mountPath": "/x", "subPath": "a/../../b"}, ["'a/../../b'", "'scratch'"]),
        ({"name": "scratch", "mountPath": "/x", "subPath": "/etc"}, ["'/etc'"]),
        ({"name": "scratch", "mountPath": "/x", "subPathExpr": "$(GONE)/x"}, ["'GONE'", "'/x'"]),
        ({"name": "scratch", "mountPath": "/x", "subPathExpr": "$(EMPTY)"}, ["empty"]),
        ({"name": "scratch", "mountPath": "/x", "subPathExpr": "$(UP)/x"}, ["'../x'"]),
    ],
)
def test_mounts_that_cannot_be(mount: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        container(mounted(mount, env=[{"name": "EMPTY", "value": ""}, {"name": "UP", "value": ".."}]))
    for word in words:
        assert word in caught.value.message


# -- confinement ------------------------------------------------------------------------------------------------


def security(own: dict[str, Any], shared: dict[str, Any] | None = None, image_user: str = "") -> rt.Security:
    spec = {**main(securityContext=own), "securityContext": shared or {}}
    return container(assignment(spec), image_user=image_user).security


def test_a_containers_own_context_goes_first() -> None:
    shared = {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True, "seccompProfile": {"type": "Unconfined"}}
    assert security({}, shared) == rt.Security(run_as_user=1000, run_as_group=1000, seccomp="unconfined")
    own = {"runAsUser": 0, "runAsGroup": 5, "runAsNonRoot": False, "seccompProfile": {"type": "RuntimeDefault"}}
    assert security(own, shared) == rt.Security(run_as_user=0, run_as_group=5)


def test_groups() -> None:
    shared = {"supplementalGroups": [7, 8], "fsGroup": 8}
    assert security({}, shared).supplemental_groups == [7, 8]
    assert security({}, {"fsGroup": 9}).supplemental_groups == [9]


@pytest.mark.parametrize(("image_user", "user"), [("", 0), ("33", 33), ("33:44", 33), ("www-data", None)])
def test_a_group_needs_a_user(image_user: str, user: int | None) -> None:
    found = security({"runAsGroup": 5}, image_user=image_user)
    assert (found.run_as_user, found.run_as_group) == (user, 5)


@pytest.mark.parametrize(
    ("own", "allowed"),
    [
        ({}, False),
        ({"allowPrivilegeEscalation": False}, False),
        ({"allowPrivilegeEscalation": True}, True),
        ({"privileged": True}, True),
    ],
)
def test_new_privileges(own: dict[str, Any], allowed: bool) -> None:
    assert security(own).no_new_privileges is not allowed


def test_capabilities_and_root() -> None:
    found = security({"capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["all"]}, "readOnlyRootFilesystem": True})
    assert found == rt.Security(add_capabilities=["NET_ADMIN"], drop_capabilities=["ALL"], read_only_root=True)
    assert security({"privileged": True}).privileged


@pytest.mark.parametrize(
    ("own", "image_user", "why"),
    [
        ({"runAsUser": 0}, "33", "runAsUser 0"),
        ({}, "", "runs as root"),
        ({}, "0", "runs as root"),
        ({}, "00:5", "runs as root"),
        ({}, "root", "runs as root"),
        ({}, "www-data", "'www-data'"),
        ({"runAsUser": 5}, "", None),
        ({"runAsUser": 5}, "www-data", None),
        ({}, "33", None),
        ({}, "33:0", None),
    ],
)
def test_not_root(own: dict[str, Any], image_user: str, why: str | None) -> None:
    if why is None:
        security(own, {"runAsNonRoot": True}, image_user)
        return
    with pytest.raises(ConfigError, match=why) as caught:
        security(own, {"runAsNonRoot": True}, image_user)
    assert "'main'" in caught.value.message


# -- what needs a new container ---------------------------------------------------------------------------------


def resized(policy: str, cpu: str, image: str = "busybox") -> str:
    return spec_hash(
        msgspec.convert(
            {
                "name": "main",
                "image": image,
                "resources": {"limits": {"cpu": cpu, "memory": "1Gi"}},
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}],
            },
            Container,
        )
    )


def test_what_a_spec_hash_tells() -> None:
    assert resized("NotRequired", "1") == resized("NotRequired", "2") == spec_hash(Container("other", "busybox"))
    assert resized("NotRequired", "1") != resized("NotRequired", "1", "alpine")
    assert resized("RestartContainer", "1") != resized("RestartContainer", "2")
    assert resized("RestartContainer", "1") == resized("RestartContainer", "1000m")


# -- volumes ----------------------------------------------------------------------------------------------------


def volumes(*written: dict[str, Any], grants: list[VolumeGrant] | None = None, **fields: Any) -> list[HostVolume]:
    spec = {**main(**fields), "volumes": [{"name": f"v{i}", **one} for i, one in enumerate(written)]}
    return assembly.host_volumes(assignment(spec, {"labels": {"app": "web"}}, grants), HOST)


def test_empty_folders() -> None:
    found = volumes({}, {"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"medium": "Memory"}})
    assert found == [
        HostVolume("v0", "folder"),
        HostVolume("v1", "folder", size_bytes=1 << 30),
        HostVolume("v2", "memory"),
    ]


@pytest.mark.parametrize(("limit", "size"), [(None, 64 << 20), ("1Mi", 1 << 20), ("1Gi", 64 << 20)])
def test_memory_is_no_more_than_the_pods(limit: str | None, size: int) -> None:
    source = {"medium": "Memory"} if limit is None else {"medium": "Memory", "sizeLimit": limit}
    (found,) = volumes({"emptyDir": source}, resources={"limits": {"memory": "64Mi"}})
    assert found == HostVolume("v0", "memory", size_bytes=size)


def test_files_of_a_config_map() -> None:
    (found,) = volumes({"configMap": {"name": "web"}})
    assert found == HostVolume(
        "v0", "files", files=[File("index.html", b"hello"), File("conf", b"x=1"), File("logo", b"\xff")]
    )
    items = [{"key": "conf", "path": "etc/app/conf", "mode": 0o400}, {"key": "logo", "path": "logo.png"}]
    (found,) = volumes({"configMap": {"name": "web", "items": items, "defaultMode": 0o440}})
    assert found.files == [File("etc/app/conf", b"x=1", 0o400), File("logo.png", b"\xff", 0o440)]


def test_files_of_a_secret_are_secret() -> None:
    (found,) = volumes({"secret": {"secretName": "db", "defaultMode": 0o400}})
    assert found == HostVolume("v0", "files", files=[File("password", b"hush", 0o400)], secret=True)


def test_files_of_the_pods_own_fields() -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "cpus", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}, "mode": 0o600},
    ]
    (found,) = volumes({"downwardAPI": {"items": items}})
    assert found.files == [File("labels", b'app="web"'), File("cpus", b"4", 0o600)]


def test_projected_files() -> None:
    sources = [
        {"configMap": {"name": "web", "items": [{"key": "conf", "path": "conf"}]}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"configMap": {"name": "gone", "optional": True}},
    ]
    (found,) = volumes({"projected": {"sources": sources, "defaultMode": 0o600}})
    assert found == HostVolume("v0", "files", files=[File("conf", b"x=1", 0o600), File("name", b"web-0", 0o600)])
    sources.append({"secret": {"name": "db", "items": [{"key": "password", "path": "conf"}]}})
    (found,) = volumes({"projected": {"sources": sources}})
    assert found.secret
    assert found.files[0] == File("conf", b"hush")


def test_volumes_of_the_volume_service() -> None:
    found = volumes(
        {"cinder": {"volumeID": "u-1"}},
        {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
        grants=[VolumeGrant("u-2", "v1", 2 << 30), VolumeGrant("u-1", "v0", 1 << 30)],
    )
    assert found == [
        HostVolume("v0", "block", size_bytes=1 << 30, uuid="u-1"),
        HostVolume("v1", "block", size_bytes=2 << 30, uuid="u-2", read_only=True),
    ]


@pytest.mark.parametrize(
    "source",
    [
        {"configMap": {"name": "gone", "optional": True}},
        {"configMap": {"name": "web", "optional": True, "items": [{"key": "gone", "path": "x"}]}},
        {"secret": {"secretName": "gone", "optional": True}},
        {"projected": {"sources": [{"secret": {"name": "gone", "optional": True}}]}},
    ],
)
def test_optional_content_may_be_absent(source: dict[str, Any]) -> None:
    (found,) = volumes(source)
    assert found.files == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"configMap": {"name": "gone"}}, ["config map 'gone'"]),
        ({"configMap": {"name": "web", "items": [{"key": "gone", "path": "x"}]}}, ["config map 'web'", "key 'gone'"]),
        ({"secret": {"secretName": "gone"}}, ["secret 'gone'"]),
        ({"projected": {"sources": [{"configMap": {"name": "gone"}}]}}, ["config map 'gone'"]),
        ({"cinder": {"volumeID": "u-9"}}, ["'u-9'"]),
        ({"persistentVolumeClaim": {"claimName": "gone"}}, ["'gone'"]),
        ({"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "spec.gone"}}]}}, ["'x'", "'spec.gone'"]),
        ({"downwardAPI": {"items": [{"path": "x", "resourceFieldRef": {"resource": "limits.cpu"}}]}}, ["'x'"]),
        ({"downwardAPI": {"items": [{"path": "x"}]}}, ["'x'"]),
    ],
)
def test_missing_content_is_named(source: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(MissingContent) as caught:
        volumes(source)
    assert caught.value.reason == "FailedMount"
    for word in [*words, "'v0'"]:
        assert word in caught.value.message


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a/..", "..", "..data", "..x/y", "a//b", "a/", "./a", "a\0b"]
)
def test_paths_stay_inside(path: str) -> None:
    with pytest.raises(InvalidError, match="'v0' cannot have a file") as caught:
        volumes({"configMap": {"name": "web", "items": [{"key": "conf", "path": path}]}})
    assert not isinstance(caught.value, MissingContent)


def test_a_file_is_no_folder() -> None:
    items = [{"key": "conf", "path": "a/b"}, {"key": "logo", "path": "a"}]
    with pytest.raises(InvalidError, match="'a' beside 'a/b'"):
        volumes({"configMap": {"name": "web", "items": items}})
