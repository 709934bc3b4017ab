"""What lies outside the records and belongs to no row: not yet, or no more.

Whoever makes a collection or an artifact notes its name here first, under the operation that needs
it. The transaction that writes the row which owns it takes the name off, and the one that deletes
that row puts it back. So what a failure, a cancellation or a death leaves behind is always known.
It can be removed once its operation has ended, by anyone, as often as one likes: no name is used
twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, and_, delete, select, text

from milvine.records.attempts import UNFINISHED
from milvine.records.database import Database
from milvine.records.schema import OPERATIONS, STRAYS


class StrayKind(StrEnum):
    """Where a stray lies."""

    COLLECTION = "collection"
    ARTIFACT = "artifact"


@dataclass(frozen=True, slots=True)
class Stray:
    """A thing that no row owns."""

    kind: StrayKind
    name: str


class Strays:
    """The strays that a database knows of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, kind: StrayKind, name: str, operation_id: str) -> None:
        """Note what an operation is about to make."""
        with self._database.write() as connection:
            note(connection, kind, [name], operation_id)

    def removable(self, *, limit: int) -> list[Stray]:
        """At most `limit` strays that no unfinished operation needs."""
        is_needed = and_(
            OPERATIONS.c.id == STRAYS.c.operation_id, OPERATIONS.c.state.in_(UNFINISHED)
        )
        query = (
            select(STRAYS.c.kind, STRAYS.c.name)
            .outerjoin(OPERATIONS, is_needed)
            .where(OPERATIONS.c.id.is_(None))
            .limit(limit)
        )
        with self._database.read() as connection:
            return [Stray(StrayKind(row.kind), row.name) for row in connection.execute(query)]

    def forget(self, stray: Stray) -> None:
        """Note that a stray is no more."""
        with self._database.write() as connection:
            adopt(connection, stray.kind, [stray.name])


_NOTE = text(
    "INSERT INTO strays (kind, name, operation_id) VALUES (:kind, :name, :operation_id) "
    "ON CONFLICT DO NOTHING"
)


def note(
    connection: Connection, kind: StrayKind, names: Iterable[str], operation_id: str | None = None
) -> None:
    """Note names that no row owns; one that an operation needs stays noted for it."""
    rows = [{"kind": str(kind), "name": name, "operation_id": operation_id} for name in names]
    if rows:
        connection.execute(_NOTE, rows)


def adopt(connection: Connection, kind: StrayKind, names: Iterable[str]) -> None:
    """Take names off: a row owns them now, or they are no more."""
    connection.execute(
        delete(STRAYS).where(STRAYS.c.kind == str(kind), STRAYS.c.name.in_(list(names)))
    )
