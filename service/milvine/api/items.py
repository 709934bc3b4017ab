"""ItemService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from milvine.api import paging
from milvine.api.convert.entities import item_message
from milvine.api.entities import Entities
from milvine.api.services import Context, Services
from milvine.api.streams import with_catalog
from milvine.domain.entity import Side
from milvine.v1 import item_pb2, item_service_pb2_grpc
from milvine.v1 import item_service_pb2 as pb


class ItemServicer(item_service_pb2_grpc.ItemServiceServicer):
    """Manages the items of catalogs."""

    def __init__(self, services: Services) -> None:
        self._items = Entities(services, Side.ITEM, item_message)

    async def UpsertItems(
        self, request: pb.UpsertItemsRequest, context: Context
    ) -> pb.UpsertItemsResponse:
        count = await self._items.upsert(request.catalog_id, request.items)
        return pb.UpsertItemsResponse(item_count=count)

    async def GetItem(self, request: pb.GetItemRequest, context: Context) -> item_pb2.Item:
        return await self._items.get(request.catalog_id, request.item_id)

    async def BatchGetItems(
        self, request: pb.BatchGetItemsRequest, context: Context
    ) -> pb.BatchGetItemsResponse:
        items, missing = await self._items.batch_get(request.catalog_id, request.item_ids)
        return pb.BatchGetItemsResponse(items=items, missing_item_ids=missing)

    async def ListItems(
        self, request: pb.ListItemsRequest, context: Context
    ) -> pb.ListItemsResponse:
        rows = await self._items.list(request.catalog_id, paging.page_of(request))
        items, token = paging.cut(request, rows, lambda item: item.item_id)
        return pb.ListItemsResponse(items=items, next_page_token=token)

    async def DeleteItems(
        self, request: pb.DeleteItemsRequest, context: Context
    ) -> pb.DeleteItemsResponse:
        count = await self._items.delete(request.catalog_id, request.item_ids)
        return pb.DeleteItemsResponse(item_count=count)

    async def ImportItems(
        self, request_iterator: AsyncIterator[pb.ImportItemsRequest], context: Context
    ) -> pb.ImportItemsResponse:
        batches = ((i, batch.items) async for i, batch in with_catalog(request_iterator))
        return pb.ImportItemsResponse(item_count=await self._items.load(batches))
