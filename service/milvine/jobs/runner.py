"""The loop of a worker: it claims operations, does them under a lease, and says how far it is.

A lease that is not renewed runs out, and another worker takes the operation up from its start. So
every handler can run twice: it writes under ids that the request already carries.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import structlog

from milvine.domain.errors import Aborted, Cancelled, MilvineError, Reason, Unavailable
from milvine.domain.operation import Failure, Json, Operation, OperationKind, OperationState
from milvine.jobs.payloads import to_json
from milvine.records import Records

log = structlog.get_logger(__name__)

IDLE_S = 0.2
"""The pause after a look that found nothing to do."""


@dataclass(slots=True)
class Job:
    """An operation under way, between its handler and the heartbeat."""

    operation: Operation
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when a client cancelled or the lease was lost; handlers in threads look at it."""
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
            if not await self._run_next(stopping):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), IDLE_S)

    async def _run_next(self, stopping: asyncio.Event) -> bool:
        try:
            operation = await asyncio.to_thread(
                self._records.operations.claim, self._worker_id, lease_s=self._lease_s
            )
        except Unavailable as fault:
            log.warning("cannot look for work", reason=fault.reason)
            return False
        if operation is None:
            return False
        await self._work(Job(operation), stopping)
        return True

    async def _work(self, job: Job, stopping: asyncio.Event) -> None:
        operation = job.operation
        bound = log.bind(operation=operation.id, kind=str(operation.kind))
        bound.info("operation started", attempt=operation.attempts)
        work = asyncio.ensure_future(self._handlers[operation.kind](job))
        beat = asyncio.create_task(self._beat(job, work))
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not work.done():
            # The lease runs out and another worker takes it up.
            job.cancelled.set()
            work.cancel()
        outcome = (await asyncio.gather(work, return_exceptions=True))[0]
        beat.cancel()
        await asyncio.gather(beat, stop, return_exceptions=True)
        if not stopping.is_set():
            await self._finish(job, outcome)
        bound.info("operation ended", outcome=type(outcome).__name__)

    async def _beat(self, job: Job, work: asyncio.Future[object]) -> None:
        while True:
            await asyncio.sleep(min(self._lease_s / 4, 0.5))
            try:
                cancelled = await asyncio.to_thread(self._renew, job)
            except Unavailable:
                continue  # the lease may outlast the database's absence
            except Aborted:
                cancelled = True
            if cancelled:
                job.cancelled.set()
                work.cancel()
                return

    async def _finish(self, job: Job, outcome: object) -> None:
        state, result, failure = _verdict(job, outcome)
        if failure and failure.reason == Reason.INTERNAL_FAULT:
            log.error("operation failed", operation=job.operation.id, exc_info=outcome)

        def write() -> None:
            self._renew(job)
            self._records.operations.finish(
                job.operation.id, self._worker_id, state=state, result=result, failure=failure
            )

        with contextlib.suppress(Aborted):  # the lease was lost: the row is another worker's
            await self._patiently(write)

    def _renew(self, job: Job) -> bool:
        """Renew the lease, carry the progress to the row, return whether to cancel."""
        return self._records.operations.heartbeat(
            job.operation.id,
            self._worker_id,
            lease_s=self._lease_s,
            progress=_json(job.progress),
        )

    async def _patiently(self, write: Callable[[], None]) -> None:
        """Write while the lease lasts, through short absences of the database."""
        async with asyncio.timeout(self._lease_s):
            while True:
                try:
                    await asyncio.to_thread(write)
                except Unavailable:
                    await asyncio.sleep(IDLE_S)
                else:
                    return


def _json(payload: object | None) -> Json | None:
    return None if payload is None else to_json(payload)


def _verdict(job: Job, outcome: object) -> tuple[OperationState, dict[str, Any], Failure | None]:
    match outcome:
        case asyncio.CancelledError() | Cancelled():
            fault = Cancelled()
            return OperationState.CANCELLED, {}, _failure("CANCELLED", fault)
        case MilvineError():
            return OperationState.FAILED, {}, _failure(outcome.code, outcome)
        case BaseException():
            message = f"a fault of the service; the log has it under {job.operation.id}"
            unknown = MilvineError(message, Reason.INTERNAL_FAULT)
            return OperationState.FAILED, {}, _failure("INTERNAL", unknown)
        case _:
            return OperationState.SUCCEEDED, to_json(outcome), None


def _failure(code: str, fault: MilvineError) -> Failure:
    return Failure(code, str(fault.reason), fault.message, fault.metadata)
