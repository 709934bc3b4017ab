"""Interactions: messages into Arrow columns, without an object a row."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from milvine.api.convert.values import (
    MAX_SECONDS,
    MIN_SECONDS,
    check_count,
    raise_all,
    timestamp,
)
from milvine.api.paging import is_text
from milvine.domain.catalog import Catalog
from milvine.domain.entity import from_micros
from milvine.domain.errors import InvalidPageToken, Violation
from milvine.domain.interaction import (
    INTERACTIONS,
    MAX_EVENT_TIME,
    MIN_EVENT_TIME,
    Rejection,
    check_interactions,
)
from milvine.records import Place
from milvine.v1 import interaction_pb2, retrieval_service_pb2

MAX_BATCH = 10_000
MAX_HISTORY = 1_000
# Where a timestamp has no meaning: outside the years that the domain accepts.
_NO_MOMENT = np.iinfo(np.int64).max
# The rules of interactions want a user; an anonymous history has none.
_ANONYMOUS = "anonymous"

Row: TypeAlias = Mapping[str, Any]
"""A row of INTERACTIONS."""
_Interactions = Sequence[interaction_pb2.Interaction]
_Events = Sequence[retrieval_service_pb2.HistoryEvent]
_Ints = npt.NDArray[np.int64]


def table(messages: _Interactions, catalog: Catalog) -> pa.Table:
    """The interactions of a batch as INTERACTIONS columns; the error names every fault."""
    check_count(len(messages), "interactions", least=1, most=MAX_BATCH)
    columns = {
        "event_id": [m.event_id for m in messages],
        "user_id": [m.user_id for m in messages],
        **_shared_columns(messages),
    }
    return _checked(columns, catalog, "interactions")


def history(messages: _Events, catalog: Catalog, path: str) -> pa.Table:
    """The events of an anonymous person as INTERACTIONS columns, in their order."""
    check_count(len(messages), path, least=1, most=MAX_HISTORY)
    shared = _shared_columns(messages)
    columns = {
        "event_id": [None] * len(messages),
        "user_id": [_ANONYMOUS] * len(messages),
        **shared,
        "event_time": _in_order(shared["event_time"]),
    }
    return _checked(columns, catalog, path)


def rows(table: pa.Table) -> list[Row]:
    """The rows of a page of INTERACTIONS."""
    found: list[Row] = table.to_pylist()
    return found


def interaction_message(row: Row) -> interaction_pb2.Interaction:
    """The message of a row."""
    return interaction_pb2.Interaction(
        event_id=row["event_id"] or "",
        user_id=row["user_id"],
        item_id=row["item_id"],
        event_type=row["event_type"],
        value=row["value"],
        event_time=timestamp(from_micros(row["event_time"])),
    )


def cursor(row: Row) -> str:
    """The place of a row in the pages of its user."""
    return json.dumps([row["event_time"], row["item_id"], row["event_type"], row["event_id"] or ""])


def place(cursor: str | None) -> Place | None:
    """The place that a cursor names; raises InvalidPageToken where it is none."""
    if cursor is None:
        return None
    try:
        event_time, *texts = json.loads(cursor)
        place = Place(event_time, *texts)
    except (ValueError, TypeError, RecursionError) as exc:
        raise InvalidPageToken from exc
    # Anyone can make a token, so nothing in it is taken for granted.
    is_moment = type(event_time) is int and MIN_EVENT_TIME <= event_time <= MAX_EVENT_TIME
    if not is_moment or not all(map(is_text, texts)):
        raise InvalidPageToken
    return place


def _shared_columns(messages: _Interactions | _Events) -> Mapping[str, Any]:
    # One pass that keeps no message: a repeated field makes its elements anew in each pass, and the
    # garbage collector walks over kept ones again and again.
    items, types, values, seconds, nanos, has_time = [], [], [], [], [], []
    for message in messages:
        items.append(message.item_id)
        types.append(message.event_type)
        values.append(message.value if message.HasField("value") else None)
        moment = message.event_time
        seconds.append(moment.seconds)
        nanos.append(moment.nanos)
        has_time.append(message.HasField("event_time"))
    times = _micros(np.array(seconds, np.int64), np.array(nanos, np.int64))
    return {
        "item_id": items,
        "event_type": types,
        "value": values,
        "event_time": pa.array(times, mask=~np.array(has_time)),
    }


def _micros(seconds: _Ints, nanos: _Ints) -> _Ints:
    """Microseconds since 1970 of moments: (messages,) int64, each."""
    is_moment = (
        (seconds >= MIN_SECONDS) & (seconds <= MAX_SECONDS) & (nanos >= 0) & (nanos < 1_000_000_000)
    )
    return np.where(is_moment, seconds * 1_000_000 + nanos // 1_000, _NO_MOMENT)


def _in_order(times: pa.Array) -> pa.Array:
    """The times, and just now for the missing ones, each a microsecond after the one before."""
    now = time.time_ns() // 1_000
    return pc.coalesce(times, pa.array(now + np.arange(len(times))))


def _checked(columns: Mapping[str, Any], catalog: Catalog, path: str) -> pa.Table:
    now = time.time_ns() // 1_000
    unchecked = pa.table(columns, schema=INTERACTIONS)
    good, rejections = check_interactions(unchecked, catalog, now_micros=now)
    raise_all(_violations(rejections, path))
    return good


def _violations(rejections: Iterable[Rejection], path: str) -> Iterator[Violation]:
    return (Violation(f"{path}[{r.row}].{r.column}", r.reason) for r in rejections)
