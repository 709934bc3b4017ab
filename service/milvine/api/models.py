"""ModelService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from milvine.api import paging
from milvine.api.convert import evaluations, tuning, watching
from milvine.api.convert import models as convert
from milvine.api.convert.operations import operation_id
from milvine.api.convert.values import required_id
from milvine.api.operations import follow, start
from milvine.api.services import Context, Services
from milvine.domain.errors import NotFound
from milvine.domain.ids import new_id
from milvine.domain.model import Model
from milvine.domain.operation import OperationKind
from milvine.jobs.payloads import EvaluateRequest
from milvine.v1 import model_pb2, model_service_pb2_grpc
from milvine.v1 import model_service_pb2 as pb


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Trains models and keeps them."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def TrainModel(
        self, request: pb.TrainModelRequest, context: Context
    ) -> operations_pb2.Operation:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        catalog = await asyncio.to_thread(self._services.records.catalogs.get, catalog_id)
        training = convert.training(request, catalog, self._services.families, model_id=new_id("m"))
        return await start(self._services.records, OperationKind.TRAIN, training, exclusive=True)

    async def TuneModel(
        self, request: pb.TuneModelRequest, context: Context
    ) -> operations_pb2.Operation:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        catalog = await asyncio.to_thread(self._services.records.catalogs.get, catalog_id)
        search = tuning.tuning(request, catalog, self._services.families)
        return await start(self._services.records, OperationKind.TUNE, search, exclusive=True)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> model_pb2.Model:
        model_id = required_id(request.model_id, "model_id")
        model = await asyncio.to_thread(self._services.records.models.get, model_id)
        return convert.model_message(model)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        catalog_id = required_id(request.catalog_id, "catalog_id")
        found = await asyncio.to_thread(self._list, catalog_id, paging.page_of(request))
        shown, token = paging.cut(request, found, lambda model: model.id)
        models = [convert.model_message(model) for model in shown]
        return pb.ListModelsResponse(models=models, next_page_token=token)

    async def EvaluateModel(
        self, request: pb.EvaluateModelRequest, context: Context
    ) -> operations_pb2.Operation:
        request.model_id = required_id(request.model_id, "model_id")
        release_id = request.release_id and required_id(request.release_id, "release_id")
        evaluation = await asyncio.to_thread(self._evaluation, request, release_id)
        return await start(
            self._services.records, OperationKind.EVALUATE, evaluation, exclusive=False
        )

    async def DeleteModel(
        self, request: pb.DeleteModelRequest, context: Context
    ) -> empty_pb2.Empty:
        model_id = required_id(request.model_id, "model_id")
        timeout_s = self._services.timeout_s(context)
        await self._services.releases.delete_model(model_id, timeout_s=timeout_s)
        return empty_pb2.Empty()

    async def WatchTraining(
        self, request: pb.WatchTrainingRequest, context: Context
    ) -> AsyncIterator[pb.WatchTrainingResponse]:
        training_id = operation_id(request.operation_name, "operation_name")
        news = watching.TrainingNews()
        async for operation in follow(self._services.records, training_id):
            if operation.kind is not OperationKind.TRAIN:
                raise NotFound.of("operation", training_id)
            for message in news.since_last(operation):
                yield message

    def _evaluation(self, request: pb.EvaluateModelRequest, release_id: str) -> EvaluateRequest:
        records = self._services.records
        model = records.models.get(request.model_id)
        release = records.releases.get(release_id) if release_id else None
        return evaluations.measuring(
            request, model, records.catalogs.get(model.catalog_id), release
        )

    def _list(self, catalog_id: str, page: paging.Page) -> Sequence[Model]:
        self._services.records.catalogs.get(catalog_id)
        return self._services.records.models.list(catalog_id, limit=page.limit, after=page.after)
