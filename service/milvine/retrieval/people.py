"""From subjects to vectors: whom a request asks for, as points of the embedding space."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from milvine.domain.entity import Side
from milvine.domain.errors import InvalidArgument
from milvine.domain.query import (
    Consistency,
    ExamplesSubject,
    HistorySubject,
    Subject,
    UserSubject,
    VectorSubject,
)
from milvine.models.base import Histories
from milvine.models.features import Features
from milvine.models.histories import history_of
from milvine.models.vocabulary import Vocabulary
from milvine.records import Records
from milvine.retrieval.active import Active
from milvine.retrieval.batches import Batches
from milvine.retrieval.examples import seen_in, taste_of
from milvine.retrieval.remembered import Remembered

READS = 4
"""Reads of histories under way; for one release that is one, or two where many wait."""
MOST_READ = 128
"""A read takes no further request once it has so many subjects."""
REMEMBERED_USERS = 100_000
"""Whose vectors and histories are held at most."""
REMEMBERED_S = 300.0
"""How long users are remembered of whom nothing is written, where every write is known of."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Person:
    """A subject as search knows it."""

    vector: NDArray[np.float32] | None
    """(dimension,); None where the model knows nothing of the subject."""
    seen: tuple[str, ...]
    """The items of the subject's history."""
    reader: NDArray[np.float32] | None = None
    """What the model's scorer knows of the subject, (size,); None where it has none, or no history
    to read."""


class People:
    """Places subjects: for many callers one read of all histories, and one call of the encoder.

    Users are remembered until something is written of them. Where others write whose marks the
    records do not know, that shows within `staleness_s`.
    """

    def __init__(self, records: Records, *, staleness_s: float) -> None:
        self._records = records
        fresh_s = REMEMBERED_S if records.marks.is_shared else staleness_s
        self._users: Remembered[tuple[str, str], Person] = Remembered(
            fresh_s=fresh_s, capacity=REMEMBERED_USERS
        )
        self._batches: Batches[Active, Subject, Person] = Batches(
            self._find, slots=READS, most=MOST_READ
        )

    async def place(
        self, active: Active, subjects: Sequence[Subject], consistency: Consistency
    ) -> list[Person]:
        """Place subjects in the space of a release, in their order.

        Raises:
            InvalidArgument: A vector has another dimension.
            Unavailable: The records do not answer.
        """
        placed = [self._known(active, subject, consistency) for subject in subjects]
        missing = [subject for subject, one in zip(subjects, placed, strict=True) if one is None]
        if not missing:
            return [one for one in placed if one]
        found = iter(await self._batches.answers(active.catalog.id, active, missing))
        return [one or next(found) for one in placed]

    def _known(self, active: Active, subject: Subject, consistency: Consistency) -> Person | None:
        match subject:
            case VectorSubject():
                return _given(active, subject)
            case UserSubject(user_id) if consistency is Consistency.BOUNDED:
                version = self._version(active, user_id)
                return self._users.get((active.catalog.id, user_id), version)
            case _:
                return None

    async def _find(self, active: Active, subjects: Sequence[Subject]) -> Sequence[Person]:
        read_at = time.monotonic()
        users = [s.user_id if isinstance(s, UserSubject) else None for s in subjects]
        # Marks from before the read: a write that it may have missed changes them afterwards.
        versions = [None if user is None else self._version(active, user) for user in users]
        people = await asyncio.to_thread(_find, self._records, active, subjects)
        for user, version, person in zip(users, versions, people, strict=True):
            if user is not None:
                self._users.put((active.catalog.id, user), version, person, read_at=read_at)
        return people

    def _version(self, active: Active, user_id: str) -> tuple[str, int]:
        """As what a user is remembered: of a release, and of a state of the history."""
        return active.release.id, self._records.marks.of(active.catalog.id, user_id)


def _given(active: Active, subject: VectorSubject) -> Person:
    """A subject that is a point already."""
    if len(subject.vector) != active.served.dimension:
        raise InvalidArgument.at(
            subject.field,
            f"must have {active.served.dimension} elements, the dimension of release "
            f"{active.release.id}, has {len(subject.vector)}",
        )
    return Person(subject.vector, ())


def _find(records: Records, active: Active, subjects: Sequence[Subject]) -> list[Person]:
    """Read and encode; blocks."""
    user_ids = list(dict.fromkeys(s.user_id for s in subjects if isinstance(s, UserSubject)))
    anonymous = [s.events for s in subjects if isinstance(s, HistorySubject)]
    events = records.interactions.history(active.catalog.id, user_ids)
    users = Vocabulary(user_ids)
    joined = _join(
        [
            with_fields(records, active, user_ids, histories(active, events, users)),
            *(histories(active, table) for table in anonymous),
        ]
    )
    seen = _split(events, users) + [tuple(table["item_id"].to_pylist()) for table in anonymous]
    people = _encoded(active, joined, seen)
    others = iter(people[len(users) :])
    by_user = dict(zip(user_ids, people, strict=False))
    found = []
    for subject in subjects:
        match subject:
            case UserSubject(user_id):
                found.append(by_user[user_id])
            case ExamplesSubject():
                found.append(_exemplified(active, subject))
            case _:
                found.append(next(others))
    return found


def _exemplified(active: Active, subject: ExamplesSubject) -> Person:
    taste = taste_of(active.served, subject)
    return Person(None if taste is None else taste.vector(), seen_in(subject))


def with_fields(
    records: Records, active: Active, user_ids: Sequence[str], found: Histories
) -> Histories:
    """The histories of users with what the model reads of their fields; blocks."""
    encoding = active.served.user_encoding
    if encoding is None:
        return found
    users = records.entities.get(active.catalog.id, Side.USER, user_ids)
    fields = {user.id: user.fields for user in users}
    return replace(found, features=encoding.of([fields.get(i, {}) for i in user_ids]))


def histories(active: Active, events: pa.Table, users: Vocabulary | None = None) -> Histories:
    """What the model of a release sees of interactions; without users all are one person's."""
    if active.event_types:
        events = events.filter(pc.is_in(events["event_type"], pa.array(active.event_types)))
    served = active.served
    return history_of(events, active.catalog, served.feedback, items=served.items, users=users)


def _encoded(active: Active, joined: Histories, seen: Sequence[tuple[str, ...]]) -> list[Person]:
    known = np.flatnonzero(joined.is_known)
    people = [Person(None, items) for items in seen]
    if len(known):
        histories, scorer = joined.take(known), active.served.scorer
        vectors = active.served.encoder.encode(histories)
        readers = [None] * len(known) if scorer is None else scorer.read(histories)
        for row, vector, reader in zip(known.tolist(), vectors, readers, strict=True):
            people[row] = Person(vector, seen[row], reader)
    return people


def _split(events: pa.Table, users: Vocabulary) -> list[tuple[str, ...]]:
    """The items of each user from a table that is in the order of users."""
    rows = users.rows(events["user_id"])
    items = events["item_id"].to_pylist()
    starts = np.flatnonzero(np.diff(rows, prepend=-1)).tolist()
    found: list[tuple[str, ...]] = [()] * len(users)
    for start, end in pairwise([*starts, len(items)]):
        found[rows[start]] = tuple(items[start:end])
    return found


def _join(parts: Sequence[Histories]) -> Histories:
    """One batch of several."""
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([part.lengths for part in parts])
    features = [part.features for part in parts if part.features is not None]
    anonymous = len(lengths) - sum(map(len, features))
    if features and anonymous:
        kind = features[0]
        none = Features.none(anonymous, kind.token_count, kind.numbers.shape[1])
        features = [Features.joined([*features, none])]
    return Histories(
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.strengths for part in parts]),
        np.concatenate([part.times for part in parts]),
        features[0] if features else None,
    )
