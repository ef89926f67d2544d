"""One kind of thing of the network service: the five things that can be done with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from aiohttp import web

from askos.api.neutron import listing
from askos.api.neutron.context import BASE, Ask, Context
from askos.api.service import Json, nothing, reply
from askos.model.errors import NotFoundError

COMMON = frozenset({"id", "tags", "tags-any", "not-tags", "not-tags-any", "description", "revision_number"})


class Resource(ABC):
    """What kinds of things have in common. A kind says how its things are found, shown, made and changed."""

    single: ClassVar[str]
    plural: ClassVar[str]
    path: ClassVar[str]
    """Below /v2.0."""
    filters: ClassVar[frozenset[str]]
    missing: ClassVar[tuple[str, str]]
    """The sentence and the code for one that is not there."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.store = context.store

    @abstractmethod
    async def views(self, ask: Ask, ids: list[str] | None) -> list[Json]:
        """Those that the caller sees: all, or those of the ids that are there."""

    @abstractmethod
    async def make(self, ask: Ask, body: Json) -> Json:
        """Make one as the body says."""

    @abstractmethod
    async def change(self, ask: Ask, view: Json, body: Json) -> Json:
        """Change one, shown as it is now, as the body says."""

    @abstractmethod
    async def remove(self, ask: Ask, view: Json) -> None:
        """Remove one."""

    # -- what is the same for all ------------------------------------------------------------------------------

    async def one(self, ask: Ask, ident: str) -> Json:
        """One that the caller sees. NotFoundError."""
        found = await self.views(ask, [ident])
        if not found:
            sentence, code = self.missing
            raise NotFoundError(sentence.format(ident), code)
        return found[0]

    async def _list(self, ask: Ask) -> web.Response:
        views = await self.views(ask, ask.values("id") or None)
        return listing.answer(ask, self.plural, views, self.filters | COMMON)

    async def _show(self, ask: Ask) -> web.Response:
        return reply({self.single: listing.shaped(ask, await self.one(ask, ask.item))})

    async def _create(self, ask: Ask) -> web.Response:
        return reply({self.single: await self.make(ask, await ask.body(self.single))}, 201)

    async def _update(self, ask: Ask) -> web.Response:
        view = await self.one(ask, ask.item)
        ask.check_owner(view["project_id"], f"update_{self.single}")
        return reply({self.single: await self.change(ask, view, await ask.body(self.single))})

    async def _delete(self, ask: Ask) -> web.Response:
        view = await self.one(ask, ask.item)
        ask.check_owner(view["project_id"], f"delete_{self.single}")
        await self.remove(ask, view)
        return nothing()

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        many, one = f"{BASE}/{self.path}", f"{BASE}/{self.path}/{{item}}"
        handled = self.context.handled
        return [
            web.get(many, handled(self._list)),
            web.post(many, handled(self._create)),
            web.get(one, handled(self._show)),
            web.put(one, handled(self._update)),
            web.delete(one, handled(self._delete)),
        ]
