"""Erasing users."""

from __future__ import annotations

import pytest

from milvine.domain.entity import Entity, Side
from milvine.domain.errors import NotFound, Reason
from milvine.domain.interaction import Appended
from milvine.domain.operation import Operation, OperationKind
from milvine.records.erasure import Erased
from tests.contracts.records.samples import events


@pytest.fixture
def operation_id(records) -> str:
    """An erasure that a worker may do."""
    operation = Operation("o", "shop", OperationKind.ERASE_USER, {})
    return records.operations.create(operation, exclusive=False).id


def test_one_user_is_erased(records, operation_id):
    """All of a user's metadata and interactions go, and no one else's; they may come again."""
    batch = events(("u", "i", 1), ("u", "j", 2), ("v", "i", 1))
    records.interactions.append("shop", batch)
    records.entities.upsert("shop", Side.USER, [Entity("u"), Entity("v")])

    assert records.erasures.erase(operation_id, "shop", "u") == Erased(
        had_metadata=True, interaction_count=2
    )

    assert records.interactions.scan("shop")["user_id"].to_pylist() == ["v"]
    assert [e.id for e in records.entities.list("shop", Side.USER, limit=9)] == ["v"]
    assert records.interactions.append("shop", batch) == Appended(2, 1)


def test_attempts_of_an_operation_add_up(records, operation_id):
    """A repeated erasure says what the one before found, and what came since."""
    records.entities.upsert("shop", Side.USER, [Entity("u")])
    records.interactions.append("shop", events(("u", "i", 1), ("u", "j", 2)))
    records.erasures.erase(operation_id, "shop", "u")
    records.interactions.append("shop", events(("u", "k", 3)))

    assert records.erasures.erase(operation_id, "shop", "u") == Erased(
        had_metadata=True, interaction_count=3
    )


def test_a_user_without_metadata_leaves_a_tombstone(records, operation_id):
    """Followers and builders learn of an erased user whom only interactions knew."""
    records.interactions.append("shop", events(("u", "i", 1)))

    assert records.erasures.erase(operation_id, "shop", "u") == Erased(
        had_metadata=False, interaction_count=1
    )

    (change,) = records.entities.changes("shop", Side.USER, since=0, limit=9)
    assert (change.id, change.entity) == ("u", None)


def test_without_its_operation_nothing_is_erased(records):
    """The count has nowhere to go, so the transaction is undone."""
    records.interactions.append("shop", events(("u", "i", 1)))

    with pytest.raises(NotFound) as refusal:
        records.erasures.erase("nowhere", "shop", "u")

    assert refusal.value.reason is Reason.OPERATION_NOT_FOUND
    assert records.interactions.count("shop") == 1
