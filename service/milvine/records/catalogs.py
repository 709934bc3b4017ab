"""Catalogs in SQL."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection, Row, Table, and_, delete, select, tuple_, update

from milvine.domain.catalog import Catalog
from milvine.domain.entity import from_micros
from milvine.domain.errors import FailedPrecondition, NotFound, Reason
from milvine.domain.operation import OperationState
from milvine.records import models, releases
from milvine.records.codec import dump, load
from milvine.records.database import Database, now_micros
from milvine.records.operations import cancel
from milvine.records.rows import create
from milvine.records.schema import CATALOGS, ENTITIES, INTERACTIONS, MODELS, OPERATIONS, RELEASES

_DELETED = "~"
"""What the id of a deleted catalog begins with: no catalog's does, and all of them sort before."""
_PURGED_AT_ONCE = 20_000
"""Rows of one statement."""


class Catalogs:
    """The catalogs of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, catalog: Catalog) -> Catalog:
        """The catalog as stored.

        Raises:
            AlreadyExists: there is one of that id.
        """
        now = now_micros()
        values = {
            "id": catalog.id,
            "declaration": _declaration(catalog),
            "create_time": now,
            "update_time": now,
        }
        with self._database.write() as connection:
            create(connection, CATALOGS, values)
            return _catalog(_row(connection, catalog.id))

    def get(self, catalog_id: str) -> Catalog:
        """The catalog of that id.

        Raises:
            NotFound: there is none.
        """
        with self._database.read() as connection:
            return _catalog(_row(connection, catalog_id))

    def list(self, *, limit: int, after: str | None = None) -> list[Catalog]:
        """At most `limit` catalogs by id, from the first one after `after`."""
        query = select(CATALOGS).where(CATALOGS.c.id < _DELETED).order_by(CATALOGS.c.id)
        query = query.limit(limit)
        if after is not None:
            query = query.where(CATALOGS.c.id > after)
        with self._database.read() as connection:
            return [_catalog(row) for row in connection.execute(query)]

    def update(self, catalog_id: str, change: Callable[[Catalog], Catalog]) -> Catalog:
        """Replace the declaration by what `change` makes of it, while no one else writes to it.

        The id, the times and the active release stay as they are. What `change` raises passes
        through, and nothing is written.

        Raises:
            NotFound: there is no such catalog.
        """
        with self._database.write() as connection:
            old = _catalog(_row(connection, catalog_id, lock=True))
            values = {"declaration": _declaration(change(old)), "update_time": now_micros()}
            connection.execute(update(CATALOGS).where(CATALOGS.c.id == catalog_id).values(values))
            return _catalog(_row(connection, catalog_id))

    def delete(self, catalog_id: str, *, force: bool) -> None:
        """Delete a catalog, with all that it holds when forced; its id is free at once.

        Items, users and interactions are out of everyone's reach and go with `purge`. Collections
        and artifacts are strays from now on. Finished operations stay as a record; a queued one is
        cancelled, and a running one asked to stop.

        Raises:
            NotFound: there is no such catalog.
            FailedPrecondition: it holds something, and `force` is not set.
        """
        with self._database.write() as connection:
            number = _row(connection, catalog_id, lock=True).number
            if not force:
                _check_empty(connection, catalog_id, number)
            _stop_operations(connection, catalog_id)
            releases.delete_all(connection, number)
            models.delete_all(connection, number)
            nobodys = f"{_DELETED}{secrets.token_hex(16)}"
            gone = update(CATALOGS).where(CATALOGS.c.number == number)
            connection.execute(gone.values(id=nobodys, active_release_id=None))

    def purge(self) -> bool:
        """Delete some of the rows that deleted catalogs have left; whether there were any.

        So many at a time that a statement stays well within its timeout.
        """
        query = select(CATALOGS.c.number).where(CATALOGS.c.id >= _DELETED).limit(1)
        with self._database.read() as connection:  # mostly there is nothing, and no need to lock
            if connection.execute(query).first() is None:
                return False
        with self._database.write() as connection:
            number = connection.execute(query.with_for_update()).scalar()
            if number is None:
                return False
            tables = (INTERACTIONS, ENTITIES)
            if not any(_delete_some(connection, table, number) for table in tables):
                connection.execute(delete(CATALOGS).where(CATALOGS.c.number == number))
            return True

    def activate(self, catalog_id: str, release_id: str) -> Catalog:
        """Make a READY release the one that serves, from now on.

        Raises:
            NotFound: there is no such catalog, or it has no such release.
            FailedPrecondition: the release is not READY.
        """
        with self._database.write() as connection:
            number = _row(connection, catalog_id, lock=True).number
            releases.mark_active(connection, number, release_id)
            switch = update(CATALOGS).where(CATALOGS.c.number == number)
            connection.execute(switch.values(active_release_id=release_id))
            return _catalog(_row(connection, catalog_id))

    def revision(self, catalog_id: str) -> int:
        """The number of the latest change of the catalog's items and users.

        Raises:
            NotFound: there is no such catalog.
        """
        with self._database.read() as connection:
            return int(_row(connection, catalog_id).revision)


def _row(connection: Connection, catalog_id: str, *, lock: bool = False) -> Row[tuple[object, ...]]:
    query = select(CATALOGS).where(CATALOGS.c.id == catalog_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound.of("catalog", catalog_id)
    return row


def _declaration(catalog: Catalog) -> str:
    return dump(replace(catalog, active_release_id=None, create_time=None, update_time=None))


def _catalog(row: Row[tuple[object, ...]]) -> Catalog:
    return replace(
        load(Catalog, row.declaration),
        id=row.id,
        active_release_id=row.active_release_id,
        create_time=from_micros(row.create_time),
        update_time=from_micros(row.update_time),
    )


def _check_empty(connection: Connection, catalog_id: str, number: int) -> None:
    for table, what in (
        (ENTITIES, "items or users"),
        (INTERACTIONS, "interactions"),
        (RELEASES, "releases"),
        (MODELS, "models"),
    ):
        query = select(table.c.catalog_number).where(table.c.catalog_number == number)
        if table is ENTITIES:
            query = query.where(ENTITIES.c.fields.is_not(None))
        if connection.execute(query.limit(1)).first():
            raise FailedPrecondition(
                f"catalog {catalog_id!r} holds {what}; delete them first, or force the deletion",
                Reason.RESOURCE_IN_USE,
                {"catalog_id": catalog_id},
            )


def _stop_operations(connection: Connection, catalog_id: str) -> None:
    of_catalog = OPERATIONS.c.catalog_id == catalog_id
    running = OPERATIONS.c.state == OperationState.RUNNING.value
    connection.execute(update(OPERATIONS).where(of_catalog, running).values(cancel_requested=1))
    queued = OPERATIONS.c.state == OperationState.QUEUED.value
    for operation_id in (
        connection.execute(select(OPERATIONS.c.id).where(of_catalog, queued)).scalars().all()
    ):
        cancel(connection, operation_id)


def _delete_some(connection: Connection, table: Table, number: int) -> bool:
    """Delete the first rows of a catalog in a table; whether there were any."""
    key = tuple(table.primary_key.columns)
    some = table.c.catalog_number == number
    first = select(*key).where(some).order_by(*key)
    last = connection.execute(first.offset(_PURGED_AT_ONCE - 1).limit(1)).one_or_none()
    if last is not None:
        some = and_(some, tuple_(*key) <= tuple(last))
    return connection.execute(delete(table).where(some)).rowcount > 0
