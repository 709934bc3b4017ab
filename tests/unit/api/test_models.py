"""Models and trainings on their way in and out."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from milvine.api.convert import models as convert
from milvine.domain.catalog import Catalog, EventType
from milvine.domain.model import (
    ContentSource,
    EpochReport,
    Evaluation,
    Holdout,
    HoldoutMethod,
    Model,
    ModelConfig,
    RankingMetrics,
)
from milvine.models import families
from milvine.v1 import model_pb2, model_service_pb2
from tests.unit.api.test_values import fault

CATALOG = Catalog("films", (EventType("view"), EventType("buy")))
METHODS = list(HoldoutMethod)


def asked(**fields):
    """A training request with the ALS family unless the fields say otherwise."""
    given_fields = {"config": model_pb2.ModelConfig(als=model_pb2.AlsConfig())} | fields
    return model_service_pb2.TrainModelRequest(catalog_id="films", **given_fields)


def trained(request):
    """The training of a request."""
    return convert.training(request, CATALOG, families, model_id="m1")


@pytest.mark.parametrize("family", ["als", "ratings_mf"])
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


def test_every_family_of_the_api_is_known():
    """Each family that a request can name is there."""
    names = model_pb2.ModelConfig.DESCRIPTOR.fields_by_name.keys()
    assert set(names) <= families.keys()


def test_zero_is_given():
    """A setting of 0 is not taken for an absent one."""
    als = model_pb2.AlsConfig(regularization=0, embedding_size=8)
    settings = trained(asked(config=model_pb2.ModelConfig(als=als))).config.settings
    assert (settings["regularization"], settings["embedding_size"]) == (0, 8)


@given(
    st.builds(
        Holdout,
        st.sampled_from(METHODS),
        st.none() | st.floats(0.01, 0.99),
        st.lists(st.integers(1, 1_000), min_size=1, max_size=10, unique=True)
        .map(sorted)
        .map(tuple),
        st.integers(-(2**63), 2**63 - 1),
    )
)
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
        ({"display_name": "x" * 257}, "display_name"),
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
    metrics = RankingMetrics(10, 0.1, 0.2, 0.3, 0.4, 0.5)
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
        epochs=(EpochReport(1, 2, 0.5, 0.25),),
        evaluation=Evaluation(Holdout(), 7, (metrics,), (metrics,)),
        display_name="first",
        event_types=("view",),
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
        content=ContentSource(("title",), "hashing", "hashing-1", 9, 0.25),
    )
    message = convert.model_message(model)
    assert message.config.als.embedding_size == 8
    assert message.config.als.HasField("seed")
    assert not message.config.als.HasField("epochs")
    assert message.epochs[0] == model_pb2.EpochReport(
        epoch=1, epoch_count=2, loss=0.5, duration=Duration(nanos=250_000_000)
    )
    assert message.train_duration == Duration(seconds=1, nanos=500_000_000)
    assert message.evaluation.model[0].hit_rate == 0.4
    assert message.content_map == model_pb2.ContentMap(
        text_fields=["title"], text_encoder="hashing", item_count=9, explained_variance=0.25
    )
    assert message.evaluation.holdout.cutoffs == [10, 20]
    given_fields = {field.name for field, _ in message.ListFields()}
    assert given_fields == set(message.DESCRIPTOR.fields_by_name)


def test_model_without_evaluation():
    """A model that was not measured has no evaluation."""
    model = Model("m", "films", ModelConfig("als", {}), 1, 1, 1, 1, "", 0.0)
    assert not convert.model_message(model).HasField("evaluation")


def test_unknown_family_is_shown_without_settings():
    """A model of a family that this version does not know can be listed."""
    model = Model("m", "films", ModelConfig("later", {"x": 1}), 1, 1, 1, 1, "", 0.0)
    assert convert.model_message(model).config == model_pb2.ModelConfig()
