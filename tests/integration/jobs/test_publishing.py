"""Publications and trainings that are interrupted: nothing is lost, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

import pytest

from milvine.domain.errors import Aborted, MilvineError, NotFound
from milvine.domain.ids import new_id
from milvine.domain.model import Holdout, HoldoutMethod, ModelConfig
from milvine.domain.operation import Operation, OperationKind, OperationState
from milvine.domain.progress import PublishProgress, PublishStage, TrainStage
from milvine.domain.release import ReleaseState
from milvine.jobs.handlers import handlers
from milvine.jobs.payloads import TrainRequest, to_json
from milvine.jobs.runner import Job, Runner
from milvine.releases import Builder, Releases, Sweeper
from milvine.vectors import Vectors
from tests.integration.world import World, make_world, order, publish
from tests.publishing import WORKER, claim

SOON_S = 60.0


@pytest.fixture
async def world(stores) -> World:
    """A catalog with a trained model."""
    return await make_world(stores)


class Hooked(Job):
    """A job whose reports a test sees as they are made."""

    def __init__(self, operation: Operation, on_report: Callable[[object], None]) -> None:
        super().__init__(operation)
        self._on_report = on_report

    def report(self, progress: object) -> None:
        """Tell the test, too."""
        super().report(progress)
        self._on_report(progress)


async def test_a_worker_that_stalled_destroys_nothing(stores, urls, world):
    """It wakes when another has built and activated the release: that one stays whole."""
    request = order(world, "sa" + world.model.id)
    stalled = claim(stores.records, request, lease_s=-1.0)
    asleep, awake = threading.Event(), threading.Event()

    def stall(progress: PublishProgress) -> None:
        if progress.stage is PublishStage.WRITING_USERS:
            asleep.set()
            assert awake.wait(SOON_S)

    async def build_slowly() -> None:
        vectors = await Vectors.connect(urls.vectors)
        try:
            await Builder(stores.records, vectors, stores.artifacts).build(request, stalled, stall)
        finally:
            await vectors.close()

    sleeper = asyncio.create_task(asyncio.to_thread(asyncio.run, build_slowly()))
    assert await asyncio.to_thread(asleep.wait, SOON_S)
    heir = stores.records.operations.claim("heir", lease_s=60)
    builder = Builder(stores.records, stores.vectors, stores.artifacts)
    release = await builder.build(request, heir, lambda _: None)
    awake.set()
    with pytest.raises(Aborted):
        await asyncio.wait_for(sleeper, SOON_S)
    stores.records.operations.finish(heir.id, "heir", state=OperationState.SUCCEEDED)
    await sweep(stores)

    assert heir.attempts == 2
    assert stores.records.releases.get(release.id) == release
    assert stores.records.catalogs.get(world.catalog.id).active_release_id == release.id
    assert await collections_of(stores, world) == sorted(release.collections())


@pytest.mark.parametrize("stage", [PublishStage.WRITING_USERS, PublishStage.ACTIVATING])
async def test_a_publication_goes_on_with_the_next_worker(stores, world, stage):
    """A worker that leaves in any step hands over; the release is READY, without a failure."""
    request = order(world, "sb" + world.model.id)
    operation = submit(stores, OperationKind.PUBLISH, to_json(request))
    async with working(stores, stage):
        await until(lambda: was_given_back(stores, operation))
    async with working(stores):
        await until(lambda: stores.records.operations.get(operation).state.is_done)
    await sweep(stores)

    ended = stores.records.operations.get(operation)
    release = stores.records.releases.get(request.release_id)
    assert (ended.state, ended.attempts) == (OperationState.SUCCEEDED, 2)
    assert (release.state, release.failure) == (ReleaseState.READY, "")
    assert stores.records.catalogs.get(world.catalog.id).active_release_id == release.id
    assert await collections_of(stores, world) == sorted(release.collections())


async def test_a_cancelled_publication_leaves_nothing(stores, world):
    """The release says so, and its collections go."""
    request = order(world, "sc" + world.model.id)
    operation = submit(stores, OperationKind.PUBLISH, to_json(request))

    async with working(stores, PublishStage.CHECKING):
        await until(lambda: was_given_back(stores, operation))
    begun = stores.records.releases.get(request.release_id)
    stores.records.operations.request_cancel(operation)
    await sweep(stores)

    assert begun.state is ReleaseState.BUILDING
    release = stores.records.releases.get(request.release_id)
    assert stores.records.operations.get(operation).state is OperationState.CANCELLED
    assert (release.state, release.failure) == (ReleaseState.FAILED, "the operation was cancelled")
    assert await collections_of(stores, world) == []


async def test_a_catalog_that_is_deleted_under_a_publication_leaves_nothing(stores, world):
    """Its rows, collections and artifacts go, those of the build when that has stopped."""
    await publish(stores, world, "sd1" + world.model.id)
    request = order(world, "sd2" + world.model.id)
    operation = submit(stores, OperationKind.PUBLISH, to_json(request))

    def delete(progress) -> None:
        if progress.stage is PublishStage.WRITING_USERS:
            with contextlib.suppress(NotFound):
                stores.records.catalogs.delete(world.catalog.id, force=True)

    async with working(stores, on_report=delete):
        await until(lambda: stores.records.operations.get(operation).state.is_done)
    await sweep(stores)

    assert await collections_of(stores, world) == []
    assert not stores.artifacts.exists(world.model.id)
    with pytest.raises(NotFound):
        stores.records.releases.get(request.release_id)


async def test_a_catalog_that_is_deleted_under_a_training_leaves_nothing(stores, world):
    """The artifact that nobody has a model for goes."""
    request = training(world)
    operation = submit(stores, OperationKind.TRAIN, to_json(request))

    def delete(progress) -> None:
        if progress.stage is TrainStage.SAVING:
            stores.records.catalogs.delete(world.catalog.id, force=True)

    async with working(stores, on_report=delete):
        await until(lambda: stores.records.operations.get(operation).state.is_done)
    await sweep(stores)

    assert stores.records.operations.get(operation).state is not OperationState.SUCCEEDED
    assert not stores.artifacts.exists(request.model_id)


async def test_a_training_gives_a_model_with_its_artifact(stores, world):
    """Nothing sweeps away what a model owns."""
    request = training(world)
    operation = submit(stores, OperationKind.TRAIN, to_json(request))
    async with working(stores):
        await until(lambda: stores.records.operations.get(operation).state.is_done)
    await sweep(stores)

    assert stores.records.models.get(request.model_id).event_types == ()
    assert stores.artifacts.exists(request.model_id)


async def test_deleting_and_activating_at_one_time(stores, world):
    """Whoever is first, the active release has its collections."""
    for n in range(3):
        release = await publish(stores, world, f"se{n}{world.model.id}", hold=True)
        releases = Releases(stores.records, stores.vectors, stores.artifacts)
        await asyncio.gather(
            releases.activate(release.id, timeout_s=SOON_S),
            releases.delete(release.id, timeout_s=SOON_S),
            return_exceptions=True,
        )

        active = stores.records.catalogs.get(world.catalog.id).active_release_id
        if active is not None:
            names = stores.records.releases.get(active).collections()
            assert set(names) <= set(await collections_of(stores, world))


def training(world: World) -> TrainRequest:
    """A training of a small model."""
    config = ModelConfig("als", {"embedding_size": 4, "epochs": 1})
    return TrainRequest(world.catalog.id, new_id("m"), config, Holdout(HoldoutMethod.NONE))


def submit(stores, kind: OperationKind, request) -> str:
    """Ask for work, once nobody waits for other work."""
    while stores.records.operations.claim(WORKER, lease_s=SOON_S):
        pass
    operation = Operation(new_id("o"), request["catalog_id"], kind, request)
    return stores.records.operations.create(operation, exclusive=False).id


@contextlib.asynccontextmanager
async def working(stores, leave_at=None, on_report=lambda _: None):
    """Run a worker inside the block, which leaves of its own when work is at a stage."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(progress) -> None:
        on_report(progress)
        if progress.stage is leave_at:
            loop.call_soon_threadsafe(stopping.set)

    of_kind = handlers(stores.records, stores.vectors, stores.artifacts, device="cpu")
    hooked = {
        kind: lambda job, handler=handler: handler(Hooked(job.operation, tell))
        for kind, handler in of_kind.items()
    }
    runner = Runner(stores.records, hooked, worker_id=new_id("w"), lease_s=SOON_S)
    task = asyncio.create_task(runner.run(stopping))
    yield
    stopping.set()
    await asyncio.wait_for(task, SOON_S)


def was_given_back(stores, operation: str) -> bool:
    """Whether an attempt was made that did not come to an end."""
    row = stores.records.operations.get(operation)
    return row.attempts == 1 and row.state is OperationState.QUEUED


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110 - a database changes
            await asyncio.sleep(0.02)


async def sweep(stores) -> None:
    """Remove what belongs to nobody."""
    sweeper = Sweeper(stores.records, stores.vectors, stores.artifacts)
    with contextlib.suppress(MilvineError):
        while await sweeper.sweep():
            pass


async def collections_of(stores, world: World) -> list[str]:
    """The collections of a catalog that exist."""
    names = await stores.vectors.list(timeout_s=SOON_S)
    return [name for name in names if name.startswith(f"{world.catalog.id}_")]
