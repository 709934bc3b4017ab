"""Data sets out of tables of interactions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from milvine.domain.catalog import Field, FieldType
from milvine.domain.entity import Side
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.models import Feedback
from milvine.training.dataset import build, fingerprint, popularity, with_fields
from tests.unit.models.worlds import CATALOG, table

ROWS = [
    ("b", "y", "view", None, 1),
    ("a", "x", "rate", 5.0, 2),
    ("a", "y", "rate", 1.0, 3),
    ("c", "z", "hide", None, 4),
    ("a", "x", "view", None, 5),
]


def test_only_what_teaches_is_in():
    """Users and items without a liked interaction have no row; pairs are counted once."""
    dataset = build(table(ROWS), CATALOG, Feedback.IMPLICIT)
    assert dataset.users.ids.to_pylist() == ["a", "b"]
    assert dataset.items.ids.to_pylist() == ["x", "y"]
    assert dataset.histories.lengths.tolist() == [1, 1]
    assert popularity(dataset).tolist() == [1, 1]


def test_explicit_feedback_is_ratings_alone():
    """Low ratings count as much as high ones; what is no rating does not."""
    dataset = build(table(ROWS), CATALOG, Feedback.EXPLICIT)
    assert dataset.users.ids.to_pylist() == ["a"]
    assert dataset.histories.strengths.tolist() == [5.0, 1.0]


@pytest.mark.parametrize("feedback", list(Feedback))
@pytest.mark.parametrize("rows", [[], [("a", "x", "hide", None, 0)]])
def test_nothing_to_learn_from(feedback, rows):
    """Without anything that teaches, the error says what is missing and the way out."""
    with pytest.raises(FailedPrecondition) as caught:
        build(table(rows), CATALOG, feedback)
    assert caught.value.reason is Reason.NO_TRAINING_DATA
    assert caught.value.metadata == {"catalog_id": "world"}
    assert "record" in caught.value.message


def test_fingerprint_tells_data_apart():
    """Any change of what is learned from changes the fingerprint; other rows do not."""

    def of(rows):
        return fingerprint(build(table(rows), CATALOG, Feedback.IMPLICIT))

    first = of(ROWS)
    assert first == of(ROWS) == of([*ROWS, ("d", "x", "hide", None, 9)])
    changed = [
        [*ROWS, ("d", "x", "view", None, 9)],
        [("b", "y", "view", None, 2), *ROWS[1:]],
        [("bb", *ROWS[0][1:]), *ROWS[1:]],
        [ROWS[0], ("a", "x", "rate", 4.0, 2), *ROWS[2:]],
    ]
    assert len({first, *map(of, changed)}) == 5


def _metadata(side, fields):
    """Items and users in another order than a data set's, of whom one has no row."""
    ids = ["z", "y", "w"] if side is Side.ITEM else ["b", "a", "q"]
    return pa.table({"id": ids} | {field.name: [3, 1, 2] for field in fields})


def test_fields_stand_by_the_rows_of_a_data_set():
    """Each item and user has what is known of it; who is not in the table has nothing."""
    size = (Field("size", FieldType.INT64),)
    plain = build(table(ROWS), CATALOG, Feedback.IMPLICIT)

    dataset = with_fields(plain, {Side.ITEM: size, Side.USER: size}, _metadata)

    assert dataset.item_features.is_known.tolist() == [False, True]
    assert dataset.item_features.numbers[:, 0].tolist() == [0, 0]
    assert dataset.histories.features.is_known.tolist() == [True, True]
    assert np.sign(dataset.histories.features.numbers[:, 0]).tolist() == [-1, 1]
    assert set(dataset.encodings) == {Side.ITEM, Side.USER}
    assert fingerprint(dataset) != fingerprint(plain)


def test_sides_without_fields_have_no_features():
    """Nothing is read where nothing is to be learned from."""
    plain = build(table(ROWS), CATALOG, Feedback.IMPLICIT)
    dataset = with_fields(plain, {Side.ITEM: (), Side.USER: ()}, _metadata)
    assert (dataset.item_features, dataset.histories.features) == (None, None)
    assert fingerprint(dataset) == fingerprint(plain)
