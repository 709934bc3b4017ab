"""The records in SQL: SQLite or PostgreSQL, the truth that everything else is made from."""

from milvine.records.entities import Change
from milvine.records.interactions import Place
from milvine.records.store import Records

__all__ = ["Change", "Place", "Records"]
