"""Decayed counts of interactions by item, added up inside the database."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Select,
    case,
    cast,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.dialects import postgresql

from milvine.domain.interaction import MAX_EVENT_TIME, MIN_EVENT_TIME
from milvine.records.database import Database
from milvine.records.faults import translated
from milvine.records.rows import catalog_number
from milvine.records.schema import INTERACTIONS

COUNTS = pa.schema(
    [pa.field("item_id", pa.string(), nullable=False), pa.field("count", pa.float64())]
)
"""The columns of counts: items with an interaction that counts, each once."""

MOST_HALF_LIVES = 40
"""Interactions that are older count nothing: 2 ** -40 of their weight, less than rounding takes
from a sum of some thousands."""

_FETCH = 512
"""Rows that are Python objects at one time, as in `bulk`."""


def decayed_counts(
    database: Database,
    catalog_id: str,
    weights: Mapping[str, float],
    half_life: timedelta | None,
    *,
    now_micros: int,
) -> pa.Table:
    """The weighted counts of a catalog's items as a table of `COUNTS`, in no certain order.

    An interaction of age `a` counts its event type's weight times `2 ** (-a / half_life)`. Ages are
    taken from the catalog's latest counted interaction that is not after now, so that old imports
    keep their digits; what is dated later is as old as that one.

    Args:
        database: where the interactions are.
        catalog_id: the catalog; a missing one has none.
        weights: the event types that count, and how much.
        half_life: after how long an interaction counts half; None: all count the same.
        now_micros: microseconds since 1970.
    """
    if not weights:
        return COUNTS.empty_table()
    query = _query(catalog_id, weights, half_life, now_micros)
    if not database.is_sqlite:
        with translated():
            return _read_postgres(database.conninfo, query)
    with database.read() as connection:
        _provide_exp(connection)
        return _read_sqlite(connection, query)


def _query(
    catalog_id: str, weights: Mapping[str, float], half_life: timedelta | None, now_micros: int
) -> Select[Any]:
    column = INTERACTIONS.c
    counted = (
        column.catalog_number == catalog_number(catalog_id),
        column.event_type.in_(list(weights)),
    )
    # Cast, for a bare number is a NUMERIC to PostgreSQL, whose arithmetic takes ten times as long.
    weight = cast(
        case({name: _double(weights[name]) for name in weights}, value=column.event_type), Double
    )
    if half_life is None:
        return _by_item(weight).where(*counted)
    half_life_micros = half_life / timedelta(microseconds=1)
    latest = (
        select(func.coalesce(func.max(column.event_time), now_micros).label("moment"))
        .where(*counted, column.event_time <= now_micros)
        .cte("latest")
    )
    moment = latest.c.moment
    age = case((column.event_time < moment, moment - column.event_time), else_=0)
    decay = func.exp(cast(age, Double) * _double(-math.log(2) / half_life_micros))
    span = int(min(MOST_HALF_LIVES * half_life_micros, MAX_EVENT_TIME - MIN_EVENT_TIME))
    return (
        _by_item(weight * decay)
        .join_from(INTERACTIONS, latest, true())
        .where(*counted, column.event_time >= moment - span)
    )


def _by_item(amount: ColumnElement[float]) -> Select[Any]:
    item_id = INTERACTIONS.c.item_id
    return select(item_id, func.sum(amount).label("count")).group_by(item_id)


def _double(number: float) -> ColumnElement[float]:
    return cast(literal(number, Double), Double)


def _read_postgres(conninfo: str, query: Select[Any]) -> pa.Table:
    """The rows by ADBC, whose connections allow a statement the time that a whole table takes."""
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call] # SQLAlchemy
    sql = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    with adbc.connect(conninfo) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table().cast(COUNTS)


def _read_sqlite(connection: Connection, query: Select[Any]) -> pa.Table:
    with connection.execute(query) as result:
        cursor = result.cursor
        assert cursor is not None  # noqa: S101 - a query has one
        batches = [
            pa.record_batch([pa.array(c) for c in zip(*rows, strict=True)], schema=COUNTS)
            for rows in iter(lambda: cursor.fetchmany(_FETCH), [])
        ]
    return pa.Table.from_batches(batches, COUNTS)


def _provide_exp(connection: Connection) -> None:
    """Give an SQLite that was built without mathematics Python's, which is slower."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - so it is for SQLite
    with contextlib.suppress(sqlite3.OperationalError):
        driver.execute("SELECT exp(0)")
        return
    driver.create_function("exp", 1, math.exp, deterministic=True)
