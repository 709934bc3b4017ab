"""What ItemService and UserService have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, TypeVar

from milvine.api.convert import entities as convert
from milvine.api.convert.values import required_id, required_ids
from milvine.api.paging import Page
from milvine.api.services import Services
from milvine.domain.entity import Entity, Side
from milvine.domain.errors import NotFound

M = TypeVar("M", bound=convert.Message)


class Entities(Generic[M]):
    """The items or the users of catalogs, by messages."""

    def __init__(self, services: Services, side: Side, message: Callable[[Entity], M]) -> None:
        self._services = services
        self._side = side
        self._message = message

    async def upsert(self, catalog_id: str, messages: Sequence[M]) -> int:
        """Write a batch; how many there are."""
        return await self._services.records.writers.run(self._upsert, catalog_id, messages)

    async def load(self, batches: AsyncIterator[tuple[str, Sequence[M]]]) -> int:
        """Write a stream of batches; how many there are."""
        return sum([await self.upsert(catalog_id, batch) async for catalog_id, batch in batches])

    async def get(self, catalog_id: str, entity_id: str) -> M:
        """One of them; raises NotFound where there is none."""
        required_id(entity_id, f"{self._side}_id")
        found = await asyncio.to_thread(self._get, catalog_id, [entity_id])
        if not found:
            raise NotFound.of(self._side, entity_id)
        return self._message(found[0])

    async def batch_get(self, catalog_id: str, ids: Sequence[str]) -> tuple[list[M], list[str]]:
        """Those that exist in the order asked for, and the ids of the others."""
        wanted = self._ids(ids)
        found = await asyncio.to_thread(self._get, catalog_id, wanted)
        known = {entity.id for entity in found}
        return [self._message(e) for e in found], [i for i in wanted if i not in known]

    async def list(self, catalog_id: str, page: Page) -> Sequence[M]:
        """A page by id."""
        rows = await asyncio.to_thread(self._list, catalog_id, page)
        return [self._message(entity) for entity in rows]

    async def delete(self, catalog_id: str, ids: Sequence[str]) -> int:
        """Delete some; how many existed."""
        required_id(catalog_id, "catalog_id")
        doomed = self._ids(ids)
        records = self._services.records
        return await records.writers.run(records.entities.delete, catalog_id, self._side, doomed)

    def _ids(self, ids: Sequence[str]) -> Sequence[str]:
        path = f"{self._side}_ids"
        return required_ids(ids, path, least=1, most=convert.MAX_BATCH)

    def _upsert(self, catalog_id: str, messages: Sequence[M]) -> int:
        required_id(catalog_id, "catalog_id")
        catalog = self._services.records.catalogs.get(catalog_id)
        batch = convert.entities(messages, self._side, catalog)
        self._services.records.entities.upsert(catalog_id, self._side, batch)
        return len(batch)

    def _get(self, catalog_id: str, ids: Sequence[str]) -> Sequence[Entity]:
        self._check_catalog(catalog_id)
        return self._services.records.entities.get(catalog_id, self._side, ids)

    def _list(self, catalog_id: str, page: Page) -> Sequence[Entity]:
        self._check_catalog(catalog_id)
        return self._services.records.entities.list(
            catalog_id, self._side, limit=page.limit, after=page.after
        )

    def _check_catalog(self, catalog_id: str) -> None:
        """Raise NotFound for an unknown catalog, which reads would take for an empty one."""
        self._services.records.catalogs.get(required_id(catalog_id, "catalog_id"))
