"""UserService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.longrunning import operations_pb2

from milvine.api import paging
from milvine.api.convert.entities import user_message
from milvine.api.convert.values import required_id
from milvine.api.entities import Entities
from milvine.api.operations import start
from milvine.api.services import Context, Services
from milvine.api.streams import with_catalog
from milvine.domain.entity import Side
from milvine.domain.operation import OperationKind
from milvine.jobs.payloads import EraseUserRequest
from milvine.v1 import user_pb2, user_service_pb2_grpc
from milvine.v1 import user_service_pb2 as pb


class UserServicer(user_service_pb2_grpc.UserServiceServicer):
    """Manages the users of catalogs."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._users = Entities(services, Side.USER, user_message)

    async def UpsertUsers(
        self, request: pb.UpsertUsersRequest, context: Context
    ) -> pb.UpsertUsersResponse:
        count = await self._users.upsert(request.catalog_id, request.users)
        return pb.UpsertUsersResponse(user_count=count)

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> user_pb2.User:
        return await self._users.get(request.catalog_id, request.user_id)

    async def BatchGetUsers(
        self, request: pb.BatchGetUsersRequest, context: Context
    ) -> pb.BatchGetUsersResponse:
        users, missing = await self._users.batch_get(request.catalog_id, request.user_ids)
        return pb.BatchGetUsersResponse(users=users, missing_user_ids=missing)

    async def ListUsers(
        self, request: pb.ListUsersRequest, context: Context
    ) -> pb.ListUsersResponse:
        rows = await self._users.list(request.catalog_id, paging.page_of(request))
        users, token = paging.cut(request, rows, lambda user: user.user_id)
        return pb.ListUsersResponse(users=users, next_page_token=token)

    async def DeleteUsers(
        self, request: pb.DeleteUsersRequest, context: Context
    ) -> pb.DeleteUsersResponse:
        count = await self._users.delete(request.catalog_id, request.user_ids)
        return pb.DeleteUsersResponse(user_count=count)

    async def ImportUsers(
        self, request_iterator: AsyncIterator[pb.ImportUsersRequest], context: Context
    ) -> pb.ImportUsersResponse:
        batches = ((i, batch.users) async for i, batch in with_catalog(request_iterator))
        return pb.ImportUsersResponse(user_count=await self._users.load(batches))

    async def EraseUser(
        self, request: pb.EraseUserRequest, context: Context
    ) -> operations_pb2.Operation:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        erasure = EraseUserRequest(catalog_id, required_id(request.user_id, "user_id"))
        # Erasures don't disturb each other.
        return await start(
            self._services.records, OperationKind.ERASE_USER, erasure, exclusive=False
        )
