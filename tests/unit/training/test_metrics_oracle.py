"""Metrics beside those of ranx, which others wrote."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milvine.training import ranking_metrics

NAMES = ("recall", "ndcg", "mrr", "hit_rate")
ids = st.integers(0, 30).map("i{}".format)
users = st.tuples(
    st.lists(ids, max_size=25, unique=True),
    st.sets(ids, min_size=1, max_size=25),
)


@pytest.fixture(scope="module")
def ranx() -> ModuleType:
    """The library, without its compiler, which takes longer than all the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_DISABLE_JIT", "1")
        return import_module("ranx")


@given(st.lists(users, min_size=1, max_size=8), st.integers(1, 30))
def test_metrics_are_those_of_ranx(ranx, users, cutoff):
    """Recall, NDCG, MRR and hit rate of any lists are those of an independent library."""
    names = [f"u{n}" for n in range(len(users))]
    qrels = ranx.Qrels(
        {u: dict.fromkeys(held, 1) for u, (_, held) in zip(names, users, strict=True)}
    )
    run = ranx.Run(
        {
            u: {item: -float(place) for place, item in enumerate(ranked)} or {"nothing": 0.0}
            for u, (ranked, _) in zip(names, users, strict=True)
        }
    )
    expected = ranx.evaluate(qrels, run, [f"{name}@{cutoff}" for name in NAMES])
    (found,) = ranking_metrics(
        [ranked for ranked, _ in users],
        [held for _, held in users],
        cutoffs=[cutoff],
        item_count=31,
    )
    np.testing.assert_allclose(
        [getattr(found, name) for name in NAMES],
        [expected[f"{name}@{cutoff}"] for name in NAMES],
        atol=1e-9,
    )
