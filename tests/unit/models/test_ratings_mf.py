"""Explicit ratings against their definition."""

from __future__ import annotations

import numpy as np

from milvine.models import families
from milvine.models.least_squares import initial, transposed
from tests.unit.models.worlds import dataset_of, encode, fit, low_rank

SETTINGS = {
    "embedding_size": 1,  # and a bias: two steps of conjugate gradient are exact
    "epochs": 8,
    "regularization": 0.05,
    "bias_regularization": 2.0,
}


def _solve(ratings, fixed, config):
    """Rows `[x, bias]` for ratings (rows, columns), NaN where there is none, by dense solves."""
    x = np.column_stack((fixed[:, :-1], np.ones(len(fixed))))
    solved = np.zeros((len(ratings), x.shape[1]))
    for row, values in enumerate(ratings):
        rated = np.flatnonzero(~np.isnan(values))
        penalty = np.full(x.shape[1], config.regularization * len(rated))
        penalty[-1] = config.bias_regularization
        normal = x[rated].T @ x[rated] + np.diag(penalty)
        solved[row] = np.linalg.solve(normal, x[rated].T @ (values[rated] - fixed[rated, -1]))
    return solved


def _matrix(dataset):
    ratings = np.full((len(dataset.users), len(dataset.items)), np.nan)
    ratings[dataset.histories.users, dataset.histories.items] = dataset.histories.strengths
    return ratings


def test_fit_follows_the_definition():
    """The predicted ratings are those of dense solves in float64."""
    dataset = dataset_of("ratings_mf", low_rank(20, 12, 0.6))
    config = families["ratings_mf"].config(SETTINGS)
    fitted, encoder = fit("ratings_mf", dataset, **SETTINGS)
    ratings = _matrix(dataset)
    mean = np.nanmean(ratings)
    items = np.zeros((12, 2))
    items[:, :1] = initial(transposed(dataset.histories, 12)[0], 1, seed=0).numpy()
    for _ in range(8):
        users = _solve(ratings - mean, items, config)
        items = _solve((ratings - mean).T, users, config)
    users = _solve(ratings - mean, items, config)
    expected = mean + users[:, -1:] + items[:, -1] + users[:, :-1] @ items[:, :-1].T
    predicted = encoder.encode(dataset.histories) @ fitted.item_vectors.T
    np.testing.assert_allclose(predicted, expected, atol=2e-3)


def test_predicts_ratings_better_than_biases_alone():
    """On ratings of low rank, the error on unseen ratings is under half of the biases' error."""
    rows = low_rank(150, 80, 0.4)
    train, test = rows[::2] + rows[1::4], rows[3::4]
    dataset = dataset_of("ratings_mf", train)

    def error(**settings):
        fitted, encoder = fit("ratings_mf", dataset, **settings)
        scores = encoder.encode(dataset.histories) @ fitted.item_vectors.T
        users = dataset.users.rows([row[0] for row in test])
        items = dataset.items.rows([row[1] for row in test])
        return np.sqrt(np.mean((scores[users, items] - [row[3] for row in test]) ** 2))

    biases_alone = error(regularization=1e6)
    assert error(embedding_size=4, regularization=0.02) < biases_alone / 2


def test_stranger_is_predicted_the_mean_and_the_items_bias():
    """Without a history, predictions are the mean rating plus the item's bias."""
    dataset = dataset_of("ratings_mf", low_rank(30, 20, 0.5))
    fitted, encoder = fit("ratings_mf", dataset, **SETTINGS)
    scores = fitted.item_vectors @ encode("ratings_mf", encoder, dataset, [])
    expected = dataset.histories.strengths.mean() + fitted.item_vectors[:, -1]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
