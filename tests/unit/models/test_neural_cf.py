"""The network half of neural collaborative filtering."""

from __future__ import annotations

import numpy as np

from milvine.models import families
from tests.unit.models.worlds import checkerboard, dataset_of, fit

SETTINGS = {"embedding_size": 8, "network_size": 8, "epochs": 60, "learning_rate": 0.01}


def _fitted():
    dataset = dataset_of("neural_cf", checkerboard(20))
    fitted, encoder = fit("neural_cf", dataset, **SETTINGS)
    kind = families["neural_cf"]
    return dataset, fitted, encoder, kind.scorer(kind.config(SETTINGS), fitted.tensors)


def test_scorer_ranks_what_a_user_likes_first():
    """Of items that are new to a user, the whole scores the user's own highest."""
    dataset, _, _, scorer = _fitted()
    even = np.array([int(i[1:]) % 2 == 0 for i in dataset.items.ids.to_pylist()])
    candidates = np.tile(np.arange(20), (20, 1))
    scores = scorer.score(dataset.histories, candidates)
    assert scores.shape == (20, 20)
    assert scores.dtype == np.float32
    for user in range(20):
        mine = even if user % 2 == 0 else ~even
        assert scores[user, mine].min() > scores[user, ~mine].max()


def test_scores_do_not_depend_on_the_other_candidates():
    """An item's score is its own, whatever stands beside it."""
    dataset, _, _, scorer = _fitted()
    users = dataset.histories.take(np.array([3, 4]))
    wide = scorer.score(users, np.array([[0, 5, 7], [9, 5, 1]]))
    narrow = scorer.score(users, np.array([[7], [1]]))
    np.testing.assert_allclose(wide[:, 2:], narrow, rtol=1e-5)


def test_network_is_more_than_the_factorised_half():
    """The whole's scores are not the inner products alone."""
    dataset, fitted, encoder, scorer = _fitted()
    inner = encoder.encode(dataset.histories) @ fitted.item_vectors.T
    whole = scorer.score(dataset.histories, np.tile(np.arange(20), (20, 1)))
    assert np.abs((whole - inner) - (whole - inner).mean()).max() > 0.1
