"""Alembic's scripts, run by `milvine.records.migrate`."""
