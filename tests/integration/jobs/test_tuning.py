"""Searches for settings by a worker: none of their trials is lost, and they end when asked to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import pytest

from milvine.domain.errors import Cancelled
from milvine.domain.ids import new_id
from milvine.domain.model import Holdout, ModelConfig
from milvine.domain.operation import Operation, OperationKind, OperationState
from milvine.domain.progress import TuneProgress
from milvine.domain.tuning import Numbers, TuneMetric, TunePlan
from milvine.jobs.handlers import handlers
from milvine.jobs.payloads import (
    FollowingTraining,
    TuneRequest,
    TuneResult,
    from_json,
    to_json,
)
from milvine.jobs.runner import Job, Runner
from milvine.jobs.tuning import search
from milvine.text import text_encoder
from tests.integration.world import World, make_world

SOON_S = 60.0
SPACE = {"regularization": Numbers(0.001, 1, is_log=True)}


@pytest.fixture
async def world(stores) -> World:
    """A catalog with interactions."""
    return await make_world(stores)


def submit(stores, world: World, *, trial_count: int = 4, following=None, **settings) -> str:
    """Ask for a search, once nobody waits for other work."""
    while stores.records.operations.claim("idle", lease_s=SOON_S):
        pass
    config = ModelConfig("als", {"embedding_size": 4, "epochs": 1} | settings)
    plan = TunePlan(config, SPACE, trial_count, TuneMetric.NDCG, 20, Holdout())
    request = TuneRequest(world.catalog.id, plan, following=following)
    operation = Operation(new_id("o"), world.catalog.id, OperationKind.TUNE, to_json(request))
    return stores.records.operations.create(operation, exclusive=False).id


@contextlib.asynccontextmanager
async def working(stores):
    """Run a worker inside the block."""
    stopping = asyncio.Event()
    of_kind = handlers(stores.records, stores.vectors, stores.artifacts, device="cpu")
    runner = Runner(stores.records, of_kind, worker_id=new_id("w"), lease_s=SOON_S)
    task = asyncio.create_task(runner.run(stopping))
    yield
    stopping.set()
    await asyncio.wait_for(task, SOON_S)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110 - a database changes
            await asyncio.sleep(0.02)


class Dying(Job):
    """A job whose worker dies when so many trials are done."""

    def report(self, progress: object) -> None:
        """Stop at the second trial."""
        super().report(progress)
        if len(progress.trials) == 2:
            self.must_stop.set()


async def test_trials_outlive_their_worker(stores, world):
    """Another worker goes on from the trials that the row has, and fits none of them again."""
    name = submit(stores, world)
    dying = Dying(stores.records.operations.claim("dying", lease_s=-1.0))
    with pytest.raises(Cancelled):
        await asyncio.to_thread(
            search, stores.records, dying, device="cpu", reader=text_encoder("hashing")
        )
    told = to_json(dying.progress)
    stores.records.operations.heartbeat(name, "dying", lease_s=-1.0, progress=told)
    async with working(stores):
        await until(lambda: stores.records.operations.get(name).state.is_done)

    ended = stores.records.operations.get(name)
    assert (ended.state, ended.attempts) == (OperationState.SUCCEEDED, 2)
    trials = from_json(TuneResult, ended.result).trials
    assert trials[:2] == from_json(TuneProgress, told).trials  # with the seconds they took
    assert len(trials) == 4


async def test_the_best_settings_are_trained_afterwards(stores, world):
    """The training is an operation of its own, with the best settings and what was fixed."""
    following = FollowingTraining(new_id("o"), new_id("m"), "Best")
    name = submit(stores, world, following=following)
    async with working(stores):
        trained = stores.records.operations.get
        await until(lambda: stores.records.operations.get(name).state.is_done)
        await until(lambda: trained(following.operation_id).state.is_done)

    result = from_json(TuneResult, stores.records.operations.get(name).result)
    model = stores.records.models.get(following.model_id)
    assert model.config == result.best_config
    assert (model.display_name, model.config.settings["embedding_size"]) == ("Best", 4)
    assert model.evaluation.user_count == 60
    assert len(model.holdout_epochs) == len(model.epochs) == 1


async def test_a_client_cancels_a_search(stores, world):
    """It ends soon, in the middle of a trial, and its row keeps the trials that had ended."""
    name = submit(stores, world, trial_count=500, epochs=3)
    async with working(stores):
        row = stores.records.operations.get
        await until(lambda: from_json(TuneProgress, row(name).progress).trials)
        start = time.monotonic()
        stores.records.operations.request_cancel(name)
        await until(lambda: row(name).state.is_done)
        assert time.monotonic() - start < 5.0

    ended = row(name)
    assert ended.state is OperationState.CANCELLED
    assert from_json(TuneProgress, ended.progress).trials
