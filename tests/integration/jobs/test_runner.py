"""The loop of a worker: what becomes of an operation, however its work ends."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import psycopg
import pytest
from structlog.testing import capture_logs

from milvine.domain.catalog import Catalog, EventType
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.domain.model import EpochReport
from milvine.domain.operation import Operation, OperationKind, OperationState
from milvine.domain.progress import TrainProgress, TrainStage
from milvine.jobs.payloads import TrainResult
from milvine.jobs.runner import Job, Runner
from milvine.records import Records
from milvine.records.operations import MAX_LOSSES
from tests.servers.postgres import fresh_database

SOON_S = 20.0
HALF = TrainProgress(TrainStage.FITTING, 0.5, epochs=(EpochReport(1, 2, 0.25, 1.0),))


@pytest.fixture
def records(tmp_path):
    """Records with a catalog `c`; a writer waits for 0.2 s at most."""
    opened = Records.open(f"sqlite:///{tmp_path}/records.db", timeout_s=0.2)
    opened.catalogs.create(Catalog("c", (EventType("view"),)))
    yield opened
    opened.close()


@dataclass
class Work:
    """Work that a test starts, watches and lets end."""

    finishes: asyncio.Event = field(default_factory=asyncio.Event)
    jobs: list[Job] = field(default_factory=list)

    async def __call__(self, job: Job) -> TrainResult:
        """Report, and wait to be let go."""
        self.jobs.append(job)
        job.report(HALF)
        await self.finishes.wait()
        return TrainResult("m")


@contextlib.asynccontextmanager
async def working(
    records: Records,
    handler: Callable[[Job], Awaitable[object]],
    *,
    worker_id: str = "w",
    lease_s: float = 5.0,
):
    """Run a worker inside the block; what is yielded stops it."""
    stopping = asyncio.Event()
    runner = Runner(records, {OperationKind.TRAIN: handler}, worker_id=worker_id, lease_s=lease_s)
    task = asyncio.create_task(runner.run(stopping))
    yield stopping
    stopping.set()
    await asyncio.wait_for(task, SOON_S)


def submit(records: Records, name: str = "o") -> None:
    """Ask for some work."""
    operation = Operation(name, "c", OperationKind.TRAIN, {})
    records.operations.create(operation, exclusive=False)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110 - a database changes
            await asyncio.sleep(0.01)


async def done(records: Records, name: str = "o") -> Operation:
    """The operation, once it has ended."""
    await until(lambda: records.operations.get(name).state.is_done)
    return records.operations.get(name)


async def test_work_is_done_in_turn(records):
    """Each operation ends with its result and its last progress."""
    work = Work()
    work.finishes.set()
    for name in ("first", "second"):
        submit(records, name)
    async with working(records, work):
        ended = [await done(records, name) for name in ("first", "second")]

    assert [job.operation.id for job in work.jobs] == ["first", "second"]
    for operation in ended:
        assert operation.state is OperationState.SUCCEEDED
        assert operation.result == {"model_id": "m"}
        assert operation.progress["epochs"][0]["loss"] == 0.25


async def test_a_failure_says_what_callers_may_know(records):
    """Our own errors are told; of any other only that the log has it."""

    async def refuse(job):
        if job.operation.id == "ours":
            raise FailedPrecondition("no ratings", Reason.NO_TRAINING_DATA, {"catalog_id": "c"})
        raise ValueError("secret")

    submit(records, "ours")
    submit(records, "other")
    with capture_logs() as logs:
        async with working(records, refuse):
            ours, other = await done(records, "ours"), await done(records, "other")

    assert ours.state is other.state is OperationState.FAILED
    assert (ours.failure.code, ours.failure.reason) == ("FAILED_PRECONDITION", "NO_TRAINING_DATA")
    assert (ours.failure.message, ours.failure.metadata) == ("no ratings", {"catalog_id": "c"})
    assert (other.failure.code, other.failure.reason) == ("INTERNAL", "INTERNAL_FAULT")
    assert "secret" not in other.failure.message
    assert [str(entry["exc_info"]) for entry in logs if "exc_info" in entry] == ["secret"]


async def test_progress_is_told_while_work_lasts(records):
    """The heartbeat carries it, and keeps the lease for longer than it lasts."""
    work = Work()
    submit(records)
    async with working(records, work, lease_s=0.4):
        await until(lambda: records.operations.get("o").progress)
        await asyncio.sleep(1.0)  # more than two leases
        assert records.operations.claim("other", lease_s=5) is None
        work.finishes.set()
        assert (await done(records)).attempts == 1


async def test_a_client_cancels(records):
    """The work is stopped, and the operation is cancelled."""
    work = Work()
    submit(records)
    async with working(records, work):
        await until(lambda: work.jobs)
        records.operations.request_cancel("o")
        operation = await done(records)

    assert operation.state is OperationState.CANCELLED
    assert operation.failure.reason == "OPERATION_CANCELLED"
    assert work.jobs[0].must_stop.is_set()


async def test_a_worker_that_leaves_gives_its_work_back(records):
    """The next worker begins it at once, however often that happens."""
    submit(records)
    for n in range(MAX_LOSSES + 1):
        work = Work()
        async with working(records, work, worker_id=f"w{n}", lease_s=60) as stopping:
            await until(lambda work=work: work.jobs)
            stopping.set()
        assert records.operations.get("o").state is OperationState.QUEUED
    work = Work()
    work.finishes.set()
    async with working(records, work, worker_id="last"):
        assert (await done(records)).state is OperationState.SUCCEEDED


async def test_work_that_ends_as_its_worker_leaves_counts(records):
    """A result that is there is written down."""
    started = asyncio.Event()

    async def finish_anyway(_job):
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return TrainResult("m")

    submit(records)
    async with working(records, finish_anyway) as stopping:
        await asyncio.wait_for(started.wait(), SOON_S)
        stopping.set()
    assert records.operations.get("o").state is OperationState.SUCCEEDED


async def test_a_lost_lease_is_left_alone(records):
    """The work is stopped, and what its new worker says of the operation stays."""
    work = Work()
    submit(records)
    async with working(records, work):
        await until(lambda: work.jobs)
        records.operations.heartbeat("o", "w", lease_s=-1)
        heir = records.operations.claim("heir", lease_s=60)
        await until(work.jobs[0].must_stop.is_set)

    assert heir.attempts == 2
    assert records.operations.heartbeat("o", "heir", lease_s=60) is False
    assert records.operations.get("o").state is OperationState.RUNNING


async def test_a_database_that_is_away_at_the_end(records, tmp_path):
    """A worker that can't write the end goes on; the work ends well, if need be done again."""
    work = Work()
    submit(records)
    async with working(records, work, lease_s=0.5):
        await until(lambda: work.jobs)
        with locked(tmp_path), capture_logs() as logs:
            work.finishes.set()
            await until(lambda: [e for e in logs if "left to another" in e["event"]])
        submit(records, "next")
        ended = [await done(records, name) for name in ("o", "next")]

    assert [operation.state for operation in ended] == [OperationState.SUCCEEDED] * 2


@contextlib.contextmanager
def locked(folder):
    """Keep every writer of the records waiting."""
    other = sqlite3.connect(folder / "records.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@pytest.mark.parametrize("when", ["claiming", "working"])
async def test_a_slow_database_costs_time_only(postgres_url, when):
    """Claims and heartbeats that take longer than a statement may are tried again."""
    url = fresh_database(postgres_url)
    records = Records.open(url, timeout_s=0.3)
    records.catalogs.create(Catalog("c", (EventType("view"),)))
    submit(records)
    work = Work()
    with psycopg.connect(url) as other, capture_logs() as logs:
        if when == "claiming":
            other.execute("LOCK TABLE operations")
        async with working(records, work, lease_s=60):
            if when == "claiming":
                await until(lambda: [e for e in logs if "cannot look" in e["event"]])
            else:
                await until(lambda: work.jobs)
                other.execute("LOCK TABLE operations")
                await asyncio.sleep(1.5)  # more than two heartbeats
            other.rollback()
            await until(lambda: work.jobs)
            progress = records.operations.get
            await until(lambda: progress("o").progress)
            work.finishes.set()
            assert (await done(records)).attempts == 1
    records.close()
