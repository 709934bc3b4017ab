"""The rows of a release's collections, made from a model, the records' metadata and histories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from milvine.domain.catalog import Catalog
from milvine.domain.entity import FieldValue, Side
from milvine.domain.release import Release
from milvine.models.base import Histories
from milvine.models.histories import history_of
from milvine.models.serving import ServingModel
from milvine.models.vocabulary import Vocabulary
from milvine.records import Records

Fields: TypeAlias = Mapping[str, FieldValue]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the records say of one side of a catalog."""

    fields: Mapping[str, Fields]
    """The fields by id that the release has columns for."""
    deleted: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some rows of a collection."""

    ids: Sequence[str]
    vectors: NDArray[np.float32]
    """(rows, dimension)."""
    fields: Sequence[Fields]


def read_metadata(records: Records, release: Release, side: Side) -> Metadata:
    """Read the metadata of a side, with the fields that the release has columns for."""
    names = frozenset(field.name for field in release.fields(side))
    fields: dict[str, Fields] = {}
    deleted: set[str] = set()
    for page in records.entities.scan(release.catalog_id, side):
        for change in page:
            if change.entity is None:
                deleted.add(change.id)
            else:
                fields[change.id] = project(change.entity.fields, names)
    return Metadata(fields, frozenset(deleted))


def project(fields: Fields, names: frozenset[str]) -> Fields:
    """The fields of those names."""
    if fields.keys() <= names:
        return fields
    return {name: value for name, value in fields.items() if name in names}


def live_items(served: ServingModel, metadata: Metadata) -> NDArray[np.int64]:
    """The rows of the items that have a vector and are not deleted."""
    if not metadata.deleted:
        return np.arange(len(served.items))
    return np.flatnonzero(~np.isin(served.items.ids.to_pylist(), list(metadata.deleted)))


def item_chunks(
    served: ServingModel, rows: NDArray[np.int64], metadata: Metadata, *, size: int
) -> Iterator[Chunk]:
    """The rows of the item collection; an item without metadata has no fields."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        ids = served.items.take(part)
        vectors = np.ascontiguousarray(served.item_vectors[part])
        yield Chunk(ids, vectors, [metadata.fields.get(i, {}) for i in ids])


@dataclass(frozen=True, slots=True, eq=False)
class Users:
    """The users that a release has vectors of, with their histories."""

    ids: Vocabulary
    histories: Histories
    known: NDArray[np.int64]
    """The rows of `ids` that the model can place and that are not deleted."""

    def sample(self, served: ServingModel, count: int) -> NDArray[np.float32]:
        """The vectors of users drawn by a fixed seed, (at most count, dimension)."""
        size = min(count, len(self.known))
        drawn = np.random.default_rng(0).choice(self.known, size, replace=False)
        return served.encoder.encode(self.histories.take(drawn))

    def chunks(self, served: ServingModel, metadata: Metadata, *, size: int) -> Iterator[Chunk]:
        """The rows of the user collection."""
        for start in range(0, len(self.known), size):
            part = self.known[start : start + size]
            ids = self.ids.take(part)
            vectors = served.encoder.encode(self.histories.take(part))
            yield Chunk(ids, vectors, [metadata.fields.get(i, {}) for i in ids])


def read_users(
    served: ServingModel, catalog: Catalog, events: pa.Table, metadata: Metadata
) -> Users:
    """Gather the users whom the model can place: by a history it knows, or by their fields."""
    ids, encoding = Vocabulary.of(events["user_id"]), served.user_encoding
    if encoding is not None:
        known = set(ids.ids.to_pylist())
        ids = ids.extended([i for i in sorted(metadata.fields) if i not in known])
    histories = history_of(events, catalog, served.feedback, items=served.items, users=ids)
    if encoding is not None:
        rows = [metadata.fields.get(i, {}) for i in ids.ids.to_pylist()]
        histories = replace(histories, features=encoding.of(rows))
    is_known = histories.is_known
    if metadata.deleted:
        is_known &= ~np.isin(ids.ids.to_pylist(), list(metadata.deleted))
    return Users(ids, histories, np.flatnonzero(is_known))


def user_vectors(
    records: Records, catalog_id: str, served: ServingModel, users: Mapping[str, Fields]
) -> dict[str, NDArray[np.float32]]:
    """The vectors of users by their histories and fields, of those that the model can place."""
    ids, catalog = Vocabulary(list(users)), records.catalogs.get(catalog_id)
    events = records.interactions.history(catalog_id, list(users))
    if types := served.model.event_types:
        events = events.filter(pc.is_in(events["event_type"], pa.array(types)))
    histories = history_of(events, catalog, served.feedback, items=served.items, users=ids)
    if served.user_encoding is not None:
        histories = replace(histories, features=served.user_encoding.of(list(users.values())))
    known = np.flatnonzero(histories.is_known)
    vectors = served.encoder.encode(histories.take(known))
    return dict(zip(ids.take(known), vectors, strict=True))
