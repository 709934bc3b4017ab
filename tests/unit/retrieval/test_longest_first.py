"""Scoring the few that can be among the best against sorting all."""

from __future__ import annotations

import numpy as np
import pytest

from milvine.models.vocabulary import Vocabulary
from milvine.retrieval import longest_first
from milvine.retrieval.longest_first import LongestFirst
from milvine.retrieval.scoring import Pool, Question

COUNT, DIMENSION = 2_000, 8


@pytest.fixture
def rng():
    """The same numbers each time."""
    return np.random.default_rng(0)


def some(rng, size: int = COUNT) -> Pool:
    """A part of the items; scores of small integers, so that there are ties."""
    vectors = rng.integers(-3, 4, (COUNT, DIMENSION)).astype(np.float32)
    rows = np.sort(rng.permutation(COUNT)[:size]).astype(np.int32)
    return Pool.of(Vocabulary([f"i{row}" for row in range(COUNT)]), rows, vectors)


def ranked(pool: Pool, query) -> list[int]:
    """All places of a pool by a stable sort."""
    return np.argsort(-(pool.vectors[pool.rows] @ query), kind="stable").tolist()


@pytest.mark.parametrize("size", [COUNT, 1_500])
@pytest.mark.parametrize("barred", [0, 5, 200])
@pytest.mark.parametrize("first", [40, 500, 4_096])
def test_the_best_are_those_of_a_sort(rng, monkeypatch, size, barred, first):
    """Whatever is excluded, and however few of the longest are looked at first."""
    monkeypatch.setattr(longest_first, "_FIRST", first)
    pool = some(rng, size)
    ordered = LongestFirst.of(pool)
    answered = 0
    for _ in range(20):
        query = rng.integers(-3, 4, DIMENSION).astype(np.float32)
        places = ranked(pool, query)
        excluded = frozenset(pool.items.take(pool.rows[places[: 2 * barred : 2]]))
        allowed = [at for at in places if f"i{pool.rows[at]}" not in excluded][:20]

        best = ordered.best(Question(query, excluded, 20))

        if best is None:
            continue
        answered += 1
        assert best.ids == pool.items.take(pool.rows[allowed])
        assert best.scores == (pool.vectors[pool.rows[allowed]] @ query).tolist()
        assert not best.is_all
    assert answered >= (10 if barred < first / 2 else 0)


@pytest.mark.parametrize(
    ("size", "barred", "is_all"), [(20, 0, True), (25, 5, True), (26, 5, False)]
)
def test_it_says_when_there_are_no_more(rng, size, barred, is_all):
    """Then what follows on another page need not be looked for."""
    pool = some(rng, size)
    query = rng.integers(1, 4, DIMENSION).astype(np.float32)
    excluded = frozenset(pool.items.take(pool.rows[ranked(pool, query)[:barred]]))

    best = LongestFirst.of(pool).best(Question(query, excluded, 20))

    assert len(best.ids) == 20
    assert best.is_all is is_all


def test_short_vectors_are_not_scored(rng):
    """Those that are too short for what the best score are left alone, whatever they hold."""
    pool = some(rng)
    pool.vectors[:] *= np.geomspace(1, 1e-3, COUNT, dtype=np.float32)[:, np.newaxis]
    ordered = LongestFirst.of(pool)
    ordered.vectors[1_900:] = 1e6  # would be the best
    query = rng.integers(1, 4, DIMENSION).astype(np.float32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(longest_first, "_FIRST", 100)
        best = ordered.best(Question(query, frozenset(), 20))

    assert best.ids == pool.items.take(pool.rows[ranked(pool, query)[:20]])


def test_where_too_few_of_the_longest_count_others_are_asked(rng, monkeypatch):
    """The answer is left to a look at everything."""
    monkeypatch.setattr(longest_first, "_FIRST", 10)
    query = np.ones(DIMENSION, np.float32)

    assert LongestFirst.of(some(rng)).best(Question(query, frozenset(), 20)) is None


def test_what_everything_reaches_is_found(rng):
    """A least score that is not positive tells nothing of lengths."""
    pool = some(rng, 25)
    query = rng.integers(-3, 4, DIMENSION).astype(np.float32)

    best = LongestFirst.of(pool).best(Question(query, frozenset(), 20))

    assert best.ids == pool.items.take(pool.rows[ranked(pool, query)[:20]])


def test_it_takes_no_more_work_than_allowed(rng):
    """What would hold up the event loop is not scored at once."""
    query = np.ones(DIMENSION, np.float32)
    question = Question(query, frozenset(), 20)
    ordered = LongestFirst.of(some(rng))

    assert ordered.best(question, most=10 * DIMENSION) is None
    assert ordered.best(question, most=COUNT * DIMENSION) is not None


def test_many_vectors_have_no_second_order(rng, monkeypatch):
    """A copy is made up to a size."""
    monkeypatch.setattr(longest_first, "MOST_BYTES", 100)

    assert LongestFirst.of(some(rng)) is None
