"""Ridge regression of ragged batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milvine.models import ridge


@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=12),
    dimension=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_solutions_are_those_of_one_dense_solve_each(lengths, dimension, seed):
    """Short and long histories, in one batch or several, equal the definition."""
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, *lengths])
    features = rng.normal(size=(30, dimension)).astype(np.float32)
    seen = ridge.Observations(
        offsets,
        rng.integers(0, 30, offsets[-1]).astype(np.int32),
        rng.uniform(0.5, 5, offsets[-1]),
        rng.normal(size=offsets[-1]),
    )
    penalty = rng.uniform(0.1, 3, (len(lengths), dimension))
    solved = ridge.solve(features, seen, penalty)
    for user, (start, stop) in enumerate(itertools.pairwise(offsets)):
        x = features[seen.items[start:stop]].astype(np.float64)
        c, t = seen.weights[start:stop], seen.targets[start:stop]
        expected = np.linalg.solve((x.T * c) @ x + np.diag(penalty[user]), (x.T * c) @ t)
        np.testing.assert_allclose(solved[user], expected, rtol=1e-4, atol=1e-5)


def test_bounded_batches_give_the_same(monkeypatch: pytest.MonkeyPatch):
    """How users are grouped changes nothing."""
    rng = np.random.default_rng(0)
    offsets = np.cumsum([0, *rng.integers(0, 40, 200)])
    count = offsets[-1]
    seen = ridge.Observations(
        offsets, rng.integers(0, 50, count).astype(np.int32), np.ones(count), np.ones(count)
    )
    features = rng.normal(size=(50, 8)).astype(np.float32)
    penalty = np.ones((200, 8))
    at_once = ridge.solve(features, seen, penalty)
    monkeypatch.setattr(ridge, "_CHUNK_NUMBERS", 1)
    np.testing.assert_allclose(ridge.solve(features, seen, penalty), at_once, rtol=1e-5)


def test_no_penalty_is_solvable():
    """Without any penalty a user with fewer items than dimensions still gets a solution."""
    features = np.eye(4, dtype=np.float32)
    seen = ridge.Observations(np.array([0, 2]), np.array([0, 1], np.int32), np.ones(2), np.ones(2))
    solved = ridge.solve(features, seen, np.zeros((1, 4)))
    np.testing.assert_allclose(solved, [[1, 1, 0, 0]], atol=1e-4)
