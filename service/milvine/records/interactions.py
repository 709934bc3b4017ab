"""Interactions in SQL, in and out as Arrow tables of schema `INTERACTIONS`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import String, bindparam, func, select, tuple_

from milvine.domain.interaction import Appended
from milvine.records import bulk
from milvine.records.database import Database, now_micros
from milvine.records.faults import translated
from milvine.records.popularity import decayed_counts
from milvine.records.rows import catalog_number, number_of
from milvine.records.schema import INTERACTIONS
from milvine.records.users import count_users, users

_CHUNK = 10_000
"""Users of one statement."""


class Place(NamedTuple):
    """A place in a user's interactions; as JSON a list, and `Place(*that_list)` back."""

    event_time: int
    item_id: str
    event_type: str
    event_id: str
    """Empty where the client gave none."""

    @classmethod
    def of_last(cls, page: pa.Table) -> Place:
        """The place of a page's last row."""
        row = page.slice(page.num_rows - 1).to_pylist()[0]
        return cls(row["event_time"], row["item_id"], row["event_type"], row["event_id"] or "")


class Interactions:
    """The interactions of a database.

    An event is known by its `event_id`; one without is known by its user, item, type and time
    among those without. Both are unique in a catalog.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, catalog_id: str, table: pa.Table) -> Appended:
        """Write what is new in one transaction, durable on return; of equal events the first.

        Args:
            catalog_id: the catalog.
            table: of schema `INTERACTIONS`, checked already.

        Raises:
            NotFound: there is no such catalog.
        """
        (done,) = self.append_each(catalog_id, [table])
        return done

    def append_each(self, catalog_id: str, tables: Sequence[pa.Table]) -> list[Appended]:
        """Append tables one after the other, on SQLite in one transaction.

        There a commit writes every page that changed, and the events of a few thousand users are
        on most pages: eight tables of 10,000 rows in a million take half the time together.

        Raises:
            NotFound: there is no such catalog.
        """
        batches = [bulk.arrange(table) for table in tables]
        users = {user for rows in batches for user in pc.unique(rows["user_id"]).to_pylist()}
        with self._database.marks.changing(catalog_id, users):
            if self._database.is_sqlite:
                written = self._insert(catalog_id, batches)
            else:
                # Each on its own: two writers of several could wait for each other in a circle.
                written = [self._insert_postgres(catalog_id, rows) for rows in batches]
        return [Appended(n, t.num_rows - n) for n, t in zip(written, tables, strict=True)]

    def _insert_postgres(self, catalog_id: str, rows: pa.Table) -> int:
        if rows.num_rows <= bulk.COPY_FROM:
            (written,) = self._insert(catalog_id, [rows])
            return written
        with translated():
            return bulk.copy_in(self._database.conninfo, catalog_id, rows)

    def _insert(self, catalog_id: str, batches: Sequence[pa.Table]) -> list[int]:
        with self._database.write() as connection:
            number = number_of(connection, catalog_id)
            return [bulk.insert(connection, number, rows) for rows in batches]

    def scan(self, catalog_id: str, *, event_types: Sequence[str] | None = None) -> pa.Table:
        """All interactions of a catalog, of those event types where given, in no certain order.

        Raises:
            NotFound: there is no such catalog.
        """
        with self._database.read() as connection:
            number = number_of(connection, catalog_id, hold=False)
            query = select(*bulk.COLUMNS).where(INTERACTIONS.c.catalog_number == number)
            if event_types is not None:
                query = query.where(INTERACTIONS.c.event_type.in_(event_types))
            if self._database.is_sqlite:
                return bulk.fetch(connection, query)
        with translated():
            return bulk.copy_out(self._database.conninfo, query)

    def history(self, catalog_id: str, user_ids: Sequence[str]) -> pa.Table:
        """All interactions of those users, by user in the order of ids, then the oldest first.

        A missing catalog or user has none.
        """
        ids = sorted(set(user_ids), key=str.encode)
        chunks = [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)] or [[]]
        with self._database.read() as connection:
            tables = [bulk.history(connection, catalog_id, chunk) for chunk in chunks]
        return tables[0] if len(tables) == 1 else pa.concat_tables(tables)

    def which_had(self, catalog_id: str, item_id: str, user_ids: Sequence[str]) -> set[str]:
        """Those of some users who have an interaction of any type with an item.

        It costs a look at the whole history of each user.
        """
        found: set[str] = set()
        with self._database.read() as connection:
            for start in range(0, len(user_ids), _CHUNK):
                chunk = list(user_ids[start : start + _CHUNK])
                values = {"catalog_id": catalog_id, "item_id": item_id, "user_ids": chunk}
                found.update(connection.execute(_HAD, values).scalars())
        return found

    def page(
        self, catalog_id: str, user_id: str, *, limit: int, before: Place | None = None
    ) -> pa.Table:
        """At most `limit` interactions of a user, latest first, from the first one after `before`.

        `Place.of_last` of a page is where the next one begins.
        """
        key = _ORDER[1:]
        query = select(*bulk.COLUMNS).where(
            INTERACTIONS.c.catalog_number == catalog_number(catalog_id),
            INTERACTIONS.c.user_id == user_id,
        )
        if before is not None:
            query = query.where(tuple_(*key) < tuple(before))
        with self._database.read() as connection:
            return bulk.fetch(connection, query.order_by(*(c.desc() for c in key)).limit(limit))

    def decayed_counts(
        self, catalog_id: str, weights: Mapping[str, float], half_life: timedelta | None
    ) -> pa.Table:
        """The weighted counts of a catalog's items as `popularity.COUNTS`, in no certain order.

        An interaction of age `a` counts its event type's weight times `2 ** (-a / half_life)`; no
        half-life: just the weight. Ages are taken from the latest of those that count.

        Args:
            catalog_id: the catalog; a missing one has none.
            weights: the event types that count, and how much.
            half_life: over 0; None: interactions of any age count the same.
        """
        return decayed_counts(
            self._database, catalog_id, weights, half_life, now_micros=now_micros()
        )

    def users(self, catalog_id: str, *, after: str = "", limit: int) -> list[str]:
        """At most `limit` users with interactions, by the bytes of their ids, after `after`.

        Raises:
            NotFound: there is no such catalog.
        """
        return users(self._database, catalog_id, after=after, limit=limit)

    def count_users(self, catalog_id: str, *, after: str = "") -> int:
        """How many users with interactions there are after `after`; walks over all of them.

        Raises:
            NotFound: there is no such catalog.
        """
        return count_users(self._database, catalog_id, after=after)

    def count(self, catalog_id: str) -> int:
        """How many interactions a catalog has; a missing one has none."""
        number = catalog_number(catalog_id)
        query = select(func.count()).where(INTERACTIONS.c.catalog_number == number)
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())


_ORDER = tuple(
    INTERACTIONS.c[name] for name in ("user_id", "event_time", "item_id", "event_type", "event_id")
)

_HAD = (
    select(INTERACTIONS.c.user_id)
    .distinct()
    .where(
        INTERACTIONS.c.catalog_number == catalog_number(bindparam("catalog_id", type_=String)),
        INTERACTIONS.c.user_id.in_(bindparam("user_ids", expanding=True)),
        INTERACTIONS.c.item_id == bindparam("item_id"),
    )
)
"""Its plan goes through the primary key, user by user."""
