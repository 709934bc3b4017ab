"""Parting what happened into what is learned from and what measures."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from milvine.domain.catalog import Catalog
from milvine.domain.entity import to_micros
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.domain.model import Holdout, HoldoutMethod
from milvine.models.base import Dataset, Feedback, Histories
from milvine.models.histories import history_of


def part(
    dataset: Dataset, events: pa.Table, catalog: Catalog, feedback: Feedback, holdout: Holdout
) -> tuple[Dataset, Histories]:
    """Part a data set into one to train on and the histories that are held out of it.

    Both have all users and items; a pair of a user and an item is in one of them.

    Args:
        dataset: What `events` come to.
        events: Columns of `domain.interaction.INTERACTIONS`.
        catalog: Declares the event types.
        feedback: What the data set was made for.
        holdout: What is held out.

    Raises:
        FailedPrecondition: Nothing is left to train on.
    """
    if holdout.method not in (HoldoutMethod.AFTER, HoldoutMethod.GIVEN):
        return split(dataset, holdout)
    held = _held(events, holdout)
    rest, later = (
        history_of(some, catalog, feedback, items=dataset.items, users=dataset.users)
        for some in (events.filter(pc.invert(held)), events.filter(held))
    )
    if not len(rest.items):
        raise FailedPrecondition(
            f"the catalog {catalog.id!r} has nothing to learn from but what the holdout takes; "
            "choose a later start_time, or other event_types",
            Reason.NO_TRAINING_DATA,
            {"catalog_id": catalog.id},
        )
    rest = replace(rest, features=dataset.histories.features)
    # What a user has already is never recommended, so it can't be found either.
    return replace(dataset, histories=rest), later.keep(~_has(rest, later, len(dataset.items)))


def split(dataset: Dataset, holdout: Holdout) -> tuple[Dataset, Histories]:
    """Part a data set pair by pair: by LATEST, RANDOM or NONE.

    Each user keeps one item at least, and gives one, or `holdout.fraction` of the items rounded,
    one at least; a user with a single item gives none. Ties in time are decided by the seed.
    """
    histories = dataset.histories
    if holdout.method is HoldoutMethod.NONE:
        return dataset, histories.keep(np.zeros(len(histories.items), bool))
    draws = np.random.default_rng(abs(holdout.seed)).random(len(histories.items))
    latest = holdout.method is HoldoutMethod.LATEST
    keys = (draws, histories.times, histories.users) if latest else (draws, histories.users)
    order = np.lexsort(keys)
    # `order` goes user by user, so the places from the end count what a user gives.
    from_end = np.repeat(histories.offsets[1:], histories.lengths) - np.arange(len(order))
    held = np.empty(len(order), bool)
    held[order] = from_end <= np.repeat(_gives(histories.lengths, holdout), histories.lengths)
    return replace(dataset, histories=histories.keep(~held)), histories.keep(held)


def with_history(dataset: Dataset) -> Dataset:
    """The data set without the users that have no history, from whom nothing is learned."""
    users = np.flatnonzero(dataset.histories.lengths)
    if len(users) == len(dataset.users):
        return dataset
    vocabulary = type(dataset.users)(dataset.users.ids.take(pa.array(users)))
    return replace(dataset, users=vocabulary, histories=dataset.histories.take(users))


def held_out_fingerprint(dataset: Dataset, held_out: Histories) -> str:
    """A digest of the held-out pairs, whatever rows stand for the users and items."""
    users, items = dataset.users.take(held_out.users), dataset.items.take(held_out.items)
    digest = hashlib.sha256()
    for user, item in sorted(zip(users, items, strict=True)):
        digest.update(f"{user}\0{item}\0".encode())
    return digest.hexdigest()


def _held(events: pa.Table, holdout: Holdout) -> pa.ChunkedArray:
    """Which events AFTER or GIVEN takes."""
    if holdout.method is HoldoutMethod.GIVEN:
        return pc.is_in(events["event_type"], value_set=pa.array(holdout.event_types, pa.string()))
    if holdout.start_time is None:
        raise ValueError("AFTER needs a start_time")
    return pc.greater_equal(events["event_time"], to_micros(holdout.start_time))


def _has(histories: Histories, others: Histories, item_count: int) -> NDArray[np.bool_]:
    """(events of others,): whether the same users have the same items in `histories`."""
    return np.isin(
        others.users * item_count + others.items, histories.users * item_count + histories.items
    )


def _gives(lengths: NDArray[np.int64], holdout: Holdout) -> NDArray[np.int64]:
    wanted = np.ones_like(lengths)
    if holdout.fraction is not None:
        wanted = np.maximum(np.rint(lengths * holdout.fraction), 1).astype(np.int64)
    return np.clip(wanted, 0, np.maximum(lengths - 1, 0))
