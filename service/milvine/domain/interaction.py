"""Interactions: what users did with items. They travel as Arrow tables, never row by row."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

INTERACTIONS = pa.schema(
    [
        pa.field("event_id", pa.string()),  # null or the client's id
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("event_time", pa.int64(), nullable=False),  # microseconds since 1970, UTC
    ]
)
"""The columns of interactions between parsing and storing."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a batch of interactions: each is durable, now or from before."""

    written: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that breaks a rule."""

    row: int
    """The row of the table, from 0."""
    column: str
    reason: str
