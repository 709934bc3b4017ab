"""The loop of a worker: it claims operations, does them under a lease, and says how far it is.

A lease that is not renewed runs out, and another worker takes the operation up from its start. So
every handler can run twice, even at one time: what an attempt makes counts only while the attempt
is the one under way, which the records check.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeAlias

import structlog

from milvine.domain.errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    MilvineError,
    NotFound,
    Reason,
    Unavailable,
)
from milvine.domain.operation import Failure, Json, Operation, OperationKind, OperationState
from milvine.jobs.payloads import to_json
from milvine.records import Records

log = structlog.get_logger(__name__)

IDLE_S = 0.2
"""The pause after a look that found nothing to do."""
AWAY_S = 1.0
"""The pause after a look that the database did not answer."""


class Stop(Enum):
    """Why work is stopped before its end."""

    CANCELLED = auto()
    """A client asked for it: the operation ends."""
    LEAVING = auto()
    """The worker stops: another one begins the work again."""
    LOST = auto()
    """Another worker has the operation, or it has ended: it is none of ours."""


@dataclass(slots=True)
class Job:
    """An operation under way, between its handler and the heartbeat."""

    operation: Operation
    must_stop: threading.Event = field(default_factory=threading.Event)
    """Set when the work is to stop; handlers in threads look at it."""
    stop: Stop | None = None
    progress: object | None = None
    """The payload that the handler last reported; the heartbeat carries it to the row."""

    def report(self, progress: object) -> None:
        """Say how far the work is; from any thread."""
        self.progress = progress


Handler: TypeAlias = Callable[[Job], Awaitable[object]]
"""Does an operation and returns the payload of its result."""


class Runner:
    """Claims operations one after the other and does them."""

    def __init__(
        self,
        records: Records,
        handlers: Mapping[OperationKind, Handler],
        *,
        worker_id: str,
        lease_s: float,
    ) -> None:
        self._records = records
        self._handlers = handlers
        self._worker_id = worker_id
        self._lease_s = lease_s

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set; what is under way then is left to the next worker."""
        while not stopping.is_set():
            operation, pause_s = await self._claim()
            if operation is not None:
                await self._work(Job(operation), stopping)
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause_s)

    async def _claim(self) -> tuple[Operation | None, float]:
        """The next operation, or None and how long to pause."""
        claim = self._records.operations.claim
        try:
            return await asyncio.to_thread(claim, self._worker_id, lease_s=self._lease_s), IDLE_S
        except (Unavailable, DeadlineExceeded) as fault:
            log.warning("cannot look for work", reason=str(fault.reason))
            return None, AWAY_S

    async def _work(self, job: Job, stopping: asyncio.Event) -> None:
        operation = job.operation
        bound = log.bind(operation=operation.id, kind=str(operation.kind))
        bound.info("operation started", attempt=operation.attempts)
        work = asyncio.ensure_future(self._handlers[operation.kind](job))
        watchers = [
            asyncio.create_task(self._beat(job, work)),
            asyncio.create_task(_leave(job, work, stopping)),
        ]
        try:
            (outcome,) = await asyncio.gather(work, return_exceptions=True)
        finally:
            for watcher in watchers:
                watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        await self._settle(job, outcome)
        bound.info(
            "operation ended", outcome=type(outcome).__name__, stop=job.stop and job.stop.name
        )

    async def _beat(self, job: Job, work: asyncio.Future[object]) -> None:
        """Renew the lease until cancelled, also while work that was stopped comes to its end."""
        while True:
            await asyncio.sleep(min(self._lease_s / 4, 0.5))
            try:
                if await asyncio.to_thread(self._renew, job):
                    _stop(job, work, Stop.CANCELLED)
            except (Unavailable, DeadlineExceeded):
                continue  # the lease may outlast the database's absence
            except (Aborted, NotFound):
                _stop(job, work, Stop.LOST)
                return
            except Exception:
                log.exception("cannot renew a lease", operation=job.operation.id)
                _stop(job, work, Stop.LOST)
                raise

    async def _settle(self, job: Job, outcome: object) -> None:
        """Write down how the work ended, or that it did not, if that is this worker's to say."""
        operations, operation_id = self._records.operations, job.operation.id
        if job.stop is Stop.LOST:
            return
        if job.stop is Stop.LEAVING and isinstance(outcome, BaseException):
            await self._patiently(job, lambda: operations.give_back(operation_id, self._worker_id))
            return
        state, result, failure = _verdict(job, outcome)
        if failure and failure.reason == Reason.INTERNAL_FAULT:
            log.error("operation failed", operation=operation_id, exc_info=outcome)

        def finish() -> None:
            self._renew(job)  # brings the last progress
            operations.finish(
                operation_id, self._worker_id, state=state, result=result, failure=failure
            )

        await self._patiently(job, finish)

    def _renew(self, job: Job) -> bool:
        """Renew the lease, carry the progress to the row, return whether to cancel."""
        return self._records.operations.heartbeat(
            job.operation.id,
            self._worker_id,
            lease_s=self._lease_s,
            progress=_json(job.progress),
        )

    async def _patiently(self, job: Job, write: Callable[[], None]) -> None:
        """Write, through short absences of the database; after the lease the row is another's."""
        try:
            async with asyncio.timeout(self._lease_s):
                while True:
                    try:
                        await asyncio.to_thread(write)
                    except (Unavailable, DeadlineExceeded):
                        await asyncio.sleep(IDLE_S)
                    else:
                        return
        except (TimeoutError, Aborted, NotFound) as fault:
            log.warning(
                "the end of an operation is left to another worker",
                operation=job.operation.id,
                error=str(fault) or "the database was away for too long",
            )


async def _leave(job: Job, work: asyncio.Future[object], stopping: asyncio.Event) -> None:
    await stopping.wait()
    _stop(job, work, Stop.LEAVING)


def _stop(job: Job, work: asyncio.Future[object], stop: Stop) -> None:
    """Stop work; the first reason counts, but for a lost lease, which ends every other."""
    if job.stop is None:
        job.stop = stop
        job.must_stop.set()
        work.cancel()
    elif stop is Stop.LOST:
        job.stop = stop


def _json(payload: object | None) -> Json | None:
    return None if payload is None else to_json(payload)


def _verdict(job: Job, outcome: object) -> tuple[OperationState, dict[str, Any], Failure | None]:
    if not isinstance(outcome, BaseException):
        return OperationState.SUCCEEDED, to_json(outcome), None
    if job.stop is Stop.CANCELLED:
        return OperationState.CANCELLED, {}, _failure(Cancelled())
    if isinstance(outcome, MilvineError):
        return OperationState.FAILED, {}, _failure(outcome)
    message = f"a fault of the service; the log has it under {job.operation.id}"
    return OperationState.FAILED, {}, _failure(MilvineError(message, Reason.INTERNAL_FAULT))


def _failure(fault: MilvineError) -> Failure:
    return Failure(fault.code, str(fault.reason), fault.message, fault.metadata)
