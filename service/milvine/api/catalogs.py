"""CatalogService."""

from __future__ import annotations

import asyncio

from google.protobuf import empty_pb2

from milvine.api import paging
from milvine.api.convert import catalogs as convert
from milvine.api.convert.values import required_id
from milvine.api.recent import RecentCatalogs
from milvine.api.services import Context, Services
from milvine.v1 import catalog_pb2, catalog_service_pb2_grpc
from milvine.v1 import catalog_service_pb2 as pb


class CatalogServicer(catalog_service_pb2_grpc.CatalogServiceServicer):
    """Manages catalogs."""

    def __init__(self, services: Services, catalogs: RecentCatalogs) -> None:
        self._services = services
        self._catalogs = catalogs

    async def CreateCatalog(
        self, request: pb.CreateCatalogRequest, context: Context
    ) -> catalog_pb2.Catalog:
        catalog = convert.new_catalog(request)
        return convert.catalog_message(
            await asyncio.to_thread(self._services.records.catalogs.create, catalog)
        )

    async def GetCatalog(
        self, request: pb.GetCatalogRequest, context: Context
    ) -> catalog_pb2.Catalog:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        return convert.catalog_message(
            await asyncio.to_thread(self._services.records.catalogs.get, catalog_id)
        )

    async def ListCatalogs(
        self, request: pb.ListCatalogsRequest, context: Context
    ) -> pb.ListCatalogsResponse:
        page = paging.page_of(request)
        rows = await asyncio.to_thread(
            self._services.records.catalogs.list, limit=page.limit, after=page.after
        )
        shown, token = paging.cut(request, rows, lambda catalog: catalog.id)
        messages = [convert.catalog_message(catalog) for catalog in shown]
        return pb.ListCatalogsResponse(catalogs=messages, next_page_token=token)

    async def UpdateCatalog(
        self, request: pb.UpdateCatalogRequest, context: Context
    ) -> catalog_pb2.Catalog:
        change = convert.change(request)
        catalog_id = required_id(request.catalog.catalog_id, "catalog.catalog_id")
        updated = await asyncio.to_thread(
            self._services.records.catalogs.update, catalog_id, change
        )
        return convert.catalog_message(updated)

    async def DeleteCatalog(
        self, request: pb.DeleteCatalogRequest, context: Context
    ) -> empty_pb2.Empty:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        timeout_s = self._services.timeout_s(context)
        await self._services.releases.delete_catalog(
            catalog_id, force=request.force, timeout_s=timeout_s
        )
        self._catalogs.forget(catalog_id)
        return empty_pb2.Empty()
