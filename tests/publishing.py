"""Publishing as a worker does, in the process of a test."""

from __future__ import annotations

from collections.abc import Callable

from milvine.artifacts import Artifacts
from milvine.domain.errors import MilvineError
from milvine.domain.ids import new_id
from milvine.domain.operation import Failure, Operation, OperationKind, OperationState
from milvine.domain.progress import PublishProgress
from milvine.domain.release import PublishRequest, Release
from milvine.jobs.payloads import to_json
from milvine.records import Records
from milvine.releases import Builder
from milvine.vectors import Vectors

WORKER = "test"


async def publish_by(
    records: Records,
    vectors: Vectors,
    artifacts: Artifacts,
    request: PublishRequest,
    report: Callable[[PublishProgress], None] = lambda _: None,
) -> Release:
    """Publish under an operation, which ends as the publication does."""
    operation = claim(records, request)
    finish = records.operations.finish
    try:
        release = await Builder(records, vectors, artifacts).build(request, operation, report)
    except MilvineError as fault:
        failure = Failure(fault.code, str(fault.reason), fault.message)
        finish(operation.id, WORKER, state=OperationState.FAILED, failure=failure)
        raise
    finish(operation.id, WORKER, state=OperationState.SUCCEEDED)
    return release


def claim(records: Records, request: PublishRequest, *, lease_s: float = 60.0) -> Operation:
    """A publication that a worker has taken up; what waits of earlier tests is, too."""
    operation = Operation(new_id("o"), request.catalog_id, OperationKind.PUBLISH, to_json(request))
    records.operations.create(operation, exclusive=False)
    while claimed := records.operations.claim(WORKER, lease_s=lease_s):
        if claimed.id == operation.id:
            return claimed
    raise AssertionError("someone else took the operation up")
