"""Measuring models that were trained before, also through the live index."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pyarrow as pa
import pytest

from milvine.domain.catalog import IndexKind, VectorIndex
from milvine.domain.ids import new_id
from milvine.domain.interaction import INTERACTIONS
from milvine.domain.model import Holdout, HoldoutMethod, Model, ModelConfig
from milvine.domain.operation import Operation, OperationKind, OperationState
from milvine.domain.progress import EvaluateProgress, EvaluateStage
from milvine.jobs.handlers import handlers
from milvine.jobs.payloads import EvaluateRequest, to_json
from milvine.jobs.runner import Job
from milvine.training import recommender
from tests.integration.world import ALS, World, make_world, publish
from tests.publishing import WORKER

LATER_MICROS = 10_000_000


class Heard(Job):
    """A job whose steps a test looks at."""

    def __init__(self, operation: Operation) -> None:
        super().__init__(operation)
        self.stages: list[EvaluateStage] = []

    def report(self, progress: EvaluateProgress) -> None:
        """Remember the step, too."""
        super().report(progress)
        self.stages.append(progress.stage)


@pytest.fixture
async def world(stores) -> World:
    """A catalog with a trained model, whose users have gone on since."""
    return await gone_on(stores, ALS)


async def gone_on(stores, config: ModelConfig) -> World:
    """A catalog with a model of a config, and what users did after it was trained."""
    made = await make_world(stores, index=VectorIndex(kind=IndexKind.FLAT), config=config)
    others = sorted(made.items)
    later = [
        (user, item)
        for number, user in enumerate(sorted(made.seen))
        for item in (others[number], others[-number - 1], "an item that is new")
    ]
    stores.records.interactions.append(made.catalog.id, _events(later, LATER_MICROS))
    return made


async def test_what_came_later_measures_the_model_as_it_is(stores, world):
    """Nothing is fitted, users are encoded from what they did before, and new items are missed."""
    model, stages = await evaluate(stores, world, since(world))
    evaluation = model.evaluation
    assert not evaluation.fitted_anew
    assert stages == [EvaluateStage.READING, EvaluateStage.EVALUATING]
    assert evaluation.user_count == len(world.seen)
    assert evaluation.item_count > world.model.item_count
    assert 0 < evaluation.model[0].recall < 1
    assert stores.records.models.get(world.model.id) == model


async def test_what_was_learned_is_fitted_without(stores, world):
    """A holdout of what the model knows measures its settings, fitted on the rest."""
    holdout = Holdout(HoldoutMethod.RANDOM, 0.2, (5,), seed=3)
    model, stages = await evaluate(stores, world, holdout)
    assert model.evaluation.fitted_anew
    assert model.evaluation.holdout == holdout
    assert EvaluateStage.FITTING in stages
    assert model.evaluation.user_count == len(world.seen)
    assert [metrics.cutoff for metrics in model.evaluation.model] == [5]


async def test_the_live_index_is_measured_beside(stores, world):
    """An exact index finds what exact scores find, and loses nothing."""
    release = await publish(stores, world, "ea" + world.model.id)
    model, _ = await evaluate(stores, world, since(world), release_id=release.id)
    live = model.evaluation.live
    assert live.release_id == release.id
    assert live.index_recall == 1.0
    for found, exact in zip(live.metrics, model.evaluation.model, strict=True):
        assert found.recall == pytest.approx(exact.recall, abs=0.01)
        assert found.ndcg == pytest.approx(exact.ndcg, abs=0.01)


async def test_a_network_ranks_what_the_live_index_found(stores, monkeypatch):
    """A model with a scorer is measured as it is served, exactly and by the index."""
    config = ModelConfig("neural_cf", {"embedding_size": 8, "epochs": 20, "learning_rate": 0.02})
    world = await gone_on(stores, config)
    release = await publish(stores, world, "en" + world.model.id)
    model, _ = await evaluate(stores, world, since(world), release_id=release.id)
    assert model.evaluation.live.index_recall == 1.0
    for found, exact in zip(model.evaluation.live.metrics, model.evaluation.model, strict=True):
        assert found.ndcg == pytest.approx(exact.ndcg)
    monkeypatch.setattr(recommender, "MOST_RERANKED", 1)
    factorised, _ = await evaluate(stores, world, since(world))
    assert factorised.evaluation.model[-1].ndcg != model.evaluation.model[-1].ndcg


async def test_a_time_at_which_nothing_came_is_refused(stores, world):
    """Where nothing is held out the operation fails, and the model keeps what it had."""
    holdout = Holdout(HoldoutMethod.AFTER, start_time=since(world).start_time + timedelta(days=9))
    with pytest.raises(Exception, match="nothing is held out"):
        await evaluate(stores, world, holdout)
    assert stores.records.models.get(world.model.id) == world.model


async def test_a_cancelled_evaluation_changes_nothing(stores, world):
    """A cancel ends it within a second or so."""
    job = claimed(stores, EvaluateRequest(world.catalog.id, world.model.id, Holdout()))
    job.must_stop.set()
    with pytest.raises(Exception, match="cancelled"):
        await handler(stores)(job)
    assert stores.records.models.get(world.model.id) == world.model


async def evaluate(stores, world: World, holdout: Holdout, release_id: str = ""):
    """Evaluate as a worker does: the model, and the steps that were told."""
    request = EvaluateRequest(world.catalog.id, world.model.id, holdout, release_id)
    job = claimed(stores, request)
    result = await handler(stores)(job)
    stores.records.operations.finish(job.operation.id, WORKER, state=OperationState.SUCCEEDED)
    model: Model = await asyncio.to_thread(stores.records.models.get, result.model_id)
    return model, list(dict.fromkeys(job.stages))


def handler(stores):
    """What does evaluations."""
    of_kind = handlers(stores.records, stores.vectors, stores.artifacts, device="cpu")
    return of_kind[OperationKind.EVALUATE]


def claimed(stores, request: EvaluateRequest) -> Heard:
    """An evaluation that a worker has taken up."""
    body = to_json(request)
    operation = Operation(new_id("o"), request.catalog_id, OperationKind.EVALUATE, body)
    stores.records.operations.create(operation, exclusive=False)
    while found := stores.records.operations.claim(WORKER, lease_s=60.0):
        if found.id == operation.id:
            return Heard(found)
    raise AssertionError("someone else took the operation up")


def since(world: World) -> Holdout:
    """All that came after what the model learned from."""
    start = world.model.latest_event_time + timedelta(microseconds=1)
    return Holdout(HoldoutMethod.AFTER, start_time=start)


def _events(pairs: list[tuple[str, str]], micros: int) -> pa.Table:
    users, items = zip(*pairs, strict=True)
    count = len(pairs)
    columns = {
        "event_id": pa.nulls(count, pa.string()),
        "user_id": pa.array(users),
        "item_id": pa.array(items),
        "event_type": pa.array(["view"] * count),
        "value": pa.nulls(count, pa.float64()),
        "event_time": pa.array([micros] * count, pa.int64()),
    }
    return pa.table(columns, schema=INTERACTIONS)
