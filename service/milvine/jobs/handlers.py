"""What a worker does for each kind of operation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from milvine.artifacts import Artifacts
from milvine.domain.entity import Side
from milvine.domain.errors import FailedPrecondition, NotFound, Reason
from milvine.domain.model import Model
from milvine.domain.operation import OperationKind
from milvine.domain.progress import TrainProgress
from milvine.domain.release import PublishRequest, ReleaseState
from milvine.jobs.payloads import (
    EraseUserRequest,
    EraseUserResult,
    EvaluateRequest,
    PublishResult,
    TrainRequest,
    TrainResult,
    TuneResult,
    from_json,
)
from milvine.jobs.runner import Handler, Job, Stop
from milvine.jobs.tuning import search
from milvine.records import Records, StrayKind
from milvine.releases import Builder, LiveItems, live_items_of
from milvine.text import TextEncoder, text_encoder
from milvine.training import Measuring, measure, memory_told, read_texts, train
from milvine.vectors import CollectionMissing, CollectionNotLoaded, Vectors

DELETE_S = 30.0

T = TypeVar("T")


def handlers(
    records: Records,
    vectors: Vectors,
    artifacts: Artifacts,
    *,
    device: str,
    encoder: TextEncoder | None = None,
) -> Mapping[OperationKind, Handler]:
    """The handler of each kind; the encoder reads what items and users say, by default hashing."""
    tasks = _Tasks(records, vectors, artifacts, device, encoder or text_encoder("hashing"))
    return {
        OperationKind.TRAIN: tasks.train,
        OperationKind.TUNE: tasks.tune,
        OperationKind.EVALUATE: tasks.evaluate,
        OperationKind.PUBLISH: tasks.publish,
        OperationKind.ERASE_USER: tasks.erase_user,
    }


class _Tasks:
    def __init__(
        self,
        records: Records,
        vectors: Vectors,
        artifacts: Artifacts,
        device: str,
        encoder: TextEncoder,
    ) -> None:
        self._records = records
        self._vectors = vectors
        self._artifacts = artifacts
        self._device = device
        self._encoder = encoder

    async def train(self, job: Job) -> TrainResult:
        request = from_json(TrainRequest, job.operation.request)
        await _in_thread(lambda: self._train(request, job))
        return TrainResult(request.model_id)

    def _train(self, request: TrainRequest, job: Job) -> None:
        made = self._made(request.model_id)  # a worker died between the model and the result
        if made is None:
            told = memory_told(request.config, process_count=request.process_count)
            with told, self._checkpoints(job) as checkpoints:
                made = self._train_model(request, job, checkpoints)
        if made.divergence:
            raise FailedPrecondition(
                f"{made.divergence} as the model {made.id!r}",
                Reason.TRAINING_DIVERGED,
                {"model_id": made.id},
            )

    def _train_model(self, request: TrainRequest, job: Job, checkpoints: str) -> Model:
        job.report(TrainProgress())
        catalog = self._records.catalogs.get(request.catalog_id)
        read = request.holdout.read(request.event_types)
        events = self._records.interactions.scan(catalog.id, event_types=read or None)
        self._records.strays.note(StrayKind.ARTIFACT, request.model_id, job.operation.id)
        model: Model = train(
            events,
            catalog,
            request.config,
            request.holdout,
            model_id=request.model_id,
            display_name=request.display_name,
            event_types=request.event_types,
            artifacts=self._artifacts,
            device=self._device,
            report=job.report,
            cancelled=job.must_stop.is_set,
            read_fields=partial(self._records.entities.table, catalog.id),
            reader=self._encoder,
            texts=read_texts(self._records, catalog, self._encoder),
            checkpoints=checkpoints,
            process_count=request.process_count,
        )
        return self._records.models.create(model, made_by=job.operation)

    @contextlib.contextmanager
    def _checkpoints(self, job: Job) -> Iterator[str]:
        """The folder of an operation's checkpoints, which the sweeper removes after its end."""
        folder = f"checkpoints-{job.operation.id}"
        self._records.strays.note(StrayKind.ARTIFACT, folder, job.operation.id)
        try:
            yield folder
        finally:
            if job.stop is Stop.LOST:  # the end may have come, and the removal, before the last one
                self._records.strays.note(StrayKind.ARTIFACT, folder, job.operation.id)

    def _made(self, model_id: str) -> Model | None:
        try:
            return self._records.models.get(model_id)
        except NotFound:
            return None

    async def tune(self, job: Job) -> TuneResult:
        return await _in_thread(
            lambda: search(self._records, job, device=self._device, reader=self._encoder)
        )

    async def evaluate(self, job: Job) -> TrainResult:
        request = from_json(EvaluateRequest, job.operation.request)
        live = await self._live_items(request) if request.release_id else None
        await _in_thread(lambda: self._evaluate(request, job, live))
        return TrainResult(request.model_id)

    def _evaluate(self, request: EvaluateRequest, job: Job, live: LiveItems | None) -> None:
        model = self._records.models.get(request.model_id)
        read = request.holdout.read(model.event_types)
        with memory_told(model.config):
            evaluation = measure(
                self._records.interactions.scan(model.catalog_id, event_types=read or None),
                self._records.catalogs.get(model.catalog_id),
                model,
                request.holdout,
                Measuring(
                    self._artifacts,
                    self._device,
                    job.report,
                    job.must_stop.is_set,
                    partial(self._records.entities.table, model.catalog_id),
                    self._encoder,
                ),
                live=live,
            )
        self._records.models.set_evaluation(model.id, evaluation, made_by=job.operation)

    async def _live_items(self, request: EvaluateRequest) -> LiveItems:
        release = await asyncio.to_thread(self._records.releases.get, request.release_id)
        model = await asyncio.to_thread(self._records.models.get, request.model_id)
        return live_items_of(release, model.dimension, self._vectors)

    async def publish(self, job: Job) -> PublishResult:
        request = from_json(PublishRequest, job.operation.request)
        builder = Builder(self._records, self._vectors, self._artifacts, encoder=self._encoder)
        await builder.build(request, job.operation, job.report)
        return PublishResult(request.release_id)

    async def erase_user(self, job: Job) -> EraseUserResult:
        request = from_json(EraseUserRequest, job.operation.request)
        # The vectors first: when their store is away, nothing is erased yet and nothing is lost.
        # What the follower or a build writes meanwhile, the tombstone has them delete again.
        release_ids = await self._erase_vectors(request.catalog_id, request.user_id)
        erased = await asyncio.to_thread(
            self._records.erasures.erase, job.operation.id, request.catalog_id, request.user_id
        )
        return EraseUserResult(
            had_metadata=erased.had_metadata,
            interaction_count=erased.interaction_count,
            release_ids=release_ids,
            erase_time=datetime.now(UTC),
        )

    async def _erase_vectors(self, catalog_id: str, user_id: str) -> tuple[str, ...]:
        """Delete a user's vectors; the releases that they are gone from.

        A build counts its rows, so it is left to delete the user itself before it is READY.
        """
        live = await asyncio.to_thread(self._records.releases.live)
        ready = [
            release
            for release in live
            if release.catalog_id == catalog_id and release.state is ReleaseState.READY
        ]
        for release in ready:
            for name in release.collections(Side.USER):
                # What is missing has no one's vector; what was unloaded, the follower clears.
                with contextlib.suppress(CollectionMissing, CollectionNotLoaded):
                    await self._vectors.delete(name, [user_id], timeout_s=DELETE_S)
        return tuple(release.id for release in ready)


async def _in_thread(work: Callable[[], T]) -> T:
    """Do work that looks at `job.must_stop`; a cancelled one has ended when this returns."""
    thread = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        # The thread stops within a second; the next job begins after it.
        await asyncio.gather(thread, return_exceptions=True)
        raise
