"""/subnetpools."""

from __future__ import annotations

import msgspec

from askos.api.neutron.context import Ask, time_of
from askos.api.neutron.fields import Fields, wrong
from askos.api.neutron.resource import Resource
from askos.api.service import Json
from askos.model.errors import AskosError
from askos.model.networks import SubnetPool
from askos.plan import pools

_LEAST = {4: 8, 6: 64}
"""The shortest prefix of a subnet where none is given."""


class SubnetPools(Resource):
    """Subnet pools."""

    single, plural, path = "subnetpool", "subnetpools", "subnetpools"
    missing = ("Subnet pool {} could not be found.", "subnet-pool-not-found")
    filters = frozenset({
        "name", "tenant_id", "project_id", "shared", "is_default", "ip_version", "default_prefixlen", "min_prefixlen",
        "max_prefixlen", "address_scope_id", "default_quota",
    })  # fmt: skip

    async def views(self, ask: Ask, ids: list[str] | None) -> list[Json]:
        """See `Resource`."""
        wanted = None if ids is None else set(ids)
        return [
            pool_view(pool)
            for pool in await self.store.subnet_pools(ask.scope)
            if wanted is None or pool.uuid in wanted
        ]

    async def make(self, ask: Ask, body: Json) -> Json:
        """See `Resource`."""
        project_id = ask.owner(body)
        fields = Fields(body)
        prefixes = _prefixes(fields)
        if not prefixes:
            raise wrong("prefixes", "a pool needs at least one.")
        shared = fields.flag("shared")
        if shared:
            ask.check_admin("create_subnetpool:shared")
        version = pools.version_of(prefixes[0])
        lengths = _lengths(fields, version)
        least = lengths.get("prefix_min", _LEAST[version])
        new = SubnetPool(
            uuid="",
            project_id=project_id,
            name=fields.text("name") or "",
            prefixes=prefixes,
            prefix_default=lengths.get("prefix_default", least),
            prefix_min=least,
            prefix_max=lengths.get("prefix_max", pools.BITS[version]),
            description=fields.text("description") or "",
            shared=bool(shared),
            quota=_quota(fields),
        )
        self._constant(fields)
        return pool_view(await self.store.create_pool(_checked(new)))

    @staticmethod
    def _constant(fields: Fields) -> None:
        fields.only(is_default=False, address_scope_id=None, tags=[])
        fields.done()

    async def change(self, ask: Ask, view: Json, body: Json) -> Json:
        """See `Resource`."""
        del ask
        fields = Fields(body)
        name, description, prefixes = fields.text("name"), fields.text("description"), _prefixes(fields)
        lengths = _lengths(fields, view["ip_version"])
        keep_quota, quota = not fields.has("default_quota"), _quota(fields)
        fields.only(shared=view["shared"])
        self._constant(fields)

        def change(pool: SubnetPool) -> SubnetPool:
            if prefixes is not None and not _holds(prefixes, pool.prefixes):
                raise wrong("prefixes", "a pool keeps those it has; more can be added.")
            given = {"name": name, "description": description, "prefixes": prefixes, **lengths}
            changed = {key: value for key, value in given.items() if value is not None}
            return _checked(msgspec.structs.replace(pool, **{**changed, "quota": pool.quota if keep_quota else quota}))

        return pool_view(await self.store.update_pool(view["id"], change))

    async def remove(self, ask: Ask, view: Json) -> None:
        """See `Resource`."""
        del ask
        await self.store.delete_pool(view["id"])


def _prefixes(fields: Fields) -> list[str] | None:
    given = fields.idents("prefixes")
    if given is None:
        return None
    found = []
    for text in given:
        try:
            found.append(str(pools.net_of(text)))
        except AskosError:
            raise wrong("prefixes", f"'{text}' is not a valid IP subnet.") from None
    if len({pools.version_of(one) for one in found}) > 1:
        raise wrong("prefixes", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.")
    return found


def _holds(prefixes: list[str], those: list[str]) -> bool:
    """Whether all of those lie within the prefixes."""
    outer = [pools.net_of(one) for one in prefixes]
    return all(
        any(net.version == inner.version and inner.subnet_of(net) for net in outer)  # type: ignore[arg-type]
        for inner in map(pools.net_of, those)
    )


def _lengths(fields: Fields, version: int) -> dict[str, int]:
    """The lengths of prefixes that were given."""
    given = {
        ours: fields.number(theirs, 0, pools.BITS[version])
        for ours, theirs in (
            ("prefix_default", "default_prefixlen"),
            ("prefix_min", "min_prefixlen"),
            ("prefix_max", "max_prefixlen"),
        )
    }
    return {ours: value for ours, value in given.items() if value is not None}


def _quota(fields: Fields) -> int | None:
    """In addresses of IPv4, in /64 networks of IPv6; null: all."""
    return fields.number("default_quota", 0, 1 << 31)


def _checked(pool: SubnetPool) -> SubnetPool:
    if not pool.prefix_min <= pool.prefix_default <= pool.prefix_max:
        raise wrong(
            "default_prefixlen",
            f"it must lie between min_prefixlen {pool.prefix_min} and max_prefixlen {pool.prefix_max}, and not be "
            f"{pool.prefix_default}.",
        )
    return pool


def pool_view(pool: SubnetPool) -> Json:
    """A subnet pool as Neutron shows it."""
    return {
        "id": pool.uuid,
        "name": pool.name,
        "tenant_id": pool.project_id,
        "default_prefixlen": pool.prefix_default,
        "min_prefixlen": pool.prefix_min,
        "max_prefixlen": pool.prefix_max,
        "is_default": False,
        "shared": pool.shared,
        "prefixes": pool.prefixes,
        "ip_version": pools.version_of(pool.prefixes[0]),
        "default_quota": pool.quota,
        "address_scope_id": None,
        "description": pool.description,
        "tags": [],
        "created_at": time_of(pool.created_us),
        "updated_at": time_of(pool.updated_us),
        "revision_number": pool.changed,
        "project_id": pool.project_id,
    }
