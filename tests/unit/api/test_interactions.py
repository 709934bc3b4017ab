"""Interactions on their way into Arrow and out."""

from __future__ import annotations

import math
import time

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from milvine.api.convert import interactions as convert
from milvine.domain.catalog import Catalog, EventType, ValueMeaning
from milvine.domain.errors import InvalidPageToken
from milvine.domain.interaction import INTERACTIONS
from milvine.v1 import interaction_pb2, retrieval_service_pb2
from tests.unit.api.test_entities import IDS
from tests.unit.api.test_values import MOMENTS, fault

CATALOG = Catalog(
    "films",
    (
        EventType("view"),
        EventType("rating", value_meaning=ValueMeaning.RATING),
        EventType("watch", value_meaning=ValueMeaning.SECONDS),
    ),
)
VIEWS = Catalog("films", (EventType("view"),))
MOMENT = Timestamp(seconds=1_700_000_000, nanos=5_000)


def event(**changes):
    """A good interaction with changes."""
    given_fields = {"user_id": "u", "item_id": "i", "event_type": "view"} | changes
    return interaction_pb2.Interaction(**given_fields)


def _timestamp(moment):
    message = Timestamp()
    message.FromDatetime(moment)
    return message


MESSAGES = st.one_of(
    st.builds(
        interaction_pb2.Interaction,
        event_id=st.just("") | IDS,
        user_id=IDS,
        item_id=IDS,
        event_type=st.just("rating"),
        value=st.floats(-1e9, 1e9),
        event_time=MOMENTS.map(_timestamp),
    ),
    st.builds(event, event_time=MOMENTS.map(_timestamp)),
)


@given(st.lists(MESSAGES, min_size=1, max_size=5))
def test_round_trip(messages):
    """Interactions survive the way into a table and out."""
    table = convert.table(messages, CATALOG)
    assert table.schema == INTERACTIONS
    assert [convert.interaction_message(row) for row in convert.rows(table)] == messages


def test_absent_fields():
    """No id stays none, no value stays none, no time is now, no type is the only one."""
    before = time.time_ns() // 1_000
    message = interaction_pb2.Interaction(user_id="u", item_id="i")
    [row] = convert.rows(convert.table([message], VIEWS))
    assert (row["event_id"], row["value"], row["event_type"]) == (None, None, "view")
    assert before <= row["event_time"] <= time.time_ns() // 1_000


def test_value_zero_is_not_absent():
    """A value of 0 is a value."""
    [row] = convert.rows(convert.table([event(event_type="rating", value=0)], CATALOG))
    assert row["value"] == 0


def test_event_time_1970_is_not_absent():
    """The first moment of 1970 is a moment."""
    [row] = convert.rows(convert.table([event(event_time=Timestamp())], CATALOG))
    assert row["event_time"] == 0


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 257}, "user_id"),
        ({"item_id": ""}, "item_id"),
        ({"item_id": "a\0"}, "item_id"),
        ({"event_id": "é" * 129}, "event_id"),
        ({"event_type": "nope"}, "event_type"),
        ({"event_type": ""}, "event_type"),
        ({"value": 1}, "value"),
        ({"event_type": "rating"}, "value"),
        ({"event_type": "rating", "value": math.nan}, "value"),
        ({"event_type": "rating", "value": -math.inf}, "value"),
        ({"event_type": "rating", "value": 1.1e9}, "value"),
        ({"event_type": "watch", "value": -1}, "value"),
        ({"event_time": Timestamp(seconds=2**63 - 1)}, "event_time"),
        ({"event_time": Timestamp(seconds=-(2**63))}, "event_time"),
        ({"event_time": Timestamp(seconds=253_402_300_800)}, "event_time"),
        ({"event_time": Timestamp(nanos=-1)}, "event_time"),
        ({"event_time": Timestamp(nanos=1_000_000_000)}, "event_time"),
    ],
)
def test_refused(changes, column):
    """An interaction that breaks a rule is refused by the path of the field."""
    found = fault(convert.table, [event(), event(), event(), event(**changes)], CATALOG)
    assert [field for field, _ in found] == [f"interactions[3].{column}"]


@pytest.mark.parametrize("count", [0, 10_001])
def test_batch_size(count):
    """A batch has 1 to 10,000 interactions."""
    assert fault(convert.table, [event()] * count, CATALOG)[0][0] == "interactions"


def test_history():
    """The events of an anonymous person keep their order."""
    events = [
        retrieval_service_pb2.HistoryEvent(item_id="b", event_type="rating", value=4),
        retrieval_service_pb2.HistoryEvent(item_id="a", event_type="view", event_time=MOMENT),
    ]
    rows = convert.rows(convert.history(events, CATALOG, "subject.history.events"))
    assert [(r["item_id"], r["event_type"], r["value"]) for r in rows] == [
        ("b", "rating", 4.0),
        ("a", "view", None),
    ]
    assert rows[1]["event_time"] == 1_700_000_000_000_005


def test_history_without_times():
    """Events without a time happened just now, one after the other."""
    before = time.time_ns() // 1_000
    events = [retrieval_service_pb2.HistoryEvent(item_id=i) for i in ("a", "b", "a")]
    events.insert(1, retrieval_service_pb2.HistoryEvent(item_id="c", event_time=MOMENT))
    rows = convert.rows(convert.history(events, VIEWS, "h"))
    first, second, *later = [row["event_time"] for row in rows]
    assert second == 1_700_000_000_000_005
    assert before <= first < later[0] < later[1] <= time.time_ns() // 1_000 + len(events)


@pytest.mark.parametrize(
    ("events", "field"),
    [
        ([], "h"),
        ([retrieval_service_pb2.HistoryEvent(item_id="a")] * 1_001, "h"),
        ([retrieval_service_pb2.HistoryEvent(event_type="view")], "h[0].item_id"),
        ([retrieval_service_pb2.HistoryEvent(item_id="a", event_type="x")], "h[0].event_type"),
    ],
)
def test_history_refused(events, field):
    """A history that breaks a rule is refused by the path of the field."""
    assert fault(convert.history, events, CATALOG, "h")[0][0] == field


@given(MESSAGES)
def test_cursor_round_trip(message):
    """The place of a row survives in a page token."""
    [row] = convert.rows(convert.table([message], CATALOG))
    expected = (row["event_time"], row["item_id"], row["event_type"], row["event_id"] or "")
    assert convert.place(convert.cursor(row)) == expected


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "[]", "[1]", "3", "null", "{", "{}", '[1,"a","b","c","d"]', "[" * 5_000),
        *('["1","a","b","c"]', '[1.5,"a","b","c"]', '[true,"a","b","c"]', '[1,"a","b",null]'),
        *('[9999999999999999999,"a","b","c"]', '[1,2,"b","c"]', '[1,["a"],"b","c"]'),
        *(r'[1,"a\u0000","b","c"]', r'[1,"a","b","\ud800"]'),
    ],
)
def test_foreign_cursor(cursor):
    """What is no place is refused."""
    with pytest.raises(InvalidPageToken):
        convert.place(cursor)
