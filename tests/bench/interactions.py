"""Interactions a second: over gRPC, from a CSV file, and by ADBC alone.

Every way writes the same rows, in order of time, into a fresh database whose commits are durable:
SQLite with `synchronous = FULL`, or PostgreSQL with its defaults.

- gRPC: a client in this process makes an object and a message of each row and streams batches to a
  server process, until the last batch is acknowledged. With `prebuilt`, the messages exist already.
- Import: what `milvine import` does in this process, from a CSV file with times in ISO 8601.
- Raw: one bare `adbc_ingest` that appends the rows, as one Arrow table, to milvine's own empty
  table: the same columns, the same primary key and the same unique index, none of the checks.
  `sorted` is given the rows in the order of the primary key; `no_keys` appends to a table without
  any key or index, which can neither tell duplicates nor find a user's history.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import adbc_driver_postgresql.dbapi
import adbc_driver_sqlite.dbapi
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from milvine.client import Client, Interaction
from milvine.ingest import Source, import_interactions
from milvine.records import Records
from milvine.v1 import catalog_pb2, interaction_pb2
from tests.bench import synthetic
from tests.bench.report import Stopwatch

BATCH = 10_000
"""Interactions of a message: as many as one may have did best."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STORED = ("catalog_number", "user_id", "event_time", "item_id", "event_type", "event_id", "value")


class Raw(StrEnum):
    """What ADBC is given."""

    AS_IS = "as_is"
    SORTED = "sorted"
    NO_KEYS = "no_keys"


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """The rows, in each form that a way takes before its time begins."""

    table: pa.Table
    """Of schema INTERACTIONS, in order of time."""
    csv_path: Path

    @classmethod
    def create(cls, folder: Path, size: synthetic.Size) -> Events:
        """Make rows up, and write them to a CSV file too."""
        table = synthetic.interactions(size)
        path = folder / "events.csv"
        at = table.schema.get_field_index("event_time")
        times = table["event_time"].cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("s", "UTC"))
        texts = pc.strftime(times, format="%Y-%m-%dT%H:%M:%SZ")
        csv.write_csv(table.set_column(at, "event_time", texts), path)
        return cls(table, path)

    def objects(self) -> Iterator[Interaction]:
        """Yield the rows as a client's own objects."""
        columns = (c.to_pylist() for c in self.table.drop_columns("event_id").columns)
        for user, item, kind, value, micros in zip(*columns, strict=True):
            moment = _EPOCH + timedelta(microseconds=micros)
            yield Interaction(user, item, kind, value, moment)

    def stored(self, form: Raw) -> pa.Table:
        """The rows as the table of the records has them, for ADBC."""
        ids = pa.array([""] * len(self.table), pa.string())
        numbers = pa.array([1] * len(self.table), pa.int64())
        rows = self.table.set_column(0, "event_id", ids).append_column("catalog_number", numbers)
        rows = rows.select(_STORED)
        if form is not Raw.SORTED:
            return rows
        return rows.sort_by([(name, "ascending") for name in _STORED[:-1]]).combine_chunks()


def import_per_s(events: Events, url: str) -> float:
    """Rows a second from the CSV file into a fresh database."""
    with closing(Records.open(url)) as records:
        catalog = records.catalogs.create(synthetic.SHOP)
        with Stopwatch() as watch:
            report = import_interactions(
                records, catalog, Source(events.csv_path), on_progress=lambda _: None
            )
        assert report.written == len(events.table), report
    return len(events.table) / watch.seconds


def raw_per_s(events: Events, url: str, form: Raw) -> float:
    """Rows a second by `adbc_ingest` into a fresh database."""
    Records.open(url).close()  # makes the tables
    rows = events.stored(form)
    name, mode = ("plain", "create") if form is Raw.NO_KEYS else ("interactions", "append")
    is_sqlite = url.startswith("sqlite")
    driver = adbc_driver_sqlite.dbapi if is_sqlite else adbc_driver_postgresql.dbapi
    with (
        driver.connect(url.removeprefix("sqlite:///")) as connection,
        connection.cursor() as cursor,
        Stopwatch() as watch,
    ):
        cursor.adbc_ingest(name, rows, mode=mode)
        connection.commit()
    return len(rows) / watch.seconds


async def grpc_per_s(events: Events, client: Client) -> float:
    """Rows a second through the client, objects of the client's own making."""
    return await _stream_per_s(client, events.objects(), len(events.table))


async def prebuilt_per_s(events: Events, client: Client) -> float:
    """Rows a second through the client, which is given messages."""
    messages = [_message(event) for event in events.objects()]
    return await _stream_per_s(client, messages, len(messages))


async def _stream_per_s(
    client: Client,
    events: Iterable[Interaction | interaction_pb2.Interaction],
    count: int,
) -> float:
    catalog_id = f"c{uuid.uuid4().hex[:12]}"
    kinds = [
        catalog_pb2.EventType(name="view"),
        catalog_pb2.EventType(
            name="purchase", value_meaning=catalog_pb2.EventType.VALUE_MEANING_QUANTITY
        ),
    ]
    await client.create_catalog(catalog_id, event_types=kinds)
    written = 0
    with Stopwatch() as watch:
        async for done in client.stream_interactions(catalog_id, events, batch_size=BATCH):
            written += done.written
    assert written == count, (written, count)
    return count / watch.seconds


def _message(event: Interaction) -> interaction_pb2.Interaction:
    message = interaction_pb2.Interaction(
        user_id=event.user_id,
        item_id=event.item_id,
        event_type=event.event_type,
        value=event.value,
    )
    assert event.event_time is not None
    message.event_time.FromDatetime(event.event_time)
    return message
