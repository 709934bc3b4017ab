"""Operations: rows of long work as google.longrunning.Operation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import grpc
from google.longrunning import operations_pb2
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2

from milvine.api import errors
from milvine.api.convert import tuning
from milvine.api.convert.models import epoch_messages
from milvine.api.convert.values import timestamp
from milvine.domain.errors import Cancelled, InvalidArgument
from milvine.domain.operation import Failure, Operation, OperationKind, OperationState
from milvine.domain.progress import (
    EvaluateProgress,
    EvaluateStage,
    PublishProgress,
    PublishStage,
    TrainProgress,
    TrainStage,
)
from milvine.domain.release import PublishRequest
from milvine.jobs.payloads import EraseUserResult, EvaluateRequest, from_json
from milvine.v1 import model_service_pb2, release_service_pb2, user_service_pb2

COLLECTION = "operations"
_NAME = re.compile(rf"{COLLECTION}/([^/\x00]{{1,64}})")
_TRAIN_STAGES = {
    stage: model_service_pb2.TrainModelMetadata.Stage.Value(f"STAGE_{stage}")
    for stage in TrainStage
}
_EVALUATE_STAGES = {
    stage: model_service_pb2.EvaluateModelMetadata.Stage.Value(f"STAGE_{stage}")
    for stage in EvaluateStage
}
_PUBLISH_STAGES = {
    stage: release_service_pb2.PublishModelMetadata.Stage.Value(f"STAGE_{stage}")
    for stage in PublishStage
}


def operation_id(name: str, path: str = "name") -> str:
    """The id in an operation's name."""
    match = _NAME.fullmatch(name)
    if not match:
        raise InvalidArgument.at(path, f"must be a name that was returned, {COLLECTION}/ID")
    return match[1]


def check_listed(request: operations_pb2.ListOperationsRequest) -> None:
    """Raise InvalidArgument for a list that there is not."""
    if request.name not in ("", COLLECTION):
        raise InvalidArgument.at("name", f"must be empty or {COLLECTION!r}")
    if request.filter:
        raise InvalidArgument.at("filter", "must be empty: operations can't be filtered")


def seconds(duration: duration_pb2.Duration, path: str) -> float:
    """The seconds of a duration that is not negative."""
    if duration.seconds < 0 or not 0 <= duration.nanos < 1_000_000_000:
        raise InvalidArgument.at(path, "must be a duration of 0 or more")
    return float(duration.seconds) + duration.nanos / 1e9


def operation_message(operation: Operation, response: Message | None) -> operations_pb2.Operation:
    """The message of an operation; `response` is what it made where it succeeded."""
    message = operations_pb2.Operation(
        name=f"{COLLECTION}/{operation.id}", done=operation.state.is_done
    )
    message.metadata.Pack(_METADATA[operation.kind](operation))
    if operation.state is OperationState.FAILED:
        message.error.CopyFrom(_error(operation.failure))
    elif operation.state is OperationState.CANCELLED:
        message.error.CopyFrom(errors.status_of(Cancelled()))
    elif response is not None:
        message.response.Pack(response)
    return message


def training_metadata(operation: Operation) -> model_service_pb2.TrainModelMetadata:
    """How far a training has come."""
    metadata = model_service_pb2.TrainModelMetadata(catalog_id=operation.catalog_id)
    if operation.progress:
        progress = from_json(TrainProgress, operation.progress)
        metadata.stage = _TRAIN_STAGES[progress.stage]
        metadata.progress = _share(operation, progress.progress)
        metadata.holdout_epochs.extend(epoch_messages(progress.holdout_epochs))
        metadata.epochs.extend(epoch_messages(progress.epochs))
    return metadata


def _evaluation_metadata(operation: Operation) -> model_service_pb2.EvaluateModelMetadata:
    request = from_json(EvaluateRequest, operation.request)
    metadata = model_service_pb2.EvaluateModelMetadata(
        catalog_id=operation.catalog_id, model_id=request.model_id
    )
    if operation.progress:
        progress = from_json(EvaluateProgress, operation.progress)
        metadata.stage = _EVALUATE_STAGES[progress.stage]
        metadata.progress = _share(operation, progress.progress)
        metadata.epochs.extend(epoch_messages(progress.epochs))
    return metadata


def receipt(operation: Operation) -> user_service_pb2.EraseUserReceipt:
    """What an erasure removed."""
    result = from_json(EraseUserResult, operation.result)
    return user_service_pb2.EraseUserReceipt(
        had_metadata=result.had_metadata,
        interaction_count=result.interaction_count,
        release_ids=result.release_ids,
        erase_time=timestamp(result.erase_time),
    )


def _publication_metadata(operation: Operation) -> release_service_pb2.PublishModelMetadata:
    request = from_json(PublishRequest, operation.request)
    metadata = release_service_pb2.PublishModelMetadata(
        catalog_id=operation.catalog_id,
        model_id=request.model_id,
        release_id=request.release_id,
    )
    if operation.progress:
        progress = from_json(PublishProgress, operation.progress)
        metadata.stage = _PUBLISH_STAGES[progress.stage]
        metadata.progress = _share(operation, progress.progress)
    return metadata


def _erasure_metadata(operation: Operation) -> user_service_pb2.EraseUserMetadata:
    return user_service_pb2.EraseUserMetadata(catalog_id=operation.catalog_id)


def _share(operation: Operation, last_said: float) -> float:
    """The share that is done; a worker need not say that it has come to the end."""
    return 1.0 if operation.state is OperationState.SUCCEEDED else last_said


def _error(failure: Failure | None) -> status_pb2.Status:
    known = failure or Failure("INTERNAL", "INTERNAL_FAULT", "the operation failed")
    code = grpc.StatusCode.__members__.get(known.code, grpc.StatusCode.INTERNAL)
    return errors.status(code, known.message, [errors.error_info(known.reason, known.metadata)])


_METADATA: Mapping[OperationKind, Callable[[Operation], Message]] = {
    OperationKind.TRAIN: training_metadata,
    OperationKind.TUNE: tuning.metadata,
    OperationKind.EVALUATE: _evaluation_metadata,
    OperationKind.PUBLISH: _publication_metadata,
    OperationKind.ERASE_USER: _erasure_metadata,
}
