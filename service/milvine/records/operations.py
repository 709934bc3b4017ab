"""Operations in SQL: a queue that workers take from under leases."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Update, and_, delete, or_, select, update

from milvine.domain.entity import from_micros
from milvine.domain.errors import Aborted, FailedPrecondition, NotFound, Reason
from milvine.domain.operation import Failure, Json, Operation, OperationKind, OperationState
from milvine.records.attempts import UNFINISHED, lost
from milvine.records.codec import dump, load, load_json
from milvine.records.database import Database, now_micros, shared_now_micros
from milvine.records.releases import fail_building
from milvine.records.rows import create, newest_first, number_of
from milvine.records.schema import CATALOGS, OPERATIONS

MAX_LOSSES = 3
"""Workers that may be lost over an operation before it fails."""


class Operations:
    """The operations of a database. Leases are timed by the database's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, operation: Operation, *, exclusive: bool) -> Operation:
        """The operation as stored, queued now.

        Raises:
            NotFound: there is no such catalog.
            AlreadyExists: there is an operation of that id.
            Aborted: `exclusive`, and the catalog has an unfinished one of the kind.
        """
        with self._database.write() as connection:
            number_of(connection, operation.catalog_id)
            if exclusive:
                _check_alone(connection, operation)
            values = {
                "id": operation.id,
                "catalog_id": operation.catalog_id,
                "kind": operation.kind.value,
                "state": OperationState.QUEUED.value,
                "request": dump(operation.request),
                "progress": dump(operation.progress),
                "result": dump(operation.result),
                "create_time": now_micros(),
            }
            create(connection, OPERATIONS, values)
            return _operation(_row(connection, operation.id))

    def get(self, operation_id: str) -> Operation:
        """The operation of that id.

        Raises:
            NotFound: there is none.
        """
        with self._database.read() as connection:
            return _operation(_row(connection, operation_id))

    def list(self, *, limit: int, after: str | None = None) -> list[Operation]:
        """At most `limit` operations, newest first, from the first one after `after`.

        Raises:
            InvalidPageToken: there is no operation `after` any more.
        """
        with self._database.read() as connection:
            query = newest_first(connection, OPERATIONS, limit=limit, after=after)
            return [_operation(row) for row in connection.execute(query)]

    def claim(self, worker_id: str, *, lease_s: float) -> Operation | None:
        """The oldest operation that waits or whose worker is lost, now this worker's; else None.

        One that has lost MAX_LOSSES workers fails, and one whose cancellation was asked for while
        it had none is cancelled; then the next is looked at.
        """
        with self._database.write() as connection:
            now = shared_now_micros(connection)
            while row := _next(connection, now):
                losses = row.losses + (row.state == OperationState.RUNNING.value)
                if row.cancel_requested:
                    cancel(connection, row.id)
                elif losses >= MAX_LOSSES:
                    _end(connection, _by_id(row.id), OperationState.FAILED, _loss(losses))
                else:
                    values = {"losses": losses, "lease_until": now + int(lease_s * 1e6)}
                    return _take(connection, row, values | {"worker_id": worker_id})
        return None

    def heartbeat(
        self, operation_id: str, worker_id: str, *, lease_s: float, progress: Json | None = None
    ) -> bool:
        """Prolong the lease and note progress; whether a client asked to cancel.

        Raises:
            NotFound: there is no such operation.
            Aborted: the lease is no longer the worker's; it must stop.
        """
        with self._database.write() as connection:
            until = shared_now_micros(connection) + int(lease_s * 1e6)
            values: dict[str, object] = {"lease_until": until}
            if progress is not None:
                values["progress"] = dump(progress)
            query = _held(operation_id, worker_id).values(values)
            row = connection.execute(query.returning(OPERATIONS.c.cancel_requested)).one_or_none()
            if row is None:
                raise _lost(connection, operation_id)
            return bool(row.cancel_requested)

    def give_back(self, operation_id: str, worker_id: str) -> None:
        """Let the operation wait for another worker, at once; it counts as no loss.

        Raises:
            NotFound: there is no such operation.
            Aborted: the lease is no longer the worker's.
        """
        waiting = {
            "state": OperationState.QUEUED.value,
            "worker_id": None,
            "lease_until": None,
        }
        with self._database.write() as connection:
            if not connection.execute(_held(operation_id, worker_id).values(waiting)).rowcount:
                raise _lost(connection, operation_id)

    def finish(
        self,
        operation_id: str,
        worker_id: str,
        *,
        state: OperationState,
        result: Json | None = None,
        failure: Failure | None = None,
    ) -> Operation:
        """Write down how the work ended, and give the lease back.

        Raises:
            NotFound: there is no such operation.
            Aborted: the lease is no longer the worker's.
        """
        held = _held(operation_id, worker_id).values(result=dump(result or {}))
        with self._database.write() as connection:
            if not _end(connection, held, state, failure):
                raise _lost(connection, operation_id)
            return _operation(_row(connection, operation_id))

    def request_cancel(self, operation_id: str) -> Operation:
        """Ask that an operation stops: a queued one is cancelled at once, a finished one stays.

        Raises:
            NotFound: there is no such operation.
        """
        with self._database.write() as connection:
            row = _row(connection, operation_id, lock=True)
            if row.state == OperationState.QUEUED.value:
                cancel(connection, operation_id)
            elif row.state == OperationState.RUNNING.value:
                connection.execute(_by_id(operation_id).values(cancel_requested=1))
            return _operation(_row(connection, operation_id))

    def delete(self, operation_id: str) -> None:
        """Delete a finished operation.

        Raises:
            NotFound: there is no such operation.
            FailedPrecondition: it is not finished.
        """
        with self._database.write() as connection:
            if _row(connection, operation_id, lock=True).state in UNFINISHED:
                raise FailedPrecondition(
                    f"operation {operation_id!r} is not finished; cancel it first",
                    Reason.WRONG_STATE,
                    {"operation_id": operation_id},
                )
            connection.execute(delete(OPERATIONS).where(OPERATIONS.c.id == operation_id))


def cancel(connection: Connection, operation_id: str) -> None:
    """End an operation that no worker has as cancelled."""
    message = "the operation was cancelled"
    failure = Failure("CANCELLED", Reason.OPERATION_CANCELLED.value, message)
    change = _by_id(operation_id).values(cancel_requested=1)
    _end(connection, change, OperationState.CANCELLED, failure)


def _loss(losses: int) -> Failure:
    message = (
        f"{losses} workers took the operation up and were lost; see their logs, and whether the "
        "system ended them for want of memory"
    )
    return Failure("ABORTED", Reason.WORKER_LOST.value, message)


def _end(
    connection: Connection, change: Update, state: OperationState, failure: Failure | None
) -> bool:
    """End the operation that `change` is of, and fail the release that it was building.

    False where there is no such operation.
    """
    values = {
        "state": state.value,
        "failure": None if failure is None else dump(failure),
        "worker_id": None,
        "lease_until": None,
        "end_time": now_micros(),
    }
    ended = connection.execute(change.values(values).returning(OPERATIONS.c.id)).scalar()
    if ended is None:
        return False
    fail_building(connection, ended, failure.message if failure else "")
    return True


def _check_alone(connection: Connection, operation: Operation) -> None:
    # PostgreSQL: two creators of one catalog look one after the other.
    lock = select(CATALOGS.c.number).where(CATALOGS.c.id == operation.catalog_id)
    connection.execute(lock.with_for_update(key_share=True))
    query = select(OPERATIONS.c.id).where(
        OPERATIONS.c.catalog_id == operation.catalog_id,
        OPERATIONS.c.kind == operation.kind.value,
        OPERATIONS.c.state.in_(UNFINISHED),
    )
    other = connection.execute(query.limit(1)).scalar()
    if other is not None:
        raise Aborted(
            f"operation {other!r} does the same for catalog {operation.catalog_id!r}; "
            "wait for it or cancel it",
            Reason.OPERATION_IN_PROGRESS,
            {"operation_id": other, "catalog_id": operation.catalog_id},
        )


def _next(connection: Connection, now: int) -> Row[Any] | None:
    """The oldest operation that can be taken, locked; those that others look at are passed over."""
    waits = OPERATIONS.c.state == OperationState.QUEUED.value
    is_lost = and_(
        OPERATIONS.c.state == OperationState.RUNNING.value, OPERATIONS.c.lease_until <= now
    )
    query = select(OPERATIONS).where(or_(waits, is_lost))
    query = query.order_by(OPERATIONS.c.create_time, OPERATIONS.c.id).limit(1)
    return connection.execute(query.with_for_update(skip_locked=True)).one_or_none()


def _take(connection: Connection, row: Row[Any], values: dict[str, object]) -> Operation:
    taken = {"state": OperationState.RUNNING.value, "attempts": row.attempts + 1} | values
    connection.execute(_by_id(row.id).values(taken))
    return _operation(_row(connection, row.id))


def _by_id(operation_id: str) -> Update:
    return update(OPERATIONS).where(OPERATIONS.c.id == operation_id)


def _held(operation_id: str, worker_id: str) -> Update:
    """A lease that ran out still counts while no one else took the operation up."""
    return _by_id(operation_id).where(
        OPERATIONS.c.state == OperationState.RUNNING.value, OPERATIONS.c.worker_id == worker_id
    )


def _lost(connection: Connection, operation_id: str) -> Aborted:
    _row(connection, operation_id)
    return lost(operation_id)


def _row(connection: Connection, operation_id: str, *, lock: bool = False) -> Row[Any]:
    query = select(OPERATIONS).where(OPERATIONS.c.id == operation_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound.of("operation", operation_id)
    return row


def _operation(row: Row[Any]) -> Operation:
    return Operation(
        id=row.id,
        catalog_id=row.catalog_id,
        kind=OperationKind(row.kind),
        request=load_json(row.request),
        state=OperationState(row.state),
        progress=load_json(row.progress),
        result=load_json(row.result),
        failure=None if row.failure is None else load(Failure, row.failure),
        cancel_requested=bool(row.cancel_requested),
        attempts=row.attempts,
        create_time=from_micros(row.create_time),
        end_time=None if row.end_time is None else from_micros(row.end_time),
    )
