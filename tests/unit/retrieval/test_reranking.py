"""Ranking slates anew, by a scorer that is a table."""

from __future__ import annotations

import asyncio

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from milvine.retrieval.ranking import Slate
from milvine.retrieval.reranking import Reranker, reranked


class Table:
    """A scorer whose readers are rows of a table of gains."""

    def __init__(self, gains):
        self._gains = gains

    def read(self, histories):
        """Nobody has a history here."""
        raise NotImplementedError

    def gains(self, readers, candidates):
        """The gains of the table, NaN past its end."""
        padded = np.pad(self._gains, ((0, 0), (0, 50)), constant_values=np.nan)
        return padded[readers[:, 0].astype(int)[:, None], candidates]


def rerank(scorer, slates, readers, most):
    return asyncio.run(Reranker().rerank("lane", scorer, slates, readers, most=most))


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=30),
    st.lists(st.floats(-5, 5), min_size=30, max_size=30),
    st.integers(1, 40),
)
def test_the_best_gain_and_the_others_follow_in_their_order(scores, gains, most):
    """What is not scored anew stands below what is, as it stood before."""
    rng = np.random.default_rng(len(scores))
    rows = rng.permutation(len(scores)).astype(np.int32)
    slate = Slate(rows, np.array(scores))

    (found,) = rerank(Table(np.array([gains])), [slate], [np.zeros(1, np.float32)], most)

    order = np.lexsort((rows, -slate.scores))
    head, tail = order[:most], order[most:]
    np.testing.assert_allclose(found.scores[head], (slate.scores + np.array(gains)[rows])[head])
    assert found.rows is slate.rows
    if len(tail):
        assert found.scores[tail].max() <= found.scores[head].min() + 1e-9
        np.testing.assert_allclose(np.diff(found.scores[tail]), np.diff(slate.scores[tail]))


def test_subjects_are_ranked_together_and_each_by_its_own():
    """Slates of any lengths, and subjects without a reader, keep apart."""
    scorer = Table(np.array([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))
    slates = [
        Slate(np.array([0, 1, 2], np.int32), np.zeros(3)),
        Slate(np.array([2], np.int32), np.zeros(1)),
        Slate(np.array([1, 2], np.int32), np.array([5.0, 4.0])),
        Slate(np.empty(0, np.int32), np.empty(0)),
    ]
    readers = [np.array([0.0]), np.array([1.0]), None, np.array([1.0])]

    found = rerank(scorer, slates, readers, 200)

    assert [slate.scores.tolist() for slate in found] == [[0, 1, 2], [0], [5, 4], []]


def test_items_that_the_scorer_does_not_know_gain_what_others_do():
    """New items are neither raised nor lowered against the mean."""
    slate = Slate(np.array([0, 1, 40], np.int32), np.array([1.0, 1.0, 1.0]))
    (found,) = rerank(Table(np.array([[1.0, 3.0]])), [slate], [np.zeros(1)], 200)
    assert found.scores.tolist() == [2, 4, 3]


def test_a_head_that_loses_nothing_leaves_the_tail():
    """Scores of the tail are lowered only where they would stand above."""
    slate = Slate(np.arange(3, dtype=np.int32), np.array([3.0, 2.0, 1.0]))
    assert reranked(slate, np.array([0]), np.array([1.0])).scores.tolist() == [4, 2, 1]
    assert reranked(slate, np.array([0]), np.array([-2.0])).scores.tolist() == [1, 1, 0]
