"""Operations and leases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from milvine.domain.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidPageToken,
    NotFound,
    Reason,
)
from milvine.domain.operation import Failure, Operation, OperationKind, OperationState
from milvine.records.operations import MAX_LOSSES
from tests.contracts.records.conftest import SHOP

PAST = -1.0
"""A lease of so many seconds has run out already."""


def add(records, name, *, kind=OperationKind.TRAIN, exclusive=False, catalog="shop"):
    operation = Operation(name, catalog, kind, {"n": 1, "deep": {"x": [1.5]}})
    return records.operations.create(operation, exclusive=exclusive)


def test_an_operation_is_read_as_written(records):
    """A new operation waits, and has its request."""
    created = add(records, "o")
    assert created.state is OperationState.QUEUED
    assert created.request == {"n": 1, "deep": {"x": [1.5]}}
    assert created.create_time is not None
    assert records.operations.get("o") == created
    with pytest.raises(AlreadyExists):
        add(records, "o")


def test_missing_ones_are_not_found(records):
    """Whatever needs an operation says which one is missing."""
    operations = records.operations
    for call in (
        lambda: operations.get("x"),
        lambda: operations.request_cancel("x"),
        lambda: operations.delete("x"),
        lambda: operations.heartbeat("x", "w", lease_s=1),
        lambda: operations.give_back("x", "w"),
        lambda: operations.finish("x", "w", state=OperationState.SUCCEEDED),
    ):
        with pytest.raises(NotFound) as refusal:
            call()
        assert refusal.value.reason is Reason.OPERATION_NOT_FOUND


def test_an_exclusive_operation_is_alone(records):
    """One unfinished operation of a kind in a catalog keeps others away until it ends."""
    records.catalogs.create(replace(SHOP, id="other"))
    add(records, "first", exclusive=True)
    with pytest.raises(Aborted) as refusal:
        add(records, "second", exclusive=True)
    assert refusal.value.reason is Reason.OPERATION_IN_PROGRESS
    assert refusal.value.metadata["operation_id"] == "first"
    add(records, "third", kind=OperationKind.PUBLISH, exclusive=True)
    add(records, "fourth", catalog="other", exclusive=True)
    records.operations.request_cancel("first")
    add(records, "second", exclusive=True)


def test_of_rivals_one_is_exclusive(records):
    """Eight creators at once: one gets in."""

    def attempt(n):
        try:
            return add(records, f"o{n}", exclusive=True).id
        except Aborted:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert len([o for o in pool.map(attempt, range(8)) if o]) == 1


def test_lists_page_newest_first(records):
    """Operations of all catalogs, from the newest."""
    records.catalogs.create(replace(SHOP, id="other"))
    for n in range(6):
        add(records, f"o{n}", catalog="other" if n == 2 else "shop")
    first = records.operations.list(limit=4)
    rest = records.operations.list(limit=4, after=first[-1].id)
    assert [o.id for o in first + rest] == [f"o{n}" for n in reversed(range(6))]
    with pytest.raises(InvalidPageToken):
        records.operations.list(limit=4, after="gone")


def test_the_oldest_is_claimed_first(records):
    """Workers take operations in the order in which they came; then there is none."""
    for n in range(3):
        add(records, f"o{n}")
    taken = [records.operations.claim("w", lease_s=60) for _ in range(4)]
    assert [o and o.id for o in taken] == ["o0", "o1", "o2", None]
    assert (taken[0].state, taken[0].attempts) == (OperationState.RUNNING, 1)


def test_no_operation_is_claimed_twice(records):
    """Eight workers at once share the operations out."""
    for n in range(24):
        add(records, f"o{n}")
    start = threading.Barrier(8)

    def work(n):
        start.wait()
        taken = []
        while operation := records.operations.claim(f"w{n}", lease_s=60):
            taken.append(operation.id)
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [name for names in pool.map(work, range(8)) for name in names]
    # A claim may pass over what another claim just locks; nobody gets it later only if all stop.
    while operation := records.operations.claim("last", lease_s=60):
        taken.append(operation.id)
    assert sorted(taken) == sorted(f"o{n}" for n in range(24))


def test_a_lost_workers_operation_is_taken_up_again(records):
    """Once the lease ran out another worker may go on; the first one learns it."""
    add(records, "o")
    records.operations.claim("dead", lease_s=PAST)
    again = records.operations.claim("heir", lease_s=60)
    assert (again.id, again.attempts) == ("o", 2)
    assert records.operations.claim("third", lease_s=60) is None
    with pytest.raises(Aborted):
        records.operations.heartbeat("o", "dead", lease_s=60)
    with pytest.raises(Aborted):
        records.operations.finish("o", "dead", state=OperationState.SUCCEEDED)
    assert records.operations.get("o").state is OperationState.RUNNING


def test_an_operation_that_kills_its_workers_fails(records):
    """After the last loss the operation fails with a reason, and the next is taken."""
    add(records, "deadly")
    add(records, "next")
    for _ in range(MAX_LOSSES):
        assert records.operations.claim("w", lease_s=PAST).id == "deadly"
    assert records.operations.claim("w", lease_s=60).id == "next"
    failed = records.operations.get("deadly")
    assert failed.state is OperationState.FAILED
    assert (failed.failure.code, failed.failure.reason) == ("ABORTED", "WORKER_LOST")
    assert failed.end_time is not None


def test_an_operation_that_is_given_back_waits_for_the_next_worker(records):
    """It is taken up at once, as a new attempt, and no number of such ends lets it fail."""
    add(records, "o")
    for n in range(1, 2 * MAX_LOSSES):
        assert records.operations.claim(f"w{n}", lease_s=60).attempts == n
        records.operations.give_back("o", f"w{n}")
        assert records.operations.get("o").state is OperationState.QUEUED
    with pytest.raises(Aborted):
        records.operations.give_back("o", "w1")


def test_an_operation_that_is_given_back_can_be_cancelled(records):
    """A cancellation that the worker did not see any more ends it."""
    add(records, "o")
    records.operations.claim("w", lease_s=60)
    records.operations.request_cancel("o")
    records.operations.give_back("o", "w")
    assert records.operations.claim("heir", lease_s=60) is None
    assert records.operations.get("o").state is OperationState.CANCELLED


def test_a_heartbeat_keeps_the_lease_and_notes_progress(records):
    """A worker that beats keeps its operation; progress is what it said last."""
    add(records, "o")
    records.operations.claim("w", lease_s=PAST)
    assert records.operations.heartbeat("o", "w", lease_s=60, progress={"epoch": 1}) is False
    assert records.operations.heartbeat("o", "w", lease_s=60) is False
    assert records.operations.claim("other", lease_s=60) is None
    assert records.operations.get("o").progress == {"epoch": 1}


def test_finish_writes_the_outcome(records):
    """A result or a failure is kept, the lease is given back, and it ends once."""
    for name in ("good", "bad"):
        add(records, name)
        records.operations.claim("w", lease_s=60)
    failure = Failure("INTERNAL", "GATE_FAILED", "no", {"recall": "0.1"})
    finish = records.operations.finish
    good = finish("good", "w", state=OperationState.SUCCEEDED, result={"model_id": "m"})
    bad = finish("bad", "w", state=OperationState.FAILED, failure=failure)
    assert (good.state, good.result) == (OperationState.SUCCEEDED, {"model_id": "m"})
    assert (bad.state, bad.failure) == (OperationState.FAILED, failure)
    assert good.end_time is not None
    with pytest.raises(Aborted):
        finish("good", "w", state=OperationState.FAILED, failure=failure)


def test_a_queued_operation_is_cancelled_at_once(records):
    """Nobody works on it, so it ends."""
    add(records, "o")
    cancelled = records.operations.request_cancel("o")
    assert cancelled.state is OperationState.CANCELLED
    assert (cancelled.failure.code, cancelled.failure.reason) == (
        "CANCELLED",
        "OPERATION_CANCELLED",
    )
    assert records.operations.claim("w", lease_s=60) is None


def test_a_running_operation_is_asked_to_stop(records):
    """The worker learns it by its next heartbeat; a finished one stays as it is."""
    add(records, "o")
    records.operations.claim("w", lease_s=60)
    assert records.operations.request_cancel("o").state is OperationState.RUNNING
    assert records.operations.heartbeat("o", "w", lease_s=60) is True
    records.operations.finish("o", "w", state=OperationState.SUCCEEDED)
    assert records.operations.request_cancel("o").state is OperationState.SUCCEEDED


def test_a_cancelled_operation_of_a_lost_worker_ends(records):
    """Nobody takes up what a client no longer wants."""
    add(records, "o")
    records.operations.claim("dead", lease_s=PAST)
    records.operations.request_cancel("o")
    assert records.operations.claim("heir", lease_s=60) is None
    assert records.operations.get("o").state is OperationState.CANCELLED


def test_only_finished_operations_are_deleted(records):
    """An unfinished operation has to be cancelled first."""
    add(records, "o")
    with pytest.raises(FailedPrecondition) as refusal:
        records.operations.delete("o")
    assert refusal.value.reason is Reason.WRONG_STATE
    records.operations.request_cancel("o")
    records.operations.delete("o")
    with pytest.raises(NotFound):
        records.operations.get("o")


def test_a_lease_has_one_owner(empty):
    """The owner may prolong it; another gets it when it ran out or was dropped."""
    leases = empty.leases
    assert leases.hold("sync", "a", seconds=60)
    assert leases.hold("sync", "a", seconds=60)
    assert not leases.hold("sync", "b", seconds=60)
    assert leases.hold("other", "b", seconds=60)
    leases.drop("sync", "b")
    assert not leases.hold("sync", "b", seconds=60)
    leases.drop("sync", "a")
    assert leases.hold("sync", "b", seconds=PAST)
    assert leases.hold("sync", "a", seconds=60)


def test_of_rivals_one_holds_a_lease(empty):
    """Eight owners ask at once for a lease that nobody had: one gets it."""
    with ThreadPoolExecutor(8) as pool:
        held = pool.map(lambda n: empty.leases.hold("sync", f"o{n}", seconds=60), range(8))
        assert sum(held) == 1
