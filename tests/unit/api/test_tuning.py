"""Searches for settings on their way in and out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milvine.api.convert import operations as convert
from milvine.api.convert import tuning
from milvine.client import requests
from milvine.domain.catalog import Catalog, EventType
from milvine.domain.model import Holdout, ModelConfig
from milvine.domain.operation import Operation, OperationKind, OperationState
from milvine.domain.progress import TuneProgress, TuneStage
from milvine.domain.tuning import Choices, Numbers, Trial, TuneMetric
from milvine.jobs.payloads import TuneRequest, TuneResult, from_json, to_json
from milvine.models import families
from milvine.v1 import model_pb2, model_service_pb2, tuning_pb2
from tests.unit.api.test_values import fault

CATALOG = Catalog("films", (EventType("view"), EventType("buy")))
TRIALS = (
    Trial(1, {"embedding_size": 64}, 1.5, 0.25),
    Trial(2, {"embedding_size": 32}, 2.0, None, "diverged"),
    Trial(3, {"embedding_size": 16}, 2.5, 0.75),
)


def asked(space=None, **fields):
    """A request that searches for the size of ALS, unless the fields say otherwise."""
    searched = {"embedding_size": (16, 64)} if space is None else space
    given = {"config": model_pb2.ModelConfig(als={"epochs": 3})} | fields
    messages = requests.space(searched) if isinstance(searched, dict) else searched
    return model_service_pb2.TuneModelRequest(catalog_id="films", space=messages, **given)


def searched(request):
    """The search of a request."""
    return tuning.tuning(request, CATALOG, families)


def test_defaults():
    """20 trials by NDCG@20 on the latest item of each user, and no model at the end."""
    search = searched(asked())
    plan = search.plan
    assert plan.config == ModelConfig("als", {"epochs": 3})
    assert plan.space == {"embedding_size": Numbers(16, 64)}
    assert (plan.trial_count, plan.metric, plan.cutoff) == (20, TuneMetric.NDCG, 20)
    assert plan.holdout == Holdout()
    assert search.following is None


def test_a_request_is_kept_as_it_is():
    """What is asked for survives the row of the operation."""
    request = asked(
        {"regularization": (0.001, 1, "log"), "embedding_size": [16.0, 32.0]},
        trial_count=7,
        metric=tuning_pb2.TUNE_METRIC_HIT_RATE,
        cutoff=5,
        event_types=["buy"],
        seed=-3,
        train_best=True,
        display_name="Best",
    )
    search = searched(request)
    assert search.plan.space == {
        "regularization": Numbers(0.001, 1, is_log=True),
        "embedding_size": Choices((16.0, 32.0)),
    }
    assert (search.plan.metric, search.plan.seed) == (TuneMetric.HIT_RATE, -3)
    assert search.following.display_name == "Best"
    assert from_json(TuneRequest, to_json(search)) == search


SEARCHED = tuning_pb2.SearchedSetting


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (asked([]), "space"),
        (asked([SEARCHED(name="embedding_size")]), "space[0]"),
        (asked({"nope": (1, 2)}), "space[0].name"),
        (asked({"epochs": (1, 2)}), "space[0].name"),
        (asked([*asked().space, *asked().space]), "space[1].name"),
        (asked({"embedding_size": (32, 32)}), "space[0].range.high"),
        (asked({"embedding_size": (64, 32)}), "space[0].range.high"),
        (asked({"embedding_size": (0, 32)}), "space[0].range.low"),
        (asked({"embedding_size": (16, 4096)}), "space[0].range.high"),
        (asked({"embedding_size": (16.5, 32)}), "space[0].range.low"),
        (asked({"regularization": (0, 1, "log")}), "space[0].range.low"),
        (asked({"regularization": (0, float("nan"))}), "space[0].range.high"),
        (asked({"embedding_size": []}), "space[0].choices.values"),
        (asked({"embedding_size": [8.0, 8.0]}), "space[0].choices.values"),
        (asked({"embedding_size": [8.0, 0.0]}), "space[0].choices.values[1]"),
        (asked(trial_count=-1), "trial_count"),
        (asked(trial_count=501), "trial_count"),
        (asked(metric=99), "metric"),
        (asked(cutoff=1_001), "cutoff"),
        (asked(holdout={"method": "METHOD_NONE"}), "holdout.method"),
        (asked(holdout={"fraction": 2}), "holdout.fraction"),
        (asked(event_types=["skip"]), "event_types[0]"),
        (asked(config=None), "config"),
        (asked(config=model_pb2.ModelConfig(als={"epochs": 0})), "config.als.epochs"),
        (asked(display_name="x"), "display_name"),
    ],
)
def test_refused(request_, field):
    """Each bad value is refused at its field."""
    assert field in [name for name, _ in fault(searched, request_)]


def operation(**changes):
    """A search that is under way."""
    search = searched(asked(train_best=True))
    return replace(Operation("o1", "films", OperationKind.TUNE, to_json(search)), **changes)


def test_metadata():
    """Progress has the trials so far, and the best of them."""
    told = TuneProgress(TuneStage.TRYING, 0.4, TRIALS[:2])
    found = tuning.metadata(operation(progress=to_json(told)))
    assert (found.stage, found.progress) == (found.STAGE_TRYING, 0.4)
    assert (found.trial_count, len(found.trials)) == (20, 2)
    assert (found.best_trial.number, found.best_trial.settings["embedding_size"]) == (1, 64)
    assert not found.trials[1].HasField("value")
    assert found.trials[1].failure == "diverged"
    assert not tuning.metadata(operation()).HasField("best_trial")


def test_response():
    """The end names the best settings, every trial, and the training that follows."""
    result = TuneResult(TRIALS, ModelConfig("als", {"embedding_size": 16, "epochs": 3}))
    ended = operation(state=OperationState.SUCCEEDED, result=to_json(result))
    message = convert.operation_message(ended, tuning.response(ended))
    found = tuning_pb2.Tuning()
    assert message.response.Unpack(found)
    assert found.best_trial.number == 3
    assert found.best_config.als.embedding_size == 16
    assert [trial.number for trial in found.trials] == [1, 2, 3]
    assert (found.metric, found.cutoff) == (tuning_pb2.TUNE_METRIC_NDCG, 20)
    following = from_json(TuneRequest, ended.request).following
    assert found.train_operation == f"operations/{following.operation_id}"
