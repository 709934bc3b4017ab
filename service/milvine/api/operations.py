"""google.longrunning.Operations, and how other services start operations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import empty_pb2
from google.protobuf.message import Message

from milvine.api import paging
from milvine.api.convert import operations as convert
from milvine.api.convert import tuning
from milvine.api.convert.models import model_message
from milvine.api.convert.releases import release_message
from milvine.api.services import Context, Services
from milvine.domain.errors import NotFound
from milvine.domain.ids import new_id
from milvine.domain.operation import Operation, OperationKind, OperationState
from milvine.jobs.payloads import PublishResult, TrainResult, from_json, to_json
from milvine.records import Records
from milvine.v1 import model_pb2, release_pb2

POLL_S = 0.15
_ANSWER_S = 0.2
"""What Wait leaves of a deadline to answer before it."""


class Payload(Protocol):
    """The request of an operation."""

    @property
    def catalog_id(self) -> str:
        """The catalog that it works on."""


async def start(
    records: Records, kind: OperationKind, payload: Payload, *, exclusive: bool
) -> operations_pb2.Operation:
    """Queue an operation; `exclusive` raises Aborted where the catalog has one of its kind."""
    operation = Operation(new_id("o"), payload.catalog_id, kind, to_json(payload))
    created = await asyncio.to_thread(records.operations.create, operation, exclusive=exclusive)
    return convert.operation_message(created, None)


async def follow(records: Records, operation_id: str) -> AsyncIterator[Operation]:
    """Yield an operation again and again, at last when it is done."""
    operation = await asyncio.to_thread(records.operations.get, operation_id)
    while not operation.state.is_done:
        yield operation
        await asyncio.sleep(POLL_S)
        operation = await asyncio.to_thread(records.operations.get, operation_id)
    yield operation


class OperationsServicer(operations_pb2_grpc.OperationsServicer):  # type: ignore[misc] # no types
    """Follows and steers long work."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def GetOperation(
        self, request: operations_pb2.GetOperationRequest, context: Context
    ) -> operations_pb2.Operation:
        operation_id = convert.operation_id(request.name)
        return await asyncio.to_thread(self._message_of, operation_id)

    async def ListOperations(
        self, request: operations_pb2.ListOperationsRequest, context: Context
    ) -> operations_pb2.ListOperationsResponse:
        convert.check_listed(request)
        page = paging.page_of(request)
        rows = await asyncio.to_thread(
            self._services.records.operations.list, limit=page.limit, after=page.after
        )
        shown, token = paging.cut(request, rows, lambda operation: operation.id)
        messages = await asyncio.to_thread(lambda: [self._message(row) for row in shown])
        return operations_pb2.ListOperationsResponse(operations=messages, next_page_token=token)

    async def WaitOperation(
        self, request: operations_pb2.WaitOperationRequest, context: Context
    ) -> operations_pb2.Operation:
        operation_id = convert.operation_id(request.name)
        wait_s = self._services.timeout_s(context) - _ANSWER_S
        if request.HasField("timeout"):
            wait_s = min(wait_s, convert.seconds(request.timeout, "timeout"))
        ends = time.monotonic() + wait_s
        async for operation in follow(self._services.records, operation_id):
            if operation.state.is_done or time.monotonic() + POLL_S > ends:
                break
        return await asyncio.to_thread(self._message, operation)

    async def CancelOperation(
        self, request: operations_pb2.CancelOperationRequest, context: Context
    ) -> empty_pb2.Empty:
        operation_id = convert.operation_id(request.name)
        await asyncio.to_thread(self._services.records.operations.request_cancel, operation_id)
        return empty_pb2.Empty()

    async def DeleteOperation(
        self, request: operations_pb2.DeleteOperationRequest, context: Context
    ) -> empty_pb2.Empty:
        operation_id = convert.operation_id(request.name)
        await asyncio.to_thread(self._services.records.operations.delete, operation_id)
        return empty_pb2.Empty()

    def _message_of(self, operation_id: str) -> operations_pb2.Operation:
        return self._message(self._services.records.operations.get(operation_id))

    def _message(self, operation: Operation) -> operations_pb2.Operation:
        if operation.state is not OperationState.SUCCEEDED:
            return convert.operation_message(operation, None)
        return convert.operation_message(
            operation, _RESPONSES[operation.kind](self._services.records, operation)
        )


def _trained(records: Records, operation: Operation) -> model_pb2.Model:
    model_id = from_json(TrainResult, operation.result).model_id
    try:
        return model_message(records.models.get(model_id))
    except NotFound:  # deleted since
        return model_pb2.Model(model_id=model_id, catalog_id=operation.catalog_id)


def _published(records: Records, operation: Operation) -> release_pb2.Release:
    release_id = from_json(PublishResult, operation.result).release_id
    try:
        release = records.releases.get(release_id)
        return release_message(release, records.catalogs.get(release.catalog_id))
    except NotFound:  # deleted since
        return release_pb2.Release(release_id=release_id, catalog_id=operation.catalog_id)


_RESPONSES: Mapping[OperationKind, Callable[[Records, Operation], Message]] = {
    OperationKind.TRAIN: _trained,
    OperationKind.TUNE: lambda _, operation: tuning.response(operation),
    OperationKind.EVALUATE: _trained,
    OperationKind.PUBLISH: _published,
    OperationKind.ERASE_USER: lambda _, operation: convert.receipt(operation),
}
