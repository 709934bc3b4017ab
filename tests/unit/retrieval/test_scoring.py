"""Exact scoring against sorting all scores."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from milvine.models.vocabulary import Vocabulary
from milvine.retrieval import scoring
from milvine.retrieval.scoring import Pool, Question, Scorer, top

COUNT, DIMENSION = 2_000, 8


@pytest.fixture
def rng():
    """The same numbers each time."""
    return np.random.default_rng(0)


def whole(rng) -> Pool:
    """All items of a model; scores of small integers, so that there are ties."""
    vectors = rng.integers(-3, 4, (COUNT, DIMENSION)).astype(np.float32)
    items = Vocabulary([f"i{row}" for row in range(COUNT)])
    return Pool.of(items, np.arange(COUNT, dtype=np.int32), vectors)


def expected(pool: Pool, question: Question) -> list[str]:
    """The best by a stable sort."""
    scores = pool.vectors[pool.rows] @ question.query
    ids = [f"i{pool.rows[place]}" for place in np.argsort(-scores, kind="stable")]
    return [id_ for id_ in ids if id_ not in question.excluded][: question.count]


def query(rng) -> np.ndarray:
    """A query whose scores are exact in float32."""
    return rng.integers(-3, 4, DIMENSION).astype(np.float32)


@pytest.mark.parametrize("count", [0, 1, 7, 500, COUNT, 2 * COUNT])
def test_top_is_a_stable_sort(rng, count):
    """The greatest come first, equals in their order, and never more than there are."""
    scores = rng.integers(0, 50, COUNT).astype(np.float32)

    assert top(scores, count).tolist() == np.argsort(-scores, kind="stable")[:count].tolist()


@pytest.mark.parametrize("size", [0, 1, 30, 1_999, COUNT])
@pytest.mark.parametrize("is_gathered", [True, False])
async def test_the_best_of_a_pool_are_those_of_a_sort(rng, monkeypatch, size, is_gathered):
    """Any part of the items, any list of excluded ids, whether vectors lie together or not."""
    monkeypatch.setattr(scoring, "MOST_GATHERED", 2**30 if is_gathered else 0)
    every = whole(rng)
    rows = np.sort(rng.permutation(COUNT)[:size]).astype(np.int32)
    pool = Pool.of(every.items, rows, every.vectors)
    questions = [
        Question(query(rng), frozenset(every.items.take(rng.permutation(COUNT)[:barred])), count)
        for barred in (0, 10, 1_200, 1_990)
        for count in (1, 20, 300)
    ]

    found = await Scorer().best("lane", pool, questions)

    for question, best in zip(questions, found, strict=True):
        ids = expected(pool, question)
        left = len(frozenset(every.items.take(rows)) - question.excluded)
        assert best.ids == ids
        assert best.scores == [float(every.vectors[int(id_[1:])] @ question.query) for id_ in ids]
        assert best.is_all == (left <= question.count) or len(ids) == question.count


async def test_what_all_exclude_is_found_nowhere(rng):
    """Where the best are excluded one and all, the look widens to the last."""
    pool = whole(rng)
    one = query(rng)
    ranked = expected(pool, Question(one, frozenset(), COUNT))
    barred = Question(one, frozenset(ranked[: COUNT - 3]), 10)

    (best,) = await Scorer().best("lane", pool, [barred])

    assert best.ids == ranked[-3:]
    assert best.is_all


async def test_scores_are_held_in_parts(rng, monkeypatch):
    """A batch whose scores would take too much memory is done a part at a time."""
    monkeypatch.setattr(scoring, "MOST_SCORES", 3 * COUNT)
    pool, scorer = whole(rng), Scorer()
    questions = [Question(query(rng), frozenset(), 5) for _ in range(10)]

    found = await asyncio.gather(*(scorer.best("lane", pool, [one]) for one in questions))
    together = await scorer.best("lane", pool, questions)

    assert [best.ids for (best,) in found] == [expected(pool, one) for one in questions]
    assert [best.ids for best in together] == [expected(pool, one) for one in questions]
