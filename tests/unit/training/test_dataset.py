"""Data sets out of tables of interactions."""

from __future__ import annotations

import pytest

from milvine.domain.errors import FailedPrecondition, Reason
from milvine.models import Feedback
from milvine.training.dataset import build, fingerprint, popularity
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
