"""What a worker does for each kind of operation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from milvine.artifacts import Artifacts
from milvine.domain.entity import Side
from milvine.domain.errors import NotFound
from milvine.domain.model import Model
from milvine.domain.operation import OperationKind
from milvine.jobs.payloads import (
    EraseUserRequest,
    EraseUserResult,
    PublishProgress,
    PublishRequest,
    PublishResult,
    PublishStage,
    TrainProgress,
    TrainRequest,
    TrainResult,
    TrainStage,
    from_json,
)
from milvine.jobs.runner import Handler, Job
from milvine.records import Records
from milvine.releases import Builder, Order, Progress, collections
from milvine.training.train import TrainingProgress, train
from milvine.vectors import Vectors

DELETE_S = 30.0


def handlers(
    records: Records, vectors: Vectors, artifacts: Artifacts, *, device: str
) -> Mapping[OperationKind, Handler]:
    """The handler of each kind."""
    tasks = _Tasks(records, vectors, artifacts, device)
    return {
        OperationKind.TRAIN: tasks.train,
        OperationKind.PUBLISH: tasks.publish,
        OperationKind.ERASE_USER: tasks.erase_user,
    }


class _Tasks:
    def __init__(
        self, records: Records, vectors: Vectors, artifacts: Artifacts, device: str
    ) -> None:
        self._records = records
        self._vectors = vectors
        self._artifacts = artifacts
        self._device = device

    async def train(self, job: Job) -> TrainResult:
        request = from_json(TrainRequest, job.operation.request)
        thread = asyncio.create_task(asyncio.to_thread(self._train, request, job))
        try:
            await asyncio.shield(thread)
        except asyncio.CancelledError:
            # The thread sees `job.cancelled` within a second; the next job begins after it.
            job.cancelled.set()
            await asyncio.gather(thread, return_exceptions=True)
            raise
        return TrainResult(request.model_id)

    def _train(self, request: TrainRequest, job: Job) -> None:
        if self._is_trained(request.model_id):  # a worker died between the model and the result
            return
        job.report(TrainProgress())
        catalog = self._records.catalogs.get(request.catalog_id)
        events = self._records.interactions.scan(
            catalog.id, event_types=request.event_types or None
        )
        model: Model = train(
            events,
            catalog,
            request.config,
            request.holdout,
            model_id=request.model_id,
            display_name=request.display_name,
            artifacts=self._artifacts,
            device=self._device,
            report=lambda progress: job.report(_train_progress(progress)),
            cancelled=job.cancelled.is_set,
        )
        self._records.models.create(replace(model, event_types=request.event_types))
        job.report(TrainProgress(TrainStage.SAVING, 1.0))

    def _is_trained(self, model_id: str) -> bool:
        try:
            self._records.models.get(model_id)
        except NotFound:
            return False
        return True

    async def publish(self, job: Job) -> PublishResult:
        request = from_json(PublishRequest, job.operation.request)
        order = Order(
            request.model_id,
            request.release_id,
            hold=request.hold,
            min_index_recall=request.min_index_recall,
            keep_releases=request.keep_releases,
        )
        builder = Builder(self._records, self._vectors, self._artifacts)
        await builder.build(order, lambda progress: job.report(_publish_progress(progress)))
        last = PublishStage.CHECKING if order.hold else PublishStage.ACTIVATING
        job.report(PublishProgress(last, 1.0))
        return PublishResult(request.release_id)

    async def erase_user(self, job: Job) -> EraseUserResult:
        request = from_json(EraseUserRequest, job.operation.request)
        catalog_id, user_id = request.catalog_id, request.user_id
        had_metadata = await asyncio.to_thread(
            self._records.entities.delete, catalog_id, Side.USER, [user_id]
        )
        erased = await asyncio.to_thread(self._records.interactions.erase, catalog_id, user_id)
        releases = [
            release
            for release in await asyncio.to_thread(self._records.releases.live)
            if release.catalog_id == catalog_id
        ]
        for release in releases:
            for name in collections(release, Side.USER):
                await self._vectors.delete(name, [user_id], timeout_s=DELETE_S)
        return EraseUserResult(
            had_metadata=had_metadata > 0,
            interaction_count=erased,
            release_ids=tuple(release.id for release in releases),
            erase_time=datetime.now(UTC),
        )


def _train_progress(progress: TrainingProgress) -> TrainProgress:
    return TrainProgress(TrainStage(progress.stage), progress.progress, progress.epochs)


def _publish_progress(progress: Progress) -> PublishProgress:
    return PublishProgress(PublishStage(progress.stage), progress.progress)
