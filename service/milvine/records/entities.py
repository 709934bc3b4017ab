"""Items and users in SQL, with the order in which they changed."""

from __future__ import annotations

import builtins
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    cast,
    func,
    select,
    tuple_,
)

from milvine.domain.catalog import Field
from milvine.domain.entity import Entity, FieldValue, Side, from_micros
from milvine.records.codec import columns_of, dump_fields, load_fields, load_values
from milvine.records.database import Database, now_micros
from milvine.records.rows import catalog_number, next_revision
from milvine.records.schema import ENTITIES

_CHUNK = 10_000
"""Rows of one statement."""


@dataclass(frozen=True, slots=True)
class FieldValues:
    """The values of some fields of some items or users."""

    ids: list[str]
    values: Mapping[str, Sequence[FieldValue | None]]
    """By the name of the field, in the order of the ids; None for no value."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an item or user became in a revision of its catalog."""

    id: str
    revision: int
    entity: Entity | None
    """None: it was deleted."""


class Entities:
    """The items and users of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def upsert(self, catalog_id: str, side: Side, entities: Sequence[Entity]) -> None:
        """Write all of the entities, or none, as one revision of the catalog.

        One that exists is replaced and keeps its time of creation. Of several with one id the last
        counts. Their own times are not read.

        Raises:
            NotFound: there is no such catalog.
        """
        rows = {e.id: dump_fields(e.fields) for e in entities}
        if rows:
            with self._marks(catalog_id, side, rows), self._database.write() as connection:
                number, revision = next_revision(connection, catalog_id)
                now = now_micros()
                values = [(number, str(side), i, f, revision, now, now) for i, f in rows.items()]
                _insert(connection, sorted(values, key=lambda row: row[2].encode()), _REPLACE)

    def get(self, catalog_id: str, side: Side, ids: Sequence[str]) -> builtins.list[Entity]:
        """The entities of those ids that exist, in the order asked."""
        query = _live(catalog_id, side)
        found: dict[str, Entity] = {}
        with self._database.read() as connection:
            for start in range(0, len(ids), _CHUNK):
                few = query.where(ENTITIES.c.id.in_(ids[start : start + _CHUNK]))
                found |= {row.id: _entity(row) for row in connection.execute(few)}
        return [found[i] for i in ids if i in found]

    def list(
        self, catalog_id: str, side: Side, *, limit: int, after: str | None = None
    ) -> list[Entity]:
        """At most `limit` entities by the bytes of their ids, from the first after `after`."""
        query = _live(catalog_id, side).order_by(ENTITIES.c.id).limit(limit)
        if after is not None:
            query = query.where(ENTITIES.c.id > after)
        with self._database.read() as connection:
            return [_entity(row) for row in connection.execute(query)]

    def delete(self, catalog_id: str, side: Side, ids: Sequence[str]) -> int:
        """Delete the entities of those ids as one revision; how many there were.

        Ids that there are none of are marked as deleted too: interactions may name them.

        Raises:
            NotFound: there is no such catalog.
        """
        with self._marks(catalog_id, side, ids), self._database.write() as connection:
            number, revision = next_revision(connection, catalog_id)
            return sum(
                bury(connection, (number, str(side), revision), ids[start : start + _CHUNK])
                for start in range(0, len(ids), _CHUNK)
            )

    def changes(
        self,
        catalog_id: str,
        side: Side,
        *,
        since: int,
        limit: int,
        after_id: str = "",
        until: int | None = None,
    ) -> builtins.list[Change]:
        """At most `limit` changes after a place, by revision, then by id.

        The place is the end of revision `since`, or the id `after_id` in it. Give the last change's
        revision and id to go on: no change is missed, also of those that come meanwhile, for
        revisions are committed in order. Changes of revisions after `until` are left out.
        """
        query = _all(catalog_id, side).order_by(ENTITIES.c.revision, ENTITIES.c.id).limit(limit)
        if until is not None:
            query = query.where(ENTITIES.c.revision <= until)
        query = query.where(
            tuple_(ENTITIES.c.revision, ENTITIES.c.id) > (since, after_id)
            if after_id
            else ENTITIES.c.revision > since
        )
        return self._changes(query)

    def scan(
        self, catalog_id: str, side: Side, *, batch: int = 10_000
    ) -> Iterator[builtins.list[Change]]:
        """Everything by id, deleted entities too, in lists of `batch`.

        What changes during the scan may come in its old or its new form: take the catalog's
        revision before, and follow up with `changes` since then.
        """
        query = _all(catalog_id, side).order_by(ENTITIES.c.id).limit(batch)
        page = self._changes(query)
        while page:
            yield page
            page = self._changes(query.where(ENTITIES.c.id > page[-1].id))

    def values(
        self, catalog_id: str, side: Side, names: Sequence[str], *, batch: int = 100_000
    ) -> Iterator[FieldValues]:
        """The values of some fields of all that exist, by id, in lists of `batch`.

        The database picks them out, which is several times cheaper than a scan. What changes
        meanwhile may come in its old or its new form, as there.
        """
        is_sqlite = self._database.is_sqlite
        columns = [ENTITIES.c.id, *(_value(name, is_sqlite=is_sqlite) for name in names)]
        query = _live(catalog_id, side).with_only_columns(*columns)
        query = query.order_by(ENTITIES.c.id).limit(batch)
        page = self._rows(query)
        while page:
            ids, *texts = zip(*page, strict=True)
            found = map(load_values, texts)
            yield FieldValues(list(ids), dict(zip(names, found, strict=True)))
            page = self._rows(query.where(ENTITIES.c.id > ids[-1]))

    def table(
        self, catalog_id: str, side: Side, fields: Sequence[Field], *, batch: int = 100_000
    ) -> pa.Table:
        """All that exist as an Arrow table, by id: their `id`, and a column for each field.

        Arrow itself reads the stored texts, so no value is a Python object on the way. What changes
        meanwhile may come in its old or its new form.
        """
        query = _live(catalog_id, side).with_only_columns(ENTITIES.c.id, ENTITIES.c.fields)
        query = query.order_by(ENTITIES.c.id).limit(batch)
        tables = [columns_of((), (), fields)]
        page = self._rows(query)
        while page:
            ids, texts = zip(*page, strict=True)
            tables.append(columns_of(ids, texts, fields))
            page = self._rows(query.where(ENTITIES.c.id > ids[-1]))
        return pa.concat_tables(tables)

    def count(self, catalog_id: str, side: Side) -> int:
        """How many there are, deleted ones aside."""
        query = _live(catalog_id, side).with_only_columns(func.count())
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def _marks(
        self, catalog_id: str, side: Side, ids: Collection[str]
    ) -> AbstractContextManager[None]:
        """Changes the marks of users, for models may read their fields."""
        if side is Side.ITEM:
            return nullcontext()
        return self._database.marks.changing(catalog_id, ids)

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with self._database.read() as connection:
            return connection.execute(query).all()

    def _changes(self, query: Select[Any]) -> builtins.list[Change]:
        with self._database.read() as connection:
            return [_change(row) for row in connection.execute(query)]


def _all(catalog_id: str, side: Side) -> Select[Any]:
    columns = [c for c in ENTITIES.c if c.name not in ("catalog_number", "side")]
    return select(*columns).where(
        ENTITIES.c.catalog_number == catalog_number(catalog_id), ENTITIES.c.side == str(side)
    )


def _live(catalog_id: str, side: Side) -> Select[Any]:
    return _all(catalog_id, side).where(ENTITIES.c.fields.is_not(None))


def _value(name: str, *, is_sqlite: bool) -> ColumnElement[Any]:
    """The value of a declared field as a JSON text."""
    if is_sqlite:
        return ENTITIES.c.fields.op("->", return_type=Text())(f"$.{name}")
    value = cast(ENTITIES.c.fields, JSON(none_as_null=True)).op("->")(cast(name, Text))
    return cast(value, Text)


_REPLACE = """
DO UPDATE SET
  fields = excluded.fields, revision = excluded.revision, update_time = excluded.update_time,
  create_time = CASE WHEN entities.fields IS NULL
    THEN excluded.create_time ELSE entities.create_time END
"""
_KEEP = "DO NOTHING"
_COLUMNS = "catalog_number, side, id, fields, revision, create_time, update_time"
_INSERT_SQLITE = f"INSERT INTO entities ({_COLUMNS}) VALUES (?,?,?,?,?,?,?)"  # noqa: S608 - constants
_INSERT_POSTGRES = f"""
INSERT INTO entities ({_COLUMNS})
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[],
                     %s::bigint[], %s::bigint[], %s::bigint[])
"""  # noqa: S608 - constants


def _insert(connection: Connection, rows: list[tuple[Any, ...]], on_conflict: str) -> None:
    on_conflict = f" ON CONFLICT (catalog_number, side, id) {on_conflict}"
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_INSERT_SQLITE + on_conflict, rows)
    else:
        columns = tuple(list(column) for column in zip(*rows, strict=True))
        connection.exec_driver_sql(_INSERT_POSTGRES + on_conflict, columns)


def bury(connection: Connection, place: tuple[int, str, int], ids: Sequence[str]) -> int:
    """Leave a tombstone of each id at a catalog number, side and revision; how many lived."""
    number, side, revision = place
    now = now_micros()
    living = (
        ENTITIES.update()
        .where(
            ENTITIES.c.catalog_number == number,
            ENTITIES.c.side == side,
            ENTITIES.c.id.in_(ids),
            ENTITIES.c.fields.is_not(None),
        )
        .values(fields=None, revision=revision, update_time=now)
    )
    count = connection.execute(living).rowcount
    unknown = [(number, side, i, None, revision, now, now) for i in set(ids)]
    if unknown:
        _insert(connection, sorted(unknown, key=lambda row: row[2].encode()), _KEEP)
    return count


def _entity(row: Row[Any]) -> Entity:
    return Entity(
        id=row.id,
        fields=load_fields(row.fields),
        create_time=from_micros(row.create_time),
        update_time=from_micros(row.update_time),
    )


def _change(row: Row[Any]) -> Change:
    return Change(row.id, row.revision, None if row.fields is None else _entity(row))
