"""Models and releases."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from milvine.domain.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidPageToken,
    NotFound,
    Reason,
)
from milvine.domain.model import Evaluation, Holdout, HoldoutMethod, LiveEvaluation, RankingMetrics
from milvine.domain.operation import Failure, OperationKind, OperationState
from milvine.domain.release import Gate, ReleaseState
from tests.contracts.records.conftest import SHOP
from tests.contracts.records.samples import building, claimed, model, published, release


def test_a_model_is_read_as_written(records):
    """Everything that a model says of itself comes back, with when it was made."""
    created = records.models.create(model("m"))
    assert created.create_time is not None
    assert replace(created, create_time=None) == model("m")
    assert records.models.get("m") == created


def test_a_release_is_read_as_written(records):
    """Everything comes back, as it was begun and as it was finished."""
    records.models.create(model("m"))
    begun = building(records, "r")
    assert begun.create_time is not None
    assert records.releases.get("r") == begun
    built = replace(begun, item_count=3, gate=Gate(1.0, 100, 0.95))
    assert records.releases.finish(built) == replace(built, state=ReleaseState.READY)
    assert records.releases.get("r") == replace(built, state=ReleaseState.READY)


def test_missing_ones_are_not_found(records):
    """Whatever needs a model or release says which one is missing."""
    by_o = replace(release("r"), operation_id=claimed(records, "o").id)
    for call, reason in (
        (lambda: records.models.get("x"), Reason.MODEL_NOT_FOUND),
        (lambda: records.models.delete("x"), Reason.MODEL_NOT_FOUND),
        (lambda: records.releases.begin(replace(by_o, model_id="x")), Reason.MODEL_NOT_FOUND),
        (lambda: records.releases.get("x"), Reason.RELEASE_NOT_FOUND),
        (lambda: records.releases.finish(by_o), Reason.RELEASE_NOT_FOUND),
        (lambda: records.releases.delete("x"), Reason.RELEASE_NOT_FOUND),
        (lambda: records.releases.synced("x"), Reason.RELEASE_NOT_FOUND),
        (lambda: records.releases.set_synced("x", 1), Reason.RELEASE_NOT_FOUND),
    ):
        with pytest.raises(NotFound) as refusal:
            call()
        assert refusal.value.reason is reason


def test_ids_are_used_once(records):
    """A second model of one id is refused."""
    records.models.create(model("m"))
    with pytest.raises(AlreadyExists):
        records.models.create(model("m"))


@pytest.mark.parametrize("what", ["models", "releases"])
def test_lists_page_newest_first(records, what):
    """Pages follow each other from the newest, through equal moments, in one catalog only."""
    records.catalogs.create(replace(SHOP, id="other"))
    records.models.create(replace(model("stranger"), catalog_id="other"))
    records.models.create(replace(model("m"), create_time=datetime(2020, 1, 1, tzinfo=UTC)))
    by = claimed(records, "o")
    for n in range(7):
        moment = datetime(2026, 1, 1 + n // 3, tzinfo=UTC)
        if what == "models":
            records.models.create(replace(model(f"x{n}"), create_time=moment))
        else:
            made = replace(release(f"x{n}"), create_time=moment, operation_id=by.id)
            records.releases.begin(made)
    store, found, after = getattr(records, what), [], None
    while page := store.list("shop", limit=3, after=after):
        found += [x.id for x in page]
        after = page[-1].id
    assert [name for name in found if name != "m"] == [f"x{n}" for n in reversed(range(7))]
    with pytest.raises(InvalidPageToken):
        store.list("shop", limit=3, after="gone")


def test_a_model_in_use_stays(records):
    """A model goes only after its releases."""
    records.models.create(model("m"))
    published(records, "r")
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
        published(records, name)
        records.catalogs.activate("shop", name)
    with pytest.raises(FailedPrecondition) as refusal:
        records.releases.delete("new")
    assert refusal.value.reason is Reason.RESOURCE_IN_USE
    records.releases.delete("old")
    assert [r.id for r in records.releases.list("shop", limit=9)] == ["new"]


def test_of_activation_and_deletion_one_wins(records):
    """At one moment a release is activated or deleted: the active one is always there."""
    records.models.create(model("m"))
    for n in range(8):
        published(records, f"r{n}")
        start = threading.Barrier(2)

        def attempt(act, start=start):
            start.wait()
            with contextlib.suppress(FailedPrecondition, NotFound):
                act()

        with ThreadPoolExecutor(2) as pool:
            pool.submit(attempt, lambda n=n: records.catalogs.activate("shop", f"r{n}"))
            pool.submit(attempt, lambda n=n: records.releases.delete(f"r{n}"))
        active = records.catalogs.get("shop").active_release_id
        assert active is None or records.releases.get(active).state is ReleaseState.READY


def test_a_release_that_is_built_stays(records):
    """It can't be deleted before its operation has ended, which the error names."""
    records.models.create(model("m"))
    begun = building(records, "r")
    with pytest.raises(FailedPrecondition) as refusal:
        records.releases.delete("r")
    assert refusal.value.metadata == {"release_id": "r", "operation_id": begun.operation_id}
    end(records, begun.operation_id)
    records.releases.delete("r")


def end(records, operation_id):
    """Let an operation fail."""
    failure = Failure("INTERNAL", "GATE_FAILED", "the index finds too little")
    finish = records.operations.finish
    finish(operation_id, "w", state=OperationState.FAILED, failure=failure)


def cancel_lost(records, operation_id):
    """Let an operation be cancelled while its worker is lost."""
    records.operations.request_cancel(operation_id)
    records.operations.heartbeat(operation_id, "w", lease_s=-1)
    assert records.operations.claim("heir", lease_s=60) is None


def cancel_waiting(records, operation_id):
    """Let an operation be cancelled after its worker left."""
    records.operations.give_back(operation_id, "w")
    records.operations.request_cancel(operation_id)


def lose_all(records, operation_id):
    """Let an operation lose all its workers."""
    records.operations.heartbeat(operation_id, "w", lease_s=-1)
    while records.operations.claim("w", lease_s=-1):
        pass


@pytest.mark.parametrize("ending", [end, cancel_lost, cancel_waiting, lose_all])
def test_an_unfinished_release_fails_with_its_operation(records, ending):
    """However the operation ends, the release says why it failed, and can be deleted."""
    records.models.create(model("m"))
    begun = building(records, "r")
    ending(records, begun.operation_id)
    failed = records.releases.get("r")
    assert failed.state is ReleaseState.FAILED
    assert failed.failure == records.operations.get(begun.operation_id).failure.message
    records.releases.delete("r")


def test_a_release_is_begun_again(records):
    """The next attempt takes it over, with collections of its own; the one before is refused."""
    records.models.create(model("m"))
    first = building(records, "r")
    records.operations.give_back(first.operation_id, "w")
    again = records.operations.claim("heir", lease_s=60)
    second = records.releases.begin(replace(first, attempt=again.attempts))
    assert not set(first.collections()) & set(second.collections())
    for call in (records.releases.begin, records.releases.finish):
        with pytest.raises(Aborted):
            call(first)
    assert records.releases.get("r") == second
    ready = records.releases.finish(second)
    assert records.releases.begin(second) == ready


def test_what_ended_is_not_finished(records):
    """A worker that missed the end of its operation makes nothing READY, and no model."""
    records.models.create(model("m"))
    begun = building(records, "r")
    end(records, begun.operation_id)
    with pytest.raises(Aborted):
        records.releases.finish(begun)
    training = claimed(records, "t", OperationKind.TRAIN)
    end(records, "t")
    with pytest.raises(Aborted):
        records.models.create(model("late"), made_by=training)
    with pytest.raises(NotFound):
        records.models.get("late")


def test_an_evaluation_replaces_the_last(records):
    """Only the attempt under way writes it, whole, and nothing else of the model changes."""
    stored = records.models.create(model("m"))
    metrics = (RankingMetrics(10, 0.1, 0.2, 0.3, 0.4, 0.5, 6.0),)
    holdout = Holdout(HoldoutMethod.AFTER, start_time=datetime(2026, 1, 1, tzinfo=UTC))
    evaluation = Evaluation(holdout, 1, metrics, metrics, live=LiveEvaluation("r", 0.9, metrics))
    measuring = claimed(records, "e", OperationKind.EVALUATE)
    records.models.set_evaluation("m", evaluation, made_by=measuring)
    assert records.models.get("m") == replace(stored, evaluation=evaluation)
    with pytest.raises(NotFound):
        records.models.set_evaluation("nope", evaluation, made_by=measuring)
    end(records, "e")
    with pytest.raises(Aborted):
        records.models.set_evaluation("m", evaluation, made_by=measuring)


def test_live_releases_are_those_that_follow_changes(records):
    """BUILDING and READY releases of every catalog, not the failed ones."""
    records.models.create(model("m"))
    building(records, "a")
    published(records, "b")
    end(records, building(records, "c").operation_id)
    live = {r.id: r.state for r in records.releases.live()}
    assert live == {"a": ReleaseState.BUILDING, "b": ReleaseState.READY}


def test_a_release_remembers_how_far_it_followed(records):
    """The revision is 0 at first, and stays when the release is finished."""
    records.models.create(model("m"))
    begun = building(records, "r")
    assert records.releases.synced("r") == 0
    records.releases.set_synced("r", 2**40)
    records.releases.finish(begun)
    assert records.releases.synced("r") == 2**40
