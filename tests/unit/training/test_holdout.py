"""Parting data sets into what is learned from and what measures."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milvine.domain.entity import from_micros
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.domain.model import Holdout, HoldoutMethod
from milvine.models import Feedback
from milvine.training import split
from milvine.training.dataset import build
from milvine.training.holdout import held_out_fingerprint, part, with_history
from tests.unit.models.worlds import CATALOG, table
from tests.unit.training.small import ITEMS, dataset_of, datasets, holdouts, measure, pairs

EVENTS = [
    ("a", "x", "view", None, 1),
    ("a", "x", "view", None, 9),
    ("a", "y", "view", None, 9),
    ("b", "y", "buy", 1.0, 2),
    ("b", "z", "buy", 1.0, 5),
    ("c", "z", "view", None, 7),
]


@given(dataset=datasets, holdout=holdouts)
def test_split_parts_each_history(dataset, holdout):
    """Nothing is lost or in both parts, each user keeps an item, and gives what was asked."""
    train, held = split(dataset, holdout)
    assert pairs(train.histories) | pairs(held) == pairs(dataset.histories)
    assert not pairs(train.histories) & pairs(held)
    for length, given_away in zip(dataset.histories.lengths, held.lengths, strict=True):
        share = round(length * holdout.fraction) if holdout.fraction else 1
        assert given_away == min(max(share, 1), length - 1)
    assert pairs(split(dataset, holdout)[1]) == pairs(held)


@given(dataset=datasets, fraction=st.none() | st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_latest_holds_out_the_latest(dataset, fraction, seed):
    """No item that stays is later than one that is held out."""
    train, held = split(dataset, Holdout(HoldoutMethod.LATEST, fraction, seed=seed))
    for user in np.flatnonzero(held.lengths):
        kept, given_away = (h.take(np.array([user])).times for h in (train.histories, held))
        assert kept.max() <= given_away.min()


def test_random_takes_each_item_alike():
    """Over many seeds, a random holdout takes each of a user's items about as often."""
    dataset = dataset_of([dict.fromkeys(range(4), 0)])
    holdouts = (Holdout(HoldoutMethod.RANDOM, seed=seed) for seed in range(400))
    counts = np.bincount([split(dataset, h)[1].items[0] for h in holdouts], minlength=4)
    assert counts[:4].min() > 60


def test_none_holds_nothing_out():
    """Without a holdout, all of the data trains, and there is nothing to measure."""
    dataset = dataset_of([{0: 0, 1: 1}])
    train, held = split(dataset, holdout := Holdout(HoldoutMethod.NONE))
    assert train == dataset
    assert held.lengths.tolist() == [0]
    assert measure(train, held, np.zeros((1, 2)), np.zeros((ITEMS, 2)), holdout) is None


def _parted(holdout, rows=EVENTS):
    """The pairs of ids that are learned from and held out of events."""
    events = table(rows)
    dataset = build(events, CATALOG, Feedback.IMPLICIT)
    return tuple(
        set(zip(dataset.users.take(h.users), dataset.items.take(h.items), strict=True))
        for h in _histories(*part(dataset, events, CATALOG, Feedback.IMPLICIT, holdout))
    )


def _histories(train, held):
    return train.histories, held


def test_after_holds_out_what_came_later():
    """What a user had before stays, is learned from, and is not to be found again."""
    at = from_micros(5)
    learned, held = _parted(Holdout(HoldoutMethod.AFTER, start_time=at))
    assert learned == {("a", "x"), ("b", "y")}
    assert held == {("a", "y"), ("b", "z"), ("c", "z")}
    nothing = Holdout(HoldoutMethod.AFTER, start_time=at + timedelta(days=1))
    assert _parted(nothing)[1] == set()


def test_given_holds_out_event_types():
    """What other event types say is learned from, and only what they don't say is held out."""
    holdout = Holdout(HoldoutMethod.GIVEN, event_types=("buy",))
    learned, held = _parted(holdout, [*EVENTS, ("b", "z", "view", None, 1)])
    assert learned == {("a", "x"), ("a", "y"), ("b", "z"), ("c", "z")}
    assert held == {("b", "y")}


def test_holding_out_everything_is_refused():
    """Where nothing is left to learn from, the error says what to change."""
    with pytest.raises(FailedPrecondition, match="later start_time") as caught:
        _parted(Holdout(HoldoutMethod.AFTER, start_time=from_micros(0)))
    assert caught.value.reason is Reason.NO_TRAINING_DATA


def test_users_without_history_teach_nothing():
    """Users who lost all they had are left out of what is learned from, and the others stay."""
    emptied = dataset_of([{0: 0}, {}, {1: 1, 2: 2}])
    left = with_history(emptied)
    assert left.users.ids.to_pylist() == ["u0", "u2"]
    assert left.histories.lengths.tolist() == [1, 2]


@given(dataset=datasets, holdout=holdouts)
def test_a_fingerprint_is_of_the_pairs(dataset, holdout):
    """It does not depend on rows, and changes with any pair."""
    held = split(dataset, holdout)[1]
    order = np.arange(ITEMS)[::-1]
    turned = type(dataset.items)(dataset.items.ids.take(pa.array(order)))
    other_rows = type(held)(held.offsets, order[held.items], held.strengths, held.times)
    digest = held_out_fingerprint(dataset, held)
    same = held_out_fingerprint(type(dataset)(dataset.users, turned, dataset.histories), other_rows)
    assert same == digest
    if len(held.items):
        fewer = held.keep(np.arange(len(held.items)) > 0)
        assert held_out_fingerprint(dataset, fewer) != digest
