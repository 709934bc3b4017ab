"""Catalogs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milvine.domain.catalog import IndexKind, VectorIndex
from milvine.domain.entity import Entity, Side
from milvine.domain.errors import AlreadyExists, FailedPrecondition, NotFound, Reason
from milvine.domain.operation import Operation, OperationKind, OperationState
from tests.contracts.records.conftest import SHOP
from tests.contracts.records.samples import building, events, model, published, release


def test_create_returns_what_get_finds(empty):
    """A stored catalog has what was declared, and its times."""
    catalog = replace(SHOP, vector_index=VectorIndex(IndexKind.HNSW, hnsw_links=8))
    created = empty.catalogs.create(catalog)
    assert replace(created, create_time=None, update_time=None) == catalog
    assert created.create_time == created.update_time is not None
    assert empty.catalogs.get("shop") == created


def test_an_id_is_used_once(records):
    """A second catalog of one id is refused, and the first stays."""
    with pytest.raises(AlreadyExists) as refusal:
        records.catalogs.create(replace(SHOP, display_name="Other"))
    assert refusal.value.metadata == {"catalog_id": "shop"}
    assert records.catalogs.get("shop").display_name == "Shop"


def test_a_missing_catalog_is_not_found(empty):
    """Whatever needs a catalog says which one is missing."""
    for call in (
        lambda: empty.catalogs.get("nowhere"),
        lambda: empty.catalogs.update("nowhere", lambda c: c),
        lambda: empty.catalogs.delete("nowhere", force=True),
        lambda: empty.catalogs.activate("nowhere", "r"),
        lambda: empty.catalogs.revision("nowhere"),
        lambda: empty.entities.upsert("nowhere", Side.ITEM, [Entity("a")]),
        lambda: empty.entities.delete("nowhere", Side.ITEM, ["a"]),
        lambda: empty.interactions.append("nowhere", events(("u", "i", 1))),
        lambda: empty.interactions.scan("nowhere"),
        lambda: empty.erasures.erase("o", "nowhere", "u"),
        lambda: empty.models.create(replace(model("m"), catalog_id="nowhere")),
        lambda: empty.releases.begin(replace(release("r"), catalog_id="nowhere")),
        lambda: empty.operations.create(
            Operation("o", "nowhere", OperationKind.TRAIN, {}), exclusive=True
        ),
    ):
        with pytest.raises(NotFound) as refusal:
            call()
        assert refusal.value.reason is Reason.CATALOG_NOT_FOUND
        assert refusal.value.metadata == {"catalog_id": "nowhere"}


def test_lists_page_by_id(empty):
    """Pages follow each other by the bytes of the ids, whatever the locale."""
    ids = ["a", "a_b", "aa", "b", "b0", "z"]
    for catalog_id in reversed(ids):
        empty.catalogs.create(replace(SHOP, id=catalog_id))
    first = [c.id for c in empty.catalogs.list(limit=4)]
    rest = [c.id for c in empty.catalogs.list(limit=4, after=first[-1])]
    assert first + rest == sorted(ids)


def test_update_replaces_the_declaration(records):
    """An update keeps the id and the time of creation, and stamps its own."""
    before = records.catalogs.get("shop")
    after = records.catalogs.update("shop", lambda c: replace(c, display_name="Store"))
    assert after.display_name == "Store"
    assert after.create_time == before.create_time
    assert after.update_time > before.update_time
    assert records.catalogs.get("shop") == after


def test_a_refused_update_changes_nothing(records):
    """What the change raises passes through, and the catalog stays."""

    def refuse(_catalog):
        raise FailedPrecondition("no", Reason.INCOMPATIBLE_DECLARATION)

    before = records.catalogs.get("shop")
    with pytest.raises(FailedPrecondition):
        records.catalogs.update("shop", refuse)
    assert records.catalogs.get("shop") == before


def _add_item(records):
    records.entities.upsert("shop", Side.ITEM, [Entity("a")])


def _add_interaction(records):
    records.interactions.append("shop", events(("u", "i", 1)))


def _add_model(records):
    records.models.create(model("m"))


def _add_release(records):
    records.models.create(model("m"))
    published(records, "r")


@pytest.mark.parametrize("add", [_add_item, _add_interaction, _add_model, _add_release])
def test_a_catalog_that_holds_something_is_deleted_by_force_only(records, add):
    """Deleting refuses while the catalog holds anything; by force it takes that along."""
    add(records)
    with pytest.raises(FailedPrecondition) as refusal:
        records.catalogs.delete("shop", force=False)
    assert refusal.value.reason is Reason.RESOURCE_IN_USE
    records.catalogs.delete("shop", force=True)
    with pytest.raises(NotFound):
        records.catalogs.get("shop")
    records.catalogs.create(SHOP)
    assert records.entities.count("shop", Side.ITEM) == 0
    assert records.interactions.count("shop") == 0
    assert records.models.list("shop", limit=9) == []
    assert records.releases.list("shop", limit=9) == []


def test_a_catalog_whose_items_are_gone_is_deleted(records):
    """Tombstones do not count as holding something."""
    _add_item(records)
    records.entities.delete("shop", Side.ITEM, ["a"])
    records.catalogs.delete("shop", force=False)
    assert records.catalogs.list(limit=9) == []


def test_deleting_a_catalog_stops_its_operations(records):
    """A queued operation is cancelled, a running one asked to stop."""
    for name in ("first", "second"):
        records.operations.create(Operation(name, "shop", OperationKind.TRAIN, {}), exclusive=False)
    records.operations.claim("w", lease_s=60)
    records.catalogs.delete("shop", force=True)
    assert records.operations.get("first").cancel_requested
    assert records.operations.get("second").state is OperationState.CANCELLED


def test_activate_switches_the_release(records):
    """The catalog names the release that was activated last."""
    records.models.create(model("m"))
    for name in ("r1", "r2"):
        published(records, name)
    assert records.catalogs.activate("shop", "r1").active_release_id == "r1"
    assert records.catalogs.activate("shop", "r2").active_release_id == "r2"
    assert records.catalogs.get("shop").active_release_id == "r2"
    first, second = (records.releases.get(name).activate_time for name in ("r1", "r2"))
    assert first < second
    assert records.catalogs.update("shop", lambda _: SHOP).active_release_id == "r2"


def test_only_ready_releases_of_the_catalog_are_activated(records):
    """A release that is being built, or is another catalog's, is refused."""
    records.models.create(model("m"))
    building(records, "building")
    with pytest.raises(FailedPrecondition) as refusal:
        records.catalogs.activate("shop", "building")
    assert refusal.value.reason is Reason.WRONG_STATE
    records.catalogs.create(replace(SHOP, id="other"))
    with pytest.raises(NotFound) as missing:
        records.catalogs.activate("other", "building")
    assert missing.value.reason is Reason.RELEASE_NOT_FOUND
