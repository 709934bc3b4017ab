"""Models and releases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from milvine.domain.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidPageToken,
    NotFound,
    Reason,
)
from milvine.domain.release import Gate, ReleaseState
from tests.contracts.records.conftest import SHOP
from tests.contracts.records.samples import model, release


def test_a_model_is_read_as_written(records):
    """Everything that a model says of itself comes back, with when it was made."""
    created = records.models.create(model("m"))
    assert created.create_time is not None
    assert replace(created, create_time=None) == model("m")
    assert records.models.get("m") == created


def test_a_release_is_read_as_written(records):
    """Everything comes back, also after it was saved anew."""
    records.models.create(model("m"))
    created = records.releases.create(release("r"))
    assert records.releases.get("r") == created
    ready = replace(
        created,
        state=ReleaseState.READY,
        item_count=3,
        gate=Gate(1.0, 100, 0.95),
        activate_time=datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC),
    )
    records.releases.save(ready)
    assert records.releases.get("r") == ready


def test_missing_ones_are_not_found(records):
    """Whatever needs a model or release says which one is missing."""
    for call, reason in (
        (lambda: records.models.get("x"), Reason.MODEL_NOT_FOUND),
        (lambda: records.models.delete("x"), Reason.MODEL_NOT_FOUND),
        (lambda: records.releases.create(release("r", "x")), Reason.MODEL_NOT_FOUND),
        (lambda: records.releases.get("x"), Reason.RELEASE_NOT_FOUND),
        (lambda: records.releases.save(release("x")), Reason.RELEASE_NOT_FOUND),
        (lambda: records.releases.delete("x"), Reason.RELEASE_NOT_FOUND),
        (lambda: records.releases.synced("x"), Reason.RELEASE_NOT_FOUND),
        (lambda: records.releases.set_synced("x", 1), Reason.RELEASE_NOT_FOUND),
    ):
        with pytest.raises(NotFound) as refusal:
            call()
        assert refusal.value.reason is reason


def test_ids_are_used_once(records):
    """A second model or release of one id is refused."""
    records.models.create(model("m"))
    records.releases.create(release("r"))
    with pytest.raises(AlreadyExists):
        records.models.create(model("m"))
    with pytest.raises(AlreadyExists):
        records.releases.create(release("r"))


@pytest.mark.parametrize("what", ["models", "releases"])
def test_lists_page_newest_first(records, what):
    """Pages follow each other from the newest, through equal moments, in one catalog only."""
    records.catalogs.create(replace(SHOP, id="other"))
    records.models.create(replace(model("stranger"), catalog_id="other"))
    store, make = getattr(records, what), model if what == "models" else release
    records.models.create(replace(model("m"), create_time=datetime(2020, 1, 1, tzinfo=UTC)))
    for n in range(7):
        moment = datetime(2026, 1, 1 + n // 3, tzinfo=UTC)
        store.create(replace(make(f"x{n}"), create_time=moment))
    found, after = [], None
    while page := store.list("shop", limit=3, after=after):
        found += [x.id for x in page]
        after = page[-1].id
    assert [name for name in found if name != "m"] == [f"x{n}" for n in reversed(range(7))]
    with pytest.raises(InvalidPageToken):
        store.list("shop", limit=3, after="gone")


def test_a_model_in_use_stays(records):
    """A model goes only after its releases."""
    records.models.create(model("m"))
    records.releases.create(release("r"))
    with pytest.raises(FailedPrecondition) as refusal:
        records.models.delete("m")
    assert refusal.value.reason is Reason.RESOURCE_IN_USE
    records.releases.delete("r")
    records.models.delete("m")
    with pytest.raises(NotFound):
        records.models.get("m")


def test_the_active_release_stays(records):
    """The release that serves can't be deleted, the one before can."""
    records.models.create(model("m"))
    for name in ("old", "new"):
        records.releases.create(replace(release(name), state=ReleaseState.READY))
        records.catalogs.activate("shop", name)
    with pytest.raises(FailedPrecondition) as refusal:
        records.releases.delete("new")
    assert refusal.value.reason is Reason.RESOURCE_IN_USE
    records.releases.delete("old")
    assert [r.id for r in records.releases.list("shop", limit=9)] == ["new"]


def test_live_releases_are_those_that_follow_changes(records):
    """BUILDING and READY releases of every catalog, not the failed ones."""
    records.models.create(model("m"))
    for name, state in zip("abc", ReleaseState, strict=True):
        records.releases.create(replace(release(name), state=state))
    live = {r.id: r.state for r in records.releases.live()}
    assert live == {"a": ReleaseState.BUILDING, "b": ReleaseState.READY}


def test_a_release_remembers_how_far_it_followed(records):
    """The revision is 0 at first, and stays when the release is saved."""
    records.models.create(model("m"))
    created = records.releases.create(release("r"))
    assert records.releases.synced("r") == 0
    records.releases.set_synced("r", 2**40)
    records.releases.save(replace(created, state=ReleaseState.READY))
    assert records.releases.synced("r") == 2**40
