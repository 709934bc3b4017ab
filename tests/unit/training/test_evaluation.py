"""Holding out, ranking and measuring."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milvine.domain.errors import Cancelled
from milvine.domain.model import Holdout, Segment
from milvine.training import evaluation, ranking_metrics, recommender, split
from tests.unit.training.small import (
    ITEMS,
    AddsByLength,
    dataset_of,
    datasets,
    holdouts,
    measure,
)


def test_metrics_by_hand():
    """Recall, NDCG, MRR, hit rate and coverage of two lists are those worked out by hand."""
    (at_2, at_3) = ranking_metrics(
        [["a", "b", "c"], ["d", "e"]],
        [{"b", "c", "x"}, {"f"}],
        cutoffs=(2, 3),
        item_count=10,
    )
    ndcg_2 = (1 / math.log2(3)) / (1 + 1 / math.log2(3)) / 2
    ndcg_3 = (1 / math.log2(3) + 0.5) / (1 + 1 / math.log2(3) + 0.5) / 2
    assert (at_2.cutoff, at_3.cutoff) == (2, 3)
    assert at_2.recall == pytest.approx(1 / 6)
    assert at_3.recall == pytest.approx(1 / 3)
    assert at_2.ndcg == pytest.approx(ndcg_2)
    assert at_3.ndcg == pytest.approx(ndcg_3)
    assert at_2.mrr == at_3.mrr == 0.25
    assert at_2.hit_rate == at_3.hit_rate == 0.5
    assert at_2.coverage == 0.4
    assert at_3.coverage == 0.5


def test_lists_may_be_empty():
    """A user who got no list scores nothing, and counts."""
    (metrics,) = ranking_metrics([[], ["a"]], [{"a"}, {"a"}], cutoffs=(5,), item_count=1)
    assert (metrics.recall, metrics.ndcg, metrics.mrr, metrics.coverage) == (0.5, 0.5, 0.5, 1.0)
    (metrics,) = ranking_metrics([[]], [{"a"}], cutoffs=(5,), item_count=1)
    assert (metrics.recall, metrics.coverage) == (0.0, 0.0)


def _brute_force(train, held, score, cutoff):
    """Metrics by their definition, user by user."""
    sums, listed, count = np.zeros(4), set(), 0
    for user in range(len(held)):
        wanted = set(held.take(np.array([user])).items.tolist())
        if not wanted:
            continue
        count += 1
        seen = set(train.take(np.array([user])).items.tolist())
        order = sorted(set(range(ITEMS)) - seen, key=lambda item: -score(user, item))[:cutoff]
        listed |= set(order)
        hits = [rank for rank, item in enumerate(order, 1) if item in wanted]
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(wanted), cutoff) + 1))
        dcg = sum(1 / math.log2(rank + 1) for rank in hits)
        sums += [len(hits) / len(wanted), dcg / ideal, 1 / hits[0] if hits else 0, bool(hits)]
    return [*(sums / count), len(listed) / ITEMS]


@given(
    dataset=datasets,
    holdout=holdouts,
    seed=st.integers(0, 1000),
    cutoffs=st.lists(st.integers(1, 12), min_size=1, max_size=3),
)
def test_evaluation_is_what_brute_force_finds(dataset, holdout, seed, cutoffs):
    """The model's and popularity's metrics equal a ranking of all items by plain Python."""
    rng = np.random.default_rng(seed)
    users, items = rng.normal(size=(ITEMS + 1, 3)), rng.normal(size=(ITEMS, 3))
    holdout = Holdout(holdout.method, holdout.fraction, tuple(cutoffs), holdout.seed)
    train, held = split(dataset, holdout)
    found = measure(train, held, users, items, holdout)
    if not held.lengths.any():
        assert found is None
        return
    lengths = train.histories.lengths
    counts = np.bincount(train.histories.items, minlength=ITEMS)
    rankings = (
        (found.model, lambda user, item: users[lengths[user]] @ items[item]),
        (found.popularity, lambda _, item: counts[item] - item / 100),
    )
    assert found.user_count == np.count_nonzero(held.lengths)
    for metrics, score in rankings:
        for cutoff, at in zip(cutoffs, metrics, strict=True):
            expected = _brute_force(train.histories, held, score, cutoff)
            assert at.cutoff == cutoff
            np.testing.assert_allclose(
                [at.recall, at.ndcg, at.mrr, at.hit_rate, at.coverage], expected, atol=1e-9
            )


@given(dataset=datasets, seed=st.integers(0, 1000), reranked=st.integers(1, 12))
def test_a_scorer_ranks_the_best_anew(dataset, seed, reranked):
    """As the service does: the best by inner product change places, the others follow."""
    rng = np.random.default_rng(seed)
    users, items = rng.normal(size=(ITEMS + 1, 3)), rng.normal(size=(ITEMS, 3))
    added = rng.normal(size=(ITEMS + 1, ITEMS))
    added[:, 0] = np.nan  # it did not learn the first item, which gains what others do
    train, held = split(dataset, holdout := Holdout(cutoffs=(3,), seed=seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recommender, "MOST_RERANKED", reranked)
        found = measure(train, held, users, items, holdout, AddsByLength(added))
    if found is None:
        return
    histories = train.histories

    def score(user, item):
        length = histories.lengths[user]
        seen = set(histories.take(np.array([user])).items.tolist())
        scores = items @ users[length]
        order = [i for i in np.argsort(-scores).tolist() if i not in seen]
        gains = {i: added[length, i] for i in order[:reranked]}
        if item not in gains:
            return scores[item] - 1_000
        learned = [gain for gain in gains.values() if not np.isnan(gain)]
        usual = np.mean(learned) if learned else 0.0
        return scores[item] + (usual if np.isnan(gains[item]) else gains[item])

    (at,) = found.model
    expected = _brute_force(histories, held, score, 3)
    np.testing.assert_allclose(
        [at.recall, at.ndcg, at.mrr, at.hit_rate, at.coverage], expected, atol=1e-9
    )


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch):
    """Users measured one by one give the same means as all at once."""
    rng = np.random.default_rng(0)
    dataset = dataset_of([dict.fromkeys(rng.choice(ITEMS, 4, replace=False), 0) for _ in range(20)])
    users, items = rng.normal(size=(ITEMS + 1, 3)), rng.normal(size=(ITEMS, 3))
    train, held = split(dataset, holdout := Holdout(cutoffs=(3,)))
    at_once = measure(train, held, users, items, holdout)
    monkeypatch.setattr(evaluation, "_SCORES", 1)
    one_by_one = measure(train, held, users, items, holdout)
    assert one_by_one.model[0].recall == pytest.approx(at_once.model[0].recall)
    assert one_by_one.popularity[0].coverage == at_once.popularity[0].coverage


def test_cancel_ends_an_evaluation():
    """An evaluation that is cancelled raises Cancelled."""
    dataset = dataset_of([{0: 0, 1: 1}])
    train, held = split(dataset, holdout := Holdout())
    with pytest.raises(Cancelled):
        measure(
            train, held, np.zeros((3, 2)), np.zeros((ITEMS, 2)), holdout, cancelled=lambda: True
        )


def _expected_segments(train, held, ranked, cutoff):
    """Recall and user count of each segment by their definition, user by user."""
    counts = np.bincount(train.items, minlength=ITEMS)
    by_count = sorted(range(ITEMS), key=lambda item: (-counts[item], item))
    head = set(by_count[: math.ceil(ITEMS * 0.2)])
    belongs = {
        Segment.COLD_USERS: lambda user, _: train.lengths[user] <= evaluation.COLD,
        Segment.COLD_ITEMS: lambda _, item: counts[item] <= evaluation.COLD,
        Segment.HEAD_ITEMS: lambda _, item: item in head,
        Segment.TAIL_ITEMS: lambda _, item: item not in head,
    }
    for segment, rule in belongs.items():
        recalls = []
        for user in range(len(held)):
            items = held.take(np.array([user])).items.tolist()
            wanted = {item for item in items if rule(user, item)}
            if wanted:
                recalls.append(len(wanted & set(ranked[user][:cutoff])) / len(wanted))
        if recalls:
            yield segment, len(recalls), pytest.approx(np.mean(recalls))


@given(dataset=datasets, holdout=holdouts, seed=st.integers(0, 1000))
def test_segments_are_those_of_their_definition(dataset, holdout, seed):
    """Each segment has the users and items of its rule, measured on the whole's lists."""
    rng = np.random.default_rng(seed)
    users, items = rng.normal(size=(ITEMS + 1, 3)), rng.normal(size=(ITEMS, 3))
    holdout = Holdout(holdout.method, holdout.fraction, (3,), holdout.seed)
    train, held = split(dataset, holdout)
    found = measure(train, held, users, items, holdout)
    if found is None:
        return
    histories = train.histories
    seen = [set(histories.take(np.array([u])).items.tolist()) for u in range(len(histories))]
    scores = users[histories.lengths] @ items.T
    ranked = [
        [item for item in np.argsort(-row).tolist() if item not in had]
        for row, had in zip(scores, seen, strict=True)
    ]
    assert [(s.segment, s.user_count, s.model[0].recall) for s in found.segments] == list(
        _expected_segments(histories, held, ranked, 3)
    )
    tail = {s.segment: s.held_out_count for s in found.segments}
    both = tail.get(Segment.HEAD_ITEMS, 0) + tail.get(Segment.TAIL_ITEMS, 0)
    assert both == found.held_out_count == len(held.items)


def test_novelty_by_hand():
    """What nobody else has tells most: bits are -log2 of the share of users that have an item."""
    dataset = dataset_of([{0: 0, 1: 1}, {0: 0, 2: 1}, {0: 0, 1: 1}, {0: 0, 3: 1}])
    train, held = split(dataset, holdout := Holdout(cutoffs=(1,)))
    items = np.zeros((ITEMS, 2))
    items[[3, 8]] = [[1, 0], [2, 0]]
    found = measure(train, held, np.ones((3, 2)), items, holdout)
    # All four have item 0 left, so every other item counts as if one of four had it.
    assert found.model[0].novelty == 2.0
    assert found.item_count == ITEMS


def test_users_without_history_get_popular_items():
    """As the service does: whom nothing is known of, the popular list measures."""
    dataset = dataset_of([{}, {0: 0, 1: 1}, {1: 0, 2: 1}, {1: 0}])
    held = dataset_of([{1: 5}, {}, {}, {}]).histories
    items = np.zeros((ITEMS, 2))
    found = measure(dataset, held, np.ones((3, 2)), items, Holdout(cutoffs=(1,)))
    assert found.model[0].recall == found.popularity[0].recall == 1.0


def test_items_that_the_model_lacks_are_never_found():
    """A model that knows only the leading items is measured on all of them."""
    dataset = dataset_of([{0: 0, 8: 1}, {0: 0, 1: 1}])
    held = dataset_of([{1: 2, 7: 2}, {2: 2}]).histories
    items = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    found = measure(dataset, held, np.ones((3, 2)), items, Holdout(cutoffs=(2,)))
    assert found.model[0].recall == 0.75
    assert found.item_count == ITEMS
