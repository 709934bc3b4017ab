"""The rules of interactions, against an oracle that reads them row by row."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from milvine.domain.catalog import Catalog, EventType, ValueMeaning
from milvine.domain.interaction import (
    INTERACTIONS,
    MAX_EVENT_TIME,
    MIN_EVENT_TIME,
    Rejection,
    check_interactions,
)

NOW = 1_700_000_000_000_000

VIEWS = Catalog("views", (EventType("view"),))
MIXED = Catalog(
    "mixed",
    (
        EventType("view"),
        EventType("rate", value_meaning=ValueMeaning.RATING),
        EventType("watch", value_meaning=ValueMeaning.SECONDS),
        EventType("buy", value_meaning=ValueMeaning.QUANTITY),
    ),
)
RATINGS = Catalog("ratings", (EventType("rate", value_meaning=ValueMeaning.RATING),))

GOOD = {
    "event_id": None,
    "user_id": "u",
    "item_id": "i",
    "event_type": "view",
    "value": None,
    "event_time": 1,
}


def table(*rows: dict[str, Any]) -> pa.Table:
    """A table of good rows with what each changes."""
    return pa.Table.from_pylist([GOOD | row for row in rows], schema=INTERACTIONS)


def faulty_columns(row: dict[str, Any], catalog: Catalog) -> set[str]:
    """The oracle: the columns of a row that break a rule."""
    faults = set()
    for name, low in (("event_id", 0), ("user_id", 1), ("item_id", 1)):
        text = row[name] or ""
        if not low <= len(text.encode()) <= 256 or "\x00" in text:
            faults.add(name)
    event = catalog.event_type(row["event_type"] or "")
    value = row["value"]
    if event is None:
        faults.add("event_type")
    if value is not None and not (math.isfinite(value) and -1e9 <= value <= 1e9):
        faults.add("value")
    if event is not None:
        match event.value_meaning:
            case ValueMeaning.NONE:
                is_wrong = value is not None
            case ValueMeaning.RATING:
                is_wrong = value is None
            case _:
                is_wrong = value is not None and value < 0
        faults |= {"value"} if is_wrong else set()
    time = row["event_time"]
    if time is not None and not MIN_EVENT_TIME <= time <= MAX_EVENT_TIME:
        faults.add("event_time")
    return faults


def filled(row: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    """The oracle: what a good row is stored as."""
    event = catalog.event_type(row["event_type"] or "")
    time = NOW if row["event_time"] is None else row["event_time"]
    return row | {
        "event_id": row["event_id"] or None,
        "event_type": event and event.name,
        "event_time": time,
    }


texts = st.one_of(
    st.none(),
    st.sampled_from(["", "a", "\x00", "a\x00b", "ü" * 128, "ü" * 128 + "a", "x" * 256, "x" * 257]),
    st.text(st.sampled_from("ab\x00\n é日😀"), max_size=6),
)
ids = st.one_of(st.sampled_from(["u1", "u2", "日本"]), texts)
rows = st.fixed_dictionaries(
    {
        "event_id": texts,
        "user_id": ids,
        "item_id": ids,
        "event_type": st.one_of(
            st.sampled_from(["view", "rate", "watch", "buy", "", None, "View"]), texts
        ),
        "value": st.one_of(
            st.none(), st.floats(), st.floats(-2e9, 2e9), st.sampled_from([1e9, 1e39])
        ),
        "event_time": st.one_of(
            st.none(),
            st.integers(-(2**63), 2**63 - 1),
            st.sampled_from(
                [MIN_EVENT_TIME - 1, MIN_EVENT_TIME, MAX_EVENT_TIME, MAX_EVENT_TIME + 1, 0]
            ),
        ),
    }
)


@given(st.lists(rows, max_size=12), st.sampled_from([VIEWS, MIXED, RATINGS]), st.integers(0, 3))
@example([GOOD, GOOD | {"user_id": "\x00"}, GOOD], VIEWS, 1)
def test_agrees_with_the_oracle(rows, catalog, skipped):
    """A row is good exactly when it breaks no rule, and one fault is told for each bad column."""
    whole = pa.Table.from_pylist(rows, schema=INTERACTIONS)
    rows = rows[skipped:]
    good, rejections = check_interactions(whole.slice(skipped), catalog, now_micros=NOW)
    faults = [faulty_columns(row, catalog) for row in rows]
    told = [(r.row, r.column) for r in rejections]
    assert told == [
        (i, name) for i, bad in enumerate(faults) for name in INTERACTIONS.names if name in bad
    ]
    expected = [filled(row, catalog) for row, bad in zip(rows, faults, strict=True) if not bad]
    assert good.schema == INTERACTIONS
    assert good.to_pylist() == expected
    good.validate(full=True)


@given(st.lists(rows, min_size=1, max_size=8), st.integers(1, 7))
def test_chunks_do_not_matter(rows, cut):
    """A table in several chunks is checked as one."""
    whole = pa.Table.from_pylist(rows, schema=INTERACTIONS)
    chunked = pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])
    good, rejections = check_interactions(chunked, MIXED, now_micros=NOW)
    expected, expected_rejections = check_interactions(whole, MIXED, now_micros=NOW)
    assert good.to_pylist() == expected.to_pylist()
    assert rejections == expected_rejections


@pytest.mark.parametrize(
    ("change", "rejection"),
    [
        ({"user_id": ""}, Rejection(1, "user_id", "must be 1 to 256 bytes, is empty")),
        ({"item_id": "x" * 257}, Rejection(1, "item_id", "must be at most 256 bytes")),
        ({"event_id": "a\x00"}, Rejection(1, "event_id", "must not have the character U+0000")),
        (
            {"event_type": "click"},
            Rejection(
                1,
                "event_type",
                "must be an event type of the catalog; declared are: view, rate, watch, buy",
            ),
        ),
        ({"value": math.nan}, Rejection(1, "value", "must be a finite number")),
        (
            {"event_type": "rate"},
            Rejection(1, "value", "must be given: the values of this event type are ratings"),
        ),
        ({"value": 1.0}, Rejection(1, "value", "must be absent: this event type has no values")),
        (
            {"event_type": "buy", "value": -0.5},
            Rejection(
                1,
                "value",
                "must be 0 or more: the values of this event type are seconds or quantities",
            ),
        ),
        (
            {"event_time": MAX_EVENT_TIME + 1},
            Rejection(1, "event_time", "must be in the years 1 to 9999"),
        ),
    ],
)
def test_reasons_say_the_rule(change, rejection):
    """The reason of a rejection names the rule, and the rows beside it stay."""
    good, rejections = check_interactions(table({}, change, {}), MIXED, now_micros=NOW)
    assert rejections == [rejection]
    assert good.to_pylist() == [GOOD, GOOD]


def test_an_empty_table_is_good():
    """No rows, no faults."""
    good, rejections = check_interactions(INTERACTIONS.empty_table(), MIXED, now_micros=NOW)
    assert (good, rejections) == (INTERACTIONS.empty_table(), [])


def test_untyped_columns_count_as_missing_values():
    """Columns without any value may have Arrow's null type."""
    untyped = pa.table(
        {
            name: pa.nulls(2) if GOOD[name] is None or name == "event_type" else [GOOD[name]] * 2
            for name in INTERACTIONS.names
        }
    )
    good, rejections = check_interactions(untyped, VIEWS, now_micros=NOW)
    assert rejections == []
    assert good.to_pylist() == [GOOD, GOOD]
