"""The tables, the same on SQLite and PostgreSQL.

Moments are microseconds since 1970. Texts compare by their bytes on both databases, so lists page
in one order. Structured values are JSON in a text column: the database never looks into them.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects import postgresql

METADATA = MetaData()

Bytes = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Text that compares by its UTF-8 bytes."""

Number = BigInteger().with_variant(Integer, "sqlite")
"""A 64-bit number that SQLite can count up by itself."""

CATALOGS = Table(
    "catalogs",
    METADATA,
    Column("number", Number, primary_key=True),  # never used again: rows of big tables name it
    Column("id", Bytes, nullable=False, unique=True),
    Column("declaration", Text, nullable=False),
    Column("active_release_id", Bytes),
    Column("revision", BigInteger, nullable=False, server_default="0"),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

ENTITIES = Table(
    "entities",
    METADATA,
    Column("catalog_number", BigInteger, nullable=False),
    Column("side", Bytes, nullable=False),
    Column("id", Bytes, nullable=False),
    Column("fields", Text),  # null for a tombstone
    Column("revision", BigInteger, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    PrimaryKeyConstraint("catalog_number", "side", "id"),
    Index("entities_by_revision", "catalog_number", "side", "revision", "id"),
)

INTERACTIONS = Table(
    "interactions",
    METADATA,
    Column("catalog_number", BigInteger, nullable=False),
    Column("user_id", Bytes, nullable=False),
    Column("event_time", BigInteger, nullable=False),
    Column("item_id", Bytes, nullable=False),
    Column("event_type", Bytes, nullable=False),
    Column("event_id", Bytes, nullable=False),  # empty where the client gave none
    Column("value", Double),
    # One key serves a history, in order, and finds what is written already.
    PrimaryKeyConstraint(
        "catalog_number", "user_id", "event_time", "item_id", "event_type", "event_id"
    ),
    Index(
        "interactions_by_event_id",
        "catalog_number",
        "event_id",
        unique=True,
        sqlite_where=text("event_id <> ''"),
        postgresql_where=text("event_id <> ''"),
    ),
    sqlite_with_rowid=False,
)

MODELS = Table(
    "models",
    METADATA,
    Column("id", Bytes, primary_key=True),
    Column("catalog_number", Number, ForeignKey("catalogs.number"), nullable=False),
    Column("body", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Index("models_by_catalog", "catalog_number", "create_time", "id"),
)

RELEASES = Table(
    "releases",
    METADATA,
    Column("id", Bytes, primary_key=True),
    Column("catalog_number", Number, ForeignKey("catalogs.number"), nullable=False),
    Column("model_id", Bytes, ForeignKey("models.id"), nullable=False),
    Column("operation_id", Bytes),
    Column("state", Bytes, nullable=False),
    Column("body", Text, nullable=False),
    Column("synced_revision", BigInteger, nullable=False, server_default="0"),
    Column("create_time", BigInteger, nullable=False),
    Index("releases_by_catalog", "catalog_number", "create_time", "id"),
    Index("releases_by_model", "model_id"),
)

OPERATIONS = Table(
    "operations",
    METADATA,
    Column("id", Bytes, primary_key=True),
    Column("catalog_id", Bytes, nullable=False),  # outlives its catalog
    Column("kind", Bytes, nullable=False),
    Column("state", Bytes, nullable=False),
    Column("request", Text, nullable=False),
    Column("progress", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("failure", Text),
    Column("cancel_requested", Integer, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("losses", Integer, nullable=False, server_default="0"),  # attempts whose worker was lost
    Column("worker_id", Bytes),
    Column("lease_until", BigInteger),
    Column("create_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
    Index("operations_by_state", "state", "create_time"),
    Index("operations_by_time", "create_time", "id"),
)

STRAYS = Table(
    "strays",
    METADATA,
    Column("kind", Bytes, nullable=False),
    Column("name", Bytes, nullable=False),
    Column("operation_id", Bytes),  # null where no operation needs it
    PrimaryKeyConstraint("kind", "name"),
)

LEASES = Table(
    "leases",
    METADATA,
    Column("name", Bytes, primary_key=True),
    Column("owner", Bytes, nullable=False),
    Column("until", BigInteger, nullable=False),
)

KEYS = Table(
    "keys",
    METADATA,
    Column("name", Bytes, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    Column("create_time", BigInteger, nullable=False),
)
