"""Models and trainings on their way in and out."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from milvine.api.convert import models as convert
from milvine.domain.catalog import Catalog, EventType
from milvine.domain.model import (
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
    default = f"`{value}`" if isinstance(value, str) else f"{value:,}".removesuffix(".0")
    comment = settings_comment(family, field.name)
    assert re.search(rf"Default {re.escape(default)}[.,]( |$)", comment)
    bounds = field.metadata["range"]
    if field.name != "seed" and not isinstance(value, str):
        low = f"{bounds.low:,}"
        told = f"{low} to {bounds.high:,}" if bounds.high < math.inf else f"{low} or more"
        assert (f"over {low}" if bounds.excludes_low else told) in comment


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
        epochs=(EpochReport(1, 2, 0.5, 0.25, 0.125),),
        evaluation=Evaluation(Holdout(), 7, (metrics,), (metrics,)),
        display_name="first",
        event_types=("view",),
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
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
