"""The stages of a ranking against a naive one in plain Python."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milvine.domain.ranking import Diversity
from milvine.retrieval.ranking import NO_ROWS, Limit, Rules, Slate, boosted, decayed, together
from milvine.retrieval.ranking import choose as choose_places

TASTES = 4
"""Dimensions of tastes."""


def choose(slate, count, rules, shown=NO_ROWS):
    """What is chosen, in its order."""
    return slate.at(choose_places(slate, count, rules, shown))


@dataclass(frozen=True)
class Listed:
    """The values of items, written out."""

    values: list[list[int]]
    count: int

    def take(self, rows):
        """The values of rows, filled up with -1."""
        found = [self.values[row] for row in rows]
        width = max([1, *map(len, found)])
        filled = [values + [-1] * (width - len(values)) for values in found]
        return np.array(filled, np.int32).reshape(len(found), width)


@dataclass(frozen=True)
class Case:
    """A choice to make."""

    scores: list[float]
    tastes: np.ndarray
    caps: list[tuple[Listed, int]]
    diversity: Diversity | None

    def slate(self, order):
        """All items, in any order."""
        rows = np.array(order, np.int32)
        return Slate.of(rows, np.array(self.scores, np.float64)[rows])

    @property
    def rules(self):
        """The rules as the choice takes them."""
        limits = [Limit(labels, most) for labels, most in self.caps]
        return Rules(lambda rows: self.tastes[rows], self.diversity, limits)


@st.composite
def cases(draw):
    """Few scores and values, so that there are ties and caps that bite."""
    count = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.choice([-2.0, -0.5, 0.0, 0.5, 1.0, 1.5, 3.0], count).tolist()
    tastes = rng.integers(-1, 2, (count, TASTES)).astype(np.float32)
    tastes /= np.maximum(np.linalg.norm(tastes, axis=1, keepdims=True), 1e-6)
    caps = [
        (
            Listed(
                [sorted(set(rng.integers(0, 5, rng.integers(0, 4)).tolist())) for _ in scores], 5
            ),
            m,
        )
        for m in draw(st.lists(st.integers(1, 4), max_size=2))
    ]
    relevance = draw(st.sampled_from([None, 0.0, 0.25, 0.7, 1.0]))
    width = draw(st.integers(1, 50))
    return Case(scores, tastes, caps, None if relevance is None else Diversity(relevance, width))


def naive(case, count):
    """The choice, one hit after the other, by looking at every candidate each time."""
    order = sorted(range(len(case.scores)), key=lambda row: (-case.scores[row], row))
    width = case.diversity.candidates if case.diversity else 0
    chosen = []
    while len(chosen) < count:
        left = [row for row in order if row not in chosen and is_allowed(case, chosen, row)]
        near = [row for row in left if row in order[:width]]
        if not left:
            break
        best = (
            max(near, key=lambda row: worth(case, order[:width], chosen, row)) if near else left[0]
        )
        chosen.append(best)
    return chosen


def is_allowed(case, chosen, row):
    """Whether no cap rules an item out."""
    for labels, most in case.caps:
        had = Counter(value for hit in chosen for value in labels.values[hit])
        if any(had[value] >= most for value in labels.values[row]):
            return False
    return True


def worth(case, window, chosen, row):
    """What an item is worth by maximal marginal relevance, rounded so that equals are equal."""
    scores = [case.scores[other] for other in window]
    span = max(scores) - min(scores)
    scaled = (case.scores[row] - min(scores)) / span if span else 0.0
    likeness = max((float(case.tastes[row] @ case.tastes[hit]) for hit in chosen), default=0.0)
    relevance = case.diversity.relevance
    return relevance * scaled - (1 - relevance) * likeness


@given(cases(), st.integers(1, 45), st.randoms(use_true_random=False))
def test_a_choice_is_the_naive_one(case, count, random):
    """Whatever the scores, tastes, caps and diversity, and in whatever order the items come."""
    order = list(range(len(case.scores)))
    random.shuffle(order)

    chosen = choose(case.slate(order), count, case.rules)

    expected = naive(case, count)
    assert len(chosen) == len(expected)
    for at, row in enumerate(chosen.rows.tolist()):
        if row != expected[at]:  # rounding may tell equals apart
            before = expected[:at]
            assert case.diversity
            window = sorted(range(len(case.scores)), key=lambda r: (-case.scores[r], r))
            window = window[: case.diversity.candidates]
            assert worth(case, window, before, row) == pytest.approx(
                worth(case, window, before, expected[at]), abs=1e-6
            )
            break
    assert chosen.scores.tolist() == [case.scores[row] for row in chosen.rows]


@given(cases(), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_pages_are_one_choice(case, sizes):
    """Pages that know what was shown are together the choice that is made at once."""
    slate = case.slate(range(len(case.scores)))
    shown = NO_ROWS
    for size in sizes:
        page = choose(slate, size, case.rules, shown)
        shown = np.concatenate([shown, page.rows])

    assert shown.tolist() == choose(slate, sum(sizes), case.rules).rows.tolist()


def test_full_relevance_orders_by_score():
    """With a relevance of 1 diversity changes nothing, for any width of the window."""
    rng = np.random.default_rng(0)
    slate = Slate.of(np.arange(5_000, dtype=np.int32), rng.normal(size=5_000))
    tastes = rng.normal(size=(5_000, TASTES)).astype(np.float32)
    by_score = choose(slate, 300, Rules(tastes.__getitem__))

    diverse = choose(slate, 300, Rules(tastes.__getitem__, Diversity(1.0, 50)))

    assert by_score.rows.tolist() == np.argsort(-slate.scores, kind="stable")[:300].tolist()
    assert diverse.rows.tolist() == by_score.rows.tolist()


def test_a_cap_that_is_full_reaches_the_end_of_a_catalog():
    """The one item of another value is found behind a hundred thousand of a full one."""
    count = 100_000
    values = np.zeros((count, 1), np.int32)
    values[-1] = 1

    @dataclass(frozen=True)
    class Array:
        count: int = 2

        def take(self, rows):
            return values[rows]

    slate = Slate.of(np.arange(count, dtype=np.int32), -np.arange(count, dtype=np.float64))
    rules = Rules(lambda rows: np.zeros((len(rows), 1), np.float32), None, [Limit(Array(), 2)])

    assert choose(slate, 10, rules).rows.tolist() == [0, 1, count - 1]


def test_boosts_raise_and_lower_on_both_sides_of_zero():
    """A factor over 1 raises and one under 1 lowers, whatever the sign of the score."""
    scores = np.array([2.0, -2.0, 0.0])

    assert boosted(scores, np.full(3, 2.0)).tolist() == [4.0, -1.0, 0.0]
    assert boosted(scores, np.full(3, 0.5)).tolist() == [1.0, -4.0, 0.0]
    assert together([np.array([1.0, 4.0, 1.0]), np.full(3, 0.5)]).tolist() == [0.5, 2.0, 0.5]


def test_decays_halve_with_each_distance():
    """1 at the origin and without a value, a half on both sides at the distance."""
    values = np.array([10.0, 13.0, 7.0, 16.0, math.nan])

    assert decayed(values, 10.0, 3.0).tolist() == [1.0, 0.5, 0.5, 0.25, 1.0]


def test_no_decay_leaves_the_numbers():
    """The farthest values and the shortest distances, of many decays at once, stay finite."""
    values = np.array([1.7e308, -1.7e308, 0.0])
    factors = [decayed(values, -1.7e308, 5e-324)] * 16

    found = boosted(np.array([3e38, -3e38, -1.0]), together(factors))

    assert np.isfinite(found).all()
    assert found[0] > 0 > found[2]


def test_scores_that_are_no_numbers_come_last():
    """A query at the edge of float32 still gives an order."""
    scores = np.array([np.nan, 1.0, np.inf, -np.inf], np.float32)
    slate = Slate.of(np.arange(4, dtype=np.int32), scores)

    chosen = choose(slate, 4, Rules(lambda rows: np.zeros((len(rows), 1), np.float32)))

    assert chosen.rows.tolist() == [2, 1, 0, 3]
    assert np.isfinite(chosen.scores).all()
