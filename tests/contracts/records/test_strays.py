"""What belongs to no row, and what deleted catalogs leave."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milvine.domain.entity import Entity, Side
from milvine.domain.errors import NotFound
from milvine.domain.operation import OperationKind, OperationState
from milvine.records import Stray, StrayKind, catalogs
from tests.contracts.records.conftest import SHOP
from tests.contracts.records.samples import building, claimed, events, model, published


def removable(records):
    """The strays that may be removed, by name."""
    return {stray.name: stray.kind for stray in records.strays.removable(limit=99)}


def collections(release):
    """The strays that a release's collections are."""
    return dict.fromkeys(release.collections(), StrayKind.COLLECTION)


def test_collections_belong_to_no_one_until_their_release_is_ready(records):
    """They may go once the operation failed, and not while it runs nor once it succeeded."""
    records.models.create(model("m"))
    failing = building(records, "failing")
    assert removable(records) == {}
    records.operations.finish(failing.operation_id, "w", state=OperationState.FAILED)
    published(records, "good")
    assert removable(records) == collections(failing)


def test_collections_of_attempts_that_were_given_up_go_with_the_operation(records):
    """What the first of two attempts made may go when the second has made the release."""
    records.models.create(model("m"))
    first = building(records, "r")
    records.operations.give_back(first.operation_id, "w")
    by = records.operations.claim("w", lease_s=60)
    second = records.releases.begin(replace(first, attempt=by.attempts))
    records.releases.finish(second)
    records.operations.finish(by.id, "w", state=OperationState.SUCCEEDED)
    assert removable(records) == collections(first)


def test_collections_of_a_deleted_release_may_go(records):
    """They belong to no one from the moment that their row is gone."""
    records.models.create(model("m"))
    release = published(records, "r")
    records.releases.delete("r")
    assert removable(records) == collections(release)


def test_an_artifact_belongs_to_its_model(records):
    """It may go when its training failed, or its model was deleted."""
    for name in ("lost", "kept", "deleted"):
        training = claimed(records, f"train {name}", OperationKind.TRAIN)
        records.strays.note(StrayKind.ARTIFACT, name, training.id)
        if name != "lost":
            records.models.create(model(name), made_by=training)
        records.operations.finish(training.id, "w", state=OperationState.FAILED)
    records.models.delete("deleted")
    assert removable(records) == dict.fromkeys(("lost", "deleted"), StrayKind.ARTIFACT)


def test_a_removed_stray_is_forgotten(records):
    """Once it is forgotten it is not found again; forgetting twice does no harm."""
    records.models.create(model("m"))
    records.models.delete("m")
    for _ in range(2):
        records.strays.forget(Stray(StrayKind.ARTIFACT, "m"))
    assert removable(records) == {}


def test_what_a_deleted_catalog_held_may_go(records):
    """Collections and artifacts at once, but for those that a running operation still makes."""
    records.models.create(model("m"))
    ready = published(records, "ready")
    begun = building(records, "begun")
    records.catalogs.delete("shop", force=True)
    found = removable(records)
    assert found == {"m": StrayKind.ARTIFACT} | collections(ready)
    assert records.operations.get(begun.operation_id).cancel_requested
    records.operations.finish(begun.operation_id, "w", state=OperationState.CANCELLED)
    assert removable(records) == found | collections(begun)


def test_a_deleted_catalog_is_purged_in_small_steps(records, monkeypatch):
    """Its rows go some at a time, and a new catalog of its id keeps its own."""
    monkeypatch.setattr(catalogs, "_PURGED_AT_ONCE", 3)
    for _ in range(2):
        fill(records)
        records.catalogs.delete("shop", force=True)
        records.catalogs.create(SHOP)
    fill(records)
    sizes = [rows(records)]
    while records.catalogs.purge():
        sizes.append(rows(records))
    assert sizes == [42, 39, 36, 35, 32, 29, 28, 28, 25, 22, 21, 18, 15, 14, 14]
    assert records.interactions.count("shop") == records.entities.count("shop", Side.ITEM) == 7


def fill(records):
    """Seven items and seven interactions."""
    records.entities.upsert("shop", Side.ITEM, [Entity(f"i{n}") for n in range(7)])
    records.interactions.append("shop", events(*[("u", f"i{n}", n) for n in range(7)]))


def rows(records):
    """How many rows the big tables have."""
    with records._database.read() as connection:
        count = "SELECT (SELECT count(*) FROM entities) + (SELECT count(*) FROM interactions)"
        return connection.exec_driver_sql(count).scalar_one()


def test_a_deleted_catalog_is_out_of_reach(records):
    """Nobody reads or writes it by its id, nor lists it, before it is purged."""
    records.entities.upsert("shop", Side.ITEM, [Entity("i")])
    records.catalogs.delete("shop", force=True)
    with pytest.raises(NotFound):
        records.entities.upsert("shop", Side.ITEM, [Entity("j")])
    assert records.catalogs.list(limit=9) == []
    assert records.entities.count("shop", Side.ITEM) == 0
