"""The marks by which caches learn that something was written of a user."""

from __future__ import annotations

from contextlib import closing

import pytest

from milvine.domain.errors import NotFound, Unavailable
from milvine.domain.operation import OperationKind
from milvine.records import Records
from tests.contracts.records.samples import claimed, events


def marks_of(records, *users):
    """The marks of some users of the shop."""
    return [records.marks.of("shop", user) for user in users]


def test_a_write_changes_the_marks_of_its_users(records):
    """Users of whom something is written get other marks; the others keep theirs."""
    ann, bob, cy = marks_of(records, "ann", "bob", "cy")

    records.interactions.append("shop", events(("ann", "i", 1), ("bob", "i", 1)))

    now = marks_of(records, "ann", "bob", "cy")
    assert now[0] != ann
    assert now[1] != bob
    assert now[2] == cy


def test_a_write_of_many_users_changes_every_mark(records):
    """However many users a table has, each of them gets another mark."""
    users = [f"user {n}" for n in range(2_500)]
    before = marks_of(records, *users)

    records.interactions.append("shop", events(*((user, "i", 1) for user in users)))

    assert all(x != y for x, y in zip(before, marks_of(records, *users), strict=True))


def test_repeats_and_failures_change_marks_too(records):
    """A write that was there already, or that failed, changes marks: it may have come through."""
    table = events(("ann", "i", 1))
    records.interactions.append("shop", table)
    [before] = marks_of(records, "ann")
    records.interactions.append("shop", table)
    [after] = marks_of(records, "ann")
    absent = records.marks.of("nowhere", "ann")
    with pytest.raises(NotFound):
        records.interactions.append("nowhere", table)

    assert before != after
    assert records.marks.of("nowhere", "ann") != absent


def test_an_erasure_changes_the_mark(records):
    """What is remembered of an erased user counts no more."""
    operation = claimed(records, "o", OperationKind.ERASE_USER)
    [before] = marks_of(records, "ann")

    records.erasures.erase(operation.id, "shop", "ann")

    assert marks_of(records, "ann") != [before]


def test_processes_share_the_marks_of_a_file(records, url):
    """Whoever opens the same SQLite file sees the marks of all; on PostgreSQL each has its own."""
    with closing(Records.open(url)) as other:
        before = marks_of(records, "ann")
        other.interactions.append("shop", events(("ann", "i", 1)))

        assert records.marks.is_shared == url.startswith("sqlite")
        assert (marks_of(records, "ann") != before) == records.marks.is_shared


def test_marks_outlive_a_restart(records, url):
    """A file that is opened again has the marks that it had."""
    if not records.marks.is_shared:
        pytest.skip("only those of a file are kept")
    records.interactions.append("shop", events(("ann", "i", 1)))
    with closing(Records.open(url)) as again:
        assert marks_of(again, "ann") == marks_of(records, "ann")


def test_a_place_that_is_not_there_is_told(tmp_path):
    """A file in a folder that does not exist is unavailable, and nothing is made."""
    with pytest.raises(Unavailable, match="check the path"):
        Records.open(f"sqlite:///{tmp_path}/no/records.db")
    assert not (tmp_path / "no").exists()
