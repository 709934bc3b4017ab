"""Why an item was recommended: what each item of a history does to its score.

An item of a history counts by how much lower a score would be without it: the history is encoded
once as it is and once without each of its latest items. That is defined for every family, and
because a score is an inner product, one difference of vectors for each item of the history answers
for every hit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from milvine.domain.errors import DeadlineExceeded
from milvine.domain.hit import Explanation, Hit
from milvine.domain.query import (
    Consistency,
    ExamplesSubject,
    HistorySubject,
    Subject,
    UserSubject,
    VectorSubject,
)
from milvine.models.base import Histories, Scorer
from milvine.models.serving import ServingModel
from milvine.records import Records
from milvine.retrieval.active import Active
from milvine.retrieval.examples import seen_in, taste_of
from milvine.retrieval.people import People, Person, histories, with_fields

MOST_LOOKED_AT = 100
"""Of a longer history, the latest items are looked at; of examples, those that weigh most."""
MOST_CONTRIBUTIONS = 10
_EVENTS_AT_ONCE = 10_000
_PAIRS_AT_ONCE = 1 << 16

Vectors: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Reasons:
    """What the items of a history do to the vector of its subject."""

    items: tuple[str, ...] = ()
    shifts: Vectors | None = None
    """(items, dimension): the vector of the subject, less the one without each item; None: none."""
    readers: Vectors | None = None
    """(items, size): what the model's scorer knows of the subject without each item."""

    def contributions(
        self, served: ServingModel, rows: NDArray[np.int32], reader: Vectors | None
    ) -> list[tuple[tuple[str, float], ...]]:
        """What counts most for or against each of some items, (n,) rows, most first.

        `reader` is what the model's scorer knows of the subject.
        """
        if self.shifts is None:
            return [()] * len(rows)
        amounts = served.item_vectors[rows] @ self.shifts.T  # (n, items)
        if served.scorer is not None and reader is not None and self.readers is not None:
            amounts += _gained(served.scorer, reader, self.readers, rows)
        order = np.argsort(-np.abs(amounts), axis=1, kind="stable")[:, :MOST_CONTRIBUTIONS]
        return [
            tuple((self.items[place], float(row[place])) for place in places)
            for row, places in zip(amounts, order.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """A subject that is placed, and why it is there."""

    person: Person
    reasons: Reasons = Reasons()


class Explainer:
    """Places subjects as People does, so that what places them can be told.

    Histories are read anew, and never shared with other requests: to explain costs an encoding for
    each item that is looked at.
    """

    def __init__(self, records: Records, people: People) -> None:
        self._records = records
        self._people = people

    async def place(
        self, active: Active, subjects: Sequence[Subject], *, timeout_s: float
    ) -> list[Explained]:
        """Place subjects in the space of a release, in their order.

        Raises:
            InvalidArgument: A vector has another dimension.
            Unavailable: The records do not answer.
            DeadlineExceeded: It takes longer than `timeout_s`.
        """
        ends = time.monotonic() + timeout_s
        return [await self._place(active, subject, ends) for subject in subjects]

    async def _place(self, active: Active, subject: Subject, ends: float) -> Explained:
        match subject:
            case UserSubject() | HistorySubject():
                return await asyncio.to_thread(self._by_history, active, subject, ends)
            case ExamplesSubject():
                return await asyncio.to_thread(_by_examples, active.served, subject)
            case VectorSubject():
                (person,) = await self._people.place(active, [subject], Consistency.BOUNDED)
                return Explained(person)

    def _by_history(
        self, active: Active, subject: UserSubject | HistorySubject, ends: float
    ) -> Explained:
        events = self._events(active, subject)
        history, seen = histories(active, events), tuple(events["item_id"].to_pylist())
        if isinstance(subject, UserSubject):
            history = with_fields(self._records, active, [subject.user_id], history)
        if not len(history.items):
            return Explained(_without_history(active.served, history, seen))
        places = np.arange(len(history.items))[::-1][:MOST_LOOKED_AT]
        served = active.served
        (vector,) = served.encoder.encode(history)
        without = _encoded_without(served.encoder.encode, history, places, ends)
        items = tuple(served.items.take(history.items[places]))
        if served.scorer is None:
            return Explained(Person(vector, seen), Reasons(items, vector - without))
        (reader,) = served.scorer.read(history)
        readers = _encoded_without(served.scorer.read, history, places, ends)
        return Explained(Person(vector, seen, reader), Reasons(items, vector - without, readers))

    def _events(self, active: Active, subject: UserSubject | HistorySubject) -> pa.Table:
        if isinstance(subject, HistorySubject):
            return subject.events
        return self._records.interactions.history(active.catalog.id, [subject.user_id])


def _without_history(served: ServingModel, history: Histories, seen: tuple[str, ...]) -> Person:
    """A subject of whom nothing but fields is known, if these."""
    if not history.is_known.any():
        return Person(None, seen)
    return Person(served.encoder.encode(history)[0], seen)


def explained(served: ServingModel, placed: Explained, hits: Sequence[Hit]) -> list[Hit]:
    """Hits with what the history of the subject does to them.

    A hit that tells its score before boosts keeps that; for others it is their score. By a model
    with a scorer, what an item of the history does is told for the score of the whole model.
    """
    rows = served.items.rows([hit.id for hit in hits])
    found = placed.reasons.contributions(served, rows, placed.person.reader)
    return [
        hit._replace(
            explanation=replace(
                hit.explanation or Explanation(hit.score),
                contributions=contributions,
                retrieval_score=score,
            )
        )
        for hit, contributions, score in zip(
            hits, found, _retrieval_scores(served, placed.person, rows), strict=True
        )
    ]


def _retrieval_scores(
    served: ServingModel, person: Person, rows: NDArray[np.int32]
) -> Sequence[float | None]:
    """By which score items were retrieved that were then ranked anew."""
    if person.reader is None or person.vector is None:
        return [None] * len(rows)
    scores: list[float] = (served.item_vectors[rows] @ person.vector).tolist()
    return scores


def _gained(
    scorer: Scorer, reader: Vectors, without: Vectors, rows: NDArray[np.int32]
) -> NDArray[np.float32]:
    """By how much less items gain without each item of a history, (rows, items)."""
    lost = np.empty((len(rows), len(without)), np.float32)
    step = max(1, _PAIRS_AT_ONCE // (len(without) + 1))
    readers = np.vstack([reader, without])
    for at in range(0, len(rows), step):
        some = rows[at : at + step]
        gains = scorer.gains(readers, np.tile(some, (len(readers), 1)))
        lost[at : at + step] = np.nan_to_num(gains[0] - gains[1:]).T
    return lost


def _by_examples(served: ServingModel, subject: ExamplesSubject) -> Explained:
    taste = taste_of(served, subject)
    if taste is None:
        return Explained(Person(None, seen_in(subject)))
    places = np.argsort(-np.abs(taste.weights), kind="stable")[:MOST_LOOKED_AT]
    vector = taste.vector()
    items = tuple(taste.items[place] for place in places.tolist())
    reasons = Reasons(items, vector - taste.without_each(places))
    return Explained(Person(vector, seen_in(subject)), reasons)


def _encoded_without(
    encode: Callable[[Histories], Vectors],
    history: Histories,
    places: NDArray[np.int64],
    ends: float,
) -> Vectors:
    """The vectors of a person without the event at each of some places, until `ends`.

    A few at a time, so that nothing goes on for long that nobody waits for.
    """
    step = max(1, _EVENTS_AT_ONCE // len(history.items))
    found = []
    for start in range(0, len(places), step):
        if time.monotonic() > ends:
            raise DeadlineExceeded
        found.append(encode(_without(history, places[start : start + step])))
    return np.concatenate(found)


def _without(history: Histories, places: NDArray[np.int64]) -> Histories:
    """A person's history without the event at each of some places."""
    count = len(places)
    kept = np.ones((count, len(history.items)), bool)
    kept[np.arange(count), places] = False
    return history.take(np.zeros(count, np.int64)).keep(kept.ravel())
