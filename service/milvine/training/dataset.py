"""Data sets: what a family learns from, out of a table of interactions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from milvine.domain.catalog import Catalog, Field
from milvine.domain.entity import Side
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.domain.model import ModelConfig
from milvine.models.base import Dataset, Feedback, Histories, ReadsFields
from milvine.models.families import family_of
from milvine.models.fields import Encoding
from milvine.models.histories import history_of, teaches
from milvine.models.texts import TextReader
from milvine.models.vocabulary import Vocabulary

_NOTHING_LIKED = (
    "none of its {rows:,} interactions has an event type with a weight over 0 and a value from "
    "its liked_from; record such interactions, or lower the event type's liked_from"
)
_MISSING = {
    Feedback.IMPLICIT: _NOTHING_LIKED,
    Feedback.ORDERED: _NOTHING_LIKED,
    Feedback.EXPLICIT: (
        "none of its {rows:,} interactions is a rating; record interactions of an event type whose "
        "values mean RATING, or train a family that learns from implicit feedback"
    ),
}


class ReadFields(Protocol):
    """Where items and users are read from."""

    def __call__(self, side: Side, fields: Sequence[Field]) -> pa.Table:
        """All of a side: their `id`, and a column of `ARROW_TYPES` for each field."""


def build(events: pa.Table, catalog: Catalog, feedback: Feedback) -> Dataset:
    """The data set of a catalog's interactions.

    Args:
        events: Columns of `domain.interaction.INTERACTIONS`, in any order of rows.
        catalog: Declares the event types.
        feedback: What the family learns from.

    Raises:
        FailedPrecondition: When nothing teaches such a family, or it needs an order of time and
            there is none.
    """
    taught = events.filter(pa.array(teaches(events, catalog, feedback)))
    if not len(taught):
        raise _no_data(catalog, feedback, len(events))
    users, items = Vocabulary.of(taught["user_id"]), Vocabulary.of(taught["item_id"])
    histories = history_of(taught, catalog, feedback, items=items, users=users)
    if feedback is Feedback.ORDERED:
        _check_order(histories, catalog)
    return Dataset(users, items, histories)


def dataset_of(
    events: pa.Table,
    catalog: Catalog,
    config: ModelConfig,
    read: ReadFields | None,
    reader: TextReader | None = None,
) -> Dataset:
    """The data set that a config learns from: what users did, and the fields that it reads.

    Args:
        events: Columns of `domain.interaction.INTERACTIONS`, in any order of rows.
        catalog: Declares the event types and fields.
        config: The family and its settings.
        read: Reads fields; None: there is nothing to read.
        reader: Reads texts; None: they are left out.

    Raises:
        InvalidArgument: The config names a field that is not declared.
        FailedPrecondition: Nothing teaches such a family.
    """
    family = family_of(config)
    dataset = build(events, catalog, family.learns_from)
    if read is None or not isinstance(family, ReadsFields):
        return dataset
    fields = family.fields(family.config(config.settings), catalog)
    return with_fields(dataset, fields, read, reader)


def with_fields(
    dataset: Dataset,
    fields: Mapping[Side, Sequence[Field]],
    read: ReadFields,
    reader: TextReader | None = None,
) -> Dataset:
    """The data set with what the catalog says of its items and users.

    Args:
        dataset: What users did.
        fields: The fields of each side to learn from.
        read: Reads them.
        reader: Reads those with `embed_text`; None: they are left out.
    """
    vocabularies = {Side.ITEM: dataset.items, Side.USER: dataset.users}
    features, encodings = {}, {}
    wanted = {
        side: [field for field in fields[side] if reader or not field.embed_text] for side in Side
    }
    for side in (side for side in Side if wanted[side]):
        columns = list({field.name: field for field in wanted[side]}.values())
        rows = _in_order(read(side, columns), vocabularies[side])
        encodings[side] = Encoding.learned(wanted[side], rows, reader)
        features[side] = encodings[side].features(rows)
    histories = replace(dataset.histories, features=features.get(Side.USER))
    return replace(
        dataset,
        histories=histories,
        item_features=features.get(Side.ITEM),
        encodings=encodings,
    )


def with_user_features(dataset: Dataset, encoding: Encoding | None, read: ReadFields) -> Dataset:
    """The data set with what a model reads of its users, as the model learned to."""
    if encoding is None:
        return dataset
    rows = _in_order(read(Side.USER, encoding.fields), dataset.users)
    histories = replace(dataset.histories, features=encoding.features(rows))
    return replace(dataset, histories=histories)


def _in_order(table: pa.Table, vocabulary: Vocabulary) -> pa.Table:
    """A row of the table for each id of the vocabulary, in its order; nulls where there is none."""
    return table.take(pc.index_in(vocabulary.ids, value_set=table["id"]))


def popularity(dataset: Dataset) -> NDArray[np.int64]:
    """(items,): how many users have each item."""
    return np.bincount(dataset.histories.items, minlength=len(dataset.items))


def fingerprint(dataset: Dataset) -> str:
    """A digest of a data set; the order in which interactions were recorded does not change it."""
    digest = hashlib.sha256()
    for vocabulary in (dataset.users, dataset.items):
        for text in vocabulary.ids.to_pylist():
            digest.update(text.encode() + b"\0")
        digest.update(b"\0")
    histories = dataset.histories
    for array in (histories.offsets, histories.items, histories.strengths, histories.times):
        digest.update(array.tobytes())
    for features in (dataset.item_features, histories.features):
        if features is not None:
            for array in (features.offsets, features.tokens, features.weights, features.numbers):
                digest.update(array.tobytes())
        if features is not None and features.texts is not None:
            digest.update(features.texts.digest)
    return digest.hexdigest()


def _check_order(histories: Histories, catalog: Catalog) -> None:
    """Raise where users with several items have each of them at one time."""
    following = histories.users[1:] == histories.users[:-1]
    if following.any() and not (histories.times[1:] > histories.times[:-1])[following].any():
        raise FailedPrecondition(
            f"the catalog {catalog.id!r} has no order of time: every user's interactions are of "
            "one moment; record each with its event_time, or train a family that needs no order",
            Reason.NO_TIME_ORDER,
            {"catalog_id": catalog.id},
        )


def _no_data(catalog: Catalog, feedback: Feedback, rows: int) -> FailedPrecondition:
    if not rows:
        what = "it has no interactions; record or import some"
    else:
        what = _MISSING[feedback].format(rows=rows)
    return FailedPrecondition(
        f"the catalog {catalog.id!r} has nothing to learn from: {what}",
        Reason.NO_TRAINING_DATA,
        {"catalog_id": catalog.id},
    )
