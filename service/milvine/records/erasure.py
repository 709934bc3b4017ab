"""Erasing a user from the records, with a count that survives whoever does it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update

from milvine.domain.entity import Side
from milvine.domain.errors import NotFound
from milvine.records.codec import dump, load
from milvine.records.database import Database
from milvine.records.entities import bury
from milvine.records.rows import next_revision
from milvine.records.schema import INTERACTIONS, OPERATIONS


@dataclass(frozen=True, slots=True)
class Erased:
    """What an operation has erased so far, in all of its attempts."""

    had_metadata: bool = False
    interaction_count: int = 0


class Erasures:
    """The erasures of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def erase(self, operation_id: str, catalog_id: str, user_id: str) -> Erased:
        """Delete a user's metadata and interactions, and leave a tombstone, in one transaction.

        The count is written in the same transaction as the operation's progress, so an attempt
        that repeats an erasure says what the one before it found.

        Raises:
            NotFound: there is no such catalog or operation.
        """
        marks = self._database.marks.changing(catalog_id, [user_id])
        with marks, self._database.write() as connection:
            number, revision = next_revision(connection, catalog_id)
            before = _progress(connection, operation_id)
            lived = bury(connection, (number, str(Side.USER), revision), [user_id])
            events = delete(INTERACTIONS).where(
                INTERACTIONS.c.catalog_number == number, INTERACTIONS.c.user_id == user_id
            )
            count = connection.execute(events).rowcount
            erased = Erased(before.had_metadata or lived > 0, before.interaction_count + count)
            note = update(OPERATIONS).where(OPERATIONS.c.id == operation_id)
            connection.execute(note.values(progress=dump(erased)))
        return erased


def _progress(connection: Connection, operation_id: str) -> Erased:
    query = select(OPERATIONS.c.progress).where(OPERATIONS.c.id == operation_id)
    progress = connection.execute(query).scalar()
    if progress is None:
        raise NotFound.of("operation", operation_id)
    return load(Erased, progress)
