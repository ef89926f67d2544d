"""The OCI runtimes that pods and containers may ask for by name."""

from __future__ import annotations

from askos.ports.store import Store


async def offered(store: Store) -> set[str]:
    """The names of the runtimes that at least one host has, be it connected now or not."""
    return {runtime for host in await store.hosts() for runtime in host.facts.runtimes}
