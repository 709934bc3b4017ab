"""The records in SQL: SQLite or PostgreSQL, the truth that everything else is made from."""

from milvine.records.entities import Change, FieldValues
from milvine.records.interactions import Place
from milvine.records.store import Records
from milvine.records.strays import Stray, StrayKind

__all__ = ["Change", "FieldValues", "Place", "Records", "Stray", "StrayKind"]
