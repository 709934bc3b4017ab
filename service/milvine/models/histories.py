"""How interactions become histories, in training and at request time alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from milvine.domain.catalog import Catalog, EventType, ValueMeaning
from milvine.domain.interaction import MAX_VALUE
from milvine.models.base import Feedback, Histories
from milvine.models.vocabulary import Vocabulary


def teaches(events: pa.Table, catalog: Catalog, feedback: Feedback) -> NDArray[np.bool_]:
    """Which rows of a table of interactions a family of that feedback learns from.

    Implicit or ordered: the event type has a weight over 0, and the value is at least its
    `liked_from`.
    Explicit: the event type has a weight over 0, and its value is a rating.
    """
    rules = _rules(catalog.event_types)
    kinds = rules.names.rows(events["event_type"])
    if feedback is Feedback.EXPLICIT:
        return (rules.weights[kinds] > 0) & rules.is_rating[kinds]
    return (rules.weights[kinds] > 0) & _liked(rules, kinds, _values(events))


def history_of(
    events: pa.Table,
    catalog: Catalog,
    feedback: Feedback,
    *,
    items: Vocabulary,
    users: Vocabulary | None = None,
) -> Histories:
    """The histories of users from a table of interactions, each pair of user and item once.

    Implicit feedback: the strength of a pair is the sum, over what was liked, of the event type's
    weight times the value (its logarithm for seconds, 1 where there is none), and its time is the
    latest. Explicit feedback: the strength is the latest rating. Rows that teach nothing, unknown
    items and unknown users are left out.

    Args:
        events: Columns of `domain.interaction.INTERACTIONS`, in any order of rows; `user_id` is
            read only where `users` is given.
        catalog: Declares the event types.
        feedback: What the family learns from.
        items: The items that have a row; those that came after its fixed rows are left out.
        users: A history each, in this order; None: all events are of one user.
    """
    item_rows = items.rows(events["item_id"])
    user_rows = np.zeros(len(item_rows), np.int32)
    if users is not None:
        user_rows = users.rows(events["user_id"])
    rules = _rules(catalog.event_types)
    kinds = rules.names.rows(events["event_type"])
    values = _values(events)
    # What was stored under laxer rules must not make a sum infinite.
    bounded = np.clip(values, -MAX_VALUE, MAX_VALUE)
    learned = (item_rows >= 0) & (item_rows < items.fixed)
    known = learned & (user_rows >= 0) & (rules.weights[kinds] > 0)
    if feedback is Feedback.EXPLICIT:
        known &= rules.is_rating[kinds]
        strengths = bounded
    else:
        known &= _liked(rules, kinds, values)
        strengths = rules.weights[kinds] * _amounts(rules, kinds, bounded)
    return _unite(
        user_rows[known],
        item_rows[known],
        strengths[known],
        events["event_time"].to_numpy()[known],
        latest_only=feedback is Feedback.EXPLICIT,
        user_count=1 if users is None else len(users),
    )


@dataclass(frozen=True)
class _Rules:
    """The event types as arrays; the last place stands for what is not declared: row -1."""

    names: Vocabulary
    weights: NDArray[np.float64]
    liked_from: NDArray[np.float64]
    is_rating: NDArray[np.bool_]
    is_seconds: NDArray[np.bool_]
    has_value: NDArray[np.bool_]


@lru_cache(maxsize=128)
def _rules(types: tuple[EventType, ...]) -> _Rules:
    meanings = [*(t.value_meaning for t in types), ValueMeaning.NONE]
    bounds = [-np.inf if t.liked_from is None else t.liked_from for t in types]
    return _Rules(
        Vocabulary([t.name for t in types]),
        np.array([*(t.weight for t in types), 0.0]),
        np.array([*bounds, np.inf]),
        np.array([m is ValueMeaning.RATING for m in meanings]),
        np.array([m is ValueMeaning.SECONDS for m in meanings]),
        np.array([m is not ValueMeaning.NONE for m in meanings]),
    )


def _values(events: pa.Table) -> NDArray[np.float64]:
    """The values of interactions; NaN where there is none."""
    return np.asarray(events["value"].to_numpy(), np.float64)


def _liked(
    rules: _Rules, kinds: NDArray[np.int32], values: NDArray[np.float64]
) -> NDArray[np.bool_]:
    bounds = rules.liked_from[kinds]
    liked: NDArray[np.bool_] = (bounds == -np.inf) | (values >= bounds)
    return liked


def _amounts(
    rules: _Rules, kinds: NDArray[np.int32], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    present = rules.has_value[kinds] & ~np.isnan(values)
    amounts = np.where(present, np.maximum(values, 0.0), 1.0)
    return np.where(present & rules.is_seconds[kinds], np.log1p(amounts), amounts)


def _unite(
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    strengths: NDArray[np.float64],
    times: NDArray[np.int64],
    *,
    latest_only: bool,
    user_count: int,
) -> Histories:
    """Make one event of each pair; the order of the rows given does not matter."""
    order = np.lexsort((strengths, times, items, users))
    users, items, strengths, times = users[order], items[order], strengths[order], times[order]
    first = np.ones(len(users), bool)
    first[1:] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
    starts = np.flatnonzero(first)
    last = np.append(starts[1:], len(users)) - 1 if len(starts) else starts
    users, items, times = users[last], items[last], times[last]
    united = strengths[last] if latest_only or not len(last) else np.add.reduceat(strengths, starts)
    order = np.lexsort((items, times, users))
    offsets = np.zeros(user_count + 1, np.int64)
    np.cumsum(np.bincount(users, minlength=user_count), out=offsets[1:])
    return Histories(offsets, items[order], united[order].astype(np.float32), times[order])
