"""The spectral start."""

from __future__ import annotations

import numpy as np
import pytest

from milvine.domain.errors import Cancelled
from milvine.models import Run
from milvine.models.graph import Graph
from milvine.models.spectral import start
from tests.unit.models.worlds import dataset_of, low_rank


def _dense(histories, item_count: int, shrinkage: float):
    matrix = np.zeros((len(histories), item_count))
    matrix[histories.users, histories.items] = 1
    rows, columns = matrix.sum(axis=1) + shrinkage, matrix.sum(axis=0) + shrinkage
    return matrix / np.sqrt(rows[:, None] * columns)


def test_graph_is_the_scaled_matrix():
    """Products with the graph are those with the dense matrix."""
    dataset = dataset_of("bpr", low_rank(30, 20, 0.4))
    dense = _dense(dataset.histories, 20, 2.0)
    graph = Graph.of(dataset.histories, 20, shrinkage=2.0, device="cpu")
    np.testing.assert_allclose(graph.by_user.to_dense(), dense, rtol=1e-5)
    np.testing.assert_allclose(graph.by_item.to_dense(), dense.T, rtol=1e-5)


def test_start_scores_by_the_leading_singular_vectors():
    """Sources and targets hold the leading directions, filtered by ridge regression, and scaled."""
    dataset = dataset_of("bpr", low_rank(60, 40, 0.4))
    begin = start(dataset.histories, 40, 5, shrinkage=2.0, seed=0, run=Run())
    _, sizes, axes = np.linalg.svd(_dense(dataset.histories, 40, 2.0))
    shares = (sizes[:5] / sizes[0]) ** 2
    frequency = np.bincount(dataset.histories.items, minlength=40) + 2.0
    expected = (axes[:5].T * shares / (shares + 0.01)) @ axes[:5]
    expected *= frequency[:, None] ** -0.5 * frequency**0.35
    scores = (begin.sources @ begin.targets.mT).numpy()
    assert np.corrcoef(scores.ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("dimension", [1, 3, 64])
def test_start_has_the_dimensions_asked_for(dimension):
    """Also where there are more dimensions than items; another seed starts elsewhere."""
    dataset = dataset_of("bpr", low_rank(10, 8, 0.5))
    first, second = (
        start(dataset.histories, 8, dimension, shrinkage=1.0, seed=seed, run=Run())
        for seed in (0, 1)
    )
    for table in (first.vectors, first.sources, first.targets):
        assert table.shape == (8, dimension)
        assert np.isfinite(table.numpy()).all()
    assert not np.allclose(first.targets.numpy(), second.targets.numpy())


def test_start_is_cancelled():
    """The start is given up when the fit is cancelled."""
    dataset = dataset_of("bpr", low_rank(10, 8, 0.5))
    with pytest.raises(Cancelled):
        start(dataset.histories, 8, 4, shrinkage=1.0, seed=0, run=Run(cancelled=lambda: True))
