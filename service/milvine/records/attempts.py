"""Whose turn it is: what an attempt at an operation makes counts while it is the current one."""

from __future__ import annotations

from sqlalchemy import Connection, select

from milvine.domain.errors import Aborted, Reason
from milvine.domain.operation import OperationState
from milvine.records.schema import OPERATIONS

UNFINISHED = (OperationState.QUEUED.value, OperationState.RUNNING.value)
"""The states of operations that have not ended."""


def check_current(connection: Connection, operation_id: str, attempt: int) -> None:
    """Return if the attempt is the one under way, which stays so until the transaction ends.

    Raises:
        Aborted: the operation has ended, or another worker has taken it up.
    """
    query = select(OPERATIONS.c.id).where(
        OPERATIONS.c.id == operation_id,
        OPERATIONS.c.attempts == attempt,
        OPERATIONS.c.state == OperationState.RUNNING.value,
    )
    if connection.execute(query.with_for_update()).first() is None:
        raise lost(operation_id)


def lost(operation_id: str) -> Aborted:
    """The error of a worker whose operation has ended or is another's."""
    return Aborted(
        f"operation {operation_id!r} is no longer this worker's",
        Reason.WORKER_LOST,
        {"operation_id": operation_id},
    )
