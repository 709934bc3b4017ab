"""InteractionService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from itertools import count

import pyarrow as pa

from milvine.api import paging
from milvine.api.convert import interactions as convert
from milvine.api.convert.values import required_id
from milvine.api.recent import RecentCatalogs
from milvine.api.services import Context, Services
from milvine.api.streams import gathered, with_catalog
from milvine.domain.interaction import Appended
from milvine.v1 import interaction_pb2, interaction_service_pb2_grpc
from milvine.v1 import interaction_service_pb2 as pb

_GROUP = 8
"""Batches of a stream that are written together, and parsed ahead, at most."""


class InteractionServicer(interaction_service_pb2_grpc.InteractionServiceServicer):
    """Records what users did."""

    def __init__(self, services: Services, catalogs: RecentCatalogs) -> None:
        self._services = services
        self._catalogs = catalogs

    async def RecordInteractions(
        self, request: pb.RecordInteractionsRequest, context: Context
    ) -> pb.RecordInteractionsResponse:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        done = await self._services.records.writers.run(
            self._record, catalog_id, request.interactions
        )
        return pb.RecordInteractionsResponse(
            written_count=done.written, duplicate_count=done.duplicates
        )

    async def StreamInteractions(
        self, request_iterator: AsyncIterator[pb.StreamInteractionsRequest], context: Context
    ) -> AsyncIterator[pb.StreamInteractionsResponse]:
        indexes = count()
        # The next batches are read and parsed while these are written; those that are ready by
        # then share a commit.
        async with aclosing(gathered(self._parsed(request_iterator), most=_GROUP)) as groups:
            async for group in groups:
                written = await self._services.records.writers.run(self._append, group)
                for done in written:
                    yield pb.StreamInteractionsResponse(
                        batch_index=next(indexes),
                        written_count=done.written,
                        duplicate_count=done.duplicates,
                    )

    async def ListInteractions(
        self, request: pb.ListInteractionsRequest, context: Context
    ) -> pb.ListInteractionsResponse:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        user_id = required_id(request.user_id, "user_id")
        found = await asyncio.to_thread(self._page, catalog_id, user_id, paging.page_of(request))
        rows, token = paging.cut(request, found, convert.cursor)
        return pb.ListInteractionsResponse(
            interactions=[convert.interaction_message(row) for row in rows], next_page_token=token
        )

    async def _parsed(
        self, requests: AsyncIterator[pb.StreamInteractionsRequest]
    ) -> AsyncIterator[tuple[str, pa.Table]]:
        async for catalog_id, batch in with_catalog(requests):
            table = await asyncio.to_thread(self._table, catalog_id, batch.interactions)
            yield catalog_id, table

    def _append(self, group: Sequence[tuple[str, pa.Table]]) -> Sequence[Appended]:
        catalog_id, _ = group[0]  # a stream has one catalog
        tables = [table for _, table in group]
        return self._services.records.interactions.append_each(catalog_id, tables)

    def _record(self, catalog_id: str, messages: Sequence[interaction_pb2.Interaction]) -> Appended:
        table = self._table(catalog_id, messages)
        return self._services.records.interactions.append(catalog_id, table)

    def _table(self, catalog_id: str, messages: Sequence[interaction_pb2.Interaction]) -> pa.Table:
        return self._catalogs.use(catalog_id, partial(convert.table, messages))

    def _page(self, catalog_id: str, user_id: str, page: paging.Page) -> Sequence[convert.Row]:
        self._services.records.catalogs.get(catalog_id)
        place = convert.place(page.after)
        table = self._services.records.interactions.page(
            catalog_id, user_id, limit=page.limit, before=place
        )
        return convert.rows(table)
