"""Operations and releases as messages."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import grpc
import pytest
from google.longrunning import operations_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from milvine.api.convert import operations as convert
from milvine.api.convert import releases
from milvine.api.convert.watching import TrainingNews
from milvine.domain.catalog import Catalog, EventType, VectorIndex
from milvine.domain.model import EpochReport, Holdout, Model, ModelConfig
from milvine.domain.operation import Failure, Operation, OperationKind, OperationState
from milvine.domain.progress import (
    EvaluateProgress,
    EvaluateStage,
    PublishProgress,
    PublishStage,
    TrainProgress,
    TrainStage,
)
from milvine.domain.release import Gate, PublishRequest, Release, ReleaseState, TextIndex
from milvine.jobs.payloads import (
    EraseUserRequest,
    EraseUserResult,
    EvaluateRequest,
    TrainRequest,
    to_json,
)
from milvine.v1 import (
    model_pb2,
    model_service_pb2,
    release_pb2,
    release_service_pb2,
    user_service_pb2,
)
from tests.unit.api.test_values import fault

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TRAIN = Operation(
    "o1",
    "films",
    OperationKind.TRAIN,
    to_json(TrainRequest("films", "m1", ModelConfig("als", {}), Holdout())),
)
EVALUATE = Operation(
    "o4", "films", OperationKind.EVALUATE, to_json(EvaluateRequest("films", "m1", Holdout()))
)
PUBLISH = Operation(
    "o2", "films", OperationKind.PUBLISH, to_json(PublishRequest("films", "m1", "r1"))
)
ERASE = Operation("o3", "films", OperationKind.ERASE_USER, to_json(EraseUserRequest("films", "7")))
RELEASE = Release("r1", "films", "m1", ReleaseState.READY, (), (), VectorIndex())
CATALOG = Catalog("films", (EventType("view"),))
MODEL = Model("m1", "films", ModelConfig("als", {}), 1, 1, 1, 1, "", 0.0)


def progressing(stage, holdout_epochs=0, epochs=0, progress=0.5):
    """The training at that stage, after some epochs of its two fits."""
    told = TrainProgress(stage, progress, reports(holdout_epochs), reports(epochs))
    return replace(TRAIN, progress=to_json(told))


def reports(count):
    """The reports of the first epochs of nine."""
    return tuple(EpochReport(i + 1, 9, 0.1, 0.2) for i in range(count))


@pytest.mark.parametrize(
    "name", ["", "o1", "operations/", "operations/a/b", "operation/o1", "x" * 999]
)
def test_bad_names(name):
    """A name that the service can't have given is refused by its path."""
    assert fault(convert.operation_id, name, "operation_name")[0][0] == "operation_name"


def test_name():
    """The id is what follows the collection."""
    assert convert.operation_id("operations/o1") == "o1"


def test_queued():
    """An operation that waits is not done and has no stage."""
    message = convert.operation_message(TRAIN, None)
    metadata = model_service_pb2.TrainModelMetadata()
    assert (message.name, message.done) == ("operations/o1", False)
    assert message.metadata.Unpack(metadata)
    assert (metadata.catalog_id, metadata.stage) == ("films", 0)


@pytest.mark.parametrize("stage", TrainStage)
def test_training_metadata(stage):
    """Every stage of a training is told, with its epochs."""
    metadata = convert.training_metadata(progressing(stage, holdout_epochs=3, epochs=2))
    assert model_service_pb2.TrainModelMetadata.Stage.Name(metadata.stage) == f"STAGE_{stage}"
    assert (metadata.progress, len(metadata.holdout_epochs), len(metadata.epochs)) == (0.5, 3, 2)


@pytest.mark.parametrize("stage", EvaluateStage)
def test_evaluation_metadata(stage):
    """Every stage of an evaluation is told, with its model and epochs."""
    operation = replace(EVALUATE, progress=to_json(EvaluateProgress(stage, 0.25, reports(2))))
    metadata = model_service_pb2.EvaluateModelMetadata()
    assert convert.operation_message(operation, None).metadata.Unpack(metadata)
    assert model_service_pb2.EvaluateModelMetadata.Stage.Name(metadata.stage) == f"STAGE_{stage}"
    assert (metadata.model_id, metadata.progress, len(metadata.epochs)) == ("m1", 0.25, 2)


@pytest.mark.parametrize("stage", PublishStage)
def test_publication_metadata(stage):
    """Every stage of a publication is told, with its model and release."""
    operation = replace(PUBLISH, progress=to_json(PublishProgress(stage, 0.25)))
    metadata = release_service_pb2.PublishModelMetadata()
    assert convert.operation_message(operation, None).metadata.Unpack(metadata)
    assert release_service_pb2.PublishModelMetadata.Stage.Name(metadata.stage) == f"STAGE_{stage}"
    assert (metadata.model_id, metadata.release_id, metadata.progress) == ("m1", "r1", 0.25)


def test_succeeded():
    """An operation that succeeded carries what it made."""
    done = replace(TRAIN, state=OperationState.SUCCEEDED)
    message = convert.operation_message(done, model_pb2.Model(model_id="m1"))
    model = model_pb2.Model()
    assert message.done
    assert message.response.Unpack(model)
    assert model.model_id == "m1"


def test_succeeded_is_all_done():
    """What succeeded is all done, whatever its worker said last."""
    done = replace(progressing(TrainStage.SAVING, progress=0.97), state=OperationState.SUCCEEDED)
    assert convert.training_metadata(done).progress == 1


def test_receipt():
    """A receipt says what an erasure removed."""
    result = to_json(EraseUserResult(had_metadata=True, interaction_count=3, erase_time=NOW))
    receipt = convert.receipt(replace(ERASE, state=OperationState.SUCCEEDED, result=result))
    assert receipt == user_service_pb2.EraseUserReceipt(
        had_metadata=True, interaction_count=3, erase_time=receipt.erase_time
    )
    assert receipt.erase_time.ToDatetime(tzinfo=UTC) == NOW


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        (Failure("ABORTED", "WORKER_LOST", "lost"), "ABORTED", "WORKER_LOST"),
        (Failure("NONSENSE", "GATE_FAILED", "x"), "INTERNAL", "GATE_FAILED"),
        (None, "INTERNAL", "INTERNAL_FAULT"),
    ],
)
def test_failed(failure, code, reason):
    """An operation that failed carries its code, reason and words."""
    failed = replace(PUBLISH, state=OperationState.FAILED, failure=failure)
    message = convert.operation_message(failed, None)
    info = error_details_pb2.ErrorInfo()
    assert message.error.code == grpc.StatusCode[code].value[0]
    assert message.error.details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, "milvine")


def test_cancelled():
    """An operation that was cancelled is done with CANCELLED."""
    message = convert.operation_message(replace(TRAIN, state=OperationState.CANCELLED), None)
    assert message.done
    assert message.error.code == grpc.StatusCode.CANCELLED.value[0]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (operations_pb2.ListOperationsRequest(filter="done=true"), "filter"),
        (operations_pb2.ListOperationsRequest(name="catalogs/films"), "name"),
    ],
)
def test_list_refused(request_, field):
    """A list that there is not is refused."""
    assert fault(convert.check_listed, request_)[0][0] == field


@pytest.mark.parametrize("duration", [Duration(seconds=-1), Duration(nanos=-1)])
def test_negative_timeout(duration):
    """A negative timeout is refused."""
    assert fault(convert.seconds, duration, "timeout")[0][0] == "timeout"


def news_of(*operations):
    """What one watcher is told when it looks at a training again and again."""
    news = TrainingNews()
    return [[(m.stage, m.epoch.epoch) for m in news.since_last(o)] for o in operations]


def test_news_of_a_training():
    """A watcher is told each epoch once, and each stage."""
    assert news_of(
        TRAIN,
        progressing(TrainStage.READING),
        progressing(TrainStage.FITTING_HOLDOUT),
        progressing(TrainStage.FITTING_HOLDOUT, 2),
        progressing(TrainStage.FITTING_HOLDOUT, 2),
        progressing(TrainStage.FITTING_HOLDOUT, 3),
        progressing(TrainStage.EVALUATING, 3),
        progressing(TrainStage.FITTING, 3, 1),
    ) == [[], [(1, 0)], [(2, 0)], [(2, 1), (2, 2)], [], [(2, 3)], [(3, 0)], [(4, 1)]]


def test_news_of_a_fast_training():
    """Epochs that ended since the last look are told, whatever began after them."""
    assert news_of(
        progressing(TrainStage.FITTING_HOLDOUT, 1),
        progressing(TrainStage.EVALUATING, 2),
        progressing(TrainStage.SAVING, 2, 2),
    ) == [[(2, 1)], [(2, 2), (3, 0)], [(4, 1), (4, 2), (5, 0)]]


def test_news_of_the_past():
    """A watcher who comes late is told every epoch at once."""
    done = replace(progressing(TrainStage.SAVING, 1, 2), state=OperationState.SUCCEEDED)
    assert news_of(done, done) == [[(2, 1), (4, 1), (4, 2), (5, 0)], []]


def test_news_of_a_training_that_begins_anew():
    """Epochs that another worker does again are told once."""
    assert news_of(
        progressing(TrainStage.FITTING_HOLDOUT, 2),
        progressing(TrainStage.READING),
        progressing(TrainStage.FITTING_HOLDOUT, 1),
        progressing(TrainStage.FITTING_HOLDOUT, 3),
    ) == [[(2, 1), (2, 2)], [(1, 0)], [(2, 0)], [(2, 3)]]


@pytest.mark.parametrize(
    ("state", "active", "expected"),
    [
        (ReleaseState.BUILDING, None, "STATE_BUILDING"),
        (ReleaseState.READY, None, "STATE_READY"),
        (ReleaseState.READY, "r2", "STATE_READY"),
        (ReleaseState.READY, "r1", "STATE_ACTIVE"),
        (ReleaseState.FAILED, None, "STATE_FAILED"),
    ],
)
def test_release_state(state, active, expected):
    """The active release is the READY one that the catalog names."""
    message = releases.release_message(
        replace(RELEASE, state=state), replace(CATALOG, active_release_id=active)
    )
    assert release_pb2.Release.State.Name(message.state) == expected


def test_release_message():
    """Everything that is known of a release is told."""
    release = replace(RELEASE, gate=Gate(0.99, 100, 0.95), create_time=NOW, item_count=7)
    message = releases.release_message(release, CATALOG)
    assert message.collections == release_pb2.Collections(
        items="films_items_r1",
        item_neighbours="films_item_neighbours_r1",
        users="films_users_r1",
        user_neighbours="films_user_neighbours_r1",
    )
    assert (message.gate.index_recall, message.gate.sample_size) == (0.99, 100)
    assert message.item_count == 7
    assert not message.HasField("activate_time")
    assert not message.HasField("text_index")


def test_release_message_of_texts():
    """What is searched by text is told: the fields, the encoder and the collection."""
    text = TextIndex(("title",), "hashing:64", "hashing-1-64", 64)
    message = releases.release_message(replace(RELEASE, text=text), CATALOG)
    assert message.text_index == release_pb2.TextIndex(
        text_fields=["title"], text_encoder="hashing:64", dimension=64
    )
    assert message.collections.item_texts == "films_item_texts_r1"


def test_publication():
    """A publication takes the catalog of its model, and zeros as they are given."""
    request = release_service_pb2.PublishModelRequest(
        model_id="m1", hold=True, min_index_recall=0, keep_releases=0
    )
    asked = releases.publication(request, MODEL, release_id="r1")
    assert asked == PublishRequest(
        "films", "m1", "r1", hold=True, min_index_recall=0, keep_releases=0
    )
    defaults = releases.publication(
        release_service_pb2.PublishModelRequest(), MODEL, release_id="r"
    )
    assert (defaults.min_index_recall, defaults.keep_releases) == (0.95, 1)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"min_index_recall": 1.1}, "min_index_recall"),
        ({"min_index_recall": -0.1}, "min_index_recall"),
        ({"min_index_recall": float("nan")}, "min_index_recall"),
        ({"keep_releases": -1}, "keep_releases"),
        ({"keep_releases": 101}, "keep_releases"),
    ],
)
def test_publication_refused(fields, field):
    """A publication that breaks a rule is refused by the path of the field."""
    request = release_service_pb2.PublishModelRequest(model_id="m1", **fields)
    assert fault(releases.publication, request, MODEL, release_id="r1")[0][0] == field
