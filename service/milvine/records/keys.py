"""Secrets that the processes of a deployment share; each is made once, by whoever comes first."""

from __future__ import annotations

import secrets

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from milvine.records.database import Database, now_micros
from milvine.records.schema import KEYS

SECRET_BYTES = 32


class Keys:
    """The secrets of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> bytes:
        """The secret of that name, 256 random bits, the same for every process from then on."""
        found = self._find(name)
        while found is None:
            self._offer(name)
            found = self._find(name)
        return found

    def _find(self, name: str) -> bytes | None:
        with self._database.read() as connection:
            found: bytes | None = connection.execute(
                select(KEYS.c.secret).where(KEYS.c.name == name)
            ).scalar()
        return found

    def _offer(self, name: str) -> None:
        values = {
            "name": name,
            "secret": secrets.token_bytes(SECRET_BYTES),
            "create_time": now_micros(),
        }
        try:
            with self._database.write() as connection:
                connection.execute(insert(KEYS).values(values))
        except IntegrityError:
            return  # another process was first
