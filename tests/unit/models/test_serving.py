"""Models as they serve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from milvine.artifacts import Artifacts
from milvine.domain.model import Holdout, ModelConfig
from milvine.models import families, history_of, load_serving_model
from milvine.text import same_encoder
from milvine.training import train
from tests.unit.models.worlds import CATALOG, LEARNT, checkerboard, table
from tests.unit.retrieval.served import served_checkerboard


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
    served = load_serving_model(artifacts, model, same_encoder)
    own = table([row for row in rows if row[0] == "u03"])
    history = history_of(own, CATALOG, served.feedback, items=served.items)
    scores = served.item_vectors @ served.encoder.encode(history)[0]
    scores[served.items.rows(own["item_id"])] = -np.inf
    assert served.items.take(scores.argsort()[-1:]) == ["i03"]
    assert served.dimension == model.dimension == served.item_vectors.shape[1]
    assert served.taste_dimension == 8
    assert served.popularity.sum() == model.pair_count
    assert (np.diff(served.popularity[served.by_popularity]) <= 0).all()


def test_items_come_after_those_that_were_learned():
    """New items have rows after the others, known ones move; learned ones stay as they are."""
    learned = served_checkerboard("als")
    count, dimension = learned.item_vectors.shape
    once = learned.with_items(["new b", "new a"], np.ones((2, dimension), np.float32))
    moved = np.arange(3 * dimension, dtype=np.float32).reshape(3, dimension)
    served = once.with_items(["new a", "i03", "new c"], moved)
    rows = served.items.rows(["i00", "new b", "new a", "new c"]).tolist()
    assert rows == [0, count, count + 1, count + 2]
    assert served.items.fixed == once.items.fixed == count
    np.testing.assert_array_equal(served.item_vectors[:count], learned.item_vectors)
    np.testing.assert_array_equal(served.item_vectors[count + 1 :], moved[[0, 2]])
    assert (once.item_vectors[count:] == 1).all()
    assert sorted(served.by_popularity.tolist()) == list(range(count + 3))
    assert not served.popularity[count:].any()


def test_histories_are_made_of_learned_items():
    """What the encoder knows nothing of is left out, in whichever place of the history."""
    served = served_checkerboard("als")
    longer = served.with_items(["new"], served.item_vectors[:1])
    events = table([("u", "new", "view", None, 1), ("u", "i03", "view", None, 2)])
    history = history_of(events, CATALOG, served.feedback, items=longer.items)
    assert longer.items.take(history.items) == ["i03"]
