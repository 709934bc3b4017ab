"""Measuring models that were trained before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from milvine.artifacts import Artifacts
from milvine.domain.entity import from_micros
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.domain.model import Holdout, HoldoutMethod, ModelConfig
from milvine.training import Measuring, measure, train
from tests.unit.models.worlds import CATALOG, checkerboard, table

SIZE = 12
LATER = [(f"u{user:02}", f"i{user:02}", "rate", 5.0, 1_000) for user in range(SIZE)]
"""What users of the checkerboard do next: each finds the one item of their colour that is left."""
HOLDOUT = Holdout(HoldoutMethod.AFTER, cutoffs=(1,), start_time=from_micros(1_000))


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(str(tmp_path / "artifacts"))


def trained(artifacts, rows, family="als", **settings):
    """A model of some rows."""
    return train(
        table(rows),
        CATALOG,
        ModelConfig(family, {"embedding_size": 4, "epochs": 5} | settings),
        Holdout(HoldoutMethod.NONE),
        model_id="m1",
        display_name="",
        artifacts=artifacts,
        device="cpu",
        report=lambda _: None,
        cancelled=lambda: False,
    )


def measured(artifacts, model, rows, holdout=HOLDOUT):
    """What the model is measured at."""
    measuring = Measuring(artifacts, "cpu", lambda _: None, lambda: False)
    return measure(table(rows), CATALOG, model, holdout, measuring)


def test_a_model_finds_what_its_users_do_next(artifacts):
    """It is measured as it is, and finds the checkerboard's answer; popularity does not."""
    model = trained(artifacts, checkerboard(SIZE))
    found = measured(artifacts, model, [*checkerboard(SIZE), *LATER])
    assert not found.fitted_anew
    assert (found.user_count, found.item_count) == (SIZE, SIZE)
    assert found.model[0].recall == 1.0
    assert found.popularity[0].recall < 0.5


def test_settings_that_are_fitted_anew_find_the_same(artifacts):
    """A model that knows the answers is measured by a fit that does not."""
    rows = [*checkerboard(SIZE), *LATER]
    found = measured(artifacts, trained(artifacts, rows), rows)
    assert found.fitted_anew
    assert found.model[0].recall == 1.0
    assert found.held_out_count == SIZE


def test_what_a_model_does_not_know_is_missed(artifacts):
    """Items that came since count as held out, and as missed; new users get popular items."""
    model = trained(artifacts, checkerboard(SIZE))
    news = [("u00", "a new item", "rate", 5.0, 1_001), ("a new user", "i00", "rate", 5.0, 1_002)]
    found = measured(artifacts, model, [*checkerboard(SIZE), *LATER, *news])
    assert (found.user_count, found.item_count) == (SIZE + 1, SIZE + 1)
    assert found.held_out_count == SIZE + 2
    found_by_known = SIZE - 0.5  # u00 finds one of two
    assert found_by_known <= found.model[0].recall * (SIZE + 1) <= found_by_known + 1


def test_a_fit_that_diverges_measures_nothing(artifacts):
    """The weights that a training would keep are no measure of its settings."""
    rows = [*checkerboard(SIZE), *LATER]
    model = trained(artifacts, rows, "bpr", learning_rate=0.001)
    wild = {"learning_rate": 1e30, "batch_size": 2**20, "epochs": 50}
    config = ModelConfig("bpr", {**model.config.settings, **wild})
    with pytest.raises(FailedPrecondition) as caught:
        measured(artifacts, replace(model, config=config), rows)
    assert caught.value.reason is Reason.TRAINING_DIVERGED
