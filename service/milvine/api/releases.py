"""ReleaseService."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from milvine.api import paging
from milvine.api.convert import releases as convert
from milvine.api.convert.values import required_id
from milvine.api.operations import start
from milvine.api.services import Context, Services
from milvine.domain.catalog import Catalog
from milvine.domain.ids import new_id
from milvine.domain.operation import OperationKind
from milvine.domain.release import Release
from milvine.v1 import release_pb2, release_service_pb2_grpc
from milvine.v1 import release_service_pb2 as pb


class ReleaseServicer(release_service_pb2_grpc.ReleaseServiceServicer):
    """Brings models into service."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def PublishModel(
        self, request: pb.PublishModelRequest, context: Context
    ) -> operations_pb2.Operation:
        model_id = required_id(request.model_id, "model_id")
        model = await asyncio.to_thread(self._services.records.models.get, model_id)
        publication = convert.publication(request, model, release_id=new_id("r"))
        return await start(
            self._services.records, OperationKind.PUBLISH, publication, exclusive=True
        )

    async def GetRelease(
        self, request: pb.GetReleaseRequest, context: Context
    ) -> release_pb2.Release:
        release_id = required_id(request.release_id, "release_id")
        return await asyncio.to_thread(self._message, release_id)

    async def ListReleases(
        self, request: pb.ListReleasesRequest, context: Context
    ) -> pb.ListReleasesResponse:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        page = paging.page_of(request)
        catalog, found = await asyncio.to_thread(self._list, catalog_id, page)
        shown, token = paging.cut(request, found, lambda release: release.id)
        releases = [convert.release_message(release, catalog) for release in shown]
        return pb.ListReleasesResponse(releases=releases, next_page_token=token)

    async def ActivateRelease(
        self, request: pb.ActivateReleaseRequest, context: Context
    ) -> release_pb2.Release:
        release_id = required_id(request.release_id, "release_id")
        timeout_s = self._services.timeout_s(context)
        await self._services.releases.activate(release_id, timeout_s=timeout_s)
        return await asyncio.to_thread(self._message, release_id)

    async def DeleteRelease(
        self, request: pb.DeleteReleaseRequest, context: Context
    ) -> empty_pb2.Empty:
        release_id = required_id(request.release_id, "release_id")
        timeout_s = self._services.timeout_s(context)
        await self._services.releases.delete(release_id, timeout_s=timeout_s)
        return empty_pb2.Empty()

    def _message(self, release_id: str) -> release_pb2.Release:
        release = self._services.records.releases.get(release_id)
        return convert.release_message(
            release, self._services.records.catalogs.get(release.catalog_id)
        )

    def _list(self, catalog_id: str, page: paging.Page) -> tuple[Catalog, Sequence[Release]]:
        catalog = self._services.records.catalogs.get(catalog_id)
        return catalog, self._services.records.releases.list(
            catalog_id, limit=page.limit, after=page.after
        )
