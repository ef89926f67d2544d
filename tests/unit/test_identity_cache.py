"""The memory of valid tokens is small, short and honest."""

from __future__ import annotations

import pytest

from askos.adapters.identity.cache import TokenCache, digest_of
from askos.model.identity import Project, Role, Token, User, effective_roles


def token(user: str = "u", project: str | None = "p", expires_us: int = 10**12) -> Token:
    return Token(
        user=User(id=user, name=user),
        project=None if project is None else Project(id=project, name=project),
        roles=[Role(id="r", name="member")],
        methods=["password"],
        issued_us=0,
        expires_us=expires_us,
        audit_id="a",
    )


def test_entries_end_with_their_age_their_token_and_a_clock_set_back() -> None:
    cache = TokenCache(max_age_s=5)
    cache.add("a", token(), 1_000, 0)
    assert cache.get("a", 5_000_999) is not None
    assert cache.get("a", 5_001_000) is None
    cache.add("b", token(expires_us=2_000), 1_000, 0)
    assert cache.get("b", 1_999) is not None
    assert cache.get("b", 2_000) is None
    cache.add("c", token(), 1_000, 0)
    assert cache.get("c", 999) is None


def test_size_is_bounded() -> None:
    cache = TokenCache(max_entries=10)
    for number in range(100):
        cache.add(str(number), token(), 0, 0)
    assert len(cache._entries) == 10
    assert cache.get("99", 0) is not None
    assert cache.get("89", 0) is None


@pytest.mark.parametrize("what", [{"digest": "a"}, {"user_id": "u"}, {"project_id": "p"}])
def test_forgetting_hits_what_was_meant_and_what_was_read_before(what: dict[str, str]) -> None:
    cache = TokenCache()
    epoch = cache.epoch
    cache.add("a", token(), 0, epoch)
    cache.add("b", token("other", "elsewhere"), 0, epoch)
    cache.add("c", token("other", None), 0, epoch)
    cache.forget(**what)  # type: ignore[arg-type]
    assert cache.get("a", 0) is None
    assert cache.get("b", 0) is not None
    assert cache.get("c", 0) is not None
    cache.add("a", token(), 0, epoch)  # read before the revocation
    assert cache.get("a", 0) is None
    cache.add("a", token(), 0, cache.epoch)
    assert cache.get("a", 0) is not None


def test_only_what_looks_like_a_token_is_hashed() -> None:
    good = "askos_" + "x" * 43
    assert digest_of(good) is not None
    assert digest_of(good) != digest_of("askos_" + "y" * 43)
    for bad in ("", "askos_", good + "x", "gAAAA" + "x" * 44, "askos_" + "é" * 43):
        assert digest_of(bad) is None


def test_roles_imply_those_below_them() -> None:
    every = [Role(id=name[0], name=name) for name in ("reader", "admin", "member")]
    reader, admin, member = every

    def names(*direct: Role) -> list[str]:
        return [role.name for role in effective_roles(list(direct), every)]

    assert names() == []
    assert names(reader) == ["reader"]
    assert names(reader, member) == ["member", "reader"]
    assert names(admin) == ["admin", "member", "reader"]
    assert effective_roles([Role(id="x", name="auditor"), member], every)[-1].name == "auditor"
