"""What the tables have in common: rows made once, and lists from the newest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    ScalarSelect,
    Select,
    Table,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from milvine.domain.errors import AlreadyExists, InvalidPageToken, NotFound, Reason
from milvine.records.schema import CATALOGS


def create(connection: Connection, table: Table, values: Mapping[str, object]) -> None:
    """Insert a row whose id is new.

    Raises:
        AlreadyExists: there is a row of that id.
    """
    try:
        connection.execute(insert(table).values(values))
    except IntegrityError as exc:
        what = table.name.removesuffix("s")
        raise AlreadyExists(
            f"there is {'an' if what[0] in 'aeiou' else 'a'} {what} {values['id']!r} already; "
            "choose another id",
            Reason.ALREADY_EXISTS,
            {f"{what}_id": str(values["id"])},
        ) from exc


def number_of(connection: Connection, catalog_id: str, *, hold: bool = True) -> int:
    """The number of a catalog, which stays until the transaction ends if it is held.

    Raises:
        NotFound: there is no such catalog.
    """
    query = select(CATALOGS.c.number).where(CATALOGS.c.id == catalog_id)
    if hold:  # PostgreSQL: keeps a DELETE of the catalog away, and nothing else
        query = query.with_for_update(read=True, key_share=True)
    number = connection.execute(query).scalar()
    if number is None:
        raise NotFound.of("catalog", catalog_id)
    return int(number)


def next_revision(connection: Connection, catalog_id: str) -> tuple[int, int]:
    """The number of a catalog and its next revision.

    The row stays locked until the transaction ends, so revisions are committed in order.

    Raises:
        NotFound: there is no such catalog.
    """
    count_up = (
        update(CATALOGS)
        .where(CATALOGS.c.id == catalog_id)
        .values(revision=CATALOGS.c.revision + 1)
        .returning(CATALOGS.c.number, CATALOGS.c.revision)
    )
    row = connection.execute(count_up).one_or_none()
    if row is None:
        raise NotFound.of("catalog", catalog_id)
    return int(row.number), int(row.revision)


def catalog_number(catalog_id: str | BindParameter[str]) -> ScalarSelect[int]:
    """The number of a catalog, as part of a statement; null for a missing one."""
    return select(CATALOGS.c.number).where(CATALOGS.c.id == catalog_id).scalar_subquery()


def newest_first(
    connection: Connection, table: Table, *, limit: int, after: str | None
) -> Select[Any]:
    """A query of at most `limit` rows, newest first, from the first one after the row `after`.

    Raises:
        InvalidPageToken: there is no row `after` any more.
    """
    query = select(table).order_by(table.c.create_time.desc(), table.c.id.desc()).limit(limit)
    if after is None:
        return query
    moment = connection.execute(select(table.c.create_time).where(table.c.id == after)).scalar()
    if moment is None:
        raise InvalidPageToken
    return query.where(tuple_(table.c.create_time, table.c.id) < (moment, after))
