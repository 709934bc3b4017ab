"""Implicit alternating least squares against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from milvine.domain.errors import InvalidArgument
from milvine.models import families
from milvine.models.als import AlsConfig
from milvine.models.least_squares import initial, transposed
from tests.unit.models.worlds import dataset_of, fit

ROWS = [
    (f"u{u}", f"i{i}", "buy", 1.0 + (u * i) % 4, 0)
    for u in range(12)
    for i in range(9)
    if (u * 7 + i * 5) % 3 == 0 or u == i
]
SETTINGS = {
    "embedding_size": 2,  # two steps of conjugate gradient are exact in two dimensions
    "epochs": 6,
    "regularization": 0.02,
    "regularization_exponent": 0.7,
    "unobserved_weight": 0.2,
    "confidence_scale": 0.5,
}


def _dense(dataset):
    """Confidences (users, items), 0 for what was not observed."""
    confidence = np.zeros((len(dataset.users), len(dataset.items)))
    h = dataset.histories
    confidence[h.users, h.items] = 1 + 0.5 * np.log1p(h.strengths.astype(np.float64))
    return confidence


def _penalty(confidence, config: AlsConfig):
    a = config.unobserved_weight
    frequency = confidence.sum(axis=1) + a * confidence.shape[1]
    return config.regularization * frequency**config.regularization_exponent


def _solve(confidence, fixed, config: AlsConfig):
    """Each row's least squares by its definition, one dense solve a row."""
    gram = config.unobserved_weight * fixed.T @ fixed
    rows = []
    for c, penalty in zip(confidence, _penalty(confidence, config), strict=True):
        normal = gram + (fixed * c[:, None]).T @ fixed + penalty * np.eye(fixed.shape[1])
        rows.append(np.linalg.solve(normal, fixed.T @ c))
    return np.array(rows)


def _loss(confidence, users, items, config: AlsConfig):
    scores = users @ items.T
    return (
        (confidence * (1 - scores) ** 2).sum()
        + config.unobserved_weight * (scores**2).sum()
        + (_penalty(confidence, config) * (users**2).sum(axis=1)).sum()
        + (_penalty(confidence.T, config) * (items**2).sum(axis=1)).sum()
    )


def test_fit_follows_the_definition():
    """Scores and losses are those of dense solves in float64, epoch by epoch."""
    dataset = dataset_of("als", ROWS)
    config = families["als"].config(SETTINGS)
    fitted, encoder = fit("als", dataset, **SETTINGS)
    confidence = _dense(dataset)
    items = initial(transposed(dataset.histories, 9)[0], 2, seed=0).double().numpy()
    losses = []
    for _ in range(6):
        users = _solve(confidence, items, config)
        items = _solve(confidence.T, users, config)
        losses.append(_loss(confidence, users, items, config) / np.count_nonzero(confidence))
    np.testing.assert_allclose([e.loss for e in fitted.epochs], losses, rtol=2e-4)
    expected = _solve(confidence, items, config) @ items.T
    scores = encoder.encode(dataset.histories) @ fitted.item_vectors.T
    np.testing.assert_allclose(scores, expected, atol=2e-4)


def test_encoding_an_unchanged_history_solves_the_users_least_squares():
    """A vector is the exact solution against the item vectors, whatever the batch."""
    dataset = dataset_of("als", ROWS)
    fitted, encoder = fit("als", dataset, **SETTINGS)
    exact = _solve(
        _dense(dataset), fitted.item_vectors.astype(np.float64), families["als"].config(SETTINGS)
    )
    np.testing.assert_allclose(encoder.encode(dataset.histories), exact, rtol=1e-4, atol=1e-5)


def test_item_vectors_lie_along_their_axes():
    """The Gram matrix of item vectors is diagonal, which the encoder relies on."""
    fitted, _ = fit("als", dataset_of("als", ROWS), **SETTINGS)
    vectors = fitted.item_vectors.astype(np.float64)
    gram = vectors.T @ vectors
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-5 * np.diag(gram).max()


def test_unobserved_weight_may_not_be_zero():
    """A range that is open at its low end says so."""
    with pytest.raises(InvalidArgument, match="over 0, is 0"):
        families["als"].config({"unobserved_weight": 0})
