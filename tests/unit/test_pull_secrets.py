"""Which log-ins fit an image."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from askos.model.pods import Content, Secret
from askos.plan.pull_secrets import Login, credentials, problems


def entry(who: str, password: str = "hush") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{who}:{password}".encode()).decode()}


def config(auths: dict[str, Any]) -> Secret:
    data = json.dumps({"auths": auths}).encode()
    return Secret({".dockerconfigjson": data}, "kubernetes.io/dockerconfigjson")


def users(image: str, *secrets: Secret) -> list[str]:
    content = Content(secrets={str(i): secret for i, secret in enumerate(secrets)})
    names = list(content.secrets)
    assert problems(content, names) == []
    return [login.username for login in credentials(content, names, image)]


@pytest.mark.parametrize(
    ("registry", "image", "fits"),
    [
        ("registry.example.org", "registry.example.org/team/app:1", True),
        ("https://registry.example.org", "registry.example.org/team/app:1", True),
        ("https://registry.example.org/v1/", "registry.example.org/team/app:1", True),
        ("http://registry.example.org/v2/", "registry.example.org/team/app:1", True),
        ("REGISTRY.example.org", "registry.example.org/team/app", True),
        ("registry.example.org:443", "registry.example.org/app", False),
        ("registry.example.org:5000", "registry.example.org:5000/app", True),
        ("registry.example.org", "registry.example.org:5000/app", False),
        ("registry.example.org/team", "registry.example.org/team/app:1", True),
        ("registry.example.org/team/app", "registry.example.org/team/app:1", True),
        ("registry.example.org/team/app", "registry.example.org/team/app@sha256:" + "a" * 64, True),
        ("registry.example.org/tea", "registry.example.org/team/app:1", False),
        ("registry.example.org/other", "registry.example.org/team/app:1", False),
        ("*.example.org", "registry.example.org/app", True),
        ("reg*.example.org", "registry.example.org/app", True),
        ("*.org", "registry.example.org/app", False),
        ("*.example.org", "example.org/app", False),
        ("*.example.org:5000", "registry.example.org:5000/app", True),
        ("docker.io", "busybox", True),
        ("index.docker.io", "busybox", True),
        ("https://index.docker.io/v1/", "docker.io/library/busybox:latest", True),
        ("registry-1.docker.io", "team/app", True),
        ("docker.io/team", "team/app", True),
        ("docker.io/team", "busybox", False),
        ("ghcr.io", "busybox", False),
        ("a.b", "axb/app", False),
    ],
)
def test_names_of_registries(registry: str, image: str, fits: bool) -> None:
    assert users(image, config({registry: entry("ann")})) == (["ann"] if fits else [])


def test_the_longest_name_comes_first() -> None:
    secret = config(
        {
            "*.example.org": entry("any"),
            "registry.example.org": entry("host"),
            "registry.example.org/team": entry("team"),
            "registry.example.org/team/app": entry("app"),
        }
    )
    assert users("registry.example.org/team/app:1", secret) == ["app", "team", "host", "any"]


def test_of_the_same_name_the_first_secret_comes_first_and_none_twice() -> None:
    first, second = config({"ghcr.io": entry("one")}), config({"ghcr.io": entry("two")})
    assert users("ghcr.io/app", first, second, first) == ["one", "two"]


def test_all_ways_to_log_in() -> None:
    secret = config(
        {
            "ghcr.io": {"username": "ann", "password": "a:b"},
            "images.example": {"identitytoken": "id"},
            "other.io": {"registrytoken": "reg"},
            "both.io": {"username": "ignored", "password": "ignored", **entry("ann", "x:y\0\0")},
        }
    )
    content = Content(secrets={"s": secret})
    assert credentials(content, ["s"], "ghcr.io/app") == [Login("ann", "a:b")]
    assert credentials(content, ["s"], "images.example/app") == [Login(identity_token="id")]
    assert credentials(content, ["s"], "other.io/app") == [Login(registry_token="reg")]
    assert credentials(content, ["s"], "both.io/app") == [Login("ann", "x:y")]


def test_the_older_type() -> None:
    data = json.dumps({"https://ghcr.io": {"username": "ann", "password": "p", "email": "a@example.org"}}).encode()
    assert users("ghcr.io/app", Secret({".dockercfg": data}, "kubernetes.io/dockercfg")) == ["ann"]


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (None, "not there"),
        (Secret({"password": b"hush"}), "Opaque"),
        (Secret({"x": b"hush"}, "kubernetes.io/dockerconfigjson"), "no key '.dockerconfigjson'"),
        (Secret({".dockerconfigjson": b"{hush"}, "kubernetes.io/dockerconfigjson"), "not JSON"),
        (Secret({".dockerconfigjson": b'{"auths": "\xff"}'}, "kubernetes.io/dockerconfigjson"), "not JSON"),
        (Secret({".dockerconfigjson": b'["hush"]'}, "kubernetes.io/dockerconfigjson"), "list registries"),
        (config({"ghcr.io": "hush"}), "ghcr.io"),
        (config({"ghcr.io": {"auth": "hush!"}}), "base64"),
        (config({"ghcr.io": {"auth": base64.b64encode(b"hush").decode()}}), "no colon"),
    ],
)
def test_a_secret_that_cannot_be_used_is_told_and_passed_over(secret: Secret | None, why: str) -> None:
    good = config({"ghcr.io": entry("ann")})
    content = Content(secrets={"good": good} if secret is None else {"bad": secret, "good": good})
    (problem,) = problems(content, ["bad", "good"])
    assert "'bad'" in problem
    assert why in problem
    assert "hush" not in problem
    assert [login.username for login in credentials(content, ["bad", "good"], "ghcr.io/app")] == ["ann"]


def test_a_log_in_does_not_show_itself() -> None:
    assert "hush" not in repr([Login("ann", "hush", "hush", "hush")])
