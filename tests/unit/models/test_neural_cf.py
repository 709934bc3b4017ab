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


def _whole(fitted, encoder, scorer, histories, candidates):
    inner = encoder.encode(histories) @ fitted.item_vectors.T
    gains = scorer.gains(scorer.read(histories), candidates)
    return np.take_along_axis(inner, candidates, axis=1) + gains


def test_scorer_ranks_what_a_user_likes_first():
    """Of items that are new to a user, the whole scores the user's own highest."""
    dataset, fitted, encoder, scorer = _fitted()
    even = np.array([int(i[1:]) % 2 == 0 for i in dataset.items.ids.to_pylist()])
    candidates = np.tile(np.arange(20), (20, 1))
    scores = _whole(fitted, encoder, scorer, dataset.histories, candidates)
    assert scores.shape == (20, 20)
    assert scores.dtype == np.float32
    for user in range(20):
        mine = even if user % 2 == 0 else ~even
        assert scores[user, mine].min() > scores[user, ~mine].max()


def test_gains_do_not_depend_on_the_other_candidates():
    """What an item gains is its own, whatever stands beside it."""
    dataset, _, _, scorer = _fitted()
    readers = scorer.read(dataset.histories.take(np.array([3, 4])))
    wide = scorer.gains(readers, np.array([[0, 5, 7], [9, 5, 1]]))
    narrow = scorer.gains(readers, np.array([[7], [1]]))
    np.testing.assert_allclose(wide[:, 2:], narrow, rtol=1e-5)


def test_items_that_it_did_not_learn_gain_nothing_that_is_known():
    """Rows after those of the training data are told apart."""
    dataset, _, _, scorer = _fitted()
    readers = scorer.read(dataset.histories.take(np.array([3])))
    gains = scorer.gains(readers, np.array([[20, 5, 1_000]]))
    assert np.isnan(gains).tolist() == [[True, False, True]]


def test_network_is_more_than_the_factorised_half():
    """What it adds differs from item to item and from user to user."""
    dataset, _, _, scorer = _fitted()
    gains = scorer.gains(scorer.read(dataset.histories), np.tile(np.arange(20), (20, 1)))
    assert np.abs(gains - gains.mean()).max() > 0.1
    assert gains.std(axis=0).max() > 0.01
