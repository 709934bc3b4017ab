"""Training from a table to an artifact."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from milvine.artifacts import Artifacts
from milvine.domain.errors import Cancelled, FailedPrecondition, InvalidArgument, Reason
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
        checkpoints=options.pop("checkpoints", ""),
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


GRADIENT = {"bpr", "lightgcn", "mult_vae", "neural_cf", "sasrec", "softmax_mf", "two_tower"}


def _stopped(artifacts, family, *, stage, epochs, **options):
    """A training that is stopped after so many epochs of a step; what it told."""
    heard = []

    def cancelled():
        last = heard[-1] if heard else None
        told = last and (
            last.holdout_epochs if stage is TrainStage.FITTING_HOLDOUT else last.epochs
        )
        return bool(told and last.stage is stage and len(told) >= epochs)

    with pytest.raises(Cancelled):
        _train(
            artifacts, family, report=heard.append, cancelled=cancelled, checkpoints="c", **options
        )


@pytest.mark.parametrize("stage", [TrainStage.FITTING_HOLDOUT, TrainStage.FITTING])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_that_goes_on_equals_a_straight_one(tmp_path, family, stage):
    """Model and measures are the same, and watchers are told every epoch, once each."""
    heard, settings = [], {"embedding_size": 4, "epochs": 4}
    straight = _train(first := Artifacts(str(tmp_path / "1")), family, settings=settings)
    other = Artifacts(str(tmp_path / "2"))
    _stopped(other, family, stage=stage, epochs=2, settings=settings)
    assert not other.exists("m1")

    again = _train(other, family, settings=settings, report=heard.append, checkpoints="c")

    assert (again.evaluation, again.data_fingerprint) == (
        straight.evaluation,
        straight.data_fingerprint,
    )
    tensors = [place.load("m1").tensors for place in (first, other)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(np.array_equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    for epochs in (heard[-1].holdout_epochs, heard[-1].epochs):
        assert [report.epoch for report in epochs] == [1, 2, 3, 4]


@pytest.mark.parametrize("change", ["data", "settings"])
def test_a_checkpoint_of_something_else_is_not_used(tmp_path, change):
    """Where the data or the settings changed, the training begins anew."""
    rows, settings = checkerboard(12), {"embedding_size": 4, "epochs": 4}
    artifacts = Artifacts(str(tmp_path / "2"))
    _stopped(artifacts, "bpr", stage=TrainStage.FITTING, epochs=2, settings=settings, rows=rows)
    if change == "data":
        rows = rows[:-1]
    else:
        settings = settings | {"learning_rate": 0.01}

    _train(artifacts, "bpr", settings=settings, rows=rows, checkpoints="c")

    _train(straight := Artifacts(str(tmp_path / "1")), "bpr", settings=settings, rows=rows)
    vectors = [place.load("m1").tensors["item_vectors"] for place in (straight, artifacts)]
    assert np.array_equal(*vectors)


DIVERGING = SETTINGS | {"learning_rate": 1e30, "batch_size": 2**20, "epochs": 50}
"""Settings whose first pass, of one step, ends well."""


@pytest.mark.parametrize("family", sorted(GRADIENT))
@pytest.mark.parametrize("method", [HoldoutMethod.LATEST, HoldoutMethod.NONE])
def test_a_model_that_diverged_says_so(artifacts, family, method):
    """It has the finite weights of its checkpoint, and measures where some were held out."""
    options = {"settings": DIVERGING, "holdout": Holdout(method), "checkpoints": "c"}
    model = _train(artifacts, family, **options)
    assert "lower learning_rate, which is 1e+30; the best weights" in model.divergence
    assert len(model.epochs) < 50
    assert (model.evaluation is None) == (method is HoldoutMethod.NONE)
    tensors = artifacts.load("m1").tensors.values()
    assert all(np.isfinite(tensor).all() for tensor in tensors)


def test_divergence_without_a_checkpoint_stores_nothing(artifacts):
    """Where no weights are kept, the training fails."""
    with pytest.raises(FailedPrecondition) as caught:
        _train(artifacts, "bpr", settings=DIVERGING)
    assert caught.value.reason is Reason.TRAINING_DIVERGED
    assert not artifacts.exists("m1")


def test_order_needs_times(artifacts):
    """A family of the order of events is refused where every user's are of one moment."""
    rows = [(user, item, kind, value, 7) for user, item, kind, value, _ in checkerboard(12)]
    with pytest.raises(FailedPrecondition, match="record each with its event_time") as caught:
        _train(artifacts, "sasrec", rows=rows)
    assert caught.value.reason is Reason.NO_TIME_ORDER
    assert caught.value.metadata == {"catalog_id": "world"}
    assert not artifacts.exists("m1")


@pytest.mark.parametrize("family", FAMILIES)
def test_more_factors_than_items(artifacts, family):
    """Vectors may have more dimensions than there are users and items."""
    model = _train(artifacts, family, settings={"embedding_size": 64, "epochs": 2})
    assert model.item_count < 64 <= model.dimension
    assert np.isfinite(artifacts.load("m1").tensors["item_vectors"]).all()
