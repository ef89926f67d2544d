"""The server: store, identity, API, placement and the agents' link, in one asyncio program."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from askos.adapters.hub.search import HubSearch
from askos.adapters.identity.service import EmbeddedIdentity
from askos.adapters.images.files import ImageFolder
from askos.adapters.link.server import LinkServer
from askos.adapters.sql.database import Database
from askos.adapters.sql.images import SqlImages
from askos.adapters.sql.migrate import upgrade
from askos.adapters.sql.networking import SqlNetworking
from askos.adapters.sql.sealing import Sealer
from askos.adapters.sql.store import SqlStore
from askos.adapters.sql.volumes import SqlVolumes
from askos.api import policy
from askos.api.app import Watch, application
from askos.api.cinder.routes import routes as cinder_routes
from askos.api.glance.finding import Finder
from askos.api.glance.routes import routes as glance_routes
from askos.api.keystone.routes import routes as keystone_routes
from askos.api.neutron.routes import routes as neutron_routes
from askos.api.schemas import Limits
from askos.client import credentials
from askos.loops.commits import ImageCommitter
from askos.loops.image_supply import ImageSupply
from askos.loops.networks import NetworkLoop
from askos.loops.placement import PlacementLoop
from askos.loops.volumes import VolumeLoop
from askos.model.errors import AskosError, SetupError
from askos.model.quotas import Limits as QuotaLimits
from askos.plan.placement import Ratios
from askos.plan.pools import choose_pool
from askos.ports.clock import now_us
from askos.ports.store import Change
from askos.programs import content_key, facts, locks, tls
from askos.settings import Settings

_log = logging.getLogger(__name__)

ZONE = "nova"
KEEP_CHANGES = 100_000
"""Rows of the change log that watchers can resume from."""


class Server:
    """Start it, run it, stop it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.database_url)
        self._watch = Watch()
        self._sealer = Sealer(content_key.load(settings))
        quotas = settings.quotas
        self.store = SqlStore(
            self._database,
            on_change=self._changed,
            sealer=self._sealer,
            default_limits=QuotaLimits(quotas.containers, quotas.memory, quotas.cpu, quotas.disk),
        )
        self.identity = EmbeddedIdentity(self._database, settings.identity.token_lifetime_s)
        self.link = LinkServer(self.store, availability_zone=ZONE)
        ratios = self._ratios = Ratios(settings.host.cpu_allocation_ratio, settings.host.memory_allocation_ratio)
        self.placement = PlacementLoop(self.store, ratios, now_us)
        self.volumes = SqlVolumes(self._database, on_delete=self._volume_deleted)
        self.volume_loop = VolumeLoop(self.volumes, self.link)
        self.images = SqlImages(self._database, ImageFolder(settings.paths.images))
        self.image_supply = ImageSupply(self.images, self.link, self.link.sessions)
        self.committer = ImageCommitter(self.images, self.link)
        self.networking = SqlNetworking(
            self._database,
            on_change=self._networking_changed,
            on_capsule=self._changed,
            external_cidr=settings.network.external_cidr,
        )
        self.network_loop = NetworkLoop(self.networking, self.link, self.link.sessions)
        self.link.on_host_change = self._host_changed
        self._runner: web.AppRunner | None = None
        self._tls: ssl.SSLContext | None = None
        self._lock = locks.Lock(settings.data / "server.lock")

    def _changed(self, change: Change) -> None:
        self.link.changed(change)
        self._watch.changed(change.uuid, change.project_id)
        if change.host_uuid is None and not change.deleted:
            self.placement.bell.ring()
        if change.deleted:
            # Volumes may have gone with it.
            self._volume_deleted()
        if change.deleted or (change.host_uuid is not None and change.kind != "host"):
            # Ports may have come to a host, or gone.
            self._networking_changed()

    def _host_changed(self) -> None:
        self.placement.bell.ring()
        self.volume_loop.bell.ring()
        self.image_supply.bell.ring()
        self._networking_changed()

    def _networking_changed(self) -> None:
        self.network_loop.bell.ring()

    def _volume_deleted(self) -> None:
        self.volume_loop.bell.ring()

    async def start(self, step: Callable[[str], None], host_routes: Callable[[], list[str]]) -> None:
        """Open everything; the API answers when this returns. Raises SetupError in one line."""
        settings = self._settings
        self._lock.take("An Askos server")
        step("opening the database")
        await upgrade(self._database)
        await self._check_content_key()
        await self.images.recover()
        await self.store.break_off_actions()
        pool = await self._pool(host_routes)
        policy.use(settings.policy_file)
        step("preparing identity")
        await self.identity.bootstrap(settings.paths.admin_password)
        step("starting the API")
        socket = settings.link_socket
        socket.unlink(missing_ok=True)
        await self.link.start(f"unix:{socket}")
        socket.chmod(0o600)
        await self._serve()
        locks.announce(facts.instance(settings.data), locks.Cloud(str(settings.data), pool))
        self._write_credentials()

    async def _check_content_key(self) -> None:
        """Say at once that content cannot be read, not when a capsule needs it."""
        count = await self.store.unreadable(self._sealer.fingerprint)
        if count:
            raise SetupError(
                f"The content key is not the one that secrets of {count} capsules and registries are encrypted with. "
                f"Put the right one into {self._settings.paths.content_key} or ASKOS_CONTENT_KEY. If it is lost for "
                "good, `askos admin forget-sealed` tells what that costs."
            )

    async def _pool(self, host_routes: Callable[[], list[str]]) -> str:
        settings = self._settings
        instance = facts.instance(settings.data)

        def choose() -> str:
            if settings.network.pool is not None:
                return settings.network.pool
            others = locks.pools_of_others(instance)
            return choose_pool(host_routes(), others, random.randrange(16))  # noqa: S311 - spreads, hides nothing

        return await self.store.fact("network_pool", choose)

    async def _serve(self) -> None:
        listen, limits = self._settings.listen, self._settings.limits
        found = Finder(self.images)
        app = application(
            store=self.store,
            admin=self.store,
            tickets=self.store,
            image_search=HubSearch(self._settings.images.search_url),
            volumes=self.volumes,
            calls=self.link,
            identity=self.identity,
            clock=now_us,
            healthy=self._database.ping,
            watch=self._watch,
            zones={ZONE},
            limits=Limits(
                limits.min_cpu,
                limits.max_cpu,
                limits.min_memory_mib,
                limits.max_memory_mib,
                archive_mib=limits.archive_mib,
            ),
            ratios=self._ratios,
            networking=self.networking,
            find_image=found.find,
            find_images=found.search,
            image_names=found.names,
            committer=self.committer,
            public_url=self._settings.listen.public_url,
            mounted=[
                *keystone_routes(self.identity, public_url=listen.public_url),
                *neutron_routes(self.networking, self.identity, public_url=listen.public_url),
                *cinder_routes(self.volumes, self.identity, public_url=listen.public_url),
                *glance_routes(self.images, self.identity, public_url=listen.public_url),
            ],
        )
        context: ssl.SSLContext | None = None
        if not listen.is_loopback:
            context = self._tls = tls.server_context(self._settings.paths, self._names())
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=2.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, listen.address, listen.port, ssl_context=context, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            where = f"{listen.address}:{listen.port}"
            if error.errno == errno.EADDRINUSE:
                raise SetupError(
                    f"Cannot listen on {where}: the port is in use. Choose another with --port or ASKOS_PORT."
                ) from error
            raise SetupError(f"Cannot listen on {where}: {error.strerror or error}.") from error

    def _write_credentials(self) -> None:
        """What clients on this machine need. Only while the first password is still in its file."""
        settings, paths = self._settings, self._settings.paths
        if not paths.admin_password.exists():
            return
        url = settings.listen.url
        credentials.write_files(
            settings.data,
            f"{url}/identity/v3",
            "admin",
            paths.admin_password.read_text().strip(),
            "admin",
            None if settings.listen.is_loopback else str(paths.cacert),
            f"{url}/v1",
        )

    async def run(self) -> None:
        """The standing loops, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.placement.run())
            group.create_task(self.volume_loop.run())
            group.create_task(self.network_loop.run())
            group.create_task(_every(3600, self.identity.purge))
            group.create_task(_every(600, self._prune))
            group.create_task(self._collect_images())
            group.create_task(self.image_supply.run())
            group.create_task(_every(86_400, self._renew_certificate))

    async def _collect_images(self) -> None:
        """At once, for what a crash has left; and now and then."""
        await _tried(self.images.collect)
        await _every(600, self.images.collect)

    async def _renew_certificate(self) -> None:
        if self._tls is not None:
            tls.refresh(self._tls, self._settings.paths, self._names())

    def _names(self) -> list[str]:
        return tls.certificate_names(self._settings.listen, self._settings.host.hostname)

    async def _prune(self) -> None:
        await self.store.prune_changes(KEEP_CHANGES)

    async def stop(self) -> None:
        """Close everything. What was accepted is in the database."""
        if self._runner is not None:
            await self._runner.cleanup()
        await self.committer.stop()
        await self.link.stop()
        self.identity.close()
        await self._database.close()
        self._settings.link_socket.unlink(missing_ok=True)
        self._lock.release()


async def _every(seconds: float, work: Callable[[], Awaitable[Any]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await _tried(work)


async def _tried(work: Callable[[], Awaitable[Any]]) -> None:
    with contextlib.suppress(AskosError):
        await work()
