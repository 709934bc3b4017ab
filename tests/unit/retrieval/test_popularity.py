"""Popularity of a release's items, counted live or taken from the training data."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from milvine.domain.catalog import EventType
from milvine.domain.errors import DeadlineExceeded, Unavailable
from milvine.domain.query import Counting
from milvine.models.base import Feedback
from milvine.models.serving import ServingModel
from milvine.models.vocabulary import Vocabulary
from milvine.records import Records
from milvine.retrieval import Active, Popularity
from tests.contracts.records.conftest import SHOP
from tests.contracts.records.samples import events, model, release

PLENTY_S = 20.0
ITEMS = ["a", "b", "c", "d"]
TRAINED = np.array([5, 1, 7, 5])
DAY = 86_400_000_000


@pytest.fixture
def records(tmp_path):
    """Records of a shop where `b` was viewed thrice, `d` twice, and `x` is not in the release."""
    opened = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    opened.catalogs.create(SHOP)
    views = [*((f"u{n}", "b", n) for n in range(3)), ("u", "d", 60 * DAY), ("v", "d", 60 * DAY)]
    opened.interactions.append("shop", events(*views, ("u", "x", 1)))
    yield opened
    opened.close()


@pytest.fixture
def active():
    """A release of four items."""
    served = ServingModel(
        model=model("m"),
        items=Vocabulary(ITEMS),
        item_vectors=np.zeros((4, 2), np.float32),
        popularity=TRAINED,
        by_popularity=np.argsort(-TRAINED, kind="stable"),
        encoder=None,
        feedback=Feedback.IMPLICIT,
    )
    return Active(SHOP, release("r"), served, (), revision=0)


async def test_scores_stand_by_row(records, active):
    """Each row has its item's count; equal ones stand in the order of the training data."""
    popular = await Popularity(records).of(active, Counting(), timeout_s=PLENTY_S)

    assert popular.scores.tolist() == [0, 3, 0, 2]
    assert [ITEMS[row] for row in popular.rows] == ["b", "d", "c", "a"]
    assert [ITEMS[row] for row in popular.counted] == ["b", "d"]


async def test_the_fallback_is_what_was_popular_lately(records, active):
    """Two months later, two views are more than three."""
    popular = await Popularity(records).fallback(active, timeout_s=PLENTY_S)

    assert popular.scores == pytest.approx([0, 0.75, 0, 2])


async def test_weights_count_as_they_are_now(records, active):
    """Another weight is another count, and what weighs nothing counts nothing."""
    popularity = Popularity(records)
    for weight, expected in ((2.0, [0, 6, 0, 4]), (0.0, [0, 0, 0, 0])):
        catalog = replace(SHOP, event_types=(EventType("view", weight),))
        changed = replace(active, catalog=catalog)
        popular = await popularity.of(changed, Counting(), timeout_s=PLENTY_S)
        assert popular.scores.tolist() == expected


async def test_only_named_event_types_count(records, active):
    """Of a type without events, nothing has a count."""
    counting = Counting(timedelta(days=1), (SHOP.event_types[1],))

    popular = await Popularity(records).of(active, counting, timeout_s=PLENTY_S)

    assert not popular.scores.any()
    assert not len(popular.counted)


async def test_without_records_the_training_data_answer(records, active, tmp_path):
    """Unknown subjects get what the training data had most, where nothing can be counted."""
    records.close()
    (tmp_path / "records.db").write_bytes(b"no database" * 1_000)
    popularity = Popularity(records)

    with pytest.raises(Unavailable):
        await popularity.of(active, Counting(), timeout_s=PLENTY_S)
    popular = await popularity.fallback(active, timeout_s=PLENTY_S)
    assert popular.scores.tolist() == TRAINED.tolist()
    assert [ITEMS[row] for row in popular.rows] == ["c", "a", "d", "b"]


async def test_unknown_subjects_do_not_wait_long(records, active):
    """Until there is a first count the training data answer; then the count does."""
    popularity = Popularity(records)

    first = await popularity.fallback(active, timeout_s=0.0)
    assert first.scores.tolist() == TRAINED.tolist()
    deadline = time.monotonic() + PLENTY_S
    while (await popularity.fallback(active, timeout_s=0.0)).scores[2]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def test_a_count_that_takes_too_long_is_told(records, active):
    """A call without time left is told so."""
    with pytest.raises(DeadlineExceeded):
        await Popularity(records).of(active, Counting(), timeout_s=0.0)


async def test_items_that_came_after_a_count_are_the_least_popular(records, active):
    """A count is used among more items than it knew, and among fewer."""
    popular = await Popularity(records).of(active, Counting(), timeout_s=PLENTY_S)

    more, fewer = popular.of_first(6), popular.of_first(3)

    assert more.scores.tolist() == [*popular.scores.tolist(), 0, 0]
    assert more.rows.tolist() == [*popular.rows.tolist(), 4, 5]
    assert fewer.scores.tolist() == popular.scores[:3].tolist()
    assert fewer.rows.tolist() == [row for row in popular.rows.tolist() if row < 3]
    assert more.counted.tolist() == popular.counted.tolist()
