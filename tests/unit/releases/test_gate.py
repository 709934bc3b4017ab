"""The exact scores that a live index is held against."""

from __future__ import annotations

import numpy as np
import pytest

from milvine.releases.gate import BLOCK, DEPTH, best_scores


@pytest.mark.parametrize("count", [0, 1, DEPTH, DEPTH + 1, BLOCK, 2 * BLOCK + 7])
def test_the_best_scores_of_blocks_are_the_best_of_all(count):
    """Whatever the number of items, of which some are left out."""
    rng = np.random.default_rng(count)
    queries = rng.normal(size=(3, 8)).astype(np.float32)
    vectors = rng.normal(size=(count + 5, 8)).astype(np.float32)
    rows = np.sort(rng.choice(count + 5, count, replace=False))

    found = best_scores(queries, vectors, rows)

    expected = np.sort(queries @ vectors[rows].T, axis=1)[:, -DEPTH:]
    np.testing.assert_allclose(np.sort(found, axis=1), expected, rtol=1e-5)
