"""Runs migrations on the connection, and in the transaction, of `milvine.records.migrate`."""

from alembic import context

from milvine.records.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
