"""How interactions become histories."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from milvine.domain.catalog import ValueMeaning
from milvine.models import Feedback, Histories, Vocabulary, history_of
from milvine.training.dataset import build, fingerprint
from tests.unit.models.worlds import CATALOG, Row, table

USERS, ITEMS = [f"u{n}" for n in range(4)], [f"i{n}" for n in range(6)]
EVENTS = {event.name: event for event in CATALOG.event_types}


@st.composite
def _row(draw) -> Row:
    name = draw(st.sampled_from([*EVENTS, "undeclared"]))
    meaning = EVENTS[name].value_meaning if name in EVENTS else ValueMeaning.NONE
    numbers = st.sampled_from([0.0, 1.0, 2.5, 3.0, 5.0])
    value = {
        ValueMeaning.NONE: st.none(),
        ValueMeaning.RATING: numbers | st.just(-1.0),
    }.get(meaning, st.none() | numbers)
    user, item = draw(st.sampled_from(USERS)), draw(st.sampled_from(ITEMS))
    return user, item, name, draw(value), draw(st.integers(0, 5))


def _likes(rows: list[Row]) -> dict[tuple[str, str], tuple[float, int]]:
    """The strength and time of each pair of implicit feedback, event by event."""
    pairs: dict[tuple[str, str], tuple[float, int]] = {}
    for user, item, name, value, time in rows:
        event = EVENTS.get(name)
        if not event or event.weight == 0:
            continue
        if event.liked_from is not None and (value is None or value < event.liked_from):
            continue
        amount = 1.0 if value is None else max(value, 0.0)
        if value is not None and event.value_meaning is ValueMeaning.SECONDS:
            amount = math.log(1 + amount)
        strength, latest = pairs.get((user, item), (0.0, time))
        pairs[user, item] = (strength + event.weight * amount, max(latest, time))
    return pairs


def _ratings(rows: list[Row]) -> dict[tuple[str, str], tuple[float, int]]:
    """The latest rating of each pair, the highest of those at one time."""
    pairs: dict[tuple[str, str], tuple[float, int]] = {}
    for user, item, name, value, time in rows:
        if name == "rate":
            new = (time, value)
            old = pairs.get((user, item))
            pairs[user, item] = max(new, old) if old else new
    return {pair: (value, time) for pair, (time, value) in pairs.items()}


def _listed(histories: Histories, items: Vocabulary) -> list[list[tuple[str, float, int]]]:
    rows = zip(items.take(histories.items), histories.strengths, histories.times, strict=True)
    events = [(item, round(float(strength), 4), int(time)) for item, strength, time in rows]
    bounds = histories.offsets.tolist()
    return [events[start:stop] for start, stop in itertools.pairwise(bounds)]


@given(rows=st.lists(_row(), max_size=40))
def test_pairs_are_united_as_the_definition_says(rows):
    """Strengths, times and order of both kinds of feedback follow their definition."""
    for feedback, oracle in ((Feedback.IMPLICIT, _likes), (Feedback.EXPLICIT, _ratings)):
        expected = defaultdict(list)
        for (user, item), (strength, time) in oracle(rows).items():
            expected[user].append((time, item, round(float(np.float32(strength)), 4)))
        histories = history_of(
            table(rows), CATALOG, feedback, items=Vocabulary(ITEMS), users=Vocabulary(USERS)
        )
        assert _listed(histories, Vocabulary(ITEMS)) == [
            [(item, strength, time) for time, item, strength in sorted(expected[user])]
            for user in USERS
        ]


@given(rows=st.lists(_row(), min_size=1, max_size=40), shuffle=st.randoms(use_true_random=False))
def test_request_time_equals_training(rows, shuffle):
    """A user's history at request time is what training made of the same events, in any order."""
    rows += [("u0", "i0", "view", None, 1), ("u0", "i0", "rate", 4.0, 1)]
    rows += [("u9", "i0", "view", None, 1), ("u9", "i1", "view", None, 2)]  # there is an order
    shuffled = rows[:]
    shuffle.shuffle(shuffled)
    for feedback in Feedback:
        dataset = build(table(rows), CATALOG, feedback)
        again = build(table(shuffled), CATALOG, feedback)
        assert fingerprint(dataset) == fingerprint(again)
        for user, user_id in enumerate(dataset.users.ids.to_pylist()):
            own = [row for row in shuffled if row[0] == user_id]
            alone = history_of(table(own), CATALOG, feedback, items=dataset.items)
            trained = dataset.histories.take(np.array([user]))
            for name in ("offsets", "items", "strengths", "times"):
                np.testing.assert_array_equal(getattr(alone, name), getattr(trained, name))


def test_unknown_items_and_users_are_left_out():
    """Events of items or users without a row are dropped; a user without events is empty."""
    rows = [
        ("u1", "i1", "view", None, 0),
        ("u1", "new", "view", None, 1),
        ("x", "i1", "view", None, 2),
    ]
    histories = history_of(
        table(rows), CATALOG, Feedback.IMPLICIT, items=Vocabulary(ITEMS), users=Vocabulary(USERS)
    )
    assert histories.lengths.tolist() == [0, 1, 0, 0]


def test_values_of_any_size_make_finite_strengths():
    """A stored value beyond the bound of today counts as the bound."""
    rows = [("u0", "i0", "buy", 1e300, 0), ("u0", "i1", "rate", -1e300, 1)]
    rows += [("u0", "i2", "rate", 1e39, n) for n in range(3)]
    known = {"items": Vocabulary(ITEMS), "users": Vocabulary(USERS)}
    likes = history_of(table(rows), CATALOG, Feedback.IMPLICIT, **known)
    ratings = history_of(table(rows), CATALOG, Feedback.EXPLICIT, **known)
    assert np.isfinite(likes.strengths).all()
    assert likes.lengths.sum() > 0
    assert ratings.strengths.tolist() == [-1e9, 1e9]


def test_anonymous_events_need_no_user():
    """Without users, a table needs no user column and makes one history."""
    events = table([("", "i2", "view", None, 3)]).select(
        ["item_id", "event_type", "value", "event_time"]
    )
    histories = history_of(events, CATALOG, Feedback.IMPLICIT, items=Vocabulary(ITEMS))
    assert (len(histories), histories.items.tolist()) == (1, [2])


def test_long_tables_are_read_like_short_ones():
    """Tables past the size at which look-ups change give the same pairs."""
    rows = [(f"u{n % 4}", f"i{n % 6}", "view", None, n) for n in range(10_000)]
    histories = history_of(
        table(rows), CATALOG, Feedback.IMPLICIT, items=Vocabulary(ITEMS), users=Vocabulary(USERS)
    )
    assert histories.lengths.tolist() == [3, 3, 3, 3]
    assert histories.strengths.sum() == 10_000


@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    users=st.lists(st.integers(0, 7), max_size=8),
)
def test_take_and_keep(lengths, users):
    """Taking users gives their histories in that order; keeping events leaves the users."""
    count = sum(lengths)
    histories = Histories(
        np.cumsum([0, *lengths]),
        np.arange(count, dtype=np.int32),
        np.ones(count, np.float32),
        np.arange(count),
    )
    users = [user % len(lengths) for user in users]
    taken = histories.take(np.array(users, np.int64))
    parts = [histories.items[histories.offsets[u] : histories.offsets[u + 1]] for u in users]
    assert taken.items.tolist() == [item for part in parts for item in part]
    assert taken.lengths.tolist() == [len(part) for part in parts]
    kept = histories.keep(histories.items % 2 == 0)
    assert len(kept) == len(lengths)
    assert kept.items.tolist() == [item for item in range(count) if item % 2 == 0]
    assert (histories.users[kept.items] == kept.users).all()


def test_ids_are_found_in_any_script():
    """A vocabulary of ids of any script finds each row, and -1 for what it lacks."""
    ids = pa.chunked_array([["b", "ä", "日本", "a b"], ["a b", "😀", "b"]])
    vocabulary = Vocabulary.of(ids)
    assert vocabulary.ids.to_pylist() == sorted({"b", "ä", "日本", "a b", "😀"}, key=str.encode)
    assert vocabulary.take(vocabulary.rows(ids)) == ids.to_pylist()
    assert vocabulary.rows(["B", "", "b"]).tolist() == [-1, -1, 1]
    many = pa.array(["b", "nope"] * 3_000)
    assert set(vocabulary.rows(many).tolist()) == {1, -1}
