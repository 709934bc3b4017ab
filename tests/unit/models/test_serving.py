"""Models as they serve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from milvine.artifacts import Artifacts
from milvine.domain.model import Holdout, ModelConfig
from milvine.models import families, history_of, load_serving_model
from milvine.training import train
from tests.unit.models.worlds import CATALOG, LEARNT, checkerboard, table


@pytest.mark.parametrize("family", sorted(families))
def test_served_model_knows_what_training_knew(family, tmp_path: Path):
    """A model loaded from its artifact recommends the withheld item and knows what is popular."""
    artifacts = Artifacts(str(tmp_path))
    rows = checkerboard(20)
    model = train(
        table(rows),
        CATALOG,
        ModelConfig(family, {"embedding_size": 8, **LEARNT.get(family, {})}),
        Holdout(),
        model_id="m",
        display_name="Board",
        artifacts=artifacts,
        device="cpu",
        report=lambda _: None,
        cancelled=lambda: False,
    )
    served = load_serving_model(artifacts, model)
    own = table([row for row in rows if row[0] == "u03"])
    history = history_of(own, CATALOG, served.feedback, items=served.items)
    scores = served.item_vectors @ served.encoder.encode(history)[0]
    scores[served.items.rows(own["item_id"])] = -np.inf
    assert served.items.take(scores.argsort()[-1:]) == ["i03"]
    assert served.dimension == model.dimension == served.item_vectors.shape[1]
    assert served.taste_dimension == 8
    assert served.popularity.sum() == model.pair_count
    assert (np.diff(served.popularity[served.by_popularity]) <= 0).all()
