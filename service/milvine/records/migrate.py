"""Brings the tables of a database to the form that this version of the code knows."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from milvine.domain.errors import FailedPrecondition, Reason
from milvine.records.database import Database

_LOCK = 0x6D696C76
"""The advisory lock under which processes that start together take turns."""


def migrate(database: Database) -> None:
    """Apply what is missing, in one transaction; the second of two processes finds nothing to do.

    Raises:
        Unavailable: the database does not answer.
        FailedPrecondition: a newer version has migrated it.
    """
    with database.write() as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        try:
            command.upgrade(configuration(connection), "head")
        except CommandError as exc:  # it has a revision that is not among ours
            raise FailedPrecondition(
                "the records database was migrated by a newer milvine; run that version or later",
                Reason.WRONG_STATE,
            ) from exc


def configuration(connection: Connection) -> Config:
    """Alembic's configuration for a connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config
