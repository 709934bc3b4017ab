"""Models and trainings on their way in and out."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from milvine.api.convert import evaluations
from milvine.api.convert import models as convert
from milvine.domain.catalog import Catalog, EventType, VectorIndex
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.domain.model import (
    ContentSource,
    EpochReport,
    Evaluation,
    Holdout,
    HoldoutMethod,
    LiveEvaluation,
    Model,
    ModelConfig,
    RankingMetrics,
    Segment,
    SegmentEvaluation,
)
from milvine.domain.release import Release, ReleaseState
from milvine.jobs.payloads import EvaluateRequest
from milvine.models import families
from milvine.v1 import model_pb2, model_service_pb2
from tests.unit.api.test_values import fault

CATALOG = Catalog("films", (EventType("view"), EventType("buy")))
METHODS = list(HoldoutMethod)
ROOT = Path(__file__).parents[3]


def asked(**fields):
    """A training request with the ALS family unless the fields say otherwise."""
    given_fields = {"config": model_pb2.ModelConfig(als=model_pb2.AlsConfig())} | fields
    return model_service_pb2.TrainModelRequest(catalog_id="films", **given_fields)


def trained(request):
    """The training of a request."""
    return convert.training(request, CATALOG, families, model_id="m1")


@pytest.mark.parametrize("family", sorted(families))
def test_defaults(family):
    """Settings that are absent take the defaults of the family, and all are written down."""
    config = model_pb2.ModelConfig()
    getattr(config, family).SetInParent()
    training = trained(asked(config=config))
    message = getattr(config, family)
    assert training.config.family == family
    assert training.config.settings.keys() == set(message.DESCRIPTOR.fields_by_name)
    assert training.holdout == Holdout()
    assert training.event_types == ()


def test_every_family_is_in_the_api():
    """A request can name each family, and no other."""
    assert set(model_pb2.ModelConfig.DESCRIPTOR.fields_by_name) == families.keys()


SETTINGS = [(name, field) for name in families for field in fields(families[name].config({}))]


@pytest.mark.parametrize(("family", "field"), SETTINGS, ids=lambda x: getattr(x, "name", x))
def test_the_api_tells_the_settings(family, field):
    """The comment of a setting has its default and, but for the seed, its range."""
    value = getattr(families[family].config({}), field.name)
    comment = settings_comment(family, field.name)
    assert re.search(rf"Default {re.escape(written(value))}[.,]( |$)", comment)
    bounds = field.metadata["range"]
    if field.name != "seed" and not isinstance(value, (str, bool)):
        low = f"{bounds.low:,}"
        told = f"{low} to {bounds.high:,}" if bounds.high < math.inf else f"{low} or more"
        assert (f"over {low}" if bounds.excludes_low else told) in comment


def written(value: float | str) -> str:
    """A default as comments write it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f"`{value}`"
        case _:
            return f"{value:,}".removesuffix(".0")


def settings_comment(family: str, setting: str) -> str:
    """The comment of a setting in the proto file, as one line."""
    message = model_pb2.ModelConfig.DESCRIPTOR.fields_by_name[family].message_type.name
    text = (ROOT / "protos/milvine/v1/model.proto").read_text()
    lines = text.partition(f"message {message} {{\n")[2].partition("\n}")[0].splitlines()
    end = next(n for n, line in enumerate(lines) if f" {setting} = " in line)
    start = next((n for n in range(end - 1, -1, -1) if "//" not in lines[n]), -1)
    return " ".join(line.strip().removeprefix("// ") for line in lines[start + 1 : end])


def test_zero_is_given():
    """A setting of 0 is not taken for an absent one."""
    als = model_pb2.AlsConfig(regularization=0, embedding_size=8)
    settings = trained(asked(config=model_pb2.ModelConfig(als=als))).config.settings
    assert (settings["regularization"], settings["embedding_size"]) == (0, 8)


@st.composite
def holdouts(draw):
    """Holdouts that have what their method needs, and no more."""
    method = draw(st.sampled_from(METHODS))
    is_after, is_given = method is HoldoutMethod.AFTER, method is HoldoutMethod.GIVEN
    fractions = st.none() if is_after or is_given else st.none() | st.floats(0.01, 0.99)
    cutoffs = st.lists(st.integers(1, 1_000), min_size=1, max_size=10, unique=True)
    return Holdout(
        method,
        draw(fractions),
        tuple(sorted(draw(cutoffs))),
        draw(st.integers(-(2**63), 2**63 - 1)),
        draw(st.datetimes(timezones=st.just(UTC))) if is_after else None,
        tuple(draw(st.permutations(["view", "buy"]))) if is_given else (),
    )


@given(holdouts())
def test_holdout_round_trip(holdout):
    """A holdout survives the way out and in."""
    evaluation = Evaluation(holdout, 1, (), ())
    model = Model("m", "films", ModelConfig("als", {}), 1, 1, 1, 1, "", 0.0, evaluation=evaluation)
    message = convert.model_message(model).evaluation.holdout
    assert trained(asked(holdout=message)).holdout == holdout


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"config": None}, "config"),
        ({"config": model_pb2.ModelConfig()}, "config"),
        (
            {"config": model_pb2.ModelConfig(als=model_pb2.AlsConfig(epochs=0))},
            "config.als.epochs",
        ),
        (
            {"config": model_pb2.ModelConfig(als=model_pb2.AlsConfig(regularization=math.nan))},
            "config.als.regularization",
        ),
        (
            {
                "config": model_pb2.ModelConfig(
                    ratings_mf=model_pb2.RatingsMfConfig(embedding_size=4_096)
                )
            },
            "config.ratings_mf.embedding_size",
        ),
        (
            {"config": model_pb2.ModelConfig(bpr=model_pb2.BprConfig(learning_rate=0))},
            "config.bpr.learning_rate",
        ),
        (
            {"config": model_pb2.ModelConfig(lightgcn=model_pb2.LightGcnConfig(layers=17))},
            "config.lightgcn.layers",
        ),
        (
            {"config": model_pb2.ModelConfig(sasrec=model_pb2.SasRecConfig(heads=3))},
            "config.sasrec.heads",
        ),
        ({"display_name": "x" * 257}, "display_name"),
        ({"holdout": model_pb2.Holdout(method="METHOD_AFTER")}, "holdout.start_time"),
        ({"holdout": model_pb2.Holdout(start_time=Timestamp())}, "holdout.start_time"),
        (
            {"holdout": model_pb2.Holdout(method="METHOD_AFTER", start_time=Timestamp(nanos=-1))},
            "holdout.start_time",
        ),
        ({"holdout": model_pb2.Holdout(method="METHOD_GIVEN")}, "holdout.event_types"),
        ({"holdout": model_pb2.Holdout(event_types=["view"])}, "holdout.event_types"),
        (
            {"holdout": model_pb2.Holdout(method="METHOD_GIVEN", event_types=["nope"])},
            "holdout.event_types[0]",
        ),
        (
            {
                "holdout": model_pb2.Holdout(
                    method="METHOD_GIVEN", event_types=["view"], fraction=0.1
                )
            },
            "holdout.fraction",
        ),
        ({"event_types": ["view", "nope"]}, "event_types[1]"),
        ({"holdout": model_pb2.Holdout(method=99)}, "holdout.method"),
        ({"holdout": model_pb2.Holdout(fraction=0)}, "holdout.fraction"),
        ({"holdout": model_pb2.Holdout(fraction=1)}, "holdout.fraction"),
        ({"holdout": model_pb2.Holdout(fraction=math.nan)}, "holdout.fraction"),
        ({"holdout": model_pb2.Holdout(cutoffs=[10, 0])}, "holdout.cutoffs[1]"),
        ({"holdout": model_pb2.Holdout(cutoffs=[1_001])}, "holdout.cutoffs[0]"),
        ({"holdout": model_pb2.Holdout(cutoffs=range(1, 12))}, "holdout.cutoffs"),
    ],
)
def test_refused(fields, field):
    """A training that breaks a rule is refused by the path of the field."""
    assert fault(trained, asked(**fields))[0][0] == field


def test_model_message():
    """Everything that is known of a model is told."""
    metrics = RankingMetrics(10, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    segment = SegmentEvaluation(Segment.TAIL_ITEMS, 3, 4, (metrics,), (metrics,))
    model = Model(
        id="m1",
        catalog_id="films",
        config=ModelConfig("als", {"embedding_size": 8, "regularization": 0.1, "seed": 3}),
        user_count=1,
        item_count=2,
        pair_count=3,
        dimension=8,
        data_fingerprint="f",
        train_seconds=1.5,
        epochs=(EpochReport(1, 2, 0.5, 0.25, 0.125),),
        holdout_epochs=(EpochReport(1, 2, 0.75, 0.25),),
        evaluation=replace(
            Evaluation(Holdout(), 7, (metrics,), (metrics,), (segment,), 8, 9, "h"),
            live=LiveEvaluation("r1", 0.75, (metrics,)),
        ),
        display_name="first",
        event_types=("view",),
        divergence="the training diverged",
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
        content=ContentSource(("title",), "hashing", "hashing-1", 9, 0.25),
        latest_event_time=datetime(2025, 1, 1, tzinfo=UTC),
    )
    message = convert.model_message(model)
    assert message.config.als.embedding_size == 8
    assert message.config.als.HasField("seed")
    assert not message.config.als.HasField("epochs")
    assert message.epochs[0] == model_pb2.EpochReport(
        epoch=1, epoch_count=2, loss=0.5, duration=Duration(nanos=250_000_000), metric=0.125
    )
    assert message.train_duration == Duration(seconds=1, nanos=500_000_000)
    assert message.evaluation.model[0].hit_rate == 0.4
    assert message.content_map == model_pb2.ContentMap(
        text_fields=["title"], text_encoder="hashing", item_count=9, explained_variance=0.25
    )
    assert message.evaluation.segments[0].segment == model_pb2.SegmentEvaluation.SEGMENT_TAIL_ITEMS
    assert message.evaluation.segments[0].popularity[0].novelty == 0.6
    assert message.evaluation.holdout.cutoffs == [10, 20]
    evaluation = message.evaluation
    for told in (message, evaluation, evaluation.segments[0], evaluation.live):
        given_fields = {field.name for field, _ in told.ListFields()}
        assert given_fields == set(told.DESCRIPTOR.fields_by_name)


def test_model_without_evaluation():
    """A model that was not measured has no evaluation."""
    model = Model("m", "films", ModelConfig("als", {}), 1, 1, 1, 1, "", 0.0)
    assert not convert.model_message(model).HasField("evaluation")


def test_unknown_family_is_shown_without_settings():
    """A model of a family that this version does not know can be listed."""
    model = Model("m", "films", ModelConfig("later", {"x": 1}), 1, 1, 1, 1, "", 0.0)
    assert convert.model_message(model).config == model_pb2.ModelConfig()


AT = datetime(2026, 1, 1, tzinfo=UTC)
LEARNED = Model("m1", "films", ModelConfig("als", {}), 1, 1, 1, 1, "", 0.0, latest_event_time=AT)
RELEASE = Release("r1", "films", "m1", ReleaseState.READY, (), (), VectorIndex())


def measured(holdout=None, release=None, model=LEARNED):
    """The evaluation of a request."""
    request = model_service_pb2.EvaluateModelRequest(model_id="m1", holdout=holdout)
    return evaluations.measuring(request, model, CATALOG, release)


def after(moment):
    """A holdout of what came from a moment on."""
    start = Timestamp()
    start.FromDatetime(moment)
    return model_pb2.Holdout(method="METHOD_AFTER", start_time=start)


def test_an_evaluation_takes_the_latest_items():
    """Without a holdout the latest item of each user is held out, and no index is asked."""
    assert measured() == EvaluateRequest("films", "m1", Holdout())


def test_an_index_is_asked_for_what_the_model_has_not_learned():
    """What came later, and event types that taught nothing, measure a release."""
    later = after(AT + timedelta(seconds=1))
    assert measured(later, RELEASE).release_id == "r1"
    buys = model_pb2.Holdout(method="METHOD_GIVEN", event_types=["buy"])
    viewer = replace(LEARNED, event_types=("view",))
    assert measured(buys, RELEASE, viewer).release_id == "r1"
    for model, holdout in (
        (LEARNED, None),
        (LEARNED, after(AT)),
        (LEARNED, buys),
        (replace(LEARNED, latest_event_time=None), later),
        (replace(viewer, event_types=("view", "buy")), buys),
    ):
        with pytest.raises(FailedPrecondition, match="may have learned") as caught:
            measured(holdout, RELEASE, model)
        assert caught.value.reason is Reason.WRONG_STATE


def test_evaluations_that_are_refused():
    """Nothing held out, another model's release, and one that can't be asked."""
    assert fault(measured, model_pb2.Holdout(method="METHOD_NONE"))[0][0] == "holdout.method"
    later = after(AT + timedelta(seconds=1))
    assert fault(measured, later, replace(RELEASE, model_id="m2"))[0][0] == "release_id"
    with pytest.raises(FailedPrecondition, match="not READY"):
        measured(later, replace(RELEASE, state=ReleaseState.BUILDING))
