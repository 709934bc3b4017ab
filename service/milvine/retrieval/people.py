"""From subjects to vectors: whom a request asks for, as points of the embedding space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from milvine.domain.errors import InvalidArgument
from milvine.domain.query import HistorySubject, Subject, UserSubject, VectorSubject
from milvine.models.base import Histories
from milvine.models.histories import history_of
from milvine.models.vocabulary import Vocabulary
from milvine.records import Records
from milvine.retrieval.active import Active


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """A subject as search knows it."""

    vector: NDArray[np.float32] | None
    """(dimension,); None where the model knows nothing of the subject."""
    seen: frozenset[str]
    """The items of the subject's history."""


def find_people(records: Records, active: Active, subjects: Sequence[Subject]) -> list[Person]:
    """Place subjects: one read of all histories, one call of the encoder; blocks."""
    events = _histories(records, active, subjects)
    parts = [_aggregate(active, table) for table in events]
    joined = _join([part for part in parts if part is not None])
    known = np.flatnonzero(joined.lengths > 0)
    encoded = iter(active.served.encoder.encode(joined.take(known)) if len(known) else ())
    is_known = iter((joined.lengths > 0).tolist())
    people = []
    for subject, table in zip(subjects, events, strict=True):
        if isinstance(subject, VectorSubject):
            people.append(Person(_checked(subject, active), frozenset()))
        else:
            vector = next(encoded) if next(is_known) else None
            people.append(Person(vector, _items(table)))
    return people


def _histories(
    records: Records, active: Active, subjects: Sequence[Subject]
) -> list[pa.Table | None]:
    """The interactions of each subject; None for one that is given by its vector."""
    user_ids = list(dict.fromkeys(s.user_id for s in subjects if isinstance(s, UserSubject)))
    by_user = {}
    if user_ids:
        by_user = _split(records.interactions.history(active.catalog.id, user_ids), user_ids)
    return [
        by_user[subject.user_id]
        if isinstance(subject, UserSubject)
        else subject.events
        if isinstance(subject, HistorySubject)
        else None
        for subject in subjects
    ]


def _split(events: pa.Table, user_ids: Sequence[str]) -> dict[str, pa.Table]:
    """The rows of each user from a table that is ordered by user."""
    if len(user_ids) == 1:
        return {user_ids[0]: events}
    rows = Vocabulary(user_ids).rows(events["user_id"])
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    ends = np.append(starts[1:], len(rows))
    tables = dict.fromkeys(user_ids, events.slice(0, 0))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        tables[user_ids[rows[start]]] = events.slice(start, end - start)
    return tables


def _aggregate(active: Active, events: pa.Table | None) -> Histories | None:
    if events is None:
        return None
    if active.event_types:
        events = events.filter(pc.is_in(events["event_type"], pa.array(active.event_types)))
    return history_of(events, active.catalog, active.served.feedback, items=active.served.items)


def _join(parts: Sequence[Histories]) -> Histories:
    """One batch of several."""
    if len(parts) == 1:
        return parts[0]
    lengths = [part.lengths for part in parts]
    return Histories(
        np.concatenate([[0], np.cumsum(np.concatenate([*lengths, np.empty(0, np.int64)]))]),
        np.concatenate([*(part.items for part in parts), np.empty(0, np.int32)]),
        np.concatenate([*(part.strengths for part in parts), np.empty(0, np.float32)]),
        np.concatenate([*(part.times for part in parts), np.empty(0, np.int64)]),
    )


def _items(events: pa.Table | None) -> frozenset[str]:
    return frozenset() if events is None else frozenset(events["item_id"].to_pylist())


def _checked(subject: VectorSubject, active: Active) -> NDArray[np.float32]:
    if len(subject.vector) != active.served.dimension:
        raise InvalidArgument.at(
            subject.field,
            f"must have {active.served.dimension} elements, the dimension of release "
            f"{active.release.id}, has {len(subject.vector)}",
        )
    return subject.vector
