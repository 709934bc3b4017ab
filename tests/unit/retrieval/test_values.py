"""Columns of values against plain dictionaries."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from milvine.retrieval.values import Listed, Numbers

COUNT = 12
LONG = "é" * 500
SCALARS = st.one_of(st.none(), st.sampled_from(["a", "b", LONG, LONG + "!", ""]))
LISTS = st.one_of(st.none(), st.lists(st.integers(-2, 2), max_size=5).map(tuple))
ROUNDS = st.lists(st.dictionaries(st.integers(0, COUNT - 1), SCALARS | LISTS), max_size=4)
EVERY = np.arange(COUNT, dtype=np.int32)


def updated(column, values):
    """A column with other values by row."""
    return column.updated(np.array([*values], np.int32), list(values.values()))


def told_apart(column, rows):
    """The set of codes of each row."""
    return [frozenset(row[row >= 0].tolist()) for row in column.take(rows)]


@given(ROUNDS)
def test_labels_tell_values_apart(rounds):
    """After any changes, two rows share a code just where they share a value."""
    column, known = Listed.empty(COUNT), dict.fromkeys(range(COUNT))
    for values in rounds:
        column = updated(column, values)
        known |= values
    lists = [v if isinstance(v, tuple) else () if v is None else (v,) for v in known.values()]

    codes = told_apart(column, EVERY)

    assert [len(one) for one in codes] == [len(set(one)) for one in lists]
    for row, other in np.ndindex(COUNT, COUNT):
        shared = set(lists[row]) & set(lists[other])
        assert len(codes[row] & codes[other]) == len(shared)
    assert all(code < column.count for one in codes for code in one)


@given(ROUNDS)
def test_a_change_leaves_the_column_before_as_it_was(rounds):
    """A request that has a column keeps it, whatever comes meanwhile."""
    before = updated(Listed.empty(COUNT), {1: ("x", "y"), 2: "x"})
    codes = told_apart(before, EVERY)
    after = before
    for values in rounds:
        after = updated(after, values)

    assert told_apart(before, EVERY) == codes


def test_values_of_the_past_are_forgotten():
    """A field that changes all the time takes no more and more room, and is told apart as ever."""
    column = Listed.empty(COUNT)
    for n in range(3_000):
        column = updated(column, {n % COUNT: (f"value {n}", "shared")})

    codes = told_apart(column, EVERY)

    assert column.count < 1_200
    assert len(frozenset.intersection(*codes)) == 1
    assert len(frozenset.union(*codes)) == COUNT + 1


def test_labels_of_no_rows():
    """No rows have no codes, and a row without a value has one of -1."""
    column = Listed.empty(3)

    assert column.take(np.empty(0, np.int32)).shape == (0, 1)
    assert column.take(np.array([1], np.int32)).tolist() == [[-1]]


def test_numbers():
    """Numbers are themselves, times microseconds since 1970, and what is missing is NaN."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    moment = epoch + timedelta(microseconds=1_700_000_000_000_001)
    column = updated(Numbers.empty(5), {0: 7, 1: 0.5, 2: moment, 3: 1})

    column = updated(column, {3: None})

    assert column.take(EVERY[:3]).tolist() == [7.0, 0.5, 1_700_000_000_000_001.0]
    assert all(map(math.isnan, column.take(np.array([3, 4], np.int32)).tolist()))


def test_columns_grow_by_items_without_values():
    """Items that come later have no value until they are given one."""
    listed = updated(Listed.empty(2), {1: ("a", "b")}).grown(4)
    numbers = updated(Numbers.empty(2), {1: 3.0}).grown(4)
    rows = np.arange(4, dtype=np.int32)

    assert [len(codes) for codes in told_apart(listed, rows)] == [0, 2, 0, 0]
    assert told_apart(updated(listed, {3: "b"}), rows)[3] <= told_apart(listed, rows)[1]
    np.testing.assert_array_equal(numbers.take(rows), [np.nan, 3.0, np.nan, np.nan])
