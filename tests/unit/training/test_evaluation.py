"""Holding out, ranking and measuring."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milvine.domain.errors import Cancelled
from milvine.domain.model import Holdout, HoldoutMethod
from milvine.models import Dataset, Histories, Vocabulary
from milvine.training import evaluate, evaluation, ranking_metrics, split

ITEMS = 9


def _dataset(histories: list[dict[int, int]]) -> Dataset:
    """A data set of items and their times for each user."""
    ordered = [sorted(h.items(), key=lambda pair: (pair[1], pair[0])) for h in histories]
    flat = [pair for h in ordered for pair in h]
    return Dataset(
        Vocabulary([f"u{n}" for n in range(len(histories))]),
        Vocabulary([f"i{n}" for n in range(ITEMS)]),
        Histories(
            np.cumsum([0, *map(len, ordered)]),
            np.array([item for item, _ in flat], np.int32),
            np.ones(len(flat), np.float32),
            np.array([time for _, time in flat], np.int64),
        ),
    )


def _pairs(histories: Histories) -> set[tuple[int, int]]:
    return set(zip(histories.users.tolist(), histories.items.tolist(), strict=True))


datasets = st.lists(
    st.dictionaries(st.integers(0, ITEMS - 1), st.integers(0, 4), min_size=1),
    min_size=1,
    max_size=8,
).map(_dataset)
holdouts = st.builds(
    Holdout,
    method=st.sampled_from([HoldoutMethod.LATEST, HoldoutMethod.RANDOM]),
    fraction=st.none() | st.floats(0.01, 0.99),
    seed=st.integers(-3, 3),
)


@given(dataset=datasets, holdout=holdouts)
def test_split_parts_each_history(dataset, holdout):
    """Nothing is lost or in both parts, each user keeps an item, and gives what was asked."""
    train, held = split(dataset, holdout)
    assert _pairs(train.histories) | _pairs(held) == _pairs(dataset.histories)
    assert not _pairs(train.histories) & _pairs(held)
    for length, given_away in zip(dataset.histories.lengths, held.lengths, strict=True):
        share = round(length * holdout.fraction) if holdout.fraction else 1
        assert given_away == min(max(share, 1), length - 1)
    assert _pairs(split(dataset, holdout)[1]) == _pairs(held)


@given(dataset=datasets, fraction=st.none() | st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_latest_holds_out_the_latest(dataset, fraction, seed):
    """No item that stays is later than one that is held out."""
    train, held = split(dataset, Holdout(HoldoutMethod.LATEST, fraction, seed=seed))
    for user in np.flatnonzero(held.lengths):
        kept, given_away = (h.take(np.array([user])).times for h in (train.histories, held))
        assert kept.max() <= given_away.min()


def test_random_takes_each_item_alike():
    """Over many seeds, a random holdout takes each of a user's items about as often."""
    dataset = _dataset([dict.fromkeys(range(4), 0)])
    holdouts = (Holdout(HoldoutMethod.RANDOM, seed=seed) for seed in range(400))
    counts = np.bincount([split(dataset, h)[1].items[0] for h in holdouts], minlength=4)
    assert counts[:4].min() > 60


def test_none_holds_nothing_out():
    """Without a holdout, all of the data trains, and there is nothing to measure."""
    dataset = _dataset([{0: 0, 1: 1}])
    train, held = split(dataset, holdout := Holdout(HoldoutMethod.NONE))
    assert train == dataset
    assert held.lengths.tolist() == [0]
    assert _evaluate(train, held, np.zeros((1, 2)), np.zeros((ITEMS, 2)), holdout) is None


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


@dataclass(frozen=True)
class _Table:
    """An encoder that knows each user's vector by how many events the user has."""

    vectors: np.ndarray

    @property
    def dimension(self):
        return self.vectors.shape[1]

    taste_dimension = dimension

    def encode(self, histories):
        return self.vectors[histories.lengths].astype(np.float32)


def _evaluate(train, held, user_vectors, item_vectors, holdout, **options):
    return evaluate(
        train,
        held,
        _Table(user_vectors),
        item_vectors.astype(np.float32),
        holdout=holdout,
        **options,
    )


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
    found = _evaluate(train, held, users, items, holdout)
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


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch):
    """Users measured one by one give the same means as all at once."""
    rng = np.random.default_rng(0)
    dataset = _dataset([dict.fromkeys(rng.choice(ITEMS, 4, replace=False), 0) for _ in range(20)])
    users, items = rng.normal(size=(ITEMS + 1, 3)), rng.normal(size=(ITEMS, 3))
    train, held = split(dataset, holdout := Holdout(cutoffs=(3,)))
    at_once = _evaluate(train, held, users, items, holdout)
    monkeypatch.setattr(evaluation, "_SCORES", 1)
    one_by_one = _evaluate(train, held, users, items, holdout)
    assert one_by_one.model[0].recall == pytest.approx(at_once.model[0].recall)
    assert one_by_one.popularity[0].coverage == at_once.popularity[0].coverage


def test_cancel_ends_an_evaluation():
    """An evaluation that is cancelled raises Cancelled."""
    dataset = _dataset([{0: 0, 1: 1}])
    train, held = split(dataset, holdout := Holdout())
    with pytest.raises(Cancelled):
        _evaluate(
            train, held, np.zeros((3, 2)), np.zeros((ITEMS, 2)), holdout, cancelled=lambda: True
        )
