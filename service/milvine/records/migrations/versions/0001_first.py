"""The first tables.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_bytes = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "catalogs",
        sa.Column("number", _number, primary_key=True),
        sa.Column("id", _bytes, nullable=False, unique=True),
        sa.Column("declaration", sa.Text, nullable=False),
        sa.Column("active_release_id", _bytes),
        sa.Column("revision", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "entities",
        sa.Column("catalog_number", sa.BigInteger, nullable=False),
        sa.Column("side", _bytes, nullable=False),
        sa.Column("id", _bytes, nullable=False),
        sa.Column("fields", sa.Text),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("catalog_number", "side", "id"),
    )
    op.create_index(
        "entities_by_revision", "entities", ["catalog_number", "side", "revision", "id"]
    )
    _create_interactions()
    _create_models()
    _create_operations()


def _create_interactions() -> None:
    op.create_table(
        "interactions",
        sa.Column("catalog_number", sa.BigInteger, nullable=False),
        sa.Column("user_id", _bytes, nullable=False),
        sa.Column("event_time", sa.BigInteger, nullable=False),
        sa.Column("item_id", _bytes, nullable=False),
        sa.Column("event_type", _bytes, nullable=False),
        sa.Column("event_id", _bytes, nullable=False),
        sa.Column("value", sa.Double),
        sa.PrimaryKeyConstraint(
            "catalog_number", "user_id", "event_time", "item_id", "event_type", "event_id"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "interactions_by_event_id",
        "interactions",
        ["catalog_number", "event_id"],
        unique=True,
        sqlite_where=sa.text("event_id <> ''"),
        postgresql_where=sa.text("event_id <> ''"),
    )


def _create_models() -> None:
    op.create_table(
        "models",
        sa.Column("id", _bytes, primary_key=True),
        sa.Column("catalog_number", _number, sa.ForeignKey("catalogs.number"), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
    )
    op.create_index("models_by_catalog", "models", ["catalog_number", "create_time", "id"])
    op.create_table(
        "releases",
        sa.Column("id", _bytes, primary_key=True),
        sa.Column("catalog_number", _number, sa.ForeignKey("catalogs.number"), nullable=False),
        sa.Column("model_id", _bytes, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("state", _bytes, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("synced_revision", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("create_time", sa.BigInteger, nullable=False),
    )
    op.create_index("releases_by_catalog", "releases", ["catalog_number", "create_time", "id"])
    op.create_index("releases_by_model", "releases", ["model_id"])


def _create_operations() -> None:
    op.create_table(
        "operations",
        sa.Column("id", _bytes, primary_key=True),
        sa.Column("catalog_id", _bytes, nullable=False),
        sa.Column("kind", _bytes, nullable=False),
        sa.Column("state", _bytes, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("progress", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("failure", sa.Text),
        sa.Column("cancel_requested", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("worker_id", _bytes),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("end_time", sa.BigInteger),
    )
    op.create_index("operations_by_state", "operations", ["state", "create_time"])
    op.create_index("operations_by_time", "operations", ["create_time", "id"])
    op.create_table(
        "leases",
        sa.Column("name", _bytes, primary_key=True),
        sa.Column("owner", _bytes, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
