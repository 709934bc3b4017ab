"""What belongs to no row, who builds a release, and which attempts were lost.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_bytes = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the table and the columns."""
    op.create_table(
        "strays",
        sa.Column("kind", _bytes, nullable=False),
        sa.Column("name", _bytes, nullable=False),
        sa.Column("operation_id", _bytes),
        sa.PrimaryKeyConstraint("kind", "name"),
    )
    op.add_column("releases", sa.Column("operation_id", _bytes))
    op.add_column("operations", sa.Column("losses", sa.Integer, nullable=False, server_default="0"))
