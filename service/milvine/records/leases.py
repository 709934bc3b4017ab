"""Named leases: who does a background work just now."""

from __future__ import annotations

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from milvine.records.database import Database, shared_now_micros
from milvine.records.schema import LEASES


class Leases:
    """The leases of a database, timed by the database's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hold(self, name: str, owner: str, *, seconds: float) -> bool:
        """Take or prolong a lease; whether it is the owner's now."""
        try:
            with self._database.write() as connection:
                now = shared_now_micros(connection)
                values = {"name": name, "owner": owner, "until": now + int(seconds * 1e6)}
                free = or_(LEASES.c.owner == owner, LEASES.c.until <= now)
                take = update(LEASES).where(LEASES.c.name == name, free).values(values)
                if connection.execute(take).rowcount:
                    return True
                if connection.execute(select(LEASES.c.name).where(LEASES.c.name == name)).first():
                    return False
                connection.execute(insert(LEASES).values(values))
                return True
        except IntegrityError:  # another owner was first
            return False

    def drop(self, name: str, owner: str) -> None:
        """Give a lease back, if it is the owner's."""
        query = delete(LEASES).where(LEASES.c.name == name, LEASES.c.owner == owner)
        with self._database.write() as connection:
            connection.execute(query)
