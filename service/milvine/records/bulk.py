"""Arrow tables of interactions into and out of SQL, each database its fastest safe way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, Select, func
from sqlalchemy.dialects import postgresql

from milvine.domain import interaction
from milvine.domain.errors import NotFound
from milvine.records.schema import INTERACTIONS

COPY_FROM = 2_000
"""More rows than this go into PostgreSQL by COPY, which costs a connection and a table."""

COLUMNS = tuple(
    func.nullif(INTERACTIONS.c.event_id, "").label("event_id")
    if name == "event_id"
    else INTERACTIONS.c[name]
    for name in interaction.INTERACTIONS.names
)
"""What to select for the schema `INTERACTIONS`."""

_KEY = ("user_id", "event_time", "item_id", "event_type", "event_id")
_STORED = (*_KEY, "value")
_FETCH = 512
"""Rows that are Python objects at one time: so few are gone before a garbage collection walks over
them, which halves the time of a scan."""

_INSERT_SQLITE = f"""
INSERT INTO interactions (catalog_number, {", ".join(_STORED)}) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants
_INSERT_POSTGRES = f"""
INSERT INTO interactions (catalog_number, {", ".join(_STORED)})
SELECT %s, * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::float8[])
ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants
_MERGE_POSTGRES = f"""
WITH written AS (
  INSERT INTO interactions (catalog_number, {", ".join(_STORED)})
  SELECT $1, {", ".join(_STORED)} FROM pg_temp.arrivals
  ON CONFLICT DO NOTHING
  RETURNING 1
)
SELECT count(*) FROM written
"""  # noqa: S608 - constants
_HISTORY = """
SELECT nullif(event_id, ''), user_id, item_id, event_type, value, event_time
FROM interactions
WHERE catalog_number = (SELECT number FROM catalogs WHERE id = {0}) AND user_id {1}
ORDER BY user_id, event_time, item_id, event_type, event_id
"""
_HISTORY_SQLITE = _HISTORY.format("?", "IN (SELECT value FROM json_each(?))")
_HISTORY_POSTGRES = _HISTORY.format("%s", "= ANY(%s)")


def arrange(table: pa.Table) -> pa.Table:
    """The columns as stored, without repeated event ids, in the order of the primary key.

    Sorted rows fill the pages of the index one after the other: 4 times faster on a million. And
    two writers of the same rows meet them in one order, so neither waits for the other in a circle.
    """
    unique = _first_of_each_event(table)
    stored = unique.set_column(
        unique.schema.get_field_index("event_id"),
        pa.field("event_id", pa.string()),
        pc.fill_null(unique["event_id"], ""),
    ).select(list(_STORED))
    order = pc.sort_indices(stored, sort_keys=[(name, "ascending") for name in _KEY])  # stable
    return stored.take(order).combine_chunks()


def insert(connection: Connection, number: int, rows: pa.Table) -> int:
    """Insert arranged rows of the catalog of that number; how many were new."""
    cursor: Any = connection.connection.cursor()  # the driver's own: it takes an iterator
    try:
        if connection.dialect.name == "sqlite":
            cursor.executemany(_INSERT_SQLITE, _tuples(number, rows))
        else:
            columns = [rows[name].to_pylist() for name in _STORED]
            cursor.execute(_INSERT_POSTGRES, [number, *columns])
        return max(int(cursor.rowcount), 0)
    finally:
        cursor.close()


def fetch(connection: Connection, query: Select[Any]) -> pa.Table:
    """The rows of a query of `COLUMNS` as a table."""
    with connection.execute(query) as result:
        return _table(result.cursor)


def history(connection: Connection, catalog_id: str, user_ids: Sequence[str]) -> pa.Table:
    """The interactions of users, by user, then the oldest first, as a table.

    Every recommendation may ask it, so it goes to the driver at once: for one user SQLAlchemy
    alone would take three times as long.
    """
    cursor: Any = connection.connection.cursor()
    try:
        if connection.dialect.name == "sqlite":
            cursor.execute(_HISTORY_SQLITE, (catalog_id, orjson.dumps(user_ids).decode()))
        else:
            cursor.execute(_HISTORY_POSTGRES, (catalog_id, user_ids))
        return _table(cursor)
    finally:
        cursor.close()


def copy_in(conninfo: str, catalog_id: str, rows: pa.Table) -> int:
    """Insert arranged rows into PostgreSQL by COPY and a merge, in one transaction.

    Raises:
        NotFound: there is no such catalog.
    """
    with adbc.connect(conninfo) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT number FROM catalogs WHERE id = $1 FOR KEY SHARE", (catalog_id,))
        found = cursor.fetchone()
        if found is None:
            raise NotFound.of("catalog", catalog_id)
        cursor.adbc_ingest("arrivals", rows, mode="create", temporary=True)
        cursor.execute(_MERGE_POSTGRES, (found[0],))
        (written,) = cursor.fetchone()
        connection.commit()
        return int(written)


def copy_out(conninfo: str, query: Select[Any]) -> pa.Table:
    """The rows of a query of `COLUMNS` on PostgreSQL, by COPY."""
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call] # SQLAlchemy
    sql = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    with adbc.connect(conninfo) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table().cast(interaction.INTERACTIONS)


def _first_of_each_event(table: pa.Table) -> pa.Table:
    ids = table["event_id"]
    named = len(ids) - ids.null_count
    if pc.count_distinct(ids, mode="only_valid").as_py() == named:
        return table
    rows = table.select(["event_id"]).append_column("row", pa.array(np.arange(len(ids))))
    firsts = rows.group_by("event_id").aggregate([("row", "min")]).drop_null()["row_min"]
    keep = np.asarray(pc.is_null(ids))
    keep[firsts.to_numpy()] = True
    return table.filter(pa.array(keep))


def _tuples(number: int, rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    for batch in rows.to_batches(max_chunksize=_FETCH):
        columns = (c.to_numpy(zero_copy_only=False).tolist() for c in batch.columns)
        yield from zip([number] * batch.num_rows, *columns, strict=True)


def _table(cursor: Any) -> pa.Table:  # noqa: ANN401 - of either driver
    """What a cursor over `COLUMNS` still has."""
    schema = interaction.INTERACTIONS
    batches = [_batch(rows) for rows in iter(lambda: cursor.fetchmany(_FETCH), [])]
    table = pa.Table.from_batches(batches, schema)
    return table if len(batches) == 1 else table.combine_chunks()


def _batch(rows: Sequence[Any]) -> pa.RecordBatch:
    schema = interaction.INTERACTIONS
    columns = zip(*rows, strict=True)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
