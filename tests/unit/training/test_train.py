"""Training from a table to an artifact."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from milvine.artifacts import Artifacts
from milvine.domain.errors import Cancelled, FailedPrecondition, InvalidArgument
from milvine.domain.model import Holdout, HoldoutMethod, ModelConfig
from milvine.domain.progress import TrainStage
from milvine.models import families
from milvine.training import train
from tests.unit.models.worlds import CATALOG, checkerboard, table

FAMILIES = sorted(families)
SETTINGS = {"embedding_size": 4, "epochs": 3}


@pytest.fixture
def artifacts(tmp_path: Path):
    return Artifacts(str(tmp_path / "artifacts"))


def _train(artifacts, family="als", rows=None, holdout=None, **options):
    return train(
        table(checkerboard(12) if rows is None else rows),
        CATALOG,
        ModelConfig(family, options.pop("settings", SETTINGS)),
        holdout or Holdout(),
        model_id="m1",
        display_name="First",
        artifacts=artifacts,
        device="cpu",
        report=options.pop("report", lambda _: None),
        cancelled=options.pop("cancelled", lambda: False),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_model_says_what_it_is(artifacts, family):
    """The record has the counts, the whole config, epochs, metrics and the artifact's tensors."""
    model = _train(artifacts, family)
    stored = artifacts.load("m1")
    assert (model.id, model.catalog_id, model.display_name) == ("m1", "world", "First")
    assert model.config.settings == {**stored.document["config"]["settings"], **SETTINGS}
    assert (model.user_count, model.item_count) == (12, 12)
    assert model.pair_count == stored.tensors["item_popularity"].sum()
    assert stored.tensors["item_vectors"].shape == (12, model.dimension)
    assert [epoch.epoch for epoch in model.epochs] == [1, 2, 3]
    assert model.evaluation.user_count == 12
    assert [m.cutoff for m in model.evaluation.popularity] == [10, 20]
    assert len(model.data_fingerprint) == 64
    assert model.train_seconds > 0
    assert datetime.now(UTC) - model.create_time < timedelta(minutes=1)
    assert stored.item_ids.to_pylist() == [f"i{n:02}" for n in range(12)]


def test_artifact_keeps_no_user(artifacts):
    """Nothing of a user is stored: neither ids nor vectors."""
    _train(artifacts, rows=[(f"secret{u}", i, *rest) for (u, i, *rest) in checkerboard(12)])
    stored = artifacts.load("m1")
    assert "secret" not in str(stored.document)
    assert all(b"secret" not in tensor.tobytes() for tensor in stored.tensors.values())
    assert all("user" not in name for name in stored.tensors)


def test_progress_is_told_in_order(artifacts):
    """Each step is told, shares only grow, and each epoch is told as it ends."""
    heard = []
    _train(artifacts, report=heard.append)
    assert list(dict.fromkeys(p.stage for p in heard)) == list(TrainStage)
    shares = [p.progress for p in heard]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    assert [len(p.epochs) for p in heard if p.stage is TrainStage.FITTING] == [0, 1, 2, 3]


def test_without_holdout_nothing_is_measured(artifacts):
    """With method NONE the model is fitted once and not measured."""
    heard = []
    model = _train(artifacts, holdout=Holdout(HoldoutMethod.NONE), report=heard.append)
    assert model.evaluation is None
    assert list(dict.fromkeys(p.stage for p in heard)) == [
        TrainStage.READING, TrainStage.FITTING, TrainStage.SAVING,
    ]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_one_user_of_one_item(artifacts, family):
    """The smallest catalog trains; where nothing can be held out, nothing is measured."""
    model = _train(artifacts, family, rows=[("u", "i", "rate", 5.0, 0)])
    assert model.evaluation is None
    assert np.isfinite(artifacts.load("m1").tensors["item_vectors"]).all()


@pytest.mark.parametrize("stage", list(TrainStage))
def test_cancel_in_any_step_stores_nothing(artifacts, stage):
    """A cancel in any step before saving ends the training and leaves no artifact."""
    heard = []
    with pytest.raises(Cancelled):
        _train(
            artifacts,
            report=lambda p: heard.append(p.stage),
            cancelled=lambda: stage in heard or (stage is TrainStage.SAVING and len(heard) > 9),
        )
    assert not artifacts.exists("m1")


def test_bad_config_is_told_before_any_work(artifacts):
    """A bad setting raises InvalidArgument before a step is told."""
    heard = []
    with pytest.raises(InvalidArgument, match=r"config\.als\.epochs"):
        _train(artifacts, settings={"epochs": 0}, report=heard.append)
    assert heard == []


@pytest.mark.parametrize("family", FAMILIES)
def test_no_data(artifacts, family):
    """An empty catalog raises FailedPrecondition and stores nothing."""
    with pytest.raises(FailedPrecondition):
        _train(artifacts, family, rows=[])
    assert not artifacts.exists("m1")
