"""The embedded identity service on a SQLite file."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from argon2 import PasswordHasher
from sqlalchemy import insert, select, update

from askos.adapters.identity.passwords import Passwords
from askos.adapters.identity.service import REMEMBERED_US, EmbeddedIdentity
from askos.adapters.identity.throttle import Throttle
from askos.adapters.sql import schema
from askos.adapters.sql.database import Database, sqlite_url
from askos.adapters.sql.migrate import upgrade
from askos.model.errors import ConflictError, ForbiddenError, NotFoundError, SetupError, UnauthorizedError
from askos.model.identity import (
    ApplicationCredential,
    CredentialLogin,
    IssuedToken,
    Named,
    PasswordLogin,
    Project,
    Scope,
    TokenLogin,
    User,
)

HERE = "192.0.2.1"


class Clock:
    def __init__(self) -> None:
        self.us = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.us

    async def sleep(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)


def cheap() -> Passwords:
    return Passwords(time_cost=1, memory_kib=8)


class Cloud:
    """A cloud with its admin, a project and two users: alice is a member of the project, bob is nobody."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.clock = Clock()
        self.file = folder / "admin-password"
        self.identity = self.server()

    def server(self, passwords: Passwords | None = None) -> EmbeddedIdentity:
        throttle = Throttle(self.clock, sleep=self.clock.sleep)
        return EmbeddedIdentity(self.database, 3600, self.clock, passwords=passwords or cheap(), throttle=throttle)

    async def fill(self) -> None:
        directory = self.identity.directory
        await self.identity.bootstrap(self.file)
        self.roles = {role.name: role.id for role in await directory.roles()}
        self.project = await directory.create_project(Project(id="", name="web"))
        self.other = await directory.create_project(Project(id="", name="other"))
        self.alice = await directory.create_user(User(id="", name="alice"), "wonderland")
        self.bob = await directory.create_user(User(id="", name="bob"), "builder")
        await directory.assign(self.alice.id, self.project.id, self.roles["member"])

    async def login(
        self, name: str = "alice", password: str = "wonderland", scope: Scope = None, source: str = HERE
    ) -> IssuedToken:
        who = Named(name=name, domain_id="default")
        return await self.identity.authenticate(PasswordLogin(who, password), scope, source)

    async def web_token(self) -> str:
        return (await self.login(scope=Named(id=self.project.id))).secret

    async def refused(self, token: str) -> bool:
        """Whether the token is worth nothing, in this server and in another one with an empty cache."""
        other = self.server()
        results = []
        for identity in (self.identity, other):
            try:
                await identity.validate(token)
                results.append(False)
            except UnauthorizedError:
                results.append(True)
        other.close()
        assert results[0] == results[1]
        return results[0]


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    database = Database(sqlite_url(tmp_path / "askos.db"))
    await upgrade(database)
    cloud = Cloud(database, tmp_path)
    await cloud.fill()
    yield cloud
    cloud.identity.close()
    await database.close()


async def test_bootstrap_makes_an_admin_with_a_private_password_file_once(cloud: Cloud) -> None:
    assert stat.S_IMODE(cloud.file.stat().st_mode) == 0o600
    password = cloud.file.read_text().strip()
    issued = await cloud.login("admin", password)
    assert issued.token.project is not None
    assert issued.token.project.name == "admin"
    assert [role.name for role in issued.token.roles] == ["admin", "member", "reader"]
    assert (await cloud.identity.validate(issued.secret)).is_admin
    cloud.file.unlink()
    assert await cloud.identity.bootstrap(cloud.file) is False
    assert not cloud.file.exists()
    assert not [path for path in cloud.file.parent.iterdir() if path.name.startswith(".")]


async def test_bootstrap_does_not_bring_a_removed_admin_back_but_reset_does(cloud: Cloud) -> None:
    admin = (await cloud.identity.directory.users(name="admin"))[0]
    await cloud.identity.directory.delete_user(admin.id)
    assert await cloud.identity.bootstrap(cloud.file) is False
    assert await cloud.identity.directory.users(name="admin") == []
    old = cloud.file.read_text()
    await cloud.identity.reset_password(cloud.file)
    assert cloud.file.read_text() != old
    issued = await cloud.login("admin", cloud.file.read_text().strip())
    assert (await cloud.identity.validate(issued.secret)).is_admin


async def test_reset_ends_the_old_password_and_its_tokens(cloud: Cloud) -> None:
    old = cloud.file.read_text().strip()
    token = (await cloud.login("admin", old)).secret
    await cloud.identity.validate(token)
    await cloud.identity.reset_password(cloud.file)
    assert await cloud.refused(token)
    with pytest.raises(UnauthorizedError):
        await cloud.login("admin", old)


async def test_a_given_password_file_is_used_and_a_bad_one_refused(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "other.db"))
    await upgrade(database)
    identity = EmbeddedIdentity(database, passwords=cheap())
    file = tmp_path / "given"
    file.write_text("\n")
    with pytest.raises(SetupError, match="1 to 4096"):
        await identity.bootstrap(file)
    with pytest.raises(SetupError, match="folder exists"):
        await identity.bootstrap(tmp_path / "missing" / "file")
    file.write_text("correct horse\n")
    assert await identity.bootstrap(file)
    login = PasswordLogin(Named(name="admin", domain_name="Default"), "correct horse")
    assert (await identity.authenticate(login, None, HERE)).token.is_admin
    identity.close()
    await database.close()


async def test_servers_that_start_at_once_on_two_machines_leave_one_file(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "other.db"))
    await upgrade(database)
    servers = [EmbeddedIdentity(database, passwords=cheap()) for _ in range(2)]
    files = [tmp_path / "here", tmp_path / "there"]
    made = await asyncio.gather(*(server.bootstrap(file) for server, file in zip(servers, files, strict=True)))
    assert [file.exists() for file in files] == made
    assert sum(made) == 1
    login = PasswordLogin(Named(name="admin", domain_id="default"), files[made.index(True)].read_text().strip())
    assert (await servers[0].authenticate(login, None, HERE)).token.is_admin
    for server in servers:
        server.close()
    await database.close()


async def test_the_file_stays_when_a_faster_server_used_it(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "other.db"))
    await upgrade(database)
    file = tmp_path / "password"
    faster = EmbeddedIdentity(database, passwords=cheap())

    class Slow(Passwords):
        async def hash(self, password: str) -> str:
            assert await faster.bootstrap(file)
            return await super().hash(password)

    slow = EmbeddedIdentity(database, passwords=Slow(time_cost=1, memory_kib=8))
    assert not await slow.bootstrap(file)
    login = PasswordLogin(Named(name="admin", domain_id="default"), file.read_text().strip())
    assert (await slow.authenticate(login, None, HERE)).token.is_admin
    slow.close()
    faster.close()
    await database.close()


async def test_servers_that_start_at_once_on_one_machine_agree_on_one_password(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "other.db"))
    await upgrade(database)
    servers = [EmbeddedIdentity(database, passwords=cheap()) for _ in range(4)]
    file = tmp_path / "password"
    made = await asyncio.gather(*(server.bootstrap(file) for server in servers))
    assert sorted(made) == [False, False, False, True]
    login = PasswordLogin(Named(name="admin", domain_id="default"), file.read_text().strip())
    assert (await servers[0].authenticate(login, None, HERE)).token.is_admin
    for server in servers:
        server.close()
    await database.close()


async def test_scopes(cloud: Cloud) -> None:
    by_id = await cloud.login(scope=Named(id=cloud.project.id))
    by_name = await cloud.login(scope=Named(name="web", domain_name="Default"))
    for issued in (by_id, by_name):
        assert issued.token.project == cloud.project
        assert [role.name for role in issued.token.roles] == ["member", "reader"]
        caller = await cloud.identity.validate(issued.secret)
        assert (caller.user_id, caller.project_id, caller.is_admin) == (cloud.alice.id, cloud.project.id, False)
    unscoped = await cloud.login()
    assert unscoped.token.project is None
    assert (await cloud.identity.inspect(unscoped.secret)).user == cloud.alice
    assert await cloud.refused(unscoped.secret)
    refused: list[Scope] = [
        Named(id=cloud.other.id),
        Named(name="web", domain_name="Elsewhere"),
        Named(name="nothing", domain_id="default"),
        "unsupported",
    ]
    for scope in refused:
        with pytest.raises(UnauthorizedError):
            await cloud.login(scope=scope)


async def test_default_project_is_taken_when_it_can_be_used(cloud: Cloud) -> None:
    async def prefer(project: Project) -> None:
        await cloud.identity.directory.update_user(
            cloud.alice.id, lambda user: msgspec.structs.replace(user, default_project_id=project.id)
        )

    await prefer(cloud.project)
    assert (await cloud.login()).token.project == cloud.project
    assert (await cloud.login(scope="unscoped")).token.project is None
    await prefer(cloud.other)
    assert (await cloud.login()).token.project is None


async def test_whatever_is_wrong_the_message_is_the_same(cloud: Cloud) -> None:
    await cloud.identity.directory.update_user(cloud.bob.id, lambda user: msgspec.structs.replace(user, enabled=False))
    nobody = Named(name="nobody", domain_id="default")
    attempts = [
        PasswordLogin(Named(name="alice", domain_id="default"), "wrong"),
        PasswordLogin(nobody, "wonderland"),
        PasswordLogin(Named(id="no-such-id"), "wonderland"),
        PasswordLogin(Named(name="alice", domain_id="elsewhere"), "wonderland"),
        PasswordLogin(Named(name="alice"), "wonderland"),
        PasswordLogin(Named(name="bob", domain_id="default"), "builder"),
        CredentialLogin(secret="x", id="no-such-id"),
        CredentialLogin(secret="x", name="c", user=nobody),
        TokenLogin("askos_" + "A" * 43),
        TokenLogin("gAAAAAB"),
        TokenLogin("askos_" + "é" * 43),
        TokenLogin("\udce4"),
    ]
    messages = set()
    for login in attempts:
        with pytest.raises(UnauthorizedError) as caught:
            await cloud.identity.authenticate(login, None, HERE)
        messages.add(caught.value.message)
    assert len(messages) == 1


async def test_an_unknown_user_costs_what_a_known_one_costs(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the hashes that are computed, and their parameters; a clock would measure this machine's other work."""
    slow = EmbeddedIdentity(cloud.database, clock=cloud.clock, throttle=Throttle(cloud.clock, sleep=cloud.clock.sleep))
    await slow.directory.update_user(cloud.alice.id, lambda user: user, "wonderland")  # today's parameters
    computed: list[str] = []
    verify = PasswordHasher.verify

    def counted(self: PasswordHasher, stored: str, password: bytes) -> bool:
        computed.append(stored.rsplit("$", 2)[0])
        return bool(verify(self, stored, password))

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    for name in ("alice", "nobody"):
        with pytest.raises(UnauthorizedError):
            await slow.authenticate(PasswordLogin(Named(name=name, domain_id="default"), "x"), None, HERE)
    slow.close()
    known, unknown = computed
    assert known == unknown, "once each, at the same parameters"


async def test_guessing_gets_slow_and_the_right_password_still_works(cloud: Cloud) -> None:
    start = cloud.clock.us
    for _ in range(10):
        with pytest.raises(UnauthorizedError):
            await cloud.login(password="guess")
    assert cloud.clock.us - start > 15_000_000
    before = cloud.clock.us
    await cloud.login()
    assert 3_000_000 < cloud.clock.us - before <= 4_000_000
    before = cloud.clock.us
    await cloud.login()
    assert cloud.clock.us == before


async def test_hashes_follow_the_parameters(cloud: Cloud) -> None:
    async def stored() -> str:
        async with cloud.database.read() as connection:
            query = select(schema.users.c.password_hash).where(schema.users.c.id == cloud.alice.id)
            return str((await connection.execute(query)).scalar_one())

    assert "m=8,t=1" in await stored()
    stronger = cloud.server(Passwords(time_cost=2, memory_kib=16))
    login = PasswordLogin(Named(id=cloud.alice.id), "wonderland")
    with pytest.raises(UnauthorizedError):
        await stronger.authenticate(PasswordLogin(Named(id=cloud.alice.id), "wrong"), None, HERE)
    assert "m=8,t=1" in await stored()
    await stronger.authenticate(login, None, HERE)
    assert "m=16,t=2" in await stored()
    await stronger.authenticate(login, None, HERE)
    stronger.close()


async def test_tokens_are_kept_only_as_hashes(cloud: Cloud, tmp_path: Path) -> None:
    token = await cloud.web_token()
    async with cloud.database.read() as connection:
        rows = (await connection.execute(select(schema.tokens))).all()
    assert rows
    assert token.removeprefix("askos_") not in str(rows)
    content = b"".join(path.read_bytes() for path in tmp_path.glob("askos.db*"))
    assert token.encode() not in content
    assert b"wonderland" not in content


async def test_tokens_expire_and_are_purged(cloud: Cloud) -> None:
    token = await cloud.web_token()
    await cloud.identity.validate(token)
    cloud.clock.us += 3_599_000_000
    await cloud.identity.validate(token)
    assert await cloud.identity.purge() == 0
    cloud.clock.us += 1_000_000
    assert await cloud.refused(token)
    assert (await cloud.identity.validate(token, allow_expired=True)).roles == ["member", "reader"]
    assert await cloud.refused(token), "what was asked for what is open already is not good for anything new"
    for _ in range(4):
        await cloud.web_token()
    cloud.clock.us += REMEMBERED_US - 1
    assert await cloud.identity.purge() == 0
    assert (await cloud.identity.validate(token, allow_expired=True)).roles == ["member", "reader"]
    cloud.clock.us += 3_601_000_000
    with pytest.raises(UnauthorizedError):
        await cloud.identity.validate(token, allow_expired=True)
    fresh = await cloud.web_token()
    assert await cloud.identity.purge(batch=2) == 5
    assert not await cloud.refused(fresh)


async def test_what_was_taken_away_is_no_less_so_because_it_had_expired(cloud: Cloud) -> None:
    revoked, kept = await cloud.web_token(), await cloud.web_token()
    cloud.clock.us += 3_600_000_000
    await cloud.identity.revoke(revoked)
    with pytest.raises(UnauthorizedError):
        await cloud.identity.validate(revoked, allow_expired=True)
    await cloud.identity.validate(kept, allow_expired=True)
    await cloud.identity.directory.update_user(cloud.alice.id, lambda u: msgspec.structs.replace(u, enabled=False))
    with pytest.raises(UnauthorizedError):
        await cloud.identity.validate(kept, allow_expired=True)


async def test_rescoping_keeps_the_end_and_the_methods(cloud: Cloud) -> None:
    await cloud.identity.directory.assign(cloud.alice.id, cloud.other.id, cloud.roles["reader"])
    first = await cloud.login(scope=Named(id=cloud.project.id))
    cloud.clock.us += 60_000_000
    second = await cloud.identity.authenticate(TokenLogin(first.secret), Named(id=cloud.other.id), HERE)
    assert second.token.project == cloud.other
    assert second.token.expires_us == first.token.expires_us
    assert set(second.token.methods) == {"password", "token"}
    await cloud.identity.revoke(first.secret)
    assert await cloud.refused(first.secret)
    with pytest.raises(UnauthorizedError):
        await cloud.identity.authenticate(TokenLogin(first.secret), None, HERE)
    assert not await cloud.refused(second.secret)


async def test_taking_rights_away_ends_tokens_at_once(cloud: Cloud) -> None:
    directory = cloud.identity.directory
    member = cloud.roles["member"]

    async def fresh() -> str:
        token = await cloud.web_token()
        await cloud.identity.validate(token)  # so that it is in the cache
        return token

    def enabled(value: bool):  # type: ignore[no-untyped-def]
        return lambda thing: msgspec.structs.replace(thing, enabled=value)

    token = await fresh()
    await directory.update_user(cloud.alice.id, enabled(False))
    assert await cloud.refused(token)
    await directory.update_user(cloud.alice.id, enabled(True))
    assert await cloud.refused(token)  # it does not come back

    token = await fresh()
    await directory.update_project(cloud.project.id, enabled(False))
    assert await cloud.refused(token)
    with pytest.raises(UnauthorizedError):
        await cloud.web_token()
    await directory.update_project(cloud.project.id, enabled(True))
    assert await cloud.refused(token)

    token = await fresh()
    await directory.unassign(cloud.alice.id, cloud.project.id, member)
    assert await cloud.refused(token)
    await directory.assign(cloud.alice.id, cloud.project.id, member)
    assert await cloud.refused(token)

    token = await fresh()
    await directory.change_password(cloud.alice.id, "wonderland", "looking-glass", HERE)
    assert await cloud.refused(token)
    with pytest.raises(UnauthorizedError):
        await cloud.login()
    await directory.update_user(cloud.alice.id, lambda user: user, "wonderland")

    token = await fresh()
    await directory.update_user(cloud.alice.id, lambda user: user, "wonderland")
    assert await cloud.refused(token)

    token = await fresh()
    await directory.delete_project(cloud.project.id)
    assert await cloud.refused(token)

    token = (await cloud.login()).secret
    await cloud.identity.inspect(token)
    await directory.delete_user(cloud.alice.id)
    with pytest.raises(UnauthorizedError):
        await cloud.identity.inspect(token)


async def test_tokens_of_what_is_disabled_are_worth_nothing_even_if_they_are_still_there(cloud: Cloud) -> None:
    token = await cloud.web_token()
    for table, key in ((schema.users, cloud.alice.id), (schema.projects, cloud.project.id)):
        for enabled in (False, True):
            async with cloud.database.write() as connection:
                await connection.execute(update(table).where(table.c.id == key).values(enabled=enabled))
            assert await cloud.refused(token) is not enabled
            cloud.clock.us += 6_000_000


async def test_a_new_role_counts_at_once_and_a_rename_shows(cloud: Cloud) -> None:
    token = await cloud.web_token()
    assert not (await cloud.identity.validate(token)).is_admin
    await cloud.identity.directory.assign(cloud.alice.id, cloud.project.id, cloud.roles["admin"])
    assert (await cloud.identity.validate(token)).roles == ["admin", "member", "reader"]
    await cloud.identity.directory.update_project(
        cloud.project.id, lambda project: msgspec.structs.replace(project, name="shop")
    )
    shown = (await cloud.identity.inspect(token)).project
    assert shown is not None
    assert shown.name == "shop"


async def test_another_process_is_believed_within_five_seconds(cloud: Cloud) -> None:
    token = await cloud.web_token()
    await cloud.identity.validate(token)
    other = cloud.server()
    await other.revoke(token)
    other.close()
    cloud.clock.us += 5_000_000
    with pytest.raises(UnauthorizedError):
        await cloud.identity.validate(token)


async def test_a_password_changed_during_a_log_in_opens_nothing(cloud: Cloud) -> None:
    class Racing(Passwords):
        async def check(self, stored: str | None, password: str) -> bool:
            fits = await super().check(stored, password)
            await cloud.identity.directory.update_user(cloud.alice.id, lambda user: user, "changed")
            return fits

    racing = cloud.server(Racing(time_cost=1, memory_kib=8))
    login = PasswordLogin(Named(id=cloud.alice.id), "wonderland")
    with pytest.raises(UnauthorizedError):
        await racing.authenticate(login, None, HERE)
    racing.close()


async def test_validation_that_overlaps_a_revocation_is_not_remembered(cloud: Cloud) -> None:
    for _ in range(20):
        token = await cloud.web_token()
        checks = [asyncio.create_task(cloud.identity.validate(token)) for _ in range(5)]
        await asyncio.sleep(0)
        await cloud.identity.revoke(token)
        await asyncio.gather(*checks, return_exceptions=True)
        with pytest.raises(UnauthorizedError):
            await cloud.identity.validate(token)


async def test_application_credentials(cloud: Cloud) -> None:
    login = await cloud.login(scope=Named(id=cloud.project.id))
    reader = [role for role in login.token.roles if role.name == "reader"]
    wanted = ApplicationCredential("", "ci", cloud.alice.id, cloud.project.id, reader)
    made, secret = await cloud.identity.credentials.create(wanted, None)
    with pytest.raises(ConflictError):
        await cloud.identity.credentials.create(wanted, None)
    who = Named(name="alice", domain_name="Default")
    for attempt in (CredentialLogin(secret, id=made.id), CredentialLogin(secret, name="ci", user=who)):
        issued = await cloud.identity.authenticate(attempt, None, HERE)
        assert issued.token.project == cloud.project
        assert [role.name for role in issued.token.roles] == ["reader"]
        assert (await cloud.identity.validate(issued.secret)).roles == ["reader"]
        with pytest.raises(UnauthorizedError):
            await cloud.identity.authenticate(attempt, Named(id=cloud.project.id), HERE)
    with pytest.raises(UnauthorizedError):
        await cloud.identity.authenticate(CredentialLogin("wrong", id=made.id), None, HERE)

    # A token made from its token is not more than it is.
    await cloud.identity.directory.assign(cloud.alice.id, cloud.other.id, cloud.roles["member"])
    again = await cloud.identity.authenticate(TokenLogin(issued.secret), Named(id=cloud.project.id), HERE)
    assert [role.name for role in again.token.roles] == ["reader"]
    assert again.token.application_credential == issued.token.application_credential
    for scope in (Named(id=cloud.other.id), "unscoped"):
        with pytest.raises(UnauthorizedError):
            await cloud.identity.authenticate(TokenLogin(issued.secret), scope, HERE)

    await cloud.identity.credentials.delete(cloud.alice.id, made.id)
    assert await cloud.refused(issued.secret)
    assert await cloud.refused(again.secret)
    with pytest.raises(NotFoundError):
        await cloud.identity.credentials.delete(cloud.alice.id, made.id)


async def test_application_credentials_end_with_their_role_and_their_time(cloud: Cloud) -> None:
    roles = (await cloud.login(scope=Named(id=cloud.project.id))).token.roles
    soon = cloud.clock.us + 100_000_000
    wanted = ApplicationCredential("", "ci", cloud.alice.id, cloud.project.id, roles, expires_us=soon)
    made, secret = await cloud.identity.credentials.create(wanted, "my own secret")
    assert secret == "my own secret"
    issued = await cloud.identity.authenticate(CredentialLogin(secret, id=made.id), None, HERE)
    assert issued.token.expires_us == soon
    cloud.clock.us = soon
    assert await cloud.refused(issued.secret)
    with pytest.raises(UnauthorizedError):
        await cloud.identity.authenticate(CredentialLogin(secret, id=made.id), None, HERE)

    other, _ = await cloud.identity.credentials.create(
        ApplicationCredential("", "two", cloud.alice.id, cloud.project.id, roles), None
    )
    await cloud.identity.directory.unassign(cloud.alice.id, cloud.project.id, cloud.roles["member"])
    with pytest.raises(NotFoundError):
        await cloud.identity.credentials.get(cloud.alice.id, other.id)
    with pytest.raises(ForbiddenError):
        await cloud.identity.credentials.create(
            ApplicationCredential("", "three", cloud.alice.id, cloud.project.id, roles), None
        )


async def test_secrets_of_application_credentials_follow_the_parameters(cloud: Cloud) -> None:
    roles = (await cloud.login(scope=Named(id=cloud.project.id))).token.roles
    made, secret = await cloud.identity.credentials.create(
        ApplicationCredential("", "ci", cloud.alice.id, cloud.project.id, roles), None
    )
    stronger = cloud.server(Passwords(time_cost=2, memory_kib=16))
    await stronger.authenticate(CredentialLogin(secret, id=made.id), None, HERE)
    async with cloud.database.read() as connection:
        stored = (await connection.execute(select(schema.application_credentials.c.secret_hash))).scalar_one()
    assert "m=16,t=2" in stored
    await stronger.authenticate(CredentialLogin(secret, id=made.id), None, HERE)
    stronger.close()


async def test_what_a_user_can_pile_up_has_limits(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("askos.adapters.identity.login._MAX_TOKENS", 20)
    monkeypatch.setattr("askos.adapters.identity.login._TRIM_EVERY", 5)
    monkeypatch.setattr("askos.adapters.identity.credentials.MAX_PER_USER", 3)
    others = (await cloud.login("bob", "builder")).secret
    for _ in range(40):
        cloud.clock.us += 1
        newest = await cloud.web_token()
    async with cloud.database.read() as connection:
        query = select(schema.tokens.c.hash).where(schema.tokens.c.user_id == cloud.alice.id)
        assert 20 <= len((await connection.execute(query)).all()) < 25
    assert not await cloud.refused(newest)
    assert (await cloud.identity.inspect(others)).user == cloud.bob

    roles = (await cloud.identity.inspect(newest)).roles
    for number in range(3):
        wanted = ApplicationCredential("", f"c{number}", cloud.alice.id, cloud.project.id, roles)
        await cloud.identity.credentials.create(wanted, None)
    with pytest.raises(ForbiddenError, match="the limit"):
        await cloud.identity.credentials.create(msgspec.structs.replace(wanted, name="more"), None)


async def test_a_project_that_owns_something_stays(cloud: Cloud) -> None:
    async with cloud.database.write() as connection:
        await connection.execute(
            insert(schema.networks).values(
                uuid="n1",
                project_id=cloud.project.id,
                name="backend",
                created_us=0,
            )
        )
    with pytest.raises(ConflictError, match="networks \\(backend\\)"):
        await cloud.identity.directory.delete_project(cloud.project.id)
    async with cloud.database.write() as connection:
        await connection.execute(update(schema.networks).values(project_id=cloud.other.id))
    await cloud.identity.directory.delete_project(cloud.project.id)
    with pytest.raises(NotFoundError):
        await cloud.identity.directory.project(cloud.project.id)


async def test_names_are_unique_and_changes_of_different_facts_do_not_undo_each_other(cloud: Cloud) -> None:
    directory = cloud.identity.directory
    with pytest.raises(ConflictError, match="alice"):
        await directory.create_user(User(id="", name="alice"), None)
    with pytest.raises(ConflictError):
        await directory.update_user(cloud.bob.id, lambda user: msgspec.structs.replace(user, name="alice"))
    with pytest.raises(ConflictError, match="web"):
        await directory.create_project(Project(id="", name="web"))
    replace = msgspec.structs.replace
    await asyncio.gather(
        directory.update_user(cloud.bob.id, lambda user: replace(user, enabled=False)),
        directory.update_user(cloud.bob.id, lambda user: replace(user, name="robert")),
        directory.update_user(cloud.bob.id, lambda user: replace(user, description="builds")),
    )
    bob = await directory.user(cloud.bob.id)
    assert (bob.enabled, bob.name, bob.description) == (False, "robert", "builds")


async def test_a_user_without_a_password_cannot_log_in(cloud: Cloud) -> None:
    await cloud.identity.directory.create_user(User(id="", name="service"), None)
    for password in ("", "None", "x"):
        with pytest.raises(UnauthorizedError):
            await cloud.login("service", password)
